//! Two mirrors joined back to back: lossy disks, a link that breaks, a register that never errs, an oracle.

pub mod disk;

use disk::{Chance, Disk, SECTORS_PER_BLOCK};
use mirror::action::{Data, OpId};
use mirror::input::{LocalResult, PayloadId, Range, RequestId};
use mirror::layout::{self, Format};
use mirror::{Action, ControlArea, Faults, Input, Mirror, MirrorConfig, MirrorTiming};
use peer::block::Frame;
use peer::control::{DiskOrder, DiskStatus, FromDisk, OrderFault, Role, Ticket, ToDisk};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use wire::{Epoch, Generation, Incarnation, NodeId, SetId, Time};

pub const SIZE: u64 = 8 << 20;
const SECTORS: usize = (SIZE / 512) as usize;

struct Asked {
    range: Option<Range>,
    words: Vec<u64>,
    /// Of a flush: what was acknowledged before it.
    before: Vec<(usize, u64)>,
    write: bool,
}

pub struct Side {
    id: NodeId,
    pub mirror: Option<Mirror>,
    pub disk: Disk,
    incarnation: Incarnation,
    /// Operations, when they end, and the words of a write.
    doing: Vec<(Action, u64, Vec<u64>)>,
    requests: BTreeMap<RequestId, Asked>,
    payloads: BTreeMap<PayloadId, Vec<u64>>,
    buffers: BTreeMap<OpId, Vec<u64>>,
    pub status: Option<DiskStatus>,
    fenced: bool,
    /// What this copy must hold at least: now, and after a crash.
    least: Vec<u64>,
    safe: Vec<u64>,
    ready_at: u64,
    recovered: bool,
    connected: bool,
}

/// What the engine waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Waits {
    Activate(usize),
    Readmit(usize),
    PutOut(usize),
    Deactivate(usize),
    Other,
}

pub struct World {
    pub chance: Chance,
    pub now: u64,
    pub sides: [Side; 2],
    wires: [VecDeque<(Frame, Option<Vec<u64>>)>; 2],
    link_up: bool,
    cable: bool,
    epoch: u64,
    pub holder: Option<usize>,
    pub in_sync: BTreeSet<usize>,
    orders: BTreeMap<Ticket, Waits>,
    next: u64,
    value: u64,
    faults: Faults,
    pub trace: Vec<String>,
    pub calm: bool,
    pub acknowledged: u64,
    pub switches: u64,
    pub rebuilds: u64,
    lease_us: Option<u64>,
    turns: u64,
}

fn sectors(range: Range) -> (usize, usize) {
    ((range.offset / 512) as usize, range.length as usize / 512)
}

impl World {
    pub fn new(seed: u64, faults: Faults) -> World {
        let mut chance = Chance(seed);
        let side = |id: u8, chance: &mut Chance| {
            let format = Format { cluster: [1; 16], set: SetId(1), side: NodeId(id), size: SIZE };
            let mut disk = Disk::new(layout::format(format).unwrap(), SECTORS);
            // The copies begin different: the first build has something to do.
            for word in &mut disk.view {
                *word = 0;
            }
            Side {
                id: NodeId(id),
                mirror: None,
                disk,
                incarnation: fresh16(chance),
                doing: Vec::new(),
                requests: BTreeMap::new(),
                payloads: BTreeMap::new(),
                buffers: BTreeMap::new(),
                status: None,
                fenced: false,
                least: vec![0; SECTORS],
                safe: vec![0; SECTORS],
                ready_at: 0,
                recovered: false,
                connected: false,
            }
        };
        let sides = [side(1, &mut chance), side(2, &mut chance)];
        World {
            chance,
            now: 1_000_000,
            sides,
            wires: [VecDeque::new(), VecDeque::new()],
            link_up: false,
            cable: true,
            epoch: 0,
            holder: None,
            in_sync: BTreeSet::from([0]),
            orders: BTreeMap::new(),
            next: 1,
            value: 0,
            faults,
            trace: Vec::new(),
            calm: false,
            acknowledged: 0,
            switches: 0,
            rebuilds: 0,
            lease_us: None,
            turns: 0,
        }
    }

