//! A link over two connections: one order, both used, either may die with what it carries.

use super::*;
use std::os::unix::net::UnixStream;

/// Nothing here takes a fraction of it.
const PATIENCE: Duration = Duration::from_secs(30);
const FRAMES: u64 = 400;

struct Side {
    ring: Ring<Token>,
    pools: Pools,
    bundle: Bundle,
    /// Frames taken in order, by sequence, with the first byte of their payload.
    taken: Vec<(u64, u8)>,
    gone: bool,
}

impl Side {
    fn new(sockets: [UnixStream; 2], packs: bool) -> Self {
        let [one, two] = sockets.map(|socket| socket.into());
        let mut bundle = Bundle::new(7, 0, Stream::new(one, 1).unwrap(), None, (true, packs));
        bundle.join(1, Stream::new(two, 2).unwrap(), None);
        let (ring, pools) = (Ring::new().unwrap(), Pools::new().unwrap());
        Side { ring, pools, bundle, taken: Vec::new(), gone: false }
    }

    fn turn(&mut self) {
        loop {
            match self.bundle.step(&self.pools, &mut self.ring) {
                Ok(Step::Frame(frame, payload)) => {
                    let first = payload.map_or(0, |payload| payload.bytes()[0]);
                    self.taken.push((frame.sequence, first));
                }
                Ok(Step::Hungry | Step::Stalled) => break,
                Err(LaneFault { serial, .. }) => self.gone |= !self.bundle.lose(serial),
            }
        }
        self.bundle.pump(&mut self.ring);
        self.ring.wait(Some(Duration::from_millis(2)), Duration::ZERO).unwrap();
        while let Some(done) = self.ring.next() {
            let (serial, lives) = if let Token::Receive(serial) = done.token {
                (serial, self.bundle.received_done(serial, done.result, done.buffer))
            } else if let Token::Send(serial) = done.token {
                (serial, self.bundle.sent_done(serial, done.result))
            } else {
                continue;
            };
            if !lives {
                self.gone |= !self.bundle.lose(serial);
            }
        }
    }

    fn send(&mut self, sequence: u64, length: u32) {
        let mut data = Buffer::new(length as usize).unwrap();
        data.bytes_mut().fill(sequence as u8);
        let body = Body::Write { offset: 0, length };
        let frame = Frame { epoch: Epoch(1), session: Session(1), sequence, body };
        assert!(self.bundle.queue(&frame, Some((&Arc::new(data), 0))).unwrap());
    }

    /// Lanes over which something was sent.
    fn lanes_used(&self) -> usize {
        self.bundle.lanes.iter().flatten().filter(|lane| lane.stream.sent > 1 << 20).count()
    }
}

fn sides() -> [Side; 2] {
    sides_that(false)
}

fn sides_that(packs: bool) -> [Side; 2] {
    let ((a, b), (c, d)) = (UnixStream::pair().unwrap(), UnixStream::pair().unwrap());
    [Side::new([a, c], packs), Side::new([b, d], packs)]
}

/// Sends all frames, turning both sides, with `act` before each; then waits until all have come.
fn carry(act: impl Fn(u64, &mut [Side; 2])) -> [Side; 2] {
    carry_over(sides(), act)
}

fn carry_over(mut both: [Side; 2], act: impl Fn(u64, &mut [Side; 2])) -> [Side; 2] {
    let began = Instant::now();
    let mut next = 1;
    while (both[1].taken.len() as u64) < FRAMES || !both[0].bundle.kept.is_empty() {
        assert!(began.elapsed() < PATIENCE, "{} came", both[1].taken.len());
        if next <= FRAMES && both[0].bundle.kept.len() < 24 {
            act(next, &mut both);
            both[0].send(next, [512, 4096, 100 << 10][next as usize % 3]);
            next += 1;
        } else {
            both.iter_mut().for_each(Side::turn);
        }
    }
    let wanted: Vec<(u64, u8)> = (1..=FRAMES).map(|n| (n, n as u8)).collect();
    assert!(both[1].taken == wanted, "each once and in order");
    assert!(both[0].taken.is_empty(), "beats are not for the core");
    both
}

#[test]
fn both_lanes_carry_frames_and_their_order_is_kept() {
    let both = carry(|_, _| {});
    assert_eq!(both[0].lanes_used(), 2);
    assert_eq!(both[0].bundle.acknowledged, FRAMES);
    assert!(both[0].bundle.lanes.iter().flatten().all(|lane| lane.unacknowledged == 0));
}

#[test]
fn packed_payloads_arrive_whole_over_both_lanes() {
    let both = carry_over(sides_that(true), |_, _| {});
    let sent: u64 = both[0].bundle.sent();
    assert!(sent < FRAMES * 1000, "{sent} bytes for {FRAMES} frames of one value each");
}

#[test]
fn what_a_dying_lane_took_with_it_goes_over_the_other() {
    for lane in [0, 1] {
        for at in [1, 7, 150, 399] {
            let both = carry(|next, both| {
                if next == at {
                    both[0].bundle.lanes[lane].as_ref().unwrap().stream.close();
                }
            });
            assert_eq!(both[0].bundle.missing(2), [lane], "lane {lane} at {at}");
            assert!(!both[0].gone && !both[1].gone);
        }
    }
}

#[test]
fn a_lane_comes_back_and_is_used_again() {
    let both = carry(|next, both| {
        if next == 50 {
            both[0].bundle.lanes[1].as_ref().unwrap().stream.close();
        }
        if next == 200 {
            // Both have noticed by now, or take the new connection in place of the old one.
            let (a, b) = UnixStream::pair().unwrap();
            both[0].bundle.join(1, Stream::new(a.into(), 3).unwrap(), None);
            both[1].bundle.join(1, Stream::new(b.into(), 3).unwrap(), None);
        }
    });
    assert_eq!(both[0].bundle.missing(2), [0; 0]);
    assert_eq!(both[0].lanes_used(), 2);
}

#[test]
fn a_lane_that_falls_silent_is_given_up_while_the_other_lives() {
    let mut both = sides();
    assert_eq!(both[0].bundle.silent(), None);
    let began = Instant::now();
    // The cable of lane 1 is cut: nothing arrives over it, and no end of the stream either.
    let place = both[1].bundle.lanes[1].take();
    while both[0].bundle.silent() != Some(2) {
        assert!(began.elapsed() < PATIENCE, "not noticed");
        both.iter_mut().for_each(Side::turn);
    }
    drop(place);
}

#[test]
fn more_told_as_received_than_was_sent_ends_the_lane() {
    let [mut one, _two] = sides();
    one.send(1, 512);
    assert!(one.bundle.acknowledge(2).is_err());
    assert!(one.bundle.acknowledge(1).is_ok());
    assert!(one.bundle.kept.is_empty());
}
