//! The replication slot: whether it, the progress and the database agree, and how long it will live.

use std::time::Duration;

use postgres::Client;

use super::connection::failure;
use super::pgoutput::Lsn;
use crate::position::{Position, Progress};
use crate::resume;
use crate::source::SourceError;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Slot {
    pub plugin: Option<String>,
    pub database: Option<String>,
    /// The server's process that streams it to somebody.
    pub active_pid: Option<i32>,
    /// `reserved`, `extended`, `unreserved` or `lost`.
    pub wal_status: Option<String>,
    /// How many more bytes of log may be written until it may be lost; `None` where there is no limit.
    pub safe_bytes: Option<i64>,
    /// What is before it will not be sent again.
    pub confirmed: Option<Lsn>,
    /// Bytes of log that are kept for it.
    pub retained: u64,
}

/// Where the database is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Here {
    pub system: String,
    pub timeline: u32,
    /// What is on its disk.
    pub flushed: Lsn,
}

/// A position in the log: [`Position::Wal`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    pub commit_lsn: Lsn,
    pub rows: u64,
    pub end_lsn: Lsn,
}

impl Here {
    pub fn identity(&self) -> String {
        format!("postgresql:{}:{}", self.system, self.timeline)
    }
}

impl Place {
    /// `None`: a position in something else than PostgreSQL's log.
    pub fn of(position: &Position) -> Option<Place> {
        match *position {
            Position::Wal {
                commit_lsn,
                end_lsn,
                rows,
            } => Some(Place {
                commit_lsn,
                rows,
                end_lsn,
            }),
            _ => None,
        }
    }

    pub fn position(self) -> Position {
        Position::Wal {
            commit_lsn: self.commit_lsn,
            end_lsn: self.end_lsn,
            rows: self.rows,
        }
    }

    /// Where the log is read from to go on here. The server sends every transaction whose commit is at
    /// or after it.
    pub fn from(self) -> Lsn {
        self.end_lsn.max(self.commit_lsn)
    }
}

pub fn slot(client: &mut Client, name: &str) -> Result<Option<Slot>, SourceError> {
    let row = client.query_opt(
        "SELECT plugin::text, database::text, active_pid, wal_status, safe_wal_size,
             (confirmed_flush_lsn - '0/0')::int8,
             greatest(0, (pg_current_wal_lsn() - restart_lsn)::int8)
         FROM pg_replication_slots WHERE slot_name = $1",
        &[&name],
    );
    let row = row.map_err(|error| failure("the replication slot", &error))?;
    Ok(row.map(|row| Slot {
        plugin: row.get(0),
        database: row.get(1),
        active_pid: row.get(2),
        wal_status: row.get(3),
        safe_bytes: row.get(4),
        confirmed: row.get::<_, Option<i64>>(5).map(i64::cast_unsigned),
        retained: row.get::<_, Option<i64>>(6).unwrap_or(0).unsigned_abs(),
    }))
}

/// Where a progress says to go on, if it is of this database and this history of it. Errors: what does
/// not agree, what that means, and what next.
pub fn place(progress: &Progress, here: &Here, accepted: Option<u32>) -> Result<Place, String> {
    let Some(place) = Place::of(&progress.position) else {
        return Err(format!(
            "the progress is {}, which is no position in PostgreSQL's log: this relay has polled \
             before. Let it poll until the outbox is empty; then go on under another name",
            progress.position
        ));
    };
    let mut parts = progress.source.split(':').skip(1);
    let system = parts.next().unwrap_or_default();
    let timeline = parts
        .next()
        .and_then(|timeline| timeline.parse::<u32>().ok());
    if system != here.system {
        return Err(format!(
            "the progress is of {}, and this database is {}: another system. Is the url right? A \
             database that was dumped and loaded, or made anew, has a log of its own, in which the \
             position {} means nothing. A relay of another name starts anew",
            progress.source,
            here.identity(),
            resume::Lsn(place.from())
        ));
    }
    if timeline != Some(here.timeline) && accepted != Some(here.timeline) {
        return Err(format!(
            "the progress is of timeline {}, and this database is on timeline {}: a standby was \
             promoted, or it was restored to a point in time. What was committed after the two parted \
             is only in one of them. If the new timeline parted at or after {} (its .history file in \
             pg_wal says where), nothing is lost or doubled by going on: say accept.timeline = {}. If \
             it parted before, rows were published that this database does not have",
            timeline.map_or("?".to_owned(), |timeline| timeline.to_string()),
            here.timeline,
            resume::Lsn(place.from()),
            here.timeline
        ));
    }
    if place.from() > here.flushed {
        return Err(format!(
            "the progress is at {}, and the database has only come to {}: it was restored from an \
             older copy of itself. Rows were published that it does not have, and new ones would be \
             taken for those. Restore it to a later point, or go on with a relay of another name",
            resume::Lsn(place.from()),
            resume::Lsn(here.flushed)
        ));
    }
    Ok(place)
}

