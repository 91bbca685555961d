//! Requests that name the same thing twice are refused for that thing; this finds it.

use std::collections::BTreeSet;

/// The items that occur more than once.
pub(super) fn repeated<T: Ord + Copy>(items: impl Iterator<Item = T>) -> BTreeSet<T> {
    let mut seen = BTreeSet::new();
    items.filter(|item| !seen.insert(*item)).collect()
}
