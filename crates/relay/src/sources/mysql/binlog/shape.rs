//! How the rows of one table-map event are read: its types, brought together with the names and kinds of
//! the outbox's columns.

use std::sync::Arc;

use mysql::binlog::events::{OptionalMetaExtractor, TableMapEvent};
use mysql::binlog::value::BinlogValue;
use mysql::consts::ColumnType;
use mysql_common::io::ParseBuf;

use super::columns::{Column, Kind};
use super::value::convert;
use crate::row::{Columns, Value};

pub(super) struct Shape {
    pub columns: Columns,
    fields: Vec<Field>,
}

struct Field {
    column_type: ColumnType,
    metadata: Vec<u8>,
    kind: Kind,
    decimals: u8,
    generated: bool,
}

/// One image of a row.
pub(super) struct Image {
    pub values: Vec<Value>,
}

impl Shape {
    /// Errors: where the event and what the server says of the table now do not fit together.
    pub fn new(event: &TableMapEvent<'_>, known: &[Column]) -> Result<Shape, String> {
        let count = usize::try_from(event.columns_count()).unwrap_or(usize::MAX);
        let names = names(event)?;
        let columns: Vec<&Column> = match &names {
            // The event says them by itself: the table may have others by now.
            Some(names) if names.len() == count => {
                let find = |name: &String| known.iter().find(|column| column.name == *name);
                let all = names.iter().map(|name| {
                    find(name).ok_or_else(|| format!("the column {name} is not there any more"))
                });
                all.collect::<Result<_, _>>()?
            }
            _ if known.len() == count => known.iter().collect(),
            _ => {
                return Err(format!(
                    "it had {count} columns, and has {} now",
                    known.len()
                ));
            }
        };
        let fields: Result<Vec<Field>, String> = columns
            .iter()
            .enumerate()
            .map(|(i, column)| field(event, i, column))
            .collect();
        Ok(Shape {
            columns: columns.iter().map(|column| column.name.clone()).collect(),
            fields: fields?,
        })
    }

    pub fn len(&self) -> usize {
        self.fields.len()
    }

    /// One image from the front of `buffer`. `present` has a bit for each column that it holds.
    pub fn read<'a>(&'a self, present: &[u8], buffer: &mut ParseBuf<'a>) -> Result<Image, String> {
        let is_set = |bits: &[u8], i: usize| {
            bits.get(i / 8)
                .is_some_and(|byte| byte & (1 << (i % 8)) != 0)
        };
        let count = (0..self.fields.len())
            .filter(|i| is_set(present, *i))
            .count();
        let nulls = buffer
            .checked_eat(count.div_ceil(8))
            .ok_or("the row ends early")?;
        let mut place = 0;
        let mut values = Vec::with_capacity(self.fields.len());
        for (i, field) in self.fields.iter().enumerate() {
            let value = if !is_set(present, i) {
                field.absent().ok_or_else(|| self.incomplete(i))?
            } else {
                place += 1;
                if is_set(nulls, place - 1) {
                    Value::Null
                } else {
                    field
                        .read(buffer)
                        .map_err(|why| format!("{}: {why}", self.columns[i]))?
                }
            };
            values.push(value);
        }
        Ok(Image { values })
    }

    fn incomplete(&self, index: usize) -> String {
        format!(
            "a row came without its {}: the session that wrote it had another binlog_row_image \
            than FULL",
            self.columns[index]
        )
    }
}

impl Field {
    /// What stands for a value that is not in the row.
    fn absent(&self) -> Option<Value> {
        self.generated.then_some(Value::Null)
    }

    fn read<'a>(&'a self, buffer: &mut ParseBuf<'a>) -> Result<Value, String> {
        let unsigned = matches!(self.kind, Kind::Integer { unsigned: true });
        let context = (self.column_type, self.metadata.as_slice(), unsigned, false);
        let value = buffer
            .parse::<BinlogValue<'_>>(context)
            .map_err(|error| error.to_string())?;
        let value = convert(&self.kind, value, self.decimals)?;
        Ok(match value {
            // The library reads the three bytes of a MEDIUMINT without their sign.
            Value::Int(number) if self.is_signed_medium() && number >= 1 << 23 => {
                Value::Int(number - (1 << 24))
            }
            value => value,
        })
    }
}

impl Field {
    fn is_signed_medium(&self) -> bool {
        let signed = self.kind == Kind::Integer { unsigned: false };
        signed && self.column_type == ColumnType::MYSQL_TYPE_INT24
    }
}

fn field(event: &TableMapEvent<'_>, index: usize, column: &Column) -> Result<Field, String> {
    let name = &column.name;
    let column_type = event.get_column_type(index).ok().flatten();
    let column_type = column_type
        .ok_or_else(|| format!("the column {name} is of a type that this program does not know"))?;
    if !column.kind.accepts(column_type) {
        let kind = &column.kind;
        return Err(format!(
            "the column {name} was {column_type:?}, and is {kind:?} now"
        ));
    }
    let metadata = event.get_column_metadata(index);
    let metadata = metadata.ok_or_else(|| format!("nothing describes the column {name}"))?;
    let has_decimals = matches!(
        column_type,
        ColumnType::MYSQL_TYPE_TIMESTAMP2
            | ColumnType::MYSQL_TYPE_DATETIME2
            | ColumnType::MYSQL_TYPE_TIME2
    );
    Ok(Field {
        column_type,
        metadata: metadata.to_vec(),
        kind: column.kind.clone(),
        decimals: if has_decimals {
            metadata.first().copied().unwrap_or(0)
        } else {
            0
        },
        generated: column.generated,
    })
}

/// With `binlog_row_metadata=FULL`.
fn names(event: &TableMapEvent<'_>) -> Result<Option<Vec<String>>, String> {
    let wrong = |error: std::io::Error| format!("its description is damaged: {error}");
    let metadata = OptionalMetaExtractor::new(event.iter_optional_meta()).map_err(wrong)?;
    let names = metadata.iter_column_name();
    let names = names.map(|name| name.map(|name| name.name().into_owned()));
    let names: Vec<String> = names.collect::<Result<_, _>>().map_err(wrong)?;
    Ok(if names.is_empty() { None } else { Some(names) })
}

/// The names that rows share, so that whoever resolves names does it once.
pub(super) fn shared(shape: Shape, before: Option<&Arc<Shape>>) -> Arc<Shape> {
    match before {
        Some(before) if before.columns == shape.columns => Arc::new(Shape {
            columns: Arc::clone(&before.columns),
            ..shape
        }),
        _ => Arc::new(shape),
    }
}
