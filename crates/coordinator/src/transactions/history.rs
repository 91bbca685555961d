//! Why a producer's epoch is what it is: every bump and fencing of a transactional id, durable.
//!
//! The newest [`EVENTS_MAX`] events; a run of bumps by ended transactions is one event with
//! counts. Kept inside the id's own record, in a tagged field that Kafka's readers skip.

use super::transaction::Identity;
use oncelog_wire::{DecodeError, EncodeError, Reader, Writer};
use std::collections::VecDeque;
use std::fmt::Write;

pub(crate) const EVENTS_MAX: usize = 16;
/// Bytes of a client's id or host that are kept.
const NAME_BYTES_MAX: usize = 64;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct History {
    events: VecDeque<Event>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Event {
    pub why: Why,
    pub wall_ms: i64,
    /// Who the producer is since.
    pub identity: Identity,
    /// Empty where no client asked for it.
    pub client_id: String,
    pub client_host: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Why {
    /// A new instance of the producer introduced itself.
    Instance { timeout_ms: i32 },
    /// An open transaction was aborted, and its producer fenced, because a new instance came.
    FencedByInstance,
    /// An open transaction was aborted, and its producer fenced, this long after it began.
    TimedOut { after_ms: i64 },
    /// The producer itself asked for a new epoch (KIP-360).
    Recovered,
    /// A new instance took over an open transaction (KIP-939).
    Kept,
    /// The producer id had no epochs left and was replaced.
    Exhausted,
    /// Transactions ended, each with a bump (transaction version 2).
    Ended { commits: u32, aborts: u32 },
}

impl History {
    pub(crate) fn add(&mut self, mut event: Event) {
        if let Some(last) = self.events.back_mut()
            && let Why::Ended { commits, aborts } = event.why
            && let Why::Ended {
                commits: before,
                aborts: aborted_before,
            } = last.why
        {
            last.why = Why::Ended {
                commits: before.saturating_add(commits),
                aborts: aborted_before.saturating_add(aborts),
            };
            (last.wall_ms, last.identity) = (event.wall_ms, event.identity);
            return;
        }
        shorten(&mut event.client_id);
        shorten(&mut event.client_host);
        self.events.push_back(event);
        if self.events.len() > EVENTS_MAX {
            self.events.pop_front();
        }
    }

    pub(crate) fn newest(&self) -> Option<&Event> {
        self.events.back()
    }

    pub(crate) fn encode(&self, w: &mut Writer) -> Result<(), EncodeError> {
        w.unsigned_varint(self.events.len() as u32);
        for event in &self.events {
            let (kind, first, second) = event.why.to_parts();
            w.i8(kind);
            w.i64(first);
            w.i64(second);
            w.i64(event.wall_ms);
            w.i64(event.identity.producer_id);
            w.i16(event.identity.producer_epoch);
            w.string(&event.client_id, true)?;
            w.string(&event.client_host, true)?;
        }
        Ok(())
    }

    /// Events of a kind that is not known here are left out.
    pub(crate) fn decode(r: &mut Reader) -> Result<History, DecodeError> {
        let mut history = History::default();
        for _ in 0..r.unsigned_varint()? {
            let why = Why::from_parts(r.i8()?, r.i64()?, r.i64()?);
            let (wall_ms, producer_id, producer_epoch) = (r.i64()?, r.i64()?, r.i16()?);
            let event = Event {
                why: why.unwrap_or(Why::Kept),
                wall_ms,
                identity: Identity {
                    producer_id,
                    producer_epoch,
                },
                client_id: r.string(true)?,
                client_host: r.string(true)?,
            };
            if why.is_some() {
                history.events.push_back(event);
            }
            if history.events.len() > EVENTS_MAX {
                history.events.pop_front();
            }
        }
        Ok(history)
    }

    /// One JSON object a line, the oldest event first.
    pub(crate) fn to_json_lines(&self) -> String {
        let mut text = String::new();
        for event in &self.events {
            event.write_json(&mut text);
            text.push('\n');
        }
        text
    }
}

impl Why {
    fn to_parts(self) -> (i8, i64, i64) {
        match self {
            Why::Instance { timeout_ms } => (0, timeout_ms.into(), 0),
            Why::FencedByInstance => (1, 0, 0),
            Why::TimedOut { after_ms } => (2, after_ms, 0),
            Why::Recovered => (3, 0, 0),
            Why::Kept => (4, 0, 0),
            Why::Exhausted => (5, 0, 0),
            Why::Ended { commits, aborts } => (6, commits.into(), aborts.into()),
        }
    }

    fn from_parts(kind: i8, first: i64, second: i64) -> Option<Why> {
        Some(match kind {
            0 => Why::Instance {
                timeout_ms: first as i32,
            },
            1 => Why::FencedByInstance,
            2 => Why::TimedOut { after_ms: first },
            3 => Why::Recovered,
            4 => Why::Kept,
            5 => Why::Exhausted,
            6 => Why::Ended {
                commits: first as u32,
                aborts: second as u32,
            },
            _ => return None,
        })
    }

    fn name(self) -> &'static str {
        match self {
            Why::Instance { .. } => "instance",
            Why::FencedByInstance => "fenced_by_instance",
            Why::TimedOut { .. } => "timed_out",
            Why::Recovered => "recovered",
            Why::Kept => "kept",
            Why::Exhausted => "exhausted",
            Why::Ended { .. } => "ended",
        }
    }
}

impl Event {
    /// What happened, for people.
    pub(crate) fn text(&self) -> String {
        let who = match self.client_host.as_str() {
            "" => String::new(),
            host => format!(" from {host} (client id {})", self.client_id),
        };
        match self.why {
            Why::Instance {
                timeout_ms: i32::MAX,
            } => format!("new instance{who} with two phase commit"),
            Why::Instance { timeout_ms } => {
                format!("new instance{who} with a timeout of {timeout_ms} ms")
            }
            Why::FencedByInstance => {
                format!("open transaction aborted and its producer fenced by a new instance{who}")
            }
            Why::TimedOut { after_ms } => {
                format!("open transaction aborted and its producer fenced after {after_ms} ms")
            }
            Why::Recovered => format!("new epoch asked for by the producer itself{who}"),
            Why::Kept => format!("open transaction taken over by a new instance{who}"),
            Why::Exhausted => format!("new producer id{who}, the epochs of the last are used up"),
            Why::Ended { commits, aborts } => {
                format!("{commits} transactions committed and {aborts} aborted")
            }
        }
    }

    fn write_json(&self, out: &mut String) {
        let Identity {
            producer_id,
            producer_epoch,
        } = self.identity;
        let (time, event) = (self.wall_ms, self.why.name());
        // Writing to a string does not fail.
        let _ = write!(
            out,
            r#"{{"time_ms":{time},"event":"{event}","producer_id":{producer_id},"producer_epoch":{producer_epoch}"#
        );
        match self.why {
            Why::Instance { timeout_ms } => _ = write!(out, r#","timeout_ms":{timeout_ms}"#),
            Why::TimedOut { after_ms } => _ = write!(out, r#","after_ms":{after_ms}"#),
            Why::Ended { commits, aborts } => {
                _ = write!(out, r#","commits":{commits},"aborts":{aborts}"#);
            }
            _ => {}
        }
        for (key, value) in [
            ("client_id", &self.client_id),
            ("client_host", &self.client_host),
            ("text", &self.text()),
        ] {
            if !value.is_empty() {
                let _ = write!(out, r#","{key}":"#);
                json_string(value, out);
            }
        }
        out.push('}');
    }
}

fn json_string(text: &str, out: &mut String) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if c < ' ' || c == '\u{7f}' => _ = write!(out, "\\u{:04x}", c as u32),
            c => out.push(c),
        }
    }
    out.push('"');
}

fn shorten(name: &mut String) {
    let at = name.floor_char_boundary(NAME_BYTES_MAX);
    name.truncate(at);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(why: Why, wall_ms: i64) -> Event {
        Event {
            why,
            wall_ms,
            identity: Identity {
                producer_id: 7,
                producer_epoch: wall_ms as i16,
            },
            client_id: "a \"b\"\n".into(),
            client_host: "/127.0.0.1".into(),
        }
    }

    fn round_trip(history: &History) -> History {
        let mut writer = Writer::new();
        history.encode(&mut writer).unwrap();
        History::decode(&mut Reader::new(writer.into_bytes().unwrap())).unwrap()
    }

    #[test]
    fn every_event_round_trips() {
        let mut history = History::default();
        let all = [
            Why::Instance { timeout_ms: 9 },
            Why::FencedByInstance,
            Why::TimedOut { after_ms: 60_000 },
            Why::Recovered,
            Why::Kept,
            Why::Exhausted,
            Why::Ended {
                commits: 3,
                aborts: 1,
            },
        ];
        for (at, why) in all.into_iter().enumerate() {
            history.add(event(why, at as i64));
        }
        assert_eq!(round_trip(&history), history);
        assert_eq!(history.to_json_lines().lines().count(), all.len());
    }

    #[test]
    fn only_the_newest_are_kept_and_ends_are_counted() {
        let mut history = History::default();
        for at in 0..40 {
            history.add(event(Why::Recovered, at));
        }
        for at in 40..1_000 {
            let commits = u32::from(at % 3 != 0);
            let aborts = 1 - commits;
            history.add(event(Why::Ended { commits, aborts }, at));
        }
        assert_eq!(history.events.len(), EVENTS_MAX);
        let last = history.events.back().unwrap();
        assert_eq!(
            last.why,
            Why::Ended {
                commits: 640,
                aborts: 320
            }
        );
        assert_eq!(last.wall_ms, 999);
    }

    #[test]
    fn names_are_shortened_and_json_is_escaped() {
        let mut long = event(Why::Recovered, 1);
        long.client_host = "\u{fc}".repeat(100);
        let mut history = History::default();
        history.add(long);
        assert_eq!(history.events[0].client_host.len(), NAME_BYTES_MAX);
        let json = history.to_json_lines();
        assert!(json.starts_with(
            r#"{"time_ms":1,"event":"recovered","producer_id":7,"producer_epoch":1,"client_id":"a \"b\"\u000a""#
        ), "{json}");
        assert!(json.ends_with("\"}\n"), "{json}");
    }
}
