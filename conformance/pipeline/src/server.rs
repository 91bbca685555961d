//! The database at one end: a file, or a server that can be killed.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Result;
use databases::mariadb::MariaDb;
use databases::postgresql::PostgreSql;

use crate::combination::Engine;
use crate::sql::Connection;

pub enum Server {
    /// Its url: there is no server.
    Sqlite(String),
    PostgreSql(Box<PostgreSql>),
    MariaDb(Box<MariaDb>),
}

/// How long a connection is tried for that has to come about.
const CONNECT: Duration = Duration::from_secs(60);

impl Server {
    /// A new one; `file` is where SQLite's is.
    pub fn start(engine: Engine, file: &Path) -> Result<Server> {
        Ok(match engine {
            Engine::Sqlite => Server::Sqlite(format!("sqlite:{}", file.display())),
            Engine::PostgreSql => Server::PostgreSql(Box::new(PostgreSql::start()?)),
            Engine::MariaDb => Server::MariaDb(Box::new(MariaDb::start()?)),
        })
    }

    pub fn url(&self) -> String {
        match self {
            Server::Sqlite(url) => url.clone(),
            Server::PostgreSql(server) => server.url(),
            Server::MariaDb(server) => server.url(),
        }
    }

    pub fn can_be_killed(&self) -> bool {
        !matches!(self, Server::Sqlite(_))
    }

    pub fn kill(&mut self) -> Result<()> {
        match self {
            Server::Sqlite(_) => Ok(()),
            Server::PostgreSql(server) => server.kill(),
            Server::MariaDb(server) => server.kill(),
        }
    }

    /// Returns when it answers.
    pub fn start_again(&mut self) -> Result<()> {
        match self {
            Server::Sqlite(_) => Ok(()),
            Server::PostgreSql(server) => server.restart(),
            Server::MariaDb(server) => server.restart(),
        }
    }

    /// What the server itself has said, for a run that failed.
    pub fn keep_log(&self, to: &Path) -> Result<()> {
        let data = match self {
            Server::Sqlite(_) => return Ok(()),
            Server::PostgreSql(server) => server.data(),
            Server::MariaDb(server) => server.data(),
        };
        std::fs::copy(data.with_file_name("log"), to)?;
        Ok(())
    }

    pub fn connect(&self) -> Result<Connection> {
        let began = Instant::now();
        loop {
            match Connection::open(&self.url()) {
                Err(_) if began.elapsed() < CONNECT => {
                    std::thread::sleep(Duration::from_millis(50))
                }
                opened => return opened,
            }
        }
    }
}
