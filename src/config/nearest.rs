//! Finds the known name that a mistyped one was probably meant to be.
//!
//! Owns: the edit distance. Must never: grow with the length of what was typed. Called for unknown flags, keys of the
//! file, environment variables and commands.

/// Longer words are compared by this many characters only: nobody mistypes more, and the cost is their square.
const COMPARED_MAX: usize = 64;

/// The candidate with the smallest edit distance from `word`, unless even that one is further away than a third of the
/// word (at least two edits): a far-fetched suggestion is worse than none.
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let allowed = (word.chars().count() / 3).max(2);
    candidates
        .into_iter()
        .map(|candidate| (distance(word, candidate), candidate))
        .filter(|(edits, candidate)| *edits <= allowed && *edits < candidate.chars().count())
        .min_by_key(|(edits, _)| *edits)
        .map(|(_, candidate)| candidate)
}

/// Insertions, deletions, replacements and swaps of neighbours (optimal string alignment) that turn `a` into `b`.
fn distance(a: &str, b: &str) -> usize {
    let a: Vec<char> = a.chars().take(COMPARED_MAX).collect();
    let b: Vec<char> = b.chars().take(COMPARED_MAX).collect();
    // Three rows of the usual matrix: a swap looks back two rows.
    let mut before = vec![0; b.len() + 1];
    let mut above: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut row = vec![i + 1; b.len() + 1];
        for (j, y) in b.iter().enumerate() {
            let replaced = above[j] + usize::from(x != y);
            row[j + 1] = replaced.min(above[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && *x == b[j - 1] && a[i - 1] == *y {
                row[j + 1] = row[j + 1].min(before[j - 1] + 1);
            }
        }
        before = std::mem::replace(&mut above, row);
    }
    above[b.len()]
}

#[cfg(test)]
mod tests {
    use super::{distance, nearest};

    #[test]
    fn distances() {
        for (a, b, edits) in
            [("", "", 0), ("", "abc", 3), ("abc", "abc", 0), ("abc", "acb", 1), ("kitten", "sitting", 3)]
        {
            assert_eq!(distance(a, b), edits, "{a} {b}");
            assert_eq!(distance(b, a), edits, "{b} {a}");
        }
    }

    #[test]
    fn the_nearest_is_named_and_a_far_one_is_not() {
        let flags = ["data-dir", "name", "listen-client-urls", "listen-peer-urls"];
        assert_eq!(nearest("datadir", flags), Some("data-dir"));
        assert_eq!(nearest("listen-client-url", flags), Some("listen-client-urls"));
        assert_eq!(nearest("nmae", flags), Some("name"));
        assert_eq!(nearest("force-new-cluster", flags), None);
        assert_eq!(nearest("x", ["ab"]), None);
        assert_eq!(nearest("logg", ["lots", "log", "lags"]), Some("log"), "both are near, one is nearer");
        assert_eq!(nearest(&"y".repeat(100_000), flags), None);
    }
}
