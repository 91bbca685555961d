//! What an outbox in PostgreSQL needs, as statements and as checks, and which way of reading it fits.

use oncelog_pipeline::finding::Finding;
use postgres::Client;

use super::catalog::{self, Facts, Table};
use super::connection::{connect, failure};
use super::opening::{can_decode, no_table};
use super::options::{Options, literal, quoted};
use super::polling::can_poll;
use super::retention;
use super::{claims, slot};
use crate::source::SourceError;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    Cdc,
    Polling,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    pub way: Way,
    /// Why this one, in words.
    pub reason: String,
}

/// The outbox with Debezium's columns, its publication, and what polling keeps beside it. The relay
/// makes the slot.
///
/// Rows of an outbox are soon deleted: a poll steps over what the vacuum has not yet cleared away.
pub fn ddl(options: &Options) -> Vec<String> {
    if options.table.is_empty() {
        return vec![publication_ddl(options)];
    }
    let table = options.quoted_table();
    let mut statements = vec![
        format!(
            "CREATE TABLE IF NOT EXISTS {table} (
    {} bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    id uuid NOT NULL UNIQUE DEFAULT gen_random_uuid(),
    aggregatetype varchar(255) NOT NULL,
    aggregateid varchar(255) NOT NULL,
    type varchar(255),
    payload jsonb,
    created_at timestamptz NOT NULL DEFAULT now()
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 10000)",
            quoted(&options.sequence)
        ),
        publication_ddl(options),
        claims::ddl(options),
    ];
    if options.keeps_published() {
        statements.push(retention::published_ddl(options));
    }
    statements
}

/// A publication has no IF NOT EXISTS; and one that is there may lack the outbox.
fn publication_ddl(options: &Options) -> String {
    let (name, named) = (quoted(&options.publication), literal(&options.publication));
    let there = format!("EXISTS (SELECT FROM pg_publication WHERE pubname = {named})");
    if options.table.is_empty() {
        return format!(
            "DO $$ BEGIN
    IF NOT {there} THEN
        CREATE PUBLICATION {name};
    END IF;
END $$"
        );
    }
    let table = options.quoted_table();
    let outbox = literal(&table);
    format!(
        "DO $$ BEGIN
    IF NOT {there} THEN
        CREATE PUBLICATION {name} FOR TABLE {table} WITH (publish = 'insert');
    ELSIF NOT EXISTS (SELECT FROM pg_publication p LEFT JOIN pg_publication_rel r ON r.prpubid = p.oid
            WHERE p.pubname = {named} AND (p.puballtables OR r.prrelid = {outbox}::regclass)) THEN
        ALTER PUBLICATION {name} ADD TABLE {table};
    END IF;
END $$"
    )
}

/// Makes the slot before the relay does: from then on the server keeps its log for it.
pub fn slot_ddl(options: &Options) -> String {
    let slot = literal(&options.slot());
    format!("SELECT pg_create_logical_replication_slot({slot}, 'pgoutput')")
}

/// Errors: which statement the database refused, and its words.
pub fn apply(options: &Options, statements: &[String]) -> Result<(), String> {
    let (server, mut client) = connect(options).map_err(|error| error.to_string())?;
    for statement in statements {
        client.batch_execute(statement).map_err(|error| {
            let why = failure(&server.name(), &error);
            format!("{why}\nwhen it was told:\n{statement}")
        })?;
    }
    Ok(())
}

/// CDC if it can be, else polling. Errors: neither can be, and why.
pub fn choose(options: &Options) -> Result<Choice, SourceError> {
    let (_, mut client) = connect(options)?;
    let facts = catalog::facts(&mut client)?;
    let log = match why_not_log(&mut client, options, &facts)? {
        None => {
            return Ok(Choice {
                way: Way::Cdc,
                reason: "the log can be read: rows come in the order of their commits, as soon as \
                         they are committed, and cost the database no query"
                    .to_owned(),
            });
        }
        Some(why) => why,
    };
    let polling = match catalog::table(&mut client, options)? {
        None => Err(no_table(options)),
        Some(_) if facts.standby => Err("a standby cannot be polled".to_owned()),
        Some(table) => {
            let cache = catalog::sequence_cache(&mut client, options, &table)?;
            can_poll(&table, options, cache)
        }
    };
    match polling {
        Ok(()) => Ok(Choice {
            way: Way::Polling,
            reason: format!("the log cannot be read ({log}); the table can be polled"),
        }),
        Err(why) => Err(SourceError::Refused(format!(
            "the log cannot be read ({log}), and the table cannot be polled ({why})"
        ))),
    }
}

