//! Folds results on standard input, one JSON object a line, into a Markdown table on standard
//! output: median and spread of the repetitions of each, in the order in which they came.

use std::collections::BTreeMap;
use std::io::BufRead;

use replcore_bench::Sample;

fn main() {
    let mut order: Vec<String> = Vec::new();
    let mut values: BTreeMap<String, BTreeMap<String, Vec<f64>>> = BTreeMap::new();
    for line in std::io::stdin().lock().lines().map_while(Result::ok) {
        let Ok(sample) = serde_json::from_str::<Sample>(&line) else { continue };
        if !order.contains(&sample.what) {
            order.push(sample.what.clone());
        }
        let figures = values.entry(sample.what).or_default();
        for (name, value) in sample.figures {
            figures.entry(name).or_default().push(value);
        }
    }
    println!("| what | runs | figure | median | lowest to highest |");
    println!("| --- | --- | --- | --- | --- |");
    for what in &order {
        for (name, list) in values.get_mut(what).into_iter().flatten() {
            list.sort_by(f64::total_cmp);
            let (low, high) = (list[0], list[list.len() - 1]);
            let median = list[list.len() / 2];
            let runs = list.len();
            println!(
                "| {what} | {runs} | {name} | {} | {} to {} |",
                text(median),
                text(low),
                text(high)
            );
        }
    }
}

/// Three digits that matter, thousands apart.
fn text(value: f64) -> String {
    if value.abs() < 100.0 {
        return format!("{value:.*}", if value.abs() < 1.0 { 3 } else { 2 });
    }
    let digits = format!("{value:.0}");
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at) % 3 == 0 {
            out.push(',');
        }
        out.push(digit);
    }
    out
}
