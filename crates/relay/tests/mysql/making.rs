//! What is made, what is found wrong, and which way is chosen.

use databases::mariadb::MariaDb;
use mysql::prelude::Queryable;
use oncelog_pipeline::finding::Finding;
use oncelog_relay::sources::mysql::setup::{self, Way};

use super::*;

fn faults(findings: &[Finding]) -> Vec<&str> {
    findings
        .iter()
        .filter(|one| !one.ok)
        .map(|one| one.what.as_str())
        .collect()
}

fn advice<'a>(findings: &'a [Finding], about: &str) -> Option<&'a str> {
    let found = findings
        .iter()
        .find(|one| one.ok && one.what.contains(about));
    found.and_then(|one| one.fix.as_deref())
}

#[test]
#[ignore = "needs MariaDB; cargo xtask test runs it"]
fn what_was_made_has_no_faults() {
    let server = MariaDb::start().unwrap();
    let options = options(&server, r#"{"retention.ms": 1000}"#);
    for way in [Way::Binlog, Way::Polling] {
        let findings = setup::check(&options, way);
        assert_eq!(faults(&findings), ["there is no table `shop`.`outbox`"]);
    }
    setup::init(&options).unwrap();
    // Once more changes nothing.
    setup::init(&options).unwrap();
    let mut conn = connect(&options);
    insert(&mut conn, "a", "0");
    let findings = setup::check(&options, Way::Binlog);
    assert_eq!(faults(&findings), [] as [&str; 0]);
    assert!(advice(&findings, "1 rows are in the outbox already").is_some());
    assert!(
        advice(&findings, "no names of columns")
            .unwrap()
            .contains("FULL")
    );
    assert!(advice(&findings, "sync_binlog is 0").is_some());
    let findings = setup::check(&options, Way::Polling);
    assert_eq!(faults(&findings), [] as [&str; 0]);
    let (way, why) = setup::choose(&options).unwrap();
    assert_eq!(way, Way::Binlog, "{why}");
}

#[test]
#[ignore = "needs MariaDB; cargo xtask test runs it"]
fn faults_are_named_with_their_fixes() {
    let mut server = MariaDb::start_with(&[("binlog_format", "STATEMENT")]).unwrap();
    let mut options = options(&server, "{}");
    let mut conn = shop(&options);
    let (way, why) = setup::choose(&options).unwrap();
    assert_eq!(way, Way::Polling);
    assert!(why.contains("binlog_format is STATEMENT"), "{why}");
    let findings = setup::check(&options, Way::Binlog);
    let fault = findings.iter().find(|one| !one.ok).unwrap();
    assert!(
        fault
            .fix
            .as_ref()
            .unwrap()
            .contains("SET GLOBAL binlog_format = ROW"),
        "{fault:?}"
    );
    conn.query_drop("SET GLOBAL binlog_format = ROW").unwrap();
    // A user who may do nothing but write and read the tables.
    for statement in [
        "CREATE USER relay IDENTIFIED BY 'secret'",
        "GRANT SELECT, INSERT, UPDATE, DELETE ON shop.* TO relay",
    ] {
        conn.query_drop(statement).unwrap();
    }
    options.url = options
        .url
        .replace("mysql://root@", "mariadb://relay:secret@");
    let (way, why) = setup::choose(&options).unwrap();
    assert_eq!(way, Way::Polling);
    assert!(why.contains("REPLICATION SLAVE"), "{why}");
    assert_eq!(
        faults(&setup::check(&options, Way::Polling)),
        [] as [&str; 0]
    );
    let mut source = oncelog_relay::sources::mysql::Binlog::new(options.clone());
    let why = refused(source.open(None, true));
    assert!(why.contains("privilege"), "{why}");
    conn.query_drop("GRANT REPLICATION SLAVE, REPLICATION CLIENT ON *.* TO relay")
        .unwrap();
    assert_eq!(setup::choose(&options).unwrap().0, Way::Binlog);
    source.open(None, true).unwrap();
    conn.query_drop("REVOKE DELETE ON shop.* FROM relay")
        .unwrap();
    let findings = setup::check(&options, Way::Polling);
    assert_eq!(faults(&findings).len(), 1, "{findings:?}");
    conn.query_drop("ALTER TABLE outbox CONVERT TO CHARACTER SET latin1")
        .unwrap();
    let findings = setup::check(&options, Way::Binlog);
    assert!(
        faults(&findings).iter().any(|what| what.contains("latin1")),
        "{findings:?}"
    );
    server.unset("log_bin");
    server.restart().unwrap();
    let (way, why) = setup::choose(&options).unwrap();
    assert_eq!(way, Way::Polling);
    assert!(why.contains("log_bin is OFF"), "{why}");
    assert!(refused(source.open(None, true)).contains("log_bin"));
    options.url = options.url.replace("secret", "wrong");
    let findings = setup::check(&options, Way::Polling);
    assert!(
        faults(&findings)[0].contains("Access denied"),
        "{findings:?}"
    );
}
