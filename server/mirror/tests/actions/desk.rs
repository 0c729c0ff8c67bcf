//! One side of a mirror set, played by hand: inputs go in, actions come out as words.

use mirror::action::{Data, OpId};
use mirror::input::{LocalResult, PayloadId, Range, RequestId};
use mirror::layout::{self, Format, FreshArea};
use mirror::{Action, ControlArea, Faults, Input, Mirror, MirrorConfig, MirrorTiming};
use peer::block::{Body, Frame, Hello};
use peer::control::{DiskOrder, Done, FromDisk, Ticket, ToDisk};
use wire::traffic::WriteMode;
use wire::{Epoch, Generation, Incarnation, NodeId, Session, SetId, Time};

pub const SIZE: u64 = 64 << 20;
pub const G1: Generation = Generation([1; 16]);
pub const G2: Generation = Generation([2; 16]);

/// One side on a desk: inputs go in by hand, actions come out as words.
pub struct Desk {
    pub mirror: Mirror,
    pub size: u64,
    pub now: u64,
    /// Operations not yet answered, oldest first.
    pub ops: Vec<OpId>,
    pub sequence: u64,
    /// Sequences of the frames that want an answer, oldest first.
    pub asked: Vec<u64>,
    /// Nonce and grant of the last keep-alive sent.
    pub alive: Option<(u64, Option<u64>)>,
    pub session: Session,
    pub epoch: Epoch,
    pub ticket: u64,
}

impl Desk {
    pub fn new(faults: Faults) -> Desk {
        Desk::of_size(SIZE, faults)
    }

    pub fn of_size(size: u64, faults: Faults) -> Desk {
        Desk::made(size, WriteMode::Synchronous, faults)
    }

    pub fn with(mode: WriteMode) -> Desk {
        Desk::made(SIZE, mode, Faults::default())
    }

    pub fn made(size: u64, mode: WriteMode, faults: Faults) -> Desk {
        let format = Format { cluster: [1; 16], set: SetId(1), side: NodeId(1), size };
        let area = ControlArea::read(&layout::format(format).unwrap()).unwrap();
        Desk::over(area, size, mode, faults)
    }

    /// A whole copy of this generation, with a store of so many bytes.
    pub fn with_store(bytes: u64, generation: Generation, faults: Faults) -> Desk {
        let format = Format { cluster: [1; 16], set: SetId(1), side: NodeId(1), size: SIZE };
        let mut fresh = FreshArea::new(format).unwrap().with_store(bytes);
        let sb = fresh.superblock_mut();
        (sb.consistent, sb.history) = (true, vec![generation]);
        let area = ControlArea::read(&fresh.bytes().unwrap()).unwrap();
        Desk::over(area, SIZE, WriteMode::Synchronous, faults)
    }

    fn over(area: ControlArea, size: u64, mode: WriteMode, faults: Faults) -> Desk {
        let config = MirrorConfig {
            cluster: [1; 16],
            set: SetId(1),
            side: NodeId(1),
            incarnation: Incarnation([1; 16]),
            timing: MirrorTiming { mode, ..MirrorTiming::default() },
            hot_max: peer::block::HOT_MAX,
            faults,
        };
        let mirror = Mirror::new(config, area, Time(0));
        Desk {
            mirror,
            size,
            now: 0,
            ops: Vec::new(),
            sequence: 0,
            asked: Vec::new(),
            alive: None,
            session: Session(0),
            epoch: Epoch(0),
            ticket: 0,
        }
    }

    /// Applies an input; gives what is to be done, without statuses and keep-alives.
    pub fn input(&mut self, input: Input) -> Vec<String> {
        self.now += 1;
        self.mirror.handle(input, Time(self.now));
        let actions = self.mirror.take_actions();
        actions.into_iter().filter_map(|action| self.word(action)).collect()
    }