fn why_not_log(
    client: &mut Client,
    options: &Options,
    facts: &Facts,
) -> Result<Option<String>, SourceError> {
    if options.shards > 1 {
        return Ok(Some(
            "several relays share the outbox, and a slot has one reader".to_owned(),
        ));
    }
    if let Err(why) = can_decode(facts) {
        return Ok(Some(why));
    }
    if !may_replicate(client)? {
        return Ok(Some("the role has not REPLICATION".to_owned()));
    }
    let name = options.slot();
    if slot::slot(client, &name)?.is_none() && free(client)?.iter().any(|(_, free)| *free <= 0) {
        return Ok(Some("no replication slot or walsender is free".to_owned()));
    }
    Ok(None)
}

/// What `oncelog outbox check` tells: one finding per thing that was looked at, for the way that
/// [`choose`] would take.
pub fn check(options: &Options) -> Vec<Finding> {
    let way = choose(options).map_or(Way::Cdc, |choice| choice.way);
    check_for(options, way)
}

/// As [`check`], for a way that was configured. What the other way would need is advice.
pub fn check_for(options: &Options, way: Way) -> Vec<Finding> {
    if let Err(why) = options.validate() {
        return vec![Finding::fault(why, "correct the option")];
    }
    let (server, mut client) = match connect(options) {
        Ok(connected) => connected,
        Err(error) => {
            let fix = "check url, and that the server runs and lets this host in (pg_hba.conf)";
            return vec![Finding::fault(error.to_string(), fix)];
        }
    };
    let mut findings = vec![Finding::fine(format!("{} can be reached", server.name()))];
    if let Err(error) = look(&mut client, options, way, &mut findings) {
        findings.push(Finding::fault(
            error.to_string(),
            "correct this first, then check again",
        ));
    }
    findings
}

fn look(
    client: &mut Client,
    options: &Options,
    way: Way,
    findings: &mut Vec<Finding>,
) -> Result<(), SourceError> {
    let facts = catalog::facts(client)?;
    let table = look_at_table(client, options, way, findings)?;
    if way == Way::Polling && facts.standby {
        let fix = "point the url to the primary";
        findings.push(Finding::fault(
            "the server is a standby, where no row can be deleted",
            fix,
        ));
    }
    let mut log = Vec::new();
    log.push(match can_decode(&facts) {
        Ok(()) => Finding::fine(format!(
            "PostgreSQL {}, a primary, wal_level = logical",
            facts.version_text
        )),
        Err(why) => Finding::fault(why, "until then, polling works"),
    });
    log.push(if may_replicate(client)? {
        Finding::fine("the role may replicate")
    } else {
        let what = "the role has not REPLICATION, without which no slot can be read";
        Finding::fault(what, "ALTER ROLE … REPLICATION; or poll")
    });
    look_at_publication(client, options, table.as_ref(), &mut log)?;
    // A standby has its log from elsewhere.
    if !facts.standby {
        look_at_slot(client, options, &facts, &mut log)?;
    }
    if way == Way::Polling {
        // Nothing of it is needed, and a slot that nobody reads is none to advise about.
        log.retain(|finding| !finding.ok);
        log.iter_mut().for_each(|finding| {
            finding.ok = true;
            finding.what = format!("the log could not be read: {}", finding.what);
        });
    }
    findings.extend(log);
    Ok(())
}

