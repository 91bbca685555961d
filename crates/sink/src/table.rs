//! The table that a sink writes to, as its database describes it.

/// One value on its way into a column.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    /// Also what the database itself reads from text: numeric, uuid, json, timestamps.
    Text(String),
    Bytes(Vec<u8>),
}

/// What a column can hold, as far as JSON has to be turned into it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    Bool,
    /// `bools`: the database writes its booleans into it.
    Int {
        min: i64,
        max: i64,
        bools: bool,
    },
    Float,
    /// Any number, with all its digits: goes as text.
    Number,
    Text,
    Json,
    Bytes,
    Uuid,
    /// A date with a time. `iso`: the database reads RFC 3339 itself.
    Timestamp {
        iso: bool,
    },
    /// SQLite: whatever comes.
    Any,
    /// The database reads it from text.
    Other,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Column {
    pub name: String,
    pub kind: Kind,
    /// The database's own name of it, which its SQL understands.
    pub type_name: String,
    pub nullable: bool,
    /// Has a default, is generated, or counts itself: a row may come without it.
    pub optional: bool,
    /// Two values are equal to the database if and only if they are the same [`Value`]. Not so for text
    /// that is compared without regard to case, or numbers that are written in several ways.
    pub exact: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Table {
    pub name: String,
    pub columns: Vec<Column>,
    /// The columns of each unique index without a condition, the primary key among them.
    pub unique: Vec<Vec<String>>,
}

impl Table {
    pub fn column(&self, name: &str) -> Option<&Column> {
        self.columns.iter().find(|column| column.name == name)
    }
}

/// Two names for the smallest and the greatest value of an integer of so many bits.
pub fn int(bits: u32, bools: bool) -> Kind {
    let max = i64::MAX >> (64 - bits);
    Kind::Int {
        min: -max - 1,
        max,
        bools,
    }
}
