use std::collections::BTreeMap;

use domain::Cost;
use jiff::civil::Date;

/// Of which day, key and model; without a day, of all days.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct Place {
    pub(super) day: Option<Date>,
    pub(super) key: Key,
    pub(super) model: String,
}

/// Whose spending it is.
#[derive(Clone, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum Key {
    /// That of all keys: they are not told apart.
    #[default]
    All,
    /// That of the keys that a credential has, or had.
    Credential(String),
    /// That of a key of the export of which nobody has said which credential has it.
    Unnamed(String),
}

/// What one side counted. What an export does not state is none.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Figures {
    pub(super) input: Option<u64>,
    pub(super) output: Option<u64>,
    pub(super) cost: Option<Cost>,
    pub(super) calls: u64,
    pub(super) cost_unknown: u64,
    pub(super) usage_unknown: u64,
}

/// Both sides of one place.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Compared {
    pub(super) place: Place,
    pub(super) theirs: Figures,
    pub(super) ours: Figures,
    /// Whether the provider counted more than the tolerance allows.
    pub(super) beyond: bool,
}

/// Both sides day by day, and of all days together.
#[derive(Debug, Default)]
pub(super) struct Comparison {
    pub(super) days: Vec<Compared>,
    pub(super) models: Vec<Compared>,
}

/// Holds what the provider counted against what went through Strongroom.
///
/// A call around midnight may be counted on another day by the provider, so what decides are the sums
/// of all days.
pub(super) fn compare(
    theirs: Vec<(Place, Figures)>,
    ours: Vec<(Place, Figures)>,
    tolerance_percent: u32,
) -> Comparison {
    let mut days: BTreeMap<Place, (Figures, Figures)> = BTreeMap::new();
    let same = |place: Place| Place { model: base_name(&place.model), ..place };
    for (place, figures) in theirs {
        days.entry(same(place)).or_default().0.add(&figures);
    }
    for (place, figures) in ours {
        days.entry(same(place)).or_default().1.add(&figures);
    }
    let mut models: BTreeMap<Place, (Figures, Figures)> = BTreeMap::new();
    for (place, (theirs, ours)) in &days {
        let sums = models.entry(Place { day: None, ..place.clone() }).or_default();
        sums.0.add(theirs);
        sums.1.add(ours);
    }
    let rows = |places: BTreeMap<Place, (Figures, Figures)>| {
        let row = |(place, (theirs, ours)): (Place, (Figures, Figures))| {
            let beyond = is_beyond(&theirs, &ours, tolerance_percent);
            Compared { place, theirs, ours, beyond }
        };
        places.into_iter().map(row).collect()
    };
    Comparison { days: rows(days), models: rows(models) }
}

/// Whether any figure that the provider states is larger than ours by more than the tolerance.
fn is_beyond(theirs: &Figures, ours: &Figures, tolerance_percent: u32) -> bool {
    let more = |theirs: u128, ours: u128| {
        let excess = theirs.saturating_sub(ours);
        excess.saturating_mul(100) > theirs.saturating_mul(tolerance_percent.into())
    };
    let tokens = |theirs: Option<u64>, ours: Option<u64>| {
        theirs.is_some_and(|theirs| more(theirs.into(), ours.unwrap_or(0).into()))
    };
    let costs = theirs
        .cost
        .is_some_and(|theirs| more(theirs.picos(), ours.cost.unwrap_or_default().picos()));
    tokens(theirs.input, ours.input) || tokens(theirs.output, ours.output) || costs
}

impl Figures {
    fn add(&mut self, other: &Self) {
        let sum = |one: Option<u64>, other: Option<u64>| match (one, other) {
            (None, None) => None,
            (one, other) => Some(one.unwrap_or(0).saturating_add(other.unwrap_or(0))),
        };
        self.input = sum(self.input, other.input);
        self.output = sum(self.output, other.output);
        self.cost = match (self.cost, other.cost) {
            (Some(one), Some(other)) => Some(one.plus(other)),
            (one, other) => one.or(other),
        };
        self.calls = self.calls.saturating_add(other.calls);
        self.cost_unknown = self.cost_unknown.saturating_add(other.cost_unknown);
        self.usage_unknown = self.usage_unknown.saturating_add(other.usage_unknown);
    }
}

