//! What every target keeps, on each kind of database: [`check_all`] is run against SQLite here, and
//! against real servers of the others.

use std::collections::BTreeSet;
use std::time::Duration;

use databases::mariadb::MariaDb;
use databases::postgresql::PostgreSql;
use oncelog_sink::config::Config;
use oncelog_sink::dead_letter::Letter;
use oncelog_sink::mapping::Mapping;
use oncelog_sink::record::{SinkRecord, TopicPartition};
use oncelog_sink::setup;
use oncelog_sink::target::{
    Applied, Claim, Effect, Entry, Move, Request, Target, TargetError, Transaction,
};
use oncelog_sink::targets;

/// A database of a test's own, and how to look into it beside the sink.
struct Place<'a> {
    url: String,
    /// Rows in lines, values with `|` in between.
    sql: &'a dyn Fn(&str) -> String,
    kind: &'static str,
}

impl Place<'_> {
    fn config(&self, name: &str, table: &str, more: &str) -> Config {
        let text = format!(
            r#"{{"name": "{name}", "topics": ["t"], "database": "{}", "table": "{table}", {more}}}"#,
            self.url
        );
        serde_json::from_str(&text).unwrap()
    }

    /// Of a table `name (id, n)`, whose key is `id`.
    fn upsert(&self, name: &str, more: &str) -> Config {
        let columns = r#""columns": {"id": "key", "n": "value.n"}, "key.columns": ["id"]"#;
        let config = self.config(name, name, &format!("{columns}{more}"));
        self.make(
            &config,
            &format!("CREATE TABLE {name} ({} PRIMARY KEY, n bigint)", self.id()),
        );
        config
    }

    fn id(&self) -> &'static str {
        if self.kind == "mysql" {
            "id varchar(40)"
        } else {
            "id text"
        }
    }

    fn make(&self, config: &Config, table: &str) {
        let mut statements = setup::ddl(config).unwrap();
        statements.push(table.to_owned());
        setup::execute(config, &statements).unwrap();
    }

    fn rows(&self, table: &str) -> String {
        (self.sql)(&format!("SELECT id, n FROM {table} ORDER BY id")).replace('\n', " ")
    }
}

struct Opened {
    target: Box<dyn Target>,
    mapping: Mapping,
    claim: Claim,
}

fn tp(partition: i32) -> TopicPartition {
    TopicPartition::new("t", partition)
}

fn request(partition: i32) -> Request {
    Request {
        partition: tp(partition),
        first: 0,
    }
}

fn open(config: &Config) -> Opened {
    let mut target = targets::of(config).unwrap();
    let table = target.open().unwrap();
    let mapping = Mapping::new(config, &table).unwrap();
    let claim = target.claim("c", &[request(0)]).unwrap().remove(0);
    Opened {
        target,
        mapping,
        claim,
    }
}

/// `a1`: key a, value `{"n":1}`; `a-`: a tombstone; with `#e` behind it, event id e.
fn record(word: &str) -> (SinkRecord, Option<String>) {
    let (word, id) = word
        .split_once('#')
        .map_or((word, None), |(word, id)| (word, Some(id)));
    let (key, value) = word.split_at(1);
    let value = (value != "-").then(|| format!("{{\"n\":{value}}}").into_bytes());
    let record = SinkRecord {
        topic: "t".into(),
        partition: 0,
        offset: 0,
        timestamp_ms: Some(0),
        key: Some(key.as_bytes().to_vec()),
        value,
        headers: vec![],
    };
    (record, id.map(str::to_owned))
}

impl Opened {
    fn entries(&self, script: &str) -> Vec<Entry> {
        let entry = |word: &str| {
            let (record, id) = record(word);
            Entry {
                event_id: id.map(Into::into),
                effect: Effect::Change(self.mapping.change(&record).unwrap()),
            }
        };
        script.split_whitespace().map(entry).collect()
    }

    fn apply(&mut self, script: &str) -> Result<Applied, TargetError> {
        let entries = self.entries(script);
        self.apply_entries(entries)
    }

    fn apply_entries(&mut self, entries: Vec<Entry>) -> Result<Applied, TargetError> {
        let from = self.claim.next_offset;
        let to = from + entries.len() as i64;
        let moved = Move {
            partition: tp(0),
            epoch: self.claim.epoch,
            from,
            to,
        };
        let applied = self.target.apply(&Transaction::new(entries, vec![moved]))?;
        self.claim.next_offset = to;
        Ok(applied)
    }
}

