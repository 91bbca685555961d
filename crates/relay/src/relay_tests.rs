use super::*;
use crate::router::Options;
use crate::row::{Columns, Operation as RowOperation, Value};

/// What the host of a scripted relay was asked for, as short words.
struct Script {
    relay: Relay,
    columns: Columns,
}

fn relay(delivery: Delivery, on_poison: OnPoison) -> Script {
    let settings = Settings {
        name: "orders".into(),
        delivery,
        on_poison,
        dead_letter_topic: "orders.dead-letter".into(),
        limit: Limit {
            rows: 100,
            bytes: 1 << 20,
        },
        read_wait: Duration::from_secs(1),
    };
    let names = ["id", "aggregatetype", "aggregateid", "payload"];
    Script {
        relay: Relay::new(settings, Router::new(Options::default()).unwrap()),
        columns: names.iter().map(|name| (*name).to_owned()).collect(),
    }
}

impl Script {
    fn say(&mut self, outcome: Outcome) -> String {
        short(&self.relay.step(outcome))
    }

    fn open(&mut self) {
        let exactly_once = self.relay.is_exactly_once();
        assert_eq!(self.say(Outcome::Started), "init");
        let next = self.say(Outcome::Init(Ok(())));
        if exactly_once {
            assert_eq!(next, "read progress");
            assert_eq!(self.say(Outcome::ReadProgress(Ok(None))), "open");
        } else {
            assert_eq!(next, "open");
        }
        assert_eq!(self.say(Outcome::Open(Ok("sqlite:1".into()))), "read");
    }

    /// A row for each number; a negative one cannot be routed.
    fn rows(&mut self, sequences: &[i64]) -> String {
        let row = |sequence: &i64| OutboxRow {
            position: Position::Cursor {
                sequence: sequence.abs(),
            },
            operation: RowOperation::Insert,
            columns: Arc::clone(&self.columns),
            values: vec![
                Value::Text(format!("e{sequence}")),
                if *sequence < 0 {
                    Value::Null
                } else {
                    Value::Text("order".into())
                },
                Value::Text("a".into()),
                Value::Text(sequence.to_string()),
            ],
        };
        let batch = Batch {
            rows: sequences.iter().map(row).collect(),
            heartbeat: None,
        };
        self.say(Outcome::Read(Ok(batch)))
    }

    fn rejected(&mut self, index: Option<usize>) -> String {
        let reason = "too large".to_owned();
        self.say(Outcome::Publish(Err(TopicsError::Rejected {
            index,
            reason,
        })))
    }
}

fn short(operation: &Operation) -> String {
    match operation {
        Operation::Init => "init".into(),
        Operation::ReadProgress => "read progress".into(),
        Operation::Open(None) => "open".into(),
        Operation::Open(Some(progress)) => format!("open after {}", progress.position),
        Operation::Read(..) => "read".into(),
        Operation::Publish(publication) => {
            let payload = |event: &Event| {
                let value = event.value.as_deref().unwrap_or(b"-");
                let dead = event.topic.ends_with("dead-letter");
                if dead {
                    "dead".to_owned()
                } else {
                    String::from_utf8_lossy(value).into_owned()
                }
            };
            let events: Vec<String> = publication.events().iter().map(payload).collect();
            let at = publication
                .progress
                .as_ref()
                .map(|progress| format!(" at {}", progress.position));
            format!("publish {}{}", events.join(","), at.unwrap_or_default())
        }
        Operation::Commit => "commit".into(),
        Operation::Abort => "abort".into(),
        Operation::Confirm(position) => format!("confirm {position}"),
        Operation::Wait(pause) => format!("wait {} ms", pause.as_millis()),
        Operation::Stop(Stop::Fenced(_)) => "fenced".into(),
        Operation::Stop(Stop::Refused(_)) => "refused".into(),
        Operation::Stop(Stop::Poison(_)) => "poison".into(),
    }
}

fn lost() -> TopicsError {
    TopicsError::Lost("connection reset".into())
}

#[test]
fn exactly_once_confirms_after_the_commit_of_events_and_progress() {
    let mut script = relay(Delivery::ExactlyOnce, OnPoison::Halt);
    script.open();
    assert_eq!(script.rows(&[1, 2]), "publish 1,2 at row 2");
    assert_eq!(script.say(Outcome::Publish(Ok(()))), "commit");
    assert_eq!(script.say(Outcome::Commit(Ok(()))), "confirm row 2");
    assert_eq!(script.say(Outcome::Confirm(Ok(()))), "read");
    assert_eq!(script.rows(&[]), "read");
    let counts = script.relay.counts();
    assert_eq!((counts.published, counts.transactions), (2, 1));
}

