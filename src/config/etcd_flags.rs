//! What stands here for a flag of etcd's that there is not: the page for people is the table for errors.
//!
//! Owns: how the page is read. Must never: decide whether a flag is taken (`table` does). Driven by `sources`.

/// Every flag of etcd's, and what differs here.
const PAGE: &str = include_str!("etcd-flags.md");

/// Where the flags begin that are refused.
const REFUSED: &str = "\n## Refused\n";

/// What etcd 3.5 puts before flags that it may drop.
const EXPERIMENTAL: &str = "experimental-";

/// The flag of etcd 3.6's that etcd's `flag` is, or has become; `None` where it is not taken here.
pub fn taken_as(flag: &str) -> Option<&str> {
    let (taken, _) = PAGE.split_once(REFUSED)?;
    rows(taken).any(|row| row.0 == flag).then(|| settled(flag))
}

/// What to use in place of etcd's `flag`, which is written without its dashes; `None` where etcd has no such flag.
pub fn instead(flag: &str) -> Option<&'static str> {
    let (_, refused) = PAGE.split_once(REFUSED)?;
    let mut rows = rows(refused);
    let found = rows.clone().find(|row| row.0 == flag);
    found.or_else(|| rows.find(|row| row.0 == settled(flag))).map(|row| row.1)
}

fn settled(flag: &str) -> &str {
    flag.strip_prefix(EXPERIMENTAL).unwrap_or(flag)
}

/// The rows of a part of the page: a flag without its dashes, and what is said of it.
fn rows(part: &'static str) -> impl Iterator<Item = (&'static str, &'static str)> + Clone {
    part.lines().filter_map(|line| {
        let (flag, said) = line.strip_prefix("| `--")?.split_once("` | ")?;
        Some((flag, said.strip_suffix(" |")?))
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::table::SETTINGS;
    use super::*;

    #[test]
    fn each_flag_is_taken_or_refused_as_the_page_says() {
        let (taken, refused) = PAGE.split_once(REFUSED).unwrap();
        let ours = |flag: &str| SETTINGS.iter().any(|row| row.etcd == Some(settled(flag)));
        let taken: BTreeSet<&str> = rows(taken).map(|row| row.0).collect();
        for flag in &taken {
            assert!(ours(flag), "--{flag} is said to be taken");
        }
        for flag in SETTINGS.iter().filter_map(|row| row.etcd) {
            assert!(taken.contains(flag), "--{flag} is taken");
        }
        let refused: Vec<_> = rows(refused).collect();
        assert!(refused.len() > 80 && refused.is_sorted(), "{}", refused.len());
        for (flag, said) in refused {
            assert!(!ours(flag), "--{flag} is said to be refused");
            assert!(!said.is_empty(), "--{flag}");
        }
    }

    #[test]
    fn what_is_named_instead_is_there() {
        let (_, refused) = PAGE.split_once(REFUSED).unwrap();
        for (flag, said) in rows(refused) {
            for named in said.split([' ', ',', ':', ';']).filter_map(|word| word.strip_prefix("--")) {
                assert!(SETTINGS.iter().any(|row| row.flag == named), "--{flag}: --{named}");
            }
        }
    }

    #[test]
    fn an_experimental_flag_is_the_one_that_became_of_it() {
        assert_eq!(instead("wal-dir"), Some("the log lies in the data directory, in wal/"));
        assert_eq!(instead("experimental-warning-apply-duration"), instead("warning-apply-duration"));
        assert!(instead("experimental-initial-corrupt-check").is_some());
        assert_eq!(instead("initial-corrupt-check"), None);
        assert_eq!(instead("data-dir"), None);
        assert_eq!(instead("data"), None);
        assert_eq!(taken_as("experimental-corrupt-check-time"), Some("corrupt-check-time"));
        assert_eq!(taken_as("experimental-name"), None);
    }
}
