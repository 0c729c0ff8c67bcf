//! Frames over a real socket pair and ring: cut anywhere, damaged, of every length, and when there are no slots.

use super::*;
use crate::limits::LARGE_SLOTS;
use peer::block::Body;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};
use wire::{Epoch, Session};

/// Nothing here takes a fraction of it.
const PATIENCE: Duration = Duration::from_secs(30);

struct End {
    ring: Ring<Token>,
    pools: Pools,
    stream: Stream,
    lost: bool,
}

impl End {
    fn new(socket: UnixStream) -> Self {
        let stream = Stream::new(socket.into(), 1).unwrap();
        End { ring: Ring::new().unwrap(), pools: Pools::new().unwrap(), stream, lost: false }
    }

    fn turn(&mut self) {
        self.stream.receive(&mut self.ring);
        self.stream.pump(&mut self.ring);
        self.ring.wait(Some(Duration::from_millis(100)), Duration::ZERO).unwrap();
        while let Some(done) = self.ring.next() {
            let receive = matches!(done.token, Token::Receive(_));
            let alive = if receive {
                self.stream.received(done.result, done.buffer)
            } else {
                self.stream.sent(done.result)
            };
            self.lost |= !alive;
        }
    }

    /// The next frame with its payload.
    fn frame(&mut self) -> Result<(Frame, Option<Buffer>), FrameFault> {
        let began = Instant::now();
        loop {
            if let Step::Frame(frame, payload) = self.stream.step(&self.pools, None)? {
                return Ok((frame, payload));
            }
            assert!(began.elapsed() < PATIENCE && !self.lost, "no frame comes");
            self.turn();
        }
    }
}

fn write_frame(sequence: u64, length: u32) -> Frame {
    Frame { epoch: Epoch(3), session: Session(4), sequence, body: Body::Write { offset: 4096, length } }
}

fn payload(length: u32) -> Vec<u8> {
    (0..length).map(|n| (n % 251) as u8).collect()
}

fn on_the_wire(frame: &Frame, data: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode(frame, checksum(data), &mut bytes).unwrap();
    bytes.extend_from_slice(data);
    bytes
}

/// Lengths that take every way: small slot, staged whole, staged in part, received in place.
const LENGTHS: [u32; 6] = [512, 4096, 16_384, 20_480, 300 << 10, 1 << 20];

#[test]
fn frames_arrive_whole_however_they_are_cut() {
    for cut in [1_usize, 47, 4096, 100_000] {
        let (mut far, near) = UnixStream::pair().unwrap();
        let sender = std::thread::spawn(move || {
            // Byte by byte the long ones would take minutes.
            let lengths = LENGTHS.iter().filter(|length| cut > 1 || **length <= 4096);
            let frames = (1..)
                .zip(lengths)
                .map(|(n, length)| on_the_wire(&write_frame(n, *length), &payload(*length)));
            for part in frames.collect::<Vec<_>>().concat().chunks(cut) {
                far.write_all(part).unwrap();
            }
            far
        });
        let mut end = End::new(near);
        for (sequence, length) in (1..).zip(LENGTHS.iter().filter(|length| cut > 1 || **length <= 4096)) {
            let (frame, data) = end.frame().unwrap();
            assert_eq!(frame, write_frame(sequence, *length));
            assert_eq!(data.unwrap().first(*length as usize), payload(*length));
        }
        drop(sender.join().unwrap());
        while !end.lost {
            end.turn();
        }
    }
}

#[test]
fn a_flipped_bit_anywhere_is_seen() {
    let whole = on_the_wire(&write_frame(1, 512), &payload(512));
    for at in (0..whole.len()).step_by(7) {
        let (mut far, near) = UnixStream::pair().unwrap();
        let mut bytes = whole.clone();
        bytes[at] ^= 0x10;
        // More follows, so that a length that grew does not make it wait.
        bytes.resize(bytes.len() + (2 << 20), 0);
        let sender = std::thread::spawn(move || far.write_all(&bytes));
        let mut end = End::new(near);
        assert!(end.frame().is_err(), "bit flipped in byte {at}");
        drop(end);
        let _ = sender.join().unwrap();
    }
}

#[test]
fn without_a_slot_it_stalls_and_goes_on_with_one() {
    let (mut far, near) = UnixStream::pair().unwrap();
    let mut end = End::new(near);
    let mut taken: Vec<Buffer> = (0..LARGE_SLOTS).map(|_| end.pools.large.take().unwrap()).collect();
    let sender = std::thread::spawn(move || {
        far.write_all(&on_the_wire(&write_frame(1, 1 << 20), &payload(1 << 20))).unwrap();
        far
    });
    let began = Instant::now();
    while !matches!(end.stream.step(&end.pools, None).unwrap(), Step::Stalled) {
        assert!(began.elapsed() < PATIENCE, "never stalled");
        end.turn();
    }
    taken.pop();
    let (_, data) = end.frame().unwrap();
    assert_eq!(data.unwrap().first(1 << 20), payload(1 << 20));
    drop(sender.join().unwrap());
}

#[test]
fn what_is_queued_goes_out_in_order_and_answers_share_a_piece() {
    let (near, mut far) = UnixStream::pair().unwrap();
    let mut end = End::new(near);
    let mut expected = Vec::new();
    for (sequence, length) in (1..).zip(LENGTHS) {
        let mut data = Buffer::new(length as usize).unwrap();
        data.bytes_mut()[..length as usize].copy_from_slice(&payload(length));
        assert!(end.stream.queue(&write_frame(sequence, length), Some((&Arc::new(data), 0))).unwrap());
        expected.extend(on_the_wire(&write_frame(sequence, length), &payload(length)));
    }
    for of in 0..10 {
        let answer =
            Frame { epoch: Epoch(3), session: Session(4), sequence: 100 + of, body: Body::Written { of } };
        assert!(end.stream.queue(&answer, None).unwrap());
        expected.extend(on_the_wire(&answer, &[]));
    }
    assert_eq!(end.stream.outgoing.len(), LENGTHS.len() + 1);
    let length = expected.len();
    let receiver = std::thread::spawn(move || {
        let mut found = vec![0; length];
        far.read_exact(&mut found).unwrap();
        found
    });
    let began = Instant::now();
    while !receiver.is_finished() {
        assert!(began.elapsed() < PATIENCE, "not all was sent");
        end.turn();
    }
    assert!(receiver.join().unwrap() == expected, "other bytes than queued");
    assert_eq!(end.stream.sent, length as u64);
}
