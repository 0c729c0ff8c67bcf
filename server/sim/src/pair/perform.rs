//! The shell of one side: performs what the core wants, with a disk that is slow, fails, or dies in the middle.

#![allow(
    clippy::wildcard_enum_match_arm,
    reason = "of all actions only those of the disk take time or are lost"
)]

use super::disk::cells;
use super::{Event, Process, Values, World, lines};
use mirror::action::{Data, OpId};
use mirror::input::{LocalFault, LocalResult, Range};
use mirror::{Action, Input};
use peer::block::Body;
use peer::control::{FromDisk, Role};
use std::rc::Rc;
use wire::traffic::WriteMode;

/// Microseconds of a read, write or hash.
const IO: (u64, u64) = (20, 300);
/// Microseconds of a flush or a store of the control area.
const FLUSH: (u64, u64) = (50, 900);
/// Microseconds until the front end is up or down.
const ATTACH: (u64, u64) = (200, 3_000);
/// Microseconds of the way between disk process and node process.
const SOCKET: (u64, u64) = (10, 1_500);
/// errno of a device that is in use.
const EBUSY: i32 = 16;
/// errno of a disk that fails.
const EIO: i32 = 5;

fn nothing() -> Values {
    Rc::from([])
}

impl World {
    /// Performs one action.
    pub(super) fn perform(&mut self, side: usize, number: u64, action: Action) {
        if self.lines.wanted() && !matches!(action, Action::Tell(FromDisk::Status(_))) {
            let text = lines::action(&action);
            self.line(side, || text);
        }
        match action {
            Action::WriteLocal { op, range, data: data @ (Data::Buffer(_) | Data::Part { .. }) } => {
                self.writes_kept(side, op, range, data);
                self.begin_io(side, number, action, nothing());
            }
            Action::WriteLocal { data, .. } => {
                let values = self.values(side, data);
                self.begin_io(side, number, action, values);
            }
            Action::FlushLocal { op } => {
                let mark = self.sides[side].disk.mark();
                if let Some(process) = &mut self.sides[side].process {
                    process.marks.insert(op, mark);
                }
                self.begin_io(side, number, action, nothing());
            }
            Action::ZeroLocal { range, .. } => {
                let (from, to) = cells(range);
                self.begin_io(side, number, action, vec![0; to - from].into());
            }
            Action::ReadLocal { .. }
            | Action::HashLocal { .. }
            | Action::GatherLocal { .. }
            | Action::WriteControl { .. }
            | Action::StoreControl { .. }
            | Action::LoadControl { .. }
            | Action::OpenFrontEnd { .. }
            | Action::CloseFrontEnd { .. } => self.begin_io(side, number, action, nothing()),
            Action::Send { frame, data } => {
                let values = data.map(|data| self.sent_values(side, data, &frame.body));
                self.send(side, frame, values);
            }
            Action::Release { data } => self.release(side, data),
            Action::Fill { request, payload } => {
                let values = self.values(side, Data::Payload(payload));
                self.keep_read(side, OpId(0), Data::Request(request), 0, values);
            }
            Action::Reply { request, errno } => self.replied(side, request, errno),
            Action::CloseLink { .. } => self.detach(side),
            Action::LeaseEnded | Action::LeaseRuns => {}
            Action::Fenced => {
                if let Some(process) = &mut self.sides[side].process {
                    process.fenced = true;
                    process.front = false;
                }
            }
            Action::Tell(told) => self.tell(side, told),
            Action::Exit => {
                if let Some(process) = &mut self.sides[side].process {
                    process.leaves = true;
                }
            }
        }
    }

    fn values(&mut self, side: usize, data: Data) -> Values {
        let found = self.sides[side].process.as_ref().and_then(|process| match data {
            Data::Request(request) => {
                process.requests.get(&request).map(|request| Rc::clone(&request.values))
            }
            Data::Payload(payload) => process.payloads.get(&payload).cloned(),
            Data::Buffer(op) | Data::Part { op, .. } => {
                process.buffers.get(&op).map(|(_, values)| Rc::clone(values))
            }
        });
        found.unwrap_or_else(|| {
            self.fail(format!("side {}: {data:?} is used after its release", side + 1));
            nothing()
        })
    }

