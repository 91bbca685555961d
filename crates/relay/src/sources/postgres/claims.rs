//! The claims of a polling relay, in a table beside the outbox: which rows were handed out under which
//! token.
//!
//! A claim is made before its rows are published, and its token is in the progress. So after a crash
//! the two tell what happened: the same token, and the rows are published and only have to be deleted;
//! a token more, and they are to be handed out again, the same ones. Why no window of transaction ids:
//! docs/decisions/0004-polling-claims-rows.md.
//!
//! Invariants: a token is stored once, by compare-and-swap; no claim is made while rows of the one
//! before are still in the outbox.

use postgres::{Client, Transaction};

use super::catalog;
use super::connection::failure;
use super::options::Options;
use crate::position::{Position, Progress};
use crate::source::SourceError;

const NAME: &str = "oncelog_outbox_claim";

/// The rows that were handed out last, or are to be handed out again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Claim {
    /// 0: none was ever made, or none is kept.
    pub token: u64,
    /// In their order.
    pub sequences: Vec<i64>,
    /// How many of them were handed out.
    pub handed: usize,
    /// How many of them are done with.
    pub confirmed: usize,
}

pub fn ddl(options: &Options) -> String {
    format!(
        "CREATE TABLE IF NOT EXISTS {} (
    relay text PRIMARY KEY,
    token bigint NOT NULL,
    sequences bigint[] NOT NULL
)",
        options.own_table(NAME)
    )
}

/// The table, as SQL names it.
pub fn table(options: &Options) -> String {
    options.own_table(NAME)
}

pub fn make(client: &mut Client, options: &Options) -> Result<(), SourceError> {
    catalog::own_table(client, &options.own_table(NAME), &ddl(options))
}

/// The last one that was made.
pub fn load(client: &mut Client, options: &Options) -> Result<Claim, SourceError> {
    let query = format!(
        "SELECT token, sequences FROM {} WHERE relay = $1",
        options.own_table(NAME)
    );
    let row = client.query_opt(&query, &[&options.claimant()]);
    let row = row.map_err(|error| failure(NAME, &error))?;
    Ok(row.map_or_else(Claim::default, |row| Claim {
        token: row.get::<_, i64>(0).cast_unsigned(),
        sequences: row.get(1),
        handed: 0,
        confirmed: 0,
    }))
}

/// The next one, in `transaction`. Errors: somebody else has made it.
pub fn store(
    transaction: &mut Transaction<'_>,
    options: &Options,
    token: u64,
    sequences: &[i64],
) -> Result<(), SourceError> {
    let table = options.own_table(NAME);
    let statement = if token == 1 {
        // A row with token 0 is as good as none.
        format!(
            "INSERT INTO {table} AS c (relay, token, sequences) VALUES ($1, $2::bigint + 1, $3)
             ON CONFLICT (relay) DO UPDATE SET token = excluded.token,
                 sequences = excluded.sequences WHERE c.token = $2::bigint"
        )
    } else {
        format!(
            "UPDATE {table} SET token = $2::bigint + 1, sequences = $3 WHERE relay = $1 AND token = $2::bigint"
        )
    };
    let before = (token - 1).cast_signed();
    let stored = transaction.execute(&statement, &[&options.claimant(), &before, &sequences]);
    if stored.map_err(|error| failure(NAME, &error))? == 1 {
        return Ok(());
    }
    Err(SourceError::Lost(format!(
        "another instance of relay {} has made claim {token}: it has taken over, or is about to stop",
        options.claimant()
    )))
}

