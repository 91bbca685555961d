//! Frames, headers and messages from anybody: every API in every version, requests and responses.
//!
//! Asserted: decoding does not panic, and holds no more memory than the input's length allows;
//! what was decoded is encoded again, and decoding that gives the same value; encoding is stable
//! from then on; frames are cut out of a stream the same, however its bytes arrive.
//!
//! Not here: record batches, which decoding leaves alone (`batches`), and what requests mean
//! (`apis`).

use crate::counting::peak_of;
use bytes::{BufMut, Bytes, BytesMut};
use oncelog_wire::frame;
use oncelog_wire::messages::{self, RequestHeader, ResponseHeader};
use oncelog_wire::{
    ApiKey, DecodeError, EncodeError, Reader, RequestBody, ResponseBody, Writer, apis,
};
use std::fmt::Debug;

/// An array's elements take more memory than bytes on the wire: 24 for a string that takes one.
/// Nested arrays may each claim what remains once.
const MEMORY_PER_BYTE: usize = 256;
const MEMORY_MIN: usize = 1024;

/// No frame of these tests is longer.
const FRAME_BYTES_MAX: usize = 1 << 20;

/// The first byte says what the others are.
#[derive(Clone, Copy)]
#[repr(u8)]
enum Kind {
    /// API (place in the list), version (above the lowest), body.
    Request,
    Response,
    /// A whole request without its length, as a server gets it.
    RequestFrame,
    /// API, version, and a whole response without its length, as a client gets it.
    ResponseFrame,
    /// Message (place in the list), version, the rest: what clients and logs hold as bytes.
    Data,
    /// How to cut what follows into pieces, and a stream of frames.
    Stream,
}

const KINDS: [Kind; 6] = [
    Kind::Request,
    Kind::Response,
    Kind::RequestFrame,
    Kind::ResponseFrame,
    Kind::Data,
    Kind::Stream,
];

pub fn run(input: &[u8]) {
    let Some((kind, rest)) = input.split_first() else {
        return;
    };
    let kind = &KINDS[usize::from(*kind) % KINDS.len()];
    match (kind, rest) {
        (Kind::RequestFrame, frame) => request_frame(Bytes::copy_from_slice(frame)),
        (Kind::Stream, [step, stream @ ..]) => stream_of_frames(usize::from(*step), stream),
        (Kind::Data, [which, version, body @ ..]) => data(*which, *version, body),
        (Kind::Request | Kind::Response | Kind::ResponseFrame, [api, version, body @ ..]) => {
            let api = ApiKey::ALL[usize::from(*api) % ApiKey::ALL.len()];
            let (min, max) = api.schema_versions();
            let version = within(*version, min, max);
            let body = Bytes::copy_from_slice(body);
            match kind {
                Kind::Request => request(api, version, &body),
                Kind::Response => response(api, version, &body),
                _ => response_frame(api, version, body),
            }
        }
        _ => {}
    }
}

fn within(version: u8, min: i16, max: i16) -> i16 {
    min + i16::from(version) % (max - min + 1)
}

fn request(api: ApiKey, version: i16, body: &Bytes) {
    check(
        api.name(),
        version,
        body,
        |r| RequestBody::decode(api, version, r),
        |value, w| value.encode(w, version),
    );
}

fn response(api: ApiKey, version: i16, body: &Bytes) {
    check(
        api.name(),
        version,
        body,
        |r| ResponseBody::decode(api, version, r),
        |value, w| value.encode(w, version),
    );
}

