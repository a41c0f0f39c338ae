//! An interval tree: which of many intervals contain a key.
//!
//! Owns: the tree. Must never: hold an interval twice, or take time that grows with intervals that do not contain the key. Driven by
//! `index`.
//!
//! A treap ordered by (start, end), where each node also knows the highest end below it:
//!
//! ```text
//!              [f, m)  max z            A key k below `max` may lie in the left part; it lies in the right part only if
//!             /            \            the node's own start is not above it. Each visited node that does not match is
//!     [a, z)  max z     [h, k)  max k   next to a path to one that does: O(log n) for each match, expected.
//! ```
//!
//! Priorities come from a generator whose seed no client knows, so no order of insertions makes the tree deep.

use std::cmp::Ordering;
use std::sync::Arc;

use super::slab::Slab;
use crate::prng::Prng;

/// Where an interval ends: below this key, or nowhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Limit {
    /// Every key below this one.
    Before(Arc<[u8]>),
    /// No end.
    Unbounded,
}

impl Limit {
    fn is_above(&self, key: &[u8]) -> bool {
        match self {
            Limit::Before(end) => key < end.as_ref(),
            Limit::Unbounded => true,
        }
    }
}

impl Ord for Limit {
    fn cmp(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Limit::Before(a), Limit::Before(b)) => a.cmp(b),
            (Limit::Before(_), Limit::Unbounded) => Ordering::Less,
            (Limit::Unbounded, Limit::Before(_)) => Ordering::Greater,
            (Limit::Unbounded, Limit::Unbounded) => Ordering::Equal,
        }
    }
}

impl PartialOrd for Limit {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// A set of intervals, each with a value.
#[derive(Debug)]
pub struct Intervals {
    nodes: Slab<Node>,
    root: Option<u32>,
    priorities: Prng,
}

#[derive(Debug)]
struct Node {
    start: Arc<[u8]>,
    end: Limit,
    value: u32,
    priority: u64,
    /// The node with the highest end in this subtree.
    highest: u32,
    left: Option<u32>,
    right: Option<u32>,
}

impl Node {
    fn place(&self, start: &[u8], end: &Limit) -> Ordering {
        self.start.as_ref().cmp(start).then_with(|| self.end.cmp(end))
    }
}

impl Intervals {
    /// No intervals.
    pub fn new(priorities: Prng) -> Self {
        Self { nodes: Slab::default(), root: None, priorities }
    }

    /// The value of an interval.
    pub fn find(&mut self, start: &[u8], end: &Limit) -> Option<&mut u32> {
        let mut next = self.root;
        while let Some(at) = next {
            match self.nodes[at].place(start, end) {
                Ordering::Equal => return Some(&mut self.nodes[at].value),
                Ordering::Greater => next = self.nodes[at].left,
                Ordering::Less => next = self.nodes[at].right,
            }
        }
        None
    }

    /// Adds an interval that is not in yet.
    pub fn insert(&mut self, start: Arc<[u8]>, end: Limit, value: u32) {
        let (low, high) = self.split(self.root, &start, &end);
        let priority = self.priorities.next_u64();
        let node = Node { start, end, value, priority, highest: 0, left: None, right: None };
        let at = self.nodes.insert(node);
        self.nodes[at].highest = at;
        let low = self.merge(low, Some(at));
        self.root = self.merge(low, high);
    }

    /// Takes out an interval that is in.
    pub fn remove(&mut self, start: &[u8], end: &Limit) {
        let mut path = Vec::new();
        let mut next = self.root;
        let at = loop {
            let at = next.expect("only what was inserted is removed");
            match self.nodes[at].place(start, end) {
                Ordering::Equal => break at,
                Ordering::Greater => next = self.nodes[at].left,
                Ordering::Less => next = self.nodes[at].right,
            }
            path.push(at);
        };
        let rest = self.merge(self.nodes[at].left, self.nodes[at].right);
        match path.last() {
            None => self.root = rest,
            Some(parent) => {
                let parent = &mut self.nodes[*parent];
                if parent.left == Some(at) {
                    parent.left = rest;
                } else {
                    parent.right = rest;
                }
            }
        }
        for above in path.into_iter().rev() {
            self.update(above);
        }
        self.nodes.remove(at);
    }

    /// Calls `found` with the value of every interval that contains `key`, in order.
    pub fn stab(&self, key: &[u8], found: &mut impl FnMut(u32)) {
        self.stab_below(self.root, key, found);
    }

    fn stab_below(&self, at: Option<u32>, key: &[u8], found: &mut impl FnMut(u32)) {
        let Some(at) = at else { return };
        let node = &self.nodes[at];
        if !self.nodes[node.highest].end.is_above(key) {
            return;
        }
        self.stab_below(node.left, key, found);
        if node.start.as_ref() <= key {
            if node.end.is_above(key) {
                found(node.value);
            }
            self.stab_below(node.right, key, found);
        }
    }

    /// The nodes below (start, end), and the others.
    fn split(&mut self, at: Option<u32>, start: &[u8], end: &Limit) -> (Option<u32>, Option<u32>) {
        let Some(at) = at else { return (None, None) };
        if self.nodes[at].place(start, end) == Ordering::Less {
            let (low, high) = self.split(self.nodes[at].right, start, end);
            self.nodes[at].right = low;
            self.update(at);
            (Some(at), high)
        } else {
            let (low, high) = self.split(self.nodes[at].left, start, end);
            self.nodes[at].left = high;
            self.update(at);
            (low, Some(at))
        }
    }

