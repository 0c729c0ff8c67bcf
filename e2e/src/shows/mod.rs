//! The evidence programs: each claims one thing, shows it on real parts and says whether it holds.

mod counter_failover;
mod cut_links;
mod disk_kill;
mod engine_sim;
mod failover_gap;
mod filesystems;
mod first_light;
mod idle_cost;
mod mirror_copy;
mod mirror_crash;
mod mirror_memory;
mod mirror_sim;
mod mirror_speed;
mod nbd;
mod node_kill;
pub mod page_live;
mod rejoin_map;
mod return_fast_copy;
mod sim_first;
mod situations;
mod test_time;

use std::time::Instant;

use anyhow::{Context, Result, bail};

use crate::report::{Outcome, Table};
use crate::{layers, packages};

/// What a show may be told on the command line, as `NAME=VALUE`.
#[derive(Debug, Default)]
pub struct Options(Vec<(String, String)>);

impl Options {
    fn read(words: &[&str]) -> Result<Self> {
        let pairs = words.iter().map(|word| {
            let (name, value) = word.split_once('=').with_context(|| format!("{word}: write NAME=VALUE"))?;
            Ok((name.to_owned(), value.to_owned()))
        });
        Ok(Self(pairs.collect::<Result<_>>()?))
    }

    /// The text given under this name.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(given, _)| given == name).map(|(_, value)| value.as_str())
    }

    /// The figure given under this name, or else the usual one.
    ///
    /// # Errors
    /// When something was given that is no figure.
    pub fn figure(&self, name: &str, usual: u64) -> Result<u64> {
        match self.text(name) {
            Some(value) => value.parse().with_context(|| format!("{name}={value} is not a figure")),
            None => Ok(usual),
        }
    }
}

/// One evidence program.
struct Show {
    name: &'static str,
    claim: &'static str,
    /// It runs the program of this work tree: that is built first. The others build what they show.
    runs_program: bool,
    run: fn(&Options) -> Result<Outcome>,
}

