//! Topics that are created, written to and deleted while the broker is killed, with the command
//! line tools. A creation or deletion that was acknowledged holds; one that was not may have
//! happened or not.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use rdkafka::consumer::Consumer;

use crash_campaign::client;
use crash_campaign::random::Random;

use crate::tool::Tool;

const NAMES: usize = 6;
const PARTITIONS: i32 = 2;

#[derive(Clone, Debug, Default)]
enum State {
    #[default]
    Absent,
    Present {
        /// What was acknowledged to be in it. Each value names the topic's incarnation, so that
        /// nothing of a deleted topic shows in its successor.
        values: BTreeSet<String>,
        incarnation: u32,
    },
    /// A creation or deletion got no answer.
    Unsure,
}

#[derive(Default)]
struct Counts {
    created: u32,
    deleted: u32,
    unanswered: u32,
    records: usize,
}

pub struct Churn {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<(Vec<State>, Counts)>,
}

impl Churn {
    pub fn start(tool: Tool, mut random: Random) -> Churn {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || {
            let mut states = vec![State::default(); NAMES];
            let mut counts = Counts::default();
            while !stopped.load(Ordering::Relaxed) {
                let which = random.range(0, NAMES as u64) as usize;
                let before = std::mem::take(&mut states[which]);
                let delete = random.one_in(3);
                states[which] = step(&tool, &name(which), before, delete, &mut counts);
                std::thread::sleep(Duration::from_millis(random.range(0, 30)));
            }
            (states, counts)
        });
        Churn { stop, thread }
    }

    /// Ends it and judges what there is. The broker must be up. Returns a line for the tally.
    pub fn finish(self, bootstrap: &str) -> String {
        self.stop.store(true, Ordering::Relaxed);
        let (states, counts) = self.thread.join().expect("the churn does not panic");
        let reader = client::reader(bootstrap);
        let metadata = reader.fetch_metadata(None, client::PATIENCE).unwrap();
        let topics: BTreeSet<&str> = metadata.topics().iter().map(|t| t.name()).collect();
        for (which, state) in states.iter().enumerate() {
            let name = name(which);
            match state {
                State::Unsure => {}
                State::Absent => assert!(
                    !topics.contains(&name[..]),
                    "{name} was deleted, and is there"
                ),
                State::Present {
                    values,
                    incarnation,
                } => {
                    assert!(topics.contains(&name[..]), "{name} was created, and is not");
                    let found = client::read_values(bootstrap, &name, PARTITIONS);
                    let found: Vec<String> = found
                        .into_iter()
                        .flatten()
                        .map(|value| String::from_utf8(value).unwrap())
                        .collect();
                    for value in &found {
                        assert!(
                            value.starts_with(&format!("{incarnation}:")),
                            "{name}, incarnation {incarnation}, holds {value:?}"
                        );
                    }
                    for value in values {
                        let times = found.iter().filter(|found| *found == value).count();
                        assert_eq!(times, 1, "{name}: {value:?} was acknowledged");
                    }
                }
            }
        }
        format!(
            "topics: {} created, {} deleted, {} calls without an answer, {} records acknowledged \
             in them; all as answered",
            counts.created, counts.deleted, counts.unanswered, counts.records
        )
    }
}

fn name(which: usize) -> String {
    format!("churn-{which}")
}

fn step(tool: &Tool, name: &str, before: State, delete: bool, counts: &mut Counts) -> State {
    match before {
        State::Absent => {
            let partitions = PARTITIONS.to_string();
            match tool.run(&["topic", "create", name, "-p", &partitions], "") {
                Ok(()) => {
                    counts.created += 1;
                    State::Present {
                        values: BTreeSet::new(),
                        incarnation: counts.created,
                    }
                }
                Err(_) => unsure(counts),
            }
        }
        State::Present { .. } if delete => remove(tool, name, counts),
        State::Present {
            mut values,
            incarnation,
        } => {
            let from = values.len();
            let lines: Vec<String> = (from..from + 5)
                .map(|number| format!("{incarnation}:{number}:{}", counts.records))
                .collect();
            let sent = tool.run(
                &["produce", "-t", name, "-X", "message.timeout.ms=5000"],
                &lines.join("\n"),
            );
            match sent {
                Ok(()) => {
                    counts.records += lines.len();
                    values.extend(lines);
                }
                Err(why) => assert!(
                    !why.contains("does not exist"),
                    "{name} was created, and {why}"
                ),
            }
            State::Present {
                values,
                incarnation,
            }
        }
        State::Unsure => remove(tool, name, counts),
    }
}

fn remove(tool: &Tool, name: &str, counts: &mut Counts) -> State {
    match tool.run(&["topic", "delete", name], "") {
        Ok(()) => {
            counts.deleted += 1;
            State::Absent
        }
        Err(why) if why.contains("does not exist") => State::Absent,
        Err(_) => unsure(counts),
    }
}

fn unsure(counts: &mut Counts) -> State {
    counts.unanswered += 1;
    State::Unsure
}
