//! Subscriptions, by name and by regular expression (KIP-848, heartbeat version 1), and the topics
//! that they come to.
//!
//! Expressions are meant for RE2/J, which Kafka uses. They are run by the `regex` crate, whose
//! syntax is RE2's as well, matching in time linear in the topic's name; `\Q...\E`, which Java's
//! `Pattern.quote` produces, is translated. An expression has to match the whole name. What
//! compiles to more than [`REGEX_SIZE_MAX`] is refused, as is what cannot be compiled, with
//! INVALID_REGULAR_EXPRESSION.
//!
//! Deviation from Kafka: an expression is resolved within the heartbeat that brings it, and all of
//! a group's again with the first heartbeat after any topic changed; Kafka does so in the
//! background, not more often than every 10 seconds.

use crate::{TopicView, Topics};
use oncelog_wire::Uuid;
use regex::{Regex, RegexBuilder};
use std::collections::BTreeSet;
use std::hash::Hasher;
use twox_hash::XxHash3_64;

/// Bytes of a compiled expression. `(a|b|c){1000}` fits, `.{1000}{1000}` does not.
const REGEX_SIZE_MAX: usize = 1 << 20;

/// Compiles an expression so that it matches whole names. The error says what is wrong with it.
pub(super) fn compile(expression: &str) -> Result<Regex, String> {
    // On its own first, so that it cannot reach out of the group that is put around it.
    let inner = unquote(expression);
    build(&inner)?;
    build(&format!(r"\A(?:{inner})\z"))
}

fn build(pattern: &str) -> Result<Regex, String> {
    RegexBuilder::new(pattern)
        .size_limit(REGEX_SIZE_MAX)
        .dfa_size_limit(REGEX_SIZE_MAX)
        .build()
        .map_err(|error| reason(&error.to_string()))
}

/// The last line, without what introduces it: the others draw the expression again.
fn reason(error: &str) -> String {
    let last = error.lines().last().unwrap_or_default();
    let last = last.strip_prefix("error: ").unwrap_or(last);
    last.trim_end_matches('.').to_owned()
}

/// `\Qa.b\E` as `a\.b`; without `\E` the quote goes to the end.
fn unquote(expression: &str) -> String {
    let mut plain = String::with_capacity(expression.len());
    let mut rest = expression;
    while let Some(at) = rest.find('\\') {
        let (before, escape) = rest.split_at(at);
        plain.push_str(before);
        if let Some(quoted) = escape.strip_prefix(r"\Q") {
            let (literal, after) = quoted.split_once(r"\E").unwrap_or((quoted, ""));
            plain.push_str(&regex::escape(literal));
            rest = after;
        } else {
            // The backslash and what it escapes, which may be another backslash.
            let length = escape.chars().take(2).map(char::len_utf8).sum();
            plain.push_str(&escape[..length]);
            rest = &escape[length..];
        }
    }
    plain.push_str(rest);
    plain
}

/// The names that match, of all topics that there are.
pub(super) fn matching(regex: &Regex, topics: &dyn Topics) -> BTreeSet<String> {
    let names = topics.names().filter(|name| regex.is_match(name));
    names.map(str::to_owned).collect()
}

/// What the subscribed topics look like: a group whose hash differs from the one in its record
/// has to be assigned anew. Topics that do not exist do not count; 0 if none does.
///
/// The same number as Kafka's (KIP-1101), so that a log that Kafka wrote does not make every
/// group rebalance; but for racks of replicas, which are not part of it here.
pub(super) fn metadata_hash<'a>(
    names: impl IntoIterator<Item = &'a str>,
    topics: &dyn Topics,
) -> i64 {
    let names: BTreeSet<&str> = names.into_iter().collect();
    let mut hasher = XxHash3_64::new();
    let mut is_empty = true;
    // Kafka sorts by Java's order of strings, which for the ASCII of topic names is that of bytes.
    for name in names {
        if let Some(view) = topics.topic(name) {
            hasher.write(&topic_hash(name, view).to_le_bytes());
            is_empty = false;
        }
    }
    if is_empty { 0 } else { hasher.finish() as i64 }
}

/// Kafka's: magic 0, the id's two halves, the name's UTF-16 units and their number, how many
/// partitions and the number of each, all little-endian, through XXH3.
fn topic_hash(name: &str, view: TopicView) -> u64 {
    let Uuid(id) = view.id;
    let mut hasher = XxHash3_64::new();
    hasher.write(&[0]);
    for half in id.chunks_exact(8) {
        let half = u64::from_be_bytes(half.try_into().expect("8 bytes"));
        hasher.write(&half.to_le_bytes());
    }
    let mut units = 0i32;
    for unit in name.encode_utf16() {
        hasher.write(&unit.to_le_bytes());
        units += 1;
    }
    hasher.write(&units.to_le_bytes());
    hasher.write(&view.partitions.to_le_bytes());
    for partition in 0..view.partitions {
        hasher.write(&partition.to_le_bytes());
    }
    hasher.finish()
}
