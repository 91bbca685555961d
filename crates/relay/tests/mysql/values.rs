//! Both ways of reading give a row the same values.

use databases::mariadb::MariaDb;
use mysql::prelude::Queryable;
use oncelog_relay::source::Source;
use oncelog_relay::sources::mysql::{Binlog, Polling};

use super::*;

const COLUMNS: &str = "\
    tiny TINYINT, utiny TINYINT UNSIGNED, small SMALLINT, medium MEDIUMINT, umedium MEDIUMINT UNSIGNED, \
    i INT, ui INT UNSIGNED, big BIGINT, ubig BIGINT UNSIGNED, \
    f FLOAT, d DOUBLE, n DECIMAL(30,10), b BIT(12), flag BOOLEAN, \
    c CHAR(10), v VARCHAR(300), ascii VARCHAR(20) CHARACTER SET ascii, t TEXT, mt MEDIUMTEXT, j JSON, \
    fixed BINARY(16), vb VARBINARY(300), bl BLOB, lb LONGBLOB, \
    e ENUM('one','it''s','three'), s SET('a','b','c'), \
    da DATE, dt DATETIME, dt6 DATETIME(6), dt2 DATETIME(2), ts TIMESTAMP NULL, ts3 TIMESTAMP(3) NULL, \
    ti TIME, ti6 TIME(6), y YEAR, \
    u UUID, i4 INET4, i6 INET6, \
    virt INT AS (i + 1) VIRTUAL, stor INT AS (i + 2) STORED";

const ROWS: [&str; 3] = [
    "-1, 255, -300, -70000, 16000000, -2000000000, 4000000000, -9000000000000000000, \
    18446744073709551615, 0.1, 1e300, -12345678901234567890.0123456789, b'101010101010', TRUE, \
    'char  ', 'Grüße, 你好 🎉', 'ascii', 'text', REPEAT('m', 70000), '{\"a\": [1, 2.50, \"ü\"]}', \
    x'00112233445566778899aabbccddee00', x'ff00', x'00ff', REPEAT('b', 100000), \
    'it''s', 'a,c', '2024-02-29', '2024-02-29 23:59:59', '1999-12-31 23:59:59.123456', \
    '2024-01-02 03:04:05.67', '2024-05-06 07:08:09', '2038-01-19 03:14:07.999', \
    '-838:59:59', '12:34:56.000789', 2024, \
    '123e4567-e89b-42d3-a456-426614174000', '10.0.0.1', '2001:db8::ff00:42:8329'",
    "0, 0, 0, 0, 0, 0, 0, 0, 7, -1.5, 0, 0, b'0', FALSE, '', '', '', '', '', 'null', \
    '', '', '', '', 'one', '', '0001-01-01', '1000-01-01 00:00:00', '2024-01-01 00:00:00', \
    '2024-01-01', '1970-01-01 00:00:01', '2000-02-29 00:00:00', '00:00:00', '-00:00:00.000001', 0, \
    '018f4e2a-7b3c-7def-8123-456789abcdef', '0.0.0.0', '::'",
    "NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, \
    NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, \
    NULL, NULL, NULL, '00000000-0000-0000-0000-000000000000', NULL, '::ffff:1.2.3.4'",
];

#[test]
#[ignore = "needs MariaDB; cargo xtask test runs it"]
fn both_ways_of_reading_give_the_same_values() {
    let server = MariaDb::start_with(&[("default_time_zone", "+05:30")]).unwrap();
    for metadata in ["NO_LOG", "MINIMAL", "FULL"] {
        server
            .sql(&format!("SET GLOBAL binlog_row_metadata = {metadata}"))
            .unwrap();
        let mut options = options(&server, &format!(r#"{{"table": "o_{metadata}"}}"#));
        options.relay = metadata.to_lowercase();
        let mut conn = connect(&options);
        let table = &options.table;
        conn.query_drop(format!(
            "CREATE TABLE {table} (seq BIGINT AUTO_INCREMENT PRIMARY KEY, {COLUMNS})"
        ))
        .unwrap();
        oncelog_relay::sources::mysql::setup::init(&options).unwrap();
        let mut binlog = Binlog::new(options.clone());
        binlog.open(None, true).unwrap();
        let names: Vec<&str> = COLUMNS
            .split(", ")
            .filter(|one| !one.contains(" AS "))
            .collect();
        let names = names.iter().filter_map(|one| one.split_whitespace().next());
        let names: Vec<&str> = names
            .filter(|name| name.chars().all(char::is_alphanumeric))
            .collect();
        let names = names.join(", ");
        for row in ROWS {
            let insert = format!("INSERT INTO {table} ({names}) VALUES ({row})");
            conn.query_drop("SET sql_mode = 'NO_BACKSLASH_ESCAPES'")
                .unwrap();
            conn.query_drop(insert).unwrap();
        }
        let mut polling = Polling::new(options.clone());
        polling.open(None, true).unwrap();
        let polled = drain(&mut polling, LIMIT, ROWS.len());
        let logged = drain(&mut binlog, LIMIT, ROWS.len());
        for (polled, logged) in polled.iter().zip(&logged) {
            assert_eq!(polled.columns, logged.columns);
            for (name, value) in logged.columns.iter().zip(&logged.values) {
                if name != "virt" {
                    assert_eq!(polled.value(name), Some(value), "{name} with {metadata}");
                }
            }
        }
        let first = |name: &str| logged[0].value(name).unwrap().clone();
        assert_eq!(first("ubig"), Value::Text("18446744073709551615".into()));
        assert_eq!(first("ts"), Value::Text("2024-05-06 01:38:09".into()));
        assert_eq!(
            first("u"),
            Value::Text("123e4567-e89b-42d3-a456-426614174000".into())
        );
        assert!(matches!(first("fixed"), Value::Bytes(bytes) if bytes.len() == 16));
    }
}
