use std::collections::BTreeMap;

use serde::Serialize;

/// Measurements by name, in rounds; the median is what counts, so that one bad round does not.
#[derive(Debug, Default)]
pub(crate) struct Rounds(BTreeMap<(String, &'static str), Vec<f64>>);

/// The medians of one thing that was measured.
#[derive(Debug, Serialize)]
pub(crate) struct Row {
    pub(crate) what: String,
    #[serde(flatten)]
    pub(crate) medians: BTreeMap<&'static str, f64>,
}

impl Rounds {
    /// Adds a round's value.
    pub(crate) fn add(&mut self, what: &str, measure: &'static str, value: f64) {
        self.0.entry((what.to_owned(), measure)).or_default().push(value);
    }

    /// The median over the rounds.
    pub(crate) fn median(&self, what: &str, measure: &'static str) -> Option<f64> {
        let mut values = self.0.get(&(what.to_owned(), measure))?.clone();
        values.sort_by(f64::total_cmp);
        values.get(values.len() / 2).copied()
    }

    /// Everything, by name.
    pub(crate) fn rows(&self) -> Vec<Row> {
        let mut rows: Vec<Row> = Vec::new();
        for (what, measure) in self.0.keys() {
            if rows.last().is_none_or(|row| row.what != *what) {
                rows.push(Row { what: what.clone(), medians: BTreeMap::new() });
            }
            if let (Some(row), Some(median)) = (rows.last_mut(), self.median(what, measure)) {
                row.medians.insert(measure, median);
            }
        }
        rows
    }
}

/// Prints rows, as JSON or for people, and what they come to.
#[expect(clippy::print_stdout, reason = "this is what the benchmark is run for")]
pub(crate) fn print(rows: &[Row], ratios: &[(String, f64)], json: bool) {
    if json {
        let ratios: BTreeMap<_, _> = ratios.iter().cloned().collect();
        println!("{}", serde_json::json!({ "rows": rows, "ratios": ratios }));
        return;
    }
    for Row { what, medians } in rows {
        let medians = medians.iter().map(|(measure, value)| format!("{measure} {value:.1}"));
        println!("{what:<34} {}", medians.collect::<Vec<_>>().join("   "));
    }
    for (ratio, value) in ratios {
        println!("{ratio:<50} {value:.2}");
    }
}

/// Says how far it is.
#[expect(clippy::print_stderr, reason = "progress, for people")]
pub(crate) fn note(text: &str) {
    eprintln!("{text}");
}
