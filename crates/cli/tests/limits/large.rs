//! The largest request there is: 100 MiB in one frame.

use std::io::Write;
use std::time::{Duration, Instant};

use crate::raw::{self, Client};
use crate::{ONCELOG, alone, mib};
use crash_campaign::process::{Broker, say};

/// `socket.request.max.bytes` by default.
const FRAME_MAX: usize = 100 << 20;
const MESSAGE_TOO_LARGE: i16 = 10;

/// A produce request whose frame has `length` bytes, length prefix apart.
fn frame_of(client: &mut Client, topic: &str, length: usize) -> bytes::Bytes {
    let overhead = {
        let small = client.frame(raw::PRODUCE, &raw::produce(topic, &vec![1; 1 << 24]));
        small.len() - 4 - (1 << 24)
    };
    let value = vec![1; length - overhead];
    let frame = client.frame(raw::PRODUCE, &raw::produce(topic, &value));
    assert_eq!(frame.len() - 4, length);
    frame
}

#[test]
fn the_largest_frame_is_judged_and_its_memory_comes_back() {
    let _alone = alone();
    let broker = Broker::started(ONCELOG, &[]);
    let port = broker.port();
    let mut client = Client::connect(port).unwrap();
    client.create_topic("events", &[]);
    client.create_topic("large", &[("max.message.bytes", "104857600")]);
    raw::bystander(port, "events", 50);
    let before = broker.resident();
    for (topic, expected) in [("events", Err(MESSAGE_TOO_LARGE)), ("large", Ok(()))] {
        broker.forget_peak();
        let frame = frame_of(&mut client, topic, FRAME_MAX);
        let began = Instant::now();
        client.stream.write_all(&frame).unwrap();
        let answer = client.receive(oncelog_wire::ApiKey::Produce, raw::PRODUCE);
        let took = began.elapsed();
        let oncelog_wire::ResponseBody::Produce(answer) = answer.unwrap() else {
            panic!()
        };
        let code = answer.responses[0].partition_responses[0].error_code;
        let found = if code == 0 { Ok(()) } else { Err(code) };
        assert_eq!(found, expected, "{topic}: {answer:?}");
        std::thread::sleep(Duration::from_millis(500));
        let (peak, after) = (broker.peak() - before, broker.resident());
        say(&format!(
            "a frame of 100 MiB to a topic that {}: answered after {took:.0?}, memory grew by {} \
             at most and is {} now ({} before)",
            if found.is_ok() {
                "takes it"
            } else {
                "does not"
            },
            mib(peak),
            mib(after),
            mib(before)
        ));
        assert!(peak < 2 * FRAME_MAX as u64 + (48 << 20), "{}", mib(peak));
        assert!(after < before + (32 << 20), "{}", mib(after));
    }
    assert!(client.fetch("large", 0).unwrap() > FRAME_MAX - 1_000);
    // One byte more is refused before a byte of it is read.
    let mut greedy = Client::connect(port).unwrap();
    let length = (FRAME_MAX as u32 + 1).to_be_bytes();
    greedy.stream.write_all(&length).unwrap();
    assert!(greedy.is_closed_within(Duration::from_secs(5)));
    raw::bystander(port, "events", 5);
}
