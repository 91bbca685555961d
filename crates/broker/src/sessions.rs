//! Fetch sessions (KIP-227): a consumer of many partitions names only what changed.
//!
//! A session remembers what the client wants and what it was last told of each partition. It is
//! soft state: losing one costs the client a full fetch. Sessions belong to clients, not to
//! connections, so a reconnect does not lose them.
//!
//! Bounds: `max.incremental.fetch.session.cache.slots` sessions, [`limits::SESSION_PARTITIONS`]
//! partitions each; when all slots are taken, one that was not used for
//! [`limits::SESSION_EVICTION_MS`] makes room, or the client gets a sessionless answer. (Kafka also
//! lets a larger session take the place of a smaller one that is old, though in use.)

use crate::limits;
use oncelog_coordinator::seed::Seed;
use oncelog_wire::clock::Instant;
use oncelog_wire::messages::FetchRequest;
use oncelog_wire::messages::fetch_request::FetchPartition;
use oncelog_wire::{ErrorCode, Uuid};
use std::collections::BTreeMap;

/// The topic as the client named it: by name up to Fetch v12, by id from v13.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TopicRef {
    Name(String),
    Id(Uuid),
}

/// One partition that a client wants to read.
#[derive(Clone, Debug)]
pub struct Wanted {
    pub topic: TopicRef,
    pub index: i32,
    pub fetch_offset: i64,
    pub max_bytes: i32,
    pub current_leader_epoch: i32,
    pub last_fetched_epoch: i32,
}

/// What the client was last told of a partition; an incremental answer leaves out what is equal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Told {
    pub high_watermark: i64,
    pub log_start_offset: i64,
    pub error: i16,
}

/// How the answer to one fetch relates to a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionUse {
    /// No session: a full answer with session id 0.
    None,
    /// A full answer that opens a session.
    Opened(i32),
    /// An answer with changes only.
    Incremental(i32),
}

struct Session {
    epoch: i32,
    by_id: bool,
    used: Instant,
    /// In the order in which they will be read; those that gave data move to the back.
    order: BTreeMap<u64, (TopicRef, i32)>,
    next_place: u64,
    partitions: BTreeMap<(TopicRef, i32), Remembered>,
}

struct Remembered {
    want: Wanted,
    told: Told,
    place: u64,
}

pub struct FetchSessions {
    slots: usize,
    sessions: BTreeMap<i32, Session>,
}

impl FetchSessions {
    pub fn new(slots: usize) -> FetchSessions {
        FetchSessions {
            slots,
            sessions: BTreeMap::new(),
        }
    }

    /// What this request wants to read, and how it relates to a session.
    pub fn begin(
        &mut self,
        request: &FetchRequest,
        version: i16,
        now: Instant,
        seed: &mut Seed,
    ) -> Result<(Vec<Wanted>, SessionUse), ErrorCode> {
        let by_id = version >= 13;
        if version < 7 || request.session_epoch == -1 {
            self.sessions.remove(&request.session_id);
            return Ok((wanted_of(request, by_id), SessionUse::None));
        }
        if request.session_epoch == 0 {
            self.sessions.remove(&request.session_id);
            let wanted = wanted_of(request, by_id);
            let session = self.open(&wanted, by_id, now, seed);
            return Ok((wanted, session));
        }
        self.go_on(request, by_id, now)
    }

    fn open(
        &mut self,
        wanted: &[Wanted],
        by_id: bool,
        now: Instant,
        seed: &mut Seed,
    ) -> SessionUse {
        if wanted.is_empty() || wanted.len() > limits::SESSION_PARTITIONS || !self.room(now) {
            return SessionUse::None;
        }
        let id = loop {
            let id = (seed.next_u64() & 0x7fff_ffff) as i32;
            if id != 0 && !self.sessions.contains_key(&id) {
                break id;
            }
        };
        let mut session = Session {
            epoch: 1,
            by_id,
            used: now,
            order: BTreeMap::new(),
            next_place: 0,
            partitions: BTreeMap::new(),
        };
        for want in wanted {
            session.put(want.clone());
        }
        self.sessions.insert(id, session);
        SessionUse::Opened(id)
    }

