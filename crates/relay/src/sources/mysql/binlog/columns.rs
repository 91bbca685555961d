//! The outbox's columns as the server describes them now. The binlog has types and no names (unless
//! `binlog_row_metadata=FULL`), and not what is text and what is bytes.

use mysql::Conn;
use mysql::consts::ColumnType;
use mysql::prelude::Queryable;

use super::super::connection::failed;
use super::super::tables::Tables;
use crate::source::SourceError;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Column {
    pub name: String,
    pub kind: Kind,
    /// The binlog has no value for it.
    pub generated: bool,
}

/// What becomes of a column's values, where their type in the binlog does not say it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Integer {
        unsigned: bool,
    },
    Float,
    Decimal,
    Text,
    Bytes,
    /// Zeros at its end are not in the binlog.
    FixedBytes(usize),
    /// MariaDB's own type. Before 10.11.5, and in tables from then, it always has its parts swapped.
    Uuid {
        old: bool,
    },
    Inet4,
    Inet6,
    Enum(Vec<String>),
    Set(Vec<String>),
    Date,
    DateTime,
    Timestamp,
    Time,
    Year,
    /// MySQL's own type; MariaDB's JSON is a text.
    Json,
}

/// One line of information_schema: name, type, the type in full, character set, extra.
type Line = (String, String, String, Option<String>, String);

/// In the order of the table.
pub(super) fn load(conn: &mut Conn, tables: &Tables) -> Result<Vec<Column>, SourceError> {
    let asked = "SELECT COLUMN_NAME, DATA_TYPE, COLUMN_TYPE, CHARACTER_SET_NAME, EXTRA \
        FROM information_schema.COLUMNS WHERE TABLE_SCHEMA = ? AND TABLE_NAME = ? \
        ORDER BY ORDINAL_POSITION";
    let lines: Vec<Line> = conn
        .exec(asked, (&tables.database, &tables.name))
        .map_err(|error| failed("reading the outbox's columns", error))?;
    if lines.is_empty() {
        let outbox = &tables.outbox;
        let say = format!("there is no table {outbox}; `oncelog outbox init` makes it");
        return Err(SourceError::Refused(say));
    }
    let columns: Result<Vec<Column>, String> = lines.into_iter().map(column).collect();
    columns.map_err(|why| SourceError::Refused(format!("{}: {why}", tables.outbox)))
}

fn column(line: Line) -> Result<Column, String> {
    let (name, data_type, full, charset, extra) = line;
    let kind = kind(&data_type.to_ascii_lowercase(), &full, charset.as_deref())
        .map_err(|why| format!("the column {name} {why}"))?;
    Ok(Column {
        name,
        kind,
        generated: extra.to_ascii_uppercase().contains("VIRTUAL"),
    })
}

fn kind(data_type: &str, full: &str, charset: Option<&str>) -> Result<Kind, String> {
    let kind = match data_type {
        "tinyint" | "smallint" | "mediumint" | "int" | "bigint" => Kind::Integer {
            unsigned: full.contains("unsigned"),
        },
        "float" | "double" => Kind::Float,
        "decimal" => Kind::Decimal,
        "char" | "varchar" | "tinytext" | "text" | "mediumtext" | "longtext" => Kind::Text,
        "binary" => Kind::FixedBytes(length(full)?),
        "varbinary" | "tinyblob" | "blob" | "mediumblob" | "longblob" | "bit" => Kind::Bytes,
        "uuid" => Kind::Uuid {
            old: full.contains("old"),
        },
        "inet4" => Kind::Inet4,
        "inet6" => Kind::Inet6,
        "enum" => Kind::Enum(members(full)),
        "set" => Kind::Set(members(full)),
        "date" => Kind::Date,
        "datetime" => Kind::DateTime,
        "timestamp" => Kind::Timestamp,
        "time" => Kind::Time,
        "year" => Kind::Year,
        "json" => Kind::Json,
        _ => {
            return Err(format!(
                "is of the type {full}, which is not read from the binlog"
            ));
        }
    };
    match (charset, &kind) {
        (None | Some("utf8mb4" | "utf8mb3" | "utf8" | "ascii"), _) => Ok(kind),
        (Some(_), Kind::Json) => Ok(kind),
        (Some(charset), _) => Err(format!(
            "has the character set {charset}, and the binlog has its bytes as they are; \
            ALTER TABLE … CONVERT TO CHARACTER SET utf8mb4 makes them readable"
        )),
    }
}

