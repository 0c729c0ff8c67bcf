//! The disk process's shell: performs a mirror's actions on the simulated disk, link and socket, and hands results back.

use crate::app::sectors;
use crate::disk::SECTOR_BYTES;
use crate::host::{DiskProcess, Io, IoKind, RequestKind, Values};
use crate::net::ConnId;
use crate::trace::Column;
use crate::world::{Event, Packet, World};
use mirror::action::{Data, OpId};
use mirror::input::{LocalFault, LocalResult, RequestId};
use mirror::{Action, Input};
use peer::block::Body;
use peer::control::{DiskOrder, FromDisk, ToDisk};
use std::rc::Rc;
use wire::SetId;

/// Shortest and longest time of a write or read in microseconds; the cache makes most of them quick.
const IO: (u64, u64) = (30, 900);
/// Of a flush, data or control: the platter's time.
const FLUSH: (u64, u64) = (200, 6_000);
/// Of attaching or detaching the front end.
const ATTACH: (u64, u64) = (2_000, 60_000);
/// Of a message on the unix socket.
const SOCKET: (u64, u64) = (20, 300);

impl World {
    /// One turn of a mirror: the input, then all it wants done.
    pub fn mirror_input(&mut self, host: usize, set: SetId, input: Input) {
        let time = self.hosts[host].time(self.queue.now());
        let Some(disk) = self.hosts[host].disks.get_mut(&set) else { return };
        let process = disk.process;
        disk.mirror.handle(input, time);
        self.drain_mirror(host, set, process);
    }

    /// Performs what a mirror has queued, and sets its next waking.
    pub fn drain_mirror(&mut self, host: usize, set: SetId, process: u64) {
        let Some(disk) = self.hosts[host].disks.get_mut(&set) else { return };
        let actions = disk.mirror.take_actions();
        for action in actions {
            if self.disk_of(host, set, process).is_none() {
                return;
            }
            self.perform_mirror(host, set, process, action);
        }
        let now = self.queue.now();
        let Some(disk) = self.hosts[host].disks.get_mut(&set).filter(|d| d.process == process) else {
            return;
        };
        let Some(deadline) = disk.mirror.next_deadline() else { return };
        let at = self.hosts[host].clock.moment(deadline).max(now + 1);
        let Some(disk) = self.hosts[host].disks.get_mut(&set) else { return };
        if disk.wake.is_none_or(|wake| wake > at || wake <= now) {
            disk.wake = Some(at);
            self.queue.at(at, Event::DiskWake { host, set, process, at });
        }
    }

    /// A disk process, if that life of it lives.
    pub fn disk_of(&mut self, host: usize, set: SetId, process: u64) -> Option<&mut DiskProcess> {
        self.hosts[host].disks.get_mut(&set).filter(|d| d.process == process)
    }

