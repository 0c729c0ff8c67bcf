//! What an engine with a register that never errs would order.

use super::{SECTORS, Waits, World, fresh_generation};
use mirror::Input;
use peer::control::{DiskOrder, Done, OrderFault, Role, Ticket, ToDisk};
use std::collections::BTreeSet;
use wire::{Epoch, Time};

impl World {
    pub fn order(&mut self, side: usize, order: DiskOrder, waits: Waits) {
        self.next += 1;
        let ticket = Ticket(self.next);
        self.orders.insert(ticket, waits);
        self.input(side, Input::Order(ToDisk { ticket, order }));
    }

    pub fn ordered(&mut self, side: usize, ticket: Ticket, result: Result<Done, OrderFault>) {
        let waits = self.orders.remove(&ticket).expect("one result for an order");
        match (waits, result) {
            (Waits::Activate(_), Ok(_)) => {
                self.switches += 1;
                let it = &self.sides[side];
                for sector in 0..SECTORS {
                    let (found, least) = (self.age(sector, it.disk.view[sector]), it.least[sector]);
                    assert!(
                        found >= least,
                        "side {side} becomes active without write {least} in sector {sector}: {found}"
                    );
                }
            }
            (Waits::Activate(_), Err(fault)) => {
                assert!(matches!(fault, OrderFault::Fenced), "activation refused: {fault:?}");
            }
            (Waits::Readmit(_), Ok(_)) => {
                self.rebuilds += 1;
                let twin = 1 - side;
                for sector in 0..SECTORS {
                    let least = self.sides[side].least[sector];
                    self.sides[twin].least[sector] = self.sides[twin].least[sector].max(least);
                }
                // The register has chosen both.
                self.in_sync = BTreeSet::from([0, 1]);
                self.sides.iter_mut().for_each(|side| side.crashed = false);
            }
            (Waits::Readmit(_) | Waits::Deactivate(_), Err(fault)) => {
                assert!(matches!(fault, OrderFault::NotEqual | OrderFault::Fenced), "{fault:?}");
            }
            (Waits::PutOut(_), Ok(_)) => {}
            (Waits::PutOut(_), Err(fault)) => assert!(matches!(fault, OrderFault::Fenced), "{fault:?}"),
            (Waits::Deactivate(_), Ok(_)) => {
                if self.in_sync.len() == 2 {
                    for sector in 0..SECTORS {
                        assert_eq!(
                            self.sides[0].disk.stable[sector], self.sides[1].disk.stable[sector],
                            "clean and equal"
                        );
                    }
                    self.holder = Some(1 - side);
                    self.epoch += 1;
                    self.activate(1 - side, false);
                } else {
                    self.epoch += 1;
                    self.activate(side, true);
                }
            }
            (Waits::Other, result) => assert!(
                matches!(result, Ok(_) | Err(OrderFault::Fenced | OrderFault::WrongRole)),
                "{result:?}"
            ),
        }
    }

    pub fn activate(&mut self, side: usize, alone: bool) {
        self.say(format!("{side} holds epoch {}, alone {alone}", self.epoch));
        self.holder = Some(side);
        let generation = fresh_generation(&mut self.chance);
        let epoch = Epoch(self.epoch);
        self.order(side, DiskOrder::Activate { epoch, alone, generation }, Waits::Activate(side));
        let until = self.lease_us.map(|lease| Time(self.now + lease));
        self.order(side, DiskOrder::Lease { until, fence_after_us: 500_000 }, Waits::Other);
    }