/// Through the door that a server has; what it lets in is a request of an API that is served.
fn request_frame(frame: Bytes) {
    let (decoded, peak) = peak_of(|| frame::decode_request(frame.clone()));
    check_peak("a request frame", 0, frame.len(), peak);
    let Ok((header, body)) = decoded else {
        return;
    };
    let (api, version) = (body.api_key(), header.request_api_version);
    assert_eq!(header.request_api_key, api.code());
    assert!(apis::served(api).is_some_and(|row| row.accepts(version)));
    let header_version = api.request_header_version(version);
    check(
        "a request header",
        header_version,
        &frame,
        |r| RequestHeader::decode(r, header_version),
        |value, w| value.encode(w, header_version),
    );
    let client_id = header.client_id.as_deref();
    let encoded = frame::encode_request(header.correlation_id, client_id, version, &body);
    let Some(encoded) = unless_tags_repeat(encoded) else {
        return;
    };
    let bytes = encoded.to_bytes().expect("nothing in it is external");
    let again = frame::decode_request(bytes.slice(frame::LENGTH_PREFIX..));
    let (again_header, again_body) = again.expect("what was written is read");
    assert_eq!(again_header.correlation_id, header.correlation_id);
    assert_eq!(again_header.client_id, header.client_id);
    assert!(equal(&again_body, &body), "{again_body:?}\n{body:?}");
}

fn response_frame(api: ApiKey, version: i16, frame: Bytes) {
    let header_version = api.response_header_version(version);
    check(
        "a response header",
        header_version,
        &frame,
        |r| ResponseHeader::decode(r, header_version),
        |value, w| value.encode(w, header_version),
    );
    let (decoded, peak) = peak_of(|| frame::decode_response(frame.clone(), api, version));
    check_peak("a response frame", version, frame.len(), peak);
    let Ok((header, body)) = decoded else {
        return;
    };
    let encoded = frame::encode_response(header.correlation_id, api, version, &body);
    let Some(encoded) = unless_tags_repeat(encoded) else {
        return;
    };
    let bytes = encoded.to_bytes().expect("nothing in it is external");
    let again = frame::decode_response(bytes.slice(frame::LENGTH_PREFIX..), api, version);
    let (again_header, again_body) = again.expect("what was written is read");
    assert_eq!(again_header.correlation_id, header.correlation_id);
    assert!(equal(&again_body, &body), "{again_body:?}\n{body:?}");
}

/// Fed at once and in pieces of `step` bytes: the same frames come out, then the same end.
fn stream_of_frames(step: usize, stream: &[u8]) {
    let mut whole = BytesMut::from(stream);
    let mut pieces = BytesMut::new();
    let mut fed = 0;
    loop {
        let expected = frame::take_frame(&mut whole, FRAME_BYTES_MAX);
        let found = loop {
            let found = frame::take_frame(&mut pieces, FRAME_BYTES_MAX);
            if found != Ok(None) || fed == stream.len() {
                break found;
            }
            let next = stream.len().min(fed + step.max(1));
            pieces.put_slice(&stream[fed..next]);
            fed = next;
        };
        assert_eq!(found, expected);
        let Ok(Some(frame)) = found else {
            return;
        };
        request_frame(frame);
    }
}

macro_rules! data_messages {
    ($($message:ident)*) => {
        const DATA: &[(i16, i16, fn(i16, &Bytes))] = &[$((
            messages::$message::MIN_VERSION,
            messages::$message::MAX_VERSION,
            |version, bytes| check(
                stringify!($message),
                version,
                bytes,
                |r| messages::$message::decode(r, version),
                |value, w| value.encode(w, version),
            ),
        )),*];
    };
}

data_messages! {
    ConsumerProtocolSubscription ConsumerProtocolAssignment EndTxnMarker
    OffsetCommitKey OffsetCommitValue GroupMetadataKey GroupMetadataValue
    ConsumerGroupMetadataKey ConsumerGroupMetadataValue
    ConsumerGroupPartitionMetadataKey ConsumerGroupPartitionMetadataValue
    ConsumerGroupMemberMetadataKey ConsumerGroupMemberMetadataValue
    ConsumerGroupTargetAssignmentMetadataKey ConsumerGroupTargetAssignmentMetadataValue
    ConsumerGroupTargetAssignmentMemberKey ConsumerGroupTargetAssignmentMemberValue
    ConsumerGroupCurrentMemberAssignmentKey ConsumerGroupCurrentMemberAssignmentValue
    ConsumerGroupRegularExpressionKey ConsumerGroupRegularExpressionValue
    TransactionLogKey TransactionLogValue
    TopicRecord RemoveTopicRecord PartitionRecord PartitionChangeRecord ConfigRecord
    ProducerIdsRecord FeatureLevelRecord RegisterBrokerRecord NoOpRecord
}