    fn say(&mut self, what: String) {
        if self.trace.len() > 40_000 {
            self.trace.drain(..20_000);
        }
        self.trace.push(format!("{:>10} {what}", self.now));
    }

    fn start(&mut self, side: usize) {
        let it = &mut self.sides[side];
        let config = MirrorConfig {
            cluster: [1; 16],
            set: SetId(1),
            side: it.id,
            incarnation: it.incarnation,
            timing: MirrorTiming { cool_us: 20_000, ..MirrorTiming::default() },
            faults: self.faults,
        };
        let area = ControlArea::read(&it.disk.control).expect("a control area survives everything");
        it.mirror = Some(Mirror::new(config, area, Time(self.now)));
        it.fenced = false;
        it.connected = false;
        it.status = None;
        self.say(format!("{side} starts"));
    }

    pub fn input(&mut self, side: usize, input: Input) {
        let Some(mirror) = &mut self.sides[side].mirror else { return };
        let text = match &input {
            Input::Received { frame, .. } => format!("{:?}", short(&format!("{:?}", frame.body))),
            other => short(&format!("{other:?}")),
        };
        mirror.handle(input, Time(self.now));
        let actions = mirror.take_actions();
        self.say(format!("{side} < {text}"));
        for action in actions {
            self.perform(side, action);
        }
        self.turns += 1;
        if self.turns.is_multiple_of(4) {
            self.check_blocks();
        }
    }

    fn data(&self, side: usize, data: Data) -> Vec<u64> {
        let it = &self.sides[side];
        match data {
            Data::Request(request) => it.requests[&request].words.clone(),
            Data::Payload(payload) => it.payloads[&payload].clone(),
            Data::Buffer(op) => it.buffers[&op].clone(),
        }
    }

    fn perform(&mut self, side: usize, action: Action) {
        if !matches!(action, Action::Tell(FromDisk::Status(_))) {
            self.say(format!("{side}     > {}", short(&format!("{action:?}"))));
        }
        let delay = self.now
            + if self.chance.one_in(10) { self.chance.below(60_000) } else { self.chance.below(3_000) };
        match action {
            Action::WriteLocal { data, .. } => {
                let words = self.data(side, data);
                self.sides[side].doing.push((action, delay, words));
            }
            Action::ReadLocal { .. } | Action::HashLocal { .. } => {
                self.sides[side].doing.push((action, delay, Vec::new()));
            }
            Action::StoreControl { .. } | Action::OpenFrontEnd { .. } | Action::CloseFrontEnd { .. } => {
                self.sides[side].doing.push((action, delay, Vec::new()));
            }
            Action::FlushLocal { op } => {
                let mark = self.sides[side].disk.mark();
                // The mark travels in a request-less read: see `complete`.
                self.sides[side].buffers.insert(op, vec![mark]);
                self.sides[side].doing.push((action, delay, Vec::new()));
            }
            Action::Send { frame, data } => {
                let words = data.map(|data| self.data(side, data));
                if self.link_up {
                    self.wires[side].push_back((frame, words));
                }
            }
            Action::Release { data } => match data {
                Data::Request(_) => panic!("requests end with their reply"),
                Data::Payload(payload) => assert!(self.sides[side].payloads.remove(&payload).is_some()),
                Data::Buffer(op) => assert!(self.sides[side].buffers.remove(&op).is_some()),
            },
            Action::Reply { request, errno } => self.replied(side, request, errno),
            Action::CloseLink { .. } => self.closed(side),
            Action::LeaseEnded | Action::LeaseRuns | Action::Exit => {}
            Action::Fenced => self.sides[side].fenced = true,
            Action::Tell(FromDisk::Status(status)) => self.sides[side].status = Some(*status),
            Action::Tell(FromDisk::Done { ticket, result }) => self.ordered(side, ticket, result),
        }
    }

