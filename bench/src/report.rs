//! The report: the machine, the targets side by side, and Fanfare's ratio to each peer.

#![allow(clippy::print_stdout, reason = "the report is what the program is for")]

use crate::{target::Kind, trial::Outcome};

const LABEL_WIDTH: usize = 26;
const CELL_WIDTH: usize = 24;

/// All counted measurements of one target.
#[derive(Debug)]
pub(crate) struct Results {
    pub(crate) kind: Kind,
    pub(crate) version: String,
    pub(crate) steady: Vec<Outcome>,
    pub(crate) burst: Vec<Outcome>,
    pub(crate) idle_kib: Vec<f64>,
    /// Sessions that the server closed.
    pub(crate) ended: u64,
}

impl Results {
    pub(crate) fn new(kind: Kind, version: &str) -> Self {
        let version = version.to_owned();
        Self { kind, version, steady: Vec::new(), burst: Vec::new(), idle_kib: Vec::new(), ended: 0 }
    }

    fn outcomes(&self) -> impl Iterator<Item = &Outcome> {
        self.steady.iter().chain(&self.burst)
    }

    /// Whether every session got every event once and in order.
    pub(crate) fn is_exact(&self) -> bool {
        self.ended == 0 && self.outcomes().all(|outcome| outcome.lost == 0 && outcome.misplaced == 0)
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

type Row<'a> = (&'a str, &'a dyn Fn(&Results) -> Vec<f64>);

/// Prints everything.
pub(crate) fn print(results: &[Results], conditions: &str, machine: &str) {
    println!("machine      {machine}");
    println!("conditions   {conditions}");
    for result in results {
        println!("{:<13}{}", result.kind.name(), result.version);
    }
    println!("\nmedian (least–greatest) of the rounds\n");
    let rows: [Row<'_>; 9] = [
        ("steady CPU µs/delivery", &|r| of(&r.steady, |o| o.cpu_micros_per_delivery)),
        ("steady latency p50 ms", &|r| of(&r.steady, |o| o.p50_millis)),
        ("steady latency p99 ms", &|r| of(&r.steady, |o| o.p99_millis)),
        ("burst CPU µs/delivery", &|r| of(&r.burst, |o| o.cpu_micros_per_delivery)),
        ("burst latency p50 ms", &|r| of(&r.burst, |o| o.p50_millis)),
        ("burst latency p99 ms", &|r| of(&r.burst, |o| o.p99_millis)),
        ("burst complete after ms", &|r| of(&r.burst, |o| o.max_millis)),
        ("idle KiB/session", &|r| r.idle_kib.clone()),
        ("frame bytes", &|r| r.steady.last().map(|o| o.frame_bytes as f64).into_iter().collect()),
    ];
    print_head(results);
    for (label, values) in rows {
        print_row(label, values, results);
    }
    print_text_row("lost / misplaced / closed", results, |r| {
        let lost: u64 = r.outcomes().map(|o| o.lost).sum();
        let misplaced: u64 = r.outcomes().map(|o| o.misplaced).sum();
        format!("{lost} / {misplaced} / {}", r.ended)
    });
    for result in results {
        print_processes(result);
    }
}

fn of(outcomes: &[Outcome], value: impl Fn(&Outcome) -> f64) -> Vec<f64> {
    outcomes.iter().map(value).collect()
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

fn print_row(label: &str, values: &dyn Fn(&Results) -> Vec<f64>, results: &[Results]) {
    let spread = |result| Spread::of(values(result));
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
    for (phase, outcomes) in [("steady", &result.steady), ("burst", &result.burst)] {
        let Some(first) = outcomes.first().filter(|o| o.cpu_by_process.len() > 1) else { continue };
        let parts: Vec<String> = (0..first.cpu_by_process.len())
            .filter_map(|index| {
                let spread = Spread::of(of(outcomes, |o| o.cpu_by_process[index].1))?;
                Some(format!("{} {}", first.cpu_by_process[index].0, Spread::cell(Some(spread))))
            })
            .collect();
        println!("{} {phase} CPU µs/delivery by process: {}", result.kind.name(), parts.join(", "));
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
}
