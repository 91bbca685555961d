//! Makes an outbox in MySQL or MariaDB, says what is wrong with one, and which way of reading it to take.

use mysql::Conn;
use mysql::prelude::Queryable;
use oncelog_pipeline::finding::Finding;

use super::binlog::faults;
use super::connection::{Database, Server, outbox_id};
use super::options::{Engine, Options};
use super::polling;
use super::tables::{Tables, quoted};
use crate::source::SourceError;

/// How an outbox is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    Binlog,
    Polling,
}

/// What makes the outbox and the tables beside it; what is there already is left as it is. Both servers
/// take the same statements.
pub fn ddl(options: &Options) -> Vec<String> {
    let tables = match Database::new(options) {
        Ok(database) => database.tables,
        // Without a database in the url: that of the session.
        Err(_) => Tables::new(options, ""),
    };
    let mut statements = vec![outbox(options, &tables)];
    if options.retention().is_some() {
        statements.push(published(options, &tables));
    }
    let Tables {
        claim,
        identity,
        position,
        ..
    } = &tables;
    statements.push(format!(
        "CREATE TABLE IF NOT EXISTS {claim} (\
        relay VARCHAR(249) NOT NULL PRIMARY KEY, \
        token BIGINT UNSIGNED NOT NULL, \
        sequences LONGTEXT NOT NULL) {INNODB}"
    ));
    statements.push(format!(
        "CREATE TABLE IF NOT EXISTS {position} (\
        relay VARCHAR(249) NOT NULL PRIMARY KEY, \
        file VARCHAR(255) NOT NULL, \
        created INT UNSIGNED NOT NULL, \
        `offset` BIGINT UNSIGNED NOT NULL, \
        row_count BIGINT UNSIGNED NOT NULL, \
        published TINYINT NOT NULL) {INNODB}"
    ));
    statements.push(format!(
        "CREATE TABLE IF NOT EXISTS {identity} (id CHAR(36) NOT NULL PRIMARY KEY) {INNODB}"
    ));
    statements.push(format!(
        "INSERT INTO {identity} (id) SELECT UUID() FROM DUAL \
        WHERE NOT EXISTS (SELECT 1 FROM {identity})"
    ));
    statements
}

const INNODB: &str = "ENGINE=InnoDB DEFAULT CHARSET=utf8mb4";

/// Debezium's columns, a number to poll by, and when it was.
const COLUMNS: &str = "aggregatetype VARCHAR(255) NOT NULL, \
    aggregateid VARCHAR(255) NOT NULL, \
    type VARCHAR(255), \
    payload JSON, \
    created_at TIMESTAMP(3) NOT NULL DEFAULT CURRENT_TIMESTAMP(3)";

fn outbox(options: &Options, tables: &Tables) -> String {
    let outbox = &tables.outbox;
    match options.engine {
        Engine::InnoDb => {
            let sequence = quoted(&options.sequence_column);
            format!(
                "CREATE TABLE IF NOT EXISTS {outbox} (\
                {sequence} BIGINT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY, \
                id CHAR(36) NOT NULL UNIQUE DEFAULT (UUID()), {COLUMNS}) {INNODB}"
            )
        }
        // Keeps no rows, so that nothing can be counted or be unique.
        Engine::Blackhole => format!(
            "CREATE TABLE IF NOT EXISTS {outbox} (\
            id CHAR(36) NOT NULL DEFAULT (UUID()), {COLUMNS}) \
            ENGINE=BLACKHOLE DEFAULT CHARSET=utf8mb4"
        ),
    }
}

fn published(options: &Options, tables: &Tables) -> String {
    let (published, sequence) = (&tables.published, quoted(&options.sequence_column));
    format!(
        "CREATE TABLE IF NOT EXISTS {published} (\
        {sequence} BIGINT UNSIGNED NOT NULL PRIMARY KEY, id CHAR(36) NOT NULL, {COLUMNS}, \
        published_at TIMESTAMP(3) NOT NULL DEFAULT CURRENT_TIMESTAMP(3), \
        KEY (published_at)) {INNODB}"
    )
}

/// Carries out [`ddl`].
pub fn init(options: &Options) -> Result<(), SourceError> {
    let mut conn = Database::new(options)?.connect()?;
    for statement in ddl(options) {
        let doing = statement
            .split('(')
            .next()
            .unwrap_or_default()
            .trim()
            .to_owned();
        conn.query_drop(&statement)
            .map_err(|error| super::connection::failed(&doing, error))?;
    }
    Ok(())
}

