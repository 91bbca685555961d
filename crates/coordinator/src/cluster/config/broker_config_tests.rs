use super::*;

fn read(text: &str) -> Result<BrokerConfig, Vec<ConfigError>> {
    let pair = |line: &str| {
        let (name, value) = line.split_once('=').expect("a line of a properties file");
        (name.trim().to_owned(), value.trim().to_owned())
    };
    let lines = text.lines().filter(|line| !line.trim().is_empty());
    BrokerConfig::from_properties(&lines.map(pair).collect())
}

/// `expected`: a part of the one error.
fn refused(text: &str, key: &str, expected: &str) {
    let errors = read(text).expect_err(text);
    let [error] = &errors[..] else {
        panic!("{text}: {errors:?}");
    };
    assert_eq!(error.key, key, "{text}");
    assert!(error.message.contains(expected), "{text}: {error}");
}

#[test]
fn nothing_given() {
    let config = BrokerConfig::default();
    assert_eq!(config.node_id, 1);
    assert_eq!(config.log_dir, "oncelog-data");
    assert_eq!(config.listeners[0].to_string(), "PLAINTEXT://:9092");
    assert_eq!(
        config.http_listener.as_ref().map(|http| http.port),
        Some(9644)
    );
    assert_eq!(config.queued_max_request_bytes, Some(256 << 20));
    assert_eq!(config.offsets_retention_ms, 7 * 24 * 3_600_000);
    assert_eq!(config.group_consumer_assignors, ["uniform", "range"]);
    assert_eq!(config.rack, None);
    assert_eq!(config.warnings, Vec::<String>::new());
}

/// The keys and values of the file that ships with Kafka 4.
const STOCK: &str = "
process.roles=broker,controller
node.id=1
controller.quorum.bootstrap.servers=localhost:9093
listeners=PLAINTEXT://:9092,CONTROLLER://:9093
inter.broker.listener.name=PLAINTEXT
advertised.listeners=PLAINTEXT://localhost:9092,CONTROLLER://localhost:9093
controller.listener.names=CONTROLLER
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SSL:SSL,SASL_PLAINTEXT:SASL_PLAINTEXT,SASL_SSL:SASL_SSL
num.network.threads=3
num.io.threads=8
socket.send.buffer.bytes=102400
socket.receive.buffer.bytes=102400
socket.request.max.bytes=104857600
log.dirs=/tmp/kraft-combined-logs
num.partitions=1
num.recovery.threads.per.data.dir=1
offsets.topic.replication.factor=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
log.retention.hours=168
log.segment.bytes=1073741824
log.retention.check.interval.ms=300000
";

#[test]
fn kafkas_own_file_starts() {
    let config = read(STOCK).expect("accepted");
    assert_eq!(config.log_dir, "/tmp/kraft-combined-logs");
    assert_eq!(
        config.advertised_listeners[0].to_string(),
        "PLAINTEXT://localhost:9092"
    );
    assert_eq!(config.offsets_topic_replication_factor, 1);
    assert!(config.properties.contains_key("log.retention.hours"));
    assert!(!config.properties.contains_key("num.io.threads"));
    assert_eq!(config.warnings.len(), 13, "{:#?}", config.warnings);
    assert!(
        config
            .warnings
            .iter()
            .any(|w| w.starts_with("num.io.threads is accepted and has no effect"))
    );
}

#[test]
fn the_one_of_zookeeper_times_too() {
    let config = read(
        "broker.id=3\nzookeeper.connect=localhost:2181\nzookeeper.connection.timeout.ms=18000\n\
         group.initial.rebalance.delay.ms=0\nlog.dirs=/data",
    )
    .expect("accepted");
    assert_eq!((config.node_id, config.warnings.len()), (3, 2));
}

