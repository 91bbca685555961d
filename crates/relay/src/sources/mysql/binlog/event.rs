//! What an event of the binlog means to a reader of one table. Only the parts that matter are taken from
//! it; every length is checked.

use mysql::binlog::events::Event;

/// A place is never inside one of these.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Meaning<'a> {
    /// The first event of a file, and of every stream.
    Format {
        created: u32,
    },
    /// What follows is of `file`, from `offset` on.
    Rotate {
        file: String,
        offset: u64,
    },
    /// A transaction begins; `body` where MariaDB says that it has one and is not a single DDL statement.
    Begin {
        body: bool,
    },
    Query(String),
    Commit,
    /// An XA transaction has been prepared: whether it is committed comes later.
    Prepare,
    TableMap {
        table: TableName<'a>,
    },
    Rows(Rows<'a>),
    /// Rows that cannot be read, with what would make them readable.
    Unreadable {
        table_id: Option<u64>,
        why: &'static str,
    },
    /// The server knows that events are missing.
    Incident,
    /// Nothing but that the place moves on.
    Nothing,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) struct TableName<'a> {
    pub id: u64,
    pub database: &'a [u8],
    pub name: &'a [u8],
}

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Rows<'a> {
    pub table_id: u64,
    pub change: Change,
    pub columns: usize,
    /// The columns in each image before and after: a bit for each.
    pub before: Option<&'a [u8]>,
    pub after: Option<&'a [u8]>,
    pub images: &'a [u8],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    Insert,
    Update,
    Delete,
}

/// Of a MariaDB GTID event: it is a single statement that commits by itself.
const STANDALONE: u8 = 1;

const TOO_SHORT: &str = "an event of the binlog is shorter than what it holds";

/// Errors: the event is damaged.
pub(super) fn meaning(event: &Event) -> Result<Meaning<'_>, &'static str> {
    let data = event.data();
    read(
        event.header().event_type_raw(),
        event.header().timestamp(),
        data,
    )
    .ok_or(TOO_SHORT)
}

fn read(event_type: u8, timestamp: u32, data: &[u8]) -> Option<Meaning<'_>> {
    Some(match event_type {
        2 => Meaning::Query(query(data, 13)?),
        4 => Meaning::Rotate {
            offset: u64::from_le_bytes(data.get(..8)?.try_into().ok()?),
            file: String::from_utf8_lossy(data.get(8..)?).into_owned(),
        },
        15 => Meaning::Format { created: timestamp },
        16 => Meaning::Commit,
        // LOAD DATA, logged as a statement.
        18 => Meaning::Query(query(data, 26)?),
        19 => Meaning::TableMap {
            table: table_name(data)?,
        },
        23 => Meaning::Rows(rows(data, Change::Insert, false)?),
        24 => Meaning::Rows(rows(data, Change::Update, false)?),
        25 => Meaning::Rows(rows(data, Change::Delete, false)?),
        26 => Meaning::Incident,
        30 => Meaning::Rows(rows(data, Change::Insert, true)?),
        31 => Meaning::Rows(rows(data, Change::Update, true)?),
        32 => Meaning::Rows(rows(data, Change::Delete, true)?),
        // GTID, ANONYMOUS_GTID and GTID_TAGGED of MySQL.
        33 | 34 | 42 => Meaning::Begin { body: false },
        38 => Meaning::Prepare,
        39 => Meaning::Unreadable {
            table_id: table_id(data),
            why: "an UPDATE was logged in part; SET GLOBAL binlog_row_value_options = ''",
        },
        40 => Meaning::Unreadable {
            table_id: None,
            why: "a transaction is compressed; SET GLOBAL binlog_transaction_compression = OFF",
        },
        // MariaDB's GTID: the number, the domain, then flags.
        162 => Meaning::Begin {
            body: data.get(12)? & STANDALONE == 0,
        },
        // A compressed statement: too long to be one that matters.
        165 => Meaning::Query(String::new()),
        166..=171 => Meaning::Unreadable {
            table_id: table_id(data),
            why: "rows are compressed; SET GLOBAL log_bin_compress = OFF",
        },
        _ => Meaning::Nothing,
    })
}

