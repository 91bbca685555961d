use super::*;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

#[derive(Default)]
struct Seen {
    done: Mutex<Vec<u64>>,
    failed: AtomicBool,
}

impl Completions for Seen {
    fn completed(&self, done: Vec<(OpId, DiskOutcome)>) {
        let ops = done.into_iter().map(|(op, _)| op.0);
        self.done.lock().unwrap().extend(ops);
    }

    fn failed(&self, _: Failure) {
        self.failed.store(true, Ordering::SeqCst);
    }

    fn has_failed(&self) -> bool {
        self.failed.load(Ordering::SeqCst)
    }
}

fn write(file: &str, content: &str) -> DiskStep {
    DiskStep::Write {
        file: file.into(),
        content: content.to_owned().into(),
    }
}

fn sync(file: &str) -> DiskStep {
    DiskStep::Sync { file: file.into() }
}

fn sync_dir(dir: &str) -> DiskStep {
    DiskStep::SyncDir { dir: dir.into() }
}

fn rename(from: &str, to: &str) -> DiskStep {
    DiskStep::Rename {
        from: from.into(),
        to: to.into(),
    }
}

/// An atomic replacement, as the log spells it out.
fn replace(dir: &str, name: &str, content: &str) -> Vec<DiskStep> {
    let (file, temporary) = (format!("{dir}/{name}"), format!("{dir}/{name}.tmp"));
    vec![
        write(&temporary, content),
        sync(&temporary),
        rename(&temporary, &file),
        sync_dir(dir),
    ]
}

/// Carries out the pieces among so many others that they are synced together; returns the files,
/// in order, the completed pieces, and whether it failed.
fn carried_out(pieces: &[Vec<DiskStep>]) -> (Vec<(String, String)>, Vec<u64>, bool) {
    let directory = tempfile::tempdir().unwrap();
    let disk = RealDisk::open(directory.path(), 100).unwrap();
    let queue = WorkQueue::default();
    for (op, steps) in pieces.iter().enumerate() {
        queue.push((OpId(op as u64), steps.clone()));
    }
    for other in 0..limits::STEPS_TOGETHER_MIN {
        let steps = replace(&format!("other-{other}"), "file", "x");
        queue.push((OpId(1000 + other as u64), steps));
    }
    queue.close();
    let seen = Seen::default();
    run(&queue, &disk, &seen);
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory.path()).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if name.starts_with("other-") || !disk.path(&name).is_dir() {
            continue;
        }
        for entry in std::fs::read_dir(disk.path(&name)).unwrap() {
            let entry = entry.unwrap();
            let content = std::fs::read_to_string(entry.path()).unwrap();
            let file = entry.file_name().into_string().unwrap();
            files.push((format!("{name}/{file}"), content));
        }
    }
    files.sort();
    let done = seen.done.into_inner().unwrap();
    let own = done.into_iter().filter(|op| *op < 1000).collect();
    (files, own, seen.failed.into_inner())
}

fn check(pieces: &[Vec<DiskStep>], files: &[(&str, &str)], done: &[u64]) {
    let (found, completed, failed) = carried_out(pieces);
    let found: Vec<(&str, &str)> = found.iter().map(|(f, c)| (&**f, &**c)).collect();
    assert_eq!((&found[..], &completed[..], failed), (files, done, false));
}

#[test]
fn what_touches_one_directory_keeps_its_order() {
    check(
        &[
            replace("a-0", "x", "first"),
            replace("a-0", "x", "second"),
            replace("b-0", "x", "other"),
            vec![rename("a-0/x", "a-0/y")],
        ],
        &[("a-0/y", "second"), ("b-0/x", "other")],
        // b-0 need not wait for a-0.
        &[0, 2, 1, 3],
    );
}

#[test]
fn what_touches_the_data_directory_waits_and_is_waited_for() {
    let removed = |dir: &str| DiskStep::RemoveDir { dir: dir.into() };
    check(
        &[
            replace("a-0", "x", "old"),
            vec![rename("a-0", "a-0-delete"), sync_dir("")],
            replace("a-0", "x", "new"),
            replace("c-0", "x", "gone"),
            vec![removed("c-0")],
        ],
        &[("a-0-delete/x", "old"), ("a-0/x", "new")],
        &[0, 1, 2, 3, 4],
    );
}

#[test]
fn the_directory_of_a_piece() {
    let check = |steps: &[DiskStep], expected| assert_eq!(only_directory(steps), expected);
    check(&replace("a-0", "x", ""), Some("a-0"));
    check(
        &[write("a-0/x", ""), sync_dir("a-0"), sync_dir("")],
        Some("a-0"),
    );
    check(&[write("a-0/x", ""), write("b-0/x", "")], None);
    check(&[rename("a-0/x", "b-0/x")], None);
    check(&[rename("a-0", "b-0")], None);
    check(&[write("marker", ""), sync("marker")], None);
    check(&[DiskStep::RemoveDir { dir: "a-0".into() }], None);
}

#[test]
fn nothing_is_done_after_a_failure() {
    let pieces = [
        replace("a-0", "x", "1"),
        // There is no such file.
        vec![rename("b-0/x", "b-0/y"), write("b-0/z", "2")],
        replace("c-0", "x", "3"),
    ];
    let (files, done, failed) = carried_out(&pieces);
    assert!(failed);
    assert_eq!(done, []);
    // The first was on its way to its sync; nothing of the third was begun.
    assert_eq!(files, [("a-0/x.tmp".to_owned(), "1".to_owned())]);
}
