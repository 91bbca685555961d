//! DescribeCluster (key 60, versions 0-2): the brokers and the cluster's name.
//!
//! Behaviour: a broker describes brokers; whoever asks it for controllers is told
//! MISMATCHED_ENDPOINT_TYPE (KIP-919). Fenced brokers only if asked for (v2+, KIP-1073).

use super::metadata::CLUSTER_OPERATIONS;
use super::state::Cluster;
use oncelog_wire::ErrorCode;
use oncelog_wire::messages::describe_cluster_response::DescribeClusterBroker;
use oncelog_wire::messages::{DescribeClusterRequest, DescribeClusterResponse};

const BROKERS: i8 = 1;
const CONTROLLERS: i8 = 2;

impl Cluster {
    /// `listener`: the name of the listener on which the client asked.
    pub fn describe_cluster(
        &self,
        request: &DescribeClusterRequest,
        listener: &str,
    ) -> DescribeClusterResponse {
        let problem = match request.endpoint_type {
            BROKERS => None,
            CONTROLLERS => {
                let message = "This is a broker's listener; there is no controller of its own.";
                Some((ErrorCode::MismatchedEndpointType, message))
            }
            _ => Some((
                ErrorCode::UnsupportedEndpointType,
                "There is no such type of endpoint.",
            )),
        };
        if let Some((code, message)) = problem {
            return DescribeClusterResponse {
                error_code: code.code(),
                error_message: Some(message.to_owned()),
                ..Default::default()
            };
        }
        let fenced_too = request.include_fenced_brokers;
        let shown = self
            .brokers
            .values()
            .filter(|broker| fenced_too || !broker.record.fenced);
        let shown = shown.filter_map(|broker| Some((broker, broker.endpoint(listener)?)));
        let brokers = shown.map(|(broker, endpoint)| DescribeClusterBroker {
            broker_id: broker.record.broker_id,
            host: endpoint.host.clone(),
            port: endpoint.port.into(),
            rack: broker.record.rack.clone(),
            is_fenced: broker.record.fenced,
            ..Default::default()
        });
        let operations = request.include_cluster_authorized_operations;
        DescribeClusterResponse {
            cluster_id: self.cluster_id.clone(),
            controller_id: self.controller_id(),
            brokers: brokers.collect(),
            cluster_authorized_operations: if operations {
                CLUSTER_OPERATIONS
            } else {
                i32::MIN
            },
            ..Default::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{apply, cluster};
    use super::*;
    use oncelog_wire::Writer;
    use oncelog_wire::messages::RegisterBrokerRecord;
    use oncelog_wire::messages::register_broker_record::BrokerEndpoint;

    fn check(
        version: i16,
        change: impl Fn(&mut DescribeClusterRequest),
    ) -> DescribeClusterResponse {
        let mut cluster = cluster();
        let other = RegisterBrokerRecord {
            broker_id: 2,
            rack: None,
            end_points: vec![BrokerEndpoint {
                name: "PLAINTEXT".to_owned(),
                host: "other".to_owned(),
                port: 9094,
                ..Default::default()
            }],
            ..Default::default()
        };
        apply(&mut cluster, &[other.into()]);
        let mut request = DescribeClusterRequest::default();
        change(&mut request);
        let response = cluster.describe_cluster(&request, "PLAINTEXT");
        response
            .encode(&mut Writer::new(), version)
            .expect("fits the version");
        response
    }

    #[test]
    fn brokers() {
        let plain = check(0, |_| {});
        assert_eq!((plain.error_code, plain.controller_id), (0, 1));
        assert_eq!(plain.cluster_id, "test-cluster");
        assert_eq!(plain.cluster_authorized_operations, i32::MIN);
        let [own] = &plain.brokers[..] else {
            panic!("{:?}", plain.brokers)
        };
        assert_eq!(
            (own.broker_id, own.host.as_str(), own.port),
            (1, "localhost", 9092)
        );

        let all = check(2, |request| {
            request.include_fenced_brokers = true;
            request.include_cluster_authorized_operations = true;
        });
        let fenced: Vec<_> = all
            .brokers
            .iter()
            .map(|b| (b.broker_id, b.is_fenced))
            .collect();
        assert_eq!(fenced, [(1, false), (2, true)]);
        assert_eq!(all.cluster_authorized_operations, 8096, "what Kafka sends");
    }

    #[test]
    fn other_endpoints() {
        for (kind, code) in [
            (2, ErrorCode::MismatchedEndpointType),
            (0, ErrorCode::UnsupportedEndpointType),
            (7, ErrorCode::UnsupportedEndpointType),
        ] {
            let response = check(1, |request| request.endpoint_type = kind);
            assert_eq!(response.error_code, code.code());
        }
    }
}
