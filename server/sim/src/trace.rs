//! A run for a person to read: one line an event, one column a host.

use crate::queue::Instant;

/// Widest text of a column; the rest of a longer one is cut, so that the columns stay columns.
const COLUMN_CHARS: usize = 44;
/// Lines kept of a run that is not printed as it goes: enough to see what led to a failure.
const KEPT_LINES: usize = 400;

/// Who a line is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Column {
    /// Server 1 or 2, by index 0 or 1.
    Server(usize),
    /// The witness.
    Witness,
    /// The application, its oracle, the fault plan.
    Client,
}

/// How much of a run is written down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Detail {
    /// Nothing: thousands of seeds.
    Off,
    /// The steps a person follows.
    Steps,
    /// Every heartbeat and keep-alive too.
    All,
}

/// The lines of a run.
#[derive(Debug)]
pub struct Trace {
    detail: Detail,
    print: bool,
    lines: std::collections::VecDeque<String>,
}

impl Trace {
    /// A trace; `print`: write each line out as it comes.
    #[must_use]
    pub fn new(detail: Detail, print: bool) -> Self {
        Trace { detail, print, lines: std::collections::VecDeque::new() }
    }

    /// Whether lines of this detail are wanted.
    #[must_use]
    pub fn wants(&self, detail: Detail) -> bool {
        self.detail >= detail
    }

    /// The heading of the columns.
    pub fn heading(&mut self) {
        if self.wants(Detail::Steps) {
            let names = ["server1", "server2", "witness", "client, oracle, faults"];
            let text = names.map(|name| format!("{name:<COLUMN_CHARS$}")).join("| ");
            self.put(format!("{:>12} | {text}", "seconds"));
        }
    }

    /// One step.
    pub fn step(&mut self, at: Instant, column: Column, text: impl FnOnce() -> String) {
        if self.wants(Detail::Steps) {
            self.write(at, column, &text());
        }
    }

    /// One event of the kind that comes ten times a second.
    pub fn noise(&mut self, at: Instant, column: Column, text: impl FnOnce() -> String) {
        if self.wants(Detail::All) {
            self.write(at, column, &text());
        }
    }

    fn write(&mut self, at: Instant, column: Column, text: &str) {
        let before = match column {
            Column::Server(index) => index,
            Column::Witness => 2,
            Column::Client => 3,
        };
        let gap = format!("{:COLUMN_CHARS$}| ", "").repeat(before);
        let limit =
            if self.detail == Detail::All || before == 3 { 4 * COLUMN_CHARS } else { 3 * COLUMN_CHARS };
        let text: String = text.chars().take(limit).collect();
        self.put(format!("{:>12.6} | {gap}{text}", at as f64 / 1e6));
    }

    fn put(&mut self, line: String) {
        if self.print {
            println!("{line}");
            return;
        }
        if self.lines.len() == KEPT_LINES {
            self.lines.pop_front();
        }
        self.lines.push_back(line);
    }

    /// The last lines, of a trace that does not print.
    #[must_use]
    pub fn last_lines(&self) -> Vec<String> {
        self.lines.iter().cloned().collect()
    }
}
