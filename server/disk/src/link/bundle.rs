//! The block link as the loop sees it: one order of frames over up to two connections (lanes), one for each interconnect.
//!
//! With one interconnect it is that connection and nothing more. With two, frames are spread over the lanes and the receiver
//! puts them in their order again (`sequence`). Every header tells up to which sequence its sender has received all; what a
//! lane took with it when it died, and that is not told as received, goes out again over the other. Each lane carries a beat
//! (a frame of sequence 0) every [`LANE_BEAT`], so that a cut cable is noticed before the link counts as silent.

use super::stream::{Step, Stream};
use crate::limits::{
    AHEAD_MAX, LANE_BEAT, LANE_SILENT, LANE_SLACK_BYTES, LANES_MAX, OUTGOING_MAX, PACK_GAIN, PACK_MIN,
};
use crate::pools::Pools;
use crate::ring::Ring;
use crate::ring::memory::Buffer;
use crate::token::Token;
use peer::block::{Body, Frame, FrameFault, Payload, checksum, encode_with};
use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};
use wire::{Epoch, Session};

/// One connection.
struct Lane {
    stream: Stream,
    /// This side's.
    address: Option<IpAddr>,
    /// Bytes sent over it and not told as received.
    unacknowledged: usize,
    heard: Instant,
    beat: Instant,
}

/// A frame that may have to go out again.
struct Kept {
    sequence: u64,
    lane: usize,
    head: Vec<u8>,
    data: Option<(Arc<Buffer>, Range<usize>)>,
}

impl Kept {
    fn bytes(&self) -> usize {
        self.head.len() + self.data.as_ref().map_or(0, |(_, bytes)| bytes.len())
    }
}

/// A block link.
pub(crate) struct Bundle {
    /// Drawn by the side that dials; names the link in the handshake of a lane that joins.
    number: u64,
    lanes: [Option<Lane>; LANES_MAX],
    /// The next look at what is not whole yet.
    listens: Instant,
    /// More than one interconnect is configured.
    several: bool,
    /// Payloads are packed where that gains something.
    packs: bool,
    kept: VecDeque<Kept>,
    /// The twin has received everything up to this sequence.
    acknowledged: u64,
    /// Highest sequence queued.
    queued: u64,
    /// Everything up to this sequence has been received and given to the core.
    received: u64,
    /// Frames that came before their turn.
    ahead: BTreeMap<u64, (Frame, Option<Buffer>)>,
    /// The lane that small frames take while it is not behind: together they share its sends.
    usual: usize,
    /// Bytes sent over lanes that are gone.
    sent_before: u64,
}

/// A lane cannot go on: by its serial.
#[derive(Debug)]
pub(crate) struct LaneFault {
    pub(crate) serial: u32,
    pub(crate) fault: FrameFault,
}

impl Bundle {
    /// A link that begins with this lane.
    pub(crate) fn new(
        number: u64,
        lane: usize,
        stream: Stream,
        address: Option<IpAddr>,
        (several, packs): (bool, bool),
    ) -> Self {
        // An interconnect beyond those used together carries the link alone as well as any other.
        let lane = lane.min(LANES_MAX - 1);
        let mut bundle = Bundle {
            number,
            lanes: [const { None }; LANES_MAX],
            listens: Instant::now(),
            several,
            packs,
            kept: VecDeque::new(),
            acknowledged: 0,
            queued: 0,
            received: 0,
            ahead: BTreeMap::new(),
            usual: lane,
            sent_before: 0,
        };
        bundle.join(lane, stream, address);
        bundle
    }

    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// Bytes handed to the kernel since the link began.
    pub(crate) fn sent(&self) -> u64 {
        self.sent_before + self.lanes.iter().flatten().map(|lane| lane.stream.sent).sum::<u64>()
    }

