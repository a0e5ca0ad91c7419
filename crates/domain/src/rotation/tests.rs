use proptest::prelude::*;

use super::*;

fn at(seconds: u64) -> Timestamp {
    Timestamp::from_millis(0) + Duration::from_secs(seconds)
}

fn plan(percent: u8, keeps_previous: bool) -> RotationPlan {
    let (hold, overlap) = (Duration::from_mins(2), Duration::from_mins(5));
    RotationPlan::new(percent, hold, overlap, keeps_previous).unwrap()
}

fn begun(percent: u8) -> Rotation {
    let operation = "op-1".parse().unwrap();
    Rotation::begin(operation, (3, 4), plan(percent, false), ("wxyz".to_owned(), false), at(0))
}

#[test]
fn a_rotation_goes_on_by_itself_and_each_step_lasts() {
    let first = begun(5);
    assert_eq!((first.percent(), first.current(), first.spare()), (5, 3, Some(4)));
    assert_eq!(first.next_step(at(119)), None);
    let second = first.next_step(at(121)).unwrap();
    assert_eq!((second.percent(), second.current(), second.spare()), (25, 3, Some(4)));
    assert_eq!(second.next_step(at(240)), None);
    let overlap = second.next_step(at(241)).unwrap();
    assert_eq!((overlap.percent(), overlap.current(), overlap.spare()), (100, 4, Some(3)));
    assert_eq!((overlap.next_step(at(540)), overlap.deletes()), (None, None));
    let done = overlap.next_step(at(541)).unwrap();
    assert_eq!((done.current(), done.spare(), done.deletes()), (4, None, Some(3)));
    assert_eq!((done.next_step(at(9999)), done.due(), done.is_live()), (None, None, false));
    // Who begins with more than the second share has one step before all.
    assert_eq!(begun(50).next_step(at(120)).unwrap().state, RotationState::Overlap);
}

#[test]
fn a_hand_goes_on_or_back_without_waiting_until_it_is_over() {
    let overlap = begun(5).promoted(at(1)).unwrap();
    assert_eq!(overlap.state, RotationState::Overlap);
    let done = overlap.promoted(at(2)).unwrap();
    assert_eq!((done.state, done.promoted(at(3))), (RotationState::Done, None));
    for live in [begun(5), overlap] {
        let back = live.set_back(SetBack::Cancelled, at(2)).unwrap();
        assert_eq!((back.current(), back.spare(), back.deletes()), (3, None, Some(4)));
        assert_eq!(back.set_back(SetBack::Cancelled, at(3)), None);
        assert_eq!((back.promoted(at(3)), back.next_step(at(9999))), (None, None));
    }
    assert_eq!(done.set_back(SetBack::Cancelled, at(3)), None);
}

#[test]
fn a_plan_has_bounds() {
    let (hold, overlap) = (RotationPlan::HOLD, RotationPlan::OVERLAP);
    assert!(RotationPlan::new(RotationPlan::PERCENT, hold, overlap, true).is_some());
    assert!(RotationPlan::new(99, hold, Duration::ZERO, false).is_some());
    for percent in [0, 100, 255] {
        assert_eq!(RotationPlan::new(percent, hold, overlap, false), None);
    }
    assert_eq!(RotationPlan::new(5, Duration::from_millis(999), overlap, false), None);
    assert_eq!(RotationPlan::new(5, Duration::from_hours(169), overlap, false), None);
    assert_eq!(RotationPlan::new(5, hold, Duration::from_hours(25), false), None);
}

#[test]
fn the_first_lease_shows_the_new_version_even_at_the_smallest_share() {
    let mut turns = Turns::default();
    let dealt: Vec<bool> = (0..101).map(|_| turns.take(1)).collect();
    let new = dealt.iter().enumerate().filter(|(_, new)| **new).map(|(at, _)| at);
    assert_eq!(new.collect::<Vec<_>>(), [0, 100]);
}

