//! A small blocking Kafka client for administration, on `oncelog-wire`.
//!
//! It exists because rdkafka's safe API lacks what the commands need: incremental config changes,
//! topic ids and eligible leaders, groups of the new protocol, deleting offsets, and the broker's own
//! words on why it refuses. One request at a time on each connection; a command is a handful of them.
//!
//! Deliberately not here: TLS and SASL. A cluster that needs them is refused with that reason, not
//! half spoken to. Producing and consuming go through `client`; `fetch` is for what that does not
//! show of a partition.

mod apis;
pub mod configs;
mod connection;
mod coordinator;
pub mod fetch;
pub mod groups;
pub mod offsets;
mod refusal;
pub mod transactions;

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::time::{Duration, Instant};

use oncelog_wire::ErrorCode;
use oncelog_wire::messages::metadata_request::MetadataRequestTopic;
use oncelog_wire::messages::metadata_response::MetadataResponseTopic;
use oncelog_wire::messages::{MetadataRequest, MetadataResponse};

use crate::failure::{Exit, Failure};
use crate::options::Options;
use crate::reach;

pub use apis::Api;
pub use connection::Connection;
pub use refusal::{check, refusal};

/// Between two tries of something that the cluster says to try again.
const RETRY_PAUSE: Duration = Duration::from_millis(200);

/// A broker as the cluster's metadata names it.
#[derive(Clone, Debug)]
pub struct Node {
    pub host: String,
    pub port: i32,
    pub rack: Option<String>,
}

impl Node {
    /// `host:port`, with an IPv6 address in brackets.
    pub fn address(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

/// A cluster, reached through one bootstrap server.
pub struct Cluster<'a> {
    options: &'a Options,
    bootstrap: Connection,
    open: BTreeMap<i32, Connection>,
    pub cluster_id: Option<String>,
    /// None while the cluster has none.
    pub controller: Option<i32>,
    pub nodes: BTreeMap<i32, Node>,
}

impl<'a> Cluster<'a> {
    /// Errors: unreachable, not Kafka, or a security protocol that is not spoken here.
    pub fn connect(options: &'a Options) -> Result<Self, Failure> {
        refuse_security(options)?;
        let stream = reach::first_reachable(options)?;
        let address = options.bootstrap_list();
        let bootstrap = Connection::open(stream, address, options)?;
        let mut cluster = Cluster {
            options,
            bootstrap,
            open: BTreeMap::new(),
            cluster_id: None,
            controller: None,
            nodes: BTreeMap::new(),
        };
        cluster.metadata(Some(&[]))?;
        Ok(cluster)
    }

    pub fn options(&self) -> &Options {
        self.options
    }

    /// The connection that was opened first, for what any broker can answer.
    pub fn bootstrap(&mut self) -> &mut Connection {
        &mut self.bootstrap
    }

    /// Sends to the broker that was reached first.
    pub fn any<A: Api>(&mut self, request: &A) -> Result<A::Response, Failure> {
        self.bootstrap.send(request)
    }

    /// Sends to the controller, or to any broker if the cluster names none.
    pub fn controller<A: Api>(&mut self, request: &A) -> Result<A::Response, Failure> {
        match self.controller {
            Some(node) => self.on(node, request),
            None => self.any(request),
        }
    }

    /// Sends to one broker by its id.
    pub fn on<A: Api>(&mut self, node: i32, request: &A) -> Result<A::Response, Failure> {
        self.connection(node)?.send(request)
    }

    /// The connection to one broker, opened on first use.
    pub fn connection(&mut self, node: i32) -> Result<&mut Connection, Failure> {
        match self.open.entry(node) {
            Entry::Occupied(open) => Ok(open.into_mut()),
            Entry::Vacant(vacant) => {
                let address = self
                    .nodes
                    .get(&node)
                    .ok_or_else(|| {
                        Failure::refused(format!("broker {node} is not there"))
                            .why("the cluster's metadata does not name it")
                            .next("`oncelog cluster info` lists the brokers")
                    })?
                    .address();
                let stream = reach::connect(&address).map_err(|error| {
                    Failure::new(
                        Exit::Unreachable,
                        format!(
                            "broker {node} cannot be reached at its advertised address {address}"
                        ),
                    )
                    .why(reach::describe(&error))
                    .next(
                        "start it, or set advertised.listeners on it to an address that can be \
                         reached from here",
                    )
                })?;
                Ok(vacant.insert(Connection::open(stream, address, self.options)?))
            }
        }
    }

    /// Metadata of the named topics, of none (`Some(&[])`), or of all (`None`). Never creates a topic.
    /// Each topic carries its own error code.
    pub fn topics(
        &mut self,
        names: Option<&[&str]>,
    ) -> Result<Vec<MetadataResponseTopic>, Failure> {
        Ok(self.metadata(names)?.topics)
    }

    /// As [`topics`](Self::topics), but a topic with an error is an error.
    pub fn existing_topics(
        &mut self,
        names: &[&str],
    ) -> Result<Vec<MetadataResponseTopic>, Failure> {
        let topics = self.topics(Some(names))?;
        for topic in &topics {
            let name = topic.name.as_deref().unwrap_or("?");
            check(topic.error_code, None, || {
                format!("cannot use topic {name}")
            })?;
        }
        Ok(topics)
    }

    fn metadata(&mut self, names: Option<&[&str]>) -> Result<MetadataResponse, Failure> {
        let topics = names.map(|names| {
            names
                .iter()
                .map(|name| MetadataRequestTopic {
                    name: Some((*name).to_owned()),
                    ..MetadataRequestTopic::default()
                })
                .collect()
        });
        let request = MetadataRequest {
            topics,
            allow_auto_topic_creation: false,
            ..MetadataRequest::default()
        };
        let mut response = self.bootstrap.send(&request)?;
        self.cluster_id.clone_from(&response.cluster_id);
        self.controller = Some(response.controller_id).filter(|&id| id >= 0);
        self.nodes = std::mem::take(&mut response.brokers)
            .into_iter()
            .map(|broker| {
                let node = Node {
                    host: broker.host,
                    port: broker.port,
                    rack: broker.rack,
                };
                (broker.node_id, node)
            })
            .collect();
        Ok(response)
    }

    /// Tries again while the answer is an error that Kafka calls temporary, for as long as one request
    /// may take; then the last error stands.
    pub fn while_retriable<T>(
        &mut self,
        mut attempt: impl FnMut(&mut Self) -> Result<T, Failure>,
        code: impl Fn(&T) -> i16,
    ) -> Result<T, Failure> {
        let started = Instant::now();
        loop {
            let answer = attempt(self)?;
            let again = ErrorCode::from_code(code(&answer)).is_retriable();
            if !again || started.elapsed() >= self.options.request_timeout() {
                return Ok(answer);
            }
            std::thread::sleep(RETRY_PAUSE);
        }
    }
}

fn refuse_security(options: &Options) -> Result<(), Failure> {
    match options.property("security.protocol") {
        None => Ok(()),
        Some(protocol) if protocol.eq_ignore_ascii_case("plaintext") => Ok(()),
        Some(protocol) => Err(Failure::usage(format!(
            "security.protocol={protocol} is not spoken here"
        ))
        .why("administration commands speak PLAINTEXT only; TLS and SASL are not built in yet")
        .next("use a PLAINTEXT listener of the cluster")),
    }
}