    /// One tree of two, all of the first below all of the second.
    fn merge(&mut self, low: Option<u32>, high: Option<u32>) -> Option<u32> {
        let (Some(first), Some(second)) = (low, high) else { return low.or(high) };
        if self.nodes[first].priority > self.nodes[second].priority {
            let right = self.merge(self.nodes[first].right, high);
            self.nodes[first].right = right;
            self.update(first);
            Some(first)
        } else {
            let left = self.merge(low, self.nodes[second].left);
            self.nodes[second].left = left;
            self.update(second);
            Some(second)
        }
    }

    fn update(&mut self, at: u32) {
        let node = &self.nodes[at];
        let below = [node.left, node.right].into_iter().flatten().map(|child| self.nodes[child].highest);
        let highest =
            below.fold(
                at,
                |highest, other| {
                    if self.nodes[other].end > self.nodes[highest].end { other } else { highest }
                },
            );
        self.nodes[at].highest = highest;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn limit(end: Option<&[u8]>) -> Limit {
        end.map_or(Limit::Unbounded, |end| Limit::Before(end.into()))
    }

    /// The depth, while everything that a treap promises is checked.
    fn check(tree: &Intervals, at: Option<u32>) -> usize {
        let Some(at) = at else { return 0 };
        let node = &tree.nodes[at];
        let mut highest = &node.end;
        for child in [node.left, node.right].into_iter().flatten() {
            assert!(tree.nodes[child].priority <= node.priority);
            highest = highest.max(&tree.nodes[tree.nodes[child].highest].end);
        }
        assert_eq!(&tree.nodes[node.highest].end, highest);
        1 + check(tree, node.left).max(check(tree, node.right))
    }

    #[test]
    fn it_finds_what_a_list_finds() {
        let mut random = Prng::new(11);
        let mut tree = Intervals::new(random.fork());
        let mut list: BTreeMap<(Vec<u8>, Option<Vec<u8>>), u32> = BTreeMap::new();
        let word = |random: &mut Prng| -> Vec<u8> {
            let length = random.range(1, 4);
            (0..length).map(|_| u8::try_from(random.range(0, 6)).unwrap()).collect()
        };
        for step in 0..4000_u32 {
            let start = word(&mut random);
            let end = (!random.one_in(8)).then(|| word(&mut random));
            let bound = limit(end.as_deref());
            let listed = (start.clone(), end);
            assert_eq!(tree.find(&start, &bound).copied(), list.get(&listed).copied());
            if list.remove(&listed).is_some() {
                tree.remove(&start, &bound);
            } else {
                tree.insert(start.as_slice().into(), bound, step);
                list.insert(listed, step);
            }
            let key = word(&mut random);
            let mut found = Vec::new();
            tree.stab(&key, &mut |value| found.push(value));
            found.sort_unstable();
            let inside = |start: &Vec<u8>, end: &Option<Vec<u8>>| {
                *start <= key && end.as_ref().is_none_or(|end| key < *end)
            };
            let mut expected: Vec<u32> =
                list.iter().filter(|((start, end), _)| inside(start, end)).map(|(_, value)| *value).collect();
            expected.sort_unstable();
            assert_eq!(found, expected);
            if step % 100 == 0 {
                check(&tree, tree.root);
            }
        }
    }

    #[test]
    fn sorted_insertions_make_no_deep_tree() {
        let mut tree = Intervals::new(Prng::new(3));
        for n in 0..20_000_u32 {
            let start = n.to_be_bytes();
            tree.insert(start.as_slice().into(), Limit::Before((n + 1).to_be_bytes().as_slice().into()), n);
        }
        let depth = check(&tree, tree.root);
        assert!(depth < 60, "{depth}");
    }

    /// No node has this number: who goes there panics.
    const NOWHERE: Option<u32> = Some(u32::MAX);

    /// Cuts off what cannot contain `key`.
    fn prune(tree: &mut Intervals, at: Option<u32>, key: &[u8]) {
        let Some(at) = at else { return };
        let highest = tree.nodes[at].highest;
        if !tree.nodes[highest].end.is_above(key) {
            (tree.nodes[at].left, tree.nodes[at].right) = (NOWHERE, NOWHERE);
            return;
        }
        prune(tree, tree.nodes[at].left, key);
        if tree.nodes[at].start.as_ref() > key {
            tree.nodes[at].right = NOWHERE;
        } else {
            prune(tree, tree.nodes[at].right, key);
        }
    }

    #[test]
    fn parts_that_cannot_contain_a_key_are_not_looked_at() {
        for key in 0..200_u32 {
            let mut tree = Intervals::new(Prng::new(3));
            for n in 0..200_u32 {
                let end = Limit::Before((n + 1).to_be_bytes().as_slice().into());
                tree.insert(n.to_be_bytes().as_slice().into(), end, n);
            }
            let root = tree.root;
            prune(&mut tree, root, &key.to_be_bytes());
            let mut found = Vec::new();
            tree.stab(&key.to_be_bytes(), &mut |value| found.push(value));
            assert_eq!(found, [key]);
        }
    }
}
