//! MySQL's and MariaDB's binlog as a source: the rows that replicas see, in the order of the commits.
//!
//! Positions are a file and an offset in it, since MariaDB has no GTIDs of MySQL's kind. A file is known by
//! its name and the time that it was begun, so that RESET MASTER and a restored server are noticed.
//!
//! There is nothing to tell the server: it purges its binlog by age, and a relay whose place is gone
//! refuses to go on. Without a progress topic the position is in the table `oncelog_outbox_position`; with
//! one, that table only holds where the relay began, so that a relay which dies before its first
//! progress begins there again.
//!
//! A binlog has no snapshot: a new relay begins at its end, and rows which are in the table already are
//! not published.
//!
//! Identity: MySQL has a `server_uuid`. MariaDB has nothing of the kind: `server_id` says which server of
//! a replication it is, and the id in `oncelog_outbox_identity`, made with the outbox, says of which
//! replication (a replica has a copy of it, but its binlog has other places).
//!
//! A server throws out a replica when another one connects with the same id, which is derived from the
//! relay's name: so of two instances of one relay, the older one loses its stream. Exactly once, the relay
//! then asks Kafka which of them is fenced; at weaker guarantees, where there is nobody to ask, the one that
//! was thrown out stops.

mod columns;
mod event;
mod outbox;
mod queue;
mod reader;
mod shape;
mod transactions;
mod value;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use mysql::Conn;
use mysql::prelude::Queryable;

use self::outbox::Outbox;
use self::queue::Queue;
use self::reader::Reader;
use self::transactions::{Place, Transactions};
use super::connection::{self, ANSWER_LIMIT, Server, failed, outbox_id};
use super::options::Options;
use super::tables::Tables;
use crate::position::{Position, Progress};
use crate::source::{Batch, Lag, Limit, Source, SourceError};

pub struct Binlog {
    options: Options,
    identity: String,
    exactly_once: bool,
    /// Began without a progress: the first confirmation makes the table say so.
    unconfirmed: bool,
    open: Option<Open>,
    /// The last position that was handed out, and when a heartbeat last was.
    last: Option<Position>,
    beat: Option<Instant>,
}

struct Open {
    conn: Conn,
    tables: Tables,
    queue: Arc<Queue>,
    connection: Arc<AtomicU32>,
}

impl Binlog {
    pub fn new(options: Options) -> Binlog {
        Binlog {
            options,
            identity: String::new(),
            exactly_once: true,
            unconfirmed: false,
            open: None,
            last: None,
            beat: None,
        }
    }

    /// The most memory that rows read ahead have taken since it was opened, in bytes.
    pub fn buffer_high_water(&self) -> usize {
        self.open.as_ref().map_or(0, |open| open.queue.high_water())
    }

    fn opened(&mut self) -> Result<&mut Open, SourceError> {
        let not_open = || SourceError::Lost("the source is not open".to_owned());
        self.open.as_mut().ok_or_else(not_open)
    }

    /// Ends the thread. It notices by itself within a second; the server makes it sooner.
    fn close(&mut self) {
        let Some(mut open) = self.open.take() else {
            return;
        };
        open.queue.stop();
        let id = open.connection.load(Ordering::Relaxed);
        if let Err(error) = open.conn.query_drop(format!("KILL {id}")) {
            tracing::debug!("ending the stream of the binlog: {error}");
        }
    }