    fn room(&mut self, now: Instant) -> bool {
        if self.sessions.len() < self.slots {
            return true;
        }
        let oldest = self.sessions.iter().min_by_key(|(_, session)| session.used);
        let Some((&id, session)) = oldest else {
            return false;
        };
        if now.ms_since(session.used) < limits::SESSION_EVICTION_MS {
            return false;
        }
        self.sessions.remove(&id);
        true
    }

    fn go_on(
        &mut self,
        request: &FetchRequest,
        by_id: bool,
        now: Instant,
    ) -> Result<(Vec<Wanted>, SessionUse), ErrorCode> {
        let Some(session) = self.sessions.get_mut(&request.session_id) else {
            return Err(ErrorCode::FetchSessionIdNotFound);
        };
        if session.epoch != request.session_epoch {
            return Err(ErrorCode::InvalidFetchSessionEpoch);
        }
        if session.by_id != by_id {
            return Err(ErrorCode::FetchSessionTopicIdError);
        }
        for want in wanted_of(request, by_id) {
            session.put(want);
        }
        for topic in &request.forgotten_topics_data {
            let reference = topic_ref(&topic.topic, topic.topic_id, by_id);
            for index in &topic.partitions {
                session.forget(&(reference.clone(), *index));
            }
        }
        if session.partitions.is_empty() {
            // Nothing is left to remember: the answer, with session id 0, says so.
            self.sessions.remove(&request.session_id);
            return Ok((wanted_of(request, by_id), SessionUse::None));
        }
        if session.partitions.len() > limits::SESSION_PARTITIONS {
            self.sessions.remove(&request.session_id);
            return Err(ErrorCode::FetchSessionIdNotFound);
        }
        session.used = now;
        session.epoch = if session.epoch == i32::MAX {
            1
        } else {
            session.epoch + 1
        };
        let wanted = session
            .order
            .values()
            .map(|key| session.partitions[key].want.clone());
        Ok((
            wanted.collect(),
            SessionUse::Incremental(request.session_id),
        ))
    }

    /// Notes what the client is told of a partition; false if an incremental answer may leave it
    /// out (nothing new, no bytes). `its_turn`: the answer has room for bytes of this partition.
    pub fn tell(
        &mut self,
        id: i32,
        want: &Wanted,
        told: Told,
        has_bytes: bool,
        its_turn: bool,
    ) -> bool {
        let Some(session) = self.sessions.get_mut(&id) else {
            return true;
        };
        let key = (want.topic.clone(), want.index);
        let Some(remembered) = session.partitions.get_mut(&key) else {
            return true;
        };
        let changed = remembered.told != told || told.error != 0;
        remembered.told = told;
        if has_bytes && its_turn {
            // Those that gave data wait their turn, so that no partition starves the others.
            session.order.remove(&remembered.place);
            remembered.place = session.next_place;
            session.next_place += 1;
            session.order.insert(remembered.place, key);
        }
        changed || has_bytes
    }
}

impl Session {
    fn put(&mut self, want: Wanted) {
        let key = (want.topic.clone(), want.index);
        if let Some(remembered) = self.partitions.get_mut(&key) {
            remembered.want = want;
            return;
        }
        let told = Told {
            high_watermark: -1,
            log_start_offset: -1,
            error: -1,
        };
        let place = self.next_place;
        self.next_place += 1;
        self.order.insert(place, key.clone());
        self.partitions
            .insert(key, Remembered { want, told, place });
    }

    fn forget(&mut self, key: &(TopicRef, i32)) {
        if let Some(remembered) = self.partitions.remove(key) {
            self.order.remove(&remembered.place);
        }
    }
}

fn topic_ref(name: &str, id: Uuid, by_id: bool) -> TopicRef {
    match by_id {
        true => TopicRef::Id(id),
        false => TopicRef::Name(name.to_owned()),
    }
}

fn wanted_of(request: &FetchRequest, by_id: bool) -> Vec<Wanted> {
    let mut wanted = Vec::new();
    for topic in &request.topics {
        let reference = topic_ref(&topic.topic, topic.topic_id, by_id);
        let want = |partition: &FetchPartition| Wanted {
            topic: reference.clone(),
            index: partition.partition,
            fetch_offset: partition.fetch_offset,
            max_bytes: partition.partition_max_bytes,
            current_leader_epoch: partition.current_leader_epoch,
            last_fetched_epoch: partition.last_fetched_epoch,
        };
        wanted.extend(topic.partitions.iter().map(want));
    }
    wanted
}
