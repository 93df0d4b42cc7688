//! What was posted, and what every node holds of it.

use crate::cli::table::count;

/// Counts, for every node, how often each posted message is there.
pub(super) struct Ledger {
    posted: u64,
    /// For each node, for each message from 0: how often it was read there.
    seen: Vec<Vec<u8>>,
}

/// How it ended.
pub(super) struct Verdict {
    pub(super) text: String,
    pub(super) good: bool,
}

impl Ledger {
    pub(super) fn new(nodes: usize) -> Self {
        Self { posted: 0, seen: vec![Vec::new(); nodes] }
    }

    /// The number of the next message to post.
    pub(super) fn next(&mut self) -> u64 {
        self.posted += 1;
        self.posted - 1
    }

    pub(super) fn posted(&self) -> u64 {
        self.posted
    }

    /// Notes that a node holds the message of this body.
    pub(super) fn seen(&mut self, node: usize, body: &[u8]) {
        let number = std::str::from_utf8(body).ok().and_then(|text| text.parse::<usize>().ok());
        let Some(number) = number.filter(|number| (*number as u64) < self.posted) else {
            return;
        };
        let seen = &mut self.seen[node];
        if seen.len() <= number {
            seen.resize(number + 1, 0);
        }
        seen[number] = seen[number].saturating_add(1);
    }

    /// Messages that a node holds at least once.
    pub(super) fn held(&self, node: usize) -> u64 {
        self.seen[node].iter().filter(|times| **times > 0).count() as u64
    }

    pub(super) fn all_there(&self) -> bool {
        (0..self.seen.len()).all(|node| self.held(node) == self.posted)
    }

    pub(super) fn verdict(&self) -> Verdict {
        let nodes = self.seen.len() as u64;
        let delivered: u64 = (0..self.seen.len()).map(|node| self.held(node)).sum();
        let lost = self.posted * nodes - delivered;
        let doubled: u64 =
            self.seen.iter().flatten().map(|times| u64::from(times.saturating_sub(1))).sum();
        let text = format!(
            "\nposted {}, delivered {} ({} at each of {nodes} nodes), duplicates {}, lost {}\n",
            count(self.posted),
            count(delivered),
            count(self.posted),
            count(doubled),
            count(lost),
        );
        Verdict { text, good: lost == 0 && doubled == 0 && self.posted > 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ledger_tells_lost_and_doubled_messages() {
        let mut ledger = Ledger::new(2);
        for _ in 0..2 {
            ledger.next();
        }
        for (node, body) in [(0, "0"), (0, "1"), (1, "1")] {
            ledger.seen(node, body.as_bytes());
        }
        assert!(!ledger.all_there() && !ledger.verdict().good);
        ledger.seen(1, b"0");
        assert!(ledger.all_there() && ledger.verdict().good);
        ledger.seen(1, b"0");
        assert!(ledger.verdict().text.contains("duplicates 1") && !ledger.verdict().good);
    }
}
