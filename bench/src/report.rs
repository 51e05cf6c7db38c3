//! The report: the machine, the targets side by side, and Fanfare's ratio to each peer.

#![allow(clippy::print_stdout, reason = "the report is what the program is for")]

use std::collections::BTreeMap;

use crate::{idle::Idle, phase::Case, target::Kind, trial::Outcome};

const LABEL_WIDTH: usize = 36;
const CELL_WIDTH: usize = 24;

/// All counted measurements of one target.
#[derive(Debug)]
pub(crate) struct Results {
    pub(crate) kind: Kind,
    pub(crate) version: String,
    pub(crate) outcomes: BTreeMap<Case, Vec<Outcome>>,
    pub(crate) idle_kib: BTreeMap<Idle, Vec<f64>>,
    /// Sessions that the server closed.
    pub(crate) ended: u64,
}

impl Results {
    pub(crate) fn new(kind: Kind) -> Self {
        let (outcomes, idle_kib) = (BTreeMap::new(), BTreeMap::new());
        Self { kind, version: String::new(), outcomes, idle_kib, ended: 0 }
    }

    /// A value of each round of a case.
    fn values(&self, case: Case, value: fn(&Outcome) -> f64) -> Vec<f64> {
        self.outcomes.get(&case).into_iter().flatten().map(value).collect()
    }

    /// What a case costs of what one room costs, round by round.
    fn ratios(&self, case: Case, baseline: Case) -> Vec<f64> {
        let cpu = |case| self.values(case, |outcome| outcome.cpu_micros_per_delivery);
        cpu(case).into_iter().zip(cpu(baseline)).map(|(own, one)| own / one).collect()
    }

    fn sum(&self, value: fn(&Outcome) -> u64) -> u64 {
        self.outcomes.values().flatten().map(value).sum()
    }

    /// Whether every session got every event once and in order.
    pub(crate) fn is_exact(&self) -> bool {
        self.ended + self.sum(|outcome| outcome.lost) + self.sum(|outcome| outcome.misplaced) == 0
    }
}

/// The median, the least and the greatest of some values.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Spread {
    median: f64,
    min: f64,
    max: f64,
}

impl Spread {
    pub(crate) fn of(mut values: Vec<f64>) -> Option<Self> {
        values.sort_by(f64::total_cmp);
        let (&min, &max) = (values.first()?, values.last()?);
        let middle = values.len() / 2;
        let median = if values.len() % 2 == 1 {
            values[middle]
        } else {
            f64::midpoint(values[middle - 1], values[middle])
        };
        Some(Self { median, min, max })
    }

    pub(crate) fn median(self) -> f64 {
        self.median
    }

    pub(crate) fn cell(spread: Option<Self>) -> String {
        spread.map_or_else(
            || "–".into(),
            |Self { median, min, max }| {
                // Four digits are more than the measurement is worth.
                let digits = if max >= 100.0 { 0 } else { 2 };
                format!("{median:.digits$} ({min:.digits$}–{max:.digits$})")
            },
        )
    }
}

type Value = Box<dyn Fn(&Results) -> Vec<f64>>;

/// The rows of a case.
fn case_rows(case: Case) -> Vec<(String, Value)> {
    let row = |what: &str, value: fn(&Outcome) -> f64| {
        let value: Value = Box::new(move |results| results.values(case, value));
        (format!("{} {what}", case.name()), value)
    };
    let mut rows = vec![row("CPU µs/delivery", |o| o.cpu_micros_per_delivery)];
    if let Some(baseline) = case.baseline() {
        let ratios: Value = Box::new(move |results| results.ratios(case, baseline));
        rows.push((format!("{} CPU : one room", case.name()), ratios));
    }
    rows.push(row("latency p50 ms", |o| o.p50_millis));
    rows.push(row("latency p99 ms", |o| o.p99_millis));
    if matches!(case, Case::Burst) {
        rows.push(row("complete after ms", |o| o.max_millis));
    }
    rows
}

/// The rows of everything that was measured.
fn rows(results: &[Results]) -> Vec<(String, Value)> {
    let mut cases: Vec<Case> = results.iter().flat_map(|r| r.outcomes.keys().copied()).collect();
    cases.sort_unstable();
    cases.dedup();
    let mut rows: Vec<(String, Value)> = cases.iter().copied().flat_map(case_rows).collect();
    for idle in Idle::ALL {
        if results.iter().any(|results| results.idle_kib.contains_key(&idle)) {
            let kib = move |results: &Results| results.idle_kib.get(&idle).cloned().unwrap_or_default();
            rows.push((idle.name().to_owned(), Box::new(kib)));
        }
    }
    if !cases.is_empty() {
        let bytes = |results: &Results| {
            let last = results.outcomes.values().next().and_then(|outcomes| outcomes.last());
            last.map(|outcome| outcome.frame_bytes as f64).into_iter().collect()
        };
        rows.push(("frame bytes".into(), Box::new(bytes)));
    }
    rows
}