    fn closed(&mut self, side: usize) {
        if self.sides[side].connected {
            self.sides[side].connected = false;
            self.break_link(1 - side);
        }
    }

    fn break_link(&mut self, tell: usize) {
        self.link_up = false;
        self.wires = [VecDeque::new(), VecDeque::new()];
        if self.sides[tell].connected {
            self.sides[tell].connected = false;
            self.input(tell, Input::LinkLost);
        }
    }

    fn break_both(&mut self) {
        self.link_up = false;
        self.wires = [VecDeque::new(), VecDeque::new()];
        for side in 0..2 {
            if self.sides[side].connected {
                self.sides[side].connected = false;
                self.input(side, Input::LinkLost);
            }
        }
    }

    fn replied(&mut self, side: usize, request: RequestId, errno: i32) {
        let asked = self.sides[side].requests.remove(&request).expect("one reply for a request");
        if errno != 0 {
            assert!(self.sides[side].fenced || self.role(side) != Role::Active, "no error without a fault");
            return;
        }
        let both = self.needs_twin(side);
        let keepers: Vec<usize> = if both { vec![0, 1] } else { vec![side] };
        if asked.write {
            self.acknowledged += 1;
            let (at, count) = sectors(asked.range.unwrap());
            for sector in at..at + count {
                for keeper in &keepers {
                    let least = &mut self.sides[*keeper].least[sector];
                    *least = (*least).max(asked.words[0]);
                }
            }
            // A deposed holder may still say what its twin had answered before: the twin has it.
            let view = &self.sides[1 - side].disk.view;
            let has = both && view[at..at + count].iter().all(|word| *word >= asked.words[0]);
            assert!(self.holder == Some(side) || has, "an acknowledgement from a side that does not hold");
        } else if let Some(range) = asked.range {
            let (at, count) = sectors(range);
            let found = &self.sides[side].buffers.remove(&OpId(u64::MAX - request.0)).expect("read");
            for (i, word) in found.iter().enumerate().take(count) {
                assert!(
                    *word >= asked.before[i].1,
                    "read sector {} gives {word}, {:?}",
                    at + i,
                    asked.before[i]
                );
            }
        } else {
            for (sector, value) in asked.before {
                for keeper in &keepers {
                    let safe = &mut self.sides[*keeper].safe[sector];
                    *safe = (*safe).max(value);
                }
            }
        }
    }

    fn role(&self, side: usize) -> Role {
        self.sides[side].mirror.as_ref().map_or(Role::Standby, |mirror| mirror.status().role)
    }

    fn needs_twin(&self, side: usize) -> bool {
        self.sides[side].mirror.as_ref().is_some_and(|mirror| mirror.status().needs_twin)
    }

    fn order(&mut self, side: usize, order: DiskOrder, waits: Waits) {
        self.next += 1;
        let ticket = Ticket(self.next);
        self.orders.insert(ticket, waits);
        self.input(side, Input::Order(ToDisk { ticket, order }));
    }

