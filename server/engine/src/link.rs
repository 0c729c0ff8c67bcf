//! One heartbeat path, judged as BFD does: Down -> Init -> Up.
//!
//! ```text
//!   Down --heard, not echoed--> Init --echoed--> Up
//!     ^                           |              |
//!     +------silent--------------+--------------+
//! ```
//! A path is Up only while the twin echoes this very life of our node process: one-way paths and recorded datagrams of other
//! lives never count.

use peer::heartbeat::{Echo, Heartbeat};
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use wire::ids::SECOND;
use wire::view::LinkState;
use wire::{Incarnation, LinkId, Time};

/// Heartbeats remembered for the round trip: more than three seconds at the default interval.
const SENT_MAX: usize = 64;
/// Losses are counted over this time.
const LOSS_WINDOW: u64 = 10 * SECOND;
/// Loss in percent from which a path counts as slow.
const SLOW_LOSS: u8 = 20;
/// Round trip in microseconds from which a path counts as slow: a tenth of a second delays every write.
const SLOW_TRIP: u64 = 100_000;

/// Where a path stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Phase {
    /// Nothing is heard.
    Down,
    /// The twin is heard, but it does not hear us.
    Init,
    /// Both hear each other.
    Up,
}

/// One path.
#[derive(Clone, Debug)]
pub struct Link {
    /// Its id.
    pub id: LinkId,
    phase: Phase,
    heard: Option<Time>,
    echoed: Option<Time>,
    twin: Option<(Incarnation, u64)>,
    sequence: u64,
    sent: VecDeque<(u64, Time)>,
    trip: Option<u64>,
    shown_trip: Option<u64>,
    arrivals: VecDeque<(Time, u64, bool)>,
    /// This host's end has a carrier.
    pub carrier: bool,
    /// The twin says its end has none.
    pub twin_no_carrier: bool,
    /// Since when it is up without a break.
    pub up_since: Option<Time>,
    /// What was last told about it: that it is up, or lost.
    pub told_up: Option<bool>,
}

impl Link {
    /// A path nobody has spoken on.
    #[must_use]
    pub fn new(id: LinkId) -> Link {
        Link {
            id,
            phase: Phase::Down,
            heard: None,
            echoed: None,
            twin: None,
            sequence: 0,
            sent: VecDeque::new(),
            trip: None,
            shown_trip: None,
            arrivals: VecDeque::new(),
            carrier: true,
            twin_no_carrier: false,
            up_since: None,
            told_up: None,
        }
    }

    /// Where it stands.
    #[must_use]
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// The number and echo of a heartbeat that leaves now.
    pub fn next_beat(&mut self, now: Time) -> (u64, Option<Echo>) {
        self.sequence += 1;
        self.sent.push_back((self.sequence, now));
        if self.sent.len() > SENT_MAX {
            self.sent.pop_front();
        }
        let echo = self.twin.zip(self.heard).filter(|_| self.phase != Phase::Down);
        let echo = echo.map(|((node, sequence), heard)| Echo { node, sequence, held_us: now.since(heard) });
        (self.sequence, echo)
    }

    /// A heartbeat came. Returns whether it proves that its sender hears this life of ours (and so may be believed).
    pub fn hear(&mut self, beat: &Heartbeat, me: Incarnation, now: Time) -> bool {
        if let Some((node, sequence)) = self.twin
            && node == beat.node
            && beat.sequence <= sequence
        {
            return false;
        }
        let lost = match self.twin {
            Some((node, sequence)) if node == beat.node => beat.sequence - sequence - 1,
            Some(_) | None => 0,
        };
        self.twin = Some((beat.node, beat.sequence));
        self.heard = Some(now);
        self.arrivals.push_back((now, lost.min(1_000), true));
        while self.arrivals.front().is_some_and(|(at, ..)| now.since(*at) > LOSS_WINDOW) {
            self.arrivals.pop_front();
        }
        let sent = beat.echo.filter(|echo| echo.node == me).and_then(|echo| {
            let found = self.sent.iter().find(|(number, _)| *number == echo.sequence);
            found.map(|(_, at)| now.since(*at).saturating_sub(echo.held_us))
        });
        if let Some(trip) = sent {
            self.trip = Some(self.trip.map_or(trip, |old| (old * 7 + trip) / 8));
            self.echoed = Some(now);
            self.phase = Phase::Up;
            self.up_since = self.up_since.or(Some(now));
            self.show_trip();
            return true;
        }
        if self.phase == Phase::Down {
            self.phase = Phase::Init;
        }
        false
    }

    /// The shown round trip moves only when it differs by a third: a page is not redrawn for noise.
    fn show_trip(&mut self) {
        let Some(trip) = self.trip else { return };
        let near = self.shown_trip.is_some_and(|shown| trip.abs_diff(shown) * 3 <= shown + 60);
        if !near {
            self.shown_trip = Some(trip);
        }
    }

