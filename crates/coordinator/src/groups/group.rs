//! A group of either kind, and what every API asks of both.
//!
//! This is the one place where the kinds meet: adding a kind means adding an arm to each `match`
//! here and in the APIs' own files, and the compiler lists them.

use crate::Record;
use crate::groups::classic::ClassicGroup;
use crate::groups::consumer::ConsumerGroup;
use crate::groups::records;
use oncelog_wire::messages::list_groups_response::ListedGroup;
use oncelog_wire::{ErrorCode, Uuid};

#[derive(Debug)]
pub(crate) enum Group {
    Classic(ClassicGroup),
    Consumer(ConsumerGroup),
}

/// Who commits offsets, as far as the group has to judge it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Committer<'a> {
    pub member_id: &'a str,
    pub instance_id: Option<&'a str>,
    /// Generation in the classic protocol, member epoch in the consumer protocol.
    pub generation_or_epoch: i32,
    /// In a transaction: who commits need not be named, and is judged less strictly.
    pub is_transactional: bool,
    pub api_version: i16,
}

impl Committer<'_> {
    /// Nobody in particular, which a transaction's producer may be.
    pub(crate) fn is_anonymous(&self) -> bool {
        self.generation_or_epoch < 0 && self.member_id.is_empty() && self.instance_id.is_none()
    }
}

/// From when on the retention time of a group's offsets counts (KIP-211).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RetentionStart {
    /// The offsets are in use: they stay.
    Never,
    /// Since the group became empty, as wall-clock milliseconds.
    Since(i64),
    /// Since each offset's own commit.
    Commit,
}

impl Group {
    /// The record that a group of this kind is born with, so that it is known from then on.
    pub(crate) fn birth(&self, group_id: &str) -> Option<Record> {
        match self {
            Group::Classic(group) => Some(records::group(group_id, &group.to_record())),
            // Its first member makes it known.
            Group::Consumer(_) => None,
        }
    }

    /// `classic` or `consumer`, as ListGroups and its filter spell it.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Group::Classic(_) => "classic",
            Group::Consumer(_) => "consumer",
        }
    }

    pub(crate) fn member_count(&self) -> usize {
        match self {
            Group::Classic(group) => group.member_count(),
            Group::Consumer(group) => group.members.len(),
        }
    }

    pub(crate) fn state_name(&self) -> &'static str {
        match self {
            Group::Classic(group) => group.state().name(),
            Group::Consumer(group) => group.state().name(),
        }
    }

    pub(crate) fn listed(&self, group_id: &str) -> ListedGroup {
        let protocol_type = match self {
            Group::Classic(group) => group.protocol_type().unwrap_or_default(),
            Group::Consumer(_) => "consumer",
        };
        ListedGroup {
            group_id: group_id.to_owned(),
            protocol_type: protocol_type.to_owned(),
            group_state: self.state_name().to_owned(),
            group_type: self.kind().to_owned(),
            ..Default::default()
        }
    }

    /// Whether the group may commit offsets under this name and generation or epoch.
    pub(crate) fn may_commit(&self, committer: &Committer) -> Result<(), ErrorCode> {
        match self {
            Group::Classic(group) => group.may_commit(committer),
            Group::Consumer(group) => group.may_commit(committer),
        }
    }

    /// The same for one partition, of a committer who may commit as such.
    pub(crate) fn may_commit_partition(
        &self,
        committer: &Committer,
        topic: Uuid,
        partition: i32,
    ) -> Result<(), ErrorCode> {
        match self {
            Group::Classic(_) => Ok(()),
            Group::Consumer(group) => group.may_commit_partition(committer, topic, partition),
        }
    }

    /// Whether offsets may be read under this name and epoch; the classic protocol does not ask.
    pub(crate) fn may_fetch(&self, member_id: &str, epoch: i32) -> Result<(), ErrorCode> {
        match self {
            Group::Classic(_) => Ok(()),
            Group::Consumer(group) => group.may_fetch(member_id, epoch),
        }
    }

    pub(crate) fn may_delete_offsets(&self) -> Result<(), ErrorCode> {
        match self {
            Group::Classic(group) => group.may_delete_offsets(),
            // Even of a living one, but for what it subscribes to.
            Group::Consumer(_) => Ok(()),
        }
    }

    pub(crate) fn may_be_deleted(&self) -> Result<(), ErrorCode> {
        match self {
            Group::Classic(group) if group.is_empty() => Ok(()),
            Group::Consumer(group) if group.is_empty() => Ok(()),
            Group::Classic(_) | Group::Consumer(_) => Err(ErrorCode::NonEmptyGroup),
        }
    }

    /// Nobody is in the group and nobody is about to be.
    pub(crate) fn is_abandoned(&self) -> bool {
        match self {
            Group::Classic(group) => group.is_abandoned(),
            Group::Consumer(group) => group.is_empty(),
        }
    }

    pub(crate) fn is_subscribed_to(&self, topic: &str) -> bool {
        match self {
            Group::Classic(group) => group.is_subscribed_to(topic),
            Group::Consumer(group) => group.is_subscribed_to(topic),
        }
    }

    pub(crate) fn retention_start(&self) -> RetentionStart {
        match self {
            Group::Classic(group) => group.retention_start(),
            // Of topics that nobody subscribes to, whoever is in the group.
            Group::Consumer(_) => RetentionStart::Commit,
        }
    }

    /// Adds what removes the group itself; its offsets are not part of it.
    pub(crate) fn bury(&self, group_id: &str, records: &mut Vec<Record>) {
        match self {
            Group::Classic(_) => records.push(records::group_tombstone(group_id)),
            Group::Consumer(group) => group.bury(group_id, records),
        }
    }
}