fn look_at_table(
    client: &mut Client,
    options: &Options,
    way: Way,
    findings: &mut Vec<Finding>,
) -> Result<Option<Table>, SourceError> {
    if options.table.is_empty() {
        findings.push(Finding::fine("no table: logical messages alone"));
        return Ok(None);
    }
    let Some(table) = catalog::table(client, options)? else {
        findings.push(Finding::fault(no_table(options), "oncelog outbox init"));
        return Ok(None);
    };
    let has = |name: &str| table.columns.iter().any(|column| column == name);
    let debeziums = ["id", "aggregatetype", "aggregateid", "payload"];
    let lacking: Vec<&str> = debeziums.into_iter().filter(|name| !has(name)).collect();
    findings.push(if lacking.is_empty() {
        Finding::fine(format!(
            "table {}.{} has the outbox's columns",
            table.schema, table.name
        ))
    } else {
        Finding::advice(
            format!("table {} has no column {}", table.name, lacking.join(", ")),
            "name the columns that it has by table.field.event.* and route.by.field",
        )
    });
    let cache = catalog::sequence_cache(client, options, &table)?;
    findings.push(match can_poll(&table, options, cache) {
        Ok(()) => Finding::fine(format!(
            "its rows are numbered ({}): it can be polled",
            options.sequence
        )),
        Err(why) if way == Way::Polling => Finding::fault(
            format!("it cannot be polled: {why}"),
            "the statement above; or the log",
        ),
        Err(why) => Finding::advice(
            format!("it cannot be polled: {why}"),
            "the log needs no such column",
        ),
    });
    if options
        .retention()
        .is_some_and(|retention| !retention.is_zero())
        && !has("created_at")
    {
        findings.push(Finding::fault(
            "retention.ms is set, and the table has no created_at that tells how old a row is",
            format!(
                "ALTER TABLE {} ADD COLUMN created_at timestamptz NOT NULL DEFAULT now()",
                options.quoted_table()
            ),
        ));
    }
    look_at_privileges(client, options, way, &table, findings)?;
    Ok(Some(table))
}

/// What the role may do with the outbox, and with what polling keeps beside it.
fn look_at_privileges(
    client: &mut Client,
    options: &Options,
    way: Way,
    table: &Table,
    findings: &mut Vec<Finding>,
) -> Result<(), SourceError> {
    let outbox = options.quoted_table();
    let deletes = way == Way::Polling || options.retention().is_some();
    let needed: &[&str] = if deletes {
        &["SELECT", "DELETE"]
    } else {
        &["SELECT"]
    };
    let claims = claims::table(options);
    let mut asked = vec![(outbox.as_str(), needed)];
    if way == Way::Polling {
        asked.push((&claims, &["SELECT", "INSERT", "UPDATE"]));
    }
    for (name, needed) in asked {
        match catalog::lacking(client, name, needed)? {
            Some(lacking) if lacking.is_empty() => {
                findings.push(Finding::fine(format!(
                    "the role may {} on {name}",
                    needed.join(", ")
                )));
            }
            Some(lacking) => {
                let lacking = lacking.join(", ");
                let fix = format!("GRANT {lacking} ON {name} TO …");
                findings.push(Finding::fault(
                    format!("the role may not {lacking} on {name}"),
                    fix,
                ));
            }
            None if catalog::may_create(client, table)? => {
                findings.push(Finding::fine(format!(
                    "{name} is not there yet; the relay makes it"
                )));
            }
            None => findings.push(Finding::fault(
                format!("there is no table {name}, and the role may not make it"),
                claims::ddl(options),
            )),
        }
    }
    Ok(())
}

fn look_at_publication(
    client: &mut Client,
    options: &Options,
    table: Option<&Table>,
    findings: &mut Vec<Finding>,
) -> Result<(), SourceError> {
    let name = &options.publication;
    let quoted_name = quoted(name);
    let outbox = options.quoted_table();
    findings.push(match (catalog::publication(client, name, table)?, table) {
        (None, _) => Finding::fault(
            format!("there is no publication {name}, which reading the log needs"),
            match options.table.as_str() {
                "" => format!("CREATE PUBLICATION {quoted_name}"),
                _ => format!(
                    "CREATE PUBLICATION {quoted_name} FOR TABLE {outbox} WITH (publish = 'insert')"
                ),
            },
        ),
        (Some(_), None) => Finding::fine(format!("publication {name} is there")),
        (Some(found), Some(_)) if !found.covers => Finding::fault(
            format!("publication {name} leaves out the outbox"),
            format!("ALTER PUBLICATION {quoted_name} ADD TABLE {outbox}"),
        ),
        (Some(found), Some(_)) if !found.inserts => Finding::fault(
            format!("publication {name} leaves out inserts"),
            format!("ALTER PUBLICATION {quoted_name} SET (publish = 'insert')"),
        ),
        (Some(found), Some(table)) if table.partitioned && !found.via_root => Finding::fault(
            format!("publication {name} tells rows under their partitions' names"),
            format!("ALTER PUBLICATION {quoted_name} SET (publish_via_partition_root = true)"),
        ),
        (Some(_), Some(_)) => Finding::fine(format!("publication {name} has the outbox's inserts")),
    });
    Ok(())
}

