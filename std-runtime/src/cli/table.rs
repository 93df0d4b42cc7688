//! Printing for people: aligned tables, human units, and nothing that a terminal would obey.

use std::fmt::Write as _;
use std::io::{IsTerminal, Write as _};

use super::Fault;

/// Writes to standard output. That nobody reads is no error.
pub(crate) fn print(text: &str) -> Result<(), Fault> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(|error| Fault::output(&error))
}

/// Writes a value as one line of JSON.
pub(crate) fn print_json(value: &impl serde::Serialize) -> Result<(), Fault> {
    let text = serde_json::to_string(value).map_err(|error| Fault::failed(error.to_string()))?;
    print(&format!("{text}\n"))
}

/// Rows under headings, columns as wide as they need to be. A heading that begins with `>` is of a
/// column of numbers, aligned to the right.
pub(crate) fn table(headings: &[&str], rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let heading = headings[column].trim_start_matches('>').chars().count();
        rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0).max(heading)
    };
    let widths: Vec<_> = (0..headings.len()).map(width).collect();
    let mut text = String::new();
    let mut line = |cells: &[String]| {
        let mut row = String::new();
        for (column, cell) in cells.iter().enumerate() {
            let width = widths[column];
            let gap = if column == 0 { "" } else { "  " };
            let _ = match headings[column].starts_with('>') {
                true => write!(row, "{gap}{cell:>width$}"),
                false => write!(row, "{gap}{cell:<width$}"),
            };
        }
        text.push_str(row.trim_end());
        text.push('\n');
    };
    let names: Vec<_> =
        headings.iter().map(|heading| heading.trim_start_matches('>').to_uppercase()).collect();
    line(&names);
    rows.iter().for_each(|row| line(row));
    text
}

/// Names and values, a line each.
pub(crate) fn facts(facts: &[(&str, String)]) -> String {
    let width = facts.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    facts.iter().map(|(name, value)| format!("{name:<width$}  {value}\n")).collect()
}

/// `1.5 MiB`.
pub(crate) fn bytes(count: u64) -> String {
    const UNITS: [&str; 6] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
    let mut value = count as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    match unit {
        0 => format!("{count} B"),
        _ => format!("{value:.1} {}", UNITS[unit]),
    }
}

/// `1,234,567`.
pub(crate) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `3 min 12 s`: the two largest units of a time in milliseconds.
pub(crate) fn duration(ms: u64) -> String {
    let (seconds, minutes, hours, days) = (ms / 1000, ms / 60_000, ms / 3_600_000, ms / 86_400_000);
    match (days, hours, minutes, seconds) {
        (0, 0, 0, 0) => format!("{ms} ms"),
        (0, 0, 0, 1..10) => format!("{:.1} s", ms as f64 / 1000.0),
        (0, 0, 0, _) => format!("{seconds} s"),
        (0, 0, _, _) => format!("{minutes} min {} s", seconds % 60),
        (0, _, _, _) => format!("{hours} h {} min", minutes % 60),
        _ => format!("{days} d {} h", hours % 24),
    }
}

/// Bytes from outside as one line of at most `width` characters: control characters are shown as
/// escapes, so that no message can work on the terminal.
pub(crate) fn preview(bytes: &[u8], width: usize) -> String {
    // A character has at most 4 bytes, so this much is enough.
    let head = &bytes[..bytes.len().min(width.saturating_mul(4))];
    let text = String::from_utf8_lossy(head);
    let mut shown = String::new();
    for letter in text.chars() {
        match letter {
            _ if letter.is_control() || is_direction(letter) => {
                let _ = write!(shown, "{}", letter.escape_default());
            }
            _ => shown.push(letter),
        }
    }
    if shown.chars().count() > width || head.len() < bytes.len() {
        shown = shown.chars().take(width.saturating_sub(1)).collect();
        shown.push('…');
    }
    shown
}

/// Characters that turn the direction of what follows.
fn is_direction(letter: char) -> bool {
    matches!(letter, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Columns of the terminal on standard output; 100 where there is none.
pub(crate) fn columns() -> usize {
    let size = rustix::termios::tcgetwinsize(std::io::stdout());
    size.ok().map(|size| usize::from(size.ws_col)).filter(|columns| *columns > 0).unwrap_or(100)
}

/// A line on standard error that is written over itself; silent where that is no terminal.
pub(crate) struct Progress {
    shown: bool,
    last: Option<std::time::Instant>,
}

impl Progress {
    pub(crate) fn new() -> Self {
        Self { shown: std::io::stderr().is_terminal(), last: None }
    }

    /// Shows `text`, at most ten times a second.
    pub(crate) fn show(&mut self, text: &str) {
        let recent = |last: std::time::Instant| last.elapsed().as_millis() < 100;
        if self.shown && !self.last.is_some_and(recent) {
            self.last = Some(std::time::Instant::now());
            eprint!("\r\x1b[K{text}");
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.last.is_some() {
            eprint!("\r\x1b[K");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_those_of_people() {
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(1_572_864), "1.5 MiB");
        assert_eq!(count(1_234_567), "1,234,567");
        assert_eq!(count(12), "12");
        assert_eq!(duration(999), "999 ms");
        assert_eq!(duration(192_000), "3 min 12 s");
        assert_eq!(duration(90_000_000), "1 d 1 h");
    }

    #[test]
    fn columns_are_aligned() {
        let rows = vec![vec!["a".into(), "1".into()], vec!["long".into(), "100".into()]];
        assert_eq!(table(&["name", ">n"], &rows), "NAME    N\na       1\nlong  100\n");
    }

    #[test]
    fn a_message_cannot_work_on_the_terminal() {
        assert_eq!(preview(b"\x1b[2Jx\n", 20), "\\u{1b}[2Jx\\n");
        assert_eq!(preview(b"\xff\xfe", 20), "\u{fffd}\u{fffd}");
        assert_eq!(preview(&[b'a'; 100], 10), "aaaaaaaaa…");
    }
}