/// What a compose file for the Kafka image sets.
#[test]
fn two_listeners_for_inside_and_outside() {
    let mut config = read(
        "listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,PLAINTEXT_HOST:PLAINTEXT
         listeners=CONTROLLER://:29093,PLAINTEXT_HOST://:9092,PLAINTEXT://:0
         advertised.listeners=PLAINTEXT_HOST://localhost:9092
         controller.listener.names=CONTROLLER",
    )
    .expect("accepted");
    config.fill_in_addresses("box", &[9092, 40_001]);
    let advertised: Vec<_> = config
        .advertised_listeners
        .iter()
        .map(Listener::to_string)
        .collect();
    assert_eq!(
        advertised,
        ["PLAINTEXT_HOST://localhost:9092", "PLAINTEXT://box:40001"]
    );
}

#[test]
fn refusals() {
    for (text, key, expected) in [
        (
            "num.partition=1",
            "num.partition",
            "did you mean num.partitions?",
        ),
        ("banana=1", "banana", "no such configuration"),
        ("num.partitions=0", "num.partitions", "at least 1"),
        ("num.partitions=many", "num.partitions", "INT"),
        (
            "ssl.keystore.location=/k",
            "ssl.keystore.location",
            "TLS, SASL",
        ),
        (
            "sasl.enabled.mechanisms=PLAIN",
            "sasl.enabled.mechanisms",
            "TLS, SASL",
        ),
        (
            "authorizer.class.name=a.B",
            "authorizer.class.name",
            "access control",
        ),
        ("listeners=SSL://:9093", "listeners", "only PLAINTEXT"),
        (
            "security.inter.broker.protocol=SSL",
            "security.inter.broker.protocol",
            "TLS",
        ),
        ("compression.type=none", "compression.type", "uncompressed"),
        ("log.dirs=/a,/b", "log.dirs", "several directories"),
        ("broker.id=1\nnode.id=2", "broker.id", "node.id is 2"),
        ("http.listener=nowhere", "http.listener", "http://host:port"),
        (
            "process.roles=controller",
            "process.roles",
            "use broker,controller",
        ),
        (
            "process.roles=broker",
            "process.roles",
            "use broker,controller",
        ),
        (
            "controller.quorum.voters=1@a:1,2@b:1",
            "controller.quorum.voters",
            "several nodes",
        ),
        (
            "group.min.session.timeout.ms=10\ngroup.max.session.timeout.ms=9",
            "group.min.session.timeout.ms",
            "is more than group.max.session.timeout.ms",
        ),
        (
            "group.consumer.assignors=",
            "group.consumer.assignors",
            "at least one",
        ),
        (
            "group.consumer.assignors=org.Mine",
            "group.consumer.assignors",
            "uniform, range",
        ),
        (
            "log.cleaner.min.compaction.lag.ms=10\nlog.cleaner.max.compaction.lag.ms=5",
            "log.cleaner.min.compaction.lag.ms",
            "is more than",
        ),
        (
            "remote.log.storage.system.enable=true",
            "remote.log.storage.system.enable",
            "tiered",
        ),
        ("port=9092", "port", "use listeners"),
    ] {
        refused(text, key, expected);
    }
    let long = format!("broker.rack={}", "r".repeat(40_000));
    refused(&long, "broker.rack", "longer than 32767 bytes");
    let harmless = "authorizer.class.name=\nremote.log.storage.system.enable=false\n\
                    security.inter.broker.protocol=PLAINTEXT\nhttp.listener=";
    let config = read(harmless).expect("these ask for nothing");
    assert_eq!((config.http_listener, config.warnings.len()), (None, 0));
}

#[test]
fn every_mistake_is_reported() {
    let errors = read("a.b=1\nnum.partitions=x\nssl.protocol=TLS\nlisteners=x").unwrap_err();
    let keys: Vec<&str> = errors.iter().map(|error| error.key.as_str()).collect();
    for key in ["a.b", "num.partitions", "ssl.protocol", "listeners"] {
        assert!(keys.contains(&key), "{key}: {errors:?}");
    }
}

#[test]
fn the_coordinators_share() {
    let config = read("group.max.size=7\noffsets.retention.minutes=2").unwrap();
    let group = config.group_config();
    assert_eq!((group.max_size, group.offsets_retention_ms), (7, 120_000));
    assert_eq!(
        BrokerConfig::default().group_config(),
        GroupConfig::default()
    );
}
