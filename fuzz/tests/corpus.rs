//! Each target on its seeds, and on many that differ from them in some bytes. What libFuzzer once found is a seed, too.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use weft_fuzz::TARGETS;

/// How many changed inputs are tried for each seed; `WEFT_FUZZ_CHANGED` says another number.
const CHANGED: usize = 400;

fn corpus() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus")
}

fn names(folder: &Path) -> BTreeSet<String> {
    let entries = std::fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

fn seeds(target: &str) -> Vec<Vec<u8>> {
    let folder = corpus().join(target);
    names(&folder).iter().map(|name| std::fs::read(folder.join(name)).unwrap()).collect()
}

/// Some bytes changed, taken out, put in, or copied from another seed.
fn change(random: &mut fastrand::Rng, seed: &[u8], other: &[u8]) -> Vec<u8> {
    let mut bytes = seed.to_vec();
    for _ in 0..random.usize(1..6) {
        let at = random.usize(..=bytes.len());
        match random.u8(..5) {
            0 if at < bytes.len() => bytes[at] = random.u8(..),
            1 if at < bytes.len() => bytes[at] ^= 1 << random.u8(..8),
            2 if at < bytes.len() => drop(bytes.drain(at..random.usize(at..bytes.len().min(at + 8)) + 1)),
            3 => bytes.insert(at, *random.choice(b"\0\r\n :;,=%./\\[]\"chunked0fF\xff").unwrap()),
            _ => {
                let from = random.usize(..=other.len());
                let to = random.usize(from..=other.len().min(from + 16));
                bytes.splice(at..at, other[from..to].iter().copied());
            }
        }
    }
    bytes
}

#[test]
fn every_target_has_seeds_and_every_seed_a_target() {
    let known: BTreeSet<String> = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(names(&corpus()), known);
    for name in known {
        let size: usize = seeds(&name).iter().map(Vec::len).sum();
        assert!(seeds(&name).len() >= 2 && size < 64 << 10, "{name}: {size} bytes of seeds");
    }
}

#[test]
fn properties_hold_for_the_seeds_and_what_is_like_them() {
    let changed = std::env::var("WEFT_FUZZ_CHANGED").ok().and_then(|text| text.parse().ok()).unwrap_or(CHANGED);
    // The same each time: what fails here fails again.
    let mut random = fastrand::Rng::with_seed(7);
    for (name, target) in TARGETS {
        let seeds = seeds(name);
        for seed in &seeds {
            target(seed);
            for _ in 0..changed {
                let other = random.choice(&seeds).unwrap();
                let input = change(&mut random, seed, other);
                let tried = std::panic::catch_unwind(|| target(&input));
                assert!(tried.is_ok(), "{name}: {:?}", input.escape_ascii().to_string());
            }
        }
    }
}