    /// What is sent with a frame: of a buffer's part only what the frame says.
    fn sent_values(&mut self, side: usize, data: Data, body: &Body) -> Values {
        let values = self.values(side, data);
        let (Data::Part { op, .. }, Body::Copy { offset, length }) = (data, body) else { return values };
        let (from, to) = cells(Range { offset: *offset, length: *length });
        let process = self.sides[side].process.as_ref();
        let first = process.and_then(|process| process.buffers.get(&op)).map_or(0, |(first, _)| *first);
        values.get(from.saturating_sub(first)..to.saturating_sub(first)).map_or_else(nothing, Rc::from)
    }

    fn release(&mut self, side: usize, data: Data) {
        let Some(process) = &mut self.sides[side].process else { return };
        let known = match data {
            Data::Request(_) | Data::Part { .. } => false,
            Data::Payload(payload) => {
                process.copied.remove(&data);
                process.payloads.remove(&payload).is_some()
            }
            Data::Buffer(op) => {
                process.blocks.remove(&op);
                process.buffers.remove(&op).is_some()
            }
        };
        if !known {
            self.fail(format!("side {}: {data:?} is released twice, or never was", side + 1));
        }
    }

    fn begin_io(&mut self, side: usize, number: u64, action: Action, values: Values) {
        let (low, high) = match &action {
            Action::FlushLocal { .. } | Action::StoreControl { .. } => FLUSH,
            Action::OpenFrontEnd { .. } | Action::CloseFrontEnd { .. } => ATTACH,
            _ => IO,
        };
        let now = self.queue.now();
        let host = &self.sides[side];
        let factor = if now < host.slow.1 { host.slow.0 } else { 1 };
        let delay = self.rng.range(low, high) * factor;
        let io = self.fresh();
        if let Some(process) = &mut self.sides[side].process {
            process.io.insert(io, (action, values));
        }
        self.queue.after(delay, Event::Io { side, process: number, io });
    }

    /// The disk has ended an operation.
    pub(super) fn io_done(&mut self, side: usize, number: u64, io: u64) {
        let now = self.queue.now();
        let fails = now < self.sides[side].failing_until && self.rng.percent(60);
        let Some(process) = self.process(side, number) else { return };
        let Some((action, values)) = process.io.remove(&io) else { return };
        let (op, result) =
            if fails { self.io_fails(side, action, &values) } else { self.apply_io(side, action, &values) };
        self.input(side, Input::LocalDone { op, result });
    }

    fn apply_io(
        &mut self,
        side: usize,
        action: Action,
        values: &Values,
    ) -> (OpId, Result<LocalResult, LocalFault>) {
        let done = Ok(LocalResult::Done);
        match action {
            Action::WriteLocal { op, range, data: Data::Buffer(_) | Data::Part { .. } } => {
                let blocks = self.kept_blocks(side, op);
                self.sides[side].disk.write_blocks(range, &blocks);
                self.check_sums(side);
                (op, done)
            }
            Action::WriteLocal { op, range, .. } | Action::ZeroLocal { op, range, .. } => {
                self.check_order(side, &action, values);
                self.sides[side].disk.write(cells(range).0, values);
                self.check_sums(side);
                (op, done)
            }
            Action::ReadLocal { op, range, into } => {
                let (from, to) = cells(range);
                let values: Values = self.sides[side].disk.view()[from..to].into();
                self.keep_read(side, op, into, from, values);
                let zero = self.sides[side].disk.zeroes(range);
                (op, if matches!(into, Data::Buffer(_)) { Ok(LocalResult::Read { zero }) } else { done })
            }
            Action::HashLocal { op, range, keep } => {
                let (from, to) = cells(range);
                let values: Values = self.sides[side].disk.view()[from..to].into();
                if keep {
                    self.keep_read(side, op, Data::Buffer(op), from, values);
                    self.keep_blocks(side, op, &[range]);
                }
                (op, Ok(LocalResult::Hashes(self.sides[side].disk.hashes(range))))
            }
            Action::GatherLocal { op, ranges } => {
                self.keep_read(side, op, Data::Buffer(op), 0, nothing());
                self.keep_blocks(side, op, &ranges);
                let disk = &self.sides[side].disk;
                (op, Ok(LocalResult::Hashes(ranges.iter().flat_map(|range| disk.hashes(*range)).collect())))
            }
            Action::WriteControl { op, write } => {
                self.sides[side].disk.write_control(&write);
                (op, done)
            }
            Action::FlushLocal { op } => {
                let mark = self.sides[side].process.as_mut().and_then(|process| process.marks.remove(&op));
                self.sides[side].disk.flush(mark.unwrap_or(0));
                (op, done)
            }
            Action::StoreControl { op, writes } => {
                self.sides[side].disk.store(&writes);
                self.check_sums(side);
                self.check_store();
                (op, done)
            }
            Action::LoadControl { op, offset, length } => {
                (op, Ok(LocalResult::Bytes(self.sides[side].disk.load(offset, length as usize))))
            }
            Action::OpenFrontEnd { op } => {
                if self.calm_since.is_none() && self.rng.percent(2) {
                    return (op, Err(LocalFault { errno: EIO }));
                }
                let tick = self.oracle.begun();
                let held = Box::new(*self.sides[side].disk.view());
                if self.role(side) == Role::Activating {
                    self.check_prefix(side, &held);
                }
                if let Some(process) = &mut self.sides[side].process
                    && !process.fenced
                {
                    process.front = true;
                    // After a deactivation that failed it is the same term.
                    if process.mirror.role() == Role::Activating {
                        process.opened = Some((tick, held));
                    }
                }
                (op, done)
            }
            Action::CloseFrontEnd { op, abort } => {
                if !abort && self.calm_since.is_none() && self.rng.percent(10) {
                    return (op, Err(LocalFault { errno: EBUSY }));
                }
                if let Some(process) = &mut self.sides[side].process {
                    process.front = false;
                }
                (op, done)
            }
            Action::Send { .. }
            | Action::Release { .. }
            | Action::Fill { .. }
            | Action::Reply { .. }
            | Action::CloseLink { .. }
            | Action::LeaseEnded
            | Action::LeaseRuns
            | Action::Fenced
            | Action::Tell(_)
            | Action::Exit => (OpId(0), done),
        }
    }