/// The binlog where it can be read, else polling; and why, in words.
pub fn choose(options: &Options) -> Result<(Way, String), SourceError> {
    let database = Database::new(options)?;
    let mut conn = database.connect()?;
    let server = Server::ask(&mut conn)?;
    Ok(match obstacle(&mut conn, &server) {
        None => {
            let why = "the binlog has rows as they are (binlog_format=ROW) and may be read: commits \
                in their order, and nothing is written to the outbox";
            (Way::Binlog, why.to_owned())
        }
        Some(obstacle) => {
            let why = format!("the binlog cannot be read: {obstacle}");
            (Way::Polling, why)
        }
    })
}

/// What keeps from reading the binlog.
fn obstacle(conn: &mut Conn, server: &Server) -> Option<String> {
    if let Some((what, fix)) = faults(server).into_iter().next() {
        return Some(format!("{what}; {fix}"));
    }
    may_replicate(conn).err()
}

/// Whether the user may read the binlog.
fn may_replicate(conn: &mut Conn) -> Result<(), String> {
    let grants: Vec<String> = conn
        .query("SHOW GRANTS")
        .map_err(|error| error.to_string())?;
    let all = |grant: &String| {
        let global = grant.contains(" ON *.*");
        global && (grant.contains("REPLICATION SLAVE") || grant.contains("ALL PRIVILEGES"))
    };
    let fix = "GRANT REPLICATION SLAVE, REPLICATION CLIENT ON *.* TO the relay's user";
    if !grants.iter().any(all) {
        return Err(format!(
            "the user has no REPLICATION SLAVE privilege; {fix}"
        ));
    }
    match conn.query_drop("SHOW BINARY LOGS") {
        Ok(()) => Ok(()),
        Err(error) => Err(format!("{error}; {fix}")),
    }
}

/// Looks at everything that the relay needs to read the outbox in this way.
pub fn check(options: &Options, way: Way) -> Vec<Finding> {
    let mut conn = match Database::new(options).and_then(|database| database.connect()) {
        Ok(conn) => conn,
        Err(error) => {
            let fix = "correct the url, or start the server".to_owned();
            return vec![Finding::fault(error.to_string(), fix)];
        }
    };
    match look(options, way, &mut conn) {
        Ok(findings) => findings,
        Err(error) => vec![Finding::fault(
            error.to_string(),
            "correct it and check again",
        )],
    }
}

fn look(options: &Options, way: Way, conn: &mut Conn) -> Result<Vec<Finding>, SourceError> {
    let tables = Database::new(options)?.tables;
    let server = Server::ask(conn)?;
    let mut findings = vec![Finding::fine(format!(
        "{} {}",
        server.kind(),
        server.version
    ))];
    let table = engine(conn, &tables);
    let Some(engine) = table else {
        let fix = "`oncelog outbox init` makes it";
        findings.push(Finding::fault(
            format!("there is no table {}", tables.outbox),
            fix,
        ));
        return Ok(findings);
    };
    findings.push(Finding::fine(format!(
        "the outbox {} is there",
        tables.outbox
    )));
    findings.push(match outbox_id(conn, &tables) {
        Ok(id) => Finding::fine(format!("its id is {id}")),
        Err(error) => Finding::fault(error.to_string(), "`oncelog outbox init`"),
    });
    match way {
        Way::Binlog => look_at_binlog(conn, &server, &tables, &engine, &mut findings),
        Way::Polling => look_at_polling(conn, options, &tables, &engine, &mut findings),
    }
    durability(&server, way, &mut findings);
    Ok(findings)
}

/// `None` where there is no such table.
fn engine(conn: &mut Conn, tables: &Tables) -> Option<String> {
    let asked =
        "SELECT ENGINE FROM information_schema.TABLES WHERE TABLE_SCHEMA = ? AND TABLE_NAME = ?";
    conn.exec_first(asked, (&tables.database, &tables.name))
        .ok()
        .flatten()
}