    /// Another connection of the same link, in place of an earlier one over the same interconnect.
    pub(crate) fn join(&mut self, lane: usize, stream: Stream, address: Option<IpAddr>) {
        let Some(place) = self.lanes.get_mut(lane) else { return stream.close() };
        let now = Instant::now();
        let old = place.replace(Lane { stream, address, unacknowledged: 0, heard: now, beat: now });
        if let Some(old) = old {
            self.retire(&old);
            self.send_again(lane);
        }
    }

    /// Local address of the lane that is used most.
    pub(crate) fn address(&self) -> Option<IpAddr> {
        self.lanes.get(self.usual)?.as_ref()?.address
    }

    /// Interconnects, of so many, without a connection.
    pub(crate) fn missing(&self, of: usize) -> Vec<usize> {
        let lanes = self.lanes.iter().enumerate().take(of);
        lanes.filter(|(_, lane)| lane.is_none()).map(|(number, _)| number).collect()
    }

    /// Ends all connections.
    pub(crate) fn close(&self) {
        self.lanes.iter().flatten().for_each(|lane| lane.stream.close());
    }

    fn retire(&mut self, lane: &Lane) {
        lane.stream.close();
        self.sent_before += lane.stream.sent;
    }

    fn number_of(&self, serial: u32) -> Option<usize> {
        self.lanes.iter().position(|lane| lane.as_ref().is_some_and(|lane| lane.stream.serial() == serial))
    }

    /// The connection of this serial, if it is one of the link.
    fn lane(&mut self, serial: u32) -> Option<&mut Lane> {
        self.lanes.iter_mut().flatten().find(|lane| lane.stream.serial() == serial)
    }

    /// A send is complete. `false`: that lane is gone.
    pub(crate) fn sent_done(&mut self, serial: u32, result: Result<usize, i32>) -> bool {
        self.lane(serial).is_none_or(|lane| lane.stream.sent(result))
    }

    /// Bytes came. `false`: that lane is gone.
    pub(crate) fn received_done(
        &mut self,
        serial: u32,
        result: Result<usize, i32>,
        buffer: Option<Buffer>,
    ) -> bool {
        self.lane(serial).is_none_or(|lane| {
            lane.heard = Instant::now();
            lane.stream.received(result, buffer)
        })
    }

    /// A lane is gone: what it may have taken with it goes out over another. `false`: it was the last.
    pub(crate) fn lose(&mut self, serial: u32) -> bool {
        let Some(number) = self.number_of(serial) else { return true };
        if let Some(old) = self.lanes.get_mut(number).and_then(Option::take) {
            self.retire(&old);
        }
        let Some(other) = self.lanes.iter().position(Option::is_some) else { return false };
        self.usual = other;
        self.send_again(number);
        true
    }

    /// Sends everything kept for a lane again, over those that there are.
    fn send_again(&mut self, from: usize) {
        let mut kept = std::mem::take(&mut self.kept);
        for one in kept.iter_mut().filter(|one| one.lane == from) {
            one.lane = self.choose(one.bytes());
            if let Some(lane) = self.lanes.get_mut(one.lane).and_then(Option::as_mut) {
                lane.unacknowledged += one.bytes();
                lane.stream.queue_encoded(&one.head, one.data.clone());
            }
        }
        self.kept = kept;
    }

    /// The lane for a frame of so many bytes: the usual one, unless another is less behind by more than the slack.
    fn choose(&mut self, bytes: usize) -> usize {
        let behind = |lane: &Option<Lane>| lane.as_ref().map(|lane| lane.unacknowledged);
        let usual = self.lanes.get(self.usual).and_then(behind);
        let least = self.lanes.iter().enumerate().filter_map(|(n, lane)| Some((behind(lane)?, n))).min();
        let Some((least, number)) = least else { return self.usual };
        if usual.is_none_or(|usual| usual + bytes > least + LANE_SLACK_BYTES) {
            self.usual = number;
        }
        self.usual
    }

