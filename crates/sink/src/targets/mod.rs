//! The databases that a sink can write to, one file each.

use crate::config::Config;
use crate::target::Target;

pub mod mysql;
pub mod postgres;
pub mod sqlite;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Database {
    PostgreSql,
    /// MariaDB, too.
    MySql,
    Sqlite,
}

impl Database {
    /// Errors: the URL names none that is known.
    pub fn of(url: &str) -> Result<Database, String> {
        let scheme = url.split(':').next().unwrap_or_default();
        match scheme {
            "postgresql" | "postgres" => Ok(Database::PostgreSql),
            "mysql" | "mariadb" => Ok(Database::MySql),
            "sqlite" => Ok(Database::Sqlite),
            _ => Err(format!(
                "database = {:?} is none of postgresql://…, mysql://…, mariadb://…, sqlite:path",
                without_password(url)
            )),
        }
    }

    /// A name, or `schema.name`, as this database's SQL has it.
    pub fn quote(self, name: &str) -> String {
        let mark = if self == Database::MySql { '`' } else { '"' };
        let doubled = format!("{mark}{mark}");
        let part = |part: &str| format!("{mark}{}{mark}", part.replace(mark, &doubled));
        name.split('.').map(part).collect::<Vec<_>>().join(".")
    }

    /// A column's name: a dot in it is one.
    pub fn quote_column(self, name: &str) -> String {
        let mark = if self == Database::MySql { '`' } else { '"' };
        format!(
            "{mark}{}{mark}",
            name.replace(mark, &format!("{mark}{mark}"))
        )
    }
}

/// The URL for a person to read.
pub fn without_password(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else {
        return url.to_owned();
    };
    let authority = rest.split(['/', '?']).next().unwrap_or_default();
    let Some((user, host)) = authority.rsplit_once('@') else {
        return url.to_owned();
    };
    let user = user.split(':').next().unwrap_or_default();
    format!("{scheme}://{user}@{host}{}", &rest[authority.len()..])
}

/// A target that is not opened yet. Errors: a URL that is none, in words.
pub fn of(config: &Config) -> Result<Box<dyn Target>, String> {
    Ok(match Database::of(&config.database)? {
        Database::PostgreSql => Box::new(postgres::PostgreSql::new(config)?),
        Database::MySql => Box::new(mysql::MySql::new(config)?),
        Database::Sqlite => Box::new(sqlite::Sqlite::new(config)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_quoted_part_by_part() {
        assert_eq!(Database::PostgreSql.quote("a.b\"c"), r#""a"."b""c""#);
        assert_eq!(Database::MySql.quote("a`b"), "`a``b`");
        assert_eq!(Database::Sqlite.quote_column("a.b"), "\"a.b\"");
    }

    #[test]
    fn passwords_are_not_shown() {
        for (url, shown) in [
            ("mysql://u:p@h:1/d", "mysql://u@h:1/d"),
            ("mysql://u:p@@h/d?x=a@b", "mysql://u@h/d?x=a@b"),
            ("postgresql://h/d", "postgresql://h/d"),
            ("sqlite:a@b", "sqlite:a@b"),
        ] {
            assert_eq!(without_password(url), shown);
        }
        assert!(
            Database::of("oracle://u:secret@h")
                .unwrap_err()
                .contains("oracle://u@h")
        );
    }
}
