//! A claim: which rows one batch is of, in their order, under a token that only grows. Stored in the
//! database before any of its rows is published, so that after a crash the same rows make the same batch
//! (outbox-facts.md, section 3).
//!
//! Rows are named one by one, never by "from here on": a number that is missing today may be of a
//! transaction that commits tomorrow.

use mysql::Conn;
use mysql::prelude::Queryable;
use serde_json::Value as Json;

use super::connection::failed;
use super::tables::Tables;
use crate::source::SourceError;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Claim {
    /// 0: nothing was ever claimed.
    pub token: u64,
    /// Ascending. Empty once all of them are done with.
    pub sequences: Vec<u64>,
}

/// In the table, runs of numbers are `[first, last]`.
pub(super) fn encode(sequences: &[u64]) -> String {
    let mut runs: Vec<(u64, u64)> = Vec::new();
    for sequence in sequences {
        match runs.last_mut() {
            Some((_, last)) if last.checked_add(1) == Some(*sequence) => *last = *sequence,
            _ => runs.push((*sequence, *sequence)),
        }
    }
    let run = |(first, last): &(u64, u64)| match first == last {
        true => Json::from(*first),
        false => Json::from(vec![*first, *last]),
    };
    Json::from(runs.iter().map(run).collect::<Vec<Json>>()).to_string()
}

/// Of one claim; more is not what this program has written.
const SEQUENCES_MAX: u64 = 10_000_000;

fn decode(text: &str) -> Option<Vec<u64>> {
    let runs: Vec<Json> = serde_json::from_str(text).ok()?;
    let mut sequences = Vec::new();
    let mut count = 0;
    for run in &runs {
        let (first, last) = match run {
            Json::Array(both) => (both.first()?.as_u64()?, both.get(1)?.as_u64()?),
            one => (one.as_u64()?, one.as_u64()?),
        };
        count += last.checked_sub(first)?.checked_add(1)?;
        if count > SEQUENCES_MAX || sequences.last().is_some_and(|before| *before >= first) {
            return None;
        }
        sequences.extend(first..=last);
    }
    Some(sequences)
}

pub(super) fn load(conn: &mut Conn, tables: &Tables, key: &str) -> Result<Claim, SourceError> {
    let table = &tables.claim;
    let asked = format!("SELECT token, sequences FROM {table} WHERE relay = ?");
    let row: Option<(u64, String)> = conn
        .exec_first(asked, (key,))
        .map_err(|error| failed("reading the claim", error))?;
    let Some((token, text)) = row else {
        return Ok(Claim::default());
    };
    let sequences = decode(&text).ok_or_else(|| {
        SourceError::Refused(format!(
            "the row of {key} in {table} is damaged: {text:.100}"
        ))
    })?;
    Ok(Claim { token, sequences })
}

/// Replaces the claim under the token `before` (0: there is none), of which all rows must be done with.
/// Fails as lost where another instance was faster.
pub(super) fn store(
    conn: &mut Conn,
    tables: &Tables,
    key: &str,
    before: u64,
    claim: &Claim,
) -> Result<(), SourceError> {
    let sequences = encode(&claim.sequences);
    let table = &tables.claim;
    let first = format!("INSERT INTO {table} (token, sequences, relay) VALUES (?, ?, ?)");
    let next =
        format!("UPDATE {table} SET token = ?, sequences = ? WHERE relay = ? AND token = {before}");
    let statement = if before == 0 { first } else { next };
    let stored = conn.exec_drop(statement, (claim.token, &sequences, key));
    let faster = || {
        let token = claim.token;
        SourceError::Lost(format!(
            "another instance of {key} has made the claim {token}"
        ))
    };
    match stored {
        Ok(()) if conn.affected_rows() == 1 => Ok(()),
        Ok(()) => Err(faster()),
        Err(mysql::Error::MySqlError(error)) if error.code == DUPLICATE => Err(faster()),
        Err(error) => Err(failed("claiming rows", error)),
    }
}

/// `ER_DUP_ENTRY`
const DUPLICATE: u16 = 1062;

/// Claims of the same relay with another number of shards, whose rows are not done with: they may have
/// been published and would be claimed again.
pub(super) fn of_other_shards(
    conn: &mut Conn,
    tables: &Tables,
    relay: &str,
    shards: u32,
) -> Result<Option<String>, SourceError> {
    let asked = format!("SELECT relay FROM {} WHERE sequences <> '[]'", tables.claim);
    let keys: Vec<String> = conn
        .query(asked)
        .map_err(|error| failed("reading the claims", error))?;
    Ok(keys.into_iter().find(|key| {
        let of = key
            .strip_prefix(relay)
            .map(|rest| match rest.split_once('/') {
                Some((shard, of)) if shard.starts_with('#') => of.parse::<u32>().ok(),
                None if rest.is_empty() => Some(1),
                _ => None,
            });
        of.flatten().is_some_and(|of| of != shards)
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequences_are_stored_as_runs() {
        for (sequences, text) in [
            (vec![], "[]"),
            (vec![7], "[7]"),
            (vec![1, 2, 3, 5, 8, 9], "[[1,3],5,[8,9]]"),
            (
                vec![u64::MAX - 1, u64::MAX],
                "[[18446744073709551614,18446744073709551615]]",
            ),
        ] {
            assert_eq!(encode(&sequences), text);
            assert_eq!(decode(text), Some(sequences));
        }
    }

    #[test]
    fn what_was_not_written_here_is_not_read() {
        for text in [
            "",
            "{}",
            "[[3,1]]",
            "[5,4]",
            "[[0,18446744073709551615]]",
            "[\"a\"]",
            "[[1]]",
        ] {
            assert_eq!(decode(text), None, "{text}");
        }
    }
}