fn look_at_slot(
    client: &mut Client,
    options: &Options,
    facts: &Facts,
    findings: &mut Vec<Finding>,
) -> Result<(), SourceError> {
    let name = options.slot();
    match slot::slot(client, &name)? {
        None => {
            findings.push(Finding::fine(format!(
                "slot {name} is not there yet; the relay makes it"
            )));
            for (what, free) in free(client)? {
                if free <= 0 {
                    let fix = format!("raise {what}, and restart the server");
                    findings.push(Finding::fault(format!("none of {what} is free"), fix));
                }
            }
        }
        Some(found) => {
            findings.push(match slot::usable(&name, &found, None, &facts.database) {
                Err(why) => Finding::fault(why, "another slot.name, or drop it"),
                Ok(()) => match found.active_pid {
                    Some(pid) => Finding::fine(format!("slot {name} is read now (process {pid})")),
                    None => Finding::fine(format!("slot {name} is there, and nobody reads it now")),
                },
            });
        }
    }
    let setting = |client: &mut Client, name: &str| -> Result<String, SourceError> {
        let row = client.query_one("SELECT current_setting($1)", &[&name]);
        Ok(row.map_err(|error| failure(name, &error))?.get(0))
    };
    let keep = setting(client, "max_slot_wal_keep_size")?;
    findings.push(match keep.as_str() {
        "-1" => Finding::advice(
            "max_slot_wal_keep_size is not set: while no relay runs, the slot keeps log until the \
             server's disk is full",
            "ALTER SYSTEM SET max_slot_wal_keep_size = '10GB' (what the disk can spare), then SELECT \
             pg_reload_conf(). A slot that falls further behind is lost, and the relay says so",
        ),
        keep => Finding::fine(format!("max_slot_wal_keep_size = {keep}")),
    });
    if facts.version >= catalog::VERSION_FAILOVER && !options.slot_failover {
        findings.push(Finding::advice(
            "the slot does not follow to a standby that is promoted",
            "slot.failover = true, and synchronized_standby_slots on the primary (PostgreSQL 17)",
        ));
    }
    Ok(())
}

fn may_replicate(client: &mut Client) -> Result<bool, SourceError> {
    let row = client.query_one(
        "SELECT rolsuper OR rolreplication FROM pg_roles WHERE rolname = current_user",
        &[],
    );
    Ok(row.map_err(|error| failure("the role", &error))?.get(0))
}

/// How many slots and walsenders are left.
fn free(client: &mut Client) -> Result<[(&'static str, i64); 2], SourceError> {
    let row = client.query_one(
        "SELECT current_setting('max_replication_slots')::int8
                 - (SELECT count(*) FROM pg_replication_slots),
             current_setting('max_wal_senders')::int8
                 - (SELECT count(*) FROM pg_stat_replication)",
        &[],
    );
    let row = row.map_err(|error| failure("replication slots", &error))?;
    Ok([
        ("max_replication_slots", row.get(0)),
        ("max_wal_senders", row.get(1)),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_outbox_is_debeziums() {
        let mut options = Options::new("", "orders");
        options.retention_ms = Some(1_000);
        let statements = ddl(&options).join(";\n");
        for column in [
            "id uuid",
            "aggregatetype varchar(255)",
            "payload jsonb",
            "seq\" bigint",
        ] {
            assert!(statements.contains(column), "{column}");
        }
        assert!(statements.contains("FOR TABLE \"outbox\" WITH (publish = 'insert')"));
        assert!(statements.contains("oncelog_outbox_claim"));
        assert!(statements.contains("\"outbox_published\""));
        options.table = String::new();
        let [publication] = &ddl(&options)[..] else {
            panic!("one statement");
        };
        assert!(publication.contains("CREATE PUBLICATION \"oncelog_outbox\";"));
    }
}