    fn ordered(&mut self, side: usize, ticket: Ticket, result: Result<peer::control::Done, OrderFault>) {
        let waits = self.orders.remove(&ticket).expect("one result for an order");
        match (waits, result) {
            (Waits::Activate(_), Ok(_)) => {
                self.switches += 1;
                let it = &self.sides[side];
                for sector in 0..SECTORS {
                    let (found, least) = (it.disk.view[sector], it.least[sector]);
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

    fn activate(&mut self, side: usize, alone: bool) {
        self.say(format!("{side} holds epoch {}, alone {alone}", self.epoch));
        self.holder = Some(side);
        let generation = fresh_generation(&mut self.chance);
        let epoch = Epoch(self.epoch);
        self.order(side, DiskOrder::Activate { epoch, alone, generation }, Waits::Activate(side));
        let until = self.lease_us.map(|lease| Time(self.now + lease));
        self.order(side, DiskOrder::Lease { until, fence_after_us: 500_000 }, Waits::Other);
    }

    /// Power loss.
    fn crash(&mut self, side: usize) {
        self.say(format!("{side} loses power"));
        let doing = std::mem::take(&mut self.sides[side].doing);
        for (action, _, words) in doing {
            match action {
                Action::WriteLocal { range, .. } if self.chance.one_in(2) => {
                    self.sides[side].disk.write(sectors(range).0, &words);
                }
                Action::StoreControl { writes, .. } => self.sides[side].disk.tear(&writes, &mut self.chance),
                _ => {}
            }
        }
        self.sides[side].disk.crash(&mut self.chance);
        let it = &mut self.sides[side];
        it.least = it.safe.clone();
        it.incarnation = fresh16(&mut self.chance);
        self.gone(side);
    }

    /// The process ends, the host stays: what was submitted comes to its end.
    fn kill(&mut self, side: usize) {
        self.say(format!("{side} process ends"));
        let doing = std::mem::take(&mut self.sides[side].doing);
        for (action, _, words) in doing {
            match action {
                Action::WriteLocal { range, .. } => {
                    self.sides[side].disk.write(sectors(range).0, &words);
                }
                Action::StoreControl { writes, .. } => self.sides[side].disk.store(&writes),
                _ => {}
            }
        }
        self.gone(side);
    }

    fn gone(&mut self, side: usize) {
        let delay = self.chance.below(400_000);
        let it = &mut self.sides[side];
        it.mirror = None;
        it.doing.clear();
        it.requests.clear();
        it.payloads.clear();
        it.buffers.clear();
        it.status = None;
        it.connected = false;
        it.ready_at = self.now + delay;
        self.orders.retain(|_, waits| match waits {
            Waits::Activate(s) | Waits::Readmit(s) | Waits::PutOut(s) | Waits::Deactivate(s) => *s != side,
            Waits::Other => true,
        });
        self.break_link(1 - side);
    }

    fn complete(&mut self, side: usize, at: usize) {
        let (action, _, words) = self.sides[side].doing.remove(at);
        let (op, result) = match action {
            Action::WriteLocal { op, range, .. } => {
                self.sides[side].disk.write(sectors(range).0, &words);
                (op, LocalResult::Done)
            }
            Action::ReadLocal { op, range, into } => {
                let (first, count) = sectors(range);
                let words = self.sides[side].disk.view[first..first + count].to_vec();
                let place = match into {
                    Data::Request(request) => OpId(u64::MAX - request.0),
                    Data::Buffer(op) => op,
                    Data::Payload(_) => panic!("nothing is read into a payload"),
                };
                self.sides[side].buffers.insert(place, words);
                (op, LocalResult::Done)
            }
            Action::HashLocal { op, range } => {
                let (first, count) = sectors(range);
                (op, LocalResult::Hashes(self.sides[side].disk.hashes(first, count)))
            }
            Action::FlushLocal { op } => {
                let mark = self.sides[side].buffers.remove(&op).unwrap()[0];
                self.sides[side].disk.flush(mark);
                (op, LocalResult::Done)
            }
            Action::StoreControl { op, writes } => {
                self.sides[side].disk.store(&writes);
                (op, LocalResult::Done)
            }
            Action::OpenFrontEnd { op } | Action::CloseFrontEnd { op, .. } => (op, LocalResult::Done),
            other => panic!("not an operation: {other:?}"),
        };
        self.input(side, Input::LocalDone { op, result: Ok(result) });
    }

    /// Invariant 13: what the active side does not suspect is equal on both disks, crashed or not.
    fn check_blocks(&self) {
        let Some(active) = self.holder else { return };
        let (mine, twin) = (&self.sides[active], &self.sides[1 - active]);
        let (Some(mirror), Some(other)) = (&mine.mirror, &twin.mirror) else { return };
        let (status, theirs) = (mirror.status(), other.status());
        if status.role != Role::Active
            || mirror.base().is_none()
            || theirs.history.first() != mirror.base().as_ref()
        {
            return;
        }
        // What the twin itself suspects is told at the next meeting.
        for block in 0..SECTORS / SECTORS_PER_BLOCK {
            let (from, to) = (block * SECTORS_PER_BLOCK, (block + 1) * SECTORS_PER_BLOCK);
            let equal = mine.disk.stable[from..to] == twin.disk.stable[from..to]
                && mine.disk.view[from..to] == twin.disk.view[from..to];
            if !equal && !mirror.suspects_block(block as u64) && !other.suspects_block(block as u64) {
                panic!(
                    "block {block} differs and nobody knows: side {active} {:?} {:?}, twin {:?} {:?}",
                    &mine.disk.view[from..to],
                    &mine.disk.stable[from..to],
                    &twin.disk.view[from..to],
                    &twin.disk.stable[from..to]
                );
            }
        }
    }

    fn request(&mut self) {
        let Some(side) = self.holder else { return };
        if self.role(side) != Role::Active || self.sides[side].requests.len() > 12 {
            return;
        }
        if self.orders.values().any(|waits| matches!(waits, Waits::Deactivate(_))) {
            return;
        }
        self.next += 1;
        let request = RequestId(self.next);
        let kind = self.chance.below(10);
        let hot = self.chance.one_in(2);
        let length = match self.chance.below(5) {
            0 => 512 * (1 + self.chance.below(16)),
            1 => 4096 * (1 + self.chance.below(256)),
            _ => 4096,
        };
        let span = if hot { 64 * 4096 } else { SIZE };
        let length = length.min(span);
        let offset = self.chance.below((span - length) / 512 + 1) * 512;
        let range = Range { offset, length: length as u32 };
        let (at, count) = sectors(range);
        let it = &mut self.sides[side];
        if kind == 0 {
            let before = it.least.iter().copied().enumerate().filter(|(s, v)| *v > it.safe[*s]).collect();
            it.requests.insert(request, Asked { range: None, words: Vec::new(), before, write: false });
            self.input(side, Input::Flush { request });
        } else if kind == 1 {
            let before = (at..at + count).map(|s| (s, it.least[s])).collect();
            it.requests
                .insert(request, Asked { range: Some(range), words: Vec::new(), before, write: false });
            self.input(side, Input::Read { request, range });
        } else {
            self.value += 1;
            let words = vec![self.value; count];
            it.requests.insert(request, Asked { range: Some(range), words, before: Vec::new(), write: true });
            self.input(side, Input::Write { request, range });
        }
    }

    /// What an engine with a register that never errs would order.
    fn engine(&mut self) {
        for side in 0..2 {
            if self.sides[side].mirror.is_none() && self.now >= self.sides[side].ready_at {
                self.start(side);
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

    fn engine_held(&mut self, holder: usize) {
        let twin = 1 - holder;
        let (here, there) = (self.sides[holder].mirror.is_some(), self.sides[twin].mirror.is_some());
        let role = self.role(holder);
        let both = self.in_sync.len() == 2;
        if !here || role != Role::Active {
            // The holder was away: either itself again, or its twin if that is in sync.
            if both && there && self.chance.one_in(2) {
                self.epoch += 1;
                self.in_sync = BTreeSet::from([twin]);
                self.activate(twin, true);
            } else if here && role == Role::Standby {
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

    pub fn step(&mut self) {
        self.now += self.chance.below(1_500);
        for side in 0..2 {
            let due = self.sides[side].mirror.as_ref().and_then(Mirror::next_deadline);
            if due.is_some_and(|due| due.0 <= self.now) {
                self.input(side, Input::DeadlineReached);
            }
            let ready: Vec<usize> = (0..self.sides[side].doing.len())
                .filter(|i| self.sides[side].doing[*i].1 <= self.now)
                .collect();
            if !ready.is_empty() {
                let stores = |world: &World, i: usize| {
                    matches!(world.sides[side].doing[i].0, Action::StoreControl { .. })
                };
                let pick = ready[self.chance.below(ready.len() as u64) as usize];
                // Stores never overtake one another.
                let first = (0..pick).find(|i| stores(self, *i)).filter(|_| stores(self, pick));
                self.complete(side, first.unwrap_or(pick));
            }
            for _ in 0..2 {
                if self.link_up && !self.wires[side].is_empty() && self.chance.one_in(2) {
                    let (frame, words) = self.wires[side].pop_front().unwrap();
                    self.deliver(1 - side, frame, words);
                }
            }
        }
        self.disturb();
        if self.chance.one_in(4) {
            self.engine();
        }
        if !self.calm || self.value == 0 {
            for _ in 0..self.chance.below(3) {
                self.request();
            }
        }
    }

    fn deliver(&mut self, side: usize, frame: Frame, words: Option<Vec<u64>>) {
        if !self.sides[side].connected {
            return;
        }
        self.next += 1;
        let payload = words.map(|words| {
            let payload = PayloadId(self.next);
            self.sides[side].payloads.insert(payload, words);
            payload
        });
        self.input(side, Input::Received { frame, payload });
    }

    fn disturb(&mut self) {
        let up = self.sides.iter().all(|side| side.mirror.is_some());
        if !self.link_up && self.cable && up && self.chance.one_in(30) {
            self.link_up = true;
            for side in 0..2 {
                self.sides[side].connected = true;
            }
            for side in 0..2 {
                if self.sides[side].connected {
                    self.input(side, Input::LinkConnected { dialled: side == 0 });
                }
            }
        }
        if self.calm {
            self.cable = true;
            return;
        }
        if self.chance.one_in(400) {
            self.cable = !self.cable;
            if !self.cable {
                self.break_both();
            }
        }
        if self.chance.one_in(300) {
            self.break_both();
        }
        for side in 0..2 {
            let twin_well = self.sides[1 - side].mirror.is_some();
            // One failure at a time while both are needed; both at once now and then.
            if self.sides[side].mirror.is_some() && (twin_well || self.chance.one_in(5)) {
                if self.chance.one_in(900) {
                    self.crash(side);
                } else if self.chance.one_in(1200) {
                    self.kill(side);
                }
            }
        }
    }

    /// Faults off: it must heal.
    pub fn settle(&mut self) {
        self.calm = true;
        for _ in 0..60_000 {
            self.step();
            let Some(holder) = self.holder else { continue };
            let Some(mirror) = &self.sides[holder].mirror else { continue };
            let status = mirror.status();
            if self.in_sync.len() == 2
                && status.role == Role::Active
                && status.equal
                && status.rebuild.is_none()
                && self.sides[holder].requests.is_empty()
            {
                let (a, b) = (&self.sides[0].disk, &self.sides[1].disk);
                assert_eq!(a.view, b.view, "copies identical when all is well");
                return;
            }
        }
        let states: Vec<_> = self.sides.iter().map(|side| side.mirror.as_ref().map(Mirror::status)).collect();
        panic!("it does not heal: holder {:?} in sync {:?}\n{states:#?}", self.holder, self.in_sync);
    }
}

fn fresh16(chance: &mut Chance) -> Incarnation {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&chance.next().to_le_bytes());
    Incarnation(bytes)
}

fn fresh_generation(chance: &mut Chance) -> Generation {
    Generation(fresh16(chance).0)
}

fn short(text: &str) -> String {
    text.chars().take(220).collect()
}
