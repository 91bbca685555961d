//! ApiVersions (key 18, versions 0-4): what this broker serves.
//!
//! Behaviour: the table of [`oncelog_wire::apis`], as it is. A version that is not served is
//! answered in v0 with UNSUPPORTED_VERSION and the ApiVersions range alone, before the core is
//! asked (see [`crate::prepare`]). v3+ clients that send an invalid software name or version get
//! INVALID_REQUEST (KIP-511).

use crate::broker::Broker;
use crate::connections::RequestId;
use oncelog_wire::ResponseBody;
use oncelog_wire::messages::api_versions_response::{
    ApiVersion, FinalizedFeatureKey, SupportedFeatureKey,
};
use oncelog_wire::messages::{ApiVersionsRequest, ApiVersionsResponse};
use oncelog_wire::{ApiKey, ErrorCode, apis};

/// Features that are always on and not to be turned off, and the levels that are supported: groups
/// of the new protocol (KIP-848), and transactions that bump their producer's epoch (KIP-890).
const FEATURES: [(&str, i16); 2] = [("group.version", 1), ("transaction.version", 2)];

pub(crate) fn handle(
    broker: &mut Broker,
    request: RequestId,
    version: i16,
    ask: ApiVersionsRequest,
) {
    let mut response = ApiVersionsResponse {
        finalized_features_epoch: broker.cluster.metadata_offset(),
        ..Default::default()
    };
    let named = |name: &str| version < 3 || is_software_name(name);
    if named(&ask.client_software_name) && named(&ask.client_software_version) {
        response.api_keys = served(broker.config.transactions.two_phase_commit_enable);
        (response.supported_features, response.finalized_features) = features();
    } else {
        response.error_code = ErrorCode::InvalidRequest.code();
    }
    broker.answer(request, ResponseBody::ApiVersions(response));
}

/// Every API that is served, as ApiVersions tells it.
fn served(two_phase_commit: bool) -> Vec<ApiVersion> {
    let entry = |api: &apis::Served| ApiVersion {
        api_key: api.key as i16,
        min_version: api.min_version,
        max_version: match api.key {
            ApiKey::InitProducerId if !two_phase_commit => 5,
            _ => api.max_version,
        },
        ..Default::default()
    };
    apis::SERVED.iter().map(entry).collect()
}

fn features() -> (Vec<SupportedFeatureKey>, Vec<FinalizedFeatureKey>) {
    let supported = |(name, level): (&str, i16)| SupportedFeatureKey {
        name: name.to_owned(),
        min_version: level,
        max_version: level,
        ..Default::default()
    };
    let finalized = |(name, level): (&str, i16)| FinalizedFeatureKey {
        name: name.to_owned(),
        min_version_level: level,
        max_version_level: level,
        ..Default::default()
    };
    let all = || FEATURES.into_iter();
    (
        all().map(supported).collect(),
        all().map(finalized).collect(),
    )
}

/// The answer to an ApiVersions request in a version that is not served.
pub(crate) fn unsupported_version() -> ApiVersionsResponse {
    let only = |entry: &ApiVersion| entry.api_key == ApiVersionsResponse::API_KEY as i16;
    ApiVersionsResponse {
        error_code: ErrorCode::UnsupportedVersion.code(),
        api_keys: served(false).into_iter().filter(only).collect(),
        ..Default::default()
    }
}

/// KIP-511: letters, digits, `.` and `-`, not at either end unless a letter or digit.
fn is_software_name(name: &str) -> bool {
    let bytes = name.as_bytes();
    let edge = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    let inner = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-');
    edge(bytes.first()) && edge(bytes.last()) && bytes.iter().all(inner)
}

#[cfg(test)]
mod tests {
    use super::is_software_name;

    #[test]
    fn software_names_are_those_of_kip_511() {
        for good in ["librdkafka", "2.15.0", "a", "apache-kafka-java"] {
            assert!(is_software_name(good), "{good}");
        }
        for bad in ["", "-a", "a.", "a b", "é"] {
            assert!(!is_software_name(bad), "{bad}");
        }
    }
}
