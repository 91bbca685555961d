//! ListConfigResources (key 74, versions 0-1): which resources have, or can have, configurations
//! (KIP-1142). Version 0 asks for client metrics alone, of which there are none.
//!
//! Deviations from Kafka: brokers are not listed as holders of log levels, for those cannot be
//! looked at here; unknown types are UNSUPPORTED_VERSION as in Kafka.

use super::resource::ResourceType;
use super::state::Cluster;
use oncelog_wire::ErrorCode;
use oncelog_wire::messages::list_config_resources_response::ConfigResource;
use oncelog_wire::messages::{ListConfigResourcesRequest, ListConfigResourcesResponse};

impl Cluster {
    pub fn list_config_resources(
        &self,
        request: &ListConfigResourcesRequest,
        version: i16,
    ) -> ListConfigResourcesResponse {
        let mut response = ListConfigResourcesResponse::default();
        if version == 0 {
            return response;
        }
        let asked = &request.resource_types;
        if asked
            .iter()
            .any(|kind| ResourceType::from_code(*kind).is_none())
        {
            response.error_code = ErrorCode::UnsupportedVersion.code();
            return response;
        }
        let wants = |kind: ResourceType| asked.is_empty() || asked.contains(&kind.code());
        let resource = |kind: ResourceType, resource_name: String| ConfigResource {
            resource_name,
            resource_type: kind.code(),
            ..Default::default()
        };
        let list = &mut response.config_resources;
        if wants(ResourceType::Topic) {
            list.extend(
                self.topics
                    .keys()
                    .map(|name| resource(ResourceType::Topic, name.clone())),
            );
        }
        if wants(ResourceType::Broker) {
            list.extend(
                self.brokers
                    .keys()
                    .map(|id| resource(ResourceType::Broker, id.to_string())),
            );
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::cluster_with;
    use super::*;

    fn check(version: i16, types: &[i8], expected: Result<&[(i8, &str)], ErrorCode>) {
        let cluster = cluster_with(&[("a", 1), ("b", 1)]);
        let request = ListConfigResourcesRequest {
            resource_types: types.to_vec(),
            ..Default::default()
        };
        let response = cluster.list_config_resources(&request, version);
        response
            .encode(&mut oncelog_wire::Writer::new(), version)
            .expect("fits the version");
        let list = response
            .config_resources
            .iter()
            .map(|r| (r.resource_type, r.resource_name.as_str()));
        let list: Vec<_> = list.collect();
        match expected {
            Ok(expected) => assert_eq!((response.error_code, &list[..]), (0, expected)),
            Err(code) => assert_eq!((response.error_code, list.len()), (code.code(), 0)),
        }
    }

    #[test]
    fn lists() {
        check(0, &[], Ok(&[]));
        check(1, &[], Ok(&[(2, "a"), (2, "b"), (4, "1")]));
        check(1, &[2], Ok(&[(2, "a"), (2, "b")]));
        check(1, &[4], Ok(&[(4, "1")]));
        check(1, &[16, 32, 8], Ok(&[]));
        check(1, &[2, 3], Err(ErrorCode::UnsupportedVersion));
    }
}
