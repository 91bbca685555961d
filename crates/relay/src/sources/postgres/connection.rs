//! Connections for SQL, and what the server's refusals mean for the relay.

use std::path::PathBuf;
use std::time::Duration;

use postgres::config::{Host, SslMode, TargetSessionAttrs};
use postgres::error::SqlState;
use postgres::{Client, Config, NoTls};

use super::options::{Options, literal};
use super::values;
use crate::source::SourceError;

const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// A host that is gone is noticed after this.
pub const SILENCE_MAX: Duration = Duration::from_secs(30);
/// No statement of ours takes long, but for those that say so.
const STATEMENT_LIMIT_MS: u32 = 60_000;

/// One server, and who connects to it.
#[derive(Clone, Debug)]
pub struct Server {
    pub address: Address,
    pub user: String,
    pub password: Option<Vec<u8>>,
    pub database: String,
    pub application: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    Tcp(String, u16),
    /// The socket's own path, not its folder.
    Unix {
        folder: PathBuf,
        port: u16,
    },
}

impl Server {
    /// How a person knows it; without the password.
    pub fn name(&self) -> String {
        match &self.address {
            Address::Tcp(host, port) => format!("{host}:{port}/{}", self.database),
            Address::Unix { folder, port } => {
                format!("{}:{port}/{}", folder.display(), self.database)
            }
        }
    }
}

/// Errors: an address that makes no sense, or asks for TLS; in words.
pub fn servers(options: &Options) -> Result<Vec<Server>, String> {
    refuse_tls(&options.url)?;
    let config: Config = options
        .url
        .parse()
        .map_err(|error| format!("url: {error}"))?;
    if config.get_ssl_mode() == SslMode::Require {
        return Err(NO_TLS.to_owned());
    }
    let user = config
        .get_user()
        .ok_or("url: it names no user: postgresql://USER@host/database")?;
    let database = config.get_dbname().unwrap_or(user);
    let ports = config.get_ports();
    let port = |index: usize| ports.get(index).or(ports.first()).copied().unwrap_or(5432);
    let named = config
        .get_hosts()
        .iter()
        .enumerate()
        .map(|(index, host)| match host {
            Host::Tcp(name) => Address::Tcp(name.clone(), port(index)),
            Host::Unix(folder) => Address::Unix {
                folder: folder.clone(),
                port: port(index),
            },
        });
    let mut addresses: Vec<Address> = named.collect();
    if !config.get_hostaddrs().is_empty() {
        let numbered = config.get_hostaddrs().iter().enumerate();
        addresses = numbered
            .map(|(index, ip)| Address::Tcp(ip.to_string(), port(index)))
            .collect();
    }
    if addresses.is_empty() {
        return Err("url: it names no host: postgresql://user@HOST/database".to_owned());
    }
    let server = |address| Server {
        address,
        user: user.to_owned(),
        password: config.get_password().map(<[u8]>::to_vec),
        database: database.to_owned(),
        application: options.application(),
    };
    Ok(addresses.into_iter().map(server).collect())
}

const NO_TLS: &str = "url: TLS is not built into this program yet. Reach the database over a network \
    that you trust, or through a tunnel that encrypts (stunnel, a sidecar, ssh -L), and say \
    sslmode=disable";

/// What asks for TLS is refused before a password goes over the network without it.
fn refuse_tls(url: &str) -> Result<(), String> {
    for mode in ["require", "verify-ca", "verify-full"] {
        if url.contains(&format!("sslmode={mode}")) {
            return Err(NO_TLS.to_owned());
        }
    }
    Ok(())
}

/// Connects to the first of the servers that can be reached; of several, to the one that is no standby.
pub fn connect(options: &Options) -> Result<(Server, Client), SourceError> {
    let servers = servers(options).map_err(SourceError::Refused)?;
    let several = servers.len() > 1;
    let mut failed = Vec::new();
    for server in servers {
        let mut client = match connect_to(&server) {
            Ok(client) => client,
            Err(error) if !several => return Err(error),
            Err(error) => {
                failed.push(error.to_string());
                continue;
            }
        };
        if several && in_recovery(&mut client)? {
            failed.push(format!("{} is a standby", server.name()));
            continue;
        }
        return Ok((server, client));
    }
    Err(SourceError::Lost(failed.join("; ")))
}

