//! The run for a person to read: one line an event, one column a side, one for register, link and faults.

use crate::disk_shell::short;
use mirror::{Action, Input};
use peer::block::{Body, Frame};

/// Widest text of a column; what is longer runs into the next one.
const COLUMN: usize = 46;
/// Longest line's text: a greeting with its history would fill the screen.
const LONGEST: usize = 170;

/// Whom a line is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Column {
    /// A side.
    Side(usize),
    /// Register, link, faults, oracle.
    World,
}

/// The lines.
#[derive(Debug)]
pub struct Lines {
    wanted: bool,
    all: Vec<String>,
}

impl Lines {
    /// Lines, if they are wanted.
    #[must_use]
    pub fn new(wanted: bool) -> Lines {
        let heading =
            format!("{:>11} | {:COLUMN$} | {:COLUMN$} | register, link, faults", "ms", "side 1", "side 2");
        Lines { wanted, all: if wanted { vec![heading] } else { Vec::new() } }
    }

    /// Whether anybody reads them.
    #[must_use]
    pub fn wanted(&self) -> bool {
        self.wanted
    }

    /// All of them.
    #[must_use]
    pub fn all(&self) -> &[String] {
        &self.all
    }

    /// Adds one.
    pub fn put(&mut self, at: u64, column: Column, text: impl FnOnce() -> String) {
        if !self.wanted {
            return;
        }
        let before = match column {
            Column::Side(side) => side,
            Column::World => 2,
        };
        let gap = format!("{:COLUMN$} | ", "").repeat(before);
        let text: String = text().chars().take(LONGEST).collect();
        self.all.push(format!("{:>11.3} | {gap}{text}", at as f64 / 1e3));
    }
}

/// An input in short.
#[must_use]
#[allow(clippy::wildcard_enum_match_arm, reason = "short inputs print themselves")]
pub fn input(input: &Input) -> String {
    match input {
        Input::Received { frame, .. } => format!("< {}", frame_text(frame)),
        Input::LocalDone { op, result } => match result {
            Ok(_) => format!("done {}", op.0),
            Err(fault) => format!("done {}: errno {}", op.0, fault.errno),
        },
        Input::Order(order) => format!("order {}: {:?}", order.ticket.0, order.order),
        other => format!("{other:?}"),
    }
}

/// An action in short.
#[must_use]
#[allow(clippy::wildcard_enum_match_arm, reason = "short actions print themselves")]
pub fn action(action: &Action) -> String {
    match action {
        Action::Send { frame, .. } => format!("  > {}", frame_text(frame)),
        Action::StoreControl { op, writes } => {
            format!(
                "  store {} {:?}",
                op.0,
                writes.iter().map(|write| write.offset / 4096).collect::<Vec<_>>()
            )
        }
        other => format!("  {other:?}"),
    }
}

#[allow(clippy::wildcard_enum_match_arm, reason = "other bodies are told as elsewhere")]
fn frame_text(frame: &Frame) -> String {
    let body = match &frame.body {
        Body::Alive { nonce, grant } => format!("Alive {nonce} {grant:?}"),
        other => short(other),
    };
    format!("{} e{} s{} {body}", frame.sequence, frame.epoch.0, frame.session.0)
}
