//! What a PostgreSQL server streams to the relay: messages of `pgoutput`, from bytes of anybody.
//!
//! Asserted: decoding does not panic, and holds no more memory than the input's length allows; what
//! was decoded and is written again, by the second writer here, is the input to the byte, so that no
//! byte was read twice, passed over or made up; an error says where, within the input.
//!
//! Not here: the frames around the messages, and what they mean to an outbox.

use crate::counting::peak_of;
use crate::pgoutput_decoder::{Column, Datum, Message, Old, decode};

/// A value of an unknown kind takes a byte on the wire and 24 in memory; a column takes 10, and 32.
const MEMORY_PER_BYTE: usize = 32;
const MEMORY_MIN: usize = 256;

pub fn run(input: &[u8]) {
    let (decoded, peak) = peak_of(|| decode(input));
    let max = MEMORY_MIN + input.len() * MEMORY_PER_BYTE;
    assert!(
        peak <= max,
        "{peak} bytes for {}, allowed are {max}",
        input.len()
    );
    match decoded {
        Ok(message) => assert_eq!(written(&message), input, "{message:?}"),
        Err(error) => assert!(error.offset <= input.len(), "{error}"),
    }
}

fn written(message: &Message<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    match message {
        Message::Begin(begin) => {
            out.push(b'B');
            out.extend(begin.commit_lsn.to_be_bytes());
            out.extend(begin.commit_time.to_be_bytes());
            out.extend(begin.xid.to_be_bytes());
        }
        Message::Commit(commit) => {
            out.extend([b'C', commit.flags]);
            out.extend(commit.commit_lsn.to_be_bytes());
            out.extend(commit.end_lsn.to_be_bytes());
            out.extend(commit.commit_time.to_be_bytes());
        }
        Message::Origin { commit_lsn, name } => {
            out.push(b'O');
            out.extend(commit_lsn.to_be_bytes());
            string(&mut out, name);
        }
        Message::Relation(relation) => {
            out.push(b'R');
            out.extend(relation.oid.to_be_bytes());
            string(&mut out, relation.namespace);
            string(&mut out, relation.name);
            out.push(relation.replica_identity);
            columns(&mut out, &relation.columns);
        }
        Message::Type {
            oid,
            namespace,
            name,
        } => {
            out.push(b'Y');
            out.extend(oid.to_be_bytes());
            string(&mut out, namespace);
            string(&mut out, name);
        }
        Message::Insert { .. }
        | Message::Update { .. }
        | Message::Delete { .. }
        | Message::Truncate { .. } => change(&mut out, message),
        Message::Logical(logical) => {
            out.extend([b'M', logical.flags]);
            out.extend(logical.lsn.to_be_bytes());
            string(&mut out, logical.prefix);
            counted(&mut out, logical.content);
        }
    }
    out
}

/// Of [`written`]: what is done to rows.
fn change(out: &mut Vec<u8>, message: &Message<'_>) {
    match message {
        Message::Insert { relation, new } => {
            out.push(b'I');
            out.extend(relation.to_be_bytes());
            tuple(out, b'N', new);
        }
        Message::Update {
            relation,
            old: before,
            new,
        } => {
            out.push(b'U');
            out.extend(relation.to_be_bytes());
            if let Some(before) = before {
                old(out, before);
            }
            tuple(out, b'N', new);
        }
        Message::Delete {
            relation,
            old: before,
        } => {
            out.push(b'D');
            out.extend(relation.to_be_bytes());
            old(out, before);
        }
        Message::Truncate { options, relations } => {
            out.push(b'T');
            out.extend(
                u32::try_from(relations.len())
                    .expect("as read")
                    .to_be_bytes(),
            );
            out.push(*options);
            out.extend(relations.iter().flat_map(|oid| oid.to_be_bytes()));
        }
        _ => unreachable!("no change of rows"),
    }
}

fn columns(out: &mut Vec<u8>, columns: &[Column<'_>]) {
    out.extend(u16::try_from(columns.len()).expect("as read").to_be_bytes());
    for column in columns {
        out.push(column.flags);
        string(out, column.name);
        out.extend(column.type_oid.to_be_bytes());
        out.extend(column.type_modifier.to_be_bytes());
    }
}

fn old(out: &mut Vec<u8>, old: &Old<'_>) {
    match old {
        Old::Key(values) => tuple(out, b'K', values),
        Old::Row(values) => tuple(out, b'O', values),
    }
}

fn tuple(out: &mut Vec<u8>, kind: u8, values: &[Datum<'_>]) {
    out.push(kind);
    out.extend(u16::try_from(values.len()).expect("as read").to_be_bytes());
    for value in values {
        match value {
            Datum::Null => out.push(b'n'),
            Datum::Unchanged => out.push(b'u'),
            Datum::Text(bytes) => {
                out.push(b't');
                counted(out, bytes);
            }
            Datum::Binary(bytes) => {
                out.push(b'b');
                counted(out, bytes);
            }
        }
    }
}

fn string(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend(bytes);
    out.push(0);
}

fn counted(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend(i32::try_from(bytes.len()).expect("as read").to_be_bytes());
    out.extend(bytes);
}

/// One of each kind.
pub fn seeds() -> Vec<Vec<u8>> {
    let all: [&[u8]; 11] = [
        &[b'B'; 21],
        &[b'C'; 26],
        b"O\0\0\0\0\0\0\0\x01origin\0",
        b"R\0\0\0\x09public\0outbox\0d\0\x02\x01id\0\0\0\x0b\x86\xFF\xFF\xFF\xFF\0payload\0\0\0\x0e\xda\xFF\xFF\xFF\xFF",
        b"Y\0\0\0\x01public\0mood\0",
        b"I\0\0\0\x09N\0\x04t\0\0\0\x02abnub\0\0\0\x01x",
        b"U\0\0\0\x09K\0\x01nN\0\x02ut\0\0\0\x01a",
        b"U\0\0\0\x09N\0\x01n",
        b"D\0\0\0\x09O\0\x01t\0\0\0\x01a",
        b"T\0\0\0\x02\x03\0\0\0\x01\0\0\0\x02",
        b"M\x01\0\0\0\0\0\0\0\x02outbox\0\0\0\0\x02{}",
    ];
    all.map(<[u8]>::to_vec).to_vec()
}
