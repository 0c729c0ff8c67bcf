//! The loop: wait, take what has happened, hand it to the core, perform what it wants.

use crate::backing::{Backing, Bytes, Durable, zero_bits};
use crate::control::Control;
use crate::device::Worker;
use crate::front::{FrontEnd as _, Numbers, Taken};
use crate::fuse::Front;
use crate::gather::Gathering;
use crate::guard::{Guard, Guarded};
use crate::inbox::{Inbox, Outcome};
use crate::keeper::client::Keeping;
use crate::limits::{REQUESTS_PER_TURN, SEGMENT_BYTES, SPIN};
use crate::link::bundle::{Bundle, LaneFault};
use crate::link::connect::Connector;
use crate::link::handshake::Line;
use crate::link::stream::{Step, Stream};
use crate::nbd::Nbd;
use crate::options::DiskOptions;
use crate::pools::Pools;
use crate::ring::memory::{Buffer, Spare};
use crate::ring::{Completion, Ring};
use crate::run::give_back;
use crate::spin::Spin;
use crate::tls::Tls;
use crate::token::{DiskJob, Token};
use crate::zero::Zeroing;
use mirror::Mirror;
use mirror::action::{ControlWrite, Data, OpId};
use mirror::input::{Input, LocalFault, LocalResult, PayloadId};
use os::clock::{BootClock, Clock as _};
use peer::control::{DiskOrder, Ticket, ToDisk};
use std::collections::{BTreeMap, VecDeque};
use std::net::TcpStream;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Ticket of the orders this process gives itself; their results go to nobody.
pub(crate) const OWN: Ticket = Ticket(u64::MAX);
/// Frames taken from the link before what they caused is submitted.
const FRAMES_PER_TURN: usize = 256;
/// How soon a control socket that was full is tried again.
const CONTROL_AGAIN: Duration = Duration::from_millis(5);

/// What the loop is made of.
pub(crate) struct Parts {
    pub ring: Ring<Token>,
    pub core: Mirror,
    pub pools: Pools,
    /// Buffers of a rebuild.
    pub spare: Spare,
    pub backing: Box<dyn Backing>,
    pub guard: Guard,
    pub keeping: Keeping,
    pub worker: Worker,
    pub control: Control,
    pub connector: Connector,
    pub inbox: Inbox,
    pub nbd: Option<Nbd>,
    pub signals: OwnedFd,
}

/// Control-area writes of one order of the core.
pub(crate) struct ControlJob {
    pub op: OpId,
    pub writes: VecDeque<ControlWrite>,
    pub failed: Option<LocalFault>,
}

/// The loop's state.
pub(crate) struct Loop {
    pub(crate) parts: Parts,
    size: u64,
    /// Where the data begins on the backing.
    pub(crate) data_at: u64,
    /// Inputs that performing an action gave.
    pub(crate) inputs: VecDeque<Input>,
    pub(crate) front: Option<Front>,
    fronts: u32,
    /// Numbers of requests given so far.
    pub(crate) numbers: Numbers,
    /// The set has a block device.
    pub(crate) with_device: bool,
    /// The export is being withdrawn for this operation, at most until then.
    pub(crate) withdrawing: Option<(OpId, Instant)>,
    front_waits: bool,
    pub(crate) stream: Option<Bundle>,
    streams: u32,
    /// Bytes sent on earlier connections.
    pub(crate) sent_before: u64,
    nodes: u32,
    control_full: bool,
    next_payload: u64,
    pub(crate) payloads: BTreeMap<PayloadId, Arc<Buffer>>,
    pub(crate) buffers: BTreeMap<OpId, Arc<Buffer>>,
    pub(crate) control_jobs: VecDeque<ControlJob>,
    pub(crate) gathering: BTreeMap<OpId, Gathering>,
    /// Buffers of what is gathered.
    pub(crate) segments: Spare,
    pub(crate) device: Option<PathBuf>,
    pub(crate) zeroing: Zeroing,
    pub(crate) exit: bool,
    spin: Spin,
}

impl Loop {
    pub(crate) fn new(parts: Parts, size: u64, data_at: u64, with_device: bool) -> Self {
        Loop {
            parts,
            size,
            data_at,
            inputs: VecDeque::new(),
            front: None,
            fronts: 0,
            numbers: Numbers(0),
            with_device,
            withdrawing: None,
            front_waits: false,
            stream: None,
            streams: 0,
            sent_before: 0,
            nodes: 0,
            control_full: false,
            next_payload: 1,
            payloads: BTreeMap::new(),
            buffers: BTreeMap::new(),
            control_jobs: VecDeque::new(),
            gathering: BTreeMap::new(),
            segments: Spare::new(SEGMENT_BYTES),
            device: None,
            zeroing: Zeroing::default(),
            exit: false,
            spin: Spin::default(),
        }
    }