    /// Where to begin, and how many rows of the transaction there are done.
    fn start(
        &mut self,
        conn: &mut Conn,
        tables: &Tables,
        progress: Option<&Progress>,
    ) -> Result<(Place, u64), SourceError> {
        if let Some(progress) = progress {
            let position = self.own_position(progress)?;
            check_place(conn, &position.0)?;
            return Ok(position);
        }
        let key = self.options.key();
        let stored = stored_position(conn, tables, &key)?;
        let Some((place, rows, published)) = stored else {
            let place = end_of_binlog(conn)?;
            tracing::info!(
                "the relay {key} begins at the end of the binlog, {}:{}; rows that are in {} \
                already are not published",
                place.file,
                place.offset,
                tables.outbox
            );
            store_position(conn, tables, &key, &place, 0, false)?;
            self.unconfirmed = true;
            return Ok((place, 0));
        };
        if published && self.exactly_once {
            return Err(SourceError::Refused(format!(
                "the relay {key} has published rows, and its progress topic has no progress: the \
                topic was deleted, or the relay had another delivery before. Without knowing which \
                rows are published it does not go on. To go on at {}:{} ({rows} rows done there), \
                UPDATE {} SET published = 0; to begin at the end of the binlog, DELETE the relay's \
                row there",
                place.file, place.offset, tables.position
            )));
        }
        check_place(conn, &place)?;
        self.unconfirmed = !published;
        Ok((place, rows))
    }

    fn own_position(&self, progress: &Progress) -> Result<(Place, u64), SourceError> {
        if progress.source != self.identity {
            return Err(SourceError::Refused(format!(
                "the progress is of {}, and this is the binlog of {}: another server (a replica's \
                binlog has other places), or the relay was polling before. Point the relay back to \
                it, or give it another name once nothing is waiting",
                progress.source, self.identity
            )));
        }
        match &progress.position {
            Position::Binlog {
                file,
                created,
                offset,
                rows,
            } => Ok((
                Place {
                    file: Arc::clone(file),
                    created: *created,
                    offset: *offset,
                },
                *rows,
            )),
            other => Err(SourceError::Refused(format!(
                "the progress is no place in a binlog, but {other}"
            ))),
        }
    }
}

impl Source for Binlog {
    fn open(&mut self, progress: Option<&Progress>, exactly_once: bool) -> Result<(), SourceError> {
        self.close();
        self.options.validate().map_err(SourceError::Refused)?;
        self.exactly_once = exactly_once;
        self.unconfirmed = false;
        self.last = progress.map(|progress| progress.position.clone());
        self.beat = None;
        let database = connection::Database::new(&self.options)?;
        let mut conn = database.connect()?;
        let server = Server::ask(&mut conn)?;
        if let Some(fault) = faults(&server).into_iter().next() {
            let (what, fix) = fault;
            return Err(SourceError::Refused(format!("{what}; {fix}")));
        }
        let id = outbox_id(&mut conn, &database.tables)?;
        self.identity = identity(&server, &id);
        let columns = columns::load(&mut conn, &database.tables)?;
        let tables = Tables::new(&self.options, &database.tables.database);
        let (place, rows) = self.start(&mut conn, &tables, progress)?;
        // One half for what is queued, the other for a transaction that is not at its end.
        let queue = Arc::new(Queue::new(self.options.buffer_bytes / 2));
        let ignores_case = server.variable("lower_case_table_names") != "0";
        let outbox = Outbox::new(
            self.options.clone(),
            connection::Database::new(&self.options)?,
            ignores_case,
            columns,
        );
        let held_max = self.options.buffer_bytes / 2;
        let transactions = Transactions::new(Arc::clone(&queue), outbox, place, rows, held_max);
        let connection = Arc::new(AtomicU32::new(0));
        let reader = Reader {
            database,
            replica_id: self.options.replica_id(),
            exactly_once,
            queue: Arc::clone(&queue),
            transactions,
            connection: Arc::clone(&connection),
        };
        let thread = std::thread::Builder::new().name("binlog".to_owned());
        let spawned = thread.spawn(move || reader.run());
        spawned.map_err(|error| SourceError::Lost(format!("starting a thread: {error}")))?;
        self.open = Some(Open {
            conn,
            tables,
            queue: Arc::clone(&queue),
            connection,
        });
        queue.await_start(ANSWER_LIMIT)
    }

    fn identity(&self) -> String {
        self.identity.clone()
    }

