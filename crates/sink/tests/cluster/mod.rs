//! A real broker, producers, and sinks as processes of their own, to be killed and stopped.

use std::io::Write;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer};
use rustix::process::{Pid, Signal, kill_process};

const PATIENCE: Duration = Duration::from_secs(60);

pub struct Broker {
    child: Option<Child>,
    port: u16,
    home: tempfile::TempDir,
}

fn binary() -> PathBuf {
    let built = || {
        PathBuf::from(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../../target/debug/oncelog"
        ))
    };
    std::env::var_os("ONCELOG_BIN").map_or_else(built, PathBuf::from)
}

impl Broker {
    pub fn start() -> Broker {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let mut broker = Broker {
            child: None,
            port,
            home: tempfile::tempdir().unwrap(),
        };
        broker.spawn();
        broker
    }

    pub fn bootstrap(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    pub fn spawn(&mut self) {
        let mut command = Command::new(binary());
        command.arg("start").arg("--data-dir").arg(self.home.path());
        let listeners = format!("listeners=PLAINTEXT://{}", self.bootstrap());
        for setting in [
            &listeners,
            "http.listener=",
            "group.initial.rebalance.delay.ms=0",
        ] {
            command.args(["--set", setting]);
        }
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        self.child = Some(command.spawn().expect("the binary is built: cargo build"));
        let consumer: BaseConsumer = self.client().create().unwrap();
        let began = Instant::now();
        while consumer
            .fetch_metadata(None, Duration::from_secs(1))
            .is_err()
        {
            assert!(began.elapsed() < PATIENCE, "the broker does not answer");
        }
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        let mut child = self.child.take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    pub fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", self.bootstrap());
        config.set("reconnect.backoff.max.ms", "500");
        config
    }

    pub fn topic(&self, name: &str, partitions: u32) {
        self.oncelog(&[
            "topic",
            "create",
            name,
            "--partitions",
            &partitions.to_string(),
        ]);
    }

    pub fn oncelog(&self, arguments: &[&str]) -> String {
        let output = Command::new(binary())
            .args(arguments)
            .args(["-b", &self.bootstrap()])
            .output()
            .unwrap();
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    pub fn oncelog_with_input(&self, arguments: &[&str], input: &str) {
        let mut child = Command::new(binary())
            .args(arguments)
            .args(["-b", &self.bootstrap()])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        child
            .stdin
            .take()
            .unwrap()
            .write_all(input.as_bytes())
            .unwrap();
        assert!(child.wait().unwrap().success(), "{arguments:?}");
    }

    pub fn producer(&self, more: &[(&str, &str)]) -> Events {
        let mut config = self.client();
        config
            .set("enable.idempotence", "true")
            .set("linger.ms", "2");
        for (name, value) in more {
            config.set(*name, *value);
        }
        Events {
            producer: config.create().unwrap(),
            sent: 0,
        }
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

pub struct Events {
    pub producer: ThreadedProducer<DefaultProducerContext>,
    pub sent: u64,
}

/// As many keys as these events have; one's sequence goes up by one with each event.
pub const KEYS: u64 = 17;

impl Events {
    /// `{"id": "e12", "k": "k12", "seq": 0}`, with the header `id`.
    pub fn send(&mut self, topic: &str, count: u64) {
        for _ in 0..count {
            let n = self.sent;
            let (id, key) = (format!("e{n}"), format!("k{}", n % KEYS));
            let value = format!(
                "{{\"id\": \"{id}\", \"k\": \"{key}\", \"seq\": {}}}",
                n / KEYS
            );
            let headers = OwnedHeaders::new().insert(Header {
                key: "id",
                value: Some(&id),
            });
            let mut record = BaseRecord::to(topic)
                .key(&key)
                .payload(&value)
                .headers(headers);
            while let Err((_, back)) = self.producer.send(record) {
                std::thread::sleep(Duration::from_millis(5));
                record = back;
            }
            self.sent += 1;
        }
    }

    pub fn flush(&self) {
        self.producer.flush(PATIENCE).unwrap();
    }
}

/// A sink in a process of its own: this test binary, called for its test `a_sink_process`.
pub struct SinkProcess {
    child: Child,
}

impl SinkProcess {
    pub fn start(broker: &Broker, config: &str, failpoint: Option<&str>) -> SinkProcess {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["a_sink_process", "--exact", "--ignored", "--nocapture"]);
        command
            .env("SINK_CONFIG", config)
            .env("SINK_BOOTSTRAP", broker.bootstrap());
        if let Some(failpoint) = failpoint {
            command.env("ONCELOG_FAILPOINT", failpoint);
        }
        command.stdin(Stdio::null()).stdout(Stdio::null());
        SinkProcess {
            child: command.spawn().unwrap(),
        }
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.child.id() as i32).unwrap();
        kill_process(pid, signal).unwrap();
    }

    /// SIGSTOP, to all its threads: they have stopped when this returns.
    pub fn pause(&self) {
        self.signal(Signal::STOP);
        let tasks = format!("/proc/{}/task", self.child.id());
        let stopped = |task: std::io::Result<std::fs::DirEntry>| {
            let status = task.and_then(|task| std::fs::read_to_string(task.path().join("stat")));
            let status = status.unwrap_or_default();
            status
                .rsplit(')')
                .next()
                .is_some_and(|rest| rest.trim_start().starts_with('T'))
        };
        wait("it has stopped", || {
            std::fs::read_dir(&tasks).unwrap().all(stopped)
        });
    }

    pub fn resume(&self) {
        self.signal(Signal::CONT);
    }

    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    pub fn wait_for_end(&mut self) {
        wait("the process ends", || self.has_ended());
    }

    /// SIGKILL.
    pub fn kill(mut self) {
        let _ = self.child.kill();
        self.child.wait().unwrap();
    }
}

impl Drop for SinkProcess {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[track_caller]
pub fn wait(what: &str, mut is: impl FnMut() -> bool) {
    let began = Instant::now();
    while !is() {
        assert!(began.elapsed() < PATIENCE, "not in {PATIENCE:?}: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
