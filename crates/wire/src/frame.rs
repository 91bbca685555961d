//! Whole frames: i32 length, header, body.
//!
//! The server's side decodes requests and encodes responses, the client's side (the simulator,
//! tests) does the reverse. Frames are handed in without their length prefix and come out with it.
//!
//! Bytes after the body are ignored, as Kafka ignores them.

use bytes::{Bytes, BytesMut};

use crate::codec::{DecodeError, EncodeError, Encoded, Reader, Writer};
use crate::messages::{RequestHeader, ResponseHeader};
use crate::{ApiKey, RequestBody, ResponseBody, apis};

/// Bytes of the length in front of every frame.
pub const LENGTH_PREFIX: usize = 4;

/// A response as chunks to be sent in order, the length prefix first.
pub type EncodedResponse = Encoded;

impl ApiKey {
    /// 1, or 2 with tagged fields. (0 was ControlledShutdown's alone, and is gone.)
    pub fn request_header_version(self, version: i16) -> i16 {
        if version >= self.first_flexible_version() {
            2
        } else {
            1
        }
    }

    /// 0, or 1 with tagged fields. ApiVersions is always answered with 0: a client that does not
    /// know the broker yet must be able to read it (KIP-511).
    pub fn response_header_version(self, version: i16) -> i16 {
        let flexible = version >= self.first_flexible_version();
        if flexible && self != ApiKey::ApiVersions {
            1
        } else {
            0
        }
    }
}

/// Why a request cannot be handled, in order of how much of it was understood.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum RequestError {
    /// Nothing can be answered: the connection closes.
    #[error("unreadable request header: {0}")]
    Header(DecodeError),
    /// Not an API that is served. Kafka closes the connection.
    #[error("API key {api_key} is not served")]
    UnknownApi {
        api_key: i16,
        version: i16,
        correlation_id: i32,
    },
    /// A served API in another version. ApiVersions is answered all the same, in version 0; for
    /// any other API Kafka closes the connection.
    #[error("{} version {} is not served", api_key.name(), header.request_api_version)]
    UnsupportedVersion {
        api_key: ApiKey,
        header: RequestHeader,
    },
    /// The body is not what the version says. Kafka closes the connection.
    #[error("unreadable {} request, version {}: {error}", api_key.name(), header.request_api_version)]
    Body {
        api_key: ApiKey,
        header: RequestHeader,
        error: DecodeError,
    },
}

/// A request frame without its length prefix. Accepts what [`apis::SERVED`] does.
pub fn decode_request(frame: Bytes) -> Result<(RequestHeader, RequestBody), RequestError> {
    let r = &mut Reader::new(frame.clone());
    // The first three fields are the same in every version of the header.
    let mut prefix = || Ok((r.i16()?, r.i16()?, r.i32()?));
    let (key, version, correlation_id) = prefix().map_err(RequestError::Header)?;
    let row = ApiKey::try_from(key).ok().and_then(apis::served);
    let Some(row) = row else {
        return Err(RequestError::UnknownApi {
            api_key: key,
            version,
            correlation_id,
        });
    };
    let api_key = row.key;
    let r = &mut Reader::new(frame);
    let header = RequestHeader::decode(r, api_key.request_header_version(version));
    if !row.accepts(version) {
        // Of a version that nobody here knows, the rest of the header may be anything.
        let header = header.unwrap_or(RequestHeader {
            request_api_key: key,
            request_api_version: version,
            correlation_id,
            client_id: None,
            unknown_tagged_fields: Vec::new(),
        });
        return Err(RequestError::UnsupportedVersion { api_key, header });
    }
    let header = header.map_err(RequestError::Header)?;
    match RequestBody::decode(api_key, version, r) {
        Ok(body) => Ok((header, body)),
        Err(error) => Err(RequestError::Body {
            api_key,
            header,
            error,
        }),
    }
}

/// A response with its length prefix. `version` is the request's.
pub fn encode_response(
    correlation_id: i32,
    api_key: ApiKey,
    version: i16,
    body: &ResponseBody,
) -> Result<EncodedResponse, EncodeError> {
    assert_eq!(body.api_key(), api_key, "the response of another API");
    let mut w = Writer::frame();
    let header = ResponseHeader {
        correlation_id,
        ..Default::default()
    };
    header.encode(&mut w, api_key.response_header_version(version))?;
    body.encode(&mut w, version)?;
    w.finish_frame()
}

/// A request with its length prefix, as a client sends it.
pub fn encode_request(
    correlation_id: i32,
    client_id: Option<&str>,
    version: i16,
    body: &RequestBody,
) -> Result<Encoded, EncodeError> {
    let mut w = Writer::frame();
    let header = RequestHeader {
        request_api_key: body.api_key().code(),
        request_api_version: version,
        correlation_id,
        client_id: client_id.map(str::to_owned),
        unknown_tagged_fields: Vec::new(),
    };
    header.encode(&mut w, body.api_key().request_header_version(version))?;
    body.encode(&mut w, version)?;
    w.finish_frame()
}

/// A response frame without its length prefix, to a request of this API and version.
pub fn decode_response(
    frame: Bytes,
    api_key: ApiKey,
    version: i16,
) -> Result<(ResponseHeader, ResponseBody), DecodeError> {
    let r = &mut Reader::new(frame);
    let header = ResponseHeader::decode(r, api_key.response_header_version(version))?;
    Ok((header, ResponseBody::decode(api_key, version, r)?))
}

/// A length prefix that no frame can have: the connection must close.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a frame of {len} bytes; allowed are 0 to {max}")]
pub struct InvalidFrameLength {
    pub len: i32,
    pub max: usize,
}

/// The length of the frame that `received` starts with, `None` if too few bytes are there to say.
pub fn frame_len(received: &[u8], max: usize) -> Result<Option<usize>, InvalidFrameLength> {
    let Some(prefix) = received.first_chunk::<LENGTH_PREFIX>() else {
        return Ok(None);
    };
    let len = i32::from_be_bytes(*prefix);
    match usize::try_from(len) {
        Ok(bytes) if bytes <= max => Ok(Some(bytes)),
        _ => Err(InvalidFrameLength { len, max }),
    }
}

/// Takes one whole frame off the front, without its prefix; `None` if it is not all there yet.
pub fn take_frame(
    received: &mut BytesMut,
    max: usize,
) -> Result<Option<Bytes>, InvalidFrameLength> {
    let Some(len) = frame_len(received, max)? else {
        return Ok(None);
    };
    if received.len() < LENGTH_PREFIX + len {
        return Ok(None);
    }
    let frame = received.split_to(LENGTH_PREFIX + len).freeze();
    Ok(Some(frame.slice(LENGTH_PREFIX..)))
}
