//! Invariant 13: a block that neither side calls different is the same on both disks, whatever their caches may lose.

use crate::disk::{BLOCK_SECTORS, Disk, SECTOR_BYTES};
use crate::world::World;
use mirror::Mirror;
use peer::control::Role;
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
        let blocks = self.set_size(set) / (BLOCK_SECTORS * SECTOR_BYTES);
        let wrong = (0..blocks).find(|block| {
            differs(disks, *block) && !one.suspects_block(*block) && !two.suspects_block(*block)
        })?;
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
        Some(format!("{set} block {wrong} differs and nobody knows: {} | {}", shown(disks[0]), shown(disks[1])))
    }
}

/// Whether the holder's map says what the other copy lacks: that copy stands where the map counts from.
fn counts_from(holder: &Mirror, other: &Mirror) -> bool {
    let (mine, theirs) = (holder.status(), other.status());
    let serves = matches!(mine.role, Role::Active | Role::Deactivating);
    let Some(stands) = theirs.history.first() else { return false };
    serves && theirs.consistent && (mine.history.first() == Some(stands) || holder.base() == Some(*stands))
}

fn differs(disks: [&Disk; 2], block: u64) -> bool {
    let first = block * BLOCK_SECTORS;
    (first..first + BLOCK_SECTORS).any(|sector| {
        let settled = disks.map(|d| d.data.durable(sector).copied().unwrap_or(0));
        settled[0] != settled[1]
            || disks.iter().any(|d| d.data.cached(sector).any(|value| *value != settled[0]))
    })
}
