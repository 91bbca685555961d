//! rdkafka, configured from the global options. The only place that builds its clients.
//!
//! Deliberately not here: administration, which goes through `admin` (rdkafka's safe API has no
//! incremental alter, no topic ids and no new-protocol groups, and drops the broker's own words).
//!
//! librdkafka's log lines never reach the screen by themselves: they become tracing events, shown
//! with `-v`. Its global errors are kept as [`Trouble`] so that a failure can say why.

use std::sync::{Arc, Mutex, PoisonError};

use rdkafka::client::ClientContext;
use rdkafka::config::{ClientConfig, FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::metadata::Metadata;

use crate::failure::{Exit, Failure};
use crate::options::{Options, bad_property};

/// librdkafka's complaints about the cluster as a whole; shared with its callbacks.
#[derive(Clone, Default)]
pub struct Trouble(Arc<Mutex<Complaints>>);

#[derive(Default)]
struct Complaints {
    latest: Option<String>,
    all_brokers_down: bool,
}

impl Trouble {
    pub fn note(&self, error: &KafkaError, reason: &str) {
        let mut complaints = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // "1/1 brokers are down" follows the reason why, which is worth more.
        if error.rdkafka_error_code() == Some(RDKafkaErrorCode::AllBrokersDown) {
            complaints.all_brokers_down = true;
        } else {
            complaints.latest = Some(reason.to_owned());
        }
    }

    pub fn latest(&self) -> Option<String> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .latest
            .clone()
    }

    /// Whether every broker was lost since this was last asked, and the latest reason.
    pub fn take_all_brokers_down(&self) -> Option<String> {
        let mut complaints = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let down = std::mem::take(&mut complaints.all_brokers_down);
        down.then(|| {
            complaints
                .latest
                .clone()
                .unwrap_or_else(|| "no reason given".into())
        })
    }
}

/// The callbacks of a client that needs no others.
#[derive(Clone, Default)]
pub struct Quiet {
    pub trouble: Trouble,
}

impl ClientContext for Quiet {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log_line(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::info!(target: "librdkafka", %error, "{reason}");
        self.trouble.note(&error, reason);
    }
}

impl ConsumerContext for Quiet {}

/// One of librdkafka's log lines, as a tracing event. Its own levels are kept, but none of them is
/// an error of the command, so none is above `info` here.
pub fn log_line(level: RDKafkaLogLevel, facility: &str, message: &str) {
    match level {
        RDKafkaLogLevel::Debug => tracing::debug!(target: "librdkafka", "{facility} {message}"),
        _ => tracing::info!(target: "librdkafka", "{facility} {message}"),
    }
}

/// The configuration that every client starts from; `-X` wins over `defaults`, `forced` over both.
pub fn config(
    options: &Options,
    defaults: &[(&str, &str)],
    forced: &[(&str, &str)],
) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("client.id", "oncelog");
    for (key, value) in defaults {
        config.set(*key, *value);
    }
    for (key, value) in &options.properties {
        config.set(key, value);
    }
    for (key, value) in forced {
        config.set(*key, *value);
    }
    config.set("bootstrap.servers", options.bootstrap_list());
    config.set_log_level(match options.verbose {
        0 | 1 => RDKafkaLogLevel::Info,
        _ => RDKafkaLogLevel::Debug,
    });
    config
}

/// Creates a client; what librdkafka refuses is an error of the command line.
pub fn create<C, T>(config: &ClientConfig, context: C) -> Result<T, Failure>
where
    C: ClientContext,
    T: FromClientConfigAndContext<C>,
{
    T::from_config_and_context(config, context).map_err(|error| match error {
        KafkaError::ClientCreation(reason) => {
            Failure::usage("these client properties do not go together").why(reason)
        }
        other => bad_property(&other),
    })
}

/// The metadata of one topic, which must exist.
pub fn topic_metadata<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    topic: &str,
    options: &Options,
    trouble: &Trouble,
) -> Result<Metadata, Failure> {
    let metadata = consumer
        .fetch_metadata(Some(topic), options.request_timeout())
        .map_err(|error| {
            unanswered(
                &format!("cannot read the metadata of topic {topic}"),
                &error,
                trouble,
            )
        })?;
    let error = metadata.topics().first().and_then(|topic| topic.error());
    match error.map(RDKafkaErrorCode::from) {
        None => Ok(metadata),
        Some(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic) => {
            Err(no_such_topic(topic))
        }
        Some(code) => {
            Err(Failure::refused(format!("cannot use topic {topic}")).why(code.to_string()))
        }
    }
}

pub fn no_such_topic(topic: &str) -> Failure {
    Failure::refused(format!("topic {topic} does not exist")).next(format!(
        "`oncelog topic list` shows what does; `oncelog topic create {topic}` makes it"
    ))
}

/// A request that got no answer, or an error instead of one.
pub fn unanswered(what: &str, error: &KafkaError, trouble: &Trouble) -> Failure {
    use RDKafkaErrorCode::{AllBrokersDown, BrokerTransportFailure, OperationTimedOut, Resolve};
    let lost = matches!(
        error.rdkafka_error_code(),
        Some(AllBrokersDown | BrokerTransportFailure | OperationTimedOut | Resolve)
    );
    if !lost {
        return Failure::refused(what).why(error.to_string());
    }
    Failure::new(Exit::Unreachable, what)
        .why(trouble.latest().unwrap_or_else(|| error.to_string()))
        .next(
            "something accepts connections there; check that it is a Kafka broker, and that the \
             addresses it advertises can be reached from here (`oncelog cluster info`)",
        )
}
