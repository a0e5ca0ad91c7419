//! Every target reads its seeds and thousands of changed ones, with every run of the tests.
#![expect(clippy::unwrap_used, reason = "helpers of tests may fail the test")]
#![expect(clippy::panic, reason = "helpers of tests may fail the test")]
#![expect(clippy::indexing_slicing, reason = "helpers of tests may fail the test")]

use std::{
    fs,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
};

use fuzz::{TARGETS, Target};

/// Changed inputs of each target.
const CHANGED: usize = 10_000;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds")
}

fn seeds(target: Target) -> Vec<Vec<u8>> {
    let folder = folder().join(target.name);
    let files = fs::read_dir(&folder).unwrap();
    let mut paths: Vec<_> = files.map(|file| file.unwrap().path()).collect();
    paths.sort();
    paths.into_iter().map(|path| fs::read(path).unwrap()).collect()
}

/// A stream of numbers that is the same each time, so that what it finds can be found again.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 16).unwrap()
    }

    fn below(&mut self, end: usize) -> usize {
        self.next() % end.max(1)
    }
}

/// Flips, cuts, repeats and joins: what a broken or hostile sender would come up with first.
fn change(numbers: &mut Numbers, seeds: &[Vec<u8>]) -> Vec<u8> {
    let mut input = seeds[numbers.below(seeds.len())].clone();
    for _ in 0..=numbers.below(4) {
        let at = numbers.below(input.len() + 1);
        match numbers.below(7) {
            0 if at < input.len() => input[at] ^= 1 << numbers.below(8),
            1 if at < input.len() => {
                input[at] = [0, 0x7f, 0x80, 0xff, b'"', b'{', b'\n'][numbers.below(7)];
            }
            2 => input.truncate(at),
            3 => drop(input.drain(..at)),
            4 => input.insert(at, u8::try_from(numbers.below(256)).unwrap()),
            5 => {
                let end = at + numbers.below(input.len() - at + 1);
                let part = input[at..end].to_vec();
                input.splice(at..at, part);
            }
            _ => {
                let other = &seeds[numbers.below(seeds.len())];
                let from = numbers.below(other.len() + 1);
                input.truncate(at);
                input.extend_from_slice(&other[from..]);
            }
        }
        input.truncate(64 << 10);
    }
    input
}

#[test]
fn every_target_has_a_seed_that_it_accepts_and_one_that_it_does_not() {
    for &target in TARGETS {
        let accepted: Vec<_> = seeds(target).iter().map(|seed| (target.read)(seed)).collect();
        assert!(accepted.contains(&true), "{}: no seed is accepted", target.name);
        assert!(!(target.read)(b""), "{}: anything is accepted", target.name);
    }
}

#[test]
fn every_folder_of_seeds_is_a_targets() {
    for entry in fs::read_dir(folder()).unwrap() {
        let name = entry.unwrap().file_name();
        assert!(fuzz::target(name.to_str().unwrap()).is_some(), "{name:?} is no target");
    }
}

#[test]
fn nothing_that_is_changed_at_random_breaks_a_target() {
    for &target in TARGETS {
        let seeds = seeds(target);
        let mut numbers = Numbers(0x5eed_0000_0000_0001);
        for _ in 0..CHANGED {
            read(target, &change(&mut numbers, &seeds));
        }
    }
}

/// Keeps what breaks the target where it can be looked at.
fn read(target: Target, input: &[u8]) {
    if catch_unwind(AssertUnwindSafe(|| (target.read)(input))).is_err() {
        let kept = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{}.broken", target.name));
        fs::write(&kept, input).unwrap();
        panic!("{} is broken by {}", target.name, kept.display());
    }
}

#[test]
fn a_target_that_is_broken_is_found() {
    let fragile =
        Target { name: "fragile", read: |input| input.get(3) == Some(&b'x') && panic!("x") };
    let mut numbers = Numbers(1);
    let seeds = [b"abcdef".to_vec(), b"uvwxyz".to_vec()];
    let breaks = (0..CHANGED).any(|_| {
        let input = change(&mut numbers, &seeds);
        catch_unwind(AssertUnwindSafe(|| (fragile.read)(&input))).is_err()
    });
    assert!(breaks);
}
