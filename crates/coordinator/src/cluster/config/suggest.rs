//! "Did you mean": the known name nearest to a mistyped one.

/// The nearest of `known` by edit distance, if it is near enough to be a likely mistake.
pub(crate) fn did_you_mean<'a>(
    name: &str,
    known: impl Iterator<Item = &'a str>,
) -> Option<&'a str> {
    // A long name is no typing mistake, and comparing it would take long.
    let limit = name.len() / 3;
    let likely = |known: &&str| name.len() <= NAME_LEN && known.len().abs_diff(name.len()) <= limit;
    let near = |known: &'a str| (distance(name, known), known);
    let (distance, nearest) = known.filter(likely).map(near).min()?;
    (distance <= limit).then_some(nearest)
}

/// Whether two names begin with the same letter. Requests may name very many unknown keys; where
/// they are answered, this keeps the search for a suggestion short.
pub(crate) fn same_start(a: &str, b: &str) -> bool {
    a.as_bytes().first() == b.as_bytes().first()
}

/// Names longer than this get no suggestion.
const NAME_LEN: usize = 100;

/// Letters to insert, delete, replace or swap with their neighbour.
fn distance(a: &str, b: &str) -> usize {
    let (a, b) = (a.as_bytes(), b.as_bytes());
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for (i, &x) in a.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, &y) in b.iter().enumerate() {
            let mut cost = (last[j] + usize::from(x != y))
                .min(last[j + 1] + 1)
                .min(row[j] + 1);
            if i > 0 && j > 0 && x == b[j - 1] && a[i - 1] == y {
                cost = cost.min(before[j - 1] + 1);
            }
            row.push(cost);
        }
        before = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances() {
        for (a, b, expected) in [
            ("", "", 0),
            ("log", "log", 0),
            ("", "log", 3),
            ("lgo", "log", 1),
            ("log.dir", "log.dirs", 1),
            ("retention", "retentino", 1),
            ("abc", "xyz", 3),
        ] {
            assert_eq!(distance(a, b), expected, "{a} {b}");
            assert_eq!(distance(b, a), expected, "{b} {a}");
        }
    }

    #[test]
    fn suggestions() {
        let known = ["log.dirs", "num.partitions", "listeners"];
        let suggest = |name| did_you_mean(name, known.into_iter());
        assert_eq!(suggest("num.partition"), Some("num.partitions"));
        assert_eq!(suggest("listener"), Some("listeners"));
        assert_eq!(suggest("banana"), None);
        assert_eq!(suggest(&"a".repeat(10_000)), None);
    }
}