fn look_at_binlog(
    conn: &mut Conn,
    server: &Server,
    tables: &Tables,
    engine: &str,
    findings: &mut Vec<Finding>,
) {
    let faults = faults(server);
    if faults.is_empty() {
        let say = "the binlog has rows (binlog_format=ROW, binlog_row_image=FULL)";
        findings.push(Finding::fine(say));
    }
    for (what, fix) in faults {
        findings.push(Finding::fault(what, fix));
    }
    findings.push(match may_replicate(conn) {
        Ok(()) => Finding::fine("the user may read the binlog"),
        Err(what) => {
            let fix = "GRANT REPLICATION SLAVE, REPLICATION CLIENT ON *.* TO the relay's user";
            Finding::fault(what, fix)
        }
    });
    findings.push(writable(
        conn,
        &tables.position,
        &format!("DELETE FROM {} WHERE 1 = 0", tables.position),
    ));
    if let Err(error) = super::binlog::readable_columns(conn, tables) {
        findings.push(Finding::fault(error.to_string(), "alter the column"));
    }
    if server.variable("binlog_row_metadata") != "FULL" {
        let fix = "SET GLOBAL binlog_row_metadata = FULL";
        let what = "the binlog has no names of columns: before the outbox is altered, the relay has \
            to have read all that is waiting";
        findings.push(Finding::advice(what, fix));
    }
    let rows: Option<u64> = conn
        .query_first(format!(
            "SELECT COUNT(*) FROM (SELECT 1 FROM {} LIMIT 1000) AS o",
            tables.outbox
        ))
        .ok()
        .flatten();
    if let Some(rows) = rows.filter(|rows| *rows > 0 && engine != "BLACKHOLE") {
        let many = if rows == 1_000 {
            "1000 or more".to_owned()
        } else {
            rows.to_string()
        };
        findings.push(Finding::advice(
            format!(
                "{many} rows are in the outbox already: a relay that is new begins at the end of the \
                binlog, and does not publish them"
            ),
            "where they are to be published, poll until there are none left, and then begin with the \
            binlog under another name",
        ));
    }
}

fn look_at_polling(
    conn: &mut Conn,
    options: &Options,
    tables: &Tables,
    engine: &str,
    findings: &mut Vec<Finding>,
) {
    if !engine.eq_ignore_ascii_case("InnoDB") {
        let what = format!("the outbox is of the engine {engine}, where a claim holds nothing");
        findings.push(Finding::fault(
            what,
            "ALTER TABLE … ENGINE = InnoDB, or read the binlog",
        ));
    }
    findings.push(match polling::index(conn, tables, options) {
        Ok(index) => Finding::fine(format!("rows are found by the index {index}")),
        Err(error) => Finding::fault(error.to_string(), "make an index, or set sequence.column"),
    });
    let outbox = &tables.outbox;
    findings.push(writable(
        conn,
        outbox,
        &format!("DELETE FROM {outbox} WHERE 1 = 0"),
    ));
    let claim = &tables.claim;
    let tried = format!("UPDATE {claim} SET token = token WHERE 1 = 0");
    findings.push(writable(conn, claim, &tried));
    if options.retention().is_some() {
        let published = &tables.published;
        let tried = format!("DELETE FROM {published} WHERE 1 = 0");
        findings.push(writable(conn, published, &tried));
    }
}

fn writable(conn: &mut Conn, table: &str, tried: &str) -> Finding {
    match conn.query_drop(tried) {
        Ok(()) => Finding::fine(format!("the user may write to {table}")),
        Err(error) => {
            let fix = format!(
                "`oncelog outbox init` makes the table; GRANT SELECT, INSERT, UPDATE, DELETE ON \
                {table} TO the relay's user"
            );
            Finding::fault(format!("{table}: {error}"), fix)
        }
    }
}

/// What a crash of the machine may take back after it was published.
fn durability(server: &Server, way: Way, findings: &mut Vec<Finding>) {
    let wanted: &[&str] = match way {
        Way::Binlog => &["innodb_flush_log_at_trx_commit", "sync_binlog"],
        Way::Polling => &["innodb_flush_log_at_trx_commit"],
    };
    for name in wanted {
        let found = server.variable(name);
        if found != "1" {
            let what = format!(
                "{name} is {found}: a power failure of the server may take back commits that were \
                published, and the relay then refuses to go on"
            );
            findings.push(Finding::advice(what, format!("SET GLOBAL {name} = 1")));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(json: &str) -> Options {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn the_tables_are_in_the_urls_database() {
        let statements = ddl(&options(r#"{"url": "mysql://root@localhost/shop"}"#));
        let outbox = &statements[0];
        assert!(
            outbox.starts_with("CREATE TABLE IF NOT EXISTS `shop`.`outbox` (`seq`"),
            "{outbox}"
        );
        assert!(
            statements
                .iter()
                .any(|one| one.contains("oncelog_outbox_claim"))
        );
        assert!(
            !statements
                .iter()
                .any(|one| one.contains("outbox_published"))
        );
    }

    #[test]
    fn options_change_the_tables() {
        let statements = ddl(&options(
            r#"{"engine": "blackhole", "retention.ms": 1, "table": "o"}"#,
        ));
        assert!(statements[0].contains("EXISTS `o` (id") && statements[0].contains("BLACKHOLE"));
        assert!(statements[1].contains("`o_published`"));
    }
}
