//! Which names a topic may have, and which belong to the broker itself.

use super::limits::TOPIC_NAME_LEN;

/// The topic of groups and their offsets.
pub const OFFSETS_TOPIC: &str = "__consumer_offsets";
/// The topic of transactions.
pub const TRANSACTION_STATE_TOPIC: &str = "__transaction_state";
/// The log of this very metadata; no topic of anybody's.
pub const METADATA_TOPIC: &str = "__cluster_metadata";

/// Kept by the broker: clients may read them, and not make, grow or delete them.
pub const INTERNAL_TOPICS: &[&str] = &[OFFSETS_TOPIC, TRANSACTION_STATE_TOPIC];

pub fn is_internal(name: &str) -> bool {
    INTERNAL_TOPICS.contains(&name)
}

/// Kafka's rules for names; the error is a sentence for INVALID_TOPIC_EXCEPTION.
pub fn check_topic_name(name: &str) -> Result<(), String> {
    let allowed = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'.' | b'_' | b'-');
    if name.is_empty() {
        Err("Topic name is invalid: it is empty".to_owned())
    } else if name == "." || name == ".." {
        Err(format!("Topic name is invalid: {name} is not allowed"))
    } else if name.len() > TOPIC_NAME_LEN && name.bytes().all(allowed) {
        let length = name.len();
        Err(format!(
            "Topic name is invalid: it has {length} characters, and at most {TOPIC_NAME_LEN} are allowed"
        ))
    } else if !name.bytes().all(allowed) {
        Err(
            "Topic name is invalid: only ASCII letters, digits, '.', '_' and '-' are allowed"
                .to_owned(),
        )
    } else {
        Ok(())
    }
}

/// Names that are the same in here collide: their metrics could not be told apart.
pub(super) fn without_dots(name: &str) -> String {
    name.replace('.', "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each of these was put to Kafka 4.3's own `Topic.validate`, which agrees.
    #[test]
    fn names() {
        for good in ["a", "a.b_c-D9", "...", &"a".repeat(249), OFFSETS_TOPIC] {
            assert_eq!(check_topic_name(good), Ok(()), "{good}");
        }
        for bad in [
            "",
            ".",
            "..",
            "a b",
            "ä",
            "a/b",
            "a\0",
            &"a".repeat(250),
            &"ä".repeat(300),
        ] {
            assert!(check_topic_name(bad).is_err(), "{bad}");
        }
        assert_eq!(without_dots("a.b_c"), without_dots("a_b.c"));
    }
}