    /// Queues a frame, its payload being the bytes of a buffer from some place on. `false`: too many wait, the twin takes
    /// nothing.
    pub(crate) fn queue(
        &mut self,
        frame: &Frame,
        data: Option<(&Arc<Buffer>, usize)>,
    ) -> Result<bool, FrameFault> {
        if !self.several && !self.packs {
            let Some(lane) = self.lanes.iter_mut().flatten().next() else { return Ok(true) };
            return lane.stream.queue(frame, data);
        }
        let length = frame.payload_length() as usize;
        let payload = data.and_then(|(data, from)| data.bytes().get(from..from + length)).unwrap_or_default();
        if payload.len() != length {
            return Err(FrameFault::Limit { field: "payload length" });
        }
        let packed = if self.packs { pack(payload) } else { None };
        let sent = packed.as_ref().map_or(payload, |(data, length)| data.first(*length));
        let checksum = if length > 0 { checksum(sent) } else { 0 };
        let about = Payload { checksum, packed: packed.as_ref().map(|(_, length)| *length as u32) };
        let mut head = Vec::new();
        encode_with(frame, about, self.received as u32, &mut head)?;
        let whole = data.filter(|_| length > 0).map(|(data, from)| (data.clone(), from..from + length));
        let data = packed.map(|(data, length)| (data, 0..length)).or(whole);
        let length = data.as_ref().map_or(0, |(_, bytes)| bytes.len());
        self.queued = self.queued.max(frame.sequence);
        let number = self.choose(head.len() + length);
        if let Some(lane) = self.lanes.get_mut(number).and_then(Option::as_mut) {
            lane.unacknowledged += head.len() + length;
            lane.stream.queue_encoded(&head, data.clone());
        }
        if self.several {
            self.kept.push_back(Kept { sequence: frame.sequence, lane: number, head, data });
        }
        let waiting = self.lanes.iter().flatten().map(|lane| lane.stream.waiting()).max().unwrap_or_default();
        Ok(self.kept.len().max(waiting) <= OUTGOING_MAX)
    }

    /// Begins the next sends; lanes that have been quiet for long say that they live.
    pub(crate) fn pump(&mut self, ring: &mut Ring<Token>) {
        if self.several {
            self.beat();
        }
        for lane in self.lanes.iter_mut().flatten() {
            lane.stream.pump(ring);
        }
    }

    fn beat(&mut self) {
        let now = Instant::now();
        let received = self.received as u32;
        for lane in self.lanes.iter_mut().flatten().filter(|lane| now >= lane.beat) {
            lane.beat = now + LANE_BEAT;
            let body = Body::Alive { nonce: 0, grant: None };
            let beat = Frame { epoch: Epoch(0), session: Session(0), sequence: 0, body };
            let mut head = Vec::new();
            if encode_with(&beat, Payload::default(), received, &mut head).is_ok() {
                lane.stream.queue_encoded(&head, None);
            }
        }
    }

    /// Whether something came since the last look, of which there is one every [`LANE_BEAT`]. The kernel is asked as well: what came
    /// may be part of a frame, or wait for one on another lane. A slow line is not a silent one.
    pub(crate) fn hears(&mut self) -> bool {
        let now = Instant::now();
        if now < self.listens {
            return false;
        }
        let before = self.listens.checked_sub(LANE_BEAT);
        self.listens = now + LANE_BEAT;
        for lane in self.lanes.iter_mut().flatten() {
            if now.saturating_duration_since(lane.heard) >= LANE_BEAT
                && let Some(at) = lane.stream.silent_for().and_then(|silent| now.checked_sub(silent))
            {
                lane.heard = lane.heard.max(at);
            }
        }
        self.lanes.iter().flatten().any(|lane| before.is_none_or(|before| lane.heard >= before))
    }

    /// A lane from which nothing comes while another lives: its cable is cut. By its serial.
    pub(crate) fn silent(&self) -> Option<u32> {
        let now = Instant::now();
        let quiet = |lane: &Lane| now.saturating_duration_since(lane.heard);
        let lives = self.lanes.iter().flatten().any(|lane| quiet(lane) < LANE_SILENT / 2);
        let dead = self.lanes.iter().flatten().find(|lane| quiet(lane) >= LANE_SILENT);
        dead.filter(|_| lives).map(|lane| lane.stream.serial())
    }