    fn read(&mut self, limit: Limit, wait: Duration) -> Result<Batch, SourceError> {
        let interval = self.options.heartbeat_interval();
        // The first one is due at once: the progress topic then knows where the relay began.
        let since = self.beat.map_or(interval, |beat| beat.elapsed());
        let queue = Arc::clone(&self.opened()?.queue);
        let rows = queue.take(limit, wait.min(interval.saturating_sub(since)))?;
        if let Some(row) = rows.last() {
            self.last = Some(row.position.clone());
            return Ok(Batch {
                rows,
                heartbeat: None,
            });
        }
        let is_due = self.beat.is_none_or(|beat| beat.elapsed() >= interval);
        if !is_due {
            return Ok(Batch::default());
        }
        let place = queue
            .place()
            .filter(|place| Some(place) != self.last.as_ref());
        if place.is_some() || self.last.is_some() {
            self.beat = Some(Instant::now());
        }
        if place.is_some() {
            self.last.clone_from(&place);
        }
        Ok(Batch {
            rows,
            heartbeat: place,
        })
    }

    fn confirm(&mut self, position: &Position) -> Result<(), SourceError> {
        if self.exactly_once && !self.unconfirmed {
            return Ok(());
        }
        let Position::Binlog {
            file,
            created,
            offset,
            rows,
        } = position
        else {
            let say = format!("{position} is no place in a binlog");
            return Err(SourceError::Refused(say));
        };
        let place = Place {
            file: Arc::clone(file),
            created: *created,
            offset: *offset,
        };
        let key = self.options.key();
        let open = self.opened()?;
        store_position(&mut open.conn, &open.tables, &key, &place, *rows, true)?;
        self.unconfirmed = false;
        Ok(())
    }

    fn lag(&mut self) -> Result<Lag, SourceError> {
        let position = self.last.clone();
        let open = self.opened()?;
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let oldest = open.queue.oldest().map(u64::from).map(Duration::from_secs);
        let warning = match &position {
            Some(Position::Binlog { file, .. }) => about_to_be_purged(&mut open.conn, file)?,
            _ => None,
        };
        Ok(Lag {
            pending_rows: None,
            oldest_row_age: oldest.map(|oldest| now.saturating_sub(oldest)),
            retained_wal_bytes: None,
            warning,
        })
    }
}

impl Drop for Binlog {
    fn drop(&mut self) {
        self.close();
    }
}

fn identity(server: &Server, outbox: &str) -> String {
    if server.mariadb {
        return format!("mariadb:{}:{outbox}", server.variable("server_id"));
    }
    format!("mysql:{}", server.variable("server_uuid"))
}

/// Why rows could be missing from the binlog, or could not be read from it, each with its fix.
pub(super) fn faults(server: &Server) -> Vec<(String, String)> {
    let mut faults = Vec::new();
    if !server.is_on("log_bin") {
        let fix = "set log_bin and server_id in the server's option file, and restart it";
        faults.push((
            "the server writes no binlog (log_bin is OFF)".to_owned(),
            fix.to_owned(),
        ));
        return faults;
    }
    let wanted = [
        ("binlog_format", "ROW", &["ROW"][..]),
        ("binlog_row_image", "FULL", &["FULL", "FULL_NODUP", ""][..]),
        ("binlog_row_value_options", "''", &[""][..]),
        ("log_bin_compress", "OFF", &["OFF", ""][..]),
        ("binlog_transaction_compression", "OFF", &["OFF", ""][..]),
    ];
    for (name, value, allowed) in wanted {
        let found = server.variable(name);
        if !allowed.contains(&found) {
            let fix = format!(
                "SET GLOBAL {name} = {value}, the same in the server's option file; then let all \
                sessions that write connect anew"
            );
            faults.push((
                format!("{name} is {found}, and the relay reads {value} only"),
                fix,
            ));
        }
    }
    faults
}

/// Whether every column of the outbox can be read from the binlog.
pub(super) fn readable_columns(conn: &mut Conn, tables: &Tables) -> Result<(), SourceError> {
    columns::load(conn, tables).map(|_| ())
}

