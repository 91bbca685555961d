//! Tests of the shard as a whole: readable scripts (`script`, testdata/groups/*.txt) and random
//! sequences of requests (`random` for the classic protocol, `consumer_random` for the new one,
//! `txn_random` for offsets in transactions), all on one small host (`host`).

mod consumer_random;
mod host;
mod random;
mod script;
mod txn_random;

use super::partition_for;

#[test]
fn groups_live_where_kafka_puts_them() {
    // Values of Java's `("...".hashCode() & 0x7fffffff) % 50`.
    assert_eq!(partition_for("", 50), 0);
    assert_eq!(partition_for("a", 50), 97 % 50);
    assert_eq!(partition_for("hello", 50), 99_162_322 % 50);
    // "polygenelubricants".hashCode() is Integer.MIN_VALUE, whose sign bit is all it has.
    assert_eq!(partition_for("polygenelubricants", 50), 0);
    // Outside the basic plane Java hashes two units: "\u{1f600}" is d83d de00.
    let units = (0xd83d_i32.wrapping_mul(31).wrapping_add(0xde00)) & i32::MAX;
    assert_eq!(partition_for("\u{1f600}", 50), units % 50);
}