    fn perform_mirror(&mut self, host: usize, set: SetId, process: u64, action: Action) {
        self.check_mirror_action(host, set, &action);
        match action {
            Action::WriteLocal { op, range, data } => {
                let values = self.values(host, set, data);
                let (sector, count) = sectors(range);
                self.expect(values.len() as u64 == count, || {
                    format!("{set}: {op:?} writes {range:?} from {data:?} that is not there")
                });
                self.begin_io(host, set, process, op, IoKind::Write { sector, values });
            }
            Action::ZeroLocal { op, range, .. } => {
                let (sector, count) = sectors(range);
                let values = vec![0; count as usize].into();
                self.begin_io(host, set, process, op, IoKind::Write { sector, values });
            }
            Action::ReadLocal { op, range, into } => {
                let (sector, sectors) = sectors(range);
                self.begin_io(host, set, process, op, IoKind::Read { sector, sectors, into });
            }
            Action::HashLocal { op, range, keep } => {
                let (sector, sectors) = sectors(range);
                self.begin_io(host, set, process, op, IoKind::Hash { sector, sectors, keep });
            }
            Action::FlushLocal { op } => {
                let Some(mark) = self.hosts[host].media.get(&set).map(|disk| disk.begin_flush()) else {
                    return;
                };
                self.begin_io(host, set, process, op, IoKind::Flush { mark });
            }
            Action::GatherLocal { op, .. } | Action::WriteControl { op, .. } => {
                self.expect(false, || format!("{set}: {op:?} is of a store, and there is none"));
            }
            Action::StoreControl { op, writes } => {
                let writes = writes.into_iter().map(|w| (w.offset, w.bytes)).collect();
                self.begin_io(host, set, process, op, IoKind::Control { writes });
            }
            Action::LoadControl { op, offset, length } => {
                self.begin_io(host, set, process, op, IoKind::Load { offset, length });
            }
            Action::Send { frame, data } => {
                let length = u64::from(frame.payload_length());
                let values = data.map(|data| self.part(host, set, data, length));
                let count = values.as_ref().map_or(0, |v| v.len() as u64);
                self.expect(count * SECTOR_BYTES == length, || {
                    format!("{set}: {frame:?} without its payload")
                });
                let now = self.queue.now();
                let column = Column::Server(host);
                if matches!(frame.body, Body::Alive { .. }) {
                    self.trace.noise(now, column, || format!("{set} -> {frame:?}"));
                } else {
                    self.trace.step(now, column, || {
                        format!(
                            "{set} -> {} {} #{} {}",
                            frame.epoch,
                            frame.session,
                            frame.sequence,
                            short(&frame.body)
                        )
                    });
                }
                let link = self.disk_of(host, set, process).and_then(|d| d.link);
                if let Some((conn, end)) = link {
                    self.send(conn, 1 - end, Packet::Block(Box::new(frame), values));
                }
            }
            Action::Release { data } => self.release(host, set, data),
            Action::Fill { request, payload } => {
                let values = self.values(host, set, Data::Payload(payload));
                if let Some(request) =
                    self.disk_of(host, set, process).and_then(|disk| disk.requests.get_mut(&request))
                {
                    request.values = values;
                }
            }
            Action::Reply { request, errno } => self.reply(host, set, request, errno),
            Action::CloseLink { reason } => {
                self.trace.step(self.queue.now(), Column::Server(host), || {
                    format!("{set} closes the link: {reason:?}")
                });
                if let Some((conn, end)) = self.disk_of(host, set, process).and_then(|d| d.link.take()) {
                    self.close(conn, end, true);
                    self.dial_later(host, Some(set), process);
                }
            }
            Action::OpenFrontEnd { op } => self.begin_io(host, set, process, op, IoKind::Open),
            Action::CloseFrontEnd { op, abort } => {
                self.begin_io(host, set, process, op, IoKind::Close { abort })
            }
            Action::LeaseEnded => self.lease_ended(host, set, process),
            Action::LeaseRuns => {
                if let Some(disk) = self.disk_of(host, set, process) {
                    disk.lease_ended = false;
                }
            }
            Action::Fenced => self.fence_host_side(host, set),
            Action::Tell(said) => self.tell_node(host, set, process, said),
            Action::Exit => {
                self.trace
                    .step(self.queue.now(), Column::Server(host), || format!("{set}: the disk process ends"));
                self.kill_disk(host, set, "exit");
            }
        }
    }

    fn values(&mut self, host: usize, set: SetId, data: Data) -> Values {
        let disk = self.hosts[host].disks.get(&set);
        let found = disk.and_then(|disk| match data {
            Data::Request(request) => disk.requests.get(&request).map(|r| r.values.clone()),
            Data::Payload(payload) => disk.payloads.get(&payload).cloned(),
            Data::Buffer(op) | Data::Part { op, .. } => disk.buffers.get(&op).cloned(),
        });
        let known = found.is_some();
        self.expect(known, || format!("{set} at server{}: {data:?} is used and was released", host + 1));
        found.unwrap_or_else(|| Rc::from([]))
    }

    /// What is sent: `length` bytes of it.
    fn part(&mut self, host: usize, set: SetId, data: Data, length: u64) -> Values {
        let values = self.values(host, set, data);
        let Data::Part { from, .. } = data else { return values };
        let first = (u64::from(from) / SECTOR_BYTES) as usize;
        let last = first + (length / SECTOR_BYTES) as usize;
        values.get(first..last).map_or_else(|| Rc::from([]), Rc::from)
    }

    fn release(&mut self, host: usize, set: SetId, data: Data) {
        let Some(disk) = self.hosts[host].disks.get_mut(&set) else { return };
        match data {
            Data::Request(_) | Data::Part { .. } => {}
            Data::Payload(payload) => drop(disk.payloads.remove(&payload)),
            Data::Buffer(op) => drop(disk.buffers.remove(&op)),
        }
    }