#[test]
fn at_least_once_confirms_what_is_acknowledged() {
    let mut script = relay(Delivery::AtLeastOnce, OnPoison::Halt);
    script.open();
    assert_eq!(script.rows(&[1, 2]), "publish 1,2");
    assert_eq!(script.say(Outcome::Publish(Ok(()))), "confirm row 2");
    assert_eq!(script.say(Outcome::Confirm(Ok(()))), "read");
}

#[test]
fn at_most_once_confirms_before_it_sends_and_never_sends_again() {
    let mut script = relay(Delivery::AtMostOnce, OnPoison::Halt);
    script.open();
    assert_eq!(script.rows(&[1, 2]), "confirm row 2");
    assert_eq!(script.say(Outcome::Confirm(Ok(()))), "publish 1,2");
    assert_eq!(script.say(Outcome::Publish(Ok(()))), "read");
    assert_eq!(script.rows(&[3]), "confirm row 3");
    assert_eq!(script.say(Outcome::Confirm(Ok(()))), "publish 3");
    assert_eq!(script.say(Outcome::Publish(Err(lost()))), "wait 50 ms");
    assert_eq!(script.say(Outcome::Wait), "init");
    assert_eq!(script.relay.counts().given_up, 1);
}

#[test]
fn an_unknown_outcome_begins_anew_and_never_sends_on_a_guess() {
    for failed in [
        Outcome::Publish(Err(lost())),
        Outcome::Commit(Err(lost())),
        Outcome::Confirm(Err(SourceError::Lost("gone".into()))),
    ] {
        let mut script = relay(Delivery::ExactlyOnce, OnPoison::Halt);
        script.open();
        assert_eq!(script.rows(&[1]), "publish 1 at row 1");
        assert_eq!(script.say(failed), "wait 50 ms");
        assert!(script.relay.trouble().is_some());
        assert_eq!(script.say(Outcome::Wait), "init");
        assert_eq!(script.say(Outcome::Init(Ok(()))), "read progress");
        let progress = Progress::new("sqlite:1", Position::Cursor { sequence: 1 });
        assert_eq!(
            script.say(Outcome::ReadProgress(Ok(Some(progress)))),
            "open after row 1"
        );
        // What it had read is forgotten: the source hands out what is left.
        assert_eq!(script.say(Outcome::Open(Ok("sqlite:1".into()))), "read");
    }
}

#[test]
fn pauses_grow_until_something_succeeds() {
    let mut script = relay(Delivery::ExactlyOnce, OnPoison::Halt);
    assert_eq!(script.say(Outcome::Started), "init");
    for pause in ["wait 50 ms", "wait 100 ms", "wait 200 ms"] {
        assert_eq!(script.say(Outcome::Init(Err(lost()))), pause);
        assert_eq!(script.say(Outcome::Wait), "init");
    }
    script.say(Outcome::Init(Ok(())));
    script.say(Outcome::ReadProgress(Ok(None)));
    script.say(Outcome::Open(Ok("sqlite:1".into())));
    script.rows(&[1]);
    script.say(Outcome::Publish(Ok(())));
    script.say(Outcome::Commit(Ok(())));
    assert_eq!(script.relay.trouble(), None);
    assert_eq!(script.say(Outcome::Init(Err(lost()))), "wait 50 ms");
}

