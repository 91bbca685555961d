//! The peer of a relay: a worker of Kafka Connect with Debezium's connector for PostgreSQL and its
//! outbox event router, exactly once, on the same outbox and the same broker.
//!
//! A virtual machine has to be warm, so it is not started anew for what waits: its connector is paused
//! while that is written, and goes on.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use databases::port;
use serde_json::{Value, json};

use super::Setting;
use super::part::Part;

const CONNECTOR: &str = "outbox";
const HEAP: &str = "-Xmx1G";
const LIMIT: Duration = Duration::from_secs(90);
const REST_LIMIT: Duration = Duration::from_secs(30);
const GLANCE: Duration = Duration::from_millis(100);

pub struct Worker {
    pub part: Part,
    port: u16,
}

impl Worker {
    /// A worker whose connector reads the outbox of the PostgreSQL at `database_port`.
    pub fn start(setting: &Setting, jars: &Path, database_port: u16) -> Result<Worker> {
        let port = port::free()?;
        let file = setting.home.join("worker.properties");
        std::fs::write(&file, properties(&setting.bootstrap, port))?;
        let log: PathBuf = setting.home.join("worker.log");
        let output = std::fs::File::create(&log)?;
        let mut java = Command::new("java");
        java.arg(HEAP).arg("-cp").arg(jars.join("*"));
        java.arg("org.apache.kafka.connect.cli.ConnectDistributed")
            .arg(&file);
        java.stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output);
        let part = Part::spawn(&mut java, log)?;
        let mut worker = Worker { part, port };
        let config = connector(&setting.topic, database_port).to_string();
        let path = format!("/connectors/{CONNECTOR}/config");
        worker.until("the connector is not taken", |worker| {
            let answer = worker.rest("PUT", &path, &config);
            Ok(matches!(answer, Ok((200 | 201, _))))
        })?;
        worker.await_state("RUNNING")?;
        Ok(worker)
    }

    pub fn pause(&mut self) -> Result<()> {
        self.rest("PUT", &format!("/connectors/{CONNECTOR}/pause"), "")?;
        self.await_state("PAUSED")
    }

    /// It is not awaited.
    pub fn resume(&mut self) -> Result<()> {
        let (status, said) = self.rest("PUT", &format!("/connectors/{CONNECTOR}/resume"), "")?;
        ensure!(
            status == 202,
            "the connector does not go on: {status} {said}"
        );
        Ok(())
    }

    fn await_state(&mut self, wanted: &str) -> Result<()> {
        let path = format!("/connectors/{CONNECTOR}/status");
        self.until("the connector's task is not as it has to be", |worker| {
            let Ok((200, said)) = worker.rest("GET", &path, "") else {
                return Ok(false);
            };
            let status: Value = serde_json::from_str(&said)?;
            Ok(status["tasks"][0]["state"] == wanted)
        })
    }

    fn until(
        &mut self,
        otherwise: &'static str,
        done: impl Fn(&Worker) -> Result<bool>,
    ) -> Result<()> {
        let began = Instant::now();
        while !done(self)? {
            self.part.check()?;
            ensure!(began.elapsed() < LIMIT, otherwise);
            std::thread::sleep(GLANCE);
        }
        Ok(())
    }

    /// Status and body of a request to its REST interface.
    fn rest(&self, method: &str, path: &str, body: &str) -> Result<(u16, String)> {
        let mut socket = TcpStream::connect(("127.0.0.1", self.port))?;
        socket.set_read_timeout(Some(REST_LIMIT))?;
        // With HTTP/1.0 the answer comes in one piece, and the connection ends with it.
        write!(
            socket,
            "{method} {path} HTTP/1.0\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        )?;
        let mut answer = String::new();
        socket.read_to_string(&mut answer)?;
        let status = answer.split_whitespace().nth(1);
        let status = status.context("an answer in HTTP")?.parse()?;
        let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        Ok((status, body.to_owned()))
    }
}

fn properties(bootstrap: &str, port: u16) -> String {
    format!(
        "bootstrap.servers={bootstrap}\nlisteners=http://127.0.0.1:{port}\ngroup.id=connect\n\
         exactly.once.source.support=enabled\n\
         config.storage.topic=connect-configs\nconfig.storage.replication.factor=1\n\
         offset.storage.topic=connect-offsets\noffset.storage.replication.factor=1\n\
         status.storage.topic=connect-status\nstatus.storage.replication.factor=1\n\
         key.converter=org.apache.kafka.connect.storage.StringConverter\n\
         value.converter=org.apache.kafka.connect.json.JsonConverter\n\
         value.converter.schemas.enable=false\nplugin.discovery=service_load\n"
    )
}

fn connector(topic: &str, database_port: u16) -> Value {
    json!({
        "connector.class": "io.debezium.connector.postgresql.PostgresConnector",
        "tasks.max": "1",
        "exactly.once.support": "required",
        "database.hostname": "127.0.0.1",
        "database.port": database_port.to_string(),
        "database.user": "postgres",
        "database.password": "postgres",
        "database.dbname": "postgres",
        "plugin.name": "pgoutput",
        "slot.name": "debezium",
        // The relay's.
        "publication.name": "oncelog_outbox",
        "publication.autocreate.mode": "disabled",
        "table.include.list": "public.outbox",
        "snapshot.mode": "no_data",
        "topic.prefix": "bench",
        "tombstones.on.delete": "false",
        "transforms": "outbox",
        "transforms.outbox.type": "io.debezium.transforms.outbox.EventRouter",
        "transforms.outbox.route.topic.replacement": topic,
    })
}
