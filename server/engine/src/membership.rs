//! Who is there: the twin's life, its silence and return, and the states of both servers (A4).
//!
//! A server's state is an entry with a version; the higher one counts, on both servers alike. The survivor writes `Down`; a
//! server that is heard again after that, or with a new life of its host, is `RestartedAfterDown` until it is recovered. When
//! both judged each other (cut apart, both alive), both compute the same winner from what they know of the groups.

use crate::core::Core;
use peer::heartbeat::{GroupBeat, Heartbeat, Part, ServerEntry};
use std::collections::{BTreeMap, BTreeSet};
use wire::alert::{DownCause, EventKind};
use wire::view::ServerState;
use wire::{Epoch, GroupId, Incarnation, LinkId, NodeId, Time};

/// The twin as it is known.
#[derive(Clone, Debug, Default)]
pub struct Twin {
    /// The lives of its host and node process, as proven by an echo.
    pub life: Option<(Incarnation, Incarnation)>,
    /// Its host's life that is stored.
    pub stored_host: Option<Incarnation>,
    /// When a believed heartbeat last came.
    pub heard: Option<Time>,
    /// Judged: it is not there.
    pub gone: bool,
    /// Since when its node process is silent while its disk processes are heard.
    pub away_since: Option<Time>,
    /// Its latest nonce: of which life, which, and when it came.
    pub nonce: Option<(Incarnation, u64, Time)>,
    /// When a new life of its host was first heard: nothing of the life before runs.
    pub reborn: Option<Time>,
    /// What it knows of the groups.
    pub groups: BTreeMap<GroupId, GroupBeat>,
    /// Groups of which it says that its copy is not whole ([`peer::heartbeat::Says::whole`]).
    pub crashed_in: BTreeSet<GroupId>,
    /// It reaches a voting witness.
    pub witness: bool,
    /// Why it was judged.
    pub cause: Option<DownCause>,
    /// When its last sign of life came before the judgement: where an incident begins.
    pub last_sign: Option<Time>,
    /// When it was judged.
    pub judged: Option<Time>,
}

impl Twin {
    /// What it does with a group.
    #[must_use]
    pub fn part(&self, group: GroupId) -> Part {
        if self.gone { Part::Unknown } else { self.groups.get(&group).map_or(Part::Unknown, |g| g.part) }
    }
}

impl Core {
    /// Changes a server's state entry; both servers will agree on it. Says nothing if it is so already.
    pub fn set_entry(&mut self, server: NodeId, state: ServerState, recovering: bool, leaving: bool) {
        let old = self.entry(server);
        if (old.state, old.recovering, old.leaving) == (state, recovering, leaving) {
            return;
        }
        let since = if old.state == state { old.since } else { self.wall() };
        let version = old.version + 1;
        let entry = ServerEntry { version, author: self.me, server, state, recovering, leaving, since };
        self.put_entry(entry);
    }

    /// Takes an entry over and tells of the change. The other server reports about a server, if it is there.
    fn put_entry(&mut self, entry: ServerEntry) {
        let old = self.entry(entry.server);
        self.servers.insert(entry.server, entry);
        self.urgent = true;
        let server = entry.server;
        let reporter = server != self.me || self.twin.heard.is_none() || self.twin.gone;
        if !reporter {
            return;
        }
        if old.state != entry.state {
            match entry.state {
                ServerState::Down => {
                    let cause = self.twin.cause.unwrap_or(DownCause::Silent);
                    self.record_event(EventKind::ServerDown { server, cause });
                }
                ServerState::RestartedAfterDown => {
                    if old.state == ServerState::Normal && server != self.me {
                        self.record_event(EventKind::ServerDown { server, cause: DownCause::Restarted });
                    }
                    let automatic = self.config.auto_recover && !self.upkeep.on;
                    self.record_event(EventKind::ServerRestarted { server, automatic });
                }
                ServerState::Stopped => self.record_event(EventKind::ServerStopped { server }),
                ServerState::Normal => self.record_event(EventKind::ServerRecovered { server }),
            }
        }
        if entry.recovering && !old.recovering {
            self.record_event(EventKind::RecoverBegan { server });
        }
    }

