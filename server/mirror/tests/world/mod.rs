//! Two mirrors joined back to back: lossy disks, a link that breaks, a register that never errs, an oracle.

pub mod disk;
mod engine;
mod faults;
mod oracle;

use disk::{Chance, Disk};
use mirror::action::{Data, OpId};
use mirror::input::{LocalResult, PayloadId, Range, RequestId};
use mirror::layout::{self, Format};
use mirror::{Action, ControlArea, Faults, Input, Mirror, MirrorConfig, MirrorTiming};
use peer::block::Frame;
use peer::control::{DiskOrder, DiskStatus, FromDisk, Role, Ticket};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use wire::traffic::WriteMode;
use wire::{Generation, Incarnation, NodeId, SetId, Time};

pub const SIZE: u64 = 8 << 20;
const SECTORS: usize = (SIZE / 512) as usize;

struct Asked {
    range: Option<Range>,
    words: Vec<u64>,
    /// Of a write: its number.
    value: u64,
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
    pub fenced: bool,
    /// Its disk has failed an operation: the engine takes the host out of service.
    pub bad: bool,
    /// It lost power since both were equal: what it had not flushed may be on the twin only.
    crashed: bool,
    /// What this copy must hold at least: now, and after a crash.
    least: Vec<u64>,
    safe: Vec<u64>,
    ready_at: u64,
    recovered: bool,
    connected: bool,
    /// What the keeper holds of a process that was killed while it served; its front end is still up.
    kept: Option<mirror::Kept>,
    /// Requests that its successor has not been asked again.
    again: Vec<RequestId>,
}

