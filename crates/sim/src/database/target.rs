//! The database that the sink writes to: the offsets with their epochs, the inbox, and the rows in the
//! order in which they came.

use oncelog_sink::mapping::Change;
use oncelog_sink::record::TopicPartition;
use oncelog_sink::table::{Column, Kind, Table, Value, int};
use oncelog_sink::target::{
    Applied, Claim, Effect, Move, Request, TargetError, Transaction, fenced, other_cluster,
};
use std::collections::{BTreeMap, BTreeSet};

/// The columns, and what the sink's configuration fills them from.
pub const COLUMNS: [(&str, &str); 5] = [
    ("id", "header.id"),
    ("aggregate", "value.aggregate"),
    ("version", "value.version"),
    ("place", "partition"),
    ("at", "offset"),
];

/// What a record has left in the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    pub id: String,
    pub aggregate: u32,
    pub version: u32,
    pub partition: i32,
    pub offset: i64,
}

struct Stored {
    epoch: i64,
    next_offset: i64,
    cluster: String,
}

#[derive(Default)]
pub struct Target {
    offsets: BTreeMap<TopicPartition, Stored>,
    inbox: BTreeSet<String>,
    pub lines: Vec<Line>,
    /// What an instance has written whose partition another had claimed by then.
    pub written_late: Option<Move>,
}

pub fn table() -> Table {
    let column = |(name, _): &(&str, &str)| {
        let kind = match *name {
            "id" => Kind::Text,
            _ => int(64, false),
        };
        Column {
            name: (*name).to_owned(),
            kind,
            type_name: format!("{kind:?}"),
            nullable: false,
            optional: false,
            exact: true,
        }
    };
    Table {
        name: "orders".to_owned(),
        columns: COLUMNS.iter().map(column).collect(),
        unique: Vec::new(),
    }
}

impl Target {
    pub fn claim(
        &mut self,
        cluster: &str,
        requests: &[Request],
    ) -> Result<Vec<Claim>, TargetError> {
        for request in requests {
            let stored = self.offsets.get(&request.partition);
            let stored = stored.map_or("", |stored| stored.cluster.as_str());
            if let Some(reason) = other_cluster(&request.partition, stored, cluster) {
                return Err(TargetError::Refused(reason));
            }
        }
        let claims = requests.iter().map(|request| {
            let stored = self
                .offsets
                .entry(request.partition.clone())
                .or_insert(Stored {
                    epoch: 0,
                    next_offset: request.first,
                    cluster: cluster.to_owned(),
                });
            stored.epoch += 1;
            Claim {
                partition: request.partition.clone(),
                epoch: stored.epoch,
                next_offset: stored.next_offset,
            }
        });
        Ok(claims.collect())
    }

    pub fn apply(&mut self, transaction: &Transaction) -> Result<Applied, TargetError> {
        for moved in &transaction.moves {
            self.check(moved)?;
        }
        let mut applied = Applied::default();
        let with_inbox = !transaction.moves.is_empty();
        let mut lines = Vec::new();
        let mut new_ids = BTreeSet::new();
        for (index, entry) in transaction.entries().iter().enumerate() {
            if let Some(id) = entry.event_id.as_ref().filter(|_| with_inbox)
                && (self.inbox.contains(id.as_ref()) || !new_ids.insert(id.to_string()))
            {
                applied.duplicates += 1;
                continue;
            }
            let line = match &entry.effect {
                Effect::Change(Change::Put(values)) => line(values),
                _ => None,
            };
            let rejected = || TargetError::Rejected {
                index: Some(index),
                reason: "no such row can be".to_owned(),
            };
            lines.push(line.ok_or_else(rejected)?);
        }
        for moved in &transaction.moves {
            let stored = self
                .offsets
                .get_mut(&moved.partition)
                .expect("it was checked");
            if stored.epoch != moved.epoch {
                self.written_late = Some(moved.clone());
            }
            stored.next_offset = moved.to;
        }
        self.inbox.extend(new_ids);
        self.lines.extend(lines);
        Ok(applied)
    }

    fn check(&self, moved: &Move) -> Result<(), TargetError> {
        let stored = self.offsets.get(&moved.partition);
        let fits = stored.is_some_and(|stored| moved.fits(stored.epoch, stored.next_offset));
        if fits { Ok(()) } else { Err(fenced(moved)) }
    }
}

/// The values in the order of the columns' names, as the sink's mapping has them.
fn line(values: &[Value]) -> Option<Line> {
    let [
        Value::Int(aggregate),
        Value::Int(at),
        Value::Text(id),
        Value::Int(place),
        Value::Int(version),
    ] = values
    else {
        return None;
    };
    Some(Line {
        id: id.clone(),
        aggregate: u32::try_from(*aggregate).ok()?,
        version: u32::try_from(*version).ok()?,
        partition: i32::try_from(*place).ok()?,
        offset: *at,
    })
}
