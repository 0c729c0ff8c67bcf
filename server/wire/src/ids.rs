//! Newtypes for everything that has an identity or an order, so that no bare number crosses a border.

use serde::{Deserialize, Serialize};
use std::fmt;

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($inner:ty), $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub $inner);
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { write!(f, concat!($prefix, "{}"), self.0) }
        }
    };
}

number!(
    /// A server of the cluster, 1 or 2 in a mirror cluster (A1). Server 1 is drawn left.
    NodeId(u8), "server#");
number!(
    /// A failover group (B1).
    GroupId(u16), "group#");
number!(
    /// A mirror set (C1).
    SetId(u16), "set#");
number!(
    /// An interconnect, in the configured order; the first is the primary one (A6).
    LinkId(u8), "link#");
number!(
    /// One holder's term over a group, raised by the register at each change of holder (DESIGN 5, 6).
    Epoch(u64), "e");
number!(
    /// Orders the connections and activations inside an epoch; raised and stored at each (DESIGN 5).
    Session(u64), "s");
number!(
    /// A revision of the view; each delta raises it by one (DESIGN 8).
    Revision(u64), "r");
number!(
    /// An operator's command, chosen by the client and echoed in its one reply.
    CommandId(u64), "c");
number!(
    /// Wall-clock time in milliseconds since 1970-01-01 UTC: shown to people, never decided upon.
    WallClock(u64), "");
number!(
    /// The cores' time in microseconds of CLOCK_BOOTTIME since an origin the shell chose. Never asked for, always an argument.
    Time(u64), "");

impl Time {
    /// This time plus a number of microseconds.
    #[must_use]
    pub fn plus(self, micros: u64) -> Time {
        Time(self.0.saturating_add(micros))
    }
    /// Microseconds since `earlier`; 0 if that lies ahead.
    #[must_use]
    pub fn since(self, earlier: Time) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// Microseconds in a millisecond, for the time-outs of the cores.
pub const MILLIS: u64 = 1_000;
/// Microseconds in a second.
pub const SECOND: u64 = 1_000_000;

impl NodeId {
    /// The two servers of a mirror cluster.
    pub const BOTH: [NodeId; 2] = [NodeId(1), NodeId(2)];
    /// The other server of the pair.
    #[must_use]
    pub fn twin(self) -> NodeId {
        if self.0 == 1 { NodeId(2) } else { NodeId(1) }
    }
}

macro_rules! random128 {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub [u8; 16]);
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { write!(f, "{self}") }
        }
        impl Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                if s.is_human_readable() { s.collect_str(self) } else { self.0.serialize(s) }
            }
        }
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                if !d.is_human_readable() { return <[u8; 16]>::deserialize(d).map($name); }
                let text = String::deserialize(d)?;
                parse_hex(&text).map($name).ok_or_else(|| serde::de::Error::custom("expected 32 hexadecimal digits"))
            }
        }
    };
}

random128!(
    /// A random id of one state of a mirror set's data; a copy's history is a list of them (DESIGN 5).
    Generation);
random128!(
    /// A random id of one life of a host, a node process or the witness's memory. A new one means: it was down (DESIGN 6).
    Incarnation);

fn parse_hex(text: &str) -> Option<[u8; 16]> {
    if text.len() != 32 || !text.is_ascii() {
        return None;
    }
    let mut bytes = [0; 16];
    for (i, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(2 * i..2 * i + 2)?, 16).ok()?;
    }
    Some(bytes)
}
