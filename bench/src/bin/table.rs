//! Folds results on standard input, one JSON object a line, into Markdown tables on standard output:
//! the median of the repetitions of each and, behind it, the lowest and the highest. First what moves
//! messages over two hops, then the rest, in the order in which they came.

use std::collections::BTreeMap;
use std::io::BufRead;

use replcore_bench::Sample;

/// Of results over two hops: figures and their headings.
const COLUMNS: [(&str, &str); 5] = [
    ("messages_per_s", "messages/s"),
    ("p50_ms", "p50 ms"),
    ("p99_ms", "p99 ms"),
    ("cpu_s_per_million", "CPU s per million"),
    ("peak_rss_mib", "peak RSS MiB"),
];

/// All values of each figure.
type Figures = BTreeMap<String, Vec<f64>>;

fn main() {
    let mut results: Vec<(String, Figures)> = Vec::new();
    for line in std::io::stdin().lock().lines().map_while(Result::ok) {
        let Ok(sample) = serde_json::from_str::<Sample>(&line) else { continue };
        let at = results.iter().position(|(what, _)| *what == sample.what).unwrap_or_else(|| {
            results.push((sample.what.clone(), Figures::new()));
            results.len() - 1
        });
        for (name, value) in sample.figures {
            results[at].1.entry(name).or_default().push(value);
        }
    }
    let (hops, others): (Vec<_>, Vec<_>) =
        results.into_iter().partition(|(_, figures)| figures.contains_key(COLUMNS[0].0));
    if !hops.is_empty() {
        let headings: Vec<&str> = COLUMNS.iter().map(|column| column.1).collect();
        println!("| two hops | runs | {} |", headings.join(" | "));
        println!("| --- |{}", " --- |".repeat(1 + COLUMNS.len()));
        for (what, figures) in &hops {
            let cells: Vec<String> =
                COLUMNS.iter().map(|(name, _)| cell(figures.get(*name))).collect();
            println!("| {what} | {} | {} |", figures[COLUMNS[0].0].len(), cells.join(" | "));
        }
        println!();
    }
    if !others.is_empty() {
        println!("| what | runs | figure | value |\n| --- | --- | --- | --- |");
        for (what, figures) in &others {
            for (name, values) in figures {
                println!("| {what} | {} | {name} | {} |", values.len(), cell(Some(values)));
            }
        }
    }
}

fn cell(values: Option<&Vec<f64>>) -> String {
    let Some(mut sorted) = values.cloned() else { return String::new() };
    sorted.sort_by(f64::total_cmp);
    let median = text(sorted[sorted.len() / 2]);
    match &sorted[..] {
        [_] => median,
        [low, .., high] => format!("{median} [{}..{}]", text(*low), text(*high)),
        [] => String::new(),
    }
}

/// Three digits that matter, thousands apart.
fn text(value: f64) -> String {
    if value.abs() < 100.0 {
        return format!("{value:.*}", if value.abs() < 10.0 { 2 } else { 1 });
    }
    let digits = format!("{value:.0}");
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}