#[track_caller]
fn check(candidate: (u64, u64), previous: (u64, u64), expected: bool) {
    let fare = |(leases, refused)| Fare { leases, refused, ..Fare::default() };
    let fares = Fares { candidate: fare(candidate), previous: fare(previous) };
    let verdict = fares.verdict();
    assert_eq!(verdict, expected.then_some(SetBack::CredentialRefused), "{fares:?}");
}

#[test]
fn refusals_of_the_new_key_alone_set_it_back() {
    check((1, 2), (19, 0), false);
    check((1, 3), (19, 0), true);
    check((10, 2), (100, 0), true);
    check((11, 2), (100, 0), false);
    // Both are refused: it is not the new key's fault.
    check((5, 5), (95, 95), false);
    check((5, 3), (95, 40), false);
    // The old one was refused once in a while before.
    check((5, 3), (95, 1), true);
}

#[test]
fn what_says_nothing_of_the_key_sets_nothing_back() {
    let mut fares = Fares::default();
    for _ in 0..100 {
        fares.candidate.failed(Failure::ProviderTrouble);
        fares.candidate.failed(Failure::RateLimited { retry_after: None });
        fares.candidate.failed(Failure::TimedOut);
    }
    assert_eq!(fares.verdict(), None);
    for (failure, why) in [
        (Failure::NoQuota, SetBack::NoQuota),
        (Failure::NotAllowed, SetBack::NotAllowed),
        (Failure::CredentialRefused, SetBack::CredentialRefused),
    ] {
        let mut fares = Fares::default();
        for _ in 0..3 {
            assert_eq!(fares.verdict(), None);
            fares.candidate.failed(failure);
        }
        assert_eq!(fares.verdict(), Some(why));
        assert_eq!(SetBack::named(why.as_str()), Some(why));
        // The same of the old key says that it was so before.
        for _ in 0..3 {
            fares.previous.failed(failure);
        }
        assert_eq!(fares.verdict(), None);
    }
}

proptest! {
    #[test]
    fn the_share_is_true_of_any_number_of_leases(percent in 1_u8..=99, leases in 1_u64..2000) {
        let mut turns = Turns::default();
        let new = (0..leases).filter(|_| turns.take(percent)).count();
        let exact = (leases * u64::from(percent)).div_ceil(100);
        prop_assert_eq!(u64::try_from(new).unwrap(), exact);
    }

    #[test]
    fn a_good_new_key_is_never_set_back(
        leases in 0_u64..1000,
        old in (0_u64..1000, 0_u64..1000),
    ) {
        let candidate = Fare { leases, ..Fare::default() };
        let previous = Fare { leases: old.0, refused: old.1, ..Fare::default() };
        prop_assert_eq!(Fares { candidate, previous }.verdict(), None);
    }

    #[test]
    fn a_key_that_is_always_refused_is_set_back_by_the_third_refusal(old in 0_u64..10_000) {
        let mut fares = Fares::default();
        fares.previous.leases = old;
        for _ in 0..3 {
            fares.candidate.leases += 1;
            fares.candidate.failed(Failure::CredentialRefused);
        }
        prop_assert_eq!(fares.verdict(), Some(SetBack::CredentialRefused));
    }

    #[test]
    fn every_way_through_ends_with_one_version(hands in proptest::collection::vec(0_u8..3, 0..12)) {
        let (mut rotation, mut now) = (begun(5), 0);
        for hand in hands {
            now += 100;
            let next = match hand {
                0 => rotation.next_step(at(now)),
                1 => rotation.promoted(at(now)),
                _ => rotation.set_back(SetBack::Cancelled, at(now)),
            };
            let was_live = rotation.is_live();
            prop_assert!(was_live || next.is_none());
            rotation = next.unwrap_or(rotation);
            prop_assert_eq!(rotation.is_live(), rotation.spare().is_some());
            prop_assert_eq!(rotation.is_live(), rotation.due().is_some());
            prop_assert!(rotation.spare() != Some(rotation.current()));
            prop_assert!(rotation.deletes() != Some(rotation.current()));
        }
    }
}
