//! Where long-lived keys are kept.

use std::{collections::BTreeSet, fs::File, os::unix::fs::FileExt as _, thread};

use hardening::{Place, Protection, protection};

#[test]
fn places_do_not_overlap_and_come_back_wiped() {
    let mut places: Vec<_> = (0..5000).map(|_| Place::zeroed()).collect();
    let mut addresses = BTreeSet::new();
    for (number, place) in (0_u64..).zip(&mut places) {
        assert_eq!(place.bytes(), &[0; 32]);
        place.bytes_mut()[..8].copy_from_slice(&number.to_be_bytes());
        let address = place.bytes().as_ptr().addr();
        assert!(address % 32 == 0 && addresses.insert(address));
    }
    for (number, place) in (0_u64..).zip(&places) {
        assert_eq!(place.bytes()[..8], number.to_be_bytes());
    }
    drop(places);
    let again: Vec<_> = (0..5000).map(|_| Place::zeroed()).collect();
    assert!(again.iter().all(|place| place.bytes() == &[0; 32]));
    assert!(again.iter().any(|place| addresses.contains(&place.bytes().as_ptr().addr())));
}

#[test]
fn places_may_be_used_by_many_threads() {
    let threads: Vec<_> = (0..8)
        .map(|number: u8| {
            thread::spawn(move || {
                for _ in 0..1000 {
                    let mut place = Place::zeroed();
                    place.bytes_mut().fill(number);
                    assert_eq!(place.bytes(), &[number; 32]);
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
}

#[test]
fn what_reads_memory_from_outside_does_not_find_a_key() {
    let memory = File::open("/proc/self/mem").unwrap();
    let read = |at: &[u8; 32]| {
        let mut found = [0; 32];
        let address = u64::try_from(at.as_ptr().addr()).unwrap();
        memory.read_exact_at(&mut found, address).ok().map(|()| found)
    };
    let mut place = Place::zeroed();
    place.bytes_mut().fill(0xa5);
    // The control: what is not in the arena is found.
    let ordinary = Box::new([0x5a; 32]);
    assert_eq!(read(&ordinary), Some([0x5a; 32]));
    match protection() {
        Protection::Secret => assert_eq!(read(place.bytes()), None),
        // An older kernel: root can still read it, but no dump and no swap has it.
        Protection::Locked | Protection::Undumped => {
            assert_eq!(read(place.bytes()), Some([0xa5; 32]));
        }
    }
}
