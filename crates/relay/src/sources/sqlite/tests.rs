use super::*;

const LIMIT: Limit = Limit {
    rows: 3,
    bytes: 1 << 20,
};

fn options(path: PathBuf) -> Options {
    Options {
        path,
        relay: "orders".to_owned(),
        ..Options::default()
    }
}

struct Database {
    dir: tempfile::TempDir,
    writer: Connection,
}

impl Database {
    fn new() -> Database {
        let dir = tempfile::tempdir().unwrap();
        let writer = Connection::open(dir.path().join("app.db")).unwrap();
        writer.pragma_update(None, "journal_mode", "wal").unwrap();
        let database = Database { dir, writer };
        for statement in ddl(&database.options()) {
            database.writer.execute(&statement, []).unwrap();
        }
        database
    }

    fn options(&self) -> Options {
        options(self.dir.path().join("app.db"))
    }

    fn insert(&self, ids: std::ops::Range<u32>) {
        for id in ids {
            self.writer
                .execute(
                    "INSERT INTO outbox (id, aggregatetype, aggregateid, payload) VALUES (?1, 'order', 'a', '{}')",
                    [format!("e{id}")],
                )
                .unwrap();
        }
    }

    fn count(&self) -> i64 {
        let count = "SELECT count(*) FROM outbox";
        self.writer.query_row(count, [], |row| row.get(0)).unwrap()
    }

    fn opened(&self, progress: Option<i64>) -> Result<Sqlite, SourceError> {
        let mut source = Sqlite::new(self.options());
        let identity = self.identity();
        let progress =
            progress.map(|sequence| Progress::new(&identity, Position::Cursor { sequence }));
        source.open(progress.as_ref(), true).map(|()| source)
    }

    fn identity(&self) -> String {
        identity(&self.writer).unwrap()
    }
}

fn ids(source: &mut Sqlite) -> Vec<String> {
    let batch = source.read(LIMIT, Duration::ZERO).unwrap();
    let id = |row: &OutboxRow| match row.value("id") {
        Some(Value::Text(id)) => id.clone(),
        other => panic!("{other:?} is no id"),
    };
    batch.rows.iter().map(id).collect()
}

fn refusal(result: Result<Sqlite, SourceError>) -> String {
    match result {
        Err(SourceError::Refused(why)) => why,
        Err(SourceError::Lost(why)) => panic!("lost: {why}"),
        Ok(_) => panic!("it was not refused"),
    }
}

#[test]
fn rows_come_in_the_order_of_their_commits_and_go_when_confirmed() {
    let database = Database::new();
    database.insert(0..5);
    let mut source = database.opened(None).unwrap();
    assert_eq!(ids(&mut source), ["e0", "e1", "e2"]);
    assert_eq!(ids(&mut source), ["e3", "e4"]);
    assert!(ids(&mut source).is_empty());
    assert_eq!(source.lag().unwrap().pending_rows, Some(0));
    source.confirm(&Position::Cursor { sequence: 4 }).unwrap();
    assert_eq!(database.count(), 1);
    let mut again = database.opened(Some(4)).unwrap();
    assert_eq!(ids(&mut again), ["e4"]);
}

#[test]
fn a_number_is_not_given_twice_when_all_rows_are_gone() {
    let database = Database::new();
    database.insert(0..2);
    let mut source = database.opened(None).unwrap();
    assert_eq!(ids(&mut source).len(), 2);
    source.confirm(&Position::Cursor { sequence: 2 }).unwrap();
    assert_eq!(database.count(), 0);
    database.insert(2..3);
    assert_eq!(ids(&mut database.opened(Some(2)).unwrap()), ["e2"]);
}

#[test]
fn a_large_row_ends_a_batch_and_is_not_left_out() {
    let database = Database::new();
    for id in ["a", "b"] {
        database
            .writer
            .execute(
                "INSERT INTO outbox (id, aggregatetype, aggregateid, payload) VALUES (?1, 't', 'a', ?2)",
                [id, &"x".repeat(2 << 20)],
            )
            .unwrap();
    }
    let mut source = database.opened(None).unwrap();
    assert_eq!(ids(&mut source), ["a"]);
    assert_eq!(ids(&mut source), ["b"]);
}

#[test]
fn what_is_not_committed_is_not_read() {
    let mut database = Database::new();
    let mut source = database.opened(None).unwrap();
    let open = database.writer.transaction().unwrap();
    open.execute(
        "INSERT INTO outbox (aggregatetype, aggregateid) VALUES ('t', 'a')",
        [],
    )
    .unwrap();
    assert!(ids(&mut source).is_empty());
    open.rollback().unwrap();
    assert!(ids(&mut source).is_empty());
}

#[test]
fn a_database_that_does_not_fit_the_progress_is_refused() {
    let database = Database::new();
    database.insert(0..2);
    let older = refusal(database.opened(Some(3)));
    assert!(older.contains("restored"), "{older}");

    let mut other = Sqlite::new(database.options());
    let progress = Progress::new("sqlite:ff", Position::Cursor { sequence: 1 });
    let other = refusal(other.open(Some(&progress), true).map(|()| other));
    assert!(other.contains("another database"), "{other}");

    let mut source = database.opened(None).unwrap();
    assert_eq!(ids(&mut source).len(), 2);
    source.confirm(&Position::Cursor { sequence: 2 }).unwrap();
    let gap = refusal(database.opened(Some(1)));
    assert!(gap.contains("confirmed"), "{gap}");
    let none = refusal(database.opened(None));
    assert!(none.contains("exactly_once = 0"), "{none}");
}

#[test]
fn without_exactly_once_it_goes_on_after_what_it_confirmed() {
    let database = Database::new();
    database.insert(0..4);
    let mut source = Sqlite::new(Options {
        retention_ms: -1,
        ..database.options()
    });
    source.open(None, false).unwrap();
    assert_eq!(ids(&mut source).len(), 3);
    source.confirm(&Position::Cursor { sequence: 2 }).unwrap();
    assert_eq!(database.count(), 4);
    source.open(None, false).unwrap();
    assert_eq!(ids(&mut source), ["e2", "e3"]);
    // And an exactly-once relay takes over from there.
    assert_eq!(ids(&mut database.opened(None).unwrap()), ["e2", "e3"]);
}

#[test]
fn a_table_whose_numbers_come_again_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("app.db");
    let writer = Connection::open(&path).unwrap();
    let options = options(path.clone());
    let open = || {
        let mut source = Sqlite::new(options.clone());
        source.open(None, true).map(|()| source)
    };
    assert!(refusal(open()).contains("no table outbox"));
    writer
        .execute("CREATE TABLE outbox (seq INTEGER PRIMARY KEY, id TEXT)", [])
        .unwrap();
    assert!(refusal(open()).contains("AUTOINCREMENT"));
    assert!(check(&options).iter().any(|finding| !finding.ok));
    let missing = Options {
        path: dir.path().join("none.db"),
        ..options
    };
    let mut source = Sqlite::new(missing);
    assert!(refusal(source.open(None, true).map(|()| source)).contains("none.db"));
}
