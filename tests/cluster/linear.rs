//! Whether what clients saw can have happened one after the other.
//!
//! Owns: the search for an order of one register's operations that explains every answer and respects real time, after
//! Wing, Gong and Lowe. Must never: take a position from the servers for granted: the values alone decide. An operation whose
//! outcome nobody knows may have happened at any time after it began, or never.

use std::collections::HashSet;
use std::time::Duration;

/// What a key holds. No value is written twice.
pub type Value = Option<u64>;

#[derive(Clone, Copy, Debug)]
pub enum Call {
    Put(u64),
    Get,
    Delete,
    /// Writes where the key holds what is expected, and reads otherwise.
    Swap {
        expected: Value,
        new: u64,
    },
}

#[derive(Clone, Copy, Debug)]
pub enum Answer {
    Done,
    Got(Value),
    Deleted(bool),
    Swapped,
    NotSwapped(Value),
}

#[derive(Clone, Copy, Debug)]
pub struct Ending {
    pub at: Duration,
    pub answer: Answer,
    /// What the answer's header says.
    pub revision: i64,
}

/// One request of one client.
#[derive(Clone, Copy, Debug)]
pub struct Operation {
    pub key: u64,
    pub call: Call,
    pub began: Duration,
    /// None: nobody knows what it has come to.
    pub ending: Option<Ending>,
}

impl Operation {
    /// What the key holds afterwards, if this can happen where it holds `before`.
    fn apply(&self, before: Value) -> Option<Value> {
        let answer = self.ending.map(|ending| ending.answer);
        match (self.call, answer) {
            (Call::Put(new), None | Some(Answer::Done)) => Some(Some(new)),
            (Call::Get, Some(Answer::Got(seen))) => (seen == before).then_some(before),
            (Call::Get, None) => Some(before),
            (Call::Delete, None) => Some(None),
            (Call::Delete, Some(Answer::Deleted(one))) => (one == before.is_some()).then_some(None),
            (Call::Swap { expected, new }, None) => Some(if expected == before { Some(new) } else { before }),
            (Call::Swap { expected, new }, Some(Answer::Swapped)) => {
                (expected == before).then_some(Some(new))
            }
            (Call::Swap { expected, .. }, Some(Answer::NotSwapped(seen))) => {
                (seen == before && expected != before).then_some(before)
            }
            _ => None,
        }
    }

    fn has_written(&self) -> bool {
        match self.ending.map(|ending| ending.answer) {
            Some(Answer::Done | Answer::Swapped) => true,
            Some(Answer::Deleted(one)) => one,
            _ => false,
        }
    }
}

/// Which operations have taken place, and what the key holds then.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Position {
    done: Vec<bool>,
    value: Value,
}

/// Whether the operations of one key, which held nothing at first, can be put in an order.
fn is_linearizable(operations: &[&Operation]) -> bool {
    let ends = |operation: &Operation| operation.ending.map_or(Duration::MAX, |ending| ending.at);
    // Known ones first: what nobody knows of is tried last.
    let mut operations = operations.to_vec();
    operations.sort_by_key(|operation| std::cmp::Reverse(ends(operation)));
    let mut pending = vec![Position { done: vec![false; operations.len()], value: None }];
    let mut seen = HashSet::new();
    while let Some(position) = pending.pop() {
        let open = || operations.iter().enumerate().filter(|(n, _)| !position.done[*n]);
        let Some(first_end) =
            open().filter_map(|(_, operation)| operation.ending).map(|ending| ending.at).min()
        else {
            return true;
        };
        for (n, operation) in open().filter(|(_, operation)| operation.began <= first_end) {
            if let Some(value) = operation.apply(position.value) {
                let mut next = Position { done: position.done.clone(), value };
                next.done[n] = true;
                if seen.insert(next.clone()) {
                    pending.push(next);
                }
            }
        }
    }
    false
}

/// Why a history cannot have happened on one machine; None where it can.
pub fn objection(history: &[Operation]) -> Option<String> {
    let mut by_key: std::collections::BTreeMap<u64, Vec<&Operation>> = std::collections::BTreeMap::new();
    for operation in history {
        by_key.entry(operation.key).or_default().push(operation);
    }
    for (key, operations) in by_key {
        if !is_linearizable(&operations) {
            let mut operations = operations;
            operations.sort_by_key(|operation| operation.began);
            return Some(format!("key {key} is not linearizable: {operations:#?}"));
        }
    }
    turned_back(history)
}

