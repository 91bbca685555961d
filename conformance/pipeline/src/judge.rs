//! The judge: what was committed against what arrived. It knows nothing of how either came about.
//!
//! The truth is what the writers' own table holds after everything: each event with its account and
//! its version, which a writer counts up while it holds the account's lock. So within an account the
//! versions are the order of the commits, and nothing is known of the order between two accounts.

use std::collections::{BTreeMap, HashMap};

use crate::event::{Body, Event};

/// What was seen on one side, in that side's order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arrived {
    pub id: String,
    pub account: String,
    pub body: Body,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    pub committed: u64,
    pub delivered: u64,
    pub lost: u64,
    /// Beyond an event's first arrival.
    pub duplicated: u64,
    /// First arrivals behind a later event of their account.
    pub reordered: u64,
    /// Never committed.
    pub phantom: u64,
    /// Arrived with another account or other bytes than were committed.
    pub damaged: u64,
    /// A few of each kind, to begin to look.
    pub examples: Vec<String>,
}

const EXAMPLES_MAX: usize = 5;

impl Verdict {
    fn example(&mut self, kind: &str, what: &str) {
        if self
            .examples
            .iter()
            .filter(|one| one.starts_with(kind))
            .count()
            < EXAMPLES_MAX
        {
            self.examples.push(format!("{kind}: {what}"));
        }
    }

    /// What is wrong with it at a guarantee.
    pub fn broken(&self, lost: bool, duplicated: bool) -> bool {
        // Where events may be lost or come twice, their order says nothing of the relay.
        let exact = !lost && !duplicated;
        (self.lost > 0 && !lost)
            || (self.duplicated > 0 && !duplicated)
            || (self.reordered > 0 && exact)
            || self.phantom + self.damaged > 0
    }
}

/// Of a side that has a record or a row for each event.
pub fn of_events(committed: &[Event], arrived: &[Arrived]) -> Verdict {
    let mut verdict = Verdict {
        committed: committed.len() as u64,
        ..Verdict::default()
    };
    let known: HashMap<&str, &Event> = committed
        .iter()
        .map(|event| (event.id.as_str(), event))
        .collect();
    let mut seen: HashMap<&str, u64> = HashMap::new();
    let mut latest: HashMap<&str, u64> = HashMap::new();
    for one in arrived {
        let Some(event) = known.get(one.id.as_str()) else {
            verdict.phantom += 1;
            verdict.example("phantom", &one.id);
            continue;
        };
        if one.account != event.account || one.body != event.body() {
            verdict.damaged += 1;
            verdict.example("damaged", &format!("{} {:?}", one.id, one.body));
        }
        let times = seen.entry(&event.id).or_default();
        *times += 1;
        if *times > 1 {
            verdict.duplicated += 1;
            verdict.example("duplicated", &one.id);
            continue;
        }
        verdict.delivered += 1;
        let latest = latest.entry(&event.account).or_insert(event.version);
        if event.version < *latest {
            verdict.reordered += 1;
            let what = format!("{} ({} version {})", event.id, event.account, event.version);
            verdict.example("reordered", &format!("{what} came after version {latest}"));
        }
        *latest = event.version.max(*latest);
    }
    for event in committed
        .iter()
        .filter(|event| !seen.contains_key(event.id.as_str()))
    {
        verdict.lost += 1;
        let what = format!("{} ({} version {})", event.id, event.account, event.version);
        verdict.example("lost", &what);
    }
    verdict
}

