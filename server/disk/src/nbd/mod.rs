//! The NBD export: an active set served to virtual machines and tools over a unix socket and TCP, beside the block device.
//!
//! There only while the set is active; gone with a fence. Who is let in can read and write: the unix socket is for root; TCP
//! is served on configured addresses only, over TLS to clients with the set's papers ([`papers`]), in clear on loopback at
//! most (`wire::config`). A client of a killed disk process is disconnected and connects again to its successor.

pub(crate) mod connection;
pub(crate) mod handshake;
pub(crate) mod listen;
pub(crate) mod papers;
pub(crate) mod wire;

use crate::front::{FrontEnd, Numbers, Rest, Taken, Wanted};
use crate::limits::{NBD_CONNECTIONS_MAX, NBD_LARGE_SLOTS, NBD_SMALL_SLOTS};
use crate::pools::Pools;
use crate::ring::Ring;
use crate::ring::memory::Buffer;
use crate::token::Token;
use connection::{Connection, Step};
use listen::{Door, Entered};
use mirror::input::{Range, RequestId};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;
use wire::{Command, ESHUTDOWN, Request, error_of, reply_read};

/// A request that the core works on. It stays until the core has answered, whatever becomes of its connection: a write's
/// bytes belong to the core until then.
struct Pending {
    connection: u32,
    request: Request,
    /// A write's payload, or a read's result.
    data: Option<Arc<Buffer>>,
    /// A read's buffer before it is filled.
    into: Option<Buffer>,
    /// Of a long range of zeroes: what is left.
    rest: Option<Rest>,
    /// A write to be durable is written, its flush is under way.
    flushing: bool,
}

/// The export of a set.
pub(crate) struct Nbd {
    door: Door,
    size: u64,
    /// Apart from the other slots: a client that is slow keeps only other clients waiting. There while it is open.
    pools: Option<Pools>,
    connections: BTreeMap<u32, Connection>,
    /// Whose turn it is.
    turns: VecDeque<u32>,
    serials: u32,
    /// Ended, but the ring still works on their sockets and buffers.
    ending: BTreeMap<u32, Connection>,
    pending: BTreeMap<RequestId, Pending>,
    /// No new requests: it is being withdrawn.
    draining: bool,
}

impl Nbd {
    pub(crate) fn new(door: Door, size: u64) -> Self {
        Nbd {
            door,
            size,
            pools: None,
            connections: BTreeMap::new(),
            turns: VecDeque::new(),
            serials: 0,
            ending: BTreeMap::new(),
            pending: BTreeMap::new(),
            draining: false,
        }
    }

    /// Listens; clients may enter at once, what they ask waits until the core serves.
    pub(crate) fn open(&mut self, ring: &mut Ring<Token>) -> std::io::Result<()> {
        self.draining = false;
        if self.pools.is_none() {
            let pools = Pools::sized(NBD_SMALL_SLOTS, NBD_LARGE_SLOTS);
            self.pools = Some(pools.ok_or(std::io::ErrorKind::OutOfMemory)?);
        }
        self.door.open(ring)
    }

    /// Where clients find it, while it is open.
    pub(crate) fn places(&self) -> Vec<String> {
        self.door.places()
    }

    /// Takes nothing more; `idle` tells when everything taken is answered.
    pub(crate) fn drain(&mut self) {
        self.draining = true;
        self.door.close();
    }

    /// Everything taken is answered, and the answers are sent.
    pub(crate) fn idle(&self) -> bool {
        self.pending.is_empty() && self.connections.values().all(Connection::idle)
    }

    /// Ends every connection. Nothing is answered any more; what the core works on comes to its end.
    pub(crate) fn close(&mut self) {
        self.door.close();
        for serial in self.connections.keys().copied().collect::<Vec<_>>() {
            self.end(serial);
        }
        self.pools = None;
    }

