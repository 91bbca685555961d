//! Polling with a claim token: rows are claimed under a token that only grows, one claim at a time,
//! published with the token as the progress, and deleted with the claim afterwards. Whoever opens the
//! source anew finds the claim: the progress says whether its rows are published.
//!
//! A claim of a connection that was lost may come to be later than the next one has opened the source:
//! then the next one finds it when it wants to claim, and begins anew.

use super::DatabaseConnection;
use super::outbox::{Row, gap, not_open, other_kind};
use oncelog_relay::position::Position;
use oncelog_relay::source::SourceError;
use std::collections::BTreeMap;

#[derive(Default)]
pub struct Claims {
    claim: Option<Claim>,
    /// The last token that was given, and the last whose rows are deleted.
    token: u64,
    confirmed: u64,
    /// For each connection that has opened the source, the claim that it hands out, from which row on.
    readers: BTreeMap<DatabaseConnection, Option<(u64, u64)>>,
}

struct Claim {
    token: u64,
    rows: Vec<i64>,
    /// Without a progress, how many of them are done.
    done: u64,
}

impl Claims {
    pub fn crash(&mut self) {
        self.readers.clear();
    }

    pub fn forget(&mut self, connection: DatabaseConnection) {
        self.readers.remove(&connection);
    }

    pub fn open(
        &mut self,
        connection: DatabaseConnection,
        position: Option<&Position>,
        exactly_once: bool,
        table: &mut BTreeMap<i64, Row>,
    ) -> Result<(), SourceError> {
        let (token, rows) = match position {
            Some(Position::Claim { token, rows }) => (*token, *rows),
            Some(other) => return Err(other_kind(other)),
            None => (0, 0),
        };
        if exactly_once && self.confirmed > token {
            return Err(gap(&self.confirmed, &token));
        }
        if token > self.token {
            return Err(SourceError::Refused(format!(
                "token {token} was never given"
            )));
        }
        let mut handing = None;
        if let Some(claim) = &self.claim {
            handing = match () {
                () if !exactly_once => Some((claim.token, claim.done)),
                () if claim.token == token => Some((token, rows)),
                () if claim.token > token => Some((claim.token, 0)),
                () => return Err(gap(&token, &claim.token)),
            };
            let published = claim.token == token && rows == claim.rows.len() as u64;
            if exactly_once && published {
                self.delete(table);
                handing = None;
            }
        }
        self.readers.insert(connection, handing);
        Ok(())
    }

    pub fn read(
        &mut self,
        connection: DatabaseConnection,
        rows_max: usize,
        table: &BTreeMap<i64, Row>,
    ) -> Result<Vec<(Row, Position)>, SourceError> {
        let handing = self.readers.get_mut(&connection).ok_or_else(not_open)?;
        let token = handing.map(|(token, _)| token);
        if self
            .claim
            .as_ref()
            .is_some_and(|claim| token != Some(claim.token))
        {
            return Err(not_open());
        }
        if self.claim.is_none() {
            // Claimed by their numbers: those of one aggregate are in the order of their commits.
            let rows: Vec<i64> = table.keys().take(rows_max).copied().collect();
            if rows.is_empty() {
                return Ok(Vec::new());
            }
            self.token += 1;
            let (token, done) = (self.token, 0);
            self.claim = Some(Claim { token, rows, done });
            *handing = Some((token, 0));
        }
        let (Some(claim), Some((token, from))) = (&self.claim, handing) else {
            return Ok(Vec::new());
        };
        let left = claim
            .rows
            .iter()
            .enumerate()
            .skip(*from as usize)
            .take(rows_max);
        let rows = left.map(|(index, sequence)| {
            let rows = index as u64 + 1;
            let token = *token;
            (table[sequence].clone(), Position::Claim { token, rows })
        });
        let rows: Vec<_> = rows.collect();
        *from += rows.len() as u64;
        Ok(rows)
    }

    pub fn confirm(
        &mut self,
        position: &Position,
        table: &mut BTreeMap<i64, Row>,
    ) -> Result<(), SourceError> {
        let Position::Claim { token, rows } = *position else {
            return Err(other_kind(position));
        };
        match &mut self.claim {
            Some(claim) if claim.token == token => {
                claim.done = claim.done.max(rows);
                if rows == claim.rows.len() as u64 {
                    self.delete(table);
                }
                Ok(())
            }
            // Whoever has opened it since has found it published, and deleted it.
            _ if token <= self.confirmed => Ok(()),
            _ => Err(SourceError::Refused(format!(
                "token {token} is not claimed"
            ))),
        }
    }

    fn delete(&mut self, table: &mut BTreeMap<i64, Row>) {
        let claim = self.claim.take().expect("there is one to delete");
        self.confirmed = claim.token;
        for sequence in claim.rows {
            table.remove(&sequence);
        }
    }
}
