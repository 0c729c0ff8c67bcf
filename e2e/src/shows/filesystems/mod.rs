//! `filesystems`: ext4, XFS and PostgreSQL on the mirrored device, through power losses.

mod files;
mod postgres;
mod volume;

use std::time::Duration;

use anyhow::Result;
use serde_json::json;

use super::Options;
use crate::report::{Outcome, Table};
use files::Loss;
use volume::Kind;

/// Power losses under PostgreSQL, and seconds between them.
const DATABASE_LOSSES: u64 = 10;
const DATABASE_EVERY: u64 = 20;
/// Power losses on each file system.
const LOSSES: [Loss; 4] = [Loss::Active, Loss::Both, Loss::StandbyThenActive, Loss::Active];
/// The control, with flush taken out: these must do harm.
const CONTROL: [Loss; 2] = [Loss::Both, Loss::StandbyThenActive];

/// The show.
///
/// # Errors
/// Never: what goes wrong is told.
pub fn run(options: &Options) -> Result<Outcome> {
    let mut table = Table::new(&["what", "power losses", "synced or committed", "lost", "trouble"]);
    let mut row = |what: &str, losses: u64, kept: u64, lost: u64, broken: &Option<String>| {
        let trouble = broken.as_deref().map_or("", |text| text.lines().next().unwrap_or_default());
        table.row(&[what, &losses.to_string(), &kept.to_string(), &lost.to_string(), trouble]);
    };
    let mut good = true;
    let mut facts = serde_json::Map::new();
    if options.figure("files", 1)? == 1 {
        for kind in [Kind::Ext4, Kind::Xfs] {
            let found = files::play(kind, &LOSSES, false);
            good &= found.broken.is_none() && found.lost == 0 && found.synced > 0;
            tell(&found.broken);
            row(kind.name(), found.losses, found.synced, found.lost, &found.broken);
            facts.insert(format!("{}_losses", kind.name()), json!(found.losses));
            facts.insert(format!("{}_synced", kind.name()), json!(found.synced));
            facts.insert(format!("{}_lost", kind.name()), json!(found.lost));
            println!("the control, flush taken out:");
            let control = files::play(kind, &CONTROL, true);
            // A disk that forgets: files are missing, or the file system itself is damaged.
            let red = control.lost > 0 || control.broken.is_some();
            tell(&control.broken);
            good &= red;
            let name = format!("{} without flush", kind.name());
            row(&name, control.losses, control.synced, control.lost, &control.broken);
            facts.insert(format!("{}_red_without_flush", kind.name()), json!(red));
        }
    }
    if options.figure("database", 1)? == 1 {
        let losses = options.figure("losses", DATABASE_LOSSES)?;
        let every = Duration::from_secs(options.figure("every", DATABASE_EVERY)?);
        let found = postgres::play(losses, every);
        good &= found.broken.is_none() && found.lost == 0 && found.losses == losses && found.committed > 0;
        tell(&found.broken);
        row("postgresql", found.losses, found.committed, found.lost, &found.broken);
        facts.insert("postgresql_losses".to_owned(), json!(found.losses));
        facts.insert("postgresql_committed".to_owned(), json!(found.committed));
        facts.insert("postgresql_lost".to_owned(), json!(found.lost));
        facts.insert("pgbench_transactions".to_owned(), json!(found.pgbench));
    }
    println!();
    table.print();
    Ok(Outcome::new(good, serde_json::Value::Object(facts)))
}

fn tell(broken: &Option<String>) {
    if let Some(text) = broken {
        println!("  {text}");
    }
}
