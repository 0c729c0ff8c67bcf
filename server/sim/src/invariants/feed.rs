//! Invariant 12: a view built from deltas equals a snapshot.

use crate::world::World;
use wire::feed::Delta;
use wire::{ClusterView, Revision, WallClock};

/// The first part of a view that differs.
fn difference(page: &ClusterView, fresh: &ClusterView) -> String {
    let parts = [
        ("servers", page.servers == fresh.servers),
        ("links", page.links == fresh.links),
        ("witness", page.witness == fresh.witness),
        ("groups", page.groups == fresh.groups),
        ("sets", page.sets == fresh.sets),
        ("events", page.events == fresh.events),
        ("incident", page.incident == fresh.incident),
        ("forecasts", page.forecasts == fresh.forecasts),
        ("operations", page.operations == fresh.operations),
    ];
    let part = parts.iter().find(|(_, same)| !same).map_or("something else", |(name, _)| name);
    format!("the page shows other {part} than the server's view")
}

impl World {
    /// A page of this server takes the next delta.
    pub fn check_feed(&mut self, host: usize) {
        let now = self.queue.now();
        let time = self.hosts[host].time(now);
        if now < self.hosts[host].frozen_until {
            return;
        }
        let Some(node) = self.hosts[host].node.as_mut() else { return };
        let fresh = node.engine.view(time, WallClock(now / 1000));
        let mut broken = None;
        if let Some(mut page) = node.page.take() {
            match Delta::between(&page, &fresh) {
                None if page.revision != fresh.revision => {
                    broken = Some("a revision without a change".into())
                }
                None => {}
                Some(_) if fresh.revision != Revision(page.revision.0 + 1) => {
                    // More than one turn of the view since the last look (a command asks for it too): a snapshot.
                    page = fresh.clone();
                }
                Some(delta) if delta.reshaped => page = fresh.clone(),
                Some(delta) => broken = delta.apply(&mut page).err().map(|_| "a delta does not fit".into()),
            }
            page.at = fresh.at;
            if page != fresh && broken.is_none() {
                broken = Some(difference(&page, &fresh));
            }
        }
        node.page = Some(fresh);
        if let Some(text) = broken {
            self.fail(12, format!("server{}: {text}", host + 1));
        }
    }
}
