//! What the database says of itself: the server, the outbox table, the publication.

use postgres::Client;

use super::connection::failure;
use super::options::Options;
use super::pgoutput::Oid;
use crate::row::Columns;
use crate::source::SourceError;

/// Logical messages came with 14, as an option of pgoutput.
pub const VERSION_MIN: i32 = 140_000;
/// Failover slots.
pub const VERSION_FAILOVER: i32 = 170_000;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// As `server_version_num`: 150004.
    pub version: i32,
    pub version_text: String,
    pub standby: bool,
    pub wal_level: String,
    pub system: String,
    pub database: String,
}

/// The outbox.
#[derive(Clone, Debug)]
pub struct Table {
    pub oid: Oid,
    pub schema: String,
    pub name: String,
    pub partitioned: bool,
    pub columns: Columns,
    /// Of the columns, in their order.
    pub types: Vec<Oid>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Publication {
    pub inserts: bool,
    /// Partitions are told as their parent.
    pub via_root: bool,
    /// Whether the outbox is one of its tables.
    pub covers: bool,
}

pub fn facts(client: &mut Client) -> Result<Facts, SourceError> {
    let row = client.query_one(
        "SELECT current_setting('server_version_num')::int4, current_setting('server_version'),
             pg_is_in_recovery(), current_setting('wal_level'), system_identifier::text,
             current_database()::text
         FROM pg_control_system()",
        &[],
    );
    let row = row.map_err(|error| failure("PostgreSQL", &error))?;
    Ok(Facts {
        version: row.get(0),
        version_text: row.get(1),
        standby: row.get(2),
        wal_level: row.get(3),
        system: row.get(4),
        database: row.get(5),
    })
}

/// `None`: there is no such table.
pub fn table(client: &mut Client, options: &Options) -> Result<Option<Table>, SourceError> {
    let rows = client.query(
        "SELECT n.nspname::text, c.relname::text, c.relkind = 'p', a.attname::text, a.atttypid, c.oid
         FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
             JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
         WHERE c.oid = to_regclass($1)
         ORDER BY a.attnum",
        &[&options.quoted_table()],
    );
    let rows = rows.map_err(|error| failure(&options.table, &error))?;
    let Some(first) = rows.first() else {
        return Ok(None);
    };
    Ok(Some(Table {
        oid: first.get(5),
        schema: first.get(0),
        name: first.get(1),
        partitioned: first.get(2),
        columns: rows.iter().map(|row| row.get::<_, String>(3)).collect(),
        types: rows.iter().map(|row| row.get(4)).collect(),
    }))
}

/// `None`: there is no such publication.
pub fn publication(
    client: &mut Client,
    name: &str,
    table: Option<&Table>,
) -> Result<Option<Publication>, SourceError> {
    let outbox = table.map_or(0, |table| table.oid);
    let row = client.query_opt(
        // Named itself, or (of a partitioned table: its partitions only) by what it belongs to.
        "SELECT pubinsert, pubviaroot, EXISTS (
                 SELECT FROM pg_publication_rel r WHERE r.prpubid = p.oid AND r.prrelid = $2)
             OR EXISTS (
                 SELECT FROM pg_get_publication_tables(p.pubname::text) t WHERE t.relid = $2)
         FROM pg_publication p WHERE p.pubname = $1",
        &[&name, &outbox],
    );
    let row = row.map_err(|error| failure("the publication", &error))?;
    Ok(row.map(|row| Publication {
        inserts: row.get(0),
        via_root: row.get(1),
        covers: row.get(2),
    }))
}

/// How many numbers a session takes from the column's sequence at once; `None`: it has no sequence.
pub fn sequence_cache(
    client: &mut Client,
    options: &Options,
    table: &Table,
) -> Result<Option<i64>, SourceError> {
    if !table.columns.contains(&options.sequence) {
        return Ok(None);
    }
    let row = client.query_opt(
        "SELECT s.seqcache FROM pg_sequence s
         WHERE s.seqrelid = to_regclass(pg_get_serial_sequence($1, $2))",
        &[&options.quoted_table(), &options.sequence],
    );
    let row = row.map_err(|error| failure(&options.table, &error))?;
    Ok(row.map(|row| row.get(0)))
}

/// Which of `needed` (`SELECT`, `DELETE`, …) the role lacks on the table named as SQL names it; `None`:
/// there is no such table.
pub fn lacking(
    client: &mut Client,
    table: &str,
    needed: &[&str],
) -> Result<Option<Vec<String>>, SourceError> {
    let rows = client.query(
        "SELECT needed, has_table_privilege(to_regclass($1), needed)
         FROM unnest($2::text[]) AS needed",
        &[&table, &needed],
    );
    let rows = rows.map_err(|error| failure(table, &error))?;
    let mut lacking = Vec::new();
    for row in rows {
        match row.get::<_, Option<bool>>(1) {
            None => return Ok(None),
            Some(true) => {}
            Some(false) => lacking.push(row.get(0)),
        }
    }
    Ok(Some(lacking))
}

/// Whether the role may make tables in the outbox's schema.
pub fn may_create(client: &mut Client, table: &Table) -> Result<bool, SourceError> {
    let row = client.query_one(
        "SELECT has_schema_privilege($1, 'CREATE')",
        &[&table.schema],
    );
    Ok(row.map_err(|error| failure(&table.schema, &error))?.get(0))
}

/// A table of ours: made where it is missing, and we may. Errors name the statement that makes it.
pub fn own_table(client: &mut Client, name: &str, ddl: &str) -> Result<(), SourceError> {
    let there = client.query_one("SELECT to_regclass($1) IS NOT NULL", &[&name]);
    let there: bool = there.map_err(|error| failure(name, &error))?.get(0);
    if there {
        return Ok(());
    }
    client.batch_execute(ddl).map_err(|error| match failure(name, &error) {
        SourceError::Refused(why) => SourceError::Refused(format!(
            "the relay needs a table of its own and could not make it ({why}). Let somebody who \
             may run:\n{ddl}"
        )),
        lost => lost,
    })
}