fn check_all(place: &Place<'_>) {
    check_order(place);
    check_inbox(place);
    check_zombie(place);
    check_claims(place);
    check_rejection(place);
    check_letters(place);
    check_insert(place);
    check_keys(place);
    check_findings(place);
}

fn check_order(place: &Place<'_>) {
    let mut sink = open(&place.upsert("ordered", ""));
    sink.apply("a1 b1 a2 c1 b- a3").unwrap();
    assert_eq!(place.rows("ordered"), "a|3 c|1");
    sink.apply("c- c2 c- d1 d- d2 a-").unwrap();
    assert_eq!(place.rows("ordered"), "d|2");
    // Columns that are not mapped are those of a new row after a delete.
    (place.sql)("ALTER TABLE ordered ADD COLUMN extra int");
    (place.sql)("UPDATE ordered SET extra = 7");
    sink = open(&place.upsert_again("ordered"));
    sink.apply("d3").unwrap();
    assert_eq!((place.sql)("SELECT n, extra FROM ordered"), "3|7");
    sink.apply("d- d4").unwrap();
    assert_eq!(
        (place.sql)("SELECT n FROM ordered WHERE extra IS NULL"),
        "4"
    );
    let many: String = (0..1_500)
        .map(|n| format!("{}{n} ", char::from(b'a' + (n % 26) as u8)))
        .collect();
    sink.apply(&many).unwrap();
    assert_eq!(
        (place.sql)("SELECT count(*), min(n), max(n) FROM ordered"),
        "26|1474|1499"
    );
}

impl Place<'_> {
    fn upsert_again(&self, name: &str) -> Config {
        let columns = r#""columns": {"id": "key", "n": "value.n"}, "key.columns": ["id"]"#;
        self.config(name, name, columns)
    }
}

fn check_inbox(place: &Place<'_>) {
    let mut sink = open(&place.upsert("inboxed", ""));
    assert_eq!(sink.apply("a1#e1 b1#e2 a2#e1").unwrap().duplicates, 1);
    assert_eq!(place.rows("inboxed"), "a|1 b|1");
    assert_eq!(sink.apply("a3#e1 c1#e3 b-#e2 d1").unwrap().duplicates, 2);
    assert_eq!(place.rows("inboxed"), "a|1 b|1 c|1 d|1");
    assert_eq!(
        sink.apply("b5#E1 b6#e1").unwrap().duplicates,
        1,
        "ids differ in their case"
    );
    let count = "SELECT count(*) FROM oncelog_sink_inbox WHERE sink = 'inboxed'";
    assert_eq!((place.sql)(count), "4");
    assert_eq!(sink.target.prune(Duration::from_secs(60)).unwrap(), 0);
    std::thread::sleep(Duration::from_millis(2_100));
    assert_eq!(sink.target.prune(Duration::from_secs(1)).unwrap(), 4);
    // Many at once, and then the same ones in another order.
    let many: String = (0..3_000).map(|n| format!("m{n}#f{n} ")).collect();
    assert_eq!(sink.apply(&many).unwrap().duplicates, 0);
    let again: String = (0..3_100).rev().map(|n| format!("m{n}#f{n} ")).collect();
    assert_eq!(sink.apply(&again).unwrap().duplicates, 3_000);
}

/// An instance that was paused, and whose partition has been taken over, writes nothing.
fn check_zombie(place: &Place<'_>) {
    let config = place.upsert("fenced", "");
    let mut zombie = open(&config);
    zombie.apply("a1#e1").unwrap();
    let mut other = open(&config);
    assert_eq!(
        (other.claim.epoch, other.claim.next_offset),
        (zombie.claim.epoch + 1, 1)
    );
    let before = place.rows("fenced");
    let refused = zombie.apply("a666#e2 b666#e3").unwrap_err();
    assert!(matches!(refused, TargetError::Fenced(_)), "{refused:?}");
    assert_eq!(place.rows("fenced"), before);
    other.apply("a2#e2").unwrap();
    // Nor does it after the other has moved on, or with the right offset.
    zombie.claim.next_offset = other.claim.next_offset;
    assert!(matches!(
        zombie.apply("a666#e4"),
        Err(TargetError::Fenced(_))
    ));
    // Nor one whose epoch is right and whose offset is not.
    other.claim.next_offset -= 1;
    assert!(matches!(
        other.apply("a666#e5"),
        Err(TargetError::Fenced(_))
    ));
    assert_eq!(place.rows("fenced"), "a|2");
    let seen = (place.sql)("SELECT count(*) FROM oncelog_sink_inbox WHERE sink = 'fenced'");
    assert_eq!(seen, "2");
}

