//! One situation: read from its file, run by two real engines, told line by line.

mod tell;
mod words;

use crate::common::World;
use wire::NodeId;

/// A line of the story that is not told by the engines.
#[derive(Clone, Debug)]
pub enum Part {
    /// A line that stands as it is: a comment, `given` and its lines, an empty one.
    Plain(String),
    /// `when ...`: something happens.
    When(String),
    /// `then`: what the engines made of it is told, and compared.
    Then,
}

/// A file.
#[derive(Clone, Debug)]
pub struct Situation {
    /// The first line: what happens, and what comes of it.
    pub title: String,
    /// The lines below `given`.
    pub given: Vec<String>,
    /// All of it in order, without what follows a `then`.
    parts: Vec<Part>,
}

impl Situation {
    /// Reads a file.
    pub fn read(text: &str) -> Situation {
        let mut lines = text.lines();
        let title = lines.next().expect("a title").to_string();
        let (mut given, mut parts) = (Vec::new(), Vec::new());
        let (mut in_given, mut in_then) = (false, false);
        for line in lines {
            let inside = line.starts_with("  ");
            if in_then && inside {
                continue;
            }
            in_then = line == "then";
            in_given = line == "given" || in_given && inside;
            if in_given && inside {
                given.push(line.trim().to_string());
            }
            parts.push(match line.strip_prefix("when ") {
                Some(what) => Part::When(what.to_string()),
                None if in_then => Part::Then,
                None => {
                    assert!(line.is_empty() || line.starts_with('#') || in_given, "{line:?}: not understood");
                    Part::Plain(line.to_string())
                }
            });
        }
        Situation { title, given, parts }
    }

    /// The file with what was told after each `then`.
    pub fn with(&self, told: &[Vec<String>]) -> String {
        let mut told = told.iter();
        let mut text = format!("{}\n", self.title);
        for part in &self.parts {
            match part {
                Part::Plain(line) => text += &format!("{line}\n"),
                Part::When(what) => text += &format!("when {what}\n"),
                Part::Then => {
                    text += "then\n";
                    for line in told.next().into_iter().flatten() {
                        text += &format!("  {line}\n");
                    }
                }
            }
        }
        text
    }
}

/// Longest wait for a situation to come to rest, in milliseconds of its own time.
const REST_LIMIT: u64 = 240_000;
/// What rests for so long has come to rest: longer than every wait of the engine but a step's time-out.
const REST: u64 = 4_000;

/// Runs it: what is told at each `then`.
pub fn run(situation: &Situation) -> Vec<Vec<String>> {
    let mut world = World::new(words::config(&situation.given));
    world.grain = 50 * crate::common::MS;
    words::prepare(&mut world, &situation.given);
    let mut told = Vec::new();
    let mut refused = Vec::new();
    for part in &situation.parts {
        match part {
            Part::Plain(_) => {}
            Part::When(what) => words::happen(&mut world, what, &mut refused),
            Part::Then => {
                rest(&mut world);
                let mut lines = tell::told(&mut world);
                lines.splice(0..0, refused.drain(..));
                told.push(lines);
                forget(&mut world);
            }
        }
    }
    told
}

/// What was done and told is behind.
pub fn forget(world: &mut World) {
    for server in NodeId::BOTH {
        let host = world.host(server);
        (host.log, host.events) = Default::default();
    }
}

/// Until nothing changes any more.
pub fn rest(world: &mut World) {
    let (mut waited, mut quiet, mut last) = (0, 0, tell::state(world));
    world.run(500);
    while quiet < REST && waited < REST_LIMIT {
        world.run(500);
        waited += 500;
        let state = tell::state(world);
        quiet = if state == last && !tell::is_busy(world) { quiet + 500 } else { 0 };
        last = state;
    }
}
