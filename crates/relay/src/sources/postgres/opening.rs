//! What has to be true before the slot's stream may begin, in the order in which it is looked at.

use postgres::Client;

use super::catalog::{self, Facts, Table};
use super::connection::{Server, connect, failure};
use super::options::{Options, Snapshot, literal, quoted};
use super::pgoutput::Lsn;
use super::position;
use super::replication::Replication;
use super::retention::Pruning;
use super::slot::{self, Here, Place, Slot};
use super::stream::Stream;
use super::transactions::{Transactions, Wanted};
use crate::position::Progress;
use crate::resume::Resume;
use crate::source::{Limit, SourceError};

pub struct Opening<'a> {
    options: &'a Options,
    server: Server,
    client: Client,
    exactly_once: bool,
    version: i32,
}

pub struct Opened {
    pub client: Client,
    pub stream: Stream,
    pub identity: String,
    /// 0: nothing is known to be done.
    pub from: Lsn,
    /// Where the slot begins, if it was made here; else 0.
    pub made: Lsn,
    pub pruning: Option<Pruning>,
}

/// When the outbox's rows are old enough to go.
pub const CREATED_AT: &str = "created_at";

impl<'a> Opening<'a> {
    pub fn new(options: &'a Options, exactly_once: bool) -> Result<Opening<'a>, SourceError> {
        let (server, client) = connect(options)?;
        Ok(Opening {
            options,
            server,
            client,
            exactly_once,
            version: 0,
        })
    }

    pub fn run(mut self, progress: Option<&Progress>) -> Result<Opened, SourceError> {
        let facts = catalog::facts(&mut self.client)?;
        self.version = facts.version;
        can_decode(&facts).map_err(SourceError::Refused)?;
        let table = self.table()?;
        self.publication(table.as_ref())?;
        let pruning = self.pruning(table.as_ref())?;
        let mut replication = Replication::connect(&self.server)?;
        let here = identify(&mut replication)?;
        let (known, strict) = self.known(progress, &here)?;
        let slot = self.options.slot();
        let made = match slot::slot(&mut self.client, &slot)? {
            Some(found) => {
                let usable = slot::usable(&slot, &found, known.filter(|_| strict), &facts.database);
                usable.map_err(SourceError::Refused)?;
                self.free(&slot, &found)?;
                0
            }
            None => match known {
                Some(place) => return Err(SourceError::Refused(slot::missing(&slot, place))),
                None => self.make_slot(&mut replication, &slot, table.as_ref())?,
            },
        };
        let from = known.map_or(0, Place::from);
        replication.start(&slot, from, &self.options.publication)?;
        let stream = self.stream(replication, table, known)?;
        Ok(Opened {
            client: self.client,
            stream,
            identity: here.identity(),
            from,
            made,
            pruning,
        })
    }

    /// `None`: logical messages alone.
    fn table(&mut self) -> Result<Option<Table>, SourceError> {
        if self.options.table.is_empty() {
            return Ok(None);
        }
        let table = catalog::table(&mut self.client, self.options)?;
        table
            .map(Some)
            .ok_or_else(|| SourceError::Refused(no_table(self.options)))
    }

    fn publication(&mut self, table: Option<&Table>) -> Result<(), SourceError> {
        let name = &self.options.publication;
        let Some(found) = catalog::publication(&mut self.client, name, table)? else {
            return Err(SourceError::Refused(format!(
                "there is no publication {name}, without which PostgreSQL streams nothing. \
                 `oncelog outbox init` shows the statement that makes it. It has to be there before \
                 the slot is: a slot reads the database as it was"
            )));
        };
        let Some(table) = table else {
            return Ok(());
        };
        if !found.covers || !found.inserts {
            let lacks = if found.covers {
                "inserts into"
            } else {
                "the table"
            };
            return Err(SourceError::Refused(format!(
                "publication {name} leaves out {lacks} {}: its rows would never be seen. Run: {}",
                table.name,
                if found.covers {
                    format!(
                        "ALTER PUBLICATION {} SET (publish = 'insert')",
                        quoted(name)
                    )
                } else {
                    let (name, table) = (quoted(name), self.options.quoted_table());
                    format!("ALTER PUBLICATION {name} ADD TABLE {table}")
                }
            )));
        }
        if table.partitioned && !found.via_root {
            return Err(SourceError::Refused(format!(
                "{} is partitioned, and publication {name} tells rows under their partitions' names. \
                 Run: ALTER PUBLICATION {} SET (publish_via_partition_root = true)",
                table.name,
                quoted(name)
            )));
        }
        Ok(())
    }

    fn pruning(&self, table: Option<&Table>) -> Result<Option<Pruning>, SourceError> {
        let Some((retention, table)) = self.options.retention().zip(table) else {
            return Ok(None);
        };
        if !table.columns.iter().any(|name| name == CREATED_AT) {
            return Err(SourceError::Refused(format!(
                "retention.ms is set, and {} has no column {CREATED_AT} that tells how old a row is. \
                 Run: ALTER TABLE {} ADD COLUMN {CREATED_AT} timestamptz NOT NULL DEFAULT now()",
                table.name,
                self.options.quoted_table()
            )));
        }
        Ok(Some(Pruning::new(
            &self.options.quoted_table(),
            CREATED_AT,
            retention,
        )))
    }

    /// Where to go on, and whether the slot must not be past it. What was confirmed at a weaker
    /// guarantee since counts too; there, heartbeats move on the slot alone.
    fn known(
        &mut self,
        progress: Option<&Progress>,
        here: &Here,
    ) -> Result<(Option<Place>, bool), SourceError> {
        if !self.exactly_once {
            position::make(&mut self.client, self.options)?;
        }
        let own = position::load(&mut self.client, self.options)?;
        let place = |progress: &Progress| {
            let place = slot::place(progress, here, self.options.accept_timeline);
            place.map_err(SourceError::Refused)
        };
        let own = own.as_ref().map(place).transpose()?;
        let progress = progress.map(place).transpose()?;
        Ok((own.max(progress), progress > own))
    }

    /// A predecessor's process on the server may hold the slot: the server notices only after
    /// `wal_sender_timeout` that nobody is there any more.
    ///
    /// It is ended where that is safe: exactly once, its producer was fenced before this was asked, so
    /// that nothing which it still sends can be committed; and it has our relay's name, so that it has
    /// our transactional id. Else it may be a living relay that was configured to use the same slot.
    fn free(&mut self, name: &str, slot: &Slot) -> Result<(), SourceError> {
        let Some(pid) = slot.active_pid else {
            return Ok(());
        };
        let held = format!("slot {name} is held by another reader (process {pid} of the server)");
        if !self.exactly_once {
            return Err(SourceError::Lost(held));
        }
        let row = self.client.query_opt(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
             WHERE pid = $1 AND usename = current_user AND application_name = $2",
            &[&pid, &self.server.application],
        );
        let ended = row.map_err(|error| failure(&held, &error))?.is_some();
        let what = if ended {
            "a predecessor of this relay, which was told to end"
        } else {
            "and not by a relay of this name: two readers cannot share one slot"
        };
        Err(SourceError::Lost(format!("{held}, {what}")))
    }

    /// Gives the place where it begins.
    fn make_slot(
        &mut self,
        replication: &mut Replication,
        name: &str,
        table: Option<&Table>,
    ) -> Result<Lsn, SourceError> {
        let failover = self.options.slot_failover;
        if failover && self.version < catalog::VERSION_FAILOVER {
            return Err(SourceError::Refused(
                "slot.failover: only PostgreSQL 17 and later copy slots to standbys".to_owned(),
            ));
        }
        let how = if failover {
            "(SNAPSHOT 'export', FAILOVER true)"
        } else {
            "EXPORT_SNAPSHOT"
        };
        let made = replication.query(&format!(
            "CREATE_REPLICATION_SLOT \"{name}\" LOGICAL pgoutput {how}"
        ));
        let rows = match made {
            Err(SourceError::Lost(why)) => return Err(self.not_made(name, &why)),
            made => made?,
        };
        let column = |index: usize| rows.first()?.get(index)?.clone();
        let (Some(lsn), Some(snapshot)) = (column(1).as_deref().and_then(parse), column(2)) else {
            return Err(SourceError::Lost(format!(
                "slot {name} was made, and no place was named"
            )));
        };
        if self.options.snapshot == Some(Snapshot::NoData) {
            return Ok(lsn);
        }
        if self.has_rows(&snapshot, table)? {
            replication.query(&format!("DROP_REPLICATION_SLOT \"{name}\""))?;
            return Err(SourceError::Refused(format!(
                "{} has rows that committed before the slot could begin: its log does not have them. \
                 If they are published already, say snapshot.mode = \"no_data\". If not, let a relay of \
                 another name poll until it is empty, while nobody writes to it; then start this one",
                self.options.table
            )));
        }
        tracing::info!(
            "slot {name} was made; it begins at {}",
            crate::resume::Lsn(lsn)
        );
        Ok(lsn)
    }

    /// It waits for every transaction that writes now. Whoever made it waits no longer, and must not go
    /// on to make it when nobody looks.
    fn not_made(&mut self, name: &str, why: &str) -> SourceError {
        let ended = self.client.query(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
             WHERE backend_type = 'walsender' AND usename = current_user AND application_name = $1",
            &[&self.server.application],
        );
        let also = ended
            .err()
            .map(|error| format!("; {error}"))
            .unwrap_or_default();
        SourceError::Lost(format!(
            "slot {name} could not be made ({why}{also}). It waits until every transaction that writes \
             now has ended: is one open for long (pg_stat_activity)?"
        ))
    }

    /// As of the moment at which the slot begins.
    fn has_rows(&mut self, snapshot: &str, table: Option<&Table>) -> Result<bool, SourceError> {
        if table.is_none() {
            return Ok(false);
        }
        let failed = |error: postgres::Error| failure("the outbox before the slot", &error);
        let transaction = self.client.build_transaction();
        let transaction = transaction.isolation_level(postgres::IsolationLevel::RepeatableRead);
        let mut transaction = transaction.read_only(true).start().map_err(failed)?;
        let adopt = format!("SET TRANSACTION SNAPSHOT {}", literal(snapshot));
        transaction.batch_execute(&adopt).map_err(failed)?;
        let query = format!(
            "SELECT EXISTS (SELECT FROM {})",
            self.options.quoted_table()
        );
        let row = transaction.query_one(&query, &[]).map_err(failed)?;
        Ok(row.get(0))
    }

    fn stream(
        &self,
        replication: Replication,
        table: Option<Table>,
        known: Option<Place>,
    ) -> Result<Stream, SourceError> {
        let wanted = Wanted {
            table: table.map(|table| (table.schema, table.name)),
            message_prefix: self.options.message_prefix.clone(),
        };
        let resume = known.map_or_else(Resume::from_start, |place| {
            Resume::after(place.commit_lsn, place.rows)
        });
        let limit = Limit {
            rows: self.options.queue_rows,
            bytes: self.options.queue_bytes,
        };
        let stream = Stream::start(replication, Transactions::new(wanted, resume), limit);
        stream.map_err(|error| SourceError::Lost(format!("no thread can be started: {error}")))
    }
}

pub fn no_table(options: &Options) -> String {
    format!(
        "there is no table {} in the database (or the search path does not lead to it). `oncelog outbox \
         init` shows the statement that makes it",
        options.table
    )
}

/// Errors: why the log cannot be read at all.
pub fn can_decode(facts: &Facts) -> Result<(), String> {
    if facts.version < catalog::VERSION_MIN {
        return Err(format!(
            "the server is PostgreSQL {}; its log can be read from 14 on. Update it, or poll",
            facts.version_text
        ));
    }
    if facts.standby {
        return Err(
            "the server is a standby: a relay reads the primary. Point the url there".to_owned(),
        );
    }
    if facts.wal_level != "logical" {
        return Err(format!(
            "wal_level is {}, and the log says enough only with logical. Run: ALTER SYSTEM SET \
             wal_level = logical, then restart the server; or poll",
            facts.wal_level
        ));
    }
    Ok(())
}

fn identify(replication: &mut Replication) -> Result<Here, SourceError> {
    let rows = replication.query("IDENTIFY_SYSTEM")?;
    let column = |index: usize| rows.first()?.get(index)?.clone();
    let here = || {
        Some(Here {
            system: column(0)?,
            timeline: column(1)?.parse().ok()?,
            flushed: parse(&column(2)?)?,
        })
    };
    here().ok_or_else(|| SourceError::Lost("the server did not identify itself".to_owned()))
}

/// `16/B374D848`.
fn parse(lsn: &str) -> Option<Lsn> {
    let (high, low) = lsn.split_once('/')?;
    let [high, low] = [high, low].map(|half| u32::from_str_radix(half, 16).ok());
    Some(u64::from(high?) << 32 | u64::from(low?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_read_as_it_is_written() {
        for lsn in [0, 1, 0x1_0000_0000, u64::MAX, 0x16_B374_D848] {
            assert_eq!(parse(&crate::resume::Lsn(lsn).to_string()), Some(lsn));
        }
        assert_eq!(parse("16"), None);
        assert_eq!(parse("x/1"), None);
    }

    #[test]
    fn a_server_that_cannot_decode_is_told_what_to_do() {
        let facts = Facts {
            version: 150_004,
            version_text: "15.4".to_owned(),
            standby: false,
            wal_level: "logical".to_owned(),
            system: "1".to_owned(),
            database: "d".to_owned(),
        };
        assert_eq!(can_decode(&facts), Ok(()));
        let refused = |change: fn(&mut Facts)| {
            let mut facts = facts.clone();
            change(&mut facts);
            can_decode(&facts).unwrap_err()
        };
        assert!(refused(|facts| facts.version = 130_010).contains("14 on"));
        assert!(refused(|facts| facts.standby = true).contains("primary"));
        assert!(refused(|facts| facts.wal_level = "replica".into()).contains("ALTER SYSTEM"));
    }
}