    pub fn word(&mut self, action: Action) -> Option<String> {
        let mut op = |op: OpId| self.ops.push(op);
        Some(match action {
            Action::WriteLocal { op: id, range, data } => {
                op(id);
                format!("write {} {} from {}", range.offset, range.length, data_word(data))
            }
            Action::ZeroLocal { op: id, range, unmap } => {
                op(id);
                format!("zero {} {}{}", range.offset, range.length, if unmap { " unmap" } else { "" })
            }
            Action::ReadLocal { op: id, range, into } => {
                op(id);
                format!("read {} {} into {}", range.offset, range.length, data_word(into))
            }
            Action::HashLocal { op: id, range, .. } => {
                op(id);
                format!("hash {} {}", range.offset, range.length)
            }
            Action::FlushLocal { op: id } => {
                op(id);
                "flush".into()
            }
            Action::GatherLocal { op: id, ranges } => {
                op(id);
                format!("gather {}", ranges.len())
            }
            Action::WriteControl { op: id, write } => {
                op(id);
                format!("head {}", write.offset)
            }
            Action::StoreControl { op: id, writes } => {
                op(id);
                let parts = writes.iter().map(|write| match write.offset {
                    0..8192 => "superblock",
                    8192..524_288 => "log",
                    _ => "page",
                });
                format!("store {}", parts.collect::<Vec<_>>().join(" "))
            }
            Action::LoadControl { op: id, offset, length } => {
                op(id);
                format!("load {offset} {length}")
            }
            Action::Send { frame: Frame { body: Body::Alive { nonce, grant }, .. }, .. } => {
                self.alive = Some((nonce, grant));
                return None;
            }
            Action::Send { frame, data } => {
                if matches!(
                    frame.body,
                    Body::Write { .. }
                        | Body::Zero { .. }
                        | Body::Flush
                        | Body::Copy { .. }
                        | Body::Check { .. }
                        | Body::Read { .. }
                ) {
                    self.asked.push(frame.sequence);
                }
                let name = format!("{:?}", frame.body);
                let name: String = name.chars().take_while(char::is_ascii_alphanumeric).collect();
                match data {
                    Some(data) => format!("send {name} of {}", data_word(data)),
                    None => format!("send {name}"),
                }
            }
            Action::Release { data } => format!("release {}", data_word(data)),
            Action::Fill { request, payload } => format!("fill {} of payload {}", request.0, payload.0),
            Action::Reply { request, errno } => format!("reply {} {errno}", request.0),
            Action::CloseLink { reason } => format!("close {reason:?}"),
            Action::OpenFrontEnd { op: id } => {
                op(id);
                "open".into()
            }
            Action::CloseFrontEnd { op: id, .. } => {
                op(id);
                "close front end".into()
            }
            Action::LeaseEnded => "lease ended".into(),
            Action::LeaseRuns => "lease runs".into(),
            Action::Fenced => "fenced".into(),
            Action::Tell(FromDisk::Status(_)) => return None,
            Action::Tell(FromDisk::Done { result, .. }) => match result {
                Ok(_) => "done".into(),
                Err(fault) => format!("refused {fault:?}"),
            },
            Action::Exit => "exit".into(),
        })
    }

    pub fn local(&mut self) -> Vec<String> {
        let op = self.ops.remove(0);
        self.input(Input::LocalDone { op, result: Ok(LocalResult::Done) })
    }

    pub fn order(&mut self, order: DiskOrder) -> Vec<String> {
        self.ticket += 1;
        self.input(Input::Order(ToDisk { ticket: Ticket(self.ticket), order }))
    }

    pub fn twin(&mut self, body: Body) -> Vec<String> {
        self.twin_with(body, None)
    }

    pub fn twin_with(&mut self, body: Body, payload: Option<PayloadId>) -> Vec<String> {
        self.sequence += 1;
        let frame = Frame { epoch: self.epoch, session: self.session, sequence: self.sequence, body };
        self.input(Input::Received { frame, payload })
    }

    pub fn written(&mut self) -> Vec<String> {
        let of = self.of();
        self.twin(Body::Written { of })
    }

    pub fn flushed(&mut self) -> Vec<String> {
        let of = self.of();
        self.twin(Body::Flushed { of })
    }

    pub fn copied(&mut self) -> Vec<String> {
        let of = self.of();
        self.twin(Body::Copied { of })
    }

    pub fn write(&mut self, request: u64, offset: u64, length: u32) -> Vec<String> {
        self.input(Input::Write { request: RequestId(request), range: Range { offset, length } })
    }

    /// Active in epoch 1, alone, with the first generation and an unlimited lease.
    pub fn active_alone(size: u64, faults: Faults) -> Desk {
        Desk::of_size(size, faults).activated()
    }

    fn activated(self) -> Desk {
        let mut desk = self;
        let order = DiskOrder::Activate { epoch: Epoch(1), alone: true, generation: G1 };
        assert_eq!(desk.order(order), ["flush"]);
        assert_eq!(desk.local(), ["store superblock"]);
        assert_eq!(desk.local(), ["open"]);
        assert_eq!(desk.local(), ["done"]);
        let lease = DiskOrder::Lease { until: None, fence_after_us: 0 };
        assert_eq!(desk.order(lease), ["lease runs", "done"]);
        desk
    }

    /// A session with a twin that says this.
    pub fn meet(&mut self, history: &[Generation], consistent: bool) -> Vec<String> {
        self.sequence = 0;
        assert_eq!(self.input(Input::LinkConnected { dialled: true }), ["send Hello"]);
        let hello = Hello {
            cluster: [1; 16],
            set: SetId(1),
            side: NodeId(2),
            size: self.size,
            incarnation: Incarnation([2; 16]),
            holder: None,
            active: false,
            twin_session: Session(0),
            history: history.to_vec(),
            base: history.first().copied(),
            consistent,
            alone: false,
            dirty: 0,
            hot: Vec::new(),
            undone: false,
            room: None,
        };
        let mine = self.mirror.status().session;
        let stood = if history.is_empty() { Session(0) } else { mine };
        (self.epoch, self.session) = (Epoch(0), stood);
        assert_eq!(self.twin(Body::Hello(Box::new(hello))), ["store superblock"]);
        (self.epoch, self.session) = (Epoch(1), Session(mine.0 + 1));
        assert_eq!(self.local(), ["send SessionStored"]);
        let said = self.twin(Body::SessionStored);
        assert_eq!(said[0], "store superblock");
        let mut rest = said[1..].to_vec();
        rest.extend(self.local());
        rest
    }