/// Whether the slot can be read from `place` on. Errors: as in [`place`].
pub fn usable(name: &str, slot: &Slot, place: Option<Place>, database: &str) -> Result<(), String> {
    let plugin = slot.plugin.as_deref().unwrap_or("none (a physical slot)");
    if plugin != "pgoutput" {
        return Err(format!(
            "slot {name} is made for the plugin {plugin}, and this relay reads pgoutput. Choose \
             another slot.name, or drop it: SELECT pg_drop_replication_slot('{name}')"
        ));
    }
    let of = slot.database.as_deref().unwrap_or_default();
    if of != database {
        return Err(format!(
            "slot {name} is of database {of}, and the url names {database}. Choose another \
             slot.name, or the other database"
        ));
    }
    if slot.wal_status.as_deref() == Some("lost") {
        return Err(format!(
            "slot {name} is lost: it fell further behind than max_slot_wal_keep_size allows, and the \
             log that it needs was removed. What committed since {} and was not published is still \
             in the outbox table, unless it was deleted there: compare before you go on. Then drop \
             the slot (SELECT pg_drop_replication_slot('{name}')) and start a relay of another name, \
             which begins with a new slot",
            lsn(slot.confirmed)
        ));
    }
    let confirmed = slot.confirmed.unwrap_or(0);
    match place {
        Some(place) if confirmed > place.from() => Err(format!(
            "slot {name} is confirmed up to {}, and the progress only knows of {}: a gap. Whatever \
             committed in between will not be sent again. Was the slot made anew or moved on by hand, \
             is it shared with another reader, or is the progress topic an older copy? What is \
             missing may still be in the outbox table; this relay does not skip it",
            resume::Lsn(confirmed),
            resume::Lsn(place.from())
        )),
        _ => Ok(()),
    }
}

/// There is no slot where there was one.
pub fn missing(name: &str, place: Place) -> String {
    format!(
        "there is no slot {name}, and rows up to {} were published through it: it was dropped, or this \
         server is a copy that slots do not come to (before PostgreSQL 17). A new slot begins now: \
         what committed since would be passed over. What is missing may still be in the outbox table: \
         publish it by polling, or start a relay of another name for what comes from now on",
        resume::Lsn(place.from())
    )
}

fn lsn(lsn: Option<Lsn>) -> String {
    lsn.map_or("its beginning".to_owned(), |lsn| {
        resume::Lsn(lsn).to_string()
    })
}

/// Where nobody need know, `None`. `budget`: `max_slot_wal_keep_size` in bytes. `rate`: bytes of log per
/// second.
pub fn warning(name: &str, slot: &Slot, budget: Option<u64>, rate: Option<f64>) -> Option<String> {
    match slot.wal_status.as_deref() {
        Some("lost") => return Some(format!("slot {name} is lost: its log was removed")),
        Some("unreserved") => {
            return Some(format!(
                "slot {name} keeps {}, more than max_slot_wal_keep_size: it is lost with the next \
                 checkpoint, unless the relay catches up first",
                bytes(slot.retained)
            ));
        }
        _ => {}
    }
    let Some(budget) = budget else {
        let much = slot.retained >= UNBOUNDED_MAX;
        return much.then(|| {
            format!(
                "slot {name} keeps {} and has no budget: it can fill the server's disk. Set \
                 max_slot_wal_keep_size",
                bytes(slot.retained)
            )
        });
    };
    let safe = slot.safe_bytes.unwrap_or(0).max(0);
    let left = rate
        .filter(|rate| *rate >= 1.0)
        .map(|rate| safe as f64 / rate);
    let left = left.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    if slot.retained < budget / 4 && left.is_none_or(|left| left > SOON) {
        return None;
    }
    let kept = format!(
        "slot {name} keeps {} of a budget of {}",
        bytes(slot.retained),
        bytes(budget)
    );
    Some(match left {
        Some(left) => format!(
            "{kept}; at the present rate it is lost in about {}",
            span(left)
        ),
        None => kept,
    })
}

const UNBOUNDED_MAX: u64 = 1 << 30;
/// A budget that lasts less than this is told of.
const SOON: Duration = Duration::from_secs(6 * 3600);

