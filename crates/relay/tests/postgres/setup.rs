//! What `oncelog outbox init` and `check` say of a real database.

use databases::postgresql::PostgreSql;
use oncelog_relay::sources::postgres::{
    Cdc, Options, Polling, Way, apply, check, check_for, choose, ddl,
};

use crate::support::*;

fn faults(options: &Options) -> Vec<String> {
    let findings = check(options).into_iter();
    findings
        .filter(|finding| !finding.ok)
        .map(|finding| finding.what)
        .collect()
}

#[test]
#[ignore = "needs PostgreSQL; cargo xtask test runs it"]
fn what_init_makes_is_fine() {
    let server = PostgreSql::start().unwrap();
    let mut options = Options::new(&server.url(), "orders");
    options.retention_ms = Some(1_000);
    let before = faults(&options);
    assert!(
        before.iter().any(|what| what.contains("no table outbox")),
        "{before:?}"
    );
    // Twice: it is there already.
    for _ in 0..2 {
        apply(&options, &ddl(&options)).unwrap();
    }
    let findings = check(&options);
    assert!(findings.iter().all(|finding| finding.ok), "{findings:#?}");
    let advice = findings.iter().filter(|finding| finding.fix.is_some());
    let advice: Vec<&str> = advice.map(|finding| finding.what.as_str()).collect();
    assert!(
        matches!(advice[..], [keep] if keep.contains("max_slot_wal_keep_size")),
        "{advice:?}"
    );
    assert_eq!(choose(&options).unwrap().way, Way::Cdc);
    let mut cdc = Cdc::new(options.clone());
    open(&mut cdc, None, true);
    let told: Vec<String> = check(&options)
        .into_iter()
        .map(|finding| finding.what)
        .collect();
    assert!(
        told.iter().any(|what| what.contains("is read now")),
        "{told:?}"
    );
    // A publication of that name, without the outbox.
    server
        .sql("DROP PUBLICATION oncelog_outbox; CREATE PUBLICATION oncelog_outbox")
        .unwrap();
    assert!(
        faults(&options)[0].contains("leaves out"),
        "{:?}",
        faults(&options)
    );
    apply(&options, &ddl(&options)).unwrap();
    assert_eq!(faults(&options), [""; 0]);
    let why = apply(&options, &["CREATE NONSENSE".to_owned()]).unwrap_err();
    assert!(
        why.contains("syntax error") && why.contains("CREATE NONSENSE"),
        "{why}"
    );
}

#[test]
#[ignore = "needs PostgreSQL; cargo xtask test runs it"]
fn where_the_log_cannot_be_read_the_table_is_polled() {
    let (server, options) = outbox_with(&[("wal_level", "replica")]);
    let choice = choose(&options).unwrap();
    assert_eq!(choice.way, Way::Polling);
    assert!(choice.reason.contains("wal_level"), "{}", choice.reason);
    server.sql("ALTER TABLE outbox DROP COLUMN seq").unwrap();
    let why = choose(&options).unwrap_err().to_string();
    assert!(
        why.contains("wal_level") && why.contains("ADD COLUMN"),
        "{why}"
    );
    let nobody = Options::new("postgresql://postgres@127.0.0.1:1/postgres", "orders");
    assert!(
        faults(&nobody)[0].contains("127.0.0.1:1"),
        "{:?}",
        faults(&nobody)
    );
}

#[test]
#[ignore = "needs PostgreSQL; cargo xtask test runs it"]
fn what_is_missing_is_found() {
    let (server, options) = outbox_with(&[("max_replication_slots", "0")]);
    server
        .sql("CREATE ROLE app LOGIN; DROP PUBLICATION oncelog_outbox")
        .unwrap();
    let mut options = options;
    options.url = server.url().replace("postgres@", "app@");
    let privileges = faults(&options).join("\n");
    for expected in [
        "SELECT, DELETE on \"outbox\"",
        "on \"oncelog_outbox_claim\"",
    ] {
        assert!(privileges.contains(expected), "{expected} in {privileges}");
    }
    let grant = "GRANT SELECT, DELETE ON outbox TO app;
        GRANT SELECT, INSERT, UPDATE ON oncelog_outbox_claim TO app";
    server.sql(grant).unwrap();
    // What is not needed for polling is no fault.
    assert_eq!(faults(&options), [""; 0]);
    // And it is enough.
    server.sql(&insert("a", [1])).unwrap();
    let mut polling = Polling::new(options.clone());
    open(&mut polling, None, true);
    drain(&mut polling, MANY, 1);
    let found = check_for(&options, Way::Cdc)
        .into_iter()
        .filter(|finding| !finding.ok);
    let found: Vec<String> = found.map(|finding| finding.what).collect();
    let found = found.join("\n");
    for expected in ["REPLICATION", "no publication", "max_replication_slots"] {
        assert!(found.contains(expected), "{expected} in {found}");
    }
    let choice = choose(&options).unwrap();
    assert_eq!(choice.way, Way::Polling);
}
