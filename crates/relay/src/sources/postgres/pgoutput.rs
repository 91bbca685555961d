//! The messages of `pgoutput`, PostgreSQL's own plugin for logical decoding, in version 1 of its
//! protocol (<https://www.postgresql.org/docs/current/protocol-logicalrep-message-formats.html>) with
//! `messages 'true'`: whole transactions in the order of their commits, and logical messages.
//!
//! Pure, and of no other module here, so that the fuzz target takes the file as it is.
//!
//! Invariants: decoding never panics; what is decoded borrows from the input, and takes memory in
//! proportion to it; a message is the whole input, without a byte left.

use std::fmt;

/// A place in PostgreSQL's log, in bytes.
pub type Lsn = u64;
/// The number of a table, unique in its database.
pub type Oid = u32;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message<'a> {
    Begin(Begin),
    Commit(Commit),
    /// The transaction came here by replication from elsewhere.
    Origin {
        commit_lsn: Lsn,
        name: &'a [u8],
    },
    /// Before the first change of a table, and again whenever the table has changed.
    Relation(Relation<'a>),
    Type {
        oid: Oid,
        namespace: &'a [u8],
        name: &'a [u8],
    },
    Insert {
        relation: Oid,
        new: Tuple<'a>,
    },
    Update {
        relation: Oid,
        old: Option<Old<'a>>,
        new: Tuple<'a>,
    },
    Delete {
        relation: Oid,
        old: Old<'a>,
    },
    Truncate {
        /// 1: CASCADE, 2: RESTART IDENTITY.
        options: u8,
        relations: Vec<Oid>,
    },
    /// `pg_logical_emit_message`.
    Logical(Logical<'a>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Begin {
    /// Where the commit record begins.
    pub commit_lsn: Lsn,
    /// Microseconds since 2000-01-01.
    pub commit_time: i64,
    pub xid: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Commit {
    /// Not in use.
    pub flags: u8,
    /// That of its [`Begin`].
    pub commit_lsn: Lsn,
    /// Where the commit record ends.
    pub end_lsn: Lsn,
    /// Microseconds since 2000-01-01.
    pub commit_time: i64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Relation<'a> {
    pub oid: Oid,
    pub namespace: &'a [u8],
    pub name: &'a [u8],
    pub replica_identity: u8,
    pub columns: Vec<Column<'a>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Column<'a> {
    /// 1: part of the key.
    pub flags: u8,
    pub name: &'a [u8],
    pub type_oid: Oid,
    pub type_modifier: i32,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Logical<'a> {
    pub flags: u8,
    /// Where the message itself is, which is before its transaction's commit.
    pub lsn: Lsn,
    pub prefix: &'a [u8],
    pub content: &'a [u8],
}

impl Logical<'_> {
    /// Part of a transaction, and so only sent where that has committed.
    pub fn transactional(&self) -> bool {
        self.flags & 1 != 0
    }
}

/// What an UPDATE or DELETE says of the row before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Old<'a> {
    /// Its key alone; the rest is NULL.
    Key(Tuple<'a>),
    /// All of it (`REPLICA IDENTITY FULL`).
    Row(Tuple<'a>),
}

/// A row's values, in the order of its relation's columns.
pub type Tuple<'a> = Vec<Datum<'a>>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Datum<'a> {
    Null,
    /// A large value that the UPDATE left as it was, and that is not sent.
    Unchanged,
    Text(&'a [u8]),
    Binary(&'a [u8]),
}

/// What is wrong with a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DecodeError {
    /// Where, in bytes from its beginning.
    pub offset: usize,
    pub reason: &'static str,
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "a message of pgoutput {} (at byte {})",
            self.reason, self.offset
        )
    }
}

/// Decodes one message, which is all of `bytes`.
pub fn decode(bytes: &[u8]) -> Result<Message<'_>, DecodeError> {
    let mut reader = Reader { bytes, offset: 0 };
    let message = message(&mut reader)?;
    if reader.offset < bytes.len() {
        return Err(reader.error("is longer than it says"));
    }
    Ok(message)
}

fn message<'a>(reader: &mut Reader<'a>) -> Result<Message<'a>, DecodeError> {
    let message = match reader.u8()? {
        b'B' => Message::Begin(Begin {
            commit_lsn: reader.u64()?,
            commit_time: reader.i64()?,
            xid: reader.u32()?,
        }),
        b'C' => Message::Commit(Commit {
            flags: reader.u8()?,
            commit_lsn: reader.u64()?,
            end_lsn: reader.u64()?,
            commit_time: reader.i64()?,
        }),
        b'O' => Message::Origin {
            commit_lsn: reader.u64()?,
            name: reader.string()?,
        },
        b'R' => Message::Relation(relation(reader)?),
        b'Y' => Message::Type {
            oid: reader.u32()?,
            namespace: reader.string()?,
            name: reader.string()?,
        },
        b'I' => {
            let relation = reader.u32()?;
            match reader.u8()? {
                b'N' => Message::Insert {
                    relation,
                    new: tuple(reader)?,
                },
                _ => return Err(reader.error("is an INSERT without a row")),
            }
        }
        b'U' => update(reader)?,
        b'D' => {
            let relation = reader.u32()?;
            let kind = reader.u8()?;
            let old = old(kind, reader)?;
            Message::Delete { relation, old }
        }
        b'T' => truncate(reader)?,
        b'M' => Message::Logical(Logical {
            flags: reader.u8()?,
            lsn: reader.u64()?,
            prefix: reader.string()?,
            content: reader.counted()?,
        }),
        _ => {
            reader.offset = 0;
            return Err(reader.error("is of a kind that version 1 does not have"));
        }
    };
    Ok(message)
}