    /// How soon it wants attention whatever else happens.
    pub(crate) fn wait(&self) -> Option<Duration> {
        let now = Instant::now();
        let next = self.lanes.iter().flatten().map(|lane| lane.beat.saturating_duration_since(now)).min();
        next.filter(|_| self.several)
    }

    /// The next frame in order out of what was received; receives on where there is nothing more.
    ///
    /// # Errors
    /// A lane carries something else than frames: it is of no further use.
    pub(crate) fn step(&mut self, pools: &Pools, ring: &mut Ring<Token>) -> Result<Step, LaneFault> {
        if let Some(entry) = self.ahead.first_entry().filter(|entry| *entry.key() == self.received + 1) {
            let (frame, payload) = entry.remove();
            self.received += 1;
            return Ok(Step::Frame(frame, payload));
        }
        let mut stalled = false;
        for number in 0..LANES_MAX {
            loop {
                let next = self.received + 1;
                let Some(lane) = self.lanes.get_mut(number).and_then(Option::as_mut) else { break };
                let serial = lane.stream.serial();
                let failed = |fault| LaneFault { serial, fault };
                let urgent = self.several.then_some(next);
                match lane.stream.step(pools, urgent).map_err(failed)? {
                    Step::Frame(frame, payload) if !self.several => return Ok(Step::Frame(frame, payload)),
                    Step::Frame(frame, payload) => {
                        let told = lane.stream.told();
                        self.acknowledge(told).map_err(failed)?;
                        match frame.sequence {
                            sequence if sequence == next => {
                                self.received = next;
                                return Ok(Step::Frame(frame, payload));
                            }
                            sequence if sequence > next => {
                                if self.ahead.len() >= AHEAD_MAX {
                                    return Err(failed(FrameFault::Limit { field: "sequence" }));
                                }
                                self.ahead.insert(sequence, (frame, payload));
                            }
                            // A beat, or sent twice because a lane died.
                            _ => {}
                        }
                    }
                    Step::Hungry => {
                        lane.stream.receive(ring);
                        break;
                    }
                    Step::Stalled => {
                        stalled = true;
                        break;
                    }
                }
            }
        }
        Ok(if stalled { Step::Stalled } else { Step::Hungry })
    }

    /// The twin has received everything up to the sequence with these low bits.
    fn acknowledge(&mut self, low: u32) -> Result<(), FrameFault> {
        let ahead = low.wrapping_sub(self.acknowledged as u32);
        // Over two lanes an older word may come after a newer one.
        if ahead == 0 || ahead > u32::MAX / 2 {
            return Ok(());
        }
        let upto = self.acknowledged + u64::from(ahead);
        if upto > self.queued {
            return Err(FrameFault::Limit { field: "received" });
        }
        self.acknowledged = upto;
        while let Some(kept) = self.kept.pop_front_if(|kept| kept.sequence <= upto) {
            if let Some(lane) = self.lanes.get_mut(kept.lane).and_then(Option::as_mut) {
                lane.unacknowledged = lane.unacknowledged.saturating_sub(kept.bytes());
            }
        }
        Ok(())
    }
}

/// A payload packed, if that makes it smaller by enough.
fn pack(payload: &[u8]) -> Option<(Arc<Buffer>, usize)> {
    if payload.len() < PACK_MIN {
        return None;
    }
    let mut buffer = Buffer::new(lz4_flex::block::get_maximum_output_size(payload.len()))?;
    let length = lz4_flex::block::compress_into(payload, buffer.bytes_mut()).ok()?;
    (length <= payload.len() - payload.len() / PACK_GAIN).then(|| (Arc::new(buffer), length))
}

#[cfg(test)]
#[path = "bundle_tests.rs"]
mod tests;
