//! One TCP connection to one broker: frames, headers, version negotiation.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::TcpStream;

use bytes::Bytes;
use oncelog_wire::messages::api_versions_response::FinalizedFeatureKey;
use oncelog_wire::messages::{
    ApiVersionsRequest, ApiVersionsResponse, RequestHeader, ResponseHeader,
};
use oncelog_wire::{ApiKey, ErrorCode, Reader, Writer};

use crate::failure::{Exit, Failure};
use crate::options::Options;
use crate::reach;

use super::apis::{Api, response_header_version};
use super::check;

/// No answer to an administrative request comes near this; a peer that is not Kafka easily claims more.
const ANSWER_BYTES_MAX: i32 = 256 * 1024 * 1024;

pub struct Connection {
    stream: TcpStream,
    /// `host:port`, for messages.
    address: String,
    client_id: String,
    correlation_id: i32,
    /// Key -> (min, max) that the broker serves.
    versions: BTreeMap<i16, (i16, i16)>,
    pub finalized_features: Vec<FinalizedFeatureKey>,
}

impl Connection {
    /// Asks for the broker's versions, so that every later request is one that it knows.
    pub fn open(stream: TcpStream, address: String, options: &Options) -> Result<Self, Failure> {
        let timeout = Some(options.request_timeout()).filter(|timeout| !timeout.is_zero());
        let set = stream
            .set_read_timeout(timeout)
            .and_then(|()| stream.set_write_timeout(timeout));
        let mut connection = Connection {
            stream,
            address,
            client_id: options
                .property("client.id")
                .unwrap_or("oncelog")
                .to_owned(),
            correlation_id: 0,
            versions: BTreeMap::new(),
            finalized_features: Vec::new(),
        };
        set.map_err(|error| connection.lost(&error))?;
        connection.negotiate()?;
        Ok(connection)
    }

    pub fn offers(&self, key: ApiKey) -> bool {
        self.versions.contains_key(&key.code())
    }

    /// Errors: the broker has no version in common, goes away, or answers with something unreadable.
    pub fn send<A: Api>(&mut self, request: &A) -> Result<A::Response, Failure> {
        let version = self.version_for::<A>()?;
        let answer = self.exchange(request, version)?;
        let mut reader = Reader::new(answer);
        A::decode(&mut reader, version).map_err(|error| self.unreadable(&error.to_string()))
    }

    fn version_for<A: Api>(&self) -> Result<i16, Failure> {
        let (name, address) = (A::KEY.name(), &self.address);
        let Some(&(min, max)) = self.versions.get(&A::KEY.code()) else {
            return Err(
                Failure::refused(format!("the broker at {address} does not offer {name}")).why(
                    format!("API {} is not in its list of versions", A::KEY.code()),
                ),
            );
        };
        let version = max.min(A::VERSION_MAX);
        if version < min.max(A::VERSION_MIN) {
            return Err(
                Failure::refused(format!("no common version of {name} with {address}")).why(
                    format!(
                        "it serves {min}-{max}, needed is {}-{}",
                        A::VERSION_MIN,
                        A::VERSION_MAX
                    ),
                ),
            );
        }
        Ok(version)
    }

    /// One request, and the body of its answer.
    fn exchange<A: Api>(&mut self, request: &A, version: i16) -> Result<Bytes, Failure> {
        self.correlation_id = self.correlation_id.wrapping_add(1);
        let frame = self.frame(request, version)?;
        tracing::debug!(target: "oncelog", "{} v{version} to {}", A::KEY.name(), self.address);
        let written = self.stream.write_all(&frame);
        let answer = written
            .and_then(|()| self.read_frame())
            .map_err(|error| self.lost(&error))?;
        let mut reader = Reader::new(answer);
        let header = ResponseHeader::decode(&mut reader, response_header_version(A::KEY, version))
            .map_err(|error| self.unreadable(&error.to_string()))?;
        if header.correlation_id != self.correlation_id {
            return Err(self.unreadable("it answers another request than was sent"));
        }
        Ok(reader.rest())
    }

