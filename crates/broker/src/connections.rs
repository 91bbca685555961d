//! The open connections and the order of their answers.
//!
//! Kafka's clients pipeline: they send several requests and expect the answers in the same order.
//! Requests here are handled at once and may be answered in any order (a parked fetch, an append
//! that waits for its sync), so each connection keeps its unanswered requests in a queue and lets
//! an answer out only when it stands at the front.
//!
//! Invariants: a request id names at most one unanswered request; answers leave in the order of
//! their requests; an answer to a connection that is gone is dropped.

use crate::answer::{Answer, AnswerBody};
use crate::input::ConnectionId;
use crate::prepare::Prepared;
use oncelog_wire::ApiKey;
use std::collections::{BTreeMap, VecDeque};

/// One request that expects an answer; counted up, never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// What an answer needs to know of its request.
#[derive(Clone, Debug)]
pub struct RequestMeta {
    pub correlation_id: i32,
    pub api_key: ApiKey,
    pub version: i16,
}

struct Slot {
    request: RequestId,
    meta: RequestMeta,
    body: Option<AnswerBody>,
}

pub struct Connection {
    pub peer: String,
    pub listener: String,
    slots: VecDeque<Slot>,
    /// Of requests that came while it was paused; `None` if it is not.
    held: Option<VecDeque<Prepared>>,
}

#[derive(Default)]
pub struct Connections {
    open: BTreeMap<ConnectionId, Connection>,
    waiting: BTreeMap<RequestId, ConnectionId>,
    next_request: u64,
}

impl Connections {
    pub fn connected(&mut self, id: ConnectionId, peer: String, listener: String) {
        let connection = Connection {
            peer,
            listener,
            slots: VecDeque::new(),
            held: None,
        };
        let before = self.open.insert(id, connection);
        assert!(before.is_none(), "the host reused connection id {id:?}");
    }

    pub fn get(&self, id: ConnectionId) -> Option<&Connection> {
        self.open.get(&id)
    }

    pub fn count(&self) -> usize {
        self.open.len()
    }

    /// Forgets the connection; returns its unanswered requests so that parked work can be dropped.
    pub fn disconnected(&mut self, id: ConnectionId) -> Vec<RequestId> {
        let Some(connection) = self.open.remove(&id) else {
            return Vec::new();
        };
        let unanswered: Vec<RequestId> = connection.slots.iter().map(|slot| slot.request).collect();
        for request in &unanswered {
            self.waiting.remove(request);
        }
        unanswered
    }

    /// The one that was opened first.
    pub fn oldest(&self) -> Option<ConnectionId> {
        self.open.first_key_value().map(|(id, _)| *id)
    }

    /// Requests of this connection wait from now on.
    pub fn pause(&mut self, id: ConnectionId) {
        if let Some(connection) = self.open.get_mut(&id) {
            connection.held.get_or_insert_default();
        }
    }

    /// Keeps the request if its connection is paused, or gives it back.
    pub fn hold(&mut self, id: ConnectionId, request: Prepared) -> Option<Prepared> {
        match self.open.get_mut(&id).and_then(|open| open.held.as_mut()) {
            Some(held) => {
                held.push_back(request);
                None
            }
            None => Some(request),
        }
    }

    /// Ends the pause; what has waited.
    pub fn resume(&mut self, id: ConnectionId) -> VecDeque<Prepared> {
        let connection = self.open.get_mut(&id);
        connection
            .and_then(|connection| connection.held.take())
            .unwrap_or_default()
    }

    /// Takes a place in the connection's order of answers; `None` if the connection is gone.
    pub fn expect_answer(&mut self, id: ConnectionId, meta: RequestMeta) -> Option<RequestId> {
        let connection = self.open.get_mut(&id)?;
        let request = RequestId(self.next_request);
        self.next_request += 1;
        connection.slots.push_back(Slot {
            request,
            meta,
            body: None,
        });
        self.waiting.insert(request, id);
        Some(request)
    }

    /// Answers a request; hands every answer that may leave now to `out`.
    pub fn answer(&mut self, request: RequestId, body: AnswerBody, out: &mut dyn FnMut(Answer)) {
        let Some(id) = self.waiting.remove(&request) else {
            return; // the client has gone
        };
        let Some(connection) = self.open.get_mut(&id) else {
            return;
        };
        let slot = connection
            .slots
            .iter_mut()
            .find(|slot| slot.request == request)
            .expect("a waiting request has its slot");
        slot.body = Some(body);
        while let Some(slot) = connection.slots.front_mut() {
            let Some(body) = slot.body.take() else { break };
            out(Answer {
                connection: id,
                correlation_id: slot.meta.correlation_id,
                api_key: slot.meta.api_key,
                version: slot.meta.version,
                body,
            });
            connection.slots.pop_front();
        }
    }
}