/// Prints everything.
pub(crate) fn print(results: &[Results], conditions: &str, machine: &str) {
    println!("machine      {machine}");
    println!("conditions   {conditions}");
    for result in results {
        println!("{:<13}{}", result.kind.name(), result.version);
    }
    println!("\nmedian (least–greatest) of the rounds\n");
    print_head(results);
    for (label, values) in rows(results) {
        print_row(&label, &values, results);
    }
    if results.iter().any(|result| !result.outcomes.is_empty()) {
        print_text_row("lost / misplaced / closed", results, |r| {
            format!("{} / {} / {}", r.sum(|o| o.lost), r.sum(|o| o.misplaced), r.ended)
        });
    }
    for result in results {
        print_processes(result);
    }
}

fn print_head(results: &[Results]) {
    let mut line = pad("", LABEL_WIDTH);
    for result in results {
        line += &pad(result.kind.name(), CELL_WIDTH);
    }
    for peer in peers(results) {
        line += &pad(&format!("fanfare:{}", peer.kind.name()), CELL_WIDTH);
    }
    println!("{}", line.trim_end());
}

fn print_row(label: &str, values: &Value, results: &[Results]) {
    let spread = |result: &Results| Spread::of(values(result));
    let mut line = pad(label, LABEL_WIDTH);
    for result in results {
        line += &pad(&Spread::cell(spread(result)), CELL_WIDTH);
    }
    let own = results.iter().find(|r| r.kind == Kind::Fanfare).and_then(spread);
    for peer in peers(results) {
        let ratio = own.zip(spread(peer)).map(|(own, peer)| own.median / peer.median);
        line += &pad(&ratio.map_or_else(|| "–".into(), |ratio| format!("{ratio:.2}")), CELL_WIDTH);
    }
    println!("{}", line.trim_end());
}

fn print_text_row(label: &str, results: &[Results], text: impl Fn(&Results) -> String) {
    let mut line = pad(label, LABEL_WIDTH);
    for result in results {
        line += &pad(&text(result), CELL_WIDTH);
    }
    println!("{}", line.trim_end());
}

/// Where a target of several processes spends its time.
fn print_processes(result: &Results) {
    for (case, outcomes) in &result.outcomes {
        let Some(first) = outcomes.first().filter(|o| o.cpu_by_process.len() > 1) else { continue };
        let parts: Vec<String> = (0..first.cpu_by_process.len())
            .filter_map(|index| {
                let spread = Spread::of(outcomes.iter().map(|o| o.cpu_by_process[index].1).collect())?;
                Some(format!("{} {}", first.cpu_by_process[index].0, Spread::cell(Some(spread))))
            })
            .collect();
        let (kind, case) = (result.kind.name(), case.name());
        println!("{kind} {case} CPU µs/delivery by process: {}", parts.join(", "));
    }
}

/// The targets to compare Fanfare with, when it was measured.
fn peers(results: &[Results]) -> impl Iterator<Item = &Results> {
    let compared = results.iter().any(|r| r.kind == Kind::Fanfare);
    results.iter().filter(move |r| compared && r.kind != Kind::Fanfare)
}

fn pad(text: &str, width: usize) -> String {
    format!("{text:<width$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_an_even_number_is_between() {
        let spread = Spread::of(vec![4.0, 1.0, 3.0, 2.0]).expect("values");
        assert_eq!(Spread::cell(Some(spread)), "2.50 (1.00–4.00)");
        assert!(Spread::of(Vec::new()).is_none());
    }

    #[test]
    fn a_ratio_is_that_of_the_same_round() {
        let outcome = |cpu| Outcome { cpu_micros_per_delivery: cpu, ..Outcome::default() };
        let mut results = Results::new(Kind::Fanfare);
        results.outcomes.insert(Case::Steady, vec![outcome(2.0), outcome(4.0)]);
        results.outcomes.insert(Case::TwoRoomsSteady, vec![outcome(3.0), outcome(4.0)]);
        assert_eq!(results.ratios(Case::TwoRoomsSteady, Case::Steady), [1.5, 1.0]);
        let labels: Vec<String> = rows(&[results]).into_iter().map(|(label, _)| label).collect();
        assert!(labels.contains(&"two rooms steady CPU : one room".to_owned()), "{labels:?}");
    }

    #[test]
    fn one_lost_event_is_not_exact() {
        let mut results = Results::new(Kind::Fanfare);
        results.outcomes.insert(Case::Chat, vec![Outcome { lost: 1, ..Outcome::default() }]);
        assert!(!results.is_exact());
    }
}