    /// Goes on with a device that a dead process served: what it did not answer comes again.
    ///
    /// # Errors
    /// The connection has ended meanwhile.
    pub(crate) fn take_over(
        &mut self,
        descriptor: OwnedFd,
        device: PathBuf,
    ) -> Result<(), rustix::io::Errno> {
        self.fronts += 1;
        let front = Front::over(descriptor, self.fronts, self.size)?;
        self.parts.ring.poll(Token::Front(self.fronts), front.descriptor());
        (self.front, self.front_waits, self.device) = (Some(front), true, Some(device));
        // Its clients were cut off with the dead process and come again.
        if let Some(nbd) = &mut self.parts.nbd
            && let Err(error) = nbd.open(&mut self.parts.ring)
        {
            tracing::warn!(%error, "the export of a dead process cannot be offered again: the device goes on alone");
        }
        Ok(())
    }

    /// Everything is set up: the keeper takes it from here.
    pub(crate) fn begin(&mut self) {
        self.parts.keeping.note(self.parts.core.kept());
        self.parts.keeping.begin();
    }

    /// The process ends in order: nobody is to follow it.
    pub(crate) fn end(&self, options: &DiskOptions) {
        self.parts.keeping.end(options);
    }

    /// Turns until the core wants the process to end.
    ///
    /// # Errors
    /// The ring broke.
    pub(crate) fn turn_until_exit(&mut self) -> anyhow::Result<()> {
        let ring = &mut self.parts.ring;
        ring.poll(Token::Inbox, self.parts.inbox.descriptor());
        ring.poll(Token::Signal, self.parts.signals.as_fd());
        ring.poll(Token::Listener, self.parts.control.listener());
        self.perform_all();
        while !self.exit {
            let limit = self.limit();
            let spin = if self.spin.pays() { SPIN } else { Duration::ZERO };
            let waited = self.parts.ring.wait(limit, spin)?;
            self.spin.learn(waited, SPIN);
            while let Some(completion) = self.parts.ring.next() {
                self.complete(completion);
            }
            // The link first: its answers free the slots that the front end may be waiting for, and what came in while this
            // process did not run is no silence.
            self.serve_stream();
            let now = BootClock.now();
            if self.parts.core.next_deadline().is_some_and(|deadline| deadline <= now) {
                self.feed(Input::DeadlineReached);
            }
            self.serve_front();
            self.serve_export();
            if let Some(stream) = &mut self.stream {
                stream.pump(&mut self.parts.ring);
            }
            self.control_full = self.parts.control.flush();
            self.parts.guard.lease(self.parts.core.lease());
        }
        // What was told last must still reach the node process, and a fence must be complete.
        let _ = self.parts.control.flush();
        self.parts.guard.finish();
        Ok(())
    }

    fn limit(&self) -> Option<Duration> {
        let now = BootClock.now();
        let deadline =
            self.parts.core.next_deadline().map(|deadline| Duration::from_micros(deadline.since(now)));
        let control = self.control_full.then_some(CONTROL_AGAIN);
        let lanes = self.stream.as_ref().and_then(Bundle::wait);
        let export = self.withdrawing.map(|(_, end)| end).into_iter();
        let export = export.chain(self.parts.nbd.as_ref().and_then(Nbd::due)).min();
        let export = export.map(|end| end.saturating_duration_since(Instant::now()));
        deadline.into_iter().chain(control).chain(lanes).chain(export).min()
    }

    /// Hands an input to the core and performs what follows, until nothing does.
    pub(crate) fn feed(&mut self, input: Input) {
        self.inputs.push_back(input);
        self.drain_inputs();
    }

    pub(crate) fn drain_inputs(&mut self) {
        while let Some(input) = self.inputs.pop_front() {
            self.parts.core.handle(input, BootClock.now());
            self.perform_all();
        }
    }

    fn perform_all(&mut self) {
        self.parts.keeping.note(self.parts.core.kept());
        for action in self.parts.core.take_actions() {
            self.perform(action);
        }
    }