/// `fixed` bytes, then status variables, then the database's name and a zero. Their lengths are at the
/// same places in both kinds of event.
fn query(data: &[u8], fixed: usize) -> Option<String> {
    let database = usize::from(*data.get(8)?);
    let status = usize::from(u16::from_le_bytes([*data.get(11)?, *data.get(12)?]));
    let text = data.get(fixed + status + database + 1..)?;
    Some(String::from_utf8_lossy(text).into_owned())
}

fn table_id(data: &[u8]) -> Option<u64> {
    let six: [u8; 6] = data.get(..6)?.try_into().ok()?;
    let [a, b, c, d, e, f] = six;
    Some(u64::from_le_bytes([a, b, c, d, e, f, 0, 0]))
}

fn table_name(data: &[u8]) -> Option<TableName<'_>> {
    let id = table_id(data)?;
    let (database, rest) = short_text(data.get(8..)?)?;
    let (name, _) = short_text(rest)?;
    Some(TableName { id, database, name })
}

/// A length, the text, a zero.
fn short_text(data: &[u8]) -> Option<(&[u8], &[u8])> {
    let length = usize::from(*data.first()?);
    Some((data.get(1..=length)?, data.get(length + 2..)?))
}

fn rows(data: &[u8], change: Change, extended: bool) -> Option<Rows<'_>> {
    let table_id = table_id(data)?;
    let mut rest = data.get(8..)?;
    if extended {
        let extra = usize::from(u16::from_le_bytes([*rest.first()?, *rest.get(1)?]));
        rest = rest.get(extra.max(2)..)?;
    }
    let (columns, mut rest) = count(rest)?;
    let mut bits = || {
        let (bits, after) = rest.split_at_checked(columns.div_ceil(8))?;
        rest = after;
        Some(bits)
    };
    let before = if change == Change::Insert {
        None
    } else {
        Some(bits()?)
    };
    let after = if change == Change::Delete {
        None
    } else {
        Some(bits()?)
    };
    Some(Rows {
        table_id,
        change,
        columns,
        before,
        after,
        images: rest,
    })
}

/// A number as MySQL packs it; a table has at most 4,096 columns.
fn count(data: &[u8]) -> Option<(usize, &[u8])> {
    match *data.first()? {
        small @ 0..=250 => Some((usize::from(small), data.get(1..)?)),
        252 => {
            let number = u16::from_le_bytes([*data.get(1)?, *data.get(2)?]);
            Some((usize::from(number), data.get(3..)?))
        }
        _ => None,
    }
}

/// Whether a statement names the table, as a word of its own.
pub(super) fn mentions(statement: &str, table: &str) -> bool {
    let (statement, table) = (statement.to_lowercase(), table.to_lowercase());
    let is_part = |c: char| c.is_alphanumeric() || c == '_' || c == '$';
    let alone = |(at, _): (usize, &str)| {
        let before = statement[..at].chars().next_back();
        let after = statement[at + table.len()..].chars().next();
        !before.is_some_and(is_part) && !after.is_some_and(is_part)
    };
    statement.match_indices(&table).any(alone)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_is_cut_short_is_damaged() {
        let mut data = vec![7, 0, 0, 0, 0, 0, 1, 0, 2, 0, 3, 0b111, 0b111, 9];
        let whole = read(30, 0, &data);
        let expected = Rows {
            table_id: 7,
            change: Change::Insert,
            columns: 3,
            before: None,
            after: Some(&[0b111]),
            images: &[0b111, 9],
        };
        assert_eq!(whole, Some(Meaning::Rows(expected)));
        data.truncate(11);
        for length in 0..data.len() {
            for event_type in [2, 4, 18, 19, 23, 24, 25, 30, 31, 32, 162] {
                // No panic; most are damaged.
                let _ = read(event_type, 0, &data[..length]);
            }
            assert_eq!(read(30, 0, &data[..length]), None);
        }
    }

    #[test]
    fn a_table_is_a_word() {
        assert!(mentions("ALTER TABLE `shop`.`Outbox` ADD x int", "outbox"));
        assert!(mentions("insert into outbox(id) values (1)", "outbox"));
        assert!(!mentions(
            "INSERT INTO outbox_published VALUES (1)",
            "outbox"
        ));
        assert!(!mentions("INSERT INTO my_outbox VALUES (1)", "outbox"));
    }
}