fn check_claims(place: &Place<'_>) {
    let config = place.upsert("claimed", "");
    let mut target = targets::of(&config).unwrap();
    target.open().unwrap();
    let requests = [request(1), request(0)];
    let claims = target.claim("", &requests).unwrap();
    assert_eq!(claims.len(), 2);
    target.claim("one", &requests).unwrap();
    let refused = target.claim("two", &requests).unwrap_err();
    assert!(
        matches!(&refused, TargetError::Refused(why) if why.contains("one")),
        "{refused:?}"
    );
    let after = target.claim("one", &requests).unwrap();
    assert!(
        after.iter().all(|claim| claim.epoch == 3),
        "a refused claim takes nothing: {after:?}"
    );
    // A second claim says where to go on, not where one would begin.
    let later = Request {
        partition: tp(0),
        first: 99,
    };
    assert_eq!(target.claim("one", &[later]).unwrap()[0].next_offset, 0);
}

fn check_rejection(place: &Place<'_>) {
    let config = place.upsert("rejecting", "");
    (place.sql)("DROP TABLE rejecting");
    let table = format!(
        "CREATE TABLE rejecting ({} PRIMARY KEY, n bigint, CHECK (n < 100))",
        place.id()
    );
    (place.sql)(&table);
    let mut sink = open(&config);
    let refused = sink.apply("a1#e1 b100#e2 c1#e3").unwrap_err();
    let TargetError::Rejected { index, reason } = refused else {
        panic!("{refused:?}");
    };
    assert_eq!(index.unwrap_or(1), 1, "{reason}");
    assert_eq!(place.rows("rejecting"), "");
    // Nothing of it stays: neither the event ids nor the offset.
    assert_eq!(sink.apply("a1#e1 c1#e3").unwrap().duplicates, 0);
    assert_eq!(place.rows("rejecting"), "a|1 c|1");
}

fn check_letters(place: &Place<'_>) {
    let config = place.upsert("letters", r#", "dead.letter": "table""#);
    let mut sink = open(&config);
    let mut entries = sink.entries("a1#e1");
    let (poison, _) = record("bx");
    let letter = Letter::new("letters", &poison, Some("e2"), "mapping", "is no number");
    entries.push(Entry {
        event_id: Some("e2".into()),
        effect: Effect::Letter(letter),
    });
    sink.apply_entries(entries).unwrap();
    let read = "SELECT id, aggregatetype, aggregateid, type, payload, error, topic, partition_id, \
        record_offset FROM oncelog_dead_letter";
    assert_eq!(
        (place.sql)(read),
        "e2|dead-letter.letters|b|mapping|{\"n\":x}|is no number|t|0|0"
    );
    assert_eq!(place.rows("letters"), "a|1");
}

fn check_insert(place: &Place<'_>) {
    let (text, json, bytes, real, time, flag) = match place.kind {
        "postgresql" => ("text", "jsonb", "bytea", "float8", "timestamptz", "boolean"),
        "mysql" => (
            "longtext",
            "json",
            "longblob",
            "double",
            "datetime(3)",
            "boolean",
        ),
        _ => ("TEXT", "JSON", "BLOB", "DOUBLE", "TIMESTAMP", "BOOLEAN"),
    };
    let config = place.config(
        "typed",
        "typed",
        r#""mode": "insert", "columns": {
        "s": "value.s", "j": "value.j", "b": "value.b", "r": "value.r", "f": "value.f",
        "d": "value.d", "t": "value.t", "w": "value", "o": "offset", "at": "timestamp"}"#,
    );
    place.make(&config, &format!(
        "CREATE TABLE typed (s {text}, j {json}, b {bytes}, r {real}, f {flag}, d decimal(30, 10), \
         t {time}, w {json}, o bigint, at {time})"
    ));
    let mut sink = open(&config);
    let value = r#"{"s": "a'\"\\ü\u20ac", "j": {"k": [1, "x"]}, "b": "\u00e9", "r": 0.1, "f": true,
        "d": 12345678901234567890.0123456789, "t": "2024-03-01T00:10:59+00:30"}"#;
    let nulls = r#"{"s": null}"#;
    let entries = [value, nulls].map(|value| {
        let (mut record, _) = record("a1");
        record.value = Some(value.as_bytes().to_vec());
        Entry {
            event_id: None,
            effect: Effect::Change(sink.mapping.change(&record).unwrap()),
        }
    });
    sink.apply_entries(entries.into()).unwrap();
    let found = |what: &str| (place.sql)(&format!("SELECT {what} FROM typed WHERE s IS NOT NULL"));
    assert_eq!(found("s"), "a'\"\\ü€");
    assert_eq!(found("o"), "0");
    let hex = if place.kind == "postgresql" {
        "encode(b, 'hex')"
    } else {
        "lower(hex(b))"
    };
    assert_eq!(found(hex), "c3a9");
    assert_eq!(found("r"), "0.1");
    assert!(matches!(found("f").as_str(), "t" | "1"));
    assert!(found("j").contains("[1"));
    if place.kind != "sqlite" {
        assert_eq!(found("d"), "12345678901234567890.0123456789");
        let hour = "EXTRACT(HOUR FROM t) * 60 + EXTRACT(MINUTE FROM t)";
        assert_eq!(found(&hour.replace(" t)", &utc(place))), "1420");
    }
    assert_eq!(
        (place.sql)("SELECT count(*) FROM typed WHERE s IS NULL AND j IS NULL AND f IS NULL"),
        "1"
    );
}

