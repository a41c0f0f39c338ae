//! The short run: each target with its seeds, with what a fixed generator makes of them, and with one input that is asked for.
//!
//! Owns: the changes that are made to bytes, and how a failure is told. Must never: depend on a clock, so that each run is the same.

use std::fmt::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};

use covey::prng::Prng;

use crate::targets::{TARGETS, Target};

/// An input in hexadecimal digits, instead of all others.
const AGAIN: &str = "COVEY_FUZZ_INPUT";
/// No input grows beyond this.
const BYTES_MAX: usize = 4096;
/// So many changes are made at most to come from a seed to an input.
const CHANGES_MAX: u64 = 6;
/// Numbers at which something ends.
const EDGES: [u64; 12] =
    [0, 1, 0x7f, 0x80, 0xff, 0x100, 0x7fff_ffff, 0xffff_ffff, 1 << 62, i64::MAX as u64, 1 << 63, u64::MAX];

/// The short run of the target of this name.
pub fn run(name: &str) {
    let target = TARGETS.iter().find(|target| target.name == name).unwrap();
    if let Ok(input) = std::env::var(AGAIN) {
        (target.run)(&from_hex(&input));
        return;
    }
    let seeds = (target.seeds)();
    for seed in &seeds {
        try_one(target, seed);
    }
    let mut prng = Prng::new(u64::from(crc32c::crc32c(name.as_bytes())));
    for _ in 0..target.rounds {
        try_one(target, &changed(&seeds, &mut prng));
    }
}

fn try_one(target: &Target, bytes: &[u8]) {
    if catch_unwind(AssertUnwindSafe(|| (target.run)(bytes))).is_err() {
        let (name, hex) = (target.name, to_hex(bytes));
        panic!("once more: {AGAIN}={hex} cargo test --test fuzz -- --exact targets::{name}");
    }
}

/// What some changes make of some seed.
fn changed(seeds: &[Vec<u8>], prng: &mut Prng) -> Vec<u8> {
    let any = |prng: &mut Prng| seeds[below(prng, seeds.len())].clone();
    let mut bytes = any(prng);
    for _ in 0..prng.range(1, CHANGES_MAX + 1) {
        change(&mut bytes, &any(prng), prng);
    }
    bytes.truncate(BYTES_MAX);
    bytes
}

fn change(bytes: &mut Vec<u8>, other: &[u8], prng: &mut Prng) {
    let at = below(prng, bytes.len() + 1);
    let to = (at + below(prng, 16)).min(bytes.len());
    match prng.range(0, 9) {
        0 => bytes.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= 1 << (prng.next_u64() & 7)),
        1 => bytes.iter_mut().skip(at).take(1).for_each(|byte| *byte = prng.next_u64().to_le_bytes()[0]),
        2 => drop(bytes.drain(at..to)),
        3 => bytes.truncate(at),
        4 => drop(bytes.splice(at..at, prng.next_u64().to_le_bytes())),
        5 => {
            let again = bytes[at..to].to_vec();
            bytes.splice(at..at, again);
        }
        6 => {
            let from = below(prng, other.len() + 1);
            bytes.splice(at.., other[from..].iter().copied());
        }
        _ => {
            let edge = EDGES[below(prng, EDGES.len())].to_le_bytes();
            let width = [1, 2, 4, 8][below(prng, 4)].min(bytes.len() - at);
            bytes[at..at + width].copy_from_slice(&edge[..width]);
        }
    }
}

fn below(prng: &mut Prng, end: usize) -> usize {
    usize::try_from(prng.range(0, end as u64)).unwrap()
}

fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut hex, byte| {
        write!(hex, "{byte:02x}").unwrap();
        hex
    })
}

fn from_hex(hex: &str) -> Vec<u8> {
    let digits = |at| &hex[at..at + 2];
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(digits(at), 16).unwrap()).collect()
}
