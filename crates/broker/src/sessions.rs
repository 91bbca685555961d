//! Fetch sessions (KIP-227): a consumer of many partitions names only what changed.
//!
//! A session remembers what the client wants and what it was last told of each partition. It is
//! soft state: losing one costs the client a full fetch. Sessions belong to clients, not to
//! connections, so a reconnect does not lose them.
//!
//! Bounds: `max.incremental.fetch.session.cache.slots` sessions, [`limits::SESSION_PARTITIONS`]
//! partitions each and [`limits::SESSIONS_PARTITIONS`] in all; when there is no more room, sessions
//! that were not used for [`limits::SESSION_EVICTION_MS`] make it, or the client gets a sessionless
//! answer. (Kafka also lets a larger session take the place of a smaller one that is old, though in
//! use.)

use crate::limits;
use oncelog_coordinator::cluster::TOPIC_NAME_LEN;
use oncelog_coordinator::seed::Seed;
use oncelog_wire::clock::Instant;
use oncelog_wire::messages::FetchRequest;
use oncelog_wire::messages::fetch_request::FetchPartition;
use oncelog_wire::{ErrorCode, Uuid};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The topic as the client named it: by name up to Fetch v12, by id from v13.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TopicRef {
    /// Shared: a request may name a long topic once and a hundred thousand partitions of it.
    Name(Arc<str>),
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
    /// In all sessions.
    partitions_max: usize,
    sessions: BTreeMap<i32, Session>,
}

impl FetchSessions {
    pub fn new(slots: usize) -> FetchSessions {
        FetchSessions {
            slots,
            partitions_max: limits::SESSIONS_PARTITIONS,
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
        if version < 7 || request.session_epoch == -1 || has_impossible_name(request) {
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
        if wanted.is_empty()
            || wanted.len() > limits::SESSION_PARTITIONS
            || !self.room(wanted.len(), now)
        {
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

    /// Makes room for a session of so many partitions, if that can be.
    fn room(&mut self, partitions: usize, now: Instant) -> bool {
        while self.sessions.len() >= self.slots
            || self.remembered() + partitions > self.partitions_max
        {
            let oldest = self.sessions.iter().min_by_key(|(_, session)| session.used);
            let Some((&id, session)) = oldest else {
                return false;
            };
            if now.ms_since(session.used) < limits::SESSION_EVICTION_MS {
                return false;
            }
            self.sessions.remove(&id);
        }
        true
    }

    /// Partitions in all sessions.
    fn remembered(&self) -> usize {
        let each = self.sessions.values();
        each.map(|session| session.partitions.len()).sum()
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
        let before = session.partitions.len();
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
        let own = session.partitions.len();
        // Counted only then: this runs for every fetch.
        let too_many = own > before && self.remembered() > self.partitions_max;
        if own > limits::SESSION_PARTITIONS || too_many {
            self.sessions.remove(&request.session_id);
            return Err(ErrorCode::FetchSessionIdNotFound);
        }
        let session = self.sessions.get_mut(&request.session_id);
        let session = session.expect("it was looked at above");
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

/// No topic has a name of that length, and comparing such names thousands of times takes long.
fn has_impossible_name(request: &FetchRequest) -> bool {
    let mut topics = request.topics.iter();
    topics.any(|topic| topic.topic.len() > TOPIC_NAME_LEN)
}

fn topic_ref(name: &str, id: Uuid, by_id: bool) -> TopicRef {
    match by_id {
        true => TopicRef::Id(id),
        false => TopicRef::Name(name.into()),
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

#[cfg(test)]
mod tests {
    use super::*;
    use oncelog_wire::messages::fetch_request::FetchTopic;

    /// A first request (epoch 0), or the next of a session, that names partitions from `first` on.
    fn request(session: i32, epoch: i32, first: i32, count: usize) -> FetchRequest {
        let partitions = (first..).take(count).map(|partition| FetchPartition {
            partition,
            ..Default::default()
        });
        FetchRequest {
            session_id: session,
            session_epoch: epoch,
            topics: vec![FetchTopic {
                topic: "t".to_owned(),
                partitions: partitions.collect(),
                ..Default::default()
            }],
            ..Default::default()
        }
    }

    fn at(seconds: u64) -> Instant {
        Instant(seconds * 1_000_000_000)
    }

    #[test]
    fn all_sessions_together_are_bounded() {
        const EACH: usize = 100;
        const FULL: usize = 10;
        let mut sessions = FetchSessions::new(1_000);
        sessions.partitions_max = FULL * EACH;
        let mut seed = Seed::new(7);
        let mut begin = |request: &FetchRequest, seconds| {
            let begun = sessions.begin(request, 12, at(seconds), &mut seed);
            begun.map(|(_, session)| session)
        };
        let many = request(0, 0, 0, EACH);
        let mut ids = Vec::new();
        for _ in 0..FULL - 1 {
            let Ok(SessionUse::Opened(id)) = begin(&many, 10) else {
                panic!("there is room");
            };
            ids.push(id);
        }
        let small = request(0, 0, 0, EACH - 10);
        let Ok(SessionUse::Opened(grows)) = begin(&small, 10) else {
            panic!("there is room");
        };
        assert_eq!(begin(&many, 10), Ok(SessionUse::None), "it is full");
        // A session that grows past the bound is ended, and its client begins anew.
        let more = request(grows, 1, EACH as i32, 10);
        assert_eq!(begin(&more, 10), Ok(SessionUse::Incremental(grows)));
        let too_many = request(grows, 2, EACH as i32 * 2, 1);
        let ended = Err(ErrorCode::FetchSessionIdNotFound);
        assert_eq!(begin(&too_many, 10), ended);
        // Who was not heard of makes room.
        let goes_on = request(ids[0], 1, 0, 1);
        assert_eq!(begin(&goes_on, 100), Ok(SessionUse::Incremental(ids[0])));
        assert!(matches!(begin(&small, 100), Ok(SessionUse::Opened(_))));
        assert_eq!(begin(&many, 129), Ok(SessionUse::None));
        assert!(matches!(begin(&many, 131), Ok(SessionUse::Opened(_))));
        let rest = ids[1..].iter().map(|id| begin(&request(*id, 1, 0, 1), 131));
        assert_eq!(rest.filter(|answer| *answer == ended).count(), 1);
    }

    #[test]
    fn a_name_that_no_topic_has_opens_no_session() {
        let mut sessions = FetchSessions::new(10);
        let mut request = request(0, 0, 0, 3);
        request.topics[0].topic = "t".repeat(TOPIC_NAME_LEN + 1);
        let begun = sessions.begin(&request, 12, at(1), &mut Seed::new(7));
        let (wanted, session) = begun.unwrap();
        assert_eq!((wanted.len(), session), (3, SessionUse::None));
    }
}
