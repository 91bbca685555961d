//! The outbox as a reader of the binlog knows it: its name, its columns, and the shapes of its rows.

use std::sync::Arc;

use mysql::binlog::events::TableMapEvent;

use super::super::connection::Database;
use super::super::options::Options;
use super::columns::{self, Column};
use super::shape::{Shape, shared};
use crate::row::Value;
use crate::source::SourceError;

pub(super) struct Outbox {
    options: Options,
    database: Database,
    /// Names of tables differ in case only.
    ignores_case: bool,
    columns: Vec<Column>,
    stale: bool,
    /// Of each id that the server has used for the outbox in this stream.
    shapes: Vec<(u64, Arc<Shape>)>,
    /// The last one, with the description that it was made from: the next is nearly always the same.
    last: Option<(Vec<u8>, Arc<Shape>)>,
}

/// A table gets another id when it is opened anew; only the last ones are in use.
const SHAPES_MAX: usize = 16;
/// In a table map, the table's id and flags come before what describes it.
const DESCRIPTION: usize = 8;

impl Outbox {
    pub fn new(
        options: Options,
        database: Database,
        ignores_case: bool,
        columns: Vec<Column>,
    ) -> Outbox {
        Outbox {
            options,
            database,
            ignores_case,
            columns,
            stale: false,
            shapes: Vec::new(),
            last: None,
        }
    }

    pub fn name(&self) -> &str {
        &self.database.tables.name
    }

    pub fn is(&self, database: &[u8], name: &[u8]) -> bool {
        let tables = &self.database.tables;
        let same = |one: &str, other: &[u8]| {
            one.as_bytes() == other
                || (self.ignores_case && one.as_bytes().eq_ignore_ascii_case(other))
        };
        same(&tables.name, name) && same(&tables.database, database)
    }

    /// Another file, or another stream: ids of tables begin anew.
    pub fn forget_tables(&mut self) {
        self.shapes.clear();
    }

    pub fn columns_changed(&mut self) {
        self.stale = true;
    }

    pub fn shape(&self, id: u64) -> Option<Arc<Shape>> {
        let found = self.shapes.iter().rev().find(|(known, _)| *known == id);
        found.map(|(_, shape)| Arc::clone(shape))
    }

    /// Asks the server for the columns again where they do not fit.
    pub fn learn(
        &mut self,
        id: u64,
        data: &[u8],
        map: &TableMapEvent<'_>,
    ) -> Result<(), SourceError> {
        let description = data.get(DESCRIPTION..).unwrap_or_default();
        let same = match &self.last {
            Some((known, shape)) if !self.stale && known == description => Some(Arc::clone(shape)),
            _ => None,
        };
        let shape = match same {
            Some(shape) => shape,
            None => self.make(map)?,
        };
        self.last = Some((description.to_vec(), Arc::clone(&shape)));
        self.shapes.retain(|(known, _)| *known != id);
        if self.shapes.len() == SHAPES_MAX {
            self.shapes.remove(0);
        }
        self.shapes.push((id, shape));
        Ok(())
    }

    fn make(&mut self, map: &TableMapEvent<'_>) -> Result<Arc<Shape>, SourceError> {
        let before = self.last.as_ref().map(|(_, shape)| Arc::clone(shape));
        if !self.stale
            && let Ok(shape) = Shape::new(map, &self.columns)
        {
            return Ok(shared(shape, before.as_ref()));
        }
        self.columns = columns::load(&mut self.database.connect()?, &self.database.tables)?;
        self.stale = false;
        match Shape::new(map, &self.columns) {
            Ok(shape) => Ok(shared(shape, before.as_ref())),
            Err(why) => Err(SourceError::Refused(format!(
                "the outbox {} was altered after rows were written that the relay has yet to read: \
                {why}. Alter it back, let the relay read on, and alter it when nothing is waiting; \
                with binlog_row_metadata=FULL, columns can be added at any time",
                self.database.tables.outbox
            ))),
        }
    }

    /// Whether a row is of this relay's shard.
    pub fn owns(&self, shape: &Shape, values: &[Value]) -> Result<bool, SourceError> {
        if self.options.shards == 1 {
            return Ok(true);
        }
        let column = &self.options.shard_column;
        let index = shape.columns.iter().position(|name| name == column);
        let Some(index) = index else {
            return Err(SourceError::Refused(format!(
                "the outbox has no shard.column {column}"
            )));
        };
        Ok(match values.get(index) {
            Some(Value::Text(text)) => self.options.owns(text.as_bytes()),
            Some(Value::Bytes(bytes)) => self.options.owns(bytes),
            Some(Value::Int(number)) => self.options.owns(number.to_string().as_bytes()),
            // As with polling, where CRC32(NULL) is NULL and 0 stands for it.
            _ => self.options.shard == 0,
        })
    }
}
