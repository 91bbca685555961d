//! One member of a classic group.

use crate::ReplyTo;
use crate::outcome::Outcome;
use bytes::Bytes;
use oncelog_wire::ErrorCode;
use oncelog_wire::clock::{Instant, Now};
use oncelog_wire::messages::group_metadata_value::MemberMetadata;
use oncelog_wire::messages::{JoinGroupResponse, SyncGroupResponse};

/// A request whose answer comes later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Parked {
    pub reply: ReplyTo,
    pub api_version: i16,
}

#[derive(Debug)]
pub(crate) struct Member {
    pub instance_id: Option<String>,
    pub client_id: String,
    pub client_host: String,
    pub rebalance_timeout_ms: i32,
    pub session_timeout_ms: i32,
    /// Name and metadata of each protocol, most preferred first.
    pub protocols: Vec<(String, Bytes)>,
    pub assignment: Bytes,
    pub awaiting_join: Option<Parked>,
    pub awaiting_sync: Option<Parked>,
    /// The client does not know its member id yet, so it cannot send heartbeats.
    pub is_new: bool,
    /// When the member counts as failed; `NEVER` while a parked request speaks for it.
    pub expires_at: Instant,
}

impl Member {
    /// Metadata for the protocol; empty if the member does not offer it.
    pub(crate) fn metadata(&self, protocol: &str) -> Bytes {
        let offered = self.protocols.iter().find(|(name, _)| name == protocol);
        offered
            .map(|(_, metadata)| metadata.clone())
            .unwrap_or_default()
    }

    pub(crate) fn offers(&self, protocol: &str) -> bool {
        self.protocols.iter().any(|(name, _)| name == protocol)
    }

    /// The session starts anew.
    pub(crate) fn touch(&mut self, now: Now) {
        self.expires_at = now.instant.plus_ms(self.session_timeout_ms.into());
    }

    /// A parked request counts as a heartbeat, except for a member that has just come: its
    /// client may be gone, and nothing else would ever tell.
    pub(crate) fn has_parked_heartbeat(&self) -> bool {
        !self.is_new && (self.awaiting_join.is_some() || self.awaiting_sync.is_some())
    }

    /// Parks a join. One that was parked before lost its client: it is told to try again.
    pub(crate) fn park_join(&mut self, parked: Parked, out: &mut Outcome) {
        self.refuse_join("", ErrorCode::RebalanceInProgress, out);
        self.awaiting_join = Some(parked);
    }

    /// Parks a sync; the same for one that was parked before.
    pub(crate) fn park_sync(&mut self, parked: Parked, out: &mut Outcome) {
        self.refuse_sync(ErrorCode::RebalanceInProgress, out);
        self.awaiting_sync = Some(parked);
    }

    pub(crate) fn refuse_join(&mut self, member_id: &str, error: ErrorCode, out: &mut Outcome) {
        if let Some(parked) = self.awaiting_join.take() {
            out.reply(
                parked.reply,
                join_refused(parked.api_version, member_id, error),
            );
        }
    }

    pub(crate) fn refuse_sync(&mut self, error: ErrorCode, out: &mut Outcome) -> bool {
        let Some(parked) = self.awaiting_sync.take() else {
            return false;
        };
        out.reply(parked.reply, sync_refused(error));
        true
    }

    pub(crate) fn to_record(&self, member_id: &str, protocol: &str) -> MemberMetadata {
        MemberMetadata {
            member_id: member_id.to_owned(),
            group_instance_id: self.instance_id.clone(),
            client_id: self.client_id.clone(),
            client_host: self.client_host.clone(),
            rebalance_timeout: self.rebalance_timeout_ms,
            session_timeout: self.session_timeout_ms,
            subscription: self.metadata(protocol),
            assignment: self.assignment.clone(),
            ..Default::default()
        }
    }

    /// A member as the last record left it; its session starts now.
    pub(crate) fn from_record(record: &MemberMetadata, protocol: &str, now: Now) -> Member {
        let rebalance_timeout_ms = match record.rebalance_timeout {
            -1 => record.session_timeout,
            timeout => timeout,
        };
        let mut member = Member {
            instance_id: record.group_instance_id.clone(),
            client_id: record.client_id.clone(),
            client_host: record.client_host.clone(),
            rebalance_timeout_ms,
            session_timeout_ms: record.session_timeout,
            protocols: vec![(protocol.to_owned(), record.subscription.clone())],
            assignment: record.assignment.clone(),
            awaiting_join: None,
            awaiting_sync: None,
            is_new: false,
            expires_at: Instant::NEVER,
        };
        member.touch(now);
        member
    }
}

pub(crate) fn join_refused(
    api_version: i16,
    member_id: &str,
    error: ErrorCode,
) -> JoinGroupResponse {
    JoinGroupResponse {
        error_code: error.code(),
        generation_id: -1,
        protocol_name: join_protocol_name(api_version, None),
        member_id: member_id.to_owned(),
        ..Default::default()
    }
}

/// The field may be null from version 7 on; before that, "no protocol" is the empty string.
pub(crate) fn join_protocol_name(api_version: i16, name: Option<&str>) -> Option<String> {
    match name {
        None if api_version >= 7 => None,
        name => Some(name.unwrap_or_default().to_owned()),
    }
}

pub(crate) fn sync_refused(error: ErrorCode) -> SyncGroupResponse {
    SyncGroupResponse {
        error_code: error.code(),
        ..Default::default()
    }
}