/// `t` in UTC, whatever the session's zone.
fn utc(place: &Place<'_>) -> String {
    if place.kind == "postgresql" {
        " t AT TIME ZONE 'UTC')".to_owned()
    } else {
        " t)".to_owned()
    }
}

/// Keys that the database knows as equal and the sink does not.
fn check_keys(place: &Place<'_>) {
    let (key, one, other) = match place.kind {
        // 1 and 1.0 are the same number.
        "postgresql" => ("numeric", "1", "1.0"),
        "mysql" => ("varchar(9) COLLATE utf8mb4_general_ci", "k", "K"),
        _ => ("TEXT COLLATE NOCASE", "k", "K"),
    };
    let config = place.config(
        "alike",
        "alike",
        r#""columns": {"id": "key", "n": "value.n"}, "key.columns": ["id"]"#,
    );
    place.make(
        &config,
        &format!("CREATE TABLE alike (id {key} PRIMARY KEY, n bigint)"),
    );
    let mut sink = open(&config);
    let mut apply = |script: &[(&str, &str)]| {
        let entries = script.iter().map(|(key, value)| {
            let (mut record, _) = record(&format!("x{value}"));
            record.key = Some(key.as_bytes().to_vec());
            Entry {
                event_id: None,
                effect: Effect::Change(sink.mapping.change(&record).unwrap()),
            }
        });
        let entries = entries.collect();
        sink.apply_entries(entries).unwrap();
        (place.sql)("SELECT n FROM alike")
    };
    assert_eq!(apply(&[(one, "1"), (other, "2")]), "2");
    assert_eq!(apply(&[(other, "3"), (one, "4"), (other, "-")]), "");
    assert_eq!(
        apply(&[(one, "-"), (other, "5"), (one, "-"), (one, "6")]),
        "6"
    );
}

fn check_findings(place: &Place<'_>) {
    let faults = |config: &Config| {
        let findings = setup::check(config, None).into_iter();
        findings
            .filter(|finding| !finding.ok)
            .map(|finding| finding.what)
            .collect::<Vec<_>>()
    };
    let letters = r#", "dead.letter": "table""#;
    assert_eq!(faults(&place.upsert("well", letters)), Vec::<String>::new());
    let config = place.config(
        "ill",
        "ill",
        r#""columns": {"id": "key", "n": "offset"},
        "key.columns": ["id"]"#,
    );
    (place.sql)(
        "CREATE TABLE ill (id varchar(40), n bigint, must int NOT NULL, may int NOT NULL \
        DEFAULT 1)",
    );
    let found = faults(&config).join("\n");
    assert!(found.contains("not mapped: must"), "{found}");
    assert!(found.contains("no unique index of ill"), "{found}");
    let none = place.config(
        "none",
        "nowhere",
        r#""columns": {"id": "key"}, "mode": "insert""#,
    );
    assert!(faults(&none).join("\n").contains("nowhere is not there"));
    let wrong = place.config(
        "none",
        "ill",
        r#""columns": {"ident": "key"}, "mode": "insert""#,
    );
    assert!(faults(&wrong).join("\n").contains("ident"));
    // The drafts can be run, twice.
    let draft = place.config(
        "draft",
        "draft",
        r#""columns": {"id": "value.id", "w": "value",
        "at": "timestamp"}, "key.columns": ["id"], "dead.letter": "table""#,
    );
    let mut statements = setup::ddl(&draft).unwrap();
    statements.push(setup::table_ddl(&draft).unwrap());
    for _ in 0..2 {
        setup::execute(&draft, &statements).unwrap();
    }
    assert_eq!(faults(&draft), Vec::<String>::new());
}

