//! The lease: until when this side may serve what another might serve too. Data never depends on it (DESIGN 6).

use crate::action::Action;
use crate::mirror::Mirror;
use crate::resume::Kept;
use peer::control::Role;
use wire::Time;

/// The holder's lease and the standby's grants.
#[derive(Clone, Debug, Default)]
pub(crate) struct Lease {
    /// What the engine ordered: nothing yet, or an end, or none at all.
    ordered: Option<Option<Time>>,
    fence_after_us: u64,
    /// End of the latest renewal over the block link.
    over_link: Option<Time>,
    /// I/O is served.
    pub(crate) runs: bool,
    node_away_since: Option<Time>,
    /// As standby: the engine allows renewals.
    pub(crate) granting: bool,
    /// As standby: when the nonce came that the latest renewal echoed, for the holder sent it no later and its lease counts from
    /// there; at a start that moment, for a process before this one may have sent one.
    pub(crate) last_grant: Option<Time>,
}

impl Lease {
    /// The lease of a fresh process.
    pub(crate) fn at_start(now: Time) -> Lease {
        Lease { last_grant: Some(now), ..Lease::default() }
    }

    /// The lease goes on in a successor: what was granted was granted to this host. One without end is not taken over by a side
    /// that needs its twin: its end may have been ordered meanwhile.
    pub(crate) fn resumed(kept: &Kept, needs_twin: bool, now: Time) -> Lease {
        let ordered = kept.lease.filter(|until| until.is_some() || !needs_twin);
        let fence_after_us = match (kept.lease.flatten(), kept.fence_at) {
            (Some(until), Some(fence)) => fence.since(until),
            (_, None) | (None, _) => 0,
        };
        // Until the node process connects it is away.
        let node_away_since = kept.node_away_since.or(Some(now));
        Lease { ordered, fence_after_us, node_away_since, ..Lease::at_start(now) }
    }

    pub(crate) fn node_away_since(&self) -> Option<Time> {
        self.node_away_since
    }

    /// No lease, for a new term; who grants and who is away stays.
    pub(crate) fn fresh(&self) -> Lease {
        let (ordered, over_link) = (None, None);
        Lease { ordered, over_link, runs: false, ..self.clone() }
    }

    pub(crate) fn ordered(&mut self, until: Option<Time>, fence_after_us: u64) {
        self.ordered = Some(until);
        self.fence_after_us = fence_after_us;
    }

    pub(crate) fn granted_over_link(&mut self, until: Time) {
        self.over_link = self.over_link.max(Some(until));
    }

    /// The end as far as it is known: none before the first order, `Some(None)` without limit.
    pub(crate) fn end(&self, node_grace_us: u64) -> Option<Option<Time>> {
        let ordered = self.ordered?;
        let Some(until) = ordered else { return Some(None) };
        // While the own node process is away renewals count for its grace only; then its twin takes over.
        let limit = self.node_away_since.map(|since| since.plus(node_grace_us));
        let over_link = match (self.over_link, limit) {
            (Some(link), Some(limit)) => Some(link.min(limit)),
            (link, None) => link,
            (None, Some(_)) => None,
        };
        Some(Some(over_link.map_or(until, |link| link.max(until))))
    }
}

impl Mirror {
    /// Until when I/O is served: `None` not at all, `Some(None)` without limit. Cheap: a guard asks at each turn.
    #[must_use]
    pub fn lease(&self) -> Option<Option<Time>> {
        let serving = matches!(self.role, Role::Activating | Role::Active | Role::Deactivating);
        self.lease.end(self.config.timing.node_grace_us).filter(|_| serving)
    }

    /// The end of the lease, renewals over the block link included.
    pub(crate) fn lease_end(&self) -> Option<Time> {
        self.lease.end(self.config.timing.node_grace_us).flatten()
    }

    pub(crate) fn node_present(&mut self, present: bool) {
        if present {
            self.lease.node_away_since = None;
            self.told.report = true;
        } else if self.lease.node_away_since.is_none() {
            self.lease.node_away_since = Some(self.now);
        }
        self.told.present = present;
    }

    /// Lets time pass: lease, fence, link.
    pub(crate) fn advance_time(&mut self) {
        self.judge_lease();
        self.advance_link_time();
    }

    /// What the clock says about the right to serve: judged before an input is taken, so that a process that stood still
    /// answers nothing it has no more right to answer.
    pub(crate) fn judge_lease(&mut self) {
        let serving = matches!(self.role, Role::Activating | Role::Active | Role::Deactivating);
        if serving {
            let end = self.lease.end(self.config.timing.node_grace_us);
            let runs = match end {
                None => false,
                Some(None) => true,
                Some(Some(until)) => self.now < until,
            };
            if runs != self.lease.runs {
                self.lease.runs = runs;
                self.moved = true;
                self.act(if runs { Action::LeaseRuns } else { Action::LeaseEnded });
            }
            if self.fence_time().is_some_and(|at| self.now >= at) {
                self.fence();
            }
        }
    }

    /// When the lease's end becomes a fence.
    pub(crate) fn fence_time(&self) -> Option<Time> {
        self.lease_end().map(|end| end.plus(self.lease.fence_after_us))
    }
}