/// A model without the date of its snapshot: providers count by snapshots what was asked for by a name
/// without one.
fn base_name(model: &str) -> String {
    let digits = |text: &str, count: usize| {
        text.len() == count && text.bytes().all(|byte| byte.is_ascii_digit())
    };
    if let Some((base, date)) = model.rsplit_once('-')
        && digits(date, 8)
    {
        return base.to_owned();
    }
    let dated =
        model.len().checked_sub("-2024-08-06".len()).and_then(|at| model.split_at_checked(at));
    if let Some((base, date)) = dated
        && let [year, month, day] = *date.trim_start_matches('-').split('-').collect::<Vec<_>>()
        && date.starts_with('-')
        && digits(year, 4)
        && digits(month, 2)
        && digits(day, 2)
    {
        return base.to_owned();
    }
    model.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn day(text: &str) -> Date {
        text.parse().unwrap()
    }

    fn line(on: &str, model: &str, input: u64, output: u64) -> (Place, Figures) {
        let figures = Figures { input: Some(input), output: Some(output), ..Figures::default() };
        (Place { day: Some(day(on)), key: Key::All, model: model.to_owned() }, figures)
    }

    fn ours(on: &str, model: &str, input: u64, output: u64) -> (Place, Figures) {
        let (place, figures) = line(on, model, input, output);
        (place, Figures { calls: 1, ..figures })
    }

    fn of(key: Key, (place, figures): (Place, Figures)) -> (Place, Figures) {
        (Place { key, ..place }, figures)
    }

    #[track_caller]
    fn check(theirs: &[(Place, Figures)], ours: Vec<(Place, Figures)>, beyond: &[&str]) {
        let compared = compare(theirs.to_vec(), ours, 1);
        let models = compared.models.iter().filter(|it| it.beyond);
        let models: Vec<_> = models.map(|it| it.place.model.as_str()).collect();
        assert_eq!(models, beyond, "{compared:?}");
    }

    #[test]
    fn what_went_through_is_not_beyond() {
        let theirs = [line("2026-11-01", "gpt-4o-2024-08-06", 1000, 100)];
        check(&theirs, vec![ours("2026-11-01", "gpt-4o", 1000, 100)], &[]);
        // More on our side is no leak.
        check(&theirs, vec![ours("2026-11-01", "gpt-4o", 2000, 100)], &[]);
        // Within a hundredth.
        check(&theirs, vec![ours("2026-11-01", "gpt-4o", 990, 100)], &[]);
    }

    #[test]
    fn spend_that_did_not_go_through_is_beyond() {
        let theirs = [line("2026-11-01", "gpt-4o", 1000, 100), line("2026-11-01", "o3", 1, 1)];
        check(&theirs, vec![ours("2026-11-01", "gpt-4o", 989, 100)], &["gpt-4o", "o3"]);
        check(&theirs, vec![ours("2026-11-01", "gpt-4o", 1000, 98)], &["gpt-4o", "o3"]);
        check(&theirs, vec![], &["gpt-4o", "o3"]);
    }

    #[test]
    fn calls_around_midnight_may_be_of_another_day() {
        let theirs = [line("2026-11-01", "o3", 100, 0), line("2026-11-02", "o3", 300, 0)];
        let ours = vec![ours("2026-11-01", "o3", 200, 0), ours("2026-11-02", "o3", 200, 0)];
        let compared = compare(theirs.to_vec(), ours, 1);
        let days: Vec<bool> = compared.days.iter().map(|it| it.beyond).collect();
        assert_eq!((days, compared.models[0].beyond), (vec![false, true], false));
    }

    #[test]
    fn costs_are_compared_where_they_are_stated() {
        let cost = |usd: &str| Some(Cost::from_usd(usd).unwrap());
        let stated = Figures { cost: cost("1.00"), ..Figures::default() };
        let theirs = (line("2026-11-01", "a", 0, 0).0, stated);
        let mine = |usd: &str| {
            let (place, figures) = ours("2026-11-01", "a", 5, 5);
            vec![(place, Figures { cost: cost(usd), ..figures })]
        };
        check(std::slice::from_ref(&theirs), mine("0.99"), &[]);
        check(&[theirs], mine("0.989999"), &["a"]);
    }

    #[test]
    fn a_key_is_not_made_up_for_by_another() {
        let named = |name: &str| Key::Credential(name.to_owned());
        let (day, other) = ("2026-11-01", Key::Unnamed("key_9".to_owned()));
        // One went through twice over, of another half passed by, and of a third nobody has heard.
        let theirs = vec![
            of(named("a"), line(day, "o3", 100, 10)),
            of(named("b"), line(day, "o3", 100, 10)),
            of(other.clone(), line(day, "o3", 5, 1)),
        ];
        let went =
            vec![of(named("a"), ours(day, "o3", 200, 20)), of(named("b"), ours(day, "o3", 50, 10))];
        let compared = compare(theirs.clone(), went.clone(), 1);
        let beyond = compared.models.iter().filter(|it| it.beyond).map(|it| it.place.key.clone());
        assert_eq!(beyond.collect::<Vec<_>>(), [named("b"), other]);
        // The control: added up, the first hides the others.
        let together = |lines: Vec<(Place, Figures)>| {
            lines.into_iter().map(|line| of(Key::All, line)).collect::<Vec<_>>()
        };
        check(&together(theirs), together(went), &[]);
    }

    #[test]
    fn a_snapshots_date_is_not_part_of_a_models_name() {
        for (model, base) in [
            ("gpt-4o-2024-08-06", "gpt-4o"),
            ("claude-sonnet-4-20250514", "claude-sonnet-4"),
            ("claude-opus-4-5", "claude-opus-4-5"),
            ("gpt-4-0613", "gpt-4-0613"),
            ("o3", "o3"),
            ("2024-08-06", "2024-08-06"),
            ("", ""),
        ] {
            assert_eq!(base_name(model), base);
        }
    }
}