    /// Judges silence.
    pub fn tick(&mut self, lost_after: u64, now: Time) {
        let recent = |at: Option<Time>| at.is_some_and(|at| now.since(at) < lost_after);
        self.phase = match (recent(self.heard), recent(self.echoed)) {
            (false, _) => Phase::Down,
            (true, false) => Phase::Init,
            (true, true) => Phase::Up,
        };
        if self.phase != Phase::Up {
            self.up_since = None;
            self.trip = None;
            self.shown_trip = None;
        }
    }

    /// The round trip for the page, in microseconds.
    #[must_use]
    pub fn round_trip(&self) -> Option<u64> {
        self.shown_trip
    }

    /// Lost heartbeats in percent over the last ten seconds.
    #[must_use]
    pub fn loss(&self) -> u8 {
        let came = self.arrivals.len() as u64;
        let lost: u64 = self.arrivals.iter().map(|(_, lost, _)| lost).sum();
        u8::try_from((lost * 100).checked_div(came + lost).unwrap_or(0)).unwrap_or(100)
    }

    /// The state for the page.
    #[must_use]
    pub fn state(&self) -> LinkState {
        if !self.carrier || self.twin_no_carrier && self.phase != Phase::Up {
            return LinkState::NoCable;
        }
        match self.phase {
            Phase::Down | Phase::Init => LinkState::Lost,
            Phase::Up if self.loss() >= SLOW_LOSS => LinkState::Slow,
            Phase::Up if self.shown_trip.is_some_and(|trip| trip >= SLOW_TRIP) => LinkState::Slow,
            Phase::Up => LinkState::Up,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wire::NodeId;

    const ME: Incarnation = Incarnation([1; 16]);
    const TWIN: Incarnation = Incarnation([2; 16]);
    const LOST: u64 = 500_000;

    fn beat(sequence: u64, echo: Option<Echo>) -> Heartbeat {
        Heartbeat {
            from: NodeId(2),
            host: TWIN,
            node: TWIN,
            sequence,
            nonce: 1,
            echo,
            grant: None,
            servers: Vec::new(),
            groups: Vec::new(),
            no_carrier: Vec::new(),
            witness: false,
            config_version: 1,
            upkeep: peer::heartbeat::Upkeep::default(),
        }
    }

    fn echo(sequence: u64) -> Option<Echo> {
        Some(Echo { node: ME, sequence, held_us: 0 })
    }

    enum Happens {
        Beat(Heartbeat),
        Silence,
    }

    #[test]
    fn phases_follow_the_diagram() {
        use Happens::{Beat, Silence};
        let stranger = Some(Echo { node: TWIN, sequence: 1, held_us: 0 });
        let table: Vec<(&str, Vec<Happens>, Phase)> = vec![
            ("nothing heard", vec![], Phase::Down),
            ("heard, not echoed", vec![Beat(beat(1, None))], Phase::Init),
            ("echo of another life", vec![Beat(beat(1, stranger))], Phase::Init),
            ("echo of a number never sent", vec![Beat(beat(1, echo(99)))], Phase::Init),
            ("echoed", vec![Beat(beat(1, echo(1)))], Phase::Up),
            ("echoed, then silent", vec![Beat(beat(1, echo(1))), Silence], Phase::Down),
            ("an old number changes nothing", vec![Beat(beat(5, None)), Beat(beat(4, echo(1)))], Phase::Init),
        ];
        for (name, happens, expected) in table {
            let mut link = Link::new(LinkId(0));
            let mut now = Time(1_000_000);
            let _ = link.next_beat(now);
            for what in happens {
                match what {
                    Beat(beat) => {
                        now = now.plus(1_000);
                        link.hear(&beat, ME, now);
                    }
                    Silence => {
                        now = now.plus(LOST);
                        link.tick(LOST, now);
                    }
                }
            }
            assert_eq!(link.phase(), expected, "{name}");
        }
    }

    #[test]
    fn a_path_that_is_heard_but_never_echoed_falls_back_to_init() {
        let mut link = Link::new(LinkId(0));
        let _ = link.next_beat(Time(0));
        assert!(link.hear(&beat(1, echo(1)), ME, Time(1_000)));
        for n in 2..10 {
            link.hear(&beat(n, None), ME, Time(n * 100_000));
            link.tick(LOST, Time(n * 100_000));
        }
        assert_eq!(link.phase(), Phase::Init);
        assert_eq!(link.state(), LinkState::Lost);
    }

    #[test]
    fn round_trip_leaves_out_the_time_held_and_gaps_are_losses() {
        let mut link = Link::new(LinkId(0));
        let _ = link.next_beat(Time(0));
        let held = Some(Echo { node: ME, sequence: 1, held_us: 50_000 });
        link.hear(&beat(1, held), ME, Time(50_300));
        assert_eq!(link.round_trip(), Some(300));
        link.hear(&beat(5, None), ME, Time(90_000));
        assert_eq!(link.loss(), 60);
    }
}