    fn begin_io(&mut self, host: usize, set: SetId, process: u64, op: OpId, kind: IoKind) {
        let now = self.queue.now();
        let fresh = self.disk_of(host, set, process).is_some_and(|d| d.ops.insert(op));
        self.expect(fresh, || format!("{set} at server{}: {op:?} is used twice", host + 1));
        let (low, high) = match kind {
            IoKind::Write { .. } | IoKind::Read { .. } | IoKind::Hash { .. } | IoKind::Load { .. } => IO,
            IoKind::Flush { .. } | IoKind::Control { .. } => FLUSH,
            IoKind::Open | IoKind::Close { .. } => ATTACH,
        };
        self.trace.noise(now, Column::Server(host), || format!("{set} {op:?}: {}", short_io(&kind)));
        let h = &self.hosts[host];
        let medium = !matches!(kind, IoKind::Open | IoKind::Close { .. });
        let factor = if medium && now < h.slow.1 { h.slow.0 } else { 1 };
        let (reads_only, until) = h.failing;
        let read = matches!(kind, IoKind::Read { into: Data::Request(_), .. });
        let fails = medium && now < until && (read || !reads_only) && self.rng.percent(70);
        let delay = self.rng.range(low, high) * factor;
        self.next_io += 1;
        let io = self.next_io;
        self.hosts[host].io.insert(io, Io { set, process, op, kind, fails });
        let boots = self.hosts[host].boots;
        self.queue.after(delay, Event::Io { host, boots, io });
    }

    /// The kernel completes an operation; the process learns of it when it runs.
    pub fn io_done(&mut self, host: usize, io: u64) {
        let now = self.queue.now();
        let Some(Io { set, process, op, kind, fails }) = self.hosts[host].io.remove(&io) else { return };
        let result =
            if fails { Err(LocalFault { errno: 5 }) } else { self.apply_io(host, set, process, op, kind) };
        self.check_disks();
        let frozen = self.hosts[host].frozen_until;
        if now < frozen {
            self.queue.at(frozen, Event::LocalDone { host, set, process, op, result });
        } else {
            self.local_done(host, set, process, op, result);
        }
    }

    /// A process takes the result of its operation.
    pub fn local_done(
        &mut self,
        host: usize,
        set: SetId,
        process: u64,
        op: OpId,
        result: Result<LocalResult, LocalFault>,
    ) {
        let Some(disk) = self.disk_of(host, set, process) else { return };
        if !disk.ops.remove(&op) {
            return;
        }
        // What was begun on a bad disk may end with its error after somebody has seen to it.
        let late = result.is_err() && self.queue.now() >= self.hosts[host].failing.1;
        self.mirror_input(host, set, Input::LocalDone { op, result });
        if late {
            self.restart_failed_disks(host);
        }
    }

    fn apply_io(
        &mut self,
        host: usize,
        set: SetId,
        process: u64,
        op: OpId,
        kind: IoKind,
    ) -> Result<LocalResult, LocalFault> {
        let Some(medium) = self.hosts[host].media.get_mut(&set) else { return Err(LocalFault { errno: 5 }) };
        match kind {
            IoKind::Write { sector, values } => medium.write(sector, &values),
            IoKind::Read { sector, sectors, into } => {
                let values: Values = medium.read(sector, sectors).into();
                let Some(disk) = self.disk_of(host, set, process) else { return Ok(LocalResult::Done) };
                match into {
                    Data::Request(request) => {
                        if let Some(request) = disk.requests.get_mut(&request) {
                            request.values = values;
                        }
                    }
                    Data::Buffer(_) => {
                        let zero = zero_bits(&values);
                        disk.buffers.insert(op, values);
                        return Ok(LocalResult::Read { zero });
                    }
                    Data::Payload(_) | Data::Part { .. } => {}
                }
            }
            IoKind::Hash { sector, sectors, keep } => {
                let hashes = medium.hashes(sector, sectors);
                let values: Values = medium.read(sector, sectors).into();
                if let Some(disk) = self.disk_of(host, set, process).filter(|_| keep) {
                    disk.buffers.insert(op, values);
                }
                return Ok(LocalResult::Hashes(hashes));
            }
            IoKind::Flush { mark } => medium.flush(mark),
            IoKind::Control { writes } => medium.store_control(&writes),
            IoKind::Load { offset, length } => {
                return Ok(LocalResult::Bytes(medium.load_control(offset, length as usize)));
            }
            IoKind::Open => {
                let Some(disk) = self.disk_of(host, set, process) else { return Ok(LocalResult::Done) };
                disk.front = true;
                self.front_opened(host, set);
            }
            IoKind::Close { abort } => {
                let used =
                    self.hosts[host].kernel.mounts.iter().any(|((_, s), p)| *s == set && *p == process);
                if used && !abort {
                    return Err(LocalFault { errno: 16 });
                }
                if let Some(disk) = self.disk_of(host, set, process) {
                    disk.front = false;
                }
            }
        }
        Ok(LocalResult::Done)
    }

