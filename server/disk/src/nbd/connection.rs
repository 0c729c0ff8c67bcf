//! One NBD connection in its transmission phase inside the loop: requests out of its bytes, payloads into slots, replies.

use super::wire::{Agreed, Command, Parsed, REQUEST_BYTES, Request, parse, reply};
use crate::limits::{NBD_REQUESTS_MAX, NBD_STAGING_BYTES, NBD_STALL, SEND_BYTES, SMALL_BYTES};
use crate::pools::Pools;
use crate::ring::memory::Buffer;
use crate::ring::{Piece, Ring};
use crate::tls::{RECORD_BYTES, Tls};
use crate::token::Token;
use rustix::net::{Shutdown, shutdown};
use std::collections::VecDeque;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;
use std::time::Instant;

/// What the bytes received so far give.
pub(crate) enum Step {
    /// A request, with a write's payload or the slot for a read.
    Request(Request, Option<Buffer>),
    /// Nothing before more bytes come.
    Hungry,
    /// Nothing before a slot is free or replies have gone.
    Stalled,
    /// Nothing more comes and all is answered, or the client does not speak the protocol.
    Ended,
}

/// A write whose payload is still coming.
struct Incoming {
    request: Request,
    /// Away while the kernel receives into it.
    buffer: Option<Buffer>,
    got: usize,
}

/// A connection.
pub(crate) struct Connection {
    socket: Arc<OwnedFd>,
    serial: u32,
    pub agreed: Agreed,
    size: u64,
    /// Away while the kernel receives into it.
    staging: Option<Buffer>,
    start: usize,
    end: usize,
    receiving: bool,
    /// All that was received is taken. Only then is received on: what lies in the staging buffer while the kernel has it
    /// could not be taken, however many replies have gone meanwhile.
    hungry: bool,
    /// A request that waits for a slot.
    parked: Option<Request>,
    incoming: Option<Incoming>,
    /// Bytes of a refused write's payload still to come.
    skip: u64,
    outgoing: VecDeque<Piece>,
    sending: bool,
    /// Encrypted, with the buffer for what comes (away while the kernel receives into it).
    tls: Option<(Box<Tls>, Option<Buffer>)>,
    /// Requests the core works on.
    pub under_way: usize,
    /// The client has said that it goes.
    leaving: bool,
    /// When the client must have sent the payload under way, taken the replies under way.
    due: [Option<Instant>; 2],
}

impl Connection {
    /// Takes over a socket whose handshake is done; `None` without memory.
    pub(crate) fn new(socket: OwnedFd, serial: u32, agreed: Agreed, size: u64) -> Option<Self> {
        Some(Connection {
            socket: Arc::new(socket),
            serial,
            agreed,
            size,
            staging: Some(Buffer::new(NBD_STAGING_BYTES)?),
            start: 0,
            end: 0,
            receiving: false,
            hungry: true,
            parked: None,
            incoming: None,
            skip: 0,
            outgoing: VecDeque::new(),
            sending: false,
            tls: None,
            under_way: 0,
            leaving: false,
            due: [None; 2],
        })
    }

    /// The same, encrypted from here on; what came behind the handshake is taken over. `None`: no memory, or nonsense came.
    pub(crate) fn secured(mut self, mut tls: Tls) -> Option<Self> {
        self.end = tls.open(&[], self.staging.as_mut()?.bytes_mut()).ok()?;
        self.hungry = self.end == 0;
        self.tls = Some((Box::new(tls), Some(Buffer::new(NBD_STAGING_BYTES)?)));
        Some(self)
    }

    /// Ends the connection for both directions; what is under way completes with an error.
    pub(crate) fn close(&self) {
        let _ = shutdown(&*self.socket, Shutdown::Both);
    }

    /// The ring works on the socket.
    pub(crate) fn in_ring(&self) -> bool {
        self.receiving || self.sending
    }

    /// Everything asked is answered and sent.
    pub(crate) fn idle(&self) -> bool {
        self.under_way == 0 && self.outgoing.is_empty() && !self.sending
    }

