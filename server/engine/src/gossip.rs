//! What one server tells the other for its page: the details of what runs there.

use crate::engine::Engine;
use crate::input::Party;
use crate::timing;
use peer::cluster::{ClusterMessage, StatusGossip};
use wire::view::{GroupState, GroupView, SetView};

impl Engine {
    /// Sends what changed, at most four times a second; all of it every two seconds.
    pub(crate) fn send_gossip(&mut self) {
        let now = self.core.now;
        if !self.core.twin_channel || now < self.next_gossip {
            return;
        }
        self.next_gossip = now.plus(timing::GOSSIP);
        let status = self.own_status();
        if self.told.as_ref() == Some(&status) && now < self.gossip_quiet {
            return;
        }
        self.gossip_quiet = now.plus(timing::GOSSIP_QUIET);
        self.told = Some(status.clone());
        self.core.send(Party::Twin, ClusterMessage::Status(Box::new(status)));
    }

    fn own_status(&self) -> StatusGossip {
        let me = self.core.me;
        let told = |view: &GroupView| {
            let failed = matches!(view.state, GroupState::Failed { .. } | GroupState::Held { .. });
            view.active == Some(me) || failed
        };
        let groups = self.groups.values().map(|g| self.own_group_view(g)).filter(told).collect();
        let mine = |view: &SetView| {
            let group = self.groups.get(&view.group);
            group.is_some_and(|g| g.register.known().holder == Some(me))
        };
        let sets = self.core.config.sets.iter().filter_map(|s| self.own_set_view(s)).filter(mine).collect();
        StatusGossip {
            from: me,
            readings: self.core.readings.clone(),
            groups,
            sets,
            links: Vec::new(),
            incident: self.core.incident.clone(),
            servers: self.core.servers.values().copied().collect(),
        }
    }

    /// The twin told: its failovers are counted with ours.
    pub(crate) fn take_gossip(&mut self, gossip: StatusGossip) {
        if gossip.from != self.core.twin_id {
            return;
        }
        if let Some(incident) = gossip.incident.as_ref().filter(|i| i.number >= self.core.incidents) {
            let ours = self.groups.values().any(|g| g.incident.is_some());
            if !ours {
                self.core.incidents = incident.number;
                self.core.incident = Some(incident.clone());
            }
        }
        for told in &gossip.sets {
            if let Some(set) = self.core.sets.get_mut(&told.id) {
                set.lacked = told.behind;
            }
        }
        self.gossip = Some(gossip);
    }
}
