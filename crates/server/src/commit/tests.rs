use super::*;
use bytes::Bytes;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::Duration;

struct Seen {
    done: Mutex<mpsc::Sender<Vec<u64>>>,
    failed: AtomicBool,
}

impl Completions for Seen {
    fn completed(&self, done: Vec<(OpId, DiskOutcome)>) {
        let ops = done.into_iter().map(|(op, _)| op.0).collect();
        self.done.lock().unwrap().send(ops).unwrap();
    }

    fn failed(&self, _failure: Failure) {
        self.failed.store(true, Ordering::SeqCst);
        self.done.lock().unwrap().send(Vec::new()).unwrap();
    }

    fn has_failed(&self) -> bool {
        self.failed.load(Ordering::SeqCst)
    }
}

struct World {
    directory: tempfile::TempDir,
    disk: Arc<RealDisk>,
    commit: Arc<Commit>,
    seen: Arc<Seen>,
    done: mpsc::Receiver<Vec<u64>>,
}

impl World {
    fn new(lanes: usize) -> World {
        let directory = tempfile::tempdir().unwrap();
        let disk = Arc::new(RealDisk::open(directory.path(), 100).unwrap());
        let (sender, done) = mpsc::channel();
        let seen = Arc::new(Seen {
            done: Mutex::new(sender),
            failed: AtomicBool::new(false),
        });
        World {
            directory,
            disk,
            commit: Arc::new(Commit::new(lanes)),
            seen,
            done,
        }
    }

    fn start(&self) -> Vec<std::thread::JoinHandle<()>> {
        let completions: Arc<dyn Completions> = self.seen.clone();
        spawn(&self.commit, &self.disk, &completions).unwrap()
    }

    fn push(&self, op: u64, append: Append) {
        let mut wake = Wake::default();
        self.commit.push(OpId(op), append, &mut wake);
        self.commit.wake(wake);
    }

    fn next(&self) -> Vec<u64> {
        self.done.recv_timeout(Duration::from_secs(10)).unwrap()
    }
}

fn append(file: &str, position: u64, fill: u8) -> Append {
    Append {
        file: file.into(),
        position,
        header: [fill; 61],
        body: Bytes::from(vec![fill; 39]),
        create: position == 0,
        durable: true,
    }
}

#[test]
fn what_waits_together_is_completed_together() {
    let world = World::new(1);
    for op in 0..10u64 {
        world.push(op, append("t-0/0.log", op * 100, op as u8));
    }
    world.push(10, append("t-1/0.log", 0, 10));
    let threads = world.start();
    let mut groups = [world.next(), world.next()];
    groups.sort();
    assert_eq!(groups, [(0..10).collect::<Vec<u64>>(), vec![10]]);
    let written = std::fs::read(world.directory.path().join("t-0/0.log")).unwrap();
    let expected: Vec<u8> = (0..10).flat_map(|fill| [fill; 100]).collect();
    assert_eq!(written, expected);
    world.commit.close();
    for thread in threads {
        thread.join().unwrap();
    }
}

#[test]
fn neighbours_that_come_out_of_order_are_all_written() {
    let world = World::new(1);
    for (op, position) in [(0, 300), (1, 0), (2, 100), (3, 200)] {
        world.push(op, append("t-0/0.log", position, op as u8));
    }
    let threads = world.start();
    assert_eq!(world.next(), [0, 1, 2, 3]);
    let written = std::fs::read(world.directory.path().join("t-0/0.log")).unwrap();
    let expected: Vec<u8> = [1, 2, 3, 0].iter().flat_map(|fill| [*fill; 100]).collect();
    assert_eq!(written, expected);
    world.commit.close();
    threads
        .into_iter()
        .for_each(|thread| thread.join().unwrap());
}

#[test]
fn lanes_work_apart_and_end_when_closed() {
    let world = World::new(4);
    let threads = world.start();
    for op in 0..200u64 {
        world.push(op, append(&format!("t-{}/0.log", op % 8), op / 8 * 100, 1));
    }
    let mut seen = Vec::new();
    while seen.len() < 200 {
        seen.extend(world.next());
    }
    seen.sort_unstable();
    assert_eq!(seen, (0..200).collect::<Vec<u64>>());
    // What is queued when the queue closes is still done.
    world.push(200, append("t-9/0.log", 0, 1));
    world.commit.close();
    threads
        .into_iter()
        .for_each(|thread| thread.join().unwrap());
    assert_eq!(world.next(), [200]);
}

#[test]
fn a_large_group_is_cut() {
    let world = World::new(1);
    let body = Bytes::from(vec![0; limits::COMMIT_GROUP_BYTES / 2]);
    for op in 0..3u64 {
        let position = op * (61 + body.len() as u64);
        let mut append = append("t-0/0.log", position, 0);
        append.body = body.clone();
        world.push(op, append);
    }
    let threads = world.start();
    assert_eq!(world.next(), [0, 1]);
    assert_eq!(world.next(), [2]);
    world.commit.close();
    threads
        .into_iter()
        .for_each(|thread| thread.join().unwrap());
}

#[test]
fn after_a_failure_nothing_is_completed() {
    let world = World::new(1);
    // A file where a directory should be: the write fails.
    world.disk.write_at("t-0", 0, &[b"in the way"]).unwrap();
    world.push(0, append("t-0/0.log", 0, 1));
    world.push(1, append("t-1/0.log", 0, 1));
    let threads = world.start();
    assert!(world.next().is_empty());
    threads
        .into_iter()
        .for_each(|thread| thread.join().unwrap());
    assert!(world.seen.has_failed());
    world.push(2, append("t-1/0.log", 0, 1));
    assert!(world.done.recv_timeout(Duration::from_millis(100)).is_err());
}
