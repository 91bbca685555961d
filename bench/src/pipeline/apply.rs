//! How fast a sink makes rows of a topic that is full: upserts, the inbox and the offsets in one
//! transaction of the database.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use databases::mariadb::MariaDb;
use databases::postgresql::PostgreSql;
use mysql::prelude::Queryable;
use rdkafka::config::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};

use super::part::{Part, Program};
use super::{PARTITIONS, Setting};
use crate::broker::Broker;
use crate::figures::Figures;

const LIMIT: Duration = Duration::from_secs(120);
const GLANCE: Duration = Duration::from_millis(10);
const COLUMNS: &str =
    "id bigint PRIMARY KEY, customer varchar(40), amount decimal(20, 2), note text";

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Kind {
    Postgres,
    Mariadb,
    Sqlite,
}

#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    setting: Setting,
    #[arg(long, value_enum)]
    target: Kind,
    /// Records in the topic; half of them are of a key that another one had.
    #[arg(long)]
    records: u64,
}

/// A connection to look at the target with.
enum Target {
    PostgreSql(PostgreSql, Box<postgres::Client>),
    MariaDb(MariaDb, Box<mysql::Conn>),
    Sqlite(PathBuf, rusqlite::Connection),
}

impl Target {
    fn start(kind: Kind, setting: &Setting) -> Result<Target> {
        Ok(match kind {
            Kind::Postgres => {
                let settings = [("max_wal_size", "8GB"), ("shared_buffers", "256MB")];
                let server = PostgreSql::start_with(&settings)?;
                let client = postgres::Client::connect(&server.url(), postgres::NoTls)?;
                Target::PostgreSql(server, Box::new(client))
            }
            Kind::Mariadb => {
                let settings = [
                    ("innodb_buffer_pool_size", "512M"),
                    ("innodb_log_file_size", "512M"),
                ];
                let server = MariaDb::start_with(&settings)?;
                let conn = mysql::Conn::new(mysql::Opts::from_url(&server.url())?)?;
                Target::MariaDb(server, Box::new(conn))
            }
            Kind::Sqlite => {
                std::fs::create_dir_all(&setting.home)?;
                let path = setting.home.join("rows.db");
                for suffix in ["", "-wal", "-shm"] {
                    let _ = std::fs::remove_file(format!("{}{suffix}", path.display()));
                }
                let connection = rusqlite::Connection::open(&path)?;
                connection.pragma_update(None, "journal_mode", "wal")?;
                connection.busy_timeout(LIMIT)?;
                Target::Sqlite(path, connection)
            }
        })
    }

    fn url(&self) -> String {
        match self {
            Target::PostgreSql(server, _) => server.url(),
            Target::MariaDb(server, _) => server.url(),
            Target::Sqlite(path, _) => format!("sqlite:{}", path.display()),
        }
    }

    fn run(&mut self, statement: &str) -> Result<()> {
        match self {
            Target::PostgreSql(_, client) => client.batch_execute(statement)?,
            Target::MariaDb(_, conn) => conn.query_drop(statement)?,
            Target::Sqlite(_, connection) => connection.execute_batch(statement)?,
        }
        Ok(())
    }

    fn number(&mut self, expression: &str, table: &str) -> Result<u64> {
        let kind = match self {
            Target::PostgreSql(..) => "bigint",
            Target::MariaDb(..) => "signed",
            Target::Sqlite(..) => "integer",
        };
        let query = format!("SELECT CAST(coalesce({expression}, 0) AS {kind}) FROM {table}");
        let number: i64 = match self {
            Target::PostgreSql(_, client) => client.query_one(&query, &[])?.get(0),
            Target::MariaDb(_, conn) => conn.query_first(&query)?.context("no row")?,
            Target::Sqlite(_, connection) => connection.query_row(&query, (), |row| row.get(0))?,
        };
        Ok(u64::try_from(number)?)
    }

    fn applied(&mut self) -> Result<u64> {
        self.number("sum(next_offset)", "oncelog_sink_offset")
    }
}