/// Whoever has lost the source to another instance must not take it back.
#[test]
fn who_has_lost_the_source_asks_whether_it_is_still_the_one() {
    let source_lost = || SourceError::Lost("x".into());
    let mut script = relay(Delivery::ExactlyOnce, OnPoison::Halt);
    script.open();
    // Nothing was published yet: there is no progress to ask with.
    assert_eq!(script.say(Outcome::Read(Err(source_lost()))), "wait 50 ms");
    script.open();
    script.rows(&[1, 2]);
    script.say(Outcome::Publish(Ok(())));
    script.say(Outcome::Commit(Ok(())));
    script.say(Outcome::Confirm(Ok(())));
    assert_eq!(
        script.say(Outcome::Read(Err(source_lost()))),
        "publish  at row 2"
    );
    assert_eq!(script.say(Outcome::Publish(Ok(()))), "commit");
    assert_eq!(script.say(Outcome::Commit(Ok(()))), "wait 50 ms");
    script.say(Outcome::Wait);
    script.say(Outcome::Init(Ok(())));
    let at = Progress::new("sqlite:1", Position::Cursor { sequence: 2 });
    script.say(Outcome::ReadProgress(Ok(Some(at))));
    script.say(Outcome::Open(Ok("sqlite:1".into())));
    assert_eq!(script.rows(&[3]), "publish 3 at row 3");
    assert_eq!(script.say(Outcome::Publish(Ok(()))), "commit");
    assert_eq!(script.say(Outcome::Commit(Ok(()))), "confirm row 3");
    assert_eq!(
        script.say(Outcome::Confirm(Err(source_lost()))),
        "publish  at row 3"
    );
    let fenced = TopicsError::Fenced("x".into());
    assert_eq!(script.say(Outcome::Publish(Err(fenced))), "fenced");
    // An answer that does not come is no answer.
    let mut script = relay(Delivery::ExactlyOnce, OnPoison::Halt);
    script.open();
    script.rows(&[1]);
    script.say(Outcome::Publish(Ok(())));
    script.say(Outcome::Commit(Ok(())));
    assert_eq!(
        script.say(Outcome::Confirm(Err(source_lost()))),
        "publish  at row 1"
    );
    assert_eq!(script.say(Outcome::Publish(Err(lost()))), "wait 50 ms");
    script.open();
    assert_eq!(script.rows(&[1]), "publish 1 at row 1");
    assert_eq!(script.say(Outcome::Publish(Ok(()))), "commit");
    assert_eq!(script.say(Outcome::Commit(Ok(()))), "confirm row 1");
}

#[test]
fn fenced_and_refused_end_it() {
    let mut script = relay(Delivery::ExactlyOnce, OnPoison::Halt);
    script.open();
    script.rows(&[1]);
    assert_eq!(
        script.say(Outcome::Publish(Err(TopicsError::Fenced("x".into())))),
        "fenced"
    );
    let mut script = relay(Delivery::ExactlyOnce, OnPoison::Halt);
    script.open();
    assert_eq!(
        script.say(Outcome::Read(Err(SourceError::Refused("x".into())))),
        "refused"
    );
}

#[test]
fn a_row_that_cannot_be_routed_halts_after_those_before_it() {
    let mut script = relay(Delivery::ExactlyOnce, OnPoison::Halt);
    script.open();
    assert_eq!(script.rows(&[1, -2, 3]), "publish 1 at row 1");
    assert_eq!(script.say(Outcome::Publish(Ok(()))), "commit");
    assert_eq!(script.say(Outcome::Commit(Ok(()))), "confirm row 1");
    assert_eq!(script.say(Outcome::Confirm(Ok(()))), "poison");
    let mut script = relay(Delivery::ExactlyOnce, OnPoison::Halt);
    script.open();
    assert_eq!(script.rows(&[-1, 2]), "poison");
}

#[test]
fn a_row_that_cannot_be_routed_is_quarantined_in_the_same_transaction() {
    let mut script = relay(Delivery::ExactlyOnce, OnPoison::Quarantine);
    script.open();
    assert_eq!(script.rows(&[1, -2, 3]), "publish 1,dead,3 at row 3");
    assert_eq!(script.relay.counts().quarantined, 1);
}

#[test]
fn a_rejected_event_is_found_by_halves() {
    let mut script = relay(Delivery::ExactlyOnce, OnPoison::Quarantine);
    script.open();
    assert_eq!(script.rows(&[1, 2, 3, 4]), "publish 1,2,3,4 at row 4");
    // Event 2 is the one; nobody says so.
    assert_eq!(script.rejected(None), "abort");
    assert_eq!(script.say(Outcome::Abort(Ok(()))), "publish 1,2 at row 2");
    assert_eq!(script.rejected(None), "abort");
    assert_eq!(script.say(Outcome::Abort(Ok(()))), "publish 1 at row 1");
    assert_eq!(script.say(Outcome::Publish(Ok(()))), "commit");
    assert_eq!(
        script.say(Outcome::Commit(Ok(()))),
        "publish 2,3,4 at row 4"
    );
    assert_eq!(script.rejected(Some(0)), "abort");
    assert_eq!(script.say(Outcome::Abort(Ok(()))), "publish 2 at row 2");
    assert_eq!(script.rejected(Some(0)), "abort");
    assert_eq!(
        script.say(Outcome::Abort(Ok(()))),
        "publish dead,3,4 at row 4"
    );
    assert_eq!(script.say(Outcome::Publish(Ok(()))), "commit");
    assert_eq!(script.say(Outcome::Commit(Ok(()))), "confirm row 4");
}