    /// A heartbeat came over a link. `known`: what this server knows of each group (for the winner of a double judgement).
    pub fn hear(
        &mut self,
        link: LinkId,
        beat: &Heartbeat,
        known: &BTreeMap<GroupId, (Epoch, Option<NodeId>)>,
    ) -> bool {
        if beat.from != self.twin_id {
            return false;
        }
        let (me, now) = (self.node, self.now);
        let Some(path) = self.links.iter_mut().find(|l| l.id == link) else {
            return false;
        };
        if !path.hear(beat, me, now) {
            return false;
        }
        for path in &mut self.links {
            path.twin_no_carrier = beat.no_carrier.contains(&path.id);
        }
        // A heartbeat of a life before the present one, late on a slow path.
        if self.twin.life.is_some_and(|(_, node)| node != beat.node)
            && self.twin.nonce.is_some_and(|n| n.0 == beat.node)
        {
            return false;
        }
        self.twin.away_since = None;
        let was_gone = std::mem::take(&mut self.twin.gone);
        let silent = self.twin_silent();
        self.note_life(beat, was_gone, silent);
        self.twin.heard = Some(now);
        self.twin.witness = beat.witness;
        let newer = self.twin.nonce.is_none_or(|(node, nonce, _)| node != beat.node || nonce < beat.nonce);
        if newer {
            self.twin.nonce = Some((beat.node, beat.nonce, now));
            self.twin.groups = beat.groups.iter().map(|g| (g.group, *g)).collect();
            self.merge_entries(beat, known);
        }
        true
    }

    fn note_life(&mut self, beat: &Heartbeat, was_gone: bool, silent: u64) {
        let life = (beat.host, beat.node);
        let met = self.twin.life.replace(life);
        let before = self.twin.stored_host.replace(beat.host);
        let reborn = before.is_some_and(|host| host != beat.host);
        let state = self.entry(self.twin_id).state;
        if reborn {
            self.twin.reborn = Some(self.now);
            self.twin.groups.clear();
            if !was_gone {
                self.twin.last_sign = self.twin.heard;
                self.twin.judged = Some(self.now);
                self.twin.cause = Some(DownCause::Restarted);
            }
            // One that was stopped in order only starts again; its own entry says so.
            if state != ServerState::Stopped || self.entry(self.twin_id).recovering {
                self.set_entry(self.twin_id, ServerState::RestartedAfterDown, false, false);
            }
        } else if was_gone {
            self.record_event(EventKind::ServerUp { server: self.twin_id });
        } else if met.is_some_and(|(_, node)| node != beat.node) {
            let away_ms = silent / wire::ids::MILLIS;
            self.record_event(EventKind::NodeReturned { server: self.twin_id, away_ms });
        }
    }

    fn judged_by_both(&self, beat: &Heartbeat) -> bool {
        let mine = self.entry(self.twin_id);
        let theirs = beat.servers.iter().find(|e| e.server == self.me);
        mine.state == ServerState::Down
            && mine.author == self.me
            && theirs.is_some_and(|e| e.state == ServerState::Down && e.author == self.twin_id)
    }

    fn merge_entries(&mut self, beat: &Heartbeat, known: &BTreeMap<GroupId, (Epoch, Option<NodeId>)>) {
        if self.entry(self.twin_id).state == ServerState::Down {
            return self.settle(beat, known);
        }
        for entry in &beat.servers {
            let valid = NodeId::BOTH.contains(&entry.server);
            if valid && *entry > self.entry(entry.server) {
                self.put_entry(*entry);
            }
        }
    }

    /// A server judged down is heard again, in the same life of its host. Who holds more groups, by the highest epoch either
    /// knows, goes on as it is; the other waits for recovery. If both judged each other, both compute this from the same facts;
    /// then equals are parted by their ids.
    fn settle(&mut self, beat: &Heartbeat, known: &BTreeMap<GroupId, (Epoch, Option<NodeId>)>) {
        let (mut mine, mut theirs) = (0, 0);
        for (group, (epoch, holder)) in known {
            let told = beat.groups.iter().find(|g| g.group == *group);
            let holder = told.filter(|g| g.epoch > *epoch).map_or(*holder, |g| g.holder);
            mine += usize::from(holder == Some(self.me));
            theirs += usize::from(holder == Some(self.twin_id));
        }
        // What each says of itself: whoever fenced itself does not win. The other's judgement, taken over already, is no fault.
        let sound = |entry: &ServerEntry| {
            let judged = entry.state == ServerState::Down && entry.author == entry.server.twin();
            entry.state == ServerState::Normal || judged
        };
        let own = sound(&self.entry(self.me));
        let their_own = beat.servers.iter().find(|e| e.server == self.twin_id).is_some_and(sound);
        let both = self.judged_by_both(beat);
        // The twin has settled already: the same facts must give the same winner here.
        let settled = beat.servers.iter().any(|e| {
            (e.server, e.author, e.state) == (self.me, self.twin_id, ServerState::RestartedAfterDown)
        });
        let by_id = !(both || settled) || self.me < self.twin_id;
        let i_win = (own, mine, by_id) > (their_own, theirs, !by_id);
        let highest = beat.servers.iter().chain(self.servers.values()).map(|e| e.version).max().unwrap_or(0);
        let (winner, loser) = if i_win { (self.me, self.twin_id) } else { (self.twin_id, self.me) };
        if both || i_win {
            self.write_entry(loser, ServerState::RestartedAfterDown, highest + 1);
        }
        if both || !i_win {
            self.write_entry(winner, ServerState::Normal, highest + 1);
        }
    }