const SHOWS: &[Show] = &[
    Show {
        name: "first-light",
        claim: "a clean clone, one command: the browser shows two normal servers, the active group, an in-sync mirror",
        runs_program: false,
        run: first_light::run,
    },
    Show {
        name: "counter-failover",
        claim: "power losses of the active server: no acknowledged increment is missing; red when flush is taken out",
        runs_program: true,
        run: counter_failover::run,
    },
    Show {
        name: "return-fast-copy",
        claim: "a killed server is recovered by a click: only what changed moves, both copies are identical afterwards",
        runs_program: true,
        run: return_fast_copy::run,
    },
    Show {
        name: "cut-links",
        claim: "every cable of the active server cut: never two active, the losing side cannot write, then it recovers",
        runs_program: true,
        run: cut_links::run,
    },
    Show {
        name: "node-kill",
        claim: "the manager killed ten times: the application does not notice; kept away too long, the group fails over",
        runs_program: true,
        run: node_kill::run,
    },
    Show {
        name: "disk-kill",
        claim: "the disk process killed under verified load, on either side, keeper and manager too: a pause, no error",
        runs_program: true,
        run: disk_kill::run,
    },
    Show {
        name: "sim-first",
        claim: "5,000 simulator seeds without a violation, at least three bugs put back are found",
        runs_program: false,
        run: sim_first::run,
    },
    Show {
        name: "nbd",
        claim: "the NBD export serves qemu, libnbd and fio over unix socket and TLS; both copies are what was written",
        runs_program: true,
        run: nbd::run,
    },
    Show {
        name: "page-live",
        claim: "the page follows a failover and the return live, light, dark, phone, Japanese; axe-core finds nothing",
        runs_program: true,
        run: page_live::run,
    },
    Show {
        name: "mirror-copy",
        claim: "copies of 1 GiB beside a plain local copy, of what changed and of nothing, and what the application pays",
        runs_program: true,
        run: mirror_copy::run,
    },
    Show {
        name: "mirror-speed",
        claim: "the mirrored device beside QEMU's quorum and bare devices, interleaved: ratios of six workloads",
        runs_program: true,
        run: mirror_speed::run,
    },
    Show {
        name: "mirror-crash",
        claim: "500 random schedules of kills, power losses, cuts and bad disks: nothing lost; red when flush is taken out",
        runs_program: true,
        run: mirror_crash::run,
    },
    Show {
        name: "rejoin-map",
        claim: "the standby rejoins while the survivor's map is not empty, and again: never called equal where a block differs",
        runs_program: true,
        run: rejoin_map::run,
    },
    Show {
        name: "mirror-memory",
        claim: "a disk process stays small: 1 GiB under load, 4 TiB in sync, 4 TiB with one block in a hundred different",
        runs_program: true,
        run: mirror_memory::run,
    },
    Show {
        name: "filesystems",
        claim: "ext4, XFS and PostgreSQL on the mirror: power losses under load, clean checks, nothing synced or committed lost",
        runs_program: true,
        run: filesystems::run,
    },
    Show {
        name: "mirror-sim",
        claim: "the mirror alone under 200,000 seeds without a violation; every bug put back into it is found",
        runs_program: false,
        run: mirror_sim::run,
    },
    Show {
        name: "engine-sim",
        claim: "the whole cluster under 200,000 seeds without a violation; every bug put back is found, a failing run shrunk",
        runs_program: false,
        run: engine_sim::run,
    },
    Show {
        name: "failover-gap",
        claim: "power loss of the active server: milliseconds without service, default and fast, beside keepalived and Pacemaker",
        runs_program: true,
        run: failover_gap::run,
    },
    Show {
        name: "idle-cost",
        claim: "one server at rest with one mirror set: resident memory of all its processes, processor, packets",
        runs_program: true,
        run: idle_cost::run,
    },
    Show {
        name: "situations",
        claim: "the nine situations of the seed and some 200 more, as files an operator can read: all green",
        runs_program: false,
        run: situations::run,
    },
    Show {
        name: "test-time",
        claim: "the whole test run, cold, from a clean clone: its minutes",
        runs_program: false,
        run: test_time::run,
    },
];

/// The names of all shows, in the order of the list.
#[must_use]
pub fn names() -> Vec<&'static str> {
    SHOWS.iter().map(|show| show.name).collect()
}

/// `cargo x show [NAME [OPTION=VALUE]...]`: true where the show holds.
///
/// # Errors
/// When there is no such show, or an option cannot be read.
pub fn main(arguments: &[&str]) -> Result<bool> {
    let [name, options @ ..] = arguments else {
        let mut table = Table::new(&["show", "claim"]);
        for show in SHOWS {
            table.row(&[show.name, show.claim]);
        }
        table.print();
        return Ok(true);
    };
    let Some(show) = SHOWS.iter().find(|show| show.name == *name) else {
        bail!("no show {name}: `cargo x show` lists them");
    };
    let options = Options::read(options)?;
    println!("{}: {}\n", show.name, show.claim);
    let begun = Instant::now();
    let mut outcome = match prepare(show).and_then(|()| (show.run)(&options)) {
        Ok(outcome) => outcome,
        Err(error) => {
            println!("\n{error:#}");
            Outcome::new(false, serde_json::json!({ "error": format!("{error:#}") }))
        }
    };
    let seconds = (begun.elapsed().as_secs_f64() * 10.0).round() / 10.0;
    outcome.facts.insert("seconds".to_owned(), serde_json::json!(seconds));
    println!("\n{}", outcome.line(show.name));
    Ok(outcome.holds)
}

/// What a show runs on: the packages, the browser, and the program as it stands in this work tree (not where `FUTAGO_BIN`
/// names another).
fn prepare(show: &Show) -> Result<()> {
    packages::install_for_shows()?;
    if show.runs_program && std::env::var_os("FUTAGO_BIN").is_none() {
        layers::build()?;
    }
    Ok(())
}
