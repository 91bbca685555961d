//! The net effect of a batch in upsert mode, as few statements: what was put and deleted several times
//! ends as if each had been done in its order.
//!
//! That needs keys of which two are equal to the database if and only if they are the same values
//! (`Column::exact`). Then, for each key, all but the last change can be left out; a key that was deleted in
//! between is deleted first, so that columns that are not mapped end as they would have. The keys are
//! then distinct, and their order can be chosen: it is the same in every transaction, which is what keeps
//! two of them from waiting for each other (deadlocks in MySQL, and in PostgreSQL).
//!
//! With other keys the order of the records is kept: runs of puts and runs of deletes, in turn.

use std::collections::HashMap;

use crate::mapping::Change;
use crate::table::Value;

pub type Values<'a> = &'a [Value];

#[derive(Debug, PartialEq)]
pub enum Step<'a> {
    /// Values of the key columns.
    Delete(Vec<Values<'a>>),
    /// Values of all columns.
    Put(Vec<Values<'a>>),
}

struct Last<'a> {
    key: Vec<Values<'a>>,
    deleted: bool,
    put: Option<Values<'a>>,
}

/// In the order of the records.
pub fn runs<'a>(changes: impl Iterator<Item = &'a Change>) -> Vec<Step<'a>> {
    let mut steps: Vec<Step<'_>> = Vec::new();
    for change in changes {
        match (change, steps.last_mut()) {
            (Change::Put(values), Some(Step::Put(run))) => run.push(values),
            (Change::Delete(key), Some(Step::Delete(run))) => run.push(key),
            (Change::Put(values), _) => steps.push(Step::Put(vec![values])),
            (Change::Delete(key), _) => steps.push(Step::Delete(vec![key])),
        }
    }
    steps
}

/// Distinct keys, sorted: first all that are deleted, then all that are there in the end. `key`: the key
/// columns, as indexes into a put's values.
pub fn net<'a>(changes: impl Iterator<Item = &'a Change>, key: &[usize]) -> Vec<Step<'a>> {
    let mut index: HashMap<Vec<u8>, usize> = HashMap::new();
    let mut all: Vec<(Vec<u8>, Last<'a>)> = Vec::new();
    for change in changes {
        let key: Vec<Values<'a>> = match change {
            Change::Put(values) => key.iter().map(|index| &values[*index..=*index]).collect(),
            Change::Delete(values) => values.chunks(1).collect(),
        };
        let encoded = encode(&key);
        let at = *index.entry(encoded.clone()).or_insert(all.len());
        if at == all.len() {
            let last = Last {
                key,
                deleted: false,
                put: None,
            };
            all.push((encoded, last));
        }
        let last = &mut all[at].1;
        match change {
            Change::Put(values) => last.put = Some(values),
            Change::Delete(values) => {
                last.key = vec![values];
                last.deleted = true;
                last.put = None;
            }
        }
    }
    all.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
    let deleted = all
        .iter()
        .filter(|(_, last)| last.deleted)
        .map(|(_, last)| last.key[0]);
    let deleted: Vec<_> = deleted.collect();
    let put: Vec<_> = all.iter().filter_map(|(_, last)| last.put).collect();
    let steps = [Step::Delete(deleted), Step::Put(put)];
    let empty =
        |step: &Step<'_>| matches!(step, Step::Delete(run) | Step::Put(run) if run.is_empty());
    steps.into_iter().filter(|step| !empty(step)).collect()
}

/// Different for different keys; numbers sort as numbers.
fn encode(key: &[Values<'_>]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(24);
    for value in key.iter().flat_map(|values| values.iter()) {
        match value {
            Value::Null => bytes.push(0),
            Value::Bool(value) => bytes.extend([1, u8::from(*value)]),
            Value::Int(value) => {
                bytes.push(2);
                bytes.extend((value ^ i64::MIN).to_be_bytes());
            }
            Value::Float(value) => {
                bytes.push(3);
                bytes.extend(value.to_bits().to_be_bytes());
            }
            Value::Text(text) => {
                bytes.push(4);
                terminated(text.as_bytes(), &mut bytes);
            }
            Value::Bytes(value) => {
                bytes.push(5);
                terminated(value, &mut bytes);
            }
        }
    }
    bytes
}

/// So that `("a", "bc")` and `("ab", "c")` differ, and shorter ones come first.
fn terminated(value: &[u8], bytes: &mut Vec<u8>) {
    for byte in value {
        bytes.push(*byte);
        if *byte == 0 {
            bytes.push(1);
        }
    }
    bytes.extend([0, 0]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    /// `a1`: put key a with value 1; `a-`: delete key a.
    fn changes(script: &str) -> Vec<Change> {
        let change = |word: &str| {
            let (key, value) = word.split_at(1);
            let key = Value::Text(key.to_owned());
            match value {
                "-" => Change::Delete(vec![key]),
                value => Change::Put(vec![Value::Int(value.parse().unwrap()), key]),
            }
        };
        script.split_whitespace().map(change).collect()
    }

    fn show(steps: &[Step<'_>]) -> String {
        let value = |value: &Value| match value {
            Value::Text(text) => text.clone(),
            Value::Int(number) => number.to_string(),
            other => format!("{other:?}"),
        };
        let row = |values: &Values<'_>| values.iter().map(value).collect::<String>();
        let step = |step: &Step<'_>| match step {
            Step::Delete(keys) => {
                format!("-({})", keys.iter().map(row).collect::<Vec<_>>().join(" "))
            }
            Step::Put(rows) => format!("+({})", rows.iter().map(row).collect::<Vec<_>>().join(" ")),
        };
        steps.iter().map(step).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn the_last_change_of_a_key_counts() {
        for (script, expected) in [
            ("b1 a1 b2", "+(1a 2b)"),
            ("a1 a-", "-(a)"),
            ("a1 a- a2", "-(a) +(2a)"),
            ("a- b1 a3 a4 c-", "-(a c) +(4a 1b)"),
            ("", ""),
        ] {
            let changes = changes(script);
            assert_eq!(show(&net(changes.iter(), &[1])), expected, "{script}");
        }
    }

    #[test]
    fn runs_keep_the_order() {
        let changes = changes("b1 a1 b- a- a2");
        assert_eq!(show(&runs(changes.iter())), "+(1b 1a) -(b a) +(2a)");
    }

    #[test]
    fn keys_are_told_apart() {
        let text = |text: &str| Value::Text(text.to_owned());
        let mut seen = BTreeMap::new();
        for key in [
            vec![text("a"), text("bc")],
            vec![text("ab"), text("c")],
            vec![text("a\0"), text("bc")],
            vec![Value::Int(1)],
            vec![text("1")],
            vec![Value::Null],
            vec![Value::Bytes(b"1".to_vec())],
        ] {
            let other = seen.insert(encode(&[&key]), key.clone());
            assert_eq!(other, None, "{key:?}");
        }
        let number = |value: i64| encode(&[&[Value::Int(value)]]);
        assert!(number(-1) < number(0) && number(0) < number(256));
    }
}