#[test]
fn a_rejected_event_halts_after_those_before_it_and_leaves_no_open_transaction() {
    let mut script = relay(Delivery::ExactlyOnce, OnPoison::Halt);
    script.open();
    assert_eq!(script.rows(&[1, 2, 3]), "publish 1,2,3 at row 3");
    assert_eq!(script.rejected(Some(1)), "abort");
    assert_eq!(script.say(Outcome::Abort(Ok(()))), "publish 1 at row 1");
    assert_eq!(script.say(Outcome::Publish(Ok(()))), "commit");
    assert_eq!(script.say(Outcome::Commit(Ok(()))), "publish 2,3 at row 3");
    assert_eq!(script.rejected(Some(0)), "abort");
    assert_eq!(script.say(Outcome::Abort(Ok(()))), "publish 2 at row 2");
    assert_eq!(script.rejected(Some(0)), "abort");
    assert_eq!(script.say(Outcome::Abort(Ok(()))), "confirm row 1");
    assert_eq!(script.say(Outcome::Confirm(Ok(()))), "poison");
}

#[test]
fn a_heartbeat_is_recorded_before_it_is_confirmed() {
    let mut script = relay(Delivery::ExactlyOnce, OnPoison::Halt);
    script.open();
    let batch = Batch {
        rows: Vec::new(),
        heartbeat: Some(Position::Cursor { sequence: 9 }),
    };
    assert_eq!(script.say(Outcome::Read(Ok(batch))), "publish  at row 9");
    assert_eq!(script.say(Outcome::Publish(Ok(()))), "commit");
    assert_eq!(script.say(Outcome::Commit(Ok(()))), "confirm row 9");
    assert_eq!(script.say(Outcome::Confirm(Ok(()))), "read");
}

#[test]
fn the_parts_of_a_dead_letter_reach_their_position_together() {
    let mut script = relay(Delivery::ExactlyOnce, OnPoison::Quarantine);
    script.open();
    let large = "x".repeat(600 << 10);
    let row = OutboxRow {
        position: Position::Cursor { sequence: 1 },
        operation: RowOperation::Insert,
        columns: Arc::clone(&script.columns),
        values: vec![
            Value::Text("e".into()),
            Value::Null,
            Value::Null,
            Value::Text(large),
        ],
    };
    let batch = Batch {
        rows: vec![row],
        heartbeat: None,
    };
    assert_eq!(
        script.say(Outcome::Read(Ok(batch))),
        "publish dead,dead,dead at row 1"
    );
    assert_eq!(script.rejected(Some(1)), "abort");
    assert_eq!(script.say(Outcome::Abort(Ok(()))), "publish dead");
}

#[test]
fn a_refusal_is_looked_at_twice() {
    let at = |sequence| Some(Progress::new("sqlite:1", Position::Cursor { sequence }));
    let refused = || Outcome::Open(Err(SourceError::Refused("they disagree".into())));
    let opened = || {
        let mut script = relay(Delivery::ExactlyOnce, OnPoison::Halt);
        script.say(Outcome::Started);
        script.say(Outcome::Init(Ok(())));
        script.say(Outcome::ReadProgress(Ok(at(7))));
        assert_eq!(script.say(refused()), "read progress");
        script
    };
    let check = |again, expected: fn(&Stop) -> bool| match opened()
        .relay
        .step(Outcome::ReadProgress(again))
    {
        Operation::Stop(stop) => assert!(expected(&stop), "{stop:?}"),
        other => panic!("{other:?}"),
    };
    check(Ok(at(7)), |stop| {
        *stop == Stop::Refused("they disagree".into())
    });
    check(
        Ok(at(9)),
        |stop| matches!(stop, Stop::Fenced(why) if why.contains("they disagree")),
    );
    let lost = Err(TopicsError::Lost("away".into()));
    let next = opened().say(Outcome::ReadProgress(lost));
    assert!(next.starts_with("wait"), "{next}");
    // Without a transaction there is nobody who could have fenced it.
    let mut script = relay(Delivery::AtLeastOnce, OnPoison::Halt);
    script.say(Outcome::Started);
    script.say(Outcome::Init(Ok(())));
    assert!(matches!(
        script.relay.step(refused()),
        Operation::Stop(Stop::Refused(_))
    ));
}
