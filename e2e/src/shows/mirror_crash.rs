//! `mirror-crash`: random schedules of kills, power losses, cut cables and bad disks, judged by a block-level oracle.

use anyhow::Result;
use serde_json::json;

use super::Options;
use crate::crash::{self, Disks, Ran, Story};
use crate::report::{Outcome, Table};

/// What the claim asks for.
const SCHEDULES: u64 = 500;
/// Schedules at once: each waits most of its time, for time-outs and for what chance draws.
const JOBS: u64 = 12;
/// The first seed of a run that names none.
const FROM: u64 = 1;
/// Schedules of the control, with flush taken out: until one has lost something, at most so many.
const CONTROLS: u64 = 20;

/// The show.
///
/// # Errors
/// When the machine does not allow it.
pub fn run(options: &Options) -> Result<Outcome> {
    let from = options.figure("seed", FROM)?;
    let count = options.figure("schedules", SCHEDULES)?;
    let jobs = options.figure("jobs", JOBS)?;
    println!("schedules {from}..{}, {jobs} at once; one again: seed=N schedules=1 jobs=1", from + count);
    let mut sum = Sum::default();
    crash::run_all(from, count, jobs, Disks::of, Story::Any, |ran| {
        sum.hear(&ran);
        true
    });
    sum.print();
    let control = if options.figure("control", 1)? == 1 { control(from, jobs) } else { None };
    let holds = sum.ran == count && sum.lost == 0 && sum.stuck == 0 && control != Some(0);
    let facts = json!({
        "schedules": sum.ran, "lost": sum.lost, "stuck": sum.stuck, "bad_seeds": sum.bad,
        "acknowledged": sum.acknowledged, "flushes": sum.flushes, "judged_blocks": sum.judged,
        "rebuilds": sum.rebuilds, "switches": sum.switches, "stopped_comparisons": sum.compared, "left_out": sum.left_out,
        "lost_without_flush": control,
    });
    Ok(Outcome::new(holds, facts))
}

/// With flush taken out the oracle must see a loss: how many sectors the first schedules lost that lost any.
fn control(from: u64, jobs: u64) -> Option<u64> {
    println!("\nthe control, flush taken out:");
    let mut lost = 0;
    crash::run_all(
        from,
        CONTROLS,
        jobs,
        |_| Disks { volatile: true, no_flush: true, weak: false },
        Story::Any,
        |ran| {
            lost += ran.tally.lost;
            if let Some(first) = ran.tally.told.first() {
                println!("seed {}: {} sectors: {first}", ran.seed, ran.tally.lost);
            }
            lost == 0
        },
    );
    Some(lost)
}

#[derive(Default)]
struct Sum {
    ran: u64,
    lost: u64,
    stuck: u64,
    bad: Vec<u64>,
    acknowledged: u64,
    flushes: u64,
    judged: u64,
    rebuilds: u64,
    switches: u64,
    compared: u64,
    left_out: u64,
}

impl Sum {
    fn hear(&mut self, ran: &Ran) {
        self.ran += 1;
        self.lost += ran.tally.lost;
        self.stuck += u64::from(ran.broken.is_some());
        self.acknowledged += ran.tally.acknowledged;
        self.flushes += ran.tally.flushes;
        self.judged += ran.tally.judged;
        self.rebuilds += ran.rebuilds;
        self.switches += ran.switches;
        self.compared += ran.compared;
        self.left_out += ran.left_out;
        if !ran.is_good() {
            self.bad.push(ran.seed);
            println!("seed {} FAILS: lost {}, {:?}", ran.seed, ran.tally.lost, ran.broken);
            ran.tally.told.iter().for_each(|told| println!("  {told}"));
            match ran.keep("mirror-crash") {
                Ok(folder) => println!("  records: {}", folder.display()),
                Err(error) => println!("  no records: {error:#}"),
            }
        }
        if self.ran.is_multiple_of(25) {
            println!("{} schedules, lost {}, stuck {}", self.ran, self.lost, self.stuck);
        }
    }

    fn print(&self) {
        let mut table = Table::new(&["what", "number"]);
        let rows = [
            ("schedules", self.ran),
            ("writes acknowledged", self.acknowledged),
            ("flushes acknowledged", self.flushes),
            ("blocks read and judged", self.judged),
            ("rebuilds completed", self.rebuilds),
            ("changes of the active side", self.switches),
            ("stopped copies compared with their maps", self.compared),
            ("failed disks left out, served through the twin", self.left_out),
            ("sectors lost", self.lost),
            ("schedules that did not heal", self.stuck),
        ];
        for (what, number) in rows {
            table.row(&[what.to_owned(), number.to_string()]);
        }
        println!();
        table.print();
    }
}