    fn reply(&mut self, host: usize, set: SetId, request: RequestId, errno: i32) {
        let now = self.queue.now();
        let taken = self.hosts[host].disks.get_mut(&set).and_then(|d| d.requests.remove(&request));
        self.expect(taken.is_some(), || {
            format!("{set} at server{}: a second reply to {request:?}", host + 1)
        });
        let Some(taken) = taken else { return };
        self.trace.step(now, Column::Server(host), || format!("{set} reply {request:?} errno {errno}"));
        let group = self.group_of(set);
        if errno != 0 {
            if self.hosts[host].kernel.apps.get(&group).is_some_and(|a| a.life == taken.app) {
                self.break_app(host, group, "an error of its disk");
            }
            return;
        }
        self.check_served(host, set, &taken);
        let copies = self.copies_by_register(group, set, host);
        let Some(oracle) = self.oracles.get(&set) else { return };
        let checked = match taken.kind {
            RequestKind::Write { number, .. } | RequestKind::Zero { number, .. } => {
                oracle.borrow_mut().write_acknowledged(number, copies);
                Ok(())
            }
            RequestKind::Flush { begun } => {
                oracle.borrow_mut().flushed(begun);
                Ok(())
            }
            RequestKind::Read { begun, range } => {
                oracle.borrow().check_read(sectors(range).0, &taken.values, begun)
            }
        };
        if let Err(wrong) = checked {
            self.fail(3, format!("{set}: a read at server{} of {wrong:?}", host + 1));
        }
    }

    fn tell_node(&mut self, host: usize, set: SetId, process: u64, said: FromDisk) {
        let now = self.queue.now();
        let delay = self.rng.range(SOCKET.0, SOCKET.1);
        if let FromDisk::Done { ticket, result } = &said {
            self.trace.step(now, Column::Server(host), || format!("{set} done {}: {result:?}", ticket.0));
        }
        let Some(disk) = self.disk_of(host, set, process) else { return };
        let Some(node) = disk.node else { return };
        disk.socket_due[1] = disk.socket_due[1].max(now + delay);
        let at = disk.socket_due[1];
        self.queue.at(at, Event::FromDisk { host, node, set, disk: process, said: Box::new(said) });
    }

    /// An order of the node process goes down the socket.
    pub fn order_disk(&mut self, host: usize, set: SetId, order: ToDisk) {
        let now = self.queue.now();
        let delay = self.rng.range(SOCKET.0, SOCKET.1);
        if matches!(order.order, DiskOrder::Lease { .. }) {
            self.trace.noise(now, Column::Server(host), || {
                format!("order {set} {}: {:?}", order.ticket.0, order.order)
            });
        } else {
            self.trace.step(now, Column::Server(host), || {
                format!("order {set} {}: {:?}", order.ticket.0, order.order)
            });
        }
        let node = self.hosts[host].node.as_ref().map(|n| n.process);
        let Some(disk) = self.hosts[host].disks.get_mut(&set).filter(|d| d.node == node) else { return };
        disk.socket_due[0] = disk.socket_due[0].max(now + delay);
        let (at, process) = (disk.socket_due[0], disk.process);
        self.queue.at(at, Event::ToDisk { host, set, process, order: Box::new(order) });
    }

    /// An order arrives at a disk process.
    pub fn order_arrived(&mut self, host: usize, set: SetId, process: u64, order: ToDisk) {
        let Some(disk) = self.disk_of(host, set, process) else { return };
        let _ = disk;
        self.mirror_input(host, set, Input::Order(order));
    }