/// What is left to do of the last claim, by what the progress knows. Errors: they do not agree; what
/// that means, and what next.
pub fn recover(mut claim: Claim, progress: Option<&Progress>) -> Result<Claim, String> {
    let (token, rows) = match progress.map(|progress| &progress.position) {
        None => (0, 0),
        Some(Position::Claim { token, rows }) => (*token, *rows),
        Some(other) => {
            return Err(format!(
                "the progress is {other}, and this relay polls: it has read the log before. Let it \
                 read the log until nothing is left; then poll under another name"
            ));
        }
    };
    if claim.token == token.saturating_add(1) {
        return Ok(claim);
    }
    if claim.token == token {
        let rows = usize::try_from(rows).unwrap_or(usize::MAX);
        if rows > claim.sequences.len() && token > 0 {
            return Err(format!(
                "{rows} rows of claim {token} were published, and it has {}: this is another \
                 database's {NAME}",
                claim.sequences.len()
            ));
        }
        claim.handed = rows.min(claim.sequences.len());
        return Ok(claim);
    }
    let has = claim.token;
    if has < token {
        return Err(format!(
            "claim {token} was published, and the database has only come to claim {has}: it was \
             restored from an older copy, or has failed over and lost its last commits. Rows that \
             were published may be in the outbox again: compare, delete those, and then run: UPDATE \
             {NAME} SET token = {token}, sequences = '{{}}' WHERE relay = …"
        ));
    }
    Err(format!(
        "the database has come to claim {has}, and the progress topic only knows of claim {token}: \
         what was published in between is not known to it. Is this another cluster, or was the topic \
         deleted? Going on could publish rows twice. To go on with a fresh start all the same: DELETE \
         FROM {NAME} WHERE relay = …, and delete from the outbox what has been published"
    ))
}

/// Relays of this name with another number of shards, whose last claim still has rows in the outbox:
/// nobody would finish them, and they would be published again.
pub fn unfinished_elsewhere(
    client: &mut Client,
    options: &Options,
    sequence: &str,
) -> Result<Vec<String>, SourceError> {
    let query = format!(
        "SELECT relay FROM {} c
         WHERE ((relay = $1 AND $2 <> '')
                 OR (starts_with(relay, $1 || '#') AND ($2 = '' OR NOT relay LIKE '%' || $2)))
             AND EXISTS (SELECT FROM {} WHERE {sequence} = ANY (c.sequences))
         ORDER BY relay",
        options.own_table(NAME),
        options.quoted_table()
    );
    // How the claims of this number of shards end.
    let layout = match options.shards {
        1 => String::new(),
        shards => format!("/{shards}"),
    };
    let rows = client.query(&query, &[&options.relay, &layout]);
    let rows = rows.map_err(|error| failure(NAME, &error))?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(token: u64, rows: i64) -> Claim {
        Claim {
            token,
            sequences: (1..=rows).collect(),
            ..Claim::default()
        }
    }

    fn recovered(claim: Claim, progress: Option<(u64, u64)>) -> Result<Claim, String> {
        let position = |(token, rows)| Position::Claim { token, rows };
        let progress = progress.map(|known| Progress::new("postgresql:1/d", position(known)));
        recover(claim, progress.as_ref())
    }

    #[test]
    fn the_same_token_is_finished() {
        for rows in 0..=3 {
            let claim = recovered(claim(7, 3), Some((7, rows))).unwrap();
            assert_eq!(claim.handed as u64, rows);
        }
    }

    #[test]
    fn a_token_more_is_handed_out_again() {
        assert_eq!(recovered(claim(8, 3), Some((7, 3))).unwrap().handed, 0);
        assert_eq!(recovered(claim(1, 3), None).unwrap().handed, 0);
        assert_eq!(recovered(Claim::default(), None).unwrap(), Claim::default());
    }

    #[test]
    fn anything_else_is_refused() {
        assert!(
            recovered(claim(6, 3), Some((7, 3)))
                .unwrap_err()
                .contains("older copy")
        );
        assert!(
            recovered(claim(9, 3), Some((7, 3)))
                .unwrap_err()
                .contains("another cluster")
        );
        assert!(
            recovered(claim(2, 3), None)
                .unwrap_err()
                .contains("another cluster")
        );
        assert!(
            recovered(claim(7, 3), Some((7, 4)))
                .unwrap_err()
                .contains("another database")
        );
        let wal = Position::Wal {
            commit_lsn: 1,
            end_lsn: 2,
            rows: 1,
        };
        let progress = Progress::new("postgresql:1:1", wal);
        assert!(
            recover(claim(1, 1), Some(&progress))
                .unwrap_err()
                .contains("polls")
        );
    }
}
