//! Invariant 13: a block that neither side calls different is the same on both disks, whatever their caches may lose.

use crate::disk::{BLOCK_SECTORS, Disk};
use crate::world::World;
use mirror::Mirror;
use peer::control::Role;
use std::collections::BTreeSet;
use wire::SetId;

impl World {
    /// Looks at every block of every set.
    pub fn check_dirty_bits(&mut self) {
        let sets: Vec<SetId> = self.config.sets.iter().map(|s| s.id).collect();
        let broken = sets.into_iter().find_map(|set| self.wrong_block(set));
        if let Some(text) = broken {
            self.fail(13, text);
        }
    }

    fn wrong_block(&self, set: SetId) -> Option<String> {
        let [one, two] = [&self.hosts[0], &self.hosts[1]].map(|h| h.disks.get(&set).map(|d| &d.mirror));
        let (one, two) = (one?, two?);
        if !(counts_from(one, two) || counts_from(two, one)) {
            return None;
        }
        let disks = [&self.hosts[0].media[&set], &self.hosts[1].media[&set]];
        let wrong = differing(disks)
            .into_iter()
            .find(|block| !one.suspects_block(*block) && !two.suspects_block(*block))?;
        let shown = |disk: &Disk| {
            let first = wrong * BLOCK_SECTORS;
            (first..first + BLOCK_SECTORS)
                .map(|s| {
                    let cached: Vec<u64> = disk.data.cached(s).map(|v| v >> 20).collect();
                    format!("{}{cached:?}", disk.data.durable(s).map_or(0, |v| v >> 20))
                })
                .collect::<Vec<_>>()
                .join(" ")
        };
        Some(format!(
            "{set} block {wrong} differs and nobody knows: {} | {}",
            shown(disks[0]),
            shown(disks[1])
        ))
    }
}

/// Whether the holder's map says what the other copy lacks: that copy stands where the map counts from.
fn counts_from(holder: &Mirror, other: &Mirror) -> bool {
    let (mine, theirs) = (holder.status(), other.status());
    let serves = matches!(mine.role, Role::Active | Role::Deactivating);
    let Some(stands) = theirs.history.first() else { return false };
    // A copy that counts alone, and a holder that serves it, count from nothing.
    let bound = !holder.is_through() && !other.counts_from_nothing();
    bound
        && serves
        && theirs.consistent
        && (mine.history.first() == Some(stands) || holder.base() == Some(*stands))
}

/// Blocks that are not certainly the same on both disks.
fn differing(disks: [&Disk; 2]) -> BTreeSet<u64> {
    let mut blocks = BTreeSet::new();
    let [one, two] = disks.map(|d| d.data.all_durable());
    for sector in 0..one.len().max(two.len()) {
        let held = [one, two].map(|d| d.get(sector).copied().flatten().unwrap_or(0));
        if held[0] != held[1] {
            blocks.insert(sector as u64 / BLOCK_SECTORS);
        }
    }
    for (disk, other) in [(disks[0], disks[1]), (disks[1], disks[0])] {
        for (sector, value) in disk.data.all_cached() {
            if other.data.durable(sector).copied().unwrap_or(0) != value {
                blocks.insert(sector / BLOCK_SECTORS);
            }
        }
    }
    blocks
}