/// What the engine waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waits {
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
    /// The newest write of zeroes asked for in each sector: as old as that at most is a sector that reads as zero.
    zeroed: Vec<u64>,
    faults: Faults,
    pub trace: Vec<String>,
    pub calm: bool,
    pub acknowledged: u64,
    pub switches: u64,
    pub rebuilds: u64,
    /// Reads that the twin served.
    pub mended: u64,
    /// Killed processes whose successor went on serving.
    pub replaced: u64,
    lease_us: Option<u64>,
    mode: WriteMode,
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
            let mut control = layout::format(format).unwrap();
            control.resize(layout::control_bytes(SIZE) as usize, 0);
            let mut disk = Disk::new(control, SECTORS);
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
                bad: false,
                crashed: false,
                least: vec![0; SECTORS],
                safe: vec![0; SECTORS],
                ready_at: 0,
                recovered: false,
                connected: false,
                kept: None,
                again: Vec::new(),
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
            zeroed: vec![0; SECTORS],
            faults,
            trace: Vec::new(),
            calm: false,
            acknowledged: 0,
            switches: 0,
            rebuilds: 0,
            mended: 0,
            replaced: 0,
            // Every third schedule has leases that lapse now and then.
            mode: if seed.is_multiple_of(2) { WriteMode::SemiSynchronous } else { WriteMode::Synchronous },
            lease_us: seed.is_multiple_of(3).then_some(300_000),
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
            timing: MirrorTiming { cool_us: 20_000, mode: self.mode, ..MirrorTiming::default() },
            hot_max: peer::block::HOT_MAX,
            faults: self.faults,
        };
        let area = ControlArea::read(&it.disk.control).expect("a control area survives everything");
        let ranges = it.requests.values().filter(|asked| asked.write).filter_map(|asked| asked.range);
        let ranges: Vec<Range> = ranges.collect();
        let kept = it.kept.take().unwrap_or_default();
        // Some front ends cannot tell.
        let told = (!self.chance.one_in(5)).then_some(ranges.as_slice());
        let resumed = Mirror::resume(config.clone(), area.clone(), &kept, told, Time(self.now));
        let (resumes, tells) = (resumed.is_some(), told.is_some());
        it.mirror = Some(resumed.unwrap_or_else(|| Mirror::new(config, area, Time(self.now))));
        (it.fenced, it.bad) = (false, false);
        it.connected = false;
        it.status = None;
        self.say(format!("{side} starts, {}", if resumes { "resumed" } else { "as standby" }));
        if resumes {
            self.replaced += 1;
            self.sides[side].again = self.sides[side].requests.keys().copied().collect();
            // Without ghosts a new write might come before an old one, which the oracle's numbers do not allow.
            while !tells && !self.sides[side].again.is_empty() {
                self.ask_again(side);
            }
            if self.holder == Some(side) {
                let until = self.lease_us.map(|lease| Time(self.now + lease));
                self.order(side, DiskOrder::Lease { until, fence_after_us: 500_000 }, Waits::Other);
            }
        } else {
            self.sides[side].requests.clear();
        }
    }

    /// The kernel asks again what was not answered, one by one, in any order.
    fn ask_again(&mut self, side: usize) {
        let left = &self.sides[side].again;
        if left.is_empty() {
            return;
        }
        let mut at = self.chance.below(left.len() as u64) as usize;
        // Of equal ranges the oracle wants the first one first: its numbers are in the order of asking.
        let write = |request: &RequestId| self.sides[side].requests.get(request).is_some_and(|a| a.write);
        if write(&left[at]) {
            at = left.iter().position(write).unwrap_or(at);
        }
        let request = self.sides[side].again.remove(at);
        let Some(asked) = self.sides[side].requests.get(&request) else { return };
        let input = match (asked.range, asked.write) {
            (Some(range), true) if asked.words.iter().all(|word| *word == 0) => {
                Input::Zero { request, range, unmap: true }
            }
            (Some(range), true) => Input::Write { request, range },
            (Some(range), false) => Input::Read { request, range },
            (None, _) => Input::Flush { request },
        };
        self.input(side, input);
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
            Data::Part { op, from } => it.buffers[&op][from as usize / 512..].to_vec(),
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
            Action::ZeroLocal { range, .. } => {
                self.sides[side].doing.push((action, delay, vec![0; sectors(range).1]));
            }
            Action::ReadLocal { .. } | Action::HashLocal { .. } => {
                self.sides[side].doing.push((action, delay, Vec::new()));
            }
            Action::StoreControl { .. }
            | Action::LoadControl { .. }
            | Action::OpenFrontEnd { .. }
            | Action::CloseFrontEnd { .. } => {
                self.sides[side].doing.push((action, delay, Vec::new()));
            }
            Action::FlushLocal { op } => {
                let mark = self.sides[side].disk.mark();
                // The mark travels in a request-less read: see `complete`.
                self.sides[side].buffers.insert(op, vec![mark]);
                self.sides[side].doing.push((action, delay, Vec::new()));
            }
            Action::Send { frame, data } => {
                let length = frame.payload_length() as usize / 512;
                let words = data.map(|data| self.data(side, data)[..length].to_vec());
                if self.link_up {
                    self.wires[side].push_back((frame, words));
                }
            }
            Action::Release { data } => match data {
                Data::Request(_) | Data::Part { .. } => panic!("not released: {data:?}"),
                Data::Payload(payload) => assert!(self.sides[side].payloads.remove(&payload).is_some()),
                Data::Buffer(op) => assert!(self.sides[side].buffers.remove(&op).is_some()),
            },
            Action::Fill { request, payload } => {
                let words = self.sides[side].payloads[&payload].clone();
                self.mended += 1;
                self.sides[side].buffers.insert(OpId(u64::MAX - request.0), words);
            }
            Action::Reply { request, errno } => self.replied(side, request, errno),
            Action::CloseLink { .. } => self.closed(side),
            Action::LeaseEnded | Action::LeaseRuns | Action::Exit => {}
            Action::Fenced => self.sides[side].fenced = true,
            Action::Tell(FromDisk::Status(status)) => self.sides[side].status = Some(*status),
            Action::Tell(FromDisk::Done { ticket, result }) => self.ordered(side, ticket, result),
            Action::GatherLocal { .. } | Action::WriteControl { .. } => panic!("there is no store"),
        }
    }

    fn closed(&mut self, side: usize) {
        if self.sides[side].connected {
            self.sides[side].connected = false;
            self.break_link(1 - side);
        }
    }

    fn role(&self, side: usize) -> Role {
        self.sides[side].mirror.as_ref().map_or(Role::Standby, |mirror| mirror.status().role)
    }

    fn needs_twin(&self, side: usize) -> bool {
        self.sides[side].mirror.as_ref().is_some_and(|mirror| mirror.status().needs_twin)
    }

    fn complete(&mut self, side: usize, at: usize) {
        let (action, _, words) = self.sides[side].doing.remove(at);
        // A sector that cannot be read is the commonest fault of a disk; in sync the twin makes it good.
        let read = matches!(action, Action::ReadLocal { into: Data::Request(_), .. });
        let odds = if read && self.needs_twin(side) { 2 } else { 6_000 };
        if !self.calm && self.chance.one_in(odds) && self.fault(side, &action) {
            return;
        }
        let (op, result) = match action {
            Action::WriteLocal { op, range, .. } | Action::ZeroLocal { op, range, .. } => {
                self.sides[side].disk.write(sectors(range).0, &words);
                (op, LocalResult::Done)
            }
            Action::ReadLocal { op, range, into } => {
                let (first, count) = sectors(range);
                let words = self.sides[side].disk.view[first..first + count].to_vec();
                let place = match into {
                    Data::Request(request) => OpId(u64::MAX - request.0),
                    Data::Buffer(op) => op,
                    Data::Payload(_) | Data::Part { .. } => panic!("nothing is read into {into:?}"),
                };
                let blocks = words.chunks(disk::SECTORS_PER_BLOCK).enumerate();
                let mut zero = vec![0; words.len().div_ceil(8 * disk::SECTORS_PER_BLOCK)];
                for (i, _) in blocks.filter(|(_, words)| words.iter().all(|word| *word == 0)) {
                    zero[i / 8] |= 1 << (i % 8);
                }
                self.sides[side].buffers.insert(place, words);
                (op, if place == op { LocalResult::Read { zero } } else { LocalResult::Done })
            }
            Action::HashLocal { op, range, keep } => {
                let (first, count) = sectors(range);
                if keep {
                    let words = self.sides[side].disk.view[first..first + count].to_vec();
                    self.sides[side].buffers.insert(op, words);
                }
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
            Action::LoadControl { op, offset, length } => {
                let bytes = self.sides[side].disk.control[offset as usize..][..length as usize].to_vec();
                (op, LocalResult::Bytes(bytes))
            }
            Action::OpenFrontEnd { op } | Action::CloseFrontEnd { op, .. } => (op, LocalResult::Done),
            other => panic!("not an operation: {other:?}"),
        };
        self.input(side, Input::LocalDone { op, result: Ok(result) });
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
            // Now and then zeroes over more than any payload.
            2 if kind == 2 && !hot && self.chance.one_in(4) => 512 * (1 + self.chance.below(SIZE / 1024)),
            _ => 4096,
        };
        let span = if hot { 64 * 4096 } else { SIZE };
        let length = length.min(span);
        let offset = self.chance.below((span - length) / 512 + 1) * 512;
        let range = Range { offset, length: length as u32 };
        let (at, count) = sectors(range);
        let it = &mut self.sides[side];
        // A new write may go before an old one of the same range that is to come again; the oracle's numbers may not.
        // Nor one within a long range of zeroes whose turn had not come: its successor claims nothing for that.
        let before = |old: Range| {
            let ends = |one: Range| one.offset + u64::from(one.length);
            let long = old.length > peer::block::PAYLOAD_BYTES_MAX;
            old == range || long && old.offset < ends(range) && range.offset < ends(old)
        };
        if it.again.iter().any(|old| it.requests.get(old).and_then(|asked| asked.range).is_some_and(before)) {
            return;
        }
        if kind == 0 {
            let before = it.least.iter().copied().enumerate().filter(|(s, v)| *v > it.safe[*s]).collect();
            it.requests
                .insert(request, Asked { range: None, words: Vec::new(), value: 0, before, write: false });
            self.input(side, Input::Flush { request });
        } else if kind == 1 {
            let before = (at..at + count).map(|s| (s, it.least[s])).collect();
            it.requests.insert(
                request,
                Asked { range: Some(range), words: Vec::new(), value: 0, before, write: false },
            );
            self.input(side, Input::Read { request, range });
        } else {
            self.value += 1;
            let value = self.value;
            let zero = kind == 2;
            let words = vec![if zero { 0 } else { value }; count];
            let asked = Asked { range: Some(range), words, value, before: Vec::new(), write: true };
            it.requests.insert(request, asked);
            if zero {
                self.zeroed[at..at + count].fill(value);
                self.input(side, Input::Zero { request, range, unmap: hot });
            } else {
                self.input(side, Input::Write { request, range });
            }
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
        for side in 0..2 {
            if self.chance.one_in(3) {
                self.ask_again(side);
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