    fn keep_read(&mut self, side: usize, op: OpId, into: Data, first: usize, values: Values) {
        let Some(process) = &mut self.sides[side].process else { return };
        match into {
            Data::Request(request) => {
                if let Some(request) = process.requests.get_mut(&request) {
                    request.values = values;
                }
            }
            Data::Buffer(buffer) => {
                process.buffers.insert(buffer, (first, values));
            }
            Data::Payload(_) | Data::Part { .. } => {
                self.fail(format!("side {}: {op:?} reads into a payload", side + 1))
            }
        }
    }

    /// The disk fails an operation: what was to be written is there, or not, or in part.
    fn io_fails(
        &mut self,
        side: usize,
        action: Action,
        values: &Values,
    ) -> (OpId, Result<LocalResult, LocalFault>) {
        let failed = Err(LocalFault { errno: EIO });
        self.checks.failing = true;
        self.say(|| format!("the disk of side {} fails", side + 1));
        if let Some(process) = &mut self.sides[side].process {
            process.bad = true;
        }
        match action {
            Action::WriteLocal { op, range, data: Data::Buffer(_) | Data::Part { .. } } => {
                let blocks = self.kept_blocks(side, op);
                self.sides[side].disk.tear_blocks(range, &blocks, &mut self.rng);
                (op, failed)
            }
            Action::WriteLocal { op, range, .. } | Action::ZeroLocal { op, range, .. } => {
                self.sides[side].disk.tear(cells(range).0, values, &mut self.rng);
                (op, failed)
            }
            Action::StoreControl { op, writes } => {
                self.sides[side].disk.store_torn(&writes, &mut self.rng);
                (op, failed)
            }
            Action::ReadLocal { op, into, .. } => {
                self.keep_read(side, op, into, 0, nothing());
                (op, failed)
            }
            Action::HashLocal { op, keep, .. } => {
                if keep {
                    self.keep_read(side, op, Data::Buffer(op), 0, nothing());
                }
                (op, failed)
            }
            Action::GatherLocal { op, .. } => {
                self.keep_read(side, op, Data::Buffer(op), 0, nothing());
                (op, failed)
            }
            Action::WriteControl { op, write } => {
                self.sides[side].disk.tear_control(&write, &mut self.rng);
                (op, failed)
            }
            Action::FlushLocal { op } | Action::LoadControl { op, .. } => (op, failed),
            other => self.apply_io(side, other, &nothing()),
        }
    }

