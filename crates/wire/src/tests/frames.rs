//! Whole frames, from one side to the other.

use bytes::{Bytes, BytesMut};

use crate::frame::*;
use crate::messages::*;
use crate::{ApiKey, DecodeErrorKind, RequestBody, ResponseBody};

fn request_frame(version: i16, body: impl Into<RequestBody>) -> Bytes {
    let encoded = encode_request(77, Some("test"), version, &body.into()).unwrap();
    let mut bytes = BytesMut::from(&encoded.to_bytes().unwrap()[..]);
    let frame = take_frame(&mut bytes, 1 << 20).unwrap().unwrap();
    assert!(bytes.is_empty(), "the length prefix is that of the frame");
    frame
}

#[test]
fn requests_and_responses_come_through() {
    for version in 0..=13 {
        let body = MetadataRequest {
            topics: None,
            ..Default::default()
        };
        let body = if version == 0 {
            MetadataRequest::default()
        } else {
            body
        };
        let frame = request_frame(version, body.clone());
        let (header, decoded) = decode_request(frame).unwrap();
        assert_eq!(decoded, RequestBody::Metadata(body));
        assert_eq!(decoded.api_key(), ApiKey::Metadata);
        assert_eq!(
            (header.request_api_key, header.request_api_version),
            (3, version)
        );
        assert_eq!(
            (header.correlation_id, header.client_id.as_deref()),
            (77, Some("test"))
        );

        let body = ResponseBody::from(MetadataResponse {
            cluster_id: None,
            ..Default::default()
        });
        let encoded = encode_response(77, ApiKey::Metadata, version, &body);
        let bytes = encoded.unwrap().to_bytes().unwrap();
        assert_eq!(
            frame_len(&bytes, 1 << 20),
            Ok(Some(bytes.len() - LENGTH_PREFIX))
        );
        let frame = bytes.slice(LENGTH_PREFIX..);
        let (header, decoded) = decode_response(frame, ApiKey::Metadata, version).unwrap();
        assert_eq!((header.correlation_id, decoded), (77, body));
    }
}

#[test]
fn api_versions_is_answered_with_header_0_and_asked_with_header_2() {
    assert_eq!(ApiKey::ApiVersions.request_header_version(2), 1);
    assert_eq!(ApiKey::ApiVersions.request_header_version(3), 2);
    assert_eq!(ApiKey::ApiVersions.response_header_version(4), 0);
    assert_eq!(ApiKey::Metadata.response_header_version(9), 1);
    assert_eq!(ApiKey::SaslHandshake.request_header_version(1), 1);
}

#[test]
fn errors_say_how_far_it_was_understood() {
    // Nothing: too short for a header.
    for frame in [&[][..], &[0, 18], &[0, 18, 0, 0, 0, 0, 0]] {
        let error = decode_request(Bytes::copy_from_slice(frame)).unwrap_err();
        assert!(
            matches!(error, RequestError::Header(_)),
            "{frame:?}: {error}"
        );
    }
    // A key that does not exist, one that is not served.
    for key in [9999i16, ApiKey::UpdateFeatures.code(), -1] {
        let frame = [&key.to_be_bytes()[..], &[0, 1, 0, 0, 0, 5, 0xff, 0xff]].concat();
        let error = decode_request(frame.into()).unwrap_err();
        let expected = RequestError::UnknownApi {
            api_key: key,
            version: 1,
            correlation_id: 5,
        };
        assert_eq!(error, expected);
    }
    // A newer ApiVersions, as a client of tomorrow asks it: the client id is still read.
    let mut frame = request_frame(4, ApiVersionsRequest::default()).to_vec();
    frame[3] = 99;
    let Err(RequestError::UnsupportedVersion { api_key, header }) = decode_request(frame.into())
    else {
        panic!("a version that nobody serves")
    };
    assert_eq!(
        (api_key, header.request_api_version),
        (ApiKey::ApiVersions, 99)
    );
    assert_eq!(
        (header.correlation_id, header.client_id.as_deref()),
        (77, Some("test"))
    );
    // The same, with a header that is no header: the correlation id is enough.
    let frame = Bytes::from_static(&[0, 18, 0, 99, 0, 0, 0, 5, 0x7f]);
    let Err(RequestError::UnsupportedVersion { header, .. }) = decode_request(frame) else {
        panic!("a version that nobody serves")
    };
    assert_eq!((header.correlation_id, header.client_id), (5, None));
    // Produce is advertised from 0, and 0 to 2 are refused.
    let frame = Bytes::from_static(&[0, 0, 0, 2, 0, 0, 0, 5, 0xff, 0xff]);
    let error = decode_request(frame).unwrap_err();
    assert!(matches!(error, RequestError::UnsupportedVersion { .. }));
    // A good header, a bad body.
    let frame = request_frame(1, MetadataRequest::default());
    let cut = frame.slice(..frame.len() - 1);
    let Err(RequestError::Body {
        api_key,
        header,
        error,
    }) = decode_request(cut)
    else {
        panic!("the body is cut off")
    };
    assert_eq!((api_key, header.correlation_id), (ApiKey::Metadata, 77));
    assert!(matches!(error.kind, DecodeErrorKind::UnexpectedEnd { .. }));
}

#[test]
fn bytes_after_the_body_are_ignored() {
    let mut frame = request_frame(1, MetadataRequest::default()).to_vec();
    frame.extend_from_slice(b"more");
    decode_request(frame.into()).unwrap();
}

#[test]
fn frames_are_taken_whole_and_bounded() {
    let mut received = BytesMut::from(&b"\0\0\0\x02ab\0\0\0\x00\0\0"[..]);
    assert_eq!(take_frame(&mut received, 2).unwrap().unwrap(), "ab");
    assert_eq!(take_frame(&mut received, 2).unwrap().unwrap(), "");
    assert_eq!(take_frame(&mut received, 2), Ok(None));
    assert_eq!(frame_len(b"\0\0\0", 2), Ok(None));
    let error = Err(InvalidFrameLength { len: 3, max: 2 });
    assert_eq!(frame_len(b"\0\0\0\x03", 2), error);
    let error = Err(InvalidFrameLength { len: -1, max: 2 });
    assert_eq!(frame_len(b"\xff\xff\xff\xff", 2), error);
}
