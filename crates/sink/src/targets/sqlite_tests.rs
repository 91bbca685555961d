use super::*;

fn described(ddl: &str) -> Table {
    let connection = Connection::open_in_memory().unwrap();
    connection.execute_batch(ddl).unwrap();
    describe(&connection, "t").unwrap().unwrap()
}

#[test]
fn types_are_known_by_their_names() {
    for (declared, expected) in [
        ("INTEGER", int(64, true)),
        ("BOOLEAN", int(64, true)),
        ("VARCHAR(10)", Kind::Text),
        ("JSON", Kind::Json),
        ("DATETIME", Kind::Timestamp { iso: true }),
        ("UUID", Kind::Uuid),
        ("BLOB", Kind::Bytes),
        ("DOUBLE", Kind::Float),
        ("DECIMAL(10,2)", Kind::Number),
        ("", Kind::Any),
    ] {
        let table = described(&format!("CREATE TABLE t (c {declared})"));
        assert_eq!(table.columns[0].kind, expected, "{declared}");
    }
}

#[test]
fn unique_indexes_are_those_that_hold_for_all_rows() {
    let table = described(
        "CREATE TABLE t (id INTEGER PRIMARY KEY, a TEXT NOT NULL, b TEXT, c TEXT DEFAULT 'x');
        CREATE UNIQUE INDEX one ON t (a, b);
        CREATE UNIQUE INDEX some ON t (b) WHERE c = 'x';
        CREATE UNIQUE INDEX expression ON t (lower(a));
        CREATE INDEX no ON t (c);",
    );
    assert_eq!(
        table.unique,
        [vec!["id".to_owned()], vec!["a".to_owned(), "b".to_owned()]]
    );
    let optional: Vec<bool> = table.columns.iter().map(|column| column.optional).collect();
    assert_eq!(optional, [true, false, false, true]);
    assert!(!table.columns[1].nullable && table.columns[2].nullable);
}