    /// When the client has kept a slot for too long.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.due.into_iter().flatten().min()
    }

    /// The next request out of what was received.
    pub(crate) fn step(&mut self, pools: &Pools) -> Step {
        let step = self.next(pools);
        self.hungry = matches!(step, Step::Hungry);
        step
    }

    fn next(&mut self, pools: &Pools) -> Step {
        if self.leaving {
            return if self.idle() { Step::Ended } else { Step::Stalled };
        }
        if self.receiving {
            return Step::Hungry;
        }
        loop {
            if self.incoming.is_some() {
                return self.gather();
            }
            if !self.skip() {
                return Step::Hungry;
            }
            let request = match self.parked.take() {
                Some(request) => request,
                None if self.under_way + self.outgoing.len() >= NBD_REQUESTS_MAX => return Step::Stalled,
                None => match self.parse() {
                    None => return Step::Hungry,
                    Some(Parsed::Broken) => return Step::Ended,
                    Some(Parsed::Refused { cookie, read, error, skip }) => {
                        self.skip = skip;
                        self.reply(cookie, error, read && self.agreed.structured);
                        continue;
                    }
                    Some(Parsed::Request(request)) => request,
                },
            };
            match request.command {
                Command::Leave => {
                    self.leaving = true;
                    return if self.idle() { Step::Ended } else { Step::Stalled };
                }
                Command::Flush | Command::Zero { .. } => return Step::Request(request, None),
                Command::Read | Command::Write { .. } => {}
            }
            let Some(slot) = pools.take(request.length as usize) else {
                self.parked = Some(request);
                return Step::Stalled;
            };
            if !matches!(request.command, Command::Write { .. }) {
                return Step::Request(request, Some(slot));
            }
            self.due[0] = Some(Instant::now() + NBD_STALL);
            self.incoming = Some(Incoming { request, buffer: Some(slot), got: 0 });
        }
    }

    fn parse(&mut self) -> Option<Parsed> {
        let staged = self.staging.as_ref()?.bytes().get(self.start..self.end)?;
        let parsed = parse(staged.first_chunk::<REQUEST_BYTES>()?, self.size, self.agreed);
        self.start += REQUEST_BYTES;
        Some(parsed)
    }

    /// Passes over a refused payload; true when it is all gone.
    fn skip(&mut self) -> bool {
        let part = self.skip.min((self.end - self.start) as u64);
        self.start += part as usize;
        self.skip -= part;
        self.skip == 0
    }

    /// Moves what is staged of the payload into its slot.
    fn gather(&mut self) -> Step {
        let Some(incoming) = &mut self.incoming else { return Step::Hungry };
        let whole = incoming.request.length as usize;
        if let (Some(staging), Some(buffer)) = (&self.staging, &mut incoming.buffer) {
            let length = (whole - incoming.got).min(self.end - self.start);
            let from = staging.bytes().get(self.start..self.start + length);
            let to = buffer.bytes_mut().get_mut(incoming.got..incoming.got + length);
            if let (Some(from), Some(to)) = (from, to) {
                to.copy_from_slice(from);
                self.start += length;
                incoming.got += length;
            }
        }
        if incoming.got < whole {
            return Step::Hungry;
        }
        self.due[0] = None;
        match self.incoming.take() {
            Some(Incoming { request, buffer: Some(buffer), .. }) => Step::Request(request, Some(buffer)),
            Some(_) | None => Step::Hungry,
        }
    }

    /// Receives on: a long rest of a payload straight into its slot, everything else into the staging buffer.
    pub(crate) fn receive(&mut self, ring: &mut Ring<Token>) {
        if self.receiving || !self.hungry {
            return;
        }
        let token = Token::NbdReceive(self.serial);
        let socket = self.socket.clone();
        if let Some(incoming) = self.incoming.as_mut().filter(|_| self.tls.is_none()) {
            let whole = incoming.request.length as usize;
            if whole - incoming.got > SMALL_BYTES
                && let Some(buffer) = incoming.buffer.take()
            {
                self.receiving = true;
                ring.receive(token, socket.as_fd(), buffer, (incoming.got, whole), true);
                return;
            }
        }
        let Some(mut staging) = self.staging.take() else { return };
        staging.bytes_mut().copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
        if let Some((_, raw)) = &mut self.tls {
            self.staging = Some(staging);
            let room = NBD_STAGING_BYTES.saturating_sub(self.end + RECORD_BYTES);
            if let Some(raw) = raw.take_if(|_| room > 0) {
                self.receiving = true;
                ring.receive(token, socket.as_fd(), raw, (0, room), false);
            }
            return;
        }
        self.receiving = true;
        ring.receive(token, socket.as_fd(), staging, (self.end, NBD_STAGING_BYTES), false);
    }

    /// Bytes came. `false`: the connection has ended.
    pub(crate) fn received(&mut self, result: Result<usize, i32>, buffer: Option<Buffer>) -> bool {
        self.receiving = false;
        let length = result.unwrap_or(0);
        if let Some((tls, raw)) = &mut self.tls {
            let opened = match (&buffer, &mut self.staging) {
                (Some(sealed), Some(staging)) => {
                    let place = staging.bytes_mut().get_mut(self.end..).unwrap_or_default();
                    tls.open(sealed.first(length), place)
                }
                _ => Ok(0),
            };
            *raw = buffer;
            self.end += *opened.as_ref().unwrap_or(&0);
            return length > 0 && opened.is_ok();
        }
        match &mut self.incoming {
            Some(incoming) if incoming.buffer.is_none() => {
                incoming.buffer = buffer;
                incoming.got += length;
            }
            Some(_) | None => {
                self.staging = buffer;
                self.end += length;
            }
        }
        length > 0
    }

    /// Queues a reply without data.
    pub(crate) fn reply(&mut self, cookie: u64, error: u32, chunked: bool) {
        let mut head = Vec::with_capacity(32);
        reply(&mut head, cookie, error, chunked);
        self.queue(head, None);
    }

    /// Queues a reply.
    pub(crate) fn queue(&mut self, head: Vec<u8>, data: Option<(Arc<Buffer>, usize)>) {
        let data = data.map(|(data, length)| (data, 0..length));
        self.outgoing.push_back(Piece { head, data });
    }

    /// Begins the next send, if none is under way: replies that came meanwhile go together.
    pub(crate) fn pump(&mut self, ring: &mut Ring<Token>) {
        if self.sending || self.outgoing.is_empty() {
            return;
        }
        let (mut count, mut bytes) = (0, 0);
        for piece in &self.outgoing {
            bytes += piece.head.len() + piece.data.as_ref().map_or(0, |(_, part)| part.len());
            if count > 0 && bytes > SEND_BYTES {
                break;
            }
            count += 1;
        }
        let mut pieces: Vec<Piece> = self.outgoing.drain(..count).collect();
        if let Some((tls, _)) = &mut self.tls {
            let Ok(head) = tls.seal(&pieces) else {
                // Ended with those that are late.
                self.due[1] = Some(Instant::now());
                return;
            };
            pieces = vec![Piece { head, data: None }];
        }
        self.sending = true;
        self.due[1] = Some(Instant::now() + NBD_STALL);
        ring.send(Token::NbdSend(self.serial), self.socket.clone(), pieces);
    }

    /// A send is complete. `false`: the connection has ended.
    pub(crate) fn sent(&mut self, result: Result<usize, i32>) -> bool {
        self.sending = false;
        self.due[1] = None;
        result.is_ok()
    }
}
