//! From frame to request, outside the core: decoding and the checks that need no state.
//!
//! Pure and independent of the broker, so that a host runs it on the connection's own task, many
//! at a time: this is where a produce request's bytes are read (CRC, records) for the first and
//! only time.

use crate::apis::api_versions;
use bytes::Bytes;
use oncelog_wire::frame::{self, RequestError};
use oncelog_wire::messages::ProduceRequest;
use oncelog_wire::records::{self, ProducedBatch};
use oncelog_wire::{ApiKey, RequestBody, ResponseBody};
use oncelog_wire::{Encoded, ErrorCode, Records};

/// A request that is fit to be handled.
#[derive(Debug)]
pub struct Prepared {
    pub correlation_id: i32,
    pub version: i16,
    pub client_id: Option<String>,
    pub body: RequestBody,
    /// Of a Produce request: one per partition, in the order of the request.
    pub batches: Vec<PreparedBatch>,
    /// Missing topics have been looked after (see [`crate::apis::ensure_topics`]).
    pub(crate) topics_ensured: bool,
}

/// A produced batch that passed every check which needs no state, or why it did not.
pub type PreparedBatch = Result<ProducedBatch, (ErrorCode, String)>;

/// A frame that is no request this broker serves.
#[derive(Debug)]
pub enum Refusal {
    /// Answer this (a whole frame) and go on.
    Answer(Encoded),
    /// Close the connection, as Kafka does: the stream cannot be trusted any further.
    Close(String),
}

impl Prepared {
    /// A produce with acks=0 is the one request that is not answered.
    pub fn wants_no_answer(&self) -> bool {
        matches!(&self.body, RequestBody::Produce(produce) if produce.acks == 0)
    }
}

/// Decodes one frame (without its length) and checks what it carries.
pub fn prepare(frame: Bytes) -> Result<Prepared, Refusal> {
    let (header, body) = match frame::decode_request(frame) {
        Ok(decoded) => decoded,
        Err(error) => return Err(refuse(error)),
    };
    let version = header.request_api_version;
    let batches = match &body {
        RequestBody::Produce(produce) => check_batches(produce, version),
        _ => Vec::new(),
    };
    Ok(Prepared {
        correlation_id: header.correlation_id,
        version,
        client_id: header.client_id,
        body,
        batches,
        topics_ensured: false,
    })
}

fn refuse(error: RequestError) -> Refusal {
    match error {
        RequestError::UnsupportedVersion {
            api_key: ApiKey::ApiVersions,
            header,
        } => {
            let body = ResponseBody::ApiVersions(api_versions::unsupported_version());
            let (to, api_key) = (header.correlation_id, ApiKey::ApiVersions);
            let answer = frame::encode_response(to, api_key, 0, &body);
            Refusal::Answer(answer.expect("ApiVersions v0 can say this"))
        }
        error => Refusal::Close(error.to_string()),
    }
}

fn check_batches(produce: &ProduceRequest, version: i16) -> Vec<PreparedBatch> {
    let mut batches = Vec::new();
    for topic in &produce.topic_data {
        for partition in &topic.partition_data {
            batches.push(match &partition.records {
                Some(Records::Bytes(bytes)) => records::check_produced(bytes, version),
                _ => Err((ErrorCode::InvalidRecord, "no records".to_owned())),
            });
        }
    }
    batches
}