    fn lease_ended(&mut self, host: usize, set: SetId, process: u64) {
        self.trace.step(self.queue.now(), Column::Server(host), || format!("{set}: the lease has ended"));
        let Some(disk) = self.disk_of(host, set, process) else { return };
        disk.lease_ended = true;
        self.drop_addresses(host, set);
    }

    /// What is guarded of a set's group loses its addresses.
    pub fn drop_addresses(&mut self, host: usize, set: SetId) {
        let group = self.group_of(set);
        // The node process keeps the guard's list of addresses up to date (`DiskOrder::Guard`).
        self.hosts[host].kernel.addresses.retain(|(g, _), _| *g != group);
    }

    /// A set has fenced itself: the application is killed, the address dropped, the file system unmounted lazily.
    pub fn fence_host_side(&mut self, host: usize, set: SetId) {
        self.trace.step(self.queue.now(), Column::Server(host), || format!("{set}: fenced"));
        let group = self.group_of(set);
        let kernel = &mut self.hosts[host].kernel;
        kernel.apps.remove(&group);
        kernel.mounts.retain(|(_, s), _| *s != set);
        kernel.addresses.retain(|(g, _), _| *g != group);
        if let Some(disk) = self.hosts[host].disks.get_mut(&set) {
            disk.front = false;
        }
    }

    /// A block link opens at this end; an older one is replaced.
    pub fn link_opened(&mut self, host: usize, set: SetId, process: u64, conn: ConnId, end: usize) {
        let Some(disk) = self.disk_of(host, set, process) else { return };
        let old = disk.link.replace((conn, end));
        if let Some((conn, end)) = old {
            self.close(conn, end, true);
            self.mirror_input(host, set, Input::LinkLost);
        }
        self.trace.step(self.queue.now(), Column::Server(host), || format!("{set}: block link connected"));
        self.mirror_input(host, set, Input::LinkConnected { dialled: end == 0 });
    }
}

/// A frame's body for a line of the trace.
#[must_use]
#[allow(clippy::wildcard_enum_match_arm, reason = "short bodies print themselves")]
pub fn short(body: &Body) -> String {
    match body {
        Body::Hello(h) => format!(
            "Hello {{ holder {:?} active {} consistent {} alone {} dirty {} hot {} history {} }}",
            h.holder,
            h.active,
            h.consistent,
            h.alone,
            h.dirty,
            h.hot.len(),
            h.history.len()
        ),
        Body::Check { offset, hashes, .. } => format!("Check {{ offset {offset}, {} blocks }}", hashes.len()),
        Body::Map { page, bits, more } => format!("Map {{ page {page}, {} bytes, more {more} }}", bits.len()),
        Body::Checked { of, .. } => format!("Checked {{ of {of} }}"),
        Body::BuildDone { history } => format!("BuildDone {{ {} generations }}", history.len()),
        other => format!("{other:?}"),
    }
}

/// Which blocks are all zeroes.
fn zero_bits(values: &[u64]) -> Vec<u8> {
    let blocks: Vec<&[u64]> = values.chunks(crate::disk::BLOCK_SECTORS as usize).collect();
    let byte = |blocks: &[&[u64]]| {
        let zero = blocks.iter().map(|block| block.iter().all(|value| *value == 0));
        zero.enumerate().fold(0, |byte, (i, zero)| byte | u8::from(zero) << i)
    };
    blocks.chunks(8).map(byte).collect()
}

fn short_io(kind: &IoKind) -> String {
    match kind {
        IoKind::Write { sector, values } => format!("write sector {sector} +{}", values.len()),
        IoKind::Control { writes } => {
            format!("store control {:?}", writes.iter().map(|w| (w.0, w.1.len())).collect::<Vec<_>>())
        }
        IoKind::Read { sector, sectors, .. } => format!("read sector {sector} +{sectors}"),
        IoKind::Hash { sector, sectors, .. } => format!("hash sector {sector} +{sectors}"),
        IoKind::Load { offset, .. } => format!("load control {offset}"),
        IoKind::Flush { .. } => "flush".into(),
        IoKind::Open => "open front end".into(),
        IoKind::Close { abort } => format!("close front end, abort {abort}"),
    }
}
