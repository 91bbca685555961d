//! One connection of a client and the requests that wait on it.

use super::{ActorEvent, Context};
use bytes::Bytes;
use oncelog_broker::ConnectionId;
use oncelog_wire::{ApiKey, RequestBody, ResponseBody, frame};
use std::collections::VecDeque;

/// What an event meant for the session.
pub enum Heard {
    /// The answer to the request that was tagged so.
    Answer(u64, Box<ResponseBody>),
    /// The connection is gone; these requests stay unanswered.
    Lost,
    Nothing,
}

/// Requests carry a tag of the client's own, handed back with the answer.
#[derive(Default)]
pub struct Session {
    connection: Option<ConnectionId>,
    next_correlation: i32,
    waiting: VecDeque<(i32, ApiKey, i16, u64)>,
}

impl Session {
    pub fn is_open(&self) -> bool {
        self.connection.is_some()
    }

    pub fn outstanding(&self) -> usize {
        self.waiting.len()
    }

    /// Sends a request, on a new connection if there is none.
    pub fn ask(&mut self, context: &mut Context, version: i16, tag: u64, body: RequestBody) {
        let connection = match self.connection {
            Some(connection) => connection,
            None => context.scheduler.connect(context.id),
        };
        self.connection = Some(connection);
        let correlation = self.next_correlation;
        self.next_correlation += 1;
        self.waiting
            .push_back((correlation, body.api_key(), version, tag));
        let encoded = frame::encode_request(correlation, Some("sim"), version, &body);
        let encoded = encoded.expect("the actors fill only fields that their version has");
        let frame = encoded.to_bytes().expect("requests hold no file slices");
        context.scheduler.to_broker(connection, frame);
    }

    /// Like `ask`, for a produce with acks=0.
    pub fn tell(&mut self, context: &mut Context, version: i16, body: RequestBody) {
        self.ask(context, version, 0, body);
        self.waiting.pop_back();
    }

    /// Lets go of the connection.
    pub fn close(&mut self, context: &mut Context) {
        if let Some(connection) = self.connection.take() {
            context.scheduler.cut(connection);
        }
        self.waiting.clear();
    }

    /// Gives the connection up without a word to the other end: what is on its way there arrives
    /// all the same, and nobody listens to the answer.
    pub fn abandon(&mut self, context: &mut Context) {
        if let Some(connection) = self.connection.take() {
            context.scheduler.abandon(connection);
        }
        self.waiting.clear();
    }

    /// Holds up what is on its way to the broker, and what follows it.
    pub fn stall(&mut self, context: &mut Context, ms: u64) {
        if let Some(connection) = self.connection {
            context.trace(|| format!("{connection:?} is held up for {ms} ms"));
            context.scheduler.stall(connection, ms);
        }
    }

    pub fn owns(&self, connection: ConnectionId) -> bool {
        self.connection == Some(connection)
    }

    pub fn hear(&mut self, event: ActorEvent) -> Result<Heard, String> {
        match event {
            ActorEvent::Wake => Ok(Heard::Nothing),
            ActorEvent::Closed(id) if self.connection == Some(id) => {
                self.connection = None;
                self.waiting.clear();
                Ok(Heard::Lost)
            }
            ActorEvent::Frame(id, frame) if self.connection == Some(id) => self.answer(frame),
            ActorEvent::Closed(_) | ActorEvent::Frame(..) | ActorEvent::Answered(..) => {
                Ok(Heard::Nothing)
            }
        }
    }

    fn answer(&mut self, frame: Bytes) -> Result<Heard, String> {
        let Some((correlation, key, version, tag)) = self.waiting.pop_front() else {
            return Err("an answer that nobody asked for".to_owned());
        };
        let (header, body) = frame::decode_response(frame, key, version)
            .map_err(|error| format!("an unreadable {} v{version} answer: {error}", key.name()))?;
        if header.correlation_id != correlation {
            let got = header.correlation_id;
            return Err(format!("answer {got} came where {correlation} was due"));
        }
        Ok(Heard::Answer(tag, Box::new(body)))
    }
}