/// "3.2 GB", by powers of 1024, as PostgreSQL counts.
fn bytes(count: u64) -> String {
    let units = [("TB", 40), ("GB", 30), ("MB", 20), ("kB", 10)];
    let unit = units.iter().find(|(_, bits)| count >= 1 << bits);
    match unit {
        Some((unit, bits)) => format!("{:.1} {unit}", count as f64 / (1u64 << bits) as f64),
        None => format!("{count} bytes"),
    }
}

/// "2 h 10 min".
pub fn span(duration: Duration) -> String {
    let minutes = duration.as_secs() / 60;
    match (minutes / 1_440, minutes / 60 % 24, minutes % 60) {
        (0, 0, 0) => format!("{} s", duration.as_secs()),
        (0, 0, minutes) => format!("{minutes} min"),
        (0, hours, minutes) => format!("{hours} h {minutes} min"),
        (days, hours, _) => format!("{days} d {hours} h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn here() -> Here {
        Here {
            system: "77".to_owned(),
            timeline: 2,
            flushed: 1_000,
        }
    }

    fn progress(source: &str, commit_lsn: Lsn, end_lsn: Lsn) -> Progress {
        let position = Position::Wal {
            commit_lsn,
            end_lsn,
            rows: 1,
        };
        Progress::new(source, position)
    }

    #[test]
    fn a_progress_of_this_history_is_taken() {
        let place = place(&progress("postgresql:77:2", 500, 510), &here(), None).unwrap();
        assert_eq!(place.from(), 510);
        let partly = super::place(&progress("postgresql:77:2", 500, 0), &here(), None).unwrap();
        assert_eq!(partly.from(), 500);
    }

    #[test]
    fn what_does_not_agree_is_named() {
        let refused = |source: &str, commit_lsn| {
            place(&progress(source, commit_lsn, 0), &here(), None).unwrap_err()
        };
        assert!(refused("postgresql:78:2", 500).contains("another system"));
        assert!(refused("postgresql:77:1", 500).contains("timeline 1"));
        assert!(refused("postgresql:77:2", 1_001).contains("older copy"));
        let claim = Progress::new("postgresql:77:2", Position::Claim { token: 1, rows: 1 });
        assert!(place(&claim, &here(), None).unwrap_err().contains("polled"));
        let accepted = place(&progress("postgresql:77:1", 500, 0), &here(), Some(2));
        assert!(accepted.is_ok());
    }

    fn healthy() -> Slot {
        Slot {
            plugin: Some("pgoutput".to_owned()),
            database: Some("shop".to_owned()),
            wal_status: Some("reserved".to_owned()),
            confirmed: Some(400),
            ..Slot::default()
        }
    }

    #[test]
    fn a_slot_must_not_be_past_the_progress() {
        let at = |commit_lsn, end_lsn| Place {
            commit_lsn,
            rows: 1,
            end_lsn,
        };
        let usable = |slot: &Slot, place| super::usable("s", slot, place, "shop");
        assert_eq!(usable(&healthy(), None), Ok(()));
        assert_eq!(usable(&healthy(), Some(at(400, 0))), Ok(()));
        assert_eq!(usable(&healthy(), Some(at(390, 400))), Ok(()));
        assert!(
            usable(&healthy(), Some(at(390, 399)))
                .unwrap_err()
                .contains("a gap")
        );
        let refused = |change: fn(&mut Slot)| {
            let mut slot = healthy();
            change(&mut slot);
            usable(&slot, None).unwrap_err()
        };
        assert!(refused(|slot| slot.plugin = None).contains("physical"));
        assert!(refused(|slot| slot.database = Some("x".into())).contains("database x"));
        assert!(refused(|slot| slot.wal_status = Some("lost".into())).contains("is lost"));
    }

    #[test]
    fn the_budget_is_counted_down_in_words() {
        const GB: u64 = 1 << 30;
        let mut slot = healthy();
        slot.retained = 32 * GB / 10;
        slot.safe_bytes = Some(i64::try_from(68 * GB / 10).unwrap());
        let rate = 68.0 * GB as f64 / 10.0 / (130.5 * 60.0);
        let said = warning("s", &slot, Some(10 * GB), Some(rate)).unwrap();
        assert_eq!(
            said,
            "slot s keeps 3.2 GB of a budget of 10.0 GB; at the present rate it is lost in about 2 h \
             10 min"
        );
        assert_eq!(warning("s", &slot, Some(100 * GB), Some(1.0)), None);
        assert!(
            warning("s", &slot, None, None)
                .unwrap()
                .contains("no budget")
        );
        slot.wal_status = Some("unreserved".to_owned());
        assert!(
            warning("s", &slot, Some(GB), None)
                .unwrap()
                .contains("next checkpoint")
        );
        assert_eq!(warning("s", &healthy(), None, Some(1e9)), None);
    }
}