    fn complete(&mut self, completion: Completion<Token>) {
        let Completion { token, result, buffer } = completion;
        match token {
            Token::Disk(job) => self.disk_done(job, result, buffer),
            Token::Front(serial) => self.front_ready(serial, result.is_err()),
            Token::Send(serial) => self.sent(serial, result),
            Token::Receive(serial) => self.received(serial, result, buffer),
            Token::NbdListener { term, index } => {
                if let Some(nbd) = &mut self.parts.nbd {
                    nbd.knocked(term, index, result.is_err(), &mut self.parts.ring);
                }
            }
            Token::NbdSend(serial) => {
                self.parts.nbd.iter_mut().for_each(|nbd| nbd.sent(serial, result));
            }
            Token::NbdReceive(serial) => {
                if let Some(nbd) = &mut self.parts.nbd {
                    nbd.received(serial, result, buffer);
                }
            }
            Token::Inbox => {
                if result.is_err() {
                    self.parts.ring.poll(Token::Inbox, self.parts.inbox.descriptor());
                }
                for outcome in self.parts.inbox.take() {
                    self.outcome(outcome);
                }
            }
            Token::Signal => {
                tracing::info!("asked to end by SIGTERM");
                let _ = rustix::io::read(&self.parts.signals, &mut [0_u8; 128]);
                self.feed(Input::Order(ToDisk { ticket: OWN, order: DiskOrder::Quit }));
            }
            Token::Listener => {
                if result.is_err() {
                    self.parts.ring.poll(Token::Listener, self.parts.control.listener());
                }
                self.node_connects();
            }
            Token::Node(serial) => self.node_speaks(serial, result.is_err()),
        }
    }