    /// What an engine with a register that never errs would order.
    pub fn engine(&mut self) {
        for side in 0..2 {
            if self.sides[side].mirror.is_none() && self.now >= self.sides[side].ready_at {
                self.start(side);
            }
            if self.bad(side) {
                // A host whose disk fails is taken out of service; it comes back with a good one of the same content.
                self.crash(side);
                return;
            }
            if self.sides[side].fenced {
                // Only a fresh process can take part again.
                self.kill(side);
                return;
            }
        }
        let busy = self.orders.values().any(|waits| *waits != Waits::Other);
        if busy {
            return;
        }
        match self.holder {
            None => {
                if self.sides[0].mirror.is_some() {
                    self.epoch = 1;
                    self.activate(0, true);
                }
            }
            Some(holder) => self.engine_held(holder),
        }
    }

    pub fn engine_held(&mut self, holder: usize) {
        let twin = 1 - holder;
        let (here, there) = (self.sides[holder].mirror.is_some(), self.sides[twin].mirror.is_some());
        let role = self.role(holder);
        let both = self.in_sync.len() == 2;
        if !here || role != Role::Active {
            // The holder was away: either itself again, or its twin if that is in sync.
            // The engine's rule of whole copies: a crashed holder waits for a twin that did not crash.
            let worse = both && self.sides[holder].crashed && !self.sides[twin].crashed;
            if both && there && (worse || self.chance.one_in(2)) {
                self.epoch += 1;
                self.in_sync = BTreeSet::from([twin]);
                self.activate(twin, true);
            } else if here && role == Role::Standby && !worse {
                if both && there {
                    self.activate(holder, false);
                } else {
                    self.in_sync = BTreeSet::from([holder]);
                    self.activate(holder, true);
                }
            }
            return;
        }
        // A deposed holder learns of its end whenever its node hears of it.
        if there && self.role(twin) != Role::Standby {
            let (epoch, holder) = (Epoch(self.epoch), self.sides[holder].id);
            self.order(twin, DiskOrder::LearnEpoch { epoch, holder }, Waits::Other);
            return;
        }
        let status = self.sides[holder].mirror.as_ref().unwrap().status();
        if let Some(lease) = self.lease_us
            && self.chance.one_in(if self.calm { 20 } else { 60 })
        {
            let until = Some(Time(self.now + lease));
            self.order(holder, DiskOrder::Lease { until, fence_after_us: 500_000 }, Waits::Other);
        }
        if both {
            let stuck = !status.linked && self.chance.one_in(if self.calm { 400 } else { 30 });
            let wrong = status.linked && !status.equal && status.dirty_blocks == 0 && self.chance.one_in(30);
            if !there && self.chance.one_in(4) || stuck || wrong || (!self.calm && self.chance.one_in(3000)) {
                self.in_sync = BTreeSet::from([holder]);
                let generation = fresh_generation(&mut self.chance);
                self.order(holder, DiskOrder::PutOut { generation }, Waits::PutOut(holder));
            } else if !self.calm && self.chance.one_in(400) {
                self.order(holder, DiskOrder::Deactivate, Waits::Deactivate(holder));
            } else if !self.calm && self.chance.one_in(600) {
                // Cut off: the twin takes over while this side lives.
                self.break_both();
                self.cable = false;
                self.epoch += 1;
                if there {
                    self.in_sync = BTreeSet::from([twin]);
                    self.activate(twin, true);
                }
            }
            return;
        }
        if status.needs_twin {
            let generation = fresh_generation(&mut self.chance);
            self.order(holder, DiskOrder::PutOut { generation }, Waits::PutOut(holder));
        } else if there && status.linked && !self.sides[twin].recovered {
            self.sides[twin].recovered = true;
            self.order(holder, DiskOrder::AllowRebuild { allowed: true }, Waits::Other);
        } else if !there && self.sides[twin].recovered {
            self.sides[twin].recovered = false;
            self.order(holder, DiskOrder::AllowRebuild { allowed: false }, Waits::Other);
        } else if status.equal {
            self.order(holder, DiskOrder::Readmit, Waits::Readmit(holder));
        } else if there && status.linked && self.chance.one_in(20) {
            self.order(holder, DiskOrder::AllowRebuild { allowed: true }, Waits::Other);
        }
    }
}
