//! Connections to MySQL or MariaDB, what their errors mean for a relay, and which server it is.

use std::collections::BTreeMap;
use std::time::Duration;

use mysql::prelude::Queryable;
use mysql::{Conn, DriverError, Error, Opts, OptsBuilder};

use super::options::Options;
use super::tables::Tables;
use crate::source::SourceError;

const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// A server that says nothing for so long is taken for gone.
pub(super) const ANSWER_LIMIT: Duration = Duration::from_secs(30);
/// The protocol's own limit for what a server sends in one piece, in bytes.
const PACKET_MAX: usize = 1 << 30;

/// Times are in UTC. A read is a transaction of its own, of what was committed when it began (READ
/// COMMITTED would do, but a server whose binlog has statements lets nobody write with it). Waiting for a
/// lock ends before [`ANSWER_LIMIT`] does.
const SESSION: [&str; 4] = [
    "SET SESSION time_zone = '+00:00'",
    "SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ",
    "SET SESSION innodb_lock_wait_timeout = 20",
    "SET SESSION autocommit = 1",
];

/// Where the database is, and what is in it.
pub(super) struct Database {
    opts: Opts,
    pub tables: Tables,
}

impl Database {
    pub fn new(options: &Options) -> Result<Database, SourceError> {
        let opts = parse(&options.url).map_err(SourceError::Refused)?;
        let database = opts.get_db_name().unwrap_or_default();
        if database.is_empty() && !options.table.contains('.') {
            let say = "the url names no database: mysql://user:password@host:port/database";
            return Err(SourceError::Refused(say.to_owned()));
        }
        Ok(Database {
            tables: Tables::new(options, database),
            opts,
        })
    }

    pub fn connect(&self) -> Result<Conn, SourceError> {
        let opts = OptsBuilder::from_opts(self.opts.clone())
            .prefer_socket(false)
            .tcp_connect_timeout(Some(CONNECT_LIMIT))
            .read_timeout(Some(ANSWER_LIMIT))
            .write_timeout(Some(ANSWER_LIMIT))
            .max_allowed_packet(Some(PACKET_MAX))
            .init(SESSION.to_vec());
        let (host, port) = (self.opts.get_ip_or_hostname(), self.opts.get_tcp_port());
        Conn::new(opts).map_err(|error| failed(&format!("connecting to {host}:{port}"), error))
    }
}

fn parse(url: &str) -> Result<Opts, String> {
    let rest = match url.split_once("://") {
        Some(("mysql" | "mariadb", rest)) => rest,
        _ => {
            return Err("the url is none of MySQL or MariaDB: \
                mysql://user:password@host:port/database"
                .to_owned());
        }
    };
    let parameters = rest
        .split_once('?')
        .map_or("", |(_, parameters)| parameters);
    let parameters = parameters.to_ascii_lowercase();
    if parameters.contains("ssl") || parameters.contains("tls") {
        return Err(
            "the url asks for TLS, which is not built in for MySQL and MariaDB: \
            use a private network or a tunnel, and take it out of the url"
                .to_owned(),
        );
    }
    Opts::from_url(&format!("mysql://{rest}")).map_err(|error| format!("the url: {error}"))
}

/// What an error means, with what was being done.
pub(super) fn failed(doing: &str, error: Error) -> SourceError {
    let said = format!("{doing}: {error}");
    match &error {
        Error::MySqlError(server) => match advice(server.code) {
            Some("") => SourceError::Refused(said),
            Some(advice) => SourceError::Refused(format!("{said}; {advice}")),
            None => SourceError::Lost(said),
        },
        Error::UrlError(_) => SourceError::Refused(said),
        Error::DriverError(
            DriverError::UnknownAuthPlugin(_)
            | DriverError::OldMysqlPasswordDisabled
            | DriverError::TlsNotSupported
            | DriverError::CleartextPluginDisabled
            | DriverError::UnsupportedProtocol(_),
        ) => SourceError::Refused(said),
        _ => SourceError::Lost(said),
    }
}

