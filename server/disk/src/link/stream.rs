//! The authenticated stream to the twin inside the loop: frames in and out, one send under way, payloads into slots.

use crate::limits::{OUTGOING_MAX, SEND_BYTES, SEND_FRAMES, SMALL_BYTES, STAGING_BYTES};
use crate::pools::Pools;
use crate::ring::memory::Buffer;
use crate::ring::{Piece, Ring};
use crate::tls::{RECORD_BYTES, Tls};
use crate::token::Token;
use peer::block::{Frame, FrameFault, HEADER_BYTES, Header, checksum, decode_body, decode_header, encode};
use rustix::net::{Shutdown, shutdown};
use std::collections::VecDeque;
use std::ops::Range;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

/// What the bytes received so far give.
pub(crate) enum Step {
    /// A frame, with its payload.
    Frame(Frame, Option<Buffer>),
    /// Nothing before more bytes come.
    Hungry,
    /// Nothing before a slot is free.
    Stalled,
}

/// A frame whose payload is still coming.
struct Incoming {
    header: Header,
    frame: Frame,
    /// Away while the kernel receives into it.
    buffer: Option<Buffer>,
    got: usize,
    /// Where a packed payload is unpacked to.
    slot: Option<Buffer>,
}

/// A connected block link.
pub(crate) struct Stream {
    socket: Arc<OwnedFd>,
    /// Tells this connection's completions from those of an earlier one.
    serial: u32,
    /// Away while the kernel receives into it.
    staging: Option<Buffer>,
    start: usize,
    end: usize,
    receiving: bool,
    /// The next frame's head when there was no slot for its payload.
    parsed: Option<(Header, Frame)>,
    incoming: Option<Incoming>,
    outgoing: VecDeque<Piece>,
    sending: bool,
    /// Encrypted, with the buffer for what comes (away while the kernel receives into it).
    tls: Option<(Box<Tls>, Option<Buffer>)>,
    /// What the frame given last told as received.
    told: u32,
    /// Bytes handed to the kernel since the connection began.
    pub sent: u64,
}

impl Stream {
    /// Takes over a connected socket; `None` without memory.
    pub(crate) fn new(socket: OwnedFd, serial: u32) -> Option<Self> {
        Some(Stream {
            socket: Arc::new(socket),
            serial,
            staging: Some(Buffer::new(STAGING_BYTES)?),
            start: 0,
            end: 0,
            receiving: false,
            parsed: None,
            incoming: None,
            outgoing: VecDeque::new(),
            sending: false,
            tls: None,
            told: 0,
            sent: 0,
        })
    }

    /// The same, encrypted from here on; what came behind the handshake is taken over. `None`: no memory, or nonsense came.
    pub(crate) fn secured(mut self, mut tls: Tls) -> Option<Self> {
        let staging = self.staging.as_mut()?;
        self.end = tls.open(&[], staging.bytes_mut()).ok()?;
        self.tls = Some((Box::new(tls), Some(Buffer::new(STAGING_BYTES)?)));
        Some(self)
    }

    pub(crate) fn serial(&self) -> u32 {
        self.serial
    }

    /// Ends the connection for both directions; what is under way completes with an error.
    pub(crate) fn close(&self) {
        let _ = shutdown(&*self.socket, Shutdown::Both);
    }

    /// Queues a frame, its payload being the bytes of a buffer from some place on. `false`: too many wait, the twin takes
    /// nothing.
    pub(crate) fn queue(
        &mut self,
        frame: &Frame,
        data: Option<(&Arc<Buffer>, usize)>,
    ) -> Result<bool, FrameFault> {
        let length = frame.payload_length() as usize;
        let payload = data.and_then(|(data, from)| data.bytes().get(from..from + length)).unwrap_or_default();
        if payload.len() != length {
            return Err(FrameFault::Limit { field: "payload length" });
        }
        let sum = if length > 0 { checksum(payload) } else { 0 };
        // Small frames share a piece: a batch of answers is one run of bytes.
        let joins =
            self.outgoing.back().is_some_and(|last| last.data.is_none() && last.head.len() < SMALL_BYTES);
        if !joins {
            self.outgoing.push_back(Piece { head: Vec::with_capacity(HEADER_BYTES * 2), data: None });
        }
        if let Some(last) = self.outgoing.back_mut() {
            encode(frame, sum, &mut last.head)?;
            let data = data.filter(|_| length > 0);
            last.data = data.map(|(data, from)| (data.clone(), from..from + length));
        }
        Ok(self.outgoing.len() <= OUTGOING_MAX)
    }

    /// Queues an encoded frame and its payload.
    pub(crate) fn queue_encoded(&mut self, head: &[u8], data: Option<(Arc<Buffer>, Range<usize>)>) {
        let joins =
            self.outgoing.back().is_some_and(|last| last.data.is_none() && last.head.len() < SMALL_BYTES);
        if !joins {
            self.outgoing.push_back(Piece { head: Vec::with_capacity(HEADER_BYTES * 2), data: None });
        }
        if let Some(last) = self.outgoing.back_mut() {
            last.head.extend_from_slice(head);
            last.data = data;
        }
    }

    /// Pieces that wait to be sent.
    pub(crate) fn waiting(&self) -> usize {
        self.outgoing.len()
    }

    /// What the frame given last told as received.
    pub(crate) fn told(&self) -> u32 {
        self.told
    }

    /// For how long nothing has come, whole frame or not.
    pub(crate) fn silent_for(&self) -> Option<Duration> {
        os::tcp::silent_for(self.socket.as_fd()).ok()
    }

