//! The application: a writer that reads back and flushes, in bursts, on the block device of its group's sets.

use crate::disk::{BLOCK_SECTORS, SECTOR_BYTES};
use crate::host::{Request, RequestKind};
use crate::queue::Instant;
use crate::rng::Rng;
use crate::trace::Column;
use crate::world::{Event, World};
use mirror::Input;
use mirror::input::{Range, RequestId};
use std::rc::Rc;
use wire::{GroupId, SetId};

/// Requests an application has under way at most, for each set.
const DEPTH: usize = 6;
/// Blocks of the region that is written again and again, so that writes overlap and hot extents stay hot.
const BUSY_BLOCKS: u64 = 24;
/// Blocks of a large request.
const LARGE_BLOCKS: u64 = 12;

/// A running application.
#[derive(Debug)]
pub struct App {
    /// Which life; replies to an earlier one are nobody's.
    pub life: u64,
    /// The sets of its group.
    pub sets: Vec<SetId>,
    /// It met an error and does nothing more.
    pub broken: bool,
    /// Longest pause between two requests in microseconds: it works in bursts.
    pace: u64,
    pace_until: Instant,
}

impl App {
    /// An application that starts.
    #[must_use]
    pub fn new(life: u64, sets: Vec<SetId>) -> Self {
        App { life, sets, broken: false, pace: 0, pace_until: 0 }
    }
}

enum Wish {
    Write(Range),
    Zero(Range),
    Read(Range),
    Flush,
}

fn wish(rng: &mut Rng, size: u64) -> Wish {
    match rng.below(100) {
        0..7 => Wish::Zero(range(rng, size)),
        7..55 => Wish::Write(range(rng, size)),
        55..80 => Wish::Read(range(rng, size)),
        _ => Wish::Flush,
    }
}

fn range(rng: &mut Rng, size: u64) -> Range {
    let blocks = size / (BLOCK_SECTORS * SECTOR_BYTES);
    let region = if rng.percent(60) { BUSY_BLOCKS.min(blocks) } else { blocks };
    let (first, sectors) = match rng.below(10) {
        0..2 => (rng.below(region * BLOCK_SECTORS), rng.range(1, 2 * BLOCK_SECTORS)),
        2..9 => (rng.below(region) * BLOCK_SECTORS, rng.range(1, 3) * BLOCK_SECTORS),
        _ => (rng.below(region) * BLOCK_SECTORS, rng.range(1, LARGE_BLOCKS) * BLOCK_SECTORS),
    };
    let sectors = sectors.min(size / SECTOR_BYTES - first);
    Range { offset: first * SECTOR_BYTES, length: (sectors * SECTOR_BYTES) as u32 }
}

impl World {
    /// An application's turn: one more request if it has room, and the time of its next turn.
    pub fn app_turn(&mut self, host: usize, group: GroupId, life: u64) {
        let now = self.queue.now();
        let rng = &mut self.app_rng;
        let Some(app) = self.hosts[host].kernel.apps.get_mut(&group) else { return };
        if app.life != life || app.broken || self.quiet {
            return;
        }
        if now >= app.pace_until {
            app.pace = if self.light {
                rng.pick(&[40_000, 400_000, 1_500_000, 1_500_000])
            } else {
                rng.pick(&[8_000, 40_000, 150_000, 400_000])
            };
            app.pace_until = now + rng.range(100_000, 3_000_000);
        }
        let pause = rng.range(100, app.pace);
        let set = app.sets[rng.below(app.sets.len() as u64) as usize];
        self.queue.after(pause, Event::App { host, group, life });
        let size = self.set_size(set);
        let wish = wish(&mut self.app_rng, size);
        self.app_request(host, group, life, set, wish);
    }

    fn app_request(&mut self, host: usize, group: GroupId, life: u64, set: SetId, wish: Wish) {
        let mounted = self.hosts[host].kernel.mounts.get(&(group, set)).copied();
        if self.hosts[host].kernel.held.get(&set).is_some_and(|held| Some(held.process) == mounted) {
            // It waits in the kernel.
            return;
        }
        let Some(disk) =
            self.hosts[host].disks.get_mut(&set).filter(|d| d.front && Some(d.process) == mounted)
        else {
            self.break_app(host, group, "the device is gone");
            return;
        };
        if disk.requests.len() >= DEPTH {
            return;
        }
        disk.next.0 += 1;
        let request = RequestId(disk.next.0);
        let (kind, values, input) = match wish {
            Wish::Write(range) => {
                let (first, count) = sectors(range);
                let number = self.oracles[&set].borrow_mut().write_begun(first, count, false);
                let values = (first..first + count).map(|s| crate::oracle::token(number, s)).collect();
                (RequestKind::Write { number, range }, values, Input::Write { request, range })
            }
            Wish::Zero(range) => {
                let (first, count) = sectors(range);
                let number = self.oracles[&set].borrow_mut().write_begun(first, count, true);
                let unmap = count.is_multiple_of(2);
                (RequestKind::Zero { number, range }, Rc::from([]), Input::Zero { request, range, unmap })
            }
            Wish::Read(range) => {
                let begun = self.oracles[&set].borrow_mut().begun();
                (RequestKind::Read { begun, range }, Rc::from([]), Input::Read { request, range })
            }
            Wish::Flush => {
                let begun = self.oracles[&set].borrow_mut().begun();
                (RequestKind::Flush { begun }, Rc::from([]), Input::Flush { request })
            }
        };
        disk.requests.insert(request, Request { app: life, kind, values });
        self.trace.step(self.queue.now(), Column::Client, || {
            format!("{set} at server{} {request:?}: {kind:?}", host + 1)
        });
        self.mirror_input(host, set, input);
    }

    /// The application meets an error and gives up.
    pub fn break_app(&mut self, host: usize, group: GroupId, why: &str) {
        let now = self.queue.now();
        if let Some(app) = self.hosts[host].kernel.apps.get_mut(&group).filter(|a| !a.broken) {
            app.broken = true;
            self.trace.step(now, Column::Client, || {
                format!("application of {group} at server{} gives up: {why}", host + 1)
            });
        }
    }
}

/// First sector and number of sectors of a range.
#[must_use]
pub fn sectors(range: Range) -> (u64, u64) {
    (range.offset / SECTOR_BYTES, u64::from(range.length) / SECTOR_BYTES)
}