/// Over all keys: no revision is below one that an earlier answer has shown, and a write's is above.
fn turned_back(history: &[Operation]) -> Option<String> {
    let mut ended: Vec<(Duration, i64)> =
        history.iter().filter_map(|one| one.ending).map(|ending| (ending.at, ending.revision)).collect();
    ended.sort_unstable();
    let mut begun: Vec<&Operation> = history.iter().collect();
    begun.sort_by_key(|operation| operation.began);
    let (mut shown, mut next) = (0, 0);
    for operation in begun {
        while ended.get(next).is_some_and(|(at, _)| *at < operation.began) {
            shown = shown.max(ended[next].1);
            next += 1;
        }
        let Some(ending) = operation.ending else { continue };
        if ending.revision < shown + i64::from(operation.has_written()) {
            return Some(format!("revision {shown} had been shown before {operation:?}"));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    /// The revision is what nobody objects to.
    fn done(call: Call, began: u64, ended: u64, answer: Answer) -> Operation {
        let revision = i64::try_from(ended).unwrap();
        Operation { key: 1, call, began: at(began), ending: Some(Ending { at: at(ended), answer, revision }) }
    }

    fn unknown(call: Call, began: u64) -> Operation {
        Operation { key: 1, call, began: at(began), ending: None }
    }

    fn put(value: u64, began: u64, ended: u64) -> Operation {
        done(Call::Put(value), began, ended, Answer::Done)
    }

    fn get(value: Value, began: u64, ended: u64) -> Operation {
        done(Call::Get, began, ended, Answer::Got(value))
    }

    fn swap(expected: Value, new: u64, began: u64, ended: u64) -> Operation {
        done(Call::Swap { expected, new }, began, ended, Answer::Swapped)
    }

    fn holds(history: &[Operation]) -> bool {
        objection(history).is_none()
    }

    #[test]
    fn what_happens_at_the_same_time_may_have_happened_in_either_order() {
        assert!(holds(&[put(1, 0, 10), put(2, 0, 10), get(Some(1), 20, 30), get(Some(1), 21, 31)]));
        assert!(holds(&[put(1, 0, 10), put(2, 0, 10), get(Some(2), 20, 30)]));
        assert!(!holds(&[put(1, 0, 10), put(2, 0, 10), get(Some(1), 20, 30), get(Some(2), 40, 50)]));
    }

    #[test]
    fn a_stale_read_and_a_lost_write_are_found() {
        assert!(!holds(&[put(1, 0, 10), put(2, 20, 30), get(Some(1), 40, 50)]));
        assert!(!holds(&[put(1, 0, 10), get(None, 20, 30)]));
        assert!(!holds(&[put(1, 0, 10), done(Call::Delete, 20, 30, Answer::Deleted(false))]));
        assert!(!holds(&[get(Some(7), 0, 10)]));
    }

    #[test]
    fn one_of_two_swaps_of_the_same_value_wins() {
        let lost = done(Call::Swap { expected: None, new: 2 }, 0, 10, Answer::NotSwapped(Some(1)));
        assert!(holds(&[swap(None, 1, 0, 10), lost]));
        assert!(!holds(&[swap(None, 1, 0, 10), swap(None, 2, 0, 10)]));
        assert!(holds(&[swap(None, 1, 0, 10), swap(Some(1), 2, 0, 10)]));
    }

    #[test]
    fn what_nobody_knows_of_may_happen_late_or_never_but_not_before_it_began() {
        assert!(holds(&[put(1, 0, 10), unknown(Call::Put(2), 5), get(Some(1), 20, 30)]));
        assert!(holds(&[
            put(1, 0, 10),
            unknown(Call::Put(2), 5),
            get(Some(1), 20, 30),
            get(Some(2), 40, 50)
        ]));
        assert!(!holds(&[
            put(1, 0, 10),
            unknown(Call::Put(2), 5),
            get(Some(2), 20, 30),
            get(Some(1), 40, 50)
        ]));
        assert!(!holds(&[put(1, 0, 10), get(Some(2), 20, 30), unknown(Call::Put(2), 40)]));
    }

    #[test]
    fn revisions_do_not_turn_back_over_different_keys() {
        let with_revision = |mut operation: Operation, key: u64, revision: i64| {
            operation.key = key;
            operation.ending.as_mut().unwrap().revision = revision;
            operation
        };
        let first = with_revision(put(1, 0, 10), 1, 5);
        assert!(holds(&[first, with_revision(get(None, 20, 30), 2, 5)]));
        assert!(!holds(&[first, with_revision(get(None, 20, 30), 2, 4)]));
        assert!(!holds(&[first, with_revision(put(3, 20, 30), 2, 5)]));
    }
}
