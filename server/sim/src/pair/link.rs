//! The link between the two sides: one stream at a time that delivers late, breaks at any frame, and may hold what an older
//! one left behind.

use super::{Event, Values, World};
use crate::queue::Instant;
use mirror::Input;
use mirror::action::Data;
use mirror::input::PayloadId;
use peer::block::{Body, Frame};
use std::collections::VecDeque;

/// Microseconds a frame takes.
const DELAY: (u64, u64) = (20, 400);
/// Microseconds until a broken stream's end is noticed.
const NOTICE: (u64, u64) = (0, 3_000);
/// Microseconds between two attempts to connect.
const DIAL: (u64, u64) = (500, 8_000);
/// Frames of older streams that are kept to be delivered late.
const LATE_MAX: usize = 96;

struct Sent {
    at: Instant,
    frame: Frame,
    values: Option<Values>,
}

#[derive(Default)]
struct Stream {
    number: u64,
    /// Frames on their way to each side.
    ways: [VecDeque<Sent>; 2],
    due: [Instant; 2],
    broken: bool,
}

/// The cable and what runs over it.
#[derive(Default)]
pub(super) struct Link {
    stream: Stream,
    streams: u64,
    /// An attempt to connect is to come.
    dials: bool,
    /// Frames wait until then.
    pub(super) cut_until: Instant,
    /// Frames of older streams on their way to each side, and whether this run delivers them.
    late: [Vec<(Frame, Option<Values>)>; 2],
    pub(super) keeps_late: bool,
}

impl World {
    /// An attempt to connect is to come soon.
    pub(super) fn dial(&mut self) {
        if !self.link.dials {
            self.link.dials = true;
            let delay = self.rng.range(DIAL.0, DIAL.1);
            self.queue.after(delay, Event::Connect);
        }
    }

    /// Both ends look for each other until they have met.
    pub(super) fn connect(&mut self) {
        self.link.dials = false;
        let now = self.queue.now();
        let ready = |side: usize| {
            let host = &self.sides[side];
            host.process.is_some() && now >= host.frozen_until
        };
        let live = |side: usize| {
            let stream = self.sides[side].process.as_ref().and_then(|process| process.stream);
            stream == Some(self.link.stream.number) && !self.link.stream.broken
        };
        if live(0) && live(1) {
            return;
        }
        // One end alone may not know yet that its stream is gone: now and then it takes the new one all the same.
        let able = now >= self.link.cut_until && ready(0) && ready(1);
        if !able || (live(0) || live(1)) && self.rng.percent(70) {
            self.dial();
            return;
        }
        self.forget_stream();
        self.link.streams += 1;
        let number = self.link.streams;
        self.link.stream = Stream { number, due: [now; 2], ..Stream::default() };
        self.say(|| format!("stream {number} connects"));
        for side in 0..2 {
            let Some(process) = &mut self.sides[side].process else { continue };
            let old = process.stream.replace(number);
            if old.is_some() {
                self.input(side, Input::LinkLost);
            }
        }
        for side in 0..2 {
            let attached = |process: &super::Process| process.stream == Some(number);
            if self.sides[side].process.as_ref().is_some_and(attached) {
                self.input(side, Input::LinkConnected { dialled: side == 0 });
            }
        }
    }

    /// Keeps what the stream has not delivered, for later.
    fn forget_stream(&mut self) {
        if self.link.keeps_late {
            for to in 0..2 {
                let sent = std::mem::take(&mut self.link.stream.ways[to]);
                for sent in sent {
                    self.keep_late(to, sent.frame, sent.values);
                }
            }
        }
    }

    fn keep_late(&mut self, to: usize, frame: Frame, values: Option<Values>) {
        let late = &mut self.link.late[to];
        if late.len() < LATE_MAX && matches!(frame.body, Body::Write { .. } | Body::Copy { .. } | Body::Flush)
        {
            late.push((frame, values));
        }
    }

