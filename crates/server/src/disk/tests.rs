//! One contract, two disks: what the simulator's disk does, the real one does.

use super::lock::{DirectoryLock, LockError};
use super::*;
use oncelog_commitlog::testing::{MemoryDisk, Random};

fn real(descriptors: usize) -> (tempfile::TempDir, RealDisk) {
    let directory = tempfile::tempdir().unwrap();
    let disk = RealDisk::open(directory.path(), descriptors).unwrap();
    (directory, disk)
}

fn check(contract: impl Fn(&dyn Disk)) {
    contract(&MemoryDisk::new());
    contract(&real(1000).1);
    contract(&real(0).1); // a cache that is always full
}

fn content(disk: &dyn Disk, file: &str) -> io::Result<Vec<u8>> {
    let length = disk.len(file)?.ok_or(ErrorKind::NotFound)?;
    let mut bytes = vec![0; length as usize + 10];
    let read = disk.read_at(file, 0, &mut bytes)?;
    bytes.truncate(read);
    Ok(bytes)
}

#[test]
fn writes_and_reads_are_positional() {
    check(|disk| {
        assert_eq!(disk.len("a-0/x.log").unwrap(), None);
        let mut buffer = [0; 4];
        let missing = disk.read_at("a-0/x.log", 0, &mut buffer).unwrap_err();
        assert_eq!(missing.kind(), ErrorKind::NotFound);
        disk.write_at("a-0/x.log", 0, &[b"hello ", b"", b"world"])
            .unwrap();
        disk.write_at("a-0/x.log", 6, &[b"W"]).unwrap();
        disk.write_at("a-0/x.log", 13, &[b"!"]).unwrap();
        assert_eq!(content(disk, "a-0/x.log").unwrap(), b"hello World\0\0!");
        assert_eq!(disk.read_at("a-0/x.log", 12, &mut buffer).unwrap(), 2);
        assert_eq!(disk.read_at("a-0/x.log", 99, &mut buffer).unwrap(), 0);
        disk.write_at("a-0/empty", 0, &[]).unwrap();
        assert_eq!(disk.len("a-0/empty").unwrap(), Some(0));
        disk.sync("a-0/x.log").unwrap();
        disk.sync_dir("a-0").unwrap();
        disk.sync_dir("").unwrap();
        assert_eq!(disk.list("a-0").unwrap(), ["empty", "x.log"]);
        assert_eq!(disk.list("").unwrap(), ["a-0"]);
        assert!(disk.list("nowhere").unwrap().is_empty());
        assert_eq!(disk.len("a-0/x.log/below").unwrap(), None);
        assert!(disk.list("a-0/x.log").is_err(), "it is no directory");
        let below = disk.read_at("a-0/x.log/below", 0, &mut buffer).unwrap_err();
        assert_eq!(below.kind(), ErrorKind::NotFound);
        disk.truncate("a-0/x.log", 5).unwrap();
        assert_eq!(content(disk, "a-0/x.log").unwrap(), b"hello");
    });
}

#[test]
fn a_name_leads_to_the_file_that_bears_it_now() {
    check(|disk| {
        disk.write_at("t/a", 0, &[b"old a"]).unwrap();
        disk.write_at("t/b", 0, &[b"old b"]).unwrap();
        disk.rename("t/a", "t/b").unwrap();
        assert_eq!(content(disk, "t/b").unwrap(), b"old a");
        assert_eq!(disk.len("t/a").unwrap(), None);
        disk.write_at("t/a", 0, &[b"new a"]).unwrap();
        assert_eq!(content(disk, "t/b").unwrap(), b"old a");
        disk.rename("t", "t.1-delete").unwrap();
        assert_eq!(disk.len("t/a").unwrap(), None);
        assert_eq!(content(disk, "t.1-delete/a").unwrap(), b"new a");
        disk.write_at("t/a", 0, &[b"another"]).unwrap();
        assert_eq!(content(disk, "t.1-delete/a").unwrap(), b"new a");
        disk.remove("t/a").unwrap();
        disk.remove("t/a").unwrap();
        assert_eq!(disk.len("t/a").unwrap(), None);
        disk.remove_dir("t.1-delete").unwrap();
        disk.remove_dir("t.1-delete").unwrap();
        assert_eq!(disk.len("t.1-delete/a").unwrap(), None);
        assert_eq!(
            disk.read_at("t.1-delete/a", 0, &mut [0])
                .unwrap_err()
                .kind(),
            ErrorKind::NotFound
        );
        disk.write_at("t.1-delete/a", 0, &[b"x"]).unwrap();
        assert_eq!(content(disk, "t.1-delete/a").unwrap(), b"x");
    });
}