    /// When a client has kept a slot for too long.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.connections.values().filter_map(Connection::due).min()
    }

    /// A listener is readable.
    pub(crate) fn knocked(&mut self, term: u32, index: u32, ended: bool, ring: &mut Ring<Token>) {
        self.door.knocked(term, index, ended, ring, self.connections.len());
    }

    /// A handshake is over.
    pub(crate) fn entered(&mut self, entered: Entered) {
        let Some((socket, agreed, tls)) = self.door.entered(entered) else { return };
        if self.draining || self.connections.len() >= NBD_CONNECTIONS_MAX {
            return;
        }
        self.serials += 1;
        let client = Connection::new(socket, self.serials, agreed, self.size);
        let client = match tls {
            None => client,
            Some(tls) => client.and_then(|client| client.secured(tls)),
        };
        match client {
            Some(connection) => {
                self.connections.insert(self.serials, connection);
                self.turns.push_back(self.serials);
            }
            None => tracing::warn!("no memory for a client of the export, or it broke its encryption"),
        }
    }

    pub(crate) fn received(&mut self, serial: u32, result: Result<usize, i32>, buffer: Option<Buffer>) {
        match (self.connections.get_mut(&serial), self.ending.get_mut(&serial)) {
            (Some(connection), _) => {
                if !connection.received(result, buffer) {
                    self.end(serial);
                }
            }
            (None, Some(connection)) => drop(connection.received(result, buffer)),
            (None, None) => {}
        }
        self.ending.retain(|_, connection| connection.in_ring());
    }

    pub(crate) fn sent(&mut self, serial: u32, result: Result<usize, i32>) {
        match (self.connections.get_mut(&serial), self.ending.get_mut(&serial)) {
            (Some(connection), _) => {
                if !connection.sent(result) {
                    self.end(serial);
                }
            }
            (None, Some(connection)) => drop(connection.sent(result)),
            (None, None) => {}
        }
        self.ending.retain(|_, connection| connection.in_ring());
    }

    fn end(&mut self, serial: u32) {
        if let Some(connection) = self.connections.remove(&serial) {
            connection.close();
            if connection.in_ring() {
                self.ending.insert(serial, connection);
            }
        }
        self.turns.retain(|turn| *turn != serial);
    }

    /// Sends and receives on, on every connection; ends those that keep slots for too long.
    pub(crate) fn pump(&mut self, ring: &mut Ring<Token>) {
        let now = Instant::now();
        let late: Vec<u32> = self
            .connections
            .iter()
            .filter(|(_, connection)| connection.due().is_some_and(|due| due <= now))
            .map(|(serial, _)| *serial)
            .collect();
        for serial in late {
            tracing::info!(serial, "a client of the export stands still: disconnected");
            self.end(serial);
        }
        for connection in self.connections.values_mut() {
            connection.pump(ring);
            if !self.draining {
                connection.receive(ring);
            }
        }
    }

    /// Hands a client's request to the core, or its first piece.
    fn begin(
        &mut self,
        numbers: &mut Numbers,
        connection: u32,
        request: Request,
        slot: Option<Buffer>,
    ) -> Wanted {
        let id = numbers.next();
        let mut pending =
            Pending { connection, request, data: None, into: None, rest: None, flushing: false };
        let range = Range { offset: request.offset, length: request.length };
        let wanted = match request.command {
            Command::Read => {
                pending.into = slot;
                Wanted::Read(id, range)
            }
            Command::Write { .. } => {
                pending.data = slot.map(Arc::new);
                Wanted::Write(id, range)
            }
            Command::Zero { unmap, .. } => {
                let whole = Rest { offset: request.offset, length: u64::from(request.length), unmap };
                let (range, rest) = whole.piece();
                pending.rest = rest;
                Wanted::Zero(id, range, unmap)
            }
            Command::Flush | Command::Leave => Wanted::Flush(id),
        };
        if let Some(connection) = self.connections.get_mut(&connection) {
            connection.under_way += 1;
        }
        self.pending.insert(id, pending);
        wanted
    }

    /// What an answered request still needs before its reply.
    fn follow(&mut self, numbers: &mut Numbers, pending: &mut Pending) -> Option<Wanted> {
        if let Some(rest) = pending.rest.take() {
            let (range, after) = rest.piece();
            pending.rest = after;
            return Some(Wanted::Zero(numbers.next(), range, rest.unmap));
        }
        let fua =
            matches!(pending.request.command, Command::Write { fua: true } | Command::Zero { fua: true, .. });
        // Durable on both disks before the reply.
        (fua && !std::mem::replace(&mut pending.flushing, true)).then(|| Wanted::Flush(numbers.next()))
    }
}

impl FrontEnd for Nbd {
    fn take(&mut self, numbers: &mut Numbers, _: &Pools) -> Taken {
        let Some(pools) = self.pools.as_ref().filter(|_| !self.draining) else { return Taken::Empty };
        for _ in 0..self.turns.len() {
            let Some(serial) = self.turns.pop_front() else { break };
            let Some(connection) = self.connections.get_mut(&serial) else { continue };
            self.turns.push_back(serial);
            match connection.step(pools) {
                Step::Request(request, slot) => {
                    return Taken::Wanted(self.begin(numbers, serial, request, slot));
                }
                Step::Hungry | Step::Stalled => {}
                Step::Ended => {
                    self.end(serial);
                    return Taken::Served;
                }
            }
        }
        Taken::Empty
    }

    fn owns(&self, request: RequestId) -> bool {
        self.pending.contains_key(&request)
    }

    fn data(&self, request: RequestId) -> Option<Arc<Buffer>> {
        self.pending.get(&request)?.data.clone()
    }

    fn room(&mut self, request: RequestId) -> Option<Buffer> {
        self.pending.get_mut(&request)?.into.take()
    }

    fn filled(&mut self, request: RequestId, data: Arc<Buffer>) {
        if let Some(pending) = self.pending.get_mut(&request) {
            pending.data = Some(data);
        }
    }

    fn answer(&mut self, request: RequestId, errno: i32, numbers: &mut Numbers) -> Option<Wanted> {
        let mut pending = self.pending.remove(&request)?;
        if errno == 0
            && self.connections.contains_key(&pending.connection)
            && let Some(next) = self.follow(numbers, &mut pending)
        {
            self.pending.insert(next.request(), pending);
            return Some(next);
        }
        let connection = self.connections.get_mut(&pending.connection)?;
        connection.under_way -= 1;
        let Request { command, cookie, offset, length } = pending.request;
        let agreed = connection.agreed;
        let read = command == Command::Read;
        match pending.data.filter(|_| read && errno == 0) {
            Some(data) => {
                let mut head = Vec::with_capacity(32);
                reply_read(&mut head, cookie, offset, length, agreed);
                connection.queue(head, Some((data, length as usize)));
            }
            None if read && errno == 0 => connection.reply(cookie, error_of(libc::EIO), agreed.structured),
            // A client that hears of the end goes, or tries the other server.
            None if self.draining && errno != 0 => {
                connection.reply(cookie, ESHUTDOWN, read && agreed.structured);
            }
            None => connection.reply(cookie, error_of(errno), read && agreed.structured),
        }
        None
    }
}
