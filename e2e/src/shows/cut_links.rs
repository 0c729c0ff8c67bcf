//! `cut-links`: the active server loses every cable while its processes live; never are two active.

use anyhow::Result;
use serde_json::json;

use super::Options;
use crate::cut::cut_active;
use crate::lab::{Lab, Setup};
use crate::report::{Outcome, Table};
use crate::scenes;
use crate::writer::Judge;

/// Each server once.
const ROUNDS: u64 = 2;

/// The show.
///
/// # Errors
/// When a round does not come to its end.
pub fn run(options: &Options) -> Result<Outcome> {
    let wanted = options.figure("rounds", ROUNDS)?;
    let mut lab = Lab::start(&Setup { backing: Some("volatile"), ..Setup::default() })?;
    let mut client = lab.writer("client")?;
    let mut judge = Judge::default();
    let head = [
        "cut off",
        "its last answer ms",
        "other's first ms",
        "address until ms",
        "other's from ms",
        "both acknowledged",
        "both addressed",
        "both say",
        "refuses writes",
        "recovered ms",
    ];
    let mut table = Table::new(&head);
    let mut cuts = Vec::new();
    for _ in 0..wanted {
        let cut = cut_active(&mut lab, &mut client, &mut judge)?;
        let recovered = scenes::recover(&mut lab, cut.loser)?;
        table.row(&[
            scenes::name(cut.loser),
            cut.loser_until_ms.to_string(),
            cut.winner_from_ms.to_string(),
            cut.address_until_ms.to_string(),
            cut.address_from_ms.to_string(),
            cut.both_acknowledged.to_string(),
            cut.both_addressed.to_string(),
            cut.both_say.to_string(),
            cut.loser_refuses.to_string(),
            recovered.to_string(),
        ]);
        cuts.push(cut);
    }
    judge.hear(&client.wait_for_more(scenes::TAKE_OVER)?);
    judge.hear(&client.end()?);
    lab.end()?;
    table.print();
    println!("milliseconds are counted from the cut, by one clock");
    let both = cuts.iter().filter(|cut| !cut.one_active()).count();
    let refused = cuts.iter().all(|cut| cut.loser_refuses);
    // Three writers share the counter here, so the client's own values only ever grow: that is what is judged.
    let holds = both == 0 && refused && judge.lost == 0 && judge.acknowledged > 0;
    let apart: Vec<u64> =
        cuts.iter().map(|cut| cut.winner_from_ms.saturating_sub(cut.loser_until_ms)).collect();
    let facts = json!({
        "rounds": wanted, "two_active": both, "nobody_active_ms": apart, "loser_refuses_writes": refused,
        "lost": judge.lost,
    });
    Ok(Outcome::new(holds, facts))
}
