//! Running the binary, and names that no other test has.

use std::io::Write;
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::Value;

/// The binary, pointed at the cluster under test.
pub struct Oncelog {
    bootstrap: String,
}

/// What a run left behind.
pub struct Done {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Oncelog {
    /// None, and a line on the terminal, if no cluster is given.
    pub fn new(test: &str) -> Option<Self> {
        match std::env::var("ONCELOG_TEST_BOOTSTRAP") {
            Ok(bootstrap) if !bootstrap.is_empty() => Some(Oncelog { bootstrap }),
            _ => {
                // Not eprintln: the test harness would swallow it.
                let line = format!("SKIPPED {test}: ONCELOG_TEST_BOOTSTRAP names no cluster\n");
                std::io::stderr().write_all(line.as_bytes()).unwrap();
                None
            }
        }
    }

    pub fn bootstrap(&self) -> &str {
        &self.bootstrap
    }

    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_oncelog"));
        command
            .arg("-b")
            .arg(&self.bootstrap)
            .args(args)
            .stdin(Stdio::null());
        command
    }

    pub fn run(&self, args: &[&str]) -> Done {
        done(self.command(args).output().unwrap())
    }

    /// Panics, with what was printed, unless it ends with 0.
    pub fn ok(&self, args: &[&str]) -> String {
        let done = self.run(args);
        assert_eq!(done.code, 0, "{args:?} failed: {}{}", done.out, done.err);
        done.out
    }

    pub fn json(&self, args: &[&str]) -> Value {
        let out = self.ok(&[args, &["--format", "json"]].concat());
        serde_json::from_str(&out).unwrap_or_else(|error| panic!("{args:?}: {error}: {out}"))
    }

    /// Asserts the exit code and that standard error holds `words`.
    pub fn fails(&self, args: &[&str], code: i32, words: &str) {
        let done = self.run(args);
        assert_eq!(done.code, code, "{args:?}: {}{}", done.out, done.err);
        assert!(
            done.err.contains(words),
            "{args:?}: no {words:?} in {}",
            done.err
        );
    }

    pub fn with_input(&self, args: &[&str], input: &[u8]) -> Done {
        let mut child = self
            .command(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let input = input.to_vec();
        let writer = std::thread::spawn(move || {
            // The command may end before it has read everything.
            let _ = stdin.write_all(&input);
        });
        let output = child.wait_with_output().unwrap();
        writer.join().unwrap();
        done(output)
    }

    /// Produces each line of `input`; panics unless all are acknowledged.
    pub fn produce(&self, args: &[&str], input: &str) {
        let done = self.with_input(&[&["produce"], args].concat(), input.as_bytes());
        assert_eq!(done.code, 0, "{args:?}: {}", done.err);
    }

    /// A new topic of its own.
    pub fn topic(&self, partitions: u32) -> String {
        let name = unique("topic");
        self.ok(&[
            "topic",
            "create",
            &name,
            "-p",
            &partitions.to_string(),
            "-r",
            "1",
        ]);
        name
    }

    pub fn spawn(&self, args: &[&str]) -> Running {
        let child = self
            .command(args)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        Running(Some(child))
    }
}

fn done(output: Output) -> Done {
    Done {
        code: output.status.code().unwrap_or(-1),
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// A process that is killed if the test fails before it is done with it.
pub struct Running(Option<Child>);

impl Running {
    pub fn child(&mut self) -> &mut Child {
        self.0.as_mut().unwrap()
    }

    /// As Ctrl-C does.
    pub fn interrupt(mut self) -> Done {
        let child = self.0.take().unwrap();
        let killed = Command::new("kill")
            .args(["-INT", &child.id().to_string()])
            .status()
            .unwrap();
        assert!(killed.success());
        done(child.wait_with_output().unwrap())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// A name that no other test or run has.
pub fn unique(kind: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let ms = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_millis();
    format!("cli-{kind}-{ms}-{}-{number}", std::process::id())
}

/// Waits for something that the cluster does in its own time.
pub fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(started.elapsed() < Duration::from_secs(30), "never: {what}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

impl From<Child> for Running {
    fn from(child: Child) -> Self {
        Running(Some(child))
    }
}
