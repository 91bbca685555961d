//! The databases that a sink can write to, one file each.

use oncelog_pipeline::database::Database;

use crate::config::Config;
use crate::target::Target;

pub mod mysql;
pub mod postgres;
pub mod sqlite;

/// A target that is not opened yet. Errors: a URL that is none, in words.
pub fn of(config: &Config) -> Result<Box<dyn Target>, String> {
    Ok(match Database::of(&config.database)? {
        Database::PostgreSql => Box::new(postgres::PostgreSql::new(config)?),
        Database::MySql => Box::new(mysql::MySql::new(config)?),
        Database::Sqlite => Box::new(sqlite::Sqlite::new(config)),
    })
}