fn connect_to(server: &Server) -> Result<Client, SourceError> {
    let mut config = Config::new();
    match &server.address {
        Address::Tcp(host, port) => config.host(host).port(*port),
        Address::Unix { folder, port } => config.host_path(folder).port(*port),
    };
    config
        .user(&server.user)
        .dbname(&server.database)
        .application_name(&server.application);
    if let Some(password) = &server.password {
        config.password(password);
    }
    config
        .ssl_mode(SslMode::Disable)
        .target_session_attrs(TargetSessionAttrs::Any);
    config
        .connect_timeout(CONNECT_LIMIT)
        .tcp_user_timeout(SILENCE_MAX);
    config
        .keepalives_idle(SILENCE_MAX / 3)
        .keepalives_interval(SILENCE_MAX / 3);
    config.keepalives_retries(2);
    let failed = |error: postgres::Error| failure(&server.name(), &error);
    let mut client = config.connect(NoTls).map_err(failed)?;
    let mut settings = format!("SET statement_timeout = {STATEMENT_LIMIT_MS};");
    for (name, value) in values::SETTINGS {
        settings.push_str(&format!("SET {name} = {};", literal(value)));
    }
    client.batch_execute(&settings).map_err(failed)?;
    Ok(client)
}

pub fn in_recovery(client: &mut Client) -> Result<bool, SourceError> {
    let row = client.query_one("SELECT pg_is_in_recovery()", &[]);
    Ok(row.map_err(|error| failure("PostgreSQL", &error))?.get(0))
}

/// What the relay makes of an error of SQL.
pub fn failure(what: &str, error: &postgres::Error) -> SourceError {
    let Some(db) = error.as_db_error() else {
        let mut text = format!("{what}: {error}");
        let mut cause = std::error::Error::source(error);
        while let Some(inner) = cause {
            text.push_str(&format!(": {inner}"));
            cause = inner.source();
        }
        return SourceError::Lost(text);
    };
    let hint = db
        .hint()
        .map(|hint| format!(". {hint}"))
        .unwrap_or_default();
    let text = format!("{what}: {} ({}){hint}", db.message(), db.code().code());
    judge(text, db.code())
}

/// What comes again when it is asked again is refused; all else may pass.
pub fn judge(text: String, code: &SqlState) -> SourceError {
    let class = &code.code()[..2.min(code.code().len())];
    let lasting = match class {
        // Not allowed in; no such database, schema, table, column, publication; not privileged.
        "28" | "3D" | "3F" | "42" => true,
        // Not supported; malformed.
        "0A" | "22" => true,
        _ => false,
    };
    if lasting {
        SourceError::Refused(text)
    } else {
        SourceError::Lost(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(url: &str) -> Result<Vec<Server>, String> {
        servers(&Options::new(url, "orders"))
    }

    #[test]
    fn an_address_is_read() {
        let [server] = &parse("postgresql://ann:secret@db:5433/shop").unwrap()[..] else {
            panic!("one server");
        };
        assert_eq!(server.address, Address::Tcp("db".to_owned(), 5433));
        assert_eq!(server.password.as_deref(), Some(&b"secret"[..]));
        assert_eq!(server.name(), "db:5433/shop");
        assert_eq!(server.application, "oncelog/orders");
        let several = parse("postgresql://ann@a:1,b:2/shop").unwrap();
        assert_eq!(several[1].address, Address::Tcp("b".to_owned(), 2));
        assert!(
            parse("postgresql://db/shop")
                .unwrap_err()
                .contains("no user")
        );
    }

    #[test]
    fn tls_is_refused_in_words() {
        for mode in ["require", "verify-ca", "verify-full"] {
            let url = format!("postgresql://ann@db/shop?sslmode={mode}");
            assert!(parse(&url).unwrap_err().contains("not built"), "{mode}");
        }
        assert!(parse("postgresql://ann@db/shop?sslmode=prefer").is_ok());
    }

    #[test]
    fn refusals_last_and_troubles_pass() {
        let refused =
            |code: &SqlState| matches!(judge(String::new(), code), SourceError::Refused(_));
        assert!(refused(&SqlState::INVALID_PASSWORD));
        assert!(refused(&SqlState::UNDEFINED_TABLE));
        assert!(refused(&SqlState::INSUFFICIENT_PRIVILEGE));
        assert!(!refused(&SqlState::ADMIN_SHUTDOWN));
        assert!(!refused(&SqlState::CANNOT_CONNECT_NOW));
        assert!(!refused(&SqlState::T_R_SERIALIZATION_FAILURE));
    }
}
