//! The APIs that the commands use, and the versions of each.
//!
//! A range is narrower than the schema's where a neighbouring version would need a second way through
//! the code (names against ids, one group against several); every broker since Kafka 2.4 is inside.

use oncelog_wire::messages::*;
use oncelog_wire::{ApiKey, DecodeError, EncodeError, Reader, Writer};

/// A request with its response.
pub trait Api {
    const KEY: ApiKey;
    const VERSION_MIN: i16;
    const VERSION_MAX: i16;
    type Response;

    fn encode(&self, w: &mut Writer, version: i16) -> Result<(), EncodeError>;
    fn decode(r: &mut Reader, version: i16) -> Result<Self::Response, DecodeError>;
}

macro_rules! apis {
    ($($request:ident -> $response:ident, $min:literal to $max:literal;)*) => {
        $(impl Api for $request {
            const KEY: ApiKey = $request::API_KEY;
            const VERSION_MIN: i16 = $min;
            const VERSION_MAX: i16 = $max;
            type Response = $response;

            fn encode(&self, w: &mut Writer, version: i16) -> Result<(), EncodeError> {
                $request::encode(self, w, version)
            }

            fn decode(r: &mut Reader, version: i16) -> Result<$response, DecodeError> {
                $response::decode(r, version)
            }
        })*
    };
}

apis! {
    FetchRequest -> FetchResponse, 4 to 12;
    ListOffsetsRequest -> ListOffsetsResponse, 1 to 8;
    MetadataRequest -> MetadataResponse, 4 to 12;
    OffsetCommitRequest -> OffsetCommitResponse, 2 to 9;
    OffsetFetchRequest -> OffsetFetchResponse, 2 to 7;
    FindCoordinatorRequest -> FindCoordinatorResponse, 1 to 3;
    DescribeGroupsRequest -> DescribeGroupsResponse, 0 to 6;
    ListGroupsRequest -> ListGroupsResponse, 0 to 5;
    ApiVersionsRequest -> ApiVersionsResponse, 0 to 3;
    CreateTopicsRequest -> CreateTopicsResponse, 4 to 7;
    DeleteTopicsRequest -> DeleteTopicsResponse, 1 to 5;
    DeleteRecordsRequest -> DeleteRecordsResponse, 0 to 2;
    DescribeConfigsRequest -> DescribeConfigsResponse, 1 to 4;
    CreatePartitionsRequest -> CreatePartitionsResponse, 0 to 3;
    DeleteGroupsRequest -> DeleteGroupsResponse, 0 to 2;
    IncrementalAlterConfigsRequest -> IncrementalAlterConfigsResponse, 0 to 1;
    OffsetDeleteRequest -> OffsetDeleteResponse, 0 to 0;
    WriteTxnMarkersRequest -> WriteTxnMarkersResponse, 1 to 2;
    DescribeProducersRequest -> DescribeProducersResponse, 0 to 0;
    DescribeTransactionsRequest -> DescribeTransactionsResponse, 0 to 0;
    ListTransactionsRequest -> ListTransactionsResponse, 0 to 2;
    ConsumerGroupDescribeRequest -> ConsumerGroupDescribeResponse, 0 to 1;
    DescribeTopicPartitionsRequest -> DescribeTopicPartitionsResponse, 0 to 0;
}

/// The version of the response header that goes with a request's version. ApiVersions keeps the old
/// header whatever its version, so that a client can read the answer before it knows the broker.
pub fn response_header_version(key: ApiKey, version: i16) -> i16 {
    match key {
        ApiKey::ApiVersions => 0,
        _ => i16::from(version >= key.first_flexible_version()),
    }
}