    fn write_entry(&mut self, server: NodeId, state: ServerState, version: u64) {
        let (author, since) = (self.me, self.wall());
        self.put_entry(ServerEntry {
            version,
            author,
            server,
            state,
            recovering: false,
            leaving: false,
            since,
        });
    }

    /// Judges the twin's silence.
    pub fn judge_silence(&mut self) {
        let silent = self.twin_silent();
        if self.twin.gone || silent < self.timing.detect || self.now.since(self.woke) < self.timing.wake_grace
        {
            return;
        }
        // Never heard in this life of the host: it may still be starting.
        if self.twin.heard.is_none() && self.new_host && silent < crate::timing::START_GRACE {
            return;
        }
        if self.blocks_heard(self.timing.detect) {
            let heard = self.twin.heard.unwrap_or(self.started);
            let since = *self.twin.away_since.get_or_insert(heard);
            if self.now.since(since) < self.timing.node_grace {
                return;
            }
            self.twin.cause = Some(DownCause::NodeGone);
        } else {
            self.twin.cause = Some(DownCause::Silent);
        }
        self.twin.gone = true;
        self.twin.away_since = None;
        self.twin.last_sign = self.twin.heard;
        self.twin.judged = Some(self.now);
        let state = self.entry(self.twin_id).state;
        if matches!(state, ServerState::Normal | ServerState::RestartedAfterDown) {
            self.set_entry(self.twin_id, ServerState::Down, false, false);
        }
    }

    /// Automatic recovery (A4), and the restart of a server that was stopped in order. `confirmed`: a quorum told that this
    /// server holds the newest data of some group, or there is none; `complete`: every running group has both copies in sync; `expelled`:
    /// none counts on the twin's copy.
    pub fn judge_states(&mut self, confirmed: bool, complete: bool, expelled: bool) {
        let own = self.entry(self.me);
        let twin = self.entry(self.twin_id);
        let met = self.twin.heard.is_some() || self.twin.gone;
        let twin_normal = twin.state == ServerState::Normal && !self.twin.gone;
        if self.booted && met && own.state == ServerState::Stopped {
            self.booted = false;
            self.recover(self.me);
        }
        // Each was told to wait for the other, or the one at work is gone: then nobody is at work to recover from.
        let both = twin.recovering && twin.state == ServerState::RestartedAfterDown;
        let deserted = own.recovering && (both || self.twin.gone);
        let restarted = own.state == ServerState::RestartedAfterDown && (!own.recovering || deserted);
        if restarted && self.config.auto_recover && met && !twin_normal && confirmed {
            self.recover(self.me);
        }
        let own = self.entry(self.me);
        if own.state != ServerState::Normal || self.twin.gone || self.twin.heard.is_none() {
            return;
        }
        if twin.state == ServerState::RestartedAfterDown && !twin.recovering && self.config.auto_recover {
            if expelled {
                self.recover(self.twin_id);
            }
        } else if twin.recovering && complete {
            self.set_entry(self.twin_id, ServerState::Normal, false, false);
        }
    }

    /// Begins the recovery of a server: with its twin at work it is rebuilt first, otherwise it takes part at once.
    pub fn recover(&mut self, server: NodeId) {
        let other = server.twin();
        let other_there = other == self.me || !self.twin.gone && self.twin.heard.is_some();
        let other_works = self.entry(other).state == ServerState::Normal && other_there;
        let state = self.entry(server).state;
        if other_works {
            self.set_entry(server, state, true, false);
        } else {
            self.set_entry(server, ServerState::Normal, false, false);
        }
    }
}
