use super::*;

fn synced(disk: &MemoryDisk, file: &str, content: &[u8]) {
    disk.write_at(file, 0, &[content]).unwrap();
    disk.sync(file).unwrap();
    let (dir, _) = split(file);
    disk.sync_dir(dir).unwrap();
    disk.sync_dir("").unwrap();
}

#[test]
fn behaves_like_a_disk() {
    let disk = MemoryDisk::new();
    disk.write_at("a/b", 2, &[b"xy", b"z"]).unwrap();
    assert_eq!(disk.content("a/b").unwrap(), b"\0\0xyz");
    let mut buffer = [9; 4];
    assert_eq!(disk.read_at("a/b", 3, &mut buffer).unwrap(), 2);
    assert_eq!(&buffer, b"yz\x09\x09");
    assert_eq!(disk.read_at("a/b", 99, &mut buffer).unwrap(), 0);
    assert_eq!(disk.len("a/b").unwrap(), Some(5));
    assert_eq!(disk.len("a/c").unwrap(), None);
    assert_eq!(disk.list("").unwrap(), ["a"]);
    assert_eq!(disk.list("nowhere").unwrap(), [""; 0]);
    disk.write_at("a/c", 0, &[b"c"]).unwrap();
    disk.rename("a/c", "a/b").unwrap();
    assert_eq!(disk.list("a").unwrap(), ["b"]);
    assert_eq!(disk.content("a/b").unwrap(), b"c");
    disk.rename("a", "d").unwrap();
    assert_eq!(disk.content("d/b").unwrap(), b"c");
    disk.truncate("d/b", 3).unwrap();
    assert_eq!(disk.content("d/b").unwrap(), b"c\0\0");
    disk.remove("d/b").unwrap();
    disk.remove("d/b").unwrap();
    let missing = disk.read_at("d/b", 0, &mut buffer).unwrap_err();
    assert_eq!(missing.kind(), io::ErrorKind::NotFound);
    disk.remove_dir("d").unwrap();
    assert_eq!(disk.list("").unwrap(), [""; 0]);
}

#[test]
fn what_is_synced_survives_every_crash() {
    for seed in 0..200 {
        let disk = MemoryDisk::new();
        synced(&disk, "d/kept", b"kept");
        disk.write_at("d/kept", 4, &[&[7; 2000]]).unwrap();
        disk.write_at("d/new", 0, &[b"new"]).unwrap();
        disk.crash(seed);
        assert_eq!(
            disk.content("d/kept").unwrap()[..4],
            *b"kept",
            "seed {seed}"
        );
        assert_eq!(disk.unsynced_bytes(), 0);
    }
}

/// Everything that the model says can happen does happen within some seeds.
#[test]
fn crashes_are_of_all_kinds() {
    let mut seen = BTreeMap::new();
    for seed in 0..500 {
        let disk = MemoryDisk::new();
        synced(&disk, "d/f", b"");
        disk.write_at("d/f", 0, &[&[1; 1024]]).unwrap();
        disk.write_at("d/f", 1024, &[&[2; 1024]]).unwrap();
        disk.write_at("d/unsynced-entry", 0, &[b"x"]).unwrap();
        disk.sync("d/unsynced-entry").unwrap();
        disk.rename("d/f", "d/g").unwrap();
        disk.crash(seed);
        let renamed = disk.content("d/g").is_some();
        assert_eq!(renamed, disk.content("d/f").is_none(), "a rename is atomic");
        let content = disk.content(if renamed { "d/g" } else { "d/f" }).unwrap();
        let sectors: Vec<u8> = content.chunks(512).map(|sector| sector[0]).collect();
        *seen.entry(format!("renamed {renamed}")).or_insert(0) += 1;
        *seen.entry(format!("{sectors:?}")).or_insert(0) += 1;
        let entry = disk.content("d/unsynced-entry").is_some();
        *seen.entry(format!("entry {entry}")).or_insert(0) += 1;
    }
    for expected in [
        "renamed true",
        "renamed false",
        "entry true",
        "entry false",
        "[]",
        "[1, 1, 2, 2]",
        "[1, 1]",
        "[0, 0, 2, 2]",
        "[1, 1, 2]",
        "[0, 0, 0, 0]",
        "[1, 1, 0, 2]",
    ] {
        assert!(seen.contains_key(expected), "{expected} in {seen:?}");
    }
}

#[test]
fn the_same_seed_is_the_same_crash() {
    let disk = MemoryDisk::new();
    for i in 0..50 {
        disk.write_at("d/f", i * 700, &[&[i as u8; 700]]).unwrap();
    }
    disk.sync_dir("d").unwrap();
    disk.sync_dir("").unwrap();
    for seed in 0..20 {
        let (one, two) = (disk.fork(), disk.fork());
        one.crash(seed);
        two.crash(seed);
        assert_eq!(one.content("d/f"), two.content("d/f"));
    }
}

#[test]
fn faults() {
    let disk = MemoryDisk::new();
    disk.fail_write(1, Fault::NoSpace);
    disk.write_at("f", 0, &[b"ok"]).unwrap();
    for _ in 0..2 {
        let full = disk.write_at("f", 2, &[b"full"]).unwrap_err();
        assert_eq!(full.kind(), io::ErrorKind::StorageFull);
    }
    disk.clear_faults();
    disk.fail_sync(0, Fault::Io);
    assert!(disk.sync("f").is_err());
    disk.fail_read(0, Fault::Io);
    assert!(disk.read_at("f", 0, &mut [0]).is_err());
    assert!(disk.read_at("f", 0, &mut [0]).is_ok());
    disk.cut_power_after(1);
    disk.write_at("g", 0, &[b"last"]).unwrap();
    assert!(disk.write_at("g", 0, &[b"late"]).is_err());
    assert!(disk.len("g").is_err());
    disk.crash(0);
    assert!(disk.len("g").is_ok());
}

#[test]
fn after_a_failed_sync_the_next_one_lies() {
    let disk = MemoryDisk::new();
    synced(&disk, "f", b"synced");
    disk.write_at("f", 6, &[b" and lost"]).unwrap();
    disk.fail_sync(0, Fault::Io);
    assert!(disk.sync("f").is_err());
    disk.pending_free_sync("f");
    disk.crash(1);
    assert_eq!(disk.content("f").unwrap(), b"synced");
}

impl MemoryDisk {
    /// A sync whose success says nothing, as after a failed one.
    fn pending_free_sync(&self, file: &str) {
        assert!(self.lock().file_mut(file).unwrap().pending.is_empty());
        self.sync(file).unwrap();
    }
}
