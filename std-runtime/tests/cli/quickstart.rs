//! The first thing that a person runs.

use crate::support::run;

#[test]
fn quickstart_kills_a_leaf_and_loses_and_doubles_nothing() {
    let said = run(&["quickstart"]).ok();
    assert!(said.contains("SIGKILL") && said.contains("leaf-3 is back"), "{said}");
    assert!(said.contains("duplicates 0, lost 0"), "{said}");
    let waited = |line: &str| -> u64 {
        let text = line.rsplit_once("leaf-3 killed, holds ").map_or("", |(_, text)| text);
        let number = text.split(", ").nth(1).and_then(|it| it.split(' ').next());
        number.and_then(|it| it.parse().ok()).unwrap_or(0)
    };
    assert!(said.lines().map(waited).max() > Some(100), "its queue was seen growing: {said}");
}