#[test]
fn sqlite_keeps_it() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("s.db");
    let connection = rusqlite::Connection::open(&path).unwrap();
    let sql = |text: &str| {
        let mut statement = connection.prepare(text).unwrap();
        let count = statement.column_count();
        let mut rows = statement.query([]).unwrap();
        let mut lines = Vec::new();
        while let Some(row) = rows.next().unwrap() {
            let value = |index: usize| match row.get_ref(index).unwrap() {
                rusqlite::types::ValueRef::Null => String::new(),
                rusqlite::types::ValueRef::Integer(value) => value.to_string(),
                rusqlite::types::ValueRef::Real(value) => value.to_string(),
                rusqlite::types::ValueRef::Text(text) | rusqlite::types::ValueRef::Blob(text) => {
                    String::from_utf8_lossy(text).into_owned()
                }
            };
            lines.push((0..count).map(value).collect::<Vec<_>>().join("|"));
        }
        lines.join("\n")
    };
    check_all(&Place {
        url: format!("sqlite:{}", path.display()),
        sql: &sql,
        kind: "sqlite",
    });
}

#[test]
#[ignore = "needs PostgreSQL; cargo xtask test runs it"]
fn postgresql_keeps_it() {
    let server = PostgreSql::start().unwrap();
    check_all(&Place {
        url: server.url(),
        sql: &|text| server.sql(text).unwrap(),
        kind: "postgresql",
    });
}

#[test]
#[ignore = "needs MariaDB; cargo xtask test runs it"]
fn mariadb_keeps_it() {
    let server = MariaDb::start().unwrap();
    check_all(&Place {
        url: server.url(),
        sql: &|text| server.sql(text).unwrap().replace('\t', "|"),
        kind: "mysql",
    });
}

/// A server that was killed is lost, and comes back.
fn check_lost(config: &Config, kill: impl FnOnce(), start: impl FnOnce()) {
    let mut sink = open(config);
    sink.apply("a1#e1").unwrap();
    kill();
    let lost = sink.apply("b1#e2").unwrap_err();
    assert!(matches!(lost, TargetError::Lost(_)), "{lost:?}");
    assert!(matches!(sink.target.open(), Err(TargetError::Lost(_))));
    start();
    let mut sink = open(config);
    assert_eq!(sink.claim.next_offset, 1);
    sink.apply("b1#e2").unwrap();
}

#[test]
#[ignore = "needs PostgreSQL; cargo xtask test runs it"]
fn a_killed_postgresql_is_lost_and_comes_back() {
    let server = std::cell::RefCell::new(PostgreSql::start().unwrap());
    let place = Place {
        url: server.borrow().url(),
        sql: &|text| server.borrow().sql(text).unwrap(),
        kind: "postgresql",
    };
    let config = place.upsert("killed", "");
    let kill = || server.borrow_mut().kill().unwrap();
    check_lost(&config, kill, || server.borrow_mut().restart().unwrap());
    assert_eq!(place.rows("killed"), "a|1 b|1");
}

#[test]
#[ignore = "needs MariaDB; cargo xtask test runs it"]
fn a_killed_mariadb_is_lost_and_comes_back() {
    let server = std::cell::RefCell::new(MariaDb::start().unwrap());
    let place = Place {
        url: server.borrow().url(),
        sql: &|text| server.borrow().sql(text).unwrap().replace('\t', "|"),
        kind: "mysql",
    };
    let config = place.upsert("killed", "");
    let kill = || server.borrow_mut().kill().unwrap();
    check_lost(&config, kill, || server.borrow_mut().restart().unwrap());
    assert_eq!(place.rows("killed"), "a|1 b|1");
}

#[test]
fn names_of_sinks_do_not_meet_in_one_database() {
    let home = tempfile::tempdir().unwrap();
    let url = format!("sqlite:{}", home.path().join("s.db").display());
    let place = Place {
        url,
        sql: &|_| String::new(),
        kind: "sqlite",
    };
    let mut one = open(&place.upsert("one", ""));
    one.apply("a1#e1").unwrap();
    let mut two = open(&place.upsert("two", ""));
    assert_eq!(two.claim.next_offset, 0);
    assert_eq!(two.apply("a1#e1").unwrap().duplicates, 0);
    let epochs: BTreeSet<i64> = [one.claim.epoch, two.claim.epoch].into();
    assert_eq!(epochs.len(), 1);
}