    fn outcome(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::Linked { stream, dialled, line, tls } => self.linked(stream, dialled, line, tls),
            Outcome::FrontMounted { descriptor } => {
                self.fronts += 1;
                let front = Front::new(descriptor, self.fronts, self.size);
                self.parts.ring.poll(Token::Front(self.fronts), front.descriptor());
                self.front = Some(front);
                self.front_waits = true;
            }
            Outcome::FrontOpened { op, result } => {
                self.device = result.as_ref().ok().map(|opened| opened.path.clone());
                give_back();
                if result.is_err() {
                    self.front = None;
                    self.end_export();
                }
                self.feed(Input::LocalDone { op, result: result.map(|_| LocalResult::Done) });
            }
            Outcome::FrontClosed { op, result } => {
                match result {
                    Ok(()) => {
                        self.device = None;
                        self.front = None;
                        self.device_closed(op);
                    }
                    Err(fault) => self.inputs.push_back(Input::LocalDone { op, result: Err(fault) }),
                }
                self.drain_inputs();
            }
            Outcome::NbdEntered(entered) => {
                if let Some(nbd) = &mut self.parts.nbd {
                    nbd.entered(entered);
                }
            }
            Outcome::Disk { job, result, buffer } => self.disk_done(job, result, buffer),
            Outcome::Hashed { op, result, buffer } => {
                if let Some(buffer) = buffer {
                    self.buffers.insert(op, Arc::new(buffer));
                }
                self.feed(Input::LocalDone { op, result });
            }
        }
    }

    // ---- the local disk

    fn disk_done(&mut self, job: DiskJob, result: Result<usize, i32>, buffer: Option<Buffer>) {
        let whole = |wanted: usize| match result {
            Ok(found) if found == wanted => Ok(LocalResult::Done),
            Ok(_) => Err(LocalFault { errno: libc::EIO }),
            Err(errno) => Err(LocalFault { errno }),
        };
        match job {
            DiskJob::Write { op, length } => self.feed(Input::LocalDone { op, result: whole(length) }),
            DiskJob::Zero(job) => self.zeroed(job, result),
            DiskJob::Flush { op } => {
                let result = result.map(|_| LocalResult::Done).map_err(|errno| LocalFault { errno });
                self.feed(Input::LocalDone { op, result });
            }
            DiskJob::Read { op, length, into } => {
                let mut result = whole(length);
                if let (Ok(found), Some(buffer)) = (&mut result, buffer) {
                    if matches!(into, Data::Buffer(_)) {
                        *found = LocalResult::Read { zero: zero_bits(buffer.first(length)) };
                    }
                    self.keep_read(into, buffer);
                }
                self.feed(Input::LocalDone { op, result });
            }
            DiskJob::Gather { op, from, length } => self.gathered((op, from, length), result, buffer),
            DiskJob::Load { op, length } => {
                let bytes = buffer.map(|buffer| buffer.first(length).to_vec()).unwrap_or_default();
                let result = whole(length).map(|_| LocalResult::Bytes(bytes));
                self.feed(Input::LocalDone { op, result });
            }
            DiskJob::ControlWrite { length } => {
                self.control_step(whole(length).err(), false);
            }
            DiskJob::ControlFlush => {
                self.control_step(result.err().map(|errno| LocalFault { errno }), true);
            }
        }
    }

    fn keep_read(&mut self, into: Data, buffer: Buffer) {
        match into {
            Data::Request(request) => {
                if let Some(front) = self.owner(request) {
                    front.filled(request, Arc::new(buffer));
                }
            }
            Data::Buffer(op) => drop(self.buffers.insert(op, Arc::new(buffer))),
            Data::Payload(_) | Data::Part { .. } => {}
        }
    }

    /// One step of the oldest control job is done: the next write, the flush, or its answer.
    fn control_step(&mut self, fault: Option<LocalFault>, flushed: bool) {
        if let Some(job) = self.control_jobs.front_mut() {
            job.failed = job.failed.or(fault);
        }
        if !flushed && self.control_jobs.front().is_some_and(|job| job.failed.is_none()) {
            self.control_next();
            return;
        }
        let Some(job) = self.control_jobs.pop_front() else { return };
        self.control_next();
        let result = job.failed.map_or(Ok(LocalResult::Done), Err);
        self.feed(Input::LocalDone { op: job.op, result });
    }

    /// Begins the next write of the oldest control job, or its flush.
    pub(crate) fn control_next(&mut self) {
        let Some(job) = self.control_jobs.front_mut() else { return };
        let Some(ControlWrite { offset, bytes }) = job.writes.pop_front() else {
            self.parts.backing.flush(&mut self.parts.ring, DiskJob::ControlFlush, Durable::Control);
            return;
        };
        let length = bytes.len();
        match Buffer::new(length) {
            Some(mut buffer) => {
                if let Some(place) = buffer.bytes_mut().get_mut(..length) {
                    place.copy_from_slice(&bytes);
                }
                let job = DiskJob::ControlWrite { length };
                let data = Bytes::first(Arc::new(buffer), length);
                self.parts.backing.write(&mut self.parts.ring, job, offset, data);
            }
            None => {
                let op = job.op;
                self.control_jobs.pop_front();
                let result = Err(LocalFault { errno: libc::ENOMEM });
                self.inputs.push_back(Input::LocalDone { op, result });
            }
        }
    }

    // ---- the front end

    fn front_ready(&mut self, serial: u32, ended: bool) {
        if let Some(front) = self.front.as_ref().filter(|front| front.serial() == serial) {
            if ended {
                self.parts.ring.poll(Token::Front(serial), front.descriptor());
            }
            self.front_waits = true;
        }
    }

    /// Takes requests until there are none, no slot is free, or enough for one turn.
    fn serve_front(&mut self) {
        for _ in 0..REQUESTS_PER_TURN {
            let Some(front) = self.front.as_mut().filter(|_| self.front_waits) else { return };
            let taken = front.take(&mut self.numbers, &self.parts.pools);
            match taken {
                Taken::Wanted(wanted) => {
                    self.feed(wanted.into());
                }
                Taken::Served => {}
                Taken::Empty => self.front_waits = false,
                // Slots come back with completions, each of which brings the loop here again.
                Taken::Stalled => return,
                Taken::Ended => {
                    tracing::info!("the front end's connection has ended");
                    self.front = None;
                    self.front_waits = false;
                }
            }
        }
        // More may wait: look again without sleeping.
        self.parts.ring.nothing(Token::Front(self.fronts));
    }

    /// Takes requests of the export's clients as of the kernel, then sends and receives on.
    fn serve_export(&mut self) {
        for count in 0..=REQUESTS_PER_TURN {
            if count == REQUESTS_PER_TURN {
                // More may wait: look again without sleeping.
                self.parts.ring.nothing(Token::Front(0));
                break;
            }
            let Some(nbd) = &mut self.parts.nbd else { return };
            match nbd.take(&mut self.numbers, &self.parts.pools) {
                Taken::Wanted(wanted) => {
                    self.feed(wanted.into());
                }
                Taken::Served => {}
                Taken::Empty | Taken::Stalled | Taken::Ended => break,
            }
        }
        if let Some(nbd) = &mut self.parts.nbd {
            nbd.pump(&mut self.parts.ring);
        }
        self.withdraw_export();
    }

    // ---- the block link

    fn linked(&mut self, stream: TcpStream, dialled: bool, line: Line, tls: Option<Tls>) {
        let address = stream.local_addr().ok().map(|address| address.ip());
        self.streams += 1;
        let stream = Stream::new(stream.into(), self.streams);
        let stream = match tls {
            Some(tls) => stream.and_then(|stream| stream.secured(tls)),
            None => stream,
        };
        let Some(stream) = stream else {
            tracing::warn!("no memory for a connection of the block link");
            if self.stream.is_none() {
                self.parts.connector.again();
            }
            return;
        };
        let lane = usize::from(line.lane);
        if line.joins {
            match self.stream.as_mut().filter(|bundle| bundle.number() == line.bundle) {
                Some(bundle) => bundle.join(lane, stream, address),
                // Of a link that has ended meanwhile.
                None => stream.close(),
            }
            self.want_lanes();
            return;
        }
        give_back();
        if self.stream.is_some() {
            // The twin has given the old connection up before this side noticed.
            self.drop_stream();
            self.feed(Input::LinkLost);
        }
        tracing::debug!(dialled, line.encrypt, line.pack, "block link connected");
        let how = (line.lanes > 1, line.pack);
        self.stream = Some(Bundle::new(line.bundle, lane, stream, address, how));
        self.want_lanes();
        self.feed(Input::LinkConnected { dialled });
    }

    /// Asks for the connections that the link lacks, if this side dials.
    fn want_lanes(&self) {
        if let Some(bundle) = &self.stream {
            let connector = &self.parts.connector;
            connector.lacks(bundle.number(), bundle.missing(connector.lanes()));
        }
    }

    /// Forgets the connection and what was queued for it.
    pub(crate) fn drop_stream(&mut self) {
        if let Some(stream) = self.stream.take() {
            stream.close();
            self.sent_before += stream.sent();
        }
    }

    /// One connection of the link is gone; with the last one the link is.
    fn lose_lane(&mut self, serial: u32) {
        let Some(bundle) = &mut self.stream else { return };
        if bundle.lose(serial) {
            tracing::info!("one connection of the block link is gone: the other carries it");
            self.want_lanes();
        } else {
            self.drop_stream();
            self.parts.connector.again();
            self.feed(Input::LinkLost);
        }
    }

    fn sent(&mut self, serial: u32, result: Result<usize, i32>) {
        let Some(bundle) = &mut self.stream else { return };
        if !bundle.sent_done(serial, result) {
            self.lose_lane(serial);
        }
    }

    fn received(&mut self, serial: u32, result: Result<usize, i32>, buffer: Option<Buffer>) {
        let Some(bundle) = &mut self.stream else { return };
        if !bundle.received_done(serial, result, buffer) {
            self.lose_lane(serial);
        }
    }

    /// Takes frames.
    fn serve_stream(&mut self) {
        for count in 0.. {
            let Some(bundle) = self.stream.as_mut() else { return };
            if count >= FRAMES_PER_TURN {
                self.parts.ring.nothing(Token::Front(0));
                break;
            }
            match bundle.step(&self.parts.pools, &mut self.parts.ring) {
                Ok(Step::Frame(frame, payload)) => {
                    let payload = payload.map(|buffer| {
                        let id = PayloadId(self.next_payload);
                        self.next_payload += 1;
                        self.payloads.insert(id, Arc::new(buffer));
                        id
                    });
                    self.feed(Input::Received { frame, payload });
                }
                Ok(Step::Hungry | Step::Stalled) => break,
                Err(LaneFault { serial, fault }) => {
                    tracing::warn!(error = %fault, "the block link carries something else than frames: closed");
                    self.lose_lane(serial);
                }
            }
        }
        if self.stream.as_mut().is_some_and(Bundle::hears) {
            self.feed(Input::LinkHeard);
        }
        if let Some(serial) = self.stream.as_ref().and_then(Bundle::silent) {
            self.lose_lane(serial);
        }
    }

    // ---- the node process

    fn node_connects(&mut self) {
        let before = self.parts.control.stream().is_some();
        if !self.parts.control.accept() {
            return;
        }
        if before {
            self.feed(Input::NodePresent(false));
        }
        self.nodes += 1;
        if let Some(stream) = self.parts.control.stream() {
            self.parts.ring.poll(Token::Node(self.nodes), stream);
        }
        self.parts.guard.node(true);
        self.feed(Input::NodePresent(true));
    }

    fn node_speaks(&mut self, serial: u32, ended: bool) {
        if serial != self.nodes {
            return;
        }
        let (orders, alive) = self.parts.control.read();
        for order in orders {
            if let DiskOrder::Guard { addresses, processes, mounts } = &order.order {
                let guarded = Guarded {
                    addresses: addresses.clone(),
                    processes: processes.clone(),
                    mounts: mounts.iter().map(PathBuf::from).collect(),
                };
                self.parts.keeping.guarded(&guarded);
                self.parts.guard.set(guarded);
            }
            self.feed(Input::Order(order));
        }
        if !alive {
            self.nodes += 1;
            self.parts.guard.node(false);
            self.feed(Input::NodePresent(false));
        } else if ended && let Some(stream) = self.parts.control.stream() {
            self.parts.ring.poll(Token::Node(serial), stream);
        }
    }
}