    /// A side sends a frame.
    pub(super) fn send(&mut self, side: usize, frame: Frame, values: Option<Values>) {
        self.note_sent(side, &frame);
        let stream = self.sides[side].process.as_ref().and_then(|process| process.stream);
        if stream != Some(self.link.stream.number) || self.link.stream.broken {
            return;
        }
        let to = 1 - side;
        let slow = if self.rng.per_mille(10) { 30 } else { 1 };
        let at = self.queue.now() + self.rng.range(DELAY.0, DELAY.1) * slow;
        let stream = &mut self.link.stream;
        stream.due[to] = stream.due[to].max(at);
        let at = stream.due[to];
        stream.ways[to].push_back(Sent { at, frame, values });
        let number = stream.number;
        self.queue.at(at, Event::Frame { stream: number, to });
    }

    /// The next frame of a stream is due.
    pub(super) fn frame_arrives(&mut self, number: u64, to: usize) {
        let now = self.queue.now();
        if number != self.link.stream.number {
            return;
        }
        if now < self.link.cut_until {
            let until = self.link.cut_until;
            self.queue.at(until, Event::Frame { stream: number, to });
            return;
        }
        let way = &mut self.link.stream.ways[to];
        if way.front().is_none_or(|sent| sent.at > now) {
            return;
        }
        let Some(Sent { frame, values, .. }) = way.pop_front() else { return };
        if self.sides[to].process.as_ref().is_none_or(|process| process.stream != Some(number)) {
            return;
        }
        if self.link.keeps_late && self.late_instead(to, &frame) {
            return;
        }
        if self.link.keeps_late && self.rng.percent(30) {
            self.keep_late(to, frame.clone(), values.clone());
        }
        self.deliver(to, frame, values);
    }

    /// A frame of an older stream comes in the place of this one, with the number that is expected.
    fn late_instead(&mut self, to: usize, frame: &Frame) -> bool {
        let fits = |(old, _): &(Frame, _)| old.sequence == frame.sequence && old.session < frame.session;
        let Some(place) = self.link.late[to].iter().position(fits) else { return false };
        if self.rng.percent(70) {
            return false;
        }
        let (old, values) = self.link.late[to].remove(place);
        self.say(|| format!("a frame of an older stream comes late to side {}", to + 1));
        self.deliver(to, old, values);
        true
    }

    fn deliver(&mut self, to: usize, frame: Frame, values: Option<Values>) {
        let fresh = self.fresh();
        let Some(process) = &mut self.sides[to].process else { return };
        let payload = values.map(|values| {
            process.payloads.insert(PayloadId(fresh), values);
            if matches!(frame.body, Body::Copy { .. }) {
                process.copied.insert(Data::Payload(PayloadId(fresh)));
            }
            PayloadId(fresh)
        });
        self.input(to, Input::Received { frame, payload });
    }

    /// A side lets go of its stream: the other one is told, if it can be, after what is on its way.
    pub(super) fn detach(&mut self, side: usize) {
        let Some(process) = &mut self.sides[side].process else { return };
        let Some(stream) = process.stream.take() else { return };
        self.end_stream(stream, 1 - side);
    }

    /// The end of a stream is on its way to a side.
    pub(super) fn end_stream(&mut self, stream: u64, to: usize) {
        if stream != self.link.stream.number {
            return;
        }
        self.link.stream.broken = true;
        self.dial();
        // A reset overtakes what is on its way; an orderly end follows it.
        if self.rng.percent(40) {
            self.forget_stream();
            self.link.stream.ways[to].clear();
        }
        let at = self.link.stream.due[to].max(self.queue.now()) + self.rng.range(NOTICE.0, NOTICE.1);
        self.queue.at(at, Event::Closed { stream, to });
    }

    /// A side learns that its stream has ended.
    pub(super) fn stream_ended(&mut self, stream: u64, to: usize) {
        if self.queue.now() < self.link.cut_until {
            let until = self.link.cut_until;
            self.queue.at(until, Event::Closed { stream, to });
            return;
        }
        let Some(process) = &mut self.sides[to].process else { return };
        if process.stream == Some(stream) {
            process.stream = None;
            self.input(to, Input::LinkLost);
        }
    }

    /// The stream breaks in the middle: both ends will notice.
    pub(super) fn break_stream(&mut self) {
        let number = self.link.stream.number;
        for to in 0..2 {
            self.end_stream(number, to);
        }
    }
}