/// Of `binary(16)`.
fn length(full: &str) -> Result<usize, String> {
    let digits: String = full.chars().filter(char::is_ascii_digit).collect();
    digits
        .parse()
        .map_err(|_| format!("is of the type {full}, which has no length"))
}

/// Of `enum('a','it''s')`.
fn members(full: &str) -> Vec<String> {
    let mut members = Vec::new();
    let mut rest = full;
    while let Some((_, after)) = rest.split_once('\'') {
        let mut member = String::new();
        rest = after;
        while let Some((text, after)) = rest.split_once('\'') {
            member.push_str(text);
            rest = after;
            match rest.strip_prefix('\'') {
                Some(after) => {
                    member.push('\'');
                    rest = after;
                }
                None => break,
            }
        }
        members.push(member);
    }
    members
}

impl Kind {
    /// Whether the binlog's type can be of a column of this kind.
    pub fn accepts(&self, binlog: ColumnType) -> bool {
        use ColumnType as T;
        match self {
            Kind::Integer { .. } => matches!(
                binlog,
                T::MYSQL_TYPE_TINY
                    | T::MYSQL_TYPE_SHORT
                    | T::MYSQL_TYPE_INT24
                    | T::MYSQL_TYPE_LONG
                    | T::MYSQL_TYPE_LONGLONG
            ),
            Kind::Float => matches!(binlog, T::MYSQL_TYPE_FLOAT | T::MYSQL_TYPE_DOUBLE),
            Kind::Decimal => binlog == T::MYSQL_TYPE_NEWDECIMAL,
            Kind::Text => is_string(binlog),
            Kind::Bytes => is_string(binlog) || binlog == T::MYSQL_TYPE_BIT,
            Kind::FixedBytes(_) | Kind::Uuid { .. } | Kind::Inet4 | Kind::Inet6 => {
                binlog == T::MYSQL_TYPE_STRING
            }
            Kind::Enum(_) => binlog == T::MYSQL_TYPE_ENUM,
            Kind::Set(_) => binlog == T::MYSQL_TYPE_SET,
            Kind::Date => matches!(binlog, T::MYSQL_TYPE_NEWDATE | T::MYSQL_TYPE_DATE),
            Kind::DateTime => matches!(binlog, T::MYSQL_TYPE_DATETIME2 | T::MYSQL_TYPE_DATETIME),
            Kind::Timestamp => matches!(binlog, T::MYSQL_TYPE_TIMESTAMP2 | T::MYSQL_TYPE_TIMESTAMP),
            Kind::Time => matches!(binlog, T::MYSQL_TYPE_TIME2 | T::MYSQL_TYPE_TIME),
            Kind::Year => binlog == T::MYSQL_TYPE_YEAR,
            Kind::Json => binlog == T::MYSQL_TYPE_JSON,
        }
    }
}

fn is_string(binlog: ColumnType) -> bool {
    use ColumnType as T;
    matches!(
        binlog,
        T::MYSQL_TYPE_STRING
            | T::MYSQL_TYPE_VARCHAR
            | T::MYSQL_TYPE_VAR_STRING
            | T::MYSQL_TYPE_BLOB
            | T::MYSQL_TYPE_TINY_BLOB
            | T::MYSQL_TYPE_MEDIUM_BLOB
            | T::MYSQL_TYPE_LONG_BLOB
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_become_kinds() {
        let check = |data_type: &str, full: &str| kind(data_type, full, None).unwrap();
        assert_eq!(
            check("bigint", "bigint(20) unsigned"),
            Kind::Integer { unsigned: true }
        );
        assert_eq!(check("binary", "binary(16)"), Kind::FixedBytes(16));
        let members = ["a", "it's", ""].map(str::to_owned).to_vec();
        assert_eq!(check("enum", "enum('a','it''s','')"), Kind::Enum(members));
        assert!(kind("geometry", "geometry", None).is_err());
    }

    #[test]
    fn only_text_that_can_be_read_as_it_is() {
        assert_eq!(
            kind("varchar", "varchar(9)", Some("utf8mb4")),
            Ok(Kind::Text)
        );
        let refused = kind("varchar", "varchar(9)", Some("latin1")).unwrap_err();
        assert!(
            refused.contains("latin1") && refused.contains("utf8mb4"),
            "{refused}"
        );
    }
}
