//! The database that a relay reads: a new one of each kind, its relay's options, and rows in its outbox.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use databases::mariadb::MariaDb;
use databases::postgresql::PostgreSql;

use super::Setting;
use super::arrivals::Arrivals;
use super::part::{Part, Program};

/// The text beside the number in each payload: with it, an event is of about 0.3 KB.
const TEXT_BYTES: usize = 200;
/// Transactions that fill an outbox of MariaDB in one call of its client.
const STATEMENTS_AT_ONCE: u64 = 100;
/// First connections included.
const START_LIMIT: Duration = Duration::from_secs(30);

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Source {
    PostgresTable,
    PostgresMessages,
    PostgresPolling,
    MariadbBinlog,
    MariadbPolling,
    Sqlite,
}

pub struct Origin {
    source: Source,
    server: Server,
}

enum Server {
    PostgreSql(PostgreSql),
    MariaDb(MariaDb),
    Sqlite(PathBuf),
}

impl Origin {
    pub fn start(source: Source, setting: &Setting) -> Result<Origin> {
        let server = match source {
            Source::PostgresTable | Source::PostgresMessages | Source::PostgresPolling => {
                // A checkpoint in the midst of a measurement is none of the relay's.
                let settings = [("max_wal_size", "8GB"), ("shared_buffers", "256MB")];
                Server::PostgreSql(PostgreSql::start_with(&settings)?)
            }
            Source::MariadbBinlog | Source::MariadbPolling => {
                let settings = [
                    ("innodb_buffer_pool_size", "512M"),
                    ("innodb_log_file_size", "512M"),
                ];
                Server::MariaDb(MariaDb::start_with(&settings)?)
            }
            Source::Sqlite => {
                std::fs::create_dir_all(&setting.home)?;
                let path = setting.home.join("outbox.db");
                for suffix in ["", "-wal", "-shm"] {
                    let _ = std::fs::remove_file(format!("{}{suffix}", path.display()));
                }
                rusqlite::Connection::open(&path)?.pragma_update(None, "journal_mode", "wal")?;
                Server::Sqlite(path)
            }
        };
        Ok(Origin { source, server })
    }

    pub fn url(&self) -> String {
        match &self.server {
            Server::PostgreSql(server) => server.url(),
            Server::MariaDb(server) => server.url(),
            Server::Sqlite(path) => format!("sqlite:{}", path.display()),
        }
    }

    /// The relay's program, with all that it needs in the database.
    pub fn relay<'a>(&self, setting: &'a Setting, more: &str) -> Result<Program<'a>> {
        let own = match self.source {
            Source::PostgresTable | Source::MariadbBinlog => "capture = \"cdc\"",
            Source::PostgresMessages => "capture = \"cdc\"\ntable = \"\"",
            Source::PostgresPolling | Source::MariadbPolling => "capture = \"polling\"",
            Source::Sqlite => "",
        };
        Program::relay(setting, &self.url(), &format!("{own}\n{more}"))
    }

    /// Has the relay make its beginning, with one event; it runs.
    pub fn begin(&self, program: &Program, arrivals: &mut Arrivals) -> Result<Part> {
        let mut relay = program.start()?;
        self.await_beginning(&mut relay)?;
        let before = arrivals.stable_ends()?;
        self.fill(0, 1, 1)?;
        arrivals.await_change(&before, &mut relay)?;
        Ok(relay)
    }

    pub fn await_beginning(&self, reader: &mut Part) -> Result<()> {
        let began = Instant::now();
        while !self.is_read()? {
            reader.check()?;
            ensure!(
                began.elapsed() < START_LIMIT,
                "nobody reads the database's log"
            );
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    /// What reads a log begins where it is when it is started.
    fn is_read(&self) -> Result<bool> {
        let count = match (self.source, &self.server) {
            (Source::PostgresTable | Source::PostgresMessages, Server::PostgreSql(server)) => {
                server.sql("SELECT count(*) FROM pg_replication_slots WHERE active")?
            }
            (Source::MariadbBinlog, Server::MariaDb(server)) => {
                server.sql("SELECT count(*) FROM oncelog_outbox_position")?
            }
            _ => return Ok(true),
        };
        Ok(count != "0")
    }

    /// Rows numbered from `first` on, `each` of them to a transaction.
    pub fn fill(&self, first: u64, rows: u64, each: u64) -> Result<()> {
        let transactions = rows / each;
        match &self.server {
            Server::PostgreSql(server) => {
                let insert = match self.source {
                    Source::PostgresMessages => format!(
                        "PERFORM count(pg_logical_emit_message(true, 'outbox', json_build_object(
                            'id', gen_random_uuid(), 'aggregatetype', 'order',
                            'aggregateid', (n % 1000)::text, 'type', 'created',
                            'payload', json_build_object('n', n, 'text', repeat('x', {TEXT_BYTES}))
                        )::text))"
                    ),
                    _ => format!(
                        "INSERT INTO outbox (aggregatetype, aggregateid, type, payload)
                        SELECT 'order', (n % 1000)::text, 'created',
                            jsonb_build_object('n', n, 'text', repeat('x', {TEXT_BYTES}))"
                    ),
                };
                server.sql(&format!(
                    "DO $$ BEGIN FOR i IN 0..{transactions} - 1 LOOP {insert}
                        FROM generate_series({first} + i * {each}, {first} + (i + 1) * {each} - 1) n;
                    COMMIT; END LOOP; END $$"
                ))?;
            }
            Server::MariaDb(server) => {
                let mut done = 0;
                while done < transactions {
                    let until = transactions.min(done + STATEMENTS_AT_ONCE);
                    let statements = (done..until).map(|at| {
                        let from = first + at * each;
                        format!(
                            "INSERT INTO outbox (aggregatetype, aggregateid, type, payload)
                            SELECT 'order', ({from} + seq) % 1000, 'created',
                                JSON_OBJECT('n', {from} + seq, 'text', REPEAT('x', {TEXT_BYTES}))
                            FROM seq_0_to_{};",
                            each - 1
                        )
                    });
                    server.sql(&statements.collect::<String>())?;
                    done = until;
                }
            }
            Server::Sqlite(path) => {
                let connection = rusqlite::Connection::open(path)?;
                connection.busy_timeout(START_LIMIT)?;
                let mut insert = connection.prepare(
                    "WITH RECURSIVE s(n) AS (SELECT ?1 UNION ALL SELECT n + 1 FROM s WHERE n + 1 < ?2)
                    INSERT INTO outbox (aggregatetype, aggregateid, type, payload)
                    SELECT 'order', CAST(n % 1000 AS TEXT), 'created',
                        json_object('n', n, 'text', ?3) FROM s",
                )?;
                let text = "x".repeat(TEXT_BYTES);
                for at in 0..transactions {
                    let (from, until) = (first + at * each, first + (at + 1) * each);
                    insert.execute((from.cast_signed(), until.cast_signed(), &text))?;
                }
            }
        }
        Ok(())
    }

    pub fn postgresql(&self) -> Result<&PostgreSql> {
        match &self.server {
            Server::PostgreSql(server) => Ok(server),
            _ => bail!("this is measured with PostgreSQL alone"),
        }
    }
}