/// Of a side that has a row for each account, that of its last event: `committed` are the accounts that
/// have to have one, `lost` those without it or with an older one, `phantom` those that must not.
pub fn of_state(committed: &[Event], rows: &[(String, String)]) -> Verdict {
    let mut last: BTreeMap<&str, &Event> = BTreeMap::new();
    for event in committed {
        let last = last.entry(&event.account).or_insert(event);
        if event.version > last.version {
            *last = event;
        }
    }
    last.retain(|_, event| event.body() != Body::Tombstone);
    let mut verdict = Verdict {
        committed: last.len() as u64,
        ..Verdict::default()
    };
    for (account, id) in rows {
        match last.remove(account.as_str()) {
            Some(event) if event.id == *id => verdict.delivered += 1,
            Some(event) => {
                verdict.lost += 1;
                verdict.example(
                    "lost",
                    &format!("{account} is at {id}, not at {}", event.id),
                );
            }
            None => {
                verdict.phantom += 1;
                verdict.example("phantom", &format!("{account} is there, at {id}"));
            }
        }
    }
    for (account, event) in last {
        verdict.lost += 1;
        verdict.example(
            "lost",
            &format!("{account} is not there, with {}", event.id),
        );
    }
    verdict
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Kind;

    fn event(text: &str) -> Event {
        let (account, version) = text.split_once('/').unwrap();
        let (version, kind) = match version.strip_suffix('-') {
            Some(version) => (version, Kind::Tombstone),
            None => (version, Kind::Empty),
        };
        Event {
            id: format!("{account}/{version}"),
            account: account.to_owned(),
            version: version.parse().unwrap(),
            kind,
        }
    }

    /// committed, delivered, lost, duplicated, reordered, phantom
    fn check(committed: &str, arrived: &str, expected: [u64; 6]) {
        let committed: Vec<Event> = committed.split_whitespace().map(event).collect();
        let arrived = arrived.split_whitespace().map(event).map(|event| Arrived {
            body: event.body(),
            id: event.id,
            account: event.account,
        });
        let found = of_events(&committed, &arrived.collect::<Vec<_>>());
        assert_eq!(counts(&found), expected);
        assert_eq!(found.damaged, 0);
    }

    fn counts(found: &Verdict) -> [u64; 6] {
        [
            found.committed,
            found.delivered,
            found.lost,
            found.duplicated,
            found.reordered,
            found.phantom,
        ]
    }

    #[test]
    fn each_kind_is_counted_and_no_other() {
        check("a/1 a/2 b/1", "b/1 a/1 a/2", [3, 3, 0, 0, 0, 0]);
        check("a/1 a/2 a/3", "a/1 a/3", [3, 2, 1, 0, 0, 0]);
        check("a/1 a/2", "a/1 a/1 a/2 a/1", [2, 2, 0, 2, 0, 0]);
        check("a/1 a/2 a/3", "a/2 a/3 a/1", [3, 3, 0, 0, 1, 0]);
        check("a/1", "a/1 a/9", [1, 1, 0, 0, 0, 1]);
        // The order of the truth itself is that of its versions.
        check("a/2 a/1", "a/1 a/2", [2, 2, 0, 0, 0, 0]);
    }

    #[test]
    fn other_bytes_are_damage() {
        let arrived = |account: &str, body: Body| Arrived {
            id: "a/1".to_owned(),
            account: account.to_owned(),
            body,
        };
        let committed = [event("a/1")];
        assert_eq!(
            of_events(&committed, &[arrived("a", Body::Empty)]).damaged,
            0
        );
        assert_eq!(
            of_events(&committed, &[arrived("b", Body::Empty)]).damaged,
            1
        );
        assert_eq!(
            of_events(&committed, &[arrived("a", Body::Tombstone)]).damaged,
            1
        );
        let other = Body::Other("{".to_owned());
        assert!(of_events(&committed, &[arrived("a", other)]).broken(true, true));
    }

    #[test]
    fn the_end_state_is_each_accounts_last_event() {
        let check = |committed: &str, rows: &[(&str, &str)], expected: [u64; 6]| {
            let committed: Vec<Event> = committed.split_whitespace().map(event).collect();
            let rows: Vec<(String, String)> = rows
                .iter()
                .map(|(a, id)| ((*a).to_owned(), (*id).to_owned()))
                .collect();
            assert_eq!(counts(&of_state(&committed, &rows)), expected);
        };
        check(
            "a/1 a/2 b/1",
            &[("a", "a/2"), ("b", "b/1")],
            [2, 2, 0, 0, 0, 0],
        );
        check("a/1 a/2", &[("a", "a/1")], [1, 0, 1, 0, 0, 0]);
        check("a/1 a/2-", &[], [0, 0, 0, 0, 0, 0]);
        check("a/1 a/2-", &[("a", "a/1")], [0, 0, 0, 0, 0, 1]);
        check("a/1-", &[], [0, 0, 0, 0, 0, 0]);
        check("a/1", &[], [1, 0, 1, 0, 0, 0]);
    }

    #[test]
    fn each_guarantee_has_its_own_promise() {
        let lost = Verdict {
            lost: 1,
            ..Verdict::default()
        };
        assert!(lost.broken(false, true) && !lost.broken(true, false));
        let twice = Verdict {
            duplicated: 1,
            ..Verdict::default()
        };
        assert!(twice.broken(true, false) && !twice.broken(false, true));
    }
}