fn data(which: u8, version: u8, body: &[u8]) {
    let (min, max, check) = &DATA[usize::from(which) % DATA.len()];
    check(within(version, *min, *max), &Bytes::copy_from_slice(body));
}

fn check<T: PartialEq + Debug>(
    name: &str,
    version: i16,
    bytes: &Bytes,
    decode: impl Fn(&mut Reader) -> Result<T, DecodeError>,
    encode: impl Fn(&T, &mut Writer) -> Result<(), EncodeError>,
) {
    let mut r = Reader::new(bytes.clone());
    let (decoded, peak) = peak_of(|| decode(&mut r));
    check_peak(name, version, bytes.len(), peak);
    let value = match decoded {
        Ok(value) => value,
        Err(error) => return assert!(error.offset <= bytes.len(), "{error}"),
    };
    let encoded = |value: &T| {
        let mut w = Writer::new();
        let done = unless_tags_repeat(encode(value, &mut w));
        done.map(|()| w.into_bytes().expect("nothing in it is external"))
    };
    let Some(once) = encoded(&value) else {
        return;
    };
    let mut r = Reader::new(once.clone());
    let again = decode(&mut r).unwrap_or_else(|error| panic!("{name} v{version}: {error}"));
    assert_eq!(r.remaining(), 0, "{name} v{version}: {value:?}");
    assert!(
        equal(&again, &value),
        "{name} v{version}\n{again:?}\n{value:?}"
    );
    assert_eq!(encoded(&again), Some(once), "{name} v{version}: {value:?}");
}

/// What was decoded can be encoded, but for tags out of order: they are read, as Kafka reads them,
/// and not written, as Kafka does not write them.
fn unless_tags_repeat<T>(encoded: Result<T, EncodeError>) -> Option<T> {
    match encoded {
        Ok(value) => Some(value),
        Err(EncodeError::DuplicateTag(_)) => None,
        Err(error) => panic!("decoded, and cannot be encoded: {error}"),
    }
}

/// But for what decoding lets pass and encoding puts right: tags out of order, which change places;
/// and for floating point's "not a number", which is not equal to itself.
fn equal<T: PartialEq + Debug>(a: &T, b: &T) -> bool {
    let letters = |value: &T| {
        let mut letters = format!("{value:?}").into_bytes();
        letters.sort_unstable();
        letters
    };
    a == b || letters(a) == letters(b)
}

fn check_peak(name: &str, version: i16, len: usize, peak: usize) {
    let max = MEMORY_MIN + len * MEMORY_PER_BYTE;
    assert!(
        peak <= max,
        "{name} v{version}: {peak} bytes for {len}, allowed are {max}"
    );
}

/// Of every API and version, both ways, a body of zeros (nothing in it) and one of twos (in
/// flexible versions, arrays of one element); the same as whole frames; the other kinds once.
pub fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for (place, api) in ApiKey::ALL.iter().enumerate() {
        let (min, max) = api.schema_versions();
        for version in min..=max {
            let head = [place as u8, (version - min) as u8];
            for kind in [Kind::Request, Kind::Response] {
                for fill in [0, 2] {
                    let body = [fill; 96];
                    seeds.push([&[kind as u8], &head[..], &body].concat());
                }
            }
            seeds.push([&[Kind::ResponseFrame as u8], &head[..], &[0; 64]].concat());
            let mut frame = vec![Kind::RequestFrame as u8];
            frame.extend(api.code().to_be_bytes());
            frame.extend(version.to_be_bytes());
            frame.extend([0; 64]);
            seeds.push(frame);
        }
    }
    for (which, (min, max, _)) in DATA.iter().enumerate() {
        for version in 0..=max - min {
            for fill in [0, 2] {
                let head = [Kind::Data as u8, which as u8, version as u8];
                seeds.push([&head[..], &[fill; 64]].concat());
            }
        }
    }
    let frame = [0, 0, 0, 12, 0, 18, 0, 0, 0, 0, 0, 1, 0, 2, b'm', b'e'];
    let kind = [Kind::Stream as u8, 3];
    seeds.push([&kind[..], &frame, &frame, &[0, 0, 0, 9, 1]].concat());
    seeds
}
