//! Databases as configurations name them: by a URL.

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Database {
    PostgreSql,
    /// MariaDB, too.
    MySql,
    Sqlite,
}

impl Database {
    /// By the URL's scheme. Errors: it names none that is known, or no file of SQLite's.
    pub fn of(url: &str) -> Result<Database, String> {
        let scheme = url.split(':').next().unwrap_or_default();
        match scheme {
            "postgres" | "postgresql" => Ok(Database::PostgreSql),
            "mysql" | "mariadb" => Ok(Database::MySql),
            "sqlite" if sqlite_path(url).is_empty() => {
                Err("sqlite: names no file; write sqlite:PATH".to_owned())
            }
            "sqlite" => Ok(Database::Sqlite),
            _ => Err(format!(
                "{scheme:?} is no kind of database that is known here: write postgresql://…, \
                 mysql://…, mariadb://… or sqlite:PATH"
            )),
        }
    }

    /// A name, or `schema.name`, as this database's SQL has it.
    pub fn quote(self, name: &str) -> String {
        let quoted = name.split('.').map(|part| self.quote_column(part));
        quoted.collect::<Vec<_>>().join(".")
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

/// The file that `sqlite:PATH` or `sqlite://PATH` names.
pub fn sqlite_path(url: &str) -> &str {
    let path = url.strip_prefix("sqlite:").unwrap_or(url);
    path.strip_prefix("//").unwrap_or(path)
}

/// The URL as it may be shown: `***` in the place of a password.
pub fn without_password(url: &str) -> String {
    let Some((before, after)) = url.split_once("://") else {
        return url.to_owned();
    };
    // The host begins after the last @ before the path.
    let authority = after.split(['/', '?']).next().unwrap_or(after);
    let Some((user, host)) = authority.rsplit_once('@') else {
        return url.to_owned();
    };
    let Some((user, _)) = user.split_once(':') else {
        return url.to_owned();
    };
    let rest = &after[authority.len()..];
    format!("{before}://{user}:***@{host}{rest}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_not_shown() {
        for (url, shown) in [
            (
                "postgresql://a:secret@h:1/d?x=y@z",
                "postgresql://a:***@h:1/d?x=y@z",
            ),
            ("mysql://a:s@crt@h/d", "mysql://a:***@h/d"),
            ("postgresql://a@h/d", "postgresql://a@h/d"),
            ("postgresql://h/d", "postgresql://h/d"),
            ("sqlite:a:b@c", "sqlite:a:b@c"),
        ] {
            assert_eq!(without_password(url), shown);
        }
    }

    #[test]
    fn the_scheme_names_the_database() {
        for (url, database) in [
            ("sqlite:a.db", Database::Sqlite),
            ("sqlite:///var/a.db", Database::Sqlite),
            ("mariadb://root@localhost/shop", Database::MySql),
            ("postgres://h/d", Database::PostgreSql),
        ] {
            assert_eq!(Database::of(url), Ok(database));
        }
        assert_eq!(sqlite_path("sqlite:a.db"), "a.db");
        assert_eq!(sqlite_path("sqlite:///var/a.db"), "/var/a.db");
        let unknown = Database::of("oracle://u:secret@h").unwrap_err();
        assert!(unknown.contains("oracle") && !unknown.contains("secret"));
        assert!(Database::of("sqlite://").is_err());
        assert!(Database::of("").is_err());
    }

    #[test]
    fn names_are_quoted_part_by_part() {
        assert_eq!(Database::PostgreSql.quote("a.b\"c"), r#""a"."b""c""#);
        assert_eq!(Database::MySql.quote("a`b"), "`a``b`");
        assert_eq!(Database::Sqlite.quote_column("a.b"), "\"a.b\"");
    }
}
