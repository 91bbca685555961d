//! The names of the outbox and of the tables beside it, quoted for SQL. All are in one database, so that
//! a backup holds all of them or none.

use oncelog_pipeline::database::Database;

use super::options::Options;

pub(super) struct Tables {
    /// Not quoted.
    pub database: String,
    pub name: String,
    /// Quoted, all that follow.
    pub outbox: String,
    /// Which rows a relay has claimed: `(relay, token, sequences)`.
    pub claim: String,
    /// One row: an id of this outbox, from when it was made.
    pub identity: String,
    /// Where a relay without a progress topic is in the binlog, or has begun.
    pub position: String,
    /// Published rows that are kept for a while.
    pub published: String,
}

impl Tables {
    /// `database` is the url's; empty: that of the session.
    pub fn new(options: &Options, database: &str) -> Tables {
        let (database, name) = options
            .table
            .split_once('.')
            .unwrap_or((database, &options.table));
        let beside = |name: &str| match database {
            "" => quoted(name),
            database => format!("{}.{}", quoted(database), quoted(name)),
        };
        Tables {
            database: database.to_owned(),
            name: name.to_owned(),
            outbox: beside(name),
            claim: beside("oncelog_outbox_claim"),
            identity: beside("oncelog_outbox_identity"),
            position: beside("oncelog_outbox_position"),
            published: beside(&format!("{name}_published")),
        }
    }
}

pub(super) fn quoted(name: &str) -> String {
    Database::MySql.quote_column(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_quoted() {
        let mut options = Options::default();
        assert_eq!(Tables::new(&options, "shop").outbox, "`shop`.`outbox`");
        options.table = "other.o`x".into();
        let tables = Tables::new(&options, "shop");
        assert_eq!(tables.outbox, "`other`.`o``x`");
        assert_eq!(tables.claim, "`other`.`oncelog_outbox_claim`");
    }
}