/// For the errors that do not go away by themselves, what to do; `None` for those that may.
fn advice(code: u16) -> Option<&'static str> {
    match code {
        // Unknown table, column, or a column too short.
        1146 | 1054 | 1406 => Some("`oncelog outbox init` makes the tables"),
        // Access denied, in its many forms.
        1044 | 1045 | 1142 | 1143 | 1227 | 1370 | 1698 => {
            Some("`oncelog outbox check` names the privileges that are needed")
        }
        // Unknown database; a syntax that this server does not have; an unknown variable.
        1049 | 1064 | 1193 => Some(""),
        _ => None,
    }
}

/// Which server it is, and how it is set.
pub(super) struct Server {
    pub mariadb: bool,
    pub version: String,
    variables: BTreeMap<String, String>,
}

/// Those that anybody here asks about. What a server does not know is not in its answer.
const VARIABLES: &str = "SHOW GLOBAL VARIABLES WHERE Variable_name IN \
    ('log_bin', 'binlog_format', 'binlog_row_image', 'binlog_row_metadata', 'binlog_row_value_options', \
     'log_bin_compress', 'binlog_transaction_compression', 'server_uuid', 'server_id', \
     'lower_case_table_names', 'innodb_flush_log_at_trx_commit', 'sync_binlog', \
     'expire_logs_days', 'binlog_expire_logs_seconds')";

impl Server {
    pub fn ask(conn: &mut Conn) -> Result<Server, SourceError> {
        let failed = |error| failed("asking for the server's settings", error);
        let version: Option<String> = conn.query_first("SELECT @@version").map_err(failed)?;
        let version = version.unwrap_or_default();
        let variables: Vec<(String, String)> = conn.query(VARIABLES).map_err(failed)?;
        Ok(Server {
            mariadb: version.contains("MariaDB"),
            version,
            variables: variables.into_iter().collect(),
        })
    }

    /// Empty where this server has no such variable.
    pub fn variable(&self, name: &str) -> &str {
        self.variables.get(name).map_or("", String::as_str)
    }

    /// Whether `name` is on, in either way that servers say it.
    pub fn is_on(&self, name: &str) -> bool {
        matches!(self.variable(name), "ON" | "1")
    }

    pub fn kind(&self) -> &'static str {
        if self.mariadb { "mariadb" } else { "mysql" }
    }
}

/// The id that the outbox was given when it was made. It goes wherever the tables go: to a replica, into
/// a backup.
pub(super) fn outbox_id(conn: &mut Conn, tables: &Tables) -> Result<String, SourceError> {
    let asked = format!("SELECT id FROM {} ORDER BY id LIMIT 1", tables.identity);
    let id: Option<String> = conn
        .query_first(asked)
        .map_err(|error| failed("reading the outbox's id", error))?;
    id.ok_or_else(|| {
        let table = &tables.identity;
        SourceError::Refused(format!("{table} is empty; `oncelog outbox init` fills it"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_of_both_kinds_and_no_tls() {
        for url in ["mysql://a:b@h:1/d", "mariadb://a@h/d"] {
            let opts = parse(url).unwrap();
            assert_eq!(
                (opts.get_user(), opts.get_db_name()),
                (Some("a"), Some("d"))
            );
        }
        assert!(parse("postgresql://h/d").unwrap_err().contains("mysql://"));
        assert!(
            parse("mysql://h/d?ssl-mode=REQUIRED")
                .unwrap_err()
                .contains("TLS")
        );
        assert!(parse("mysql://h/d?nonsense=1").is_err());
    }

    #[test]
    fn a_url_without_a_database_needs_one_in_the_table() {
        let mut options = Options {
            url: "mysql://root@localhost".into(),
            ..Options::default()
        };
        assert!(matches!(
            Database::new(&options),
            Err(SourceError::Refused(_))
        ));
        options.table = "shop.outbox".into();
        assert!(Database::new(&options).is_ok());
    }
}