    /// Begins the next send, if none is under way: frames that came meanwhile form the batch, so no timer is needed.
    pub(crate) fn pump(&mut self, ring: &mut Ring<Token>) {
        if self.sending || self.outgoing.is_empty() {
            return;
        }
        let (mut count, mut bytes) = (0, 0_usize);
        for piece in self.outgoing.iter().take(SEND_FRAMES) {
            let length = piece.head.len() + piece.data.as_ref().map_or(0, |(_, bytes)| bytes.len());
            if count > 0 && bytes + length > SEND_BYTES {
                break;
            }
            count += 1;
            bytes += length;
        }
        let mut pieces: Vec<Piece> = self.outgoing.drain(..count).collect();
        if let Some((tls, _)) = &mut self.tls {
            let Ok(head) = tls.seal(&pieces) else {
                // The end of the stream is told by the receive under way.
                self.close();
                return;
            };
            bytes = head.len();
            pieces = vec![Piece { head, data: None }];
        }
        self.sending = true;
        self.sent += bytes as u64;
        ring.send(Token::Send(self.serial), self.socket.clone(), pieces);
    }

    /// A send is complete. `false`: the connection is gone.
    pub(crate) fn sent(&mut self, result: Result<usize, i32>) -> bool {
        self.sending = false;
        result.is_ok()
    }

    /// Bytes came (or the connection ended: `false`).
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

    /// The next frame out of what was received. Without a free slot, frames up to the sequence `urgent` get memory of their
    /// own: others wait for them.
    ///
    /// # Errors
    /// The bytes are not frames: the connection is of no further use.
    pub(crate) fn step(&mut self, pools: &Pools, urgent: Option<u64>) -> Result<Step, FrameFault> {
        if self.receiving {
            return Ok(Step::Hungry);
        }
        if self.incoming.is_none() {
            if self.parsed.is_none() {
                self.parsed = self.parse()?;
            }
            let Some((header, frame)) = self.parsed.take() else { return Ok(Step::Hungry) };
            self.told = header.received;
            if header.payload_length == 0 {
                return Ok(Step::Frame(frame, None));
            }
            // The payload as the frame speaks of it, packed or not.
            let length = frame.payload_length() as usize;
            let own = || urgent.filter(|upto| frame.sequence <= *upto).and_then(|_| Buffer::new(length));
            let Some(buffer) = pools.take(length).or_else(own) else {
                self.parsed = Some((header, frame));
                return Ok(Step::Stalled);
            };
            let packed = header.packed.then(|| Buffer::new(header.payload_length as usize));
            let (buffer, slot) = match packed {
                None => (buffer, None),
                Some(Some(packed)) => (packed, Some(buffer)),
                Some(None) => {
                    self.parsed = Some((header, frame));
                    return Ok(Step::Stalled);
                }
            };
            self.incoming = Some(Incoming { header, frame, buffer: Some(buffer), got: 0, slot });
        }
        self.gather()
    }

    fn parse(&mut self) -> Result<Option<(Header, Frame)>, FrameFault> {
        let bytes = self.staging.as_ref().and_then(|staging| staging.bytes().get(self.start..self.end));
        let Some((head, rest)) = bytes.and_then(|bytes| bytes.split_first_chunk::<HEADER_BYTES>()) else {
            return Ok(None);
        };
        let header = decode_header(head)?;
        let Some(body) = rest.get(..header.body_length) else { return Ok(None) };
        let frame = decode_body(&header, body)?;
        self.start += HEADER_BYTES + header.body_length;
        Ok(Some((header, frame)))
    }

    /// Moves what is staged of the payload into its slot.
    fn gather(&mut self) -> Result<Step, FrameFault> {
        let Some(incoming) = &mut self.incoming else { return Ok(Step::Hungry) };
        let whole = incoming.header.payload_length as usize;
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
            return Ok(Step::Hungry);
        }
        let Some(Incoming { header, frame, buffer: Some(buffer), slot, .. }) = self.incoming.take() else {
            return Ok(Step::Hungry);
        };
        header.check_payload(buffer.first(whole))?;
        let Some(mut slot) = slot else { return Ok(Step::Frame(frame, Some(buffer))) };
        let place = slot.bytes_mut().get_mut(..frame.payload_length() as usize).unwrap_or_default();
        match lz4_flex::block::decompress_into(buffer.first(whole), place) {
            Ok(length) if length == place.len() => Ok(Step::Frame(frame, Some(slot))),
            Ok(_) | Err(_) => Err(FrameFault::Limit { field: "packed payload" }),
        }
    }

    /// Receives on: a long rest of a payload straight into its slot, everything else into the staging buffer.
    pub(crate) fn receive(&mut self, ring: &mut Ring<Token>) {
        if self.receiving {
            return;
        }
        let token = Token::Receive(self.serial);
        let socket = self.socket.clone();
        if let Some(incoming) = self.incoming.as_mut().filter(|_| self.tls.is_none()) {
            let whole = incoming.header.payload_length as usize;
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
            let room = STAGING_BYTES.saturating_sub(self.end + RECORD_BYTES);
            if let Some(raw) = raw.take_if(|_| room > 0) {
                self.receiving = true;
                ring.receive(token, socket.as_fd(), raw, (0, room), false);
            }
            return;
        }
        self.receiving = true;
        ring.receive(token, socket.as_fd(), staging, (self.end, STAGING_BYTES), false);
    }
}

#[cfg(test)]
#[path = "stream_tests.rs"]
mod tests;
