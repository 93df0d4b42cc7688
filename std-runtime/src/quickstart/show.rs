//! The picture: redrawn in place on a terminal, plain lines elsewhere.

use std::fmt::Write as _;
use std::io::{IsTerminal, Write as _};
use std::time::Duration;

use super::check::Ledger;
use super::process::NodeProcess;
use crate::cli::Fault;
use crate::cli::table::{count, print};

/// Cells of the longest bar.
const BAR: u64 = 24;
/// Elsewhere than on a terminal: time between two lines.
const LINE_EVERY: Duration = Duration::from_secs(1);

const BOLD: &str = "\x1b[1m";
const DIM: &str = "\x1b[2m";
const GREEN: &str = "\x1b[32m";
const RED: &str = "\x1b[31m";
const YELLOW: &str = "\x1b[33m";
const PLAIN: &str = "\x1b[0m";

pub(super) struct Show {
    terminal: bool,
    /// Lines of the picture on the terminal.
    lines: usize,
    last: Option<Duration>,
    /// The most that has waited for one node.
    waiting_max: u64,
}

impl Show {
    pub(super) fn new() -> Self {
        Self { terminal: std::io::stdout().is_terminal(), lines: 0, last: None, waiting_max: 500 }
    }

    /// Says what happens, above the picture, which is drawn anew below.
    pub(super) fn say(&mut self, text: &str) {
        let mut out = String::new();
        self.wipe(&mut out);
        let (bold, plain) = if self.terminal { (BOLD, PLAIN) } else { ("", "") };
        let _ = writeln!(out, "{bold}{text}{plain}");
        write(&out);
        self.last = None;
    }

    pub(super) fn draw(&mut self, nodes: &[NodeProcess], ledger: &Ledger, elapsed: Duration) {
        let waiting = nodes.iter().map(|node| node.waiting).max().unwrap_or(0);
        self.waiting_max = self.waiting_max.max(waiting);
        if self.terminal {
            let mut out = String::new();
            self.wipe(&mut out);
            let picture = self.picture(nodes, ledger, elapsed);
            self.lines = picture.lines().count();
            out.push_str(&picture);
            write(&out);
        } else if self.last.is_none_or(|last| elapsed - last >= LINE_EVERY) {
            self.last = Some(elapsed);
            write(&line(nodes, ledger, elapsed));
        }
    }

    /// The last picture, which stays.
    pub(super) fn finish(&mut self, nodes: &[NodeProcess], ledger: &Ledger, elapsed: Duration) {
        self.last = None;
        self.draw(nodes, ledger, elapsed);
        self.lines = 0;
    }

    /// Takes the picture off the terminal.
    fn wipe(&mut self, out: &mut String) {
        if self.lines > 0 {
            let _ = write!(out, "\x1b[{}A\r\x1b[J", self.lines);
            self.lines = 0;
        }
    }

    fn picture(&self, nodes: &[NodeProcess], ledger: &Ledger, elapsed: Duration) -> String {
        let mut text = format!(
            "\n  {:>4.1} s   {} posted\n\n  {DIM}{:<8} {:<8} {:>9}   waiting for it at the hub{PLAIN}\n",
            elapsed.as_secs_f64(),
            count(ledger.posted()),
            "node",
            "state",
            "holds"
        );
        for (place, node) in nodes.iter().enumerate() {
            let (color, state) = state(node);
            let waiting = if place == 0 { String::new() } else { self.bar(node.waiting) };
            let _ = writeln!(
                text,
                "  {:<8} {color}{state:<8}{PLAIN} {:>9}   {waiting}",
                node.name,
                count(ledger.held(place)),
            );
        }
        text
    }

    fn bar(&self, waiting: u64) -> String {
        let cells = (waiting * BAR).div_ceil(self.waiting_max);
        let bar: String = (0..cells).map(|_| '█').collect();
        format!("{YELLOW}{bar}{PLAIN} {}", count(waiting)).replacen(
            ' ',
            if cells == 0 { "" } else { " " },
            1,
        )
    }
}

fn state(node: &NodeProcess) -> (&'static str, &'static str) {
    match (node.is_running(), node.live) {
        (false, _) => (RED, "killed"),
        (true, false) => (YELLOW, "starting"),
        (true, true) => (GREEN, "up"),
    }
}

fn line(nodes: &[NodeProcess], ledger: &Ledger, elapsed: Duration) -> String {
    let mut text = format!("{:>5.1} s  posted {:>5}", elapsed.as_secs_f64(), ledger.posted());
    for (place, node) in nodes.iter().enumerate() {
        let _ = write!(text, "  | {} {}, holds {}", node.name, state(node).1, ledger.held(place));
        if place > 0 {
            let _ = write!(text, ", {} waiting", node.waiting);
        }
    }
    text.push('\n');
    text
}

fn write(text: &str) {
    let mut out = std::io::stdout().lock();
    // That nobody looks any more does not change the outcome.
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// Says what there is to try.
pub(super) fn stay(nodes: &[NodeProcess]) -> Result<(), Fault> {
    let mut text = String::from("\nThe nodes stay up until Ctrl-C:\n");
    for node in nodes {
        let _ = writeln!(text, "  {:<8} {}", node.name, node.address);
    }
    let (hub, leaf) = (&nodes[0].address, &nodes[1].address);
    let _ = write!(
        text,
        "\nTry, in another terminal:\n  \
         replcore post {leaf} 'hello' --type greeting\n  \
         replcore read {hub} --type greeting --follow\n  \
         replcore nodes {hub}\n  \
         replcore queue list {hub}\n  \
         replcore status {leaf}\n"
    );
    print(&text)
}
