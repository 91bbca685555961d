//! Every message as a row, so that a test is one loop.

use bytes::Bytes;

use crate::arbitrary::{Arbitrary, Gen};
use crate::messages::every::{for_every_api, for_every_data};
use crate::{DecodeError, Reader, Writer};

pub struct Entry {
    pub name: &'static str,
    pub min: i16,
    pub max: i16,
    /// Makes a value, writes it, reads it, compares; answers the bytes.
    pub round_trip: fn(&mut Gen, i16) -> Bytes,
    /// Reads bytes that may be anything.
    pub decode: fn(Bytes, i16) -> Result<(), DecodeError>,
}

macro_rules! entry {
    ($message:ident) => {
        Entry {
            name: stringify!($message),
            min: crate::messages::$message::MIN_VERSION,
            max: crate::messages::$message::MAX_VERSION,
            round_trip: |g, version| {
                type Message = crate::messages::$message;
                let value = Message::arbitrary(g, version);
                let mut w = Writer::new();
                value.encode(&mut w, version).unwrap();
                let bytes = w.into_bytes().unwrap();
                let mut r = Reader::new(bytes.clone());
                let again = Message::decode(&mut r, version)
                    .unwrap_or_else(|error| panic!("{value:?} v{version}: {error}"));
                assert_eq!(again, value, "v{version}");
                assert_eq!(r.remaining(), 0, "{value:?} v{version}");
                bytes
            },
            decode: |bytes, version| {
                crate::messages::$message::decode(&mut Reader::new(bytes), version).map(|_| ())
            },
        }
    };
}

macro_rules! of_apis {
    ($($name:ident $request:ident $response:ident;)*) => {
        vec![$(entry!($request), entry!($response)),*]
    };
}

macro_rules! of_data {
    ($($message:ident;)*) => {
        vec![$(entry!($message)),*]
    };
}

pub fn every_message() -> Vec<Entry> {
    let mut all: Vec<Entry> = for_every_api!(of_apis);
    all.extend(for_every_data!(of_data));
    assert!(all.len() > 160, "{} messages", all.len());
    all
}
