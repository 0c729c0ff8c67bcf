//! The plan of a group: a pure function from what is wanted and what is seen to the steps that lead there, in order.
//!
//! Right, disk, mount, address, script; the reverse on stop (invariant 6). The first step is done, what is seen changes, and
//! the plan is made anew: nothing is remembered that could differ from what is.

use serde::{Deserialize, Serialize};
use std::net::IpAddr;
use wire::SetId;
use wire::alert::StepKind;

/// Whether something is here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Is {
    /// Not here.
    Absent,
    /// Here.
    Present,
    /// A step timed out, or nobody has looked: stopping does it again, starting does not trust it.
    Unknown,
}

/// What is seen of a group on this server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// This server may run it: register and lease say so.
    pub right: bool,
    /// Its sets, in order: `Present` means active.
    pub sets: Vec<(SetId, Is)>,
    /// Its mounts, in order.
    pub mounts: Vec<(SetId, Is)>,
    /// Its floating IPs, in order.
    pub addresses: Vec<(IpAddr, Is)>,
    /// Its start script ran, and what it started runs.
    pub script: Is,
}

impl Seen {
    /// The same for bringing up the sets alone: of all else nothing is missing. What is here of it stays seen.
    #[must_use]
    pub fn without_missing(mut self) -> Seen {
        self.mounts.retain(|(_, is)| *is != Is::Absent);
        self.addresses.retain(|(_, is)| *is != Is::Absent);
        if self.script == Is::Absent {
            self.script = Is::Present;
        }
        self
    }
}

/// What is wanted of a group on this server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Target {
    /// It serves here.
    Up,
    /// Nothing of it is here.
    Down,
}

/// One step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum PlanStep {
    /// Get the right from the register.
    Right,
    /// Make a set active.
    Activate(SetId),
    /// Mount a set.
    Mount(SetId),
    /// Probe, add and announce an address.
    Address(IpAddr),
    /// Run the start script.
    Start,
    /// Run the stop script and end what is left.
    Stop,
    /// Remove an address.
    Remove(IpAddr),
    /// Unmount a set.
    Unmount(SetId),
    /// Make a set standby, clean.
    Deactivate(SetId),
}

impl PlanStep {
    /// The kind that people see.
    #[must_use]
    pub fn kind(self) -> StepKind {
        match self {
            PlanStep::Right => StepKind::Right,
            PlanStep::Activate(_) | PlanStep::Deactivate(_) => StepKind::Disk,
            PlanStep::Mount(_) | PlanStep::Unmount(_) => StepKind::Mount,
            PlanStep::Address(_) | PlanStep::Remove(_) => StepKind::Address,
            PlanStep::Start | PlanStep::Stop => StepKind::Script,
        }
    }
}

/// The steps from `seen` to `target`; empty when it is reached.
#[must_use]
pub fn plan(target: Target, seen: &Seen) -> Vec<PlanStep> {
    match target {
        Target::Up => start(seen),
        Target::Down => stop(seen),
    }
}

fn start(seen: &Seen) -> Vec<PlanStep> {
    let missing = |is: Is| is != Is::Present;
    let mut steps = Vec::new();
    if !seen.right {
        steps.push(PlanStep::Right);
    }
    steps.extend(seen.sets.iter().filter(|(_, is)| missing(*is)).map(|(set, _)| PlanStep::Activate(*set)));
    steps.extend(seen.mounts.iter().filter(|(_, is)| missing(*is)).map(|(set, _)| PlanStep::Mount(*set)));
    steps.extend(seen.addresses.iter().filter(|(_, is)| missing(*is)).map(|(ip, _)| PlanStep::Address(*ip)));
    if missing(seen.script) {
        steps.push(PlanStep::Start);
    }
    steps
}

fn stop(seen: &Seen) -> Vec<PlanStep> {
    let left = |is: Is| is != Is::Absent;
    let mut steps = Vec::new();
    if left(seen.script) {
        steps.push(PlanStep::Stop);
    }
    steps
        .extend(seen.addresses.iter().rev().filter(|(_, is)| left(*is)).map(|(ip, _)| PlanStep::Remove(*ip)));
    steps
        .extend(seen.mounts.iter().rev().filter(|(_, is)| left(*is)).map(|(set, _)| PlanStep::Unmount(*set)));
    steps.extend(
        seen.sets.iter().rev().filter(|(_, is)| left(*is)).map(|(set, _)| PlanStep::Deactivate(*set)),
    );
    steps
}
