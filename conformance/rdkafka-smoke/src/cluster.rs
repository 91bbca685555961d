//! The broker under test: its address, an admin client, and the topics that this run has made.

use std::cell::RefCell;
use std::future::Future;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, anyhow, bail};
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

pub const TIMEOUT: Duration = Duration::from_secs(30);

pub struct Cluster {
    pub admin: AdminClient<DefaultClientContext>,
    bootstrap: String,
    run: String,
    runtime: tokio::runtime::Runtime,
    made: RefCell<Vec<String>>,
}

impl Cluster {
    pub fn new(bootstrap: &str) -> Result<Self> {
        let nanos = SystemTime::now().duration_since(UNIX_EPOCH)?.as_nanos();
        Ok(Self {
            admin: config(bootstrap).create()?,
            bootstrap: bootstrap.to_owned(),
            run: format!("{:08x}", nanos as u32 ^ std::process::id()),
            runtime: tokio::runtime::Runtime::new()?,
            made: RefCell::default(),
        })
    }

    /// A topic or group name that no earlier run has used.
    pub fn name(&self, what: &str) -> String {
        format!("smoke-rdkafka-{}-{what}", self.run)
    }

    pub fn client(&self, settings: &[(&str, &str)]) -> ClientConfig {
        let mut config = config(&self.bootstrap);
        for (key, value) in settings {
            config.set(*key, *value);
        }
        config
    }

    pub fn wait<T>(&self, answer: impl Future<Output = T>) -> T {
        self.runtime.block_on(answer)
    }

    pub fn topic(&self, what: &str, partitions: i32, configs: &[(&str, &str)]) -> Result<String> {
        let name = self.name(what);
        let mut topic = NewTopic::new(&name, partitions, TopicReplication::Fixed(1));
        for (key, value) in configs {
            topic = topic.set(key, value);
        }
        one(self.wait(self.admin.create_topics([&topic], &options())))?;
        self.made.borrow_mut().push(name.clone());
        Ok(name)
    }

    pub fn delete_topic(&self, name: &str) -> Result<()> {
        one(self.wait(self.admin.delete_topics(&[name], &options())))?;
        self.made.borrow_mut().retain(|made| made != name);
        Ok(())
    }

    pub fn delete_made(&self) -> Result<()> {
        let made = self.made.take();
        if made.is_empty() || std::env::var("ONCELOG_SMOKE_KEEP").is_ok_and(|keep| keep == "1") {
            return Ok(());
        }
        let names: Vec<&str> = made.iter().map(String::as_str).collect();
        for deleted in self.wait(self.admin.delete_topics(&names, &options()))? {
            deleted.map_err(|(name, code)| anyhow!("{name}: {code}"))?;
        }
        Ok(())
    }
}

fn config(bootstrap: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", bootstrap);
    config
}

pub fn options() -> AdminOptions {
    AdminOptions::new()
        .request_timeout(Some(TIMEOUT))
        .operation_timeout(Some(TIMEOUT))
}

/// What an admin call answers for each thing that it was asked about.
type Answers<T, N> = Result<Vec<Result<T, (N, RDKafkaErrorCode)>>, KafkaError>;

/// The one answer of an admin call about one thing.
pub fn one<T, N>(answers: Answers<T, N>) -> Result<T> {
    let answer = answers?.pop().context("an admin call without an answer")?;
    answer.map_err(|(_, code)| KafkaError::AdminOp(code).into())
}

/// `answer` has to be an error of this code.
pub fn refused<T>(answer: Result<T>, want: RDKafkaErrorCode, what: &str) -> Result<()> {
    let Err(error) = answer else {
        bail!("accepted: {what}");
    };
    let got = match error.downcast_ref::<KafkaError>() {
        Some(KafkaError::AdminOp(code)) => Some(*code),
        Some(other) => other.rdkafka_error_code(),
        None => None,
    };
    crate::checks::equal(got, Some(want), &format!("{what} ({error:#})"))
}