fn relation<'a>(reader: &mut Reader<'a>) -> Result<Relation<'a>, DecodeError> {
    let oid = reader.u32()?;
    let namespace = reader.string()?;
    let name = reader.string()?;
    let replica_identity = reader.u8()?;
    let count = reader.u16()?;
    // Flags, an empty name, type and modifier: nothing is shorter.
    let mut columns = Vec::with_capacity(usize::from(count).min(reader.left() / 10));
    for _ in 0..count {
        columns.push(Column {
            flags: reader.u8()?,
            name: reader.string()?,
            type_oid: reader.u32()?,
            type_modifier: reader.i32()?,
        });
    }
    Ok(Relation {
        oid,
        namespace,
        name,
        replica_identity,
        columns,
    })
}

fn update<'a>(reader: &mut Reader<'a>) -> Result<Message<'a>, DecodeError> {
    let relation = reader.u32()?;
    let mut kind = reader.u8()?;
    let mut before = None;
    if kind != b'N' {
        before = Some(old(kind, reader)?);
        kind = reader.u8()?;
    }
    if kind != b'N' {
        return Err(reader.error("is an UPDATE without a row"));
    }
    Ok(Message::Update {
        relation,
        old: before,
        new: tuple(reader)?,
    })
}

fn old<'a>(kind: u8, reader: &mut Reader<'a>) -> Result<Old<'a>, DecodeError> {
    match kind {
        b'K' => Ok(Old::Key(tuple(reader)?)),
        b'O' => Ok(Old::Row(tuple(reader)?)),
        _ => Err(reader.error("has neither an old key nor an old row")),
    }
}

fn truncate<'a>(reader: &mut Reader<'a>) -> Result<Message<'a>, DecodeError> {
    let count = usize::try_from(reader.u32()?).unwrap_or(usize::MAX);
    let options = reader.u8()?;
    let mut relations = Vec::with_capacity(count.min(reader.left() / 4));
    for _ in 0..count {
        relations.push(reader.u32()?);
    }
    Ok(Message::Truncate { options, relations })
}

fn tuple<'a>(reader: &mut Reader<'a>) -> Result<Tuple<'a>, DecodeError> {
    let count = reader.u16()?;
    let mut values = Vec::with_capacity(usize::from(count).min(reader.left()));
    for _ in 0..count {
        values.push(match reader.u8()? {
            b'n' => Datum::Null,
            b'u' => Datum::Unchanged,
            b't' => Datum::Text(reader.counted()?),
            b'b' => Datum::Binary(reader.counted()?),
            _ => return Err(reader.error("has a value of an unknown kind")),
        });
    }
    Ok(values)
}

struct Reader<'a> {
    bytes: &'a [u8],
    offset: usize,
}

impl<'a> Reader<'a> {
    fn error(&self, reason: &'static str) -> DecodeError {
        DecodeError {
            offset: self.offset,
            reason,
        }
    }

    fn left(&self) -> usize {
        self.bytes.len() - self.offset
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], DecodeError> {
        let rest = &self.bytes[self.offset..];
        let taken = rest.get(..count).ok_or(self.error("is cut off"))?;
        self.offset += count;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let rest = &self.bytes[self.offset..];
        let taken = rest.first_chunk().ok_or(self.error("is cut off"))?;
        self.offset += N;
        Ok(*taken)
    }

    fn u8(&mut self) -> Result<u8, DecodeError> {
        Ok(u8::from_be_bytes(self.array()?))
    }

    fn u16(&mut self) -> Result<u16, DecodeError> {
        Ok(u16::from_be_bytes(self.array()?))
    }

    fn u32(&mut self) -> Result<u32, DecodeError> {
        Ok(u32::from_be_bytes(self.array()?))
    }

    fn i32(&mut self) -> Result<i32, DecodeError> {
        Ok(i32::from_be_bytes(self.array()?))
    }

    fn u64(&mut self) -> Result<u64, DecodeError> {
        Ok(u64::from_be_bytes(self.array()?))
    }

    fn i64(&mut self) -> Result<i64, DecodeError> {
        Ok(i64::from_be_bytes(self.array()?))
    }