pub fn run(args: &Args) -> Result<Figures> {
    let setting = &args.setting;
    let mut broker = Broker::connect(&setting.bootstrap)?;
    broker.create_topic(&setting.topic, PARTITIONS)?;
    let keys = args.records.div_ceil(2);
    fill(setting, args.records, keys)?;
    let there: i64 = broker.ends(&setting.topic, PARTITIONS)?.iter().sum();
    ensure!(
        there == args.records.cast_signed(),
        "{there} records are in the topic"
    );
    let mut target = Target::start(args.target, setting)?;
    target.run(&format!("CREATE TABLE received ({COLUMNS})"))?;
    let program = Program::sink(
        setting,
        &target.url(),
        "table = \"received\"\nkey.columns = [\"id\"]\n[sink.columns]\nid = \"value.id\"\n\
         customer = \"value.customer\"\namount = \"value.amount\"\nnote = \"value.note\"",
    )?;
    let mut sink = program.start()?;
    let (seconds, rows, cpu) = watch(args, &mut target, &mut sink)?;
    let resident = sink.process.resident_max_bytes()?;
    sink.stop()?;
    for (table, wanted) in [("received", keys), ("oncelog_sink_inbox", args.records)] {
        let found = target.number("count(*)", table)?;
        ensure!(found == wanted, "{table}: {found} rows instead of {wanted}");
    }
    let mut figures = Figures::default();
    figures.set("rows_per_s", rows as f64 / seconds);
    figures.set(
        "cpu_us_per_row",
        cpu.as_secs_f64() * 1e6 / args.records as f64,
    );
    figures.set("resident_max_mb", resident as f64 / 1e6);
    Ok(figures)
}

/// From the first transaction that is seen to the last one: how long, how many rows, and the sink's
/// processor time until then.
fn watch(args: &Args, target: &mut Target, sink: &mut Part) -> Result<(f64, u64, Duration)> {
    let began = Instant::now();
    let mut first = None;
    loop {
        let applied = target.applied()?;
        let now = Instant::now();
        if applied > 0 && first.is_none() {
            first = Some((now, applied));
        }
        if let Some((from, already)) = first
            && applied == args.records
        {
            let seconds = (now - from).as_secs_f64();
            return Ok((seconds, applied - already, sink.process.cpu()?));
        }
        sink.check()?;
        ensure!(
            began.elapsed() < LIMIT,
            "{applied} of {} records are rows",
            args.records
        );
        std::thread::sleep(GLANCE);
    }
}

/// As a client would make it up: 128 bits without an order.
fn event_id(number: u64) -> String {
    let mixed = |n: u64| {
        let n = (n ^ (n >> 31)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        (n ^ (n >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB)
    };
    format!("{:016x}{:016x}", mixed(number), mixed(!number))
}

fn fill(setting: &Setting, records: u64, keys: u64) -> Result<()> {
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", &setting.bootstrap)
        .set("linger.ms", "20")
        .set("batch.size", "1000000")
        .set("acks", "all")
        .create()?;
    let note = "x".repeat(100);
    for number in 0..records {
        let key = number.wrapping_mul(7_919) % keys;
        let value = format!(
            "{{\"id\": {key}, \"customer\": \"c{}\", \"amount\": {number}.50, \"note\": \"{note}\"}}",
            number % 1_000
        );
        let (key, id) = (key.to_string(), event_id(number));
        let header = Header {
            key: "id",
            value: Some(&id),
        };
        let mut record = BaseRecord::to(&setting.topic)
            .key(&key)
            .payload(&value)
            .headers(OwnedHeaders::new().insert(header));
        loop {
            match producer.send(record) {
                Ok(()) => break,
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                    record = back;
                    producer.poll(Duration::from_millis(1));
                }
                Err((error, _)) => bail!("could not send: {error}"),
            }
        }
    }
    Ok(producer.flush(LIMIT)?)
}