    fn tell(&mut self, side: usize, told: FromDisk) {
        if let FromDisk::Status(status) = &told
            && let Some(failed) = status.failed.as_ref().filter(|failed| failed.starts_with("invariant"))
        {
            self.fail(format!("side {}: {failed}", side + 1));
        }
        if let FromDisk::Status(status) = &told {
            self.check_verified(side, status);
        }
        self.check_done(side, &told);
        if !self.node_present(side) {
            return;
        }
        let at = self.queue.now() + self.rng.range(SOCKET.0, SOCKET.1);
        let Some(process) = &mut self.sides[side].process else { return };
        let at = process.told.back().map_or(at, |(last, _)| at.max(*last));
        process.told.push_back((at, told));
        let process = process.number;
        self.queue.at(at, Event::Told { side, process });
    }

    /// When an order sent now arrives at the disk process.
    pub(super) fn socket_delay(&mut self) -> u64 {
        self.rng.range(SOCKET.0, SOCKET.1)
    }

    /// The disk process ends, its host lives on: what it had submitted lands, or part of it.
    pub(super) fn process_ends(&mut self, side: usize, how: &str) {
        let Some(process) = self.sides[side].process.take() else { return };
        self.line(side, || format!("the disk process {how}"));
        self.prefix.shaken[side] = true;
        if self.mode.in_force == WriteMode::SemiSynchronous {
            // What it had promised to write is lost with it, should the other copy be lost as well.
            self.oracle.power_lost(1 << side);
        }
        for (action, values) in process.io.values() {
            match action {
                Action::WriteLocal { op, range, data: Data::Buffer(_) | Data::Part { .. } } => {
                    if let Some(blocks) = process.blocks.get(op).filter(|_| self.rng.percent(60)) {
                        self.sides[side].disk.write_blocks(*range, blocks);
                    }
                }
                Action::WriteLocal { range, .. } | Action::ZeroLocal { range, .. }
                    if self.rng.percent(60) =>
                {
                    self.sides[side].disk.write(cells(*range).0, values);
                }
                Action::WriteControl { write, .. } if self.rng.percent(60) => {
                    self.sides[side].disk.write_control(write);
                }
                Action::StoreControl { writes, .. } => {
                    if self.rng.percent(50) {
                        self.sides[side].disk.store(writes);
                    } else {
                        self.sides[side].disk.store_some(writes, &mut self.rng);
                    }
                }
                _ => {}
            }
        }
        self.gone(side, process);
    }

    /// The host loses power.
    pub(super) fn power_lost(&mut self, side: usize) {
        self.line(side, || "the host loses power".into());
        let process = self.sides[side].process.take();
        if let Some(process) = &process {
            for (action, values) in process.io.values() {
                match action {
                    Action::WriteLocal { op, range, data: Data::Buffer(_) | Data::Part { .. } } => {
                        if let Some(blocks) = process.blocks.get(op).filter(|_| self.rng.percent(50)) {
                            self.sides[side].disk.tear_blocks(*range, blocks, &mut self.rng);
                        }
                    }
                    Action::WriteLocal { range, .. } | Action::ZeroLocal { range, .. }
                        if self.rng.percent(50) =>
                    {
                        self.sides[side].disk.tear(cells(*range).0, values, &mut self.rng);
                    }
                    Action::WriteControl { write, .. } if self.rng.percent(50) => {
                        self.sides[side].disk.tear_control(write, &mut self.rng);
                    }
                    Action::StoreControl { writes, .. } => {
                        self.sides[side].disk.store_torn(writes, &mut self.rng)
                    }
                    _ => {}
                }
            }
        }
        let host = &mut self.sides[side];
        host.disk.lose_power(&mut self.rng);
        host.incarnation = wire::Incarnation(self.rng.id());
        host.whole = false;
        host.failing_until = 0;
        self.prefix.shaken[side] = true;
        self.oracle.power_lost(1 << side);
        self.node_lost(side);
        if let Some(process) = process {
            self.gone(side, process);
        }
    }

    fn gone(&mut self, side: usize, process: Process) {
        if let Some(stream) = process.stream {
            self.end_stream(stream, 1 - side);
        }
        self.process_gone(side);
        let delay = self.plan.restart_delay(&mut self.rng);
        self.queue.after(delay, Event::Start { side });
    }

    /// The role of a side; standby when nothing runs there.
    pub(super) fn role(&self, side: usize) -> Role {
        self.sides[side].process.as_ref().map_or(Role::Standby, |process| process.mirror.role())
    }
}