    /// Up to a zero byte, which is taken and not part of it.
    fn string(&mut self) -> Result<&'a [u8], DecodeError> {
        let rest = &self.bytes[self.offset..];
        let length = rest.iter().position(|byte| *byte == 0);
        let string = self.take(length.ok_or(self.error("has a name without an end"))?)?;
        self.offset += 1;
        Ok(string)
    }

    /// A length, and as many bytes.
    fn counted(&mut self) -> Result<&'a [u8], DecodeError> {
        let length = self.i32()?;
        let length = usize::try_from(length).map_err(|_| self.error("has a length below 0"))?;
        self.take(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(bytes: &[u8], expected: Message<'_>) {
        assert_eq!(decode(bytes), Ok(expected));
        for shorter in 0..bytes.len() {
            assert!(decode(&bytes[..shorter]).is_err(), "cut off at {shorter}");
        }
        let longer = [bytes, &[0]].concat();
        assert!(decode(&longer).is_err());
    }

    #[test]
    fn a_transaction_begins_and_commits() {
        let begin = Begin {
            commit_lsn: 0x0102,
            commit_time: -1,
            xid: 7,
        };
        let bytes = [
            &b"B"[..],
            &0x0102u64.to_be_bytes(),
            &[0xFF; 8],
            &7u32.to_be_bytes(),
        ]
        .concat();
        check(&bytes, Message::Begin(begin));
        let commit = Commit {
            flags: 0,
            commit_lsn: 0x0102,
            end_lsn: 0x0132,
            commit_time: 5,
        };
        let lsns = [0x0102u64.to_be_bytes(), 0x0132u64.to_be_bytes()].concat();
        let bytes = [&b"C\0"[..], &lsns, &5u64.to_be_bytes()].concat();
        check(&bytes, Message::Commit(commit));
    }

    #[test]
    fn a_table_is_described() {
        let bytes = b"R\0\0\0\x09public\0outbox\0d\0\x01\x01id\0\0\0\x0b\x86\xFF\xFF\xFF\xFF";
        let id = Column {
            flags: 1,
            name: b"id",
            type_oid: 2950,
            type_modifier: -1,
        };
        let relation = Relation {
            oid: 9,
            namespace: b"public",
            name: b"outbox",
            replica_identity: b'd',
            columns: vec![id],
        };
        check(bytes, Message::Relation(relation));
    }

    #[test]
    fn rows_are_told_apart() {
        let new = vec![
            Datum::Text(b"ab"),
            Datum::Null,
            Datum::Unchanged,
            Datum::Binary(b""),
        ];
        let tuple = b"\0\x04t\0\0\0\x02abnub\0\0\0\0";
        let row = |head: &[u8]| [head, &tuple[..]].concat();
        let relation = 9;
        let insert = Message::Insert {
            relation,
            new: new.clone(),
        };
        check(&row(b"I\0\0\0\x09N"), insert);
        let update = |old| Message::Update {
            relation,
            old,
            new: new.clone(),
        };
        check(&row(b"U\0\0\0\x09N"), update(None));
        let key = Old::Key(vec![Datum::Null]);
        check(&row(b"U\0\0\0\x09K\0\x01nN"), update(Some(key)));
        let old = Old::Row(new.clone());
        check(&row(b"D\0\0\0\x09O"), Message::Delete { relation, old });
    }

    #[test]
    fn the_other_kinds() {
        let relations = vec![1, 2];
        let truncate = Message::Truncate {
            options: 3,
            relations,
        };
        check(b"T\0\0\0\x02\x03\0\0\0\x01\0\0\0\x02", truncate);
        let origin = Message::Origin {
            commit_lsn: 1,
            name: b"o",
        };
        check(b"O\0\0\0\0\0\0\0\x01o\0", origin);
        let own = Message::Type {
            oid: 1,
            namespace: b"",
            name: b"mood",
        };
        check(b"Y\0\0\0\x01\0mood\0", own);
        let logical = Logical {
            flags: 1,
            lsn: 2,
            prefix: b"outbox",
            content: b"{}",
        };
        assert!(logical.transactional());
        check(
            b"M\x01\0\0\0\0\0\0\0\x02outbox\0\0\0\0\x02{}",
            Message::Logical(logical),
        );
    }

    #[test]
    fn what_is_none_is_refused() {
        let refused = |bytes: &[u8]| decode(bytes).unwrap_err().to_string();
        assert!(refused(b"").contains("cut off"));
        assert!(refused(b"S").contains("version 1"));
        assert!(refused(b"I\0\0\0\x09N\xFF\xFF").contains("cut off"));
        assert!(refused(b"I\0\0\0\x09N\0\x01t\xFF\xFF\xFF\xFF").contains("below 0"));
        assert!(refused(b"T\xFF\xFF\xFF\xFF\0").contains("cut off"));
    }
}