/// `SHOW MASTER STATUS`, which MySQL has renamed.
fn end_of_binlog(conn: &mut Conn) -> Result<Place, SourceError> {
    let row = conn.query_first::<mysql::Row, _>("SHOW MASTER STATUS");
    let row = match row {
        Err(mysql::Error::MySqlError(error)) if error.code == SYNTAX => {
            conn.query_first("SHOW BINARY LOG STATUS")
        }
        row => row,
    };
    let row = row.map_err(|error| failed("asking for the end of the binlog", error))?;
    let file = row
        .as_ref()
        .and_then(|row| row.get_opt::<String, _>(0)?.ok());
    let offset = row.as_ref().and_then(|row| row.get_opt::<u64, _>(1)?.ok());
    let (Some(file), Some(offset)) = (file, offset) else {
        let say = "the server writes no binlog".to_owned();
        return Err(SourceError::Refused(say));
    };
    Ok(Place {
        file: file.into(),
        created: 0,
        offset,
    })
}

/// `ER_PARSE_ERROR`
const SYNTAX: u16 = 1064;

/// Names and sizes in bytes, the oldest first.
fn files(conn: &mut Conn) -> Result<Vec<(String, u64)>, SourceError> {
    let asked = "SHOW BINARY LOGS";
    let rows: Vec<mysql::Row> = conn.query(asked).map_err(|error| failed(asked, error))?;
    let file = |row: &mysql::Row| Some((row.get_opt(0)?.ok()?, row.get_opt(1)?.ok()?));
    Ok(rows.iter().filter_map(file).collect())
}

fn check_place(conn: &mut Conn, place: &Place) -> Result<(), SourceError> {
    let files = files(conn)?;
    let by_hand = "what was written in between cannot be told from this; bring source and topics \
        together by hand, then delete the relay's progress";
    match files.iter().find(|(name, _)| **name == *place.file) {
        Some((_, size)) if *size >= place.offset => Ok(()),
        Some((name, size)) => Err(SourceError::Refused(format!(
            "the relay has read {name} up to {}, and it has {size} bytes now: RESET MASTER was run, \
            or the server was restored from a backup; {by_hand}",
            place.offset
        ))),
        None => {
            let oldest = files.first().map_or("none", |(name, _)| name.as_str());
            Err(SourceError::Refused(format!(
                "the relay has read up to {}:{}, and the server has no such file any more: its \
                oldest is {oldest}. It was purged before the relay had read it (a longer \
                binlog_expire_logs_seconds leaves more time); {by_hand}",
                place.file, place.offset
            )))
        }
    }
}

fn about_to_be_purged(conn: &mut Conn, file: &str) -> Result<Option<String>, SourceError> {
    let files = files(conn)?;
    let oldest = files.first().is_some_and(|(name, _)| name == file);
    if !oldest || files.len() < 2 {
        return Ok(None);
    }
    let behind: u64 = files.iter().map(|(_, size)| size).sum();
    Ok(Some(format!(
        "the relay is in the oldest file of the binlog, {file}, with up to {behind} bytes to read: \
        once the server purges it, the relay cannot go on"
    )))
}

/// With the rows that are done there, and whether anything was published.
fn stored_position(
    conn: &mut Conn,
    tables: &Tables,
    key: &str,
) -> Result<Option<(Place, u64, bool)>, SourceError> {
    let asked = format!(
        "SELECT file, created, `offset`, row_count, published FROM {} WHERE relay = ?",
        tables.position
    );
    let row: Option<(String, u32, u64, u64, bool)> = conn
        .exec_first(asked, (key,))
        .map_err(|error| failed("reading where the relay was", error))?;
    Ok(row.map(|(file, created, offset, rows, published)| {
        let file = file.into();
        let place = Place {
            file,
            created,
            offset,
        };
        (place, rows, published)
    }))
}

fn store_position(
    conn: &mut Conn,
    tables: &Tables,
    key: &str,
    place: &Place,
    rows: u64,
    published: bool,
) -> Result<(), SourceError> {
    let written = format!(
        "REPLACE INTO {} (relay, file, created, `offset`, row_count, published) \
        VALUES (?, ?, ?, ?, ?, ?)",
        tables.position
    );
    let values = (
        key,
        &*place.file,
        place.created,
        place.offset,
        rows,
        published,
    );
    let stored = conn.exec_drop(written, values);
    stored.map_err(|error| failed("storing where the relay is", error))
}
