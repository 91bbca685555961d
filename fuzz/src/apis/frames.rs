//! Frames of any content, as anybody may send them who finds the port.

use crate::host::{Host, start};
use crate::requests::*;
use bytes::Bytes;
use oncelog_wire::{ApiKey, apis};

const FRAMES_MAX: usize = 24;

/// A sequence of: place in the table of APIs, version above the lowest, length of the body, body.
/// Before it, a broker with a topic and some records; after it, one that works.
pub fn run(mut input: &[u8]) {
    let mut host = start(&[]);
    let topic = Topic::new(&mut host, "t", 2);
    produced(&mut host, &topic, 0, batch(&["one", "two"]));
    let mut connection = host.connect();
    for _ in 0..FRAMES_MAX {
        let [row, version, length, rest @ ..] = input else {
            break;
        };
        let (body, rest) = rest.split_at(rest.len().min(usize::from(*length)));
        host.send_anything(connection, frame(*row, *version, body));
        if host.closed(connection).is_some() {
            host.disconnect(connection);
            connection = host.connect();
        }
        input = rest;
    }
    works(&mut host, "before");
    host.pass_ms(400_000);
    host.shut_down();
    let mut host = host.reopen();
    works(&mut host, "after");
}

fn frame(row: u8, version: u8, body: &[u8]) -> Bytes {
    let served = &apis::SERVED[usize::from(row) % apis::SERVED.len()];
    let versions = served.max_version - served.min_version + 1;
    let version = served.min_version + i16::from(version) % versions;
    let key: ApiKey = served.key;
    let mut frame = Vec::new();
    frame.extend(key.code().to_be_bytes());
    frame.extend(version.to_be_bytes());
    frame.extend([0, 0, 0, 7, 0, 2, b'm', b'e']);
    if key.request_header_version(version) == 2 {
        frame.push(0);
    }
    frame.extend(body);
    frame.into()
}

/// A topic is made, written and read.
fn works(host: &mut Host, name: &str) {
    // Somebody may have made it.
    let id = topic_id(host, name);
    let topic = Topic {
        id: id.unwrap_or_else(|| create_topic(host, name, 1, &[])),
        name: name.to_owned(),
    };
    let offset = produced(host, &topic, 0, batch(&["works"]));
    let read = fetched(host, &topic, 0, offset);
    assert_eq!(read, [(offset, "works".to_owned())]);
}

/// For each API that is served, a request of zeros and one of twos, in its lowest and highest
/// versions.
pub fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for (row, served) in apis::SERVED.iter().enumerate() {
        for version in [0, (served.max_version - served.min_version) as u8] {
            let mut seed = vec![3];
            for fill in [0, 2] {
                seed.extend([row as u8, version, 60]);
                seed.extend([fill; 60]);
            }
            seeds.push(seed);
        }
    }
    seeds
}