    fn frame<A: Api>(&self, request: &A, version: i16) -> Result<Vec<u8>, Failure> {
        let header = RequestHeader {
            request_api_key: A::KEY.code(),
            request_api_version: version,
            correlation_id: self.correlation_id,
            client_id: Some(self.client_id.clone()),
            ..RequestHeader::default()
        };
        let header_version = 1 + i16::from(version >= A::KEY.first_flexible_version());
        let mut writer = Writer::new();
        header
            .encode(&mut writer, header_version)
            .and_then(|()| request.encode(&mut writer, version))
            .map_err(|error| {
                Failure::refused(format!(
                    "{} version {version} cannot be sent",
                    A::KEY.name()
                ))
                .why(error.to_string())
            })?;
        let body = writer
            .into_bytes()
            .expect("no administrative request holds external records");
        let length =
            i32::try_from(body.len()).map_err(|_| Failure::usage("the request is too long"))?;
        let mut frame = Vec::with_capacity(4 + body.len());
        frame.extend_from_slice(&length.to_be_bytes());
        frame.extend_from_slice(&body);
        Ok(frame)
    }

    fn read_frame(&mut self) -> io::Result<Bytes> {
        let mut length = [0; 4];
        self.stream.read_exact(&mut length)?;
        let length = i32::from_be_bytes(length);
        if !(0..=ANSWER_BYTES_MAX).contains(&length) {
            let what = format!("an answer of {length} bytes is not Kafka's");
            return Err(io::Error::new(io::ErrorKind::InvalidData, what));
        }
        // Memory follows what really arrives, not what the length claims.
        let mut body = Vec::new();
        let read = (&mut self.stream)
            .take(u64::from(length.unsigned_abs()))
            .read_to_end(&mut body)?;
        if read < length.unsigned_abs() as usize {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(body.into())
    }

    fn negotiate(&mut self) -> Result<(), Failure> {
        let response = self.api_versions()?;
        let what = || format!("the broker at {} does not say what it serves", self.address);
        check(response.error_code, None, what)?;
        self.versions = response
            .api_keys
            .iter()
            .map(|api| (api.api_key, (api.min_version, api.max_version)))
            .collect();
        self.finalized_features = response.finalized_features;
        Ok(())
    }

    fn api_versions(&mut self) -> Result<ApiVersionsResponse, Failure> {
        let request = ApiVersionsRequest {
            client_software_name: "oncelog".into(),
            client_software_version: env!("CARGO_PKG_VERSION").into(),
            ..ApiVersionsRequest::default()
        };
        let newest = ApiVersionsRequest::VERSION_MAX;
        let answer = self.exchange(&request, newest)?;
        // A broker that is older than this version says so in version 0, where the error comes first.
        let unsupported = ErrorCode::UnsupportedVersion.code().to_be_bytes();
        let (answer, version) = if answer.starts_with(&unsupported) {
            (self.exchange(&ApiVersionsRequest::default(), 0)?, 0)
        } else {
            (answer, newest)
        };
        ApiVersionsResponse::decode(&mut Reader::new(answer), version)
            .map_err(|error| self.unreadable(&error.to_string()))
    }

    fn lost(&self, error: &io::Error) -> Failure {
        Failure::new(
            Exit::Unreachable,
            format!("the broker at {} does not answer", self.address),
        )
        .why(reach::describe(error))
        .next("check that this is a Kafka broker's PLAINTEXT port; TLS and HTTP ports look alike")
    }

    fn unreadable(&self, why: &str) -> Failure {
        Failure::refused(format!(
            "the broker at {} answers something unreadable",
            self.address
        ))
        .why(why)
        .next("check that this is a Kafka broker's PLAINTEXT port")
    }
}