    /// As standby: a session with an active twin of epoch 3 that has this history.
    pub fn meet_active(&mut self, history: Vec<Generation>) {
        assert_eq!(self.hear_active(history), ["flush"]);
        assert_eq!(self.local(), ["store superblock"]);
        assert_eq!(self.local(), ["send SessionStored"]);
        self.session = Session(self.session.0 + 1);
        self.twin(Body::SessionStored);
        self.local();
        let status = self.mirror.status();
        assert_eq!((status.epoch, status.session), (Epoch(3), self.session));
    }

    /// As standby: a connection on which an active twin of epoch 3 says this history.
    pub fn hear_active(&mut self, history: Vec<Generation>) -> Vec<String> {
        self.sequence = 0;
        self.input(Input::LinkConnected { dialled: false });
        let hello = Hello {
            cluster: [1; 16],
            set: SetId(1),
            side: NodeId(2),
            size: self.size,
            incarnation: Incarnation([2; 16]),
            holder: Some(NodeId(2)),
            active: true,
            twin_session: self.mirror.status().session,
            base: history.first().copied(),
            history,
            consistent: true,
            alone: true,
            dirty: 5,
            hot: vec![1],
            undone: false,
            room: None,
        };
        (self.epoch, self.session) = (Epoch(3), Session(self.session.0.max(4)));
        self.twin(Body::Hello(Box::new(hello)))
    }

    /// Forbids grants; gives when the last one was sent.
    pub fn stop_grants(&mut self) -> Option<Time> {
        self.ticket += 1;
        self.now += 1;
        let order = ToDisk { ticket: Ticket(self.ticket), order: DiskOrder::Grant { allowed: false } };
        self.mirror.handle(Input::Order(order), Time(self.now));
        self.mirror.take_actions().into_iter().find_map(|action| match action {
            Action::Tell(FromDisk::Done { result: Ok(Done::GrantStopped { last }), .. }) => last,
            _ => None,
        })
    }

    /// The oldest frame that wants an answer.
    pub fn of(&mut self) -> u64 {
        self.asked.remove(0)
    }
}

fn data_word(data: Data) -> String {
    match data {
        Data::Request(request) => format!("request {}", request.0),
        Data::Payload(payload) => format!("payload {}", payload.0),
        Data::Buffer(_) => "buffer".into(),
        Data::Part { from, .. } => format!("buffer from {from}"),
    }
}

/// In sync: the first build is gone through by hand, with one page of the map in use.
pub fn in_sync(faults: Faults) -> Desk {
    built(Desk::active_alone(SIZE, faults))
}

/// The same in another way to acknowledge.
pub fn in_sync_with(mode: WriteMode) -> Desk {
    built(Desk::with(mode).activated())
}

fn built(mut desk: Desk) -> Desk {
    assert_eq!(desk.meet(&[], true), [""; 0]);
    // Full build: pages, base, mark, then all runs.
    assert_eq!(desk.order(DiskOrder::AllowRebuild { allowed: true }), ["done", "store page"]);
    assert_eq!(desk.local(), ["store superblock"]);
    assert_eq!(desk.local(), ["send BuildBegin"]);
    let mut actions = desk.twin(Body::BuildReady);
    assert_eq!(actions.len(), 16, "as many runs at once as there is room for their bytes: {actions:?}");
    let mut round = 0;
    for _ in 0..10_000 {
        if desk.mirror.status().equal {
            break;
        }
        let mut next = Vec::new();
        for word in actions {
            if word.starts_with("hash") {
                let op = desk.ops.remove(0);
                let hashes = vec![[7; 16]; 64];
                next.extend(desk.input(Input::LocalDone { op, result: Ok(LocalResult::Hashes(hashes)) }));
            } else if word == "send Check" {
                let of = desk.of();
                next.extend(desk.twin(Body::Checked { of, different: vec![0; 8] }));
            } else if word == "send Flush" {
                let of = desk.of();
                round += 1;
                next.extend(desk.twin(Body::Flushed { of }));
            } else if word == "flush" {
                next.extend(desk.local());
            } else if word == "release buffer" {
                // Equal: nothing of it is sent.
            } else {
                panic!("unexpected: {word}");
            }
        }
        actions = next;
    }
    assert!(desk.mirror.status().equal && round >= 1);
    // Re-admission.
    assert_eq!(desk.order(DiskOrder::Readmit), ["send Flush", "flush"]);
    assert_eq!(desk.flushed(), [""; 0]);
    let stored = desk.local();
    assert!(stored[0].starts_with("store"), "{stored:?}");
    assert_eq!(desk.local(), ["send BuildDone"]);
    assert_eq!(desk.twin(Body::BuildStored), ["store superblock"]);
    assert_eq!(desk.local(), ["done"]);
    let status = desk.mirror.status();
    assert!(status.needs_twin && status.equal && status.rebuild.is_none());
    let result = status.last_rebuild.unwrap();
    assert_eq!((result.moved_bytes, result.compared_bytes), (0, SIZE));
    desk
}
