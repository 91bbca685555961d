use super::*;
use std::path::Path;

fn property(key: &str, value: &str, place: Place) -> Property {
    Property {
        key: key.to_owned(),
        value: value.to_owned(),
        place,
    }
}

#[test]
fn flag_over_environment_over_file() {
    let mut layers = Layers::default();
    let text = "num.partitions = 2\n[log.retention]\nms = 5\nbytes = 6\n";
    layers.add(file::parse(Path::new("o.toml"), text, &[]).unwrap());
    layers.add(environment::read([
        ("KAFKA_NUM_PARTITIONS".to_owned(), "3".to_owned()),
        ("KAFKA_LOG_RETENTION_BYTES".to_owned(), "7".to_owned()),
    ]));
    layers.add([property("num.partitions", "4", Place::Flag)]);
    let config = layers.resolve().unwrap();
    assert_eq!(config.num_partitions, 4);
    assert_eq!(config.properties["log.retention.bytes"], "7");
    assert_eq!(config.properties["log.retention.ms"], "5");
    assert_eq!(layers.place_of("num.partitions"), Some(&Place::Flag));
}

#[test]
fn every_mistake_is_reported_with_its_place() {
    let mut layers = Layers::default();
    let text = "num.partitons=2\nnode.id=x\n";
    layers.add(file::parse(Path::new("server.properties"), text, &[]).unwrap());
    layers.add(environment::read([(
        "KAFKA_LISTENERZ".to_owned(),
        "x".to_owned(),
    )]));
    let error = layers.resolve().unwrap_err().to_string();
    assert!(
        error.contains("did you mean num.partitions? (server.properties:1)"),
        "{error}"
    );
    assert!(error.contains("node.id: "), "{error}");
    assert!(error.contains("(server.properties:2)"), "{error}");
    assert!(
        error.contains("did you mean listeners? (environment variable KAFKA_LISTENERZ)"),
        "{error}"
    );
}

/// The file that every Kafka 4 download starts with, less its comments.
#[test]
fn kafkas_own_server_properties_is_accepted_unchanged() {
    let text = "\
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
    let mut layers = Layers::default();
    layers.add(file::parse(Path::new("server.properties"), text, &[]).unwrap());
    let config = layers.resolve().unwrap();
    assert_eq!(config.log_dir, "/tmp/kraft-combined-logs");
    assert_eq!(config.listeners.len(), 1);
}