/// The same random operations on both disks leave the same files and say the same.
#[test]
fn both_disks_agree_on_random_operations() {
    for seed in 0..20 {
        let memory = MemoryDisk::new();
        let (_directory, real) = real(8 + seed as usize % 4);
        let mut random = Random::new(seed);
        let files = [
            "a/1", "a/2", "b/1", "b/2", "c", "d/1", "d/2", "d/3", "d/4", "d/5", "d/6",
        ];
        let mut pick = || files[random.below(files.len() as u64) as usize];
        let mut script = Vec::new();
        for _ in 0..300 {
            script.push((pick(), pick()));
        }
        for (step, (one, other)) in script.into_iter().enumerate() {
            let position = random.below(50);
            let kind = random.below(8);
            let run = |disk: &dyn Disk| -> Result<String, ErrorKind> {
                let kind_of = |e: io::Error| e.kind();
                match kind {
                    0..=2 => disk
                        .write_at(one, position, &[b"abc", &[step as u8]])
                        .map_err(kind_of)?,
                    3 => disk.remove(one).map_err(kind_of)?,
                    4 if one != other => disk.rename(one, other).map_err(kind_of)?,
                    5 => disk.truncate(one, position).map_err(kind_of)?,
                    6 if step % 40 == 0 => disk.remove_dir("d").map_err(kind_of)?,
                    _ => return Ok(format!("{:?}", content(disk, one).map_err(kind_of)?)),
                }
                Ok(String::new())
            };
            // Renames into directories that are not there are the caller's mistake on both, in
            // different words.
            if kind == 4
                && real
                    .list(other.split_once('/').map_or("", |p| p.0))
                    .unwrap()
                    .is_empty()
            {
                continue;
            }
            assert_eq!(
                run(&real),
                run(&memory),
                "seed {seed} step {step} kind {kind} {one} {other}"
            );
        }
        for file in files {
            assert_eq!(
                content(&real, file).ok(),
                content(&memory, file).ok(),
                "{seed} {file}"
            );
        }
    }
}

#[test]
fn the_cache_is_bounded_and_a_removed_file_stays_readable() {
    let (_directory, disk) = real(20);
    for number in 0..100 {
        disk.write_at(&format!("d/{number}"), 0, &[b"x"]).unwrap();
        assert!(disk.open.count() <= 20);
    }
    let held = disk.file("d/99").unwrap();
    disk.remove("d/99").unwrap();
    let mut byte = [0];
    assert_eq!(rustix::io::pread(&held, &mut byte, 0).unwrap(), 1);
    assert!(disk.file("d/99").is_err());
}

#[test]
fn many_threads_on_one_file() {
    let (_directory, disk) = real(8);
    std::thread::scope(|scope| {
        for thread in 0..8u8 {
            let disk = &disk;
            scope.spawn(move || {
                for round in 0..100u64 {
                    let position = u64::from(thread) * 100 + round;
                    disk.write_at("d/shared", position, &[&[thread]]).unwrap();
                    // Something else that turns the cache over.
                    disk.write_at(&format!("d/{thread}-{}", round % 5), 0, &[b"y"])
                        .unwrap();
                }
            });
        }
    });
    let bytes = content(&disk, "d/shared").unwrap();
    let expected: Vec<u8> = (0..8).flat_map(|thread| [thread; 100]).collect();
    assert_eq!(bytes, expected);
}

#[test]
fn more_buffers_than_one_call_takes() {
    let (_directory, disk) = real(8);
    let parts: Vec<Vec<u8>> = (0..3000u32)
        .map(|i| i.to_be_bytes()[..(i % 5) as usize].to_vec())
        .collect();
    let buffers: Vec<&[u8]> = parts.iter().map(|part| &part[..]).collect();
    disk.write_at("f", 3, &buffers).unwrap();
    assert_eq!(content(&disk, "f").unwrap()[3..], parts.concat());
}

#[test]
fn no_path_leaves_the_directory() {
    let (_directory, disk) = real(8);
    for name in ["../x", "a/../../x", "/etc/x", "a//b", ".", "a/./b", "a\0b"] {
        let error = disk.write_at(name, 0, &[b"x"]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{name}");
    }
    assert!(disk.remove_dir("").is_err());
}

#[test]
fn one_broker_for_each_directory() {
    let (directory, disk) = real(8);
    let first = DirectoryLock::acquire(disk.root()).unwrap();
    let second = DirectoryLock::acquire(directory.path()).unwrap_err();
    assert!(matches!(second, LockError::InUse { .. }));
    let said = second.to_string();
    assert!(
        said.contains(&format!("(process {})", std::process::id())),
        "{said}"
    );
    assert!(
        disk.list("").unwrap().is_empty(),
        "the lock is not the log's business"
    );
    drop(first);
    DirectoryLock::acquire(directory.path()).unwrap();
}

#[test]
fn a_disk_failure_is_remembered_until_it_was_acted_upon() {
    let (_directory, disk) = real(8);
    let begin = || DirectoryLock::acquire(disk.root()).unwrap();
    let first = begin();
    assert!(!first.is_after_disk_failure());
    first.note_disk_failure(true).unwrap();
    drop(first);
    assert!(begin().is_after_disk_failure());
    let third = begin();
    assert!(third.is_after_disk_failure(), "the second did nothing yet");
    disk.forget_cached().unwrap();
    third.note_disk_failure(false).unwrap();
    drop(third);
    assert!(!begin().is_after_disk_failure());
}
