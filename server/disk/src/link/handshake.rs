//! Who may open a block link: both ends prove that they know the cluster key before any frame.
//!
//! Each side sends a greeting (who it is, a fresh random challenge), then a proof: a BLAKE3 tag under the cluster key over the
//! role, both greetings and so both challenges. The role in the tag keeps a proof from being sent back to its maker.

use std::io::{self, Read, Write};
use wire::{NodeId, SetId};

/// First bytes of every block link; the last one is the version.
const MAGIC: [u8; 8] = *b"futagoB\x01";
/// Bytes of a greeting.
const GREETING: usize = 64;
/// Bytes of a proof.
const PROOF: usize = 32;
/// Separates these tags from all other uses of the cluster key.
const CONTEXT: &[u8] = b"futago block link proof 1";

/// The cluster's secret, 32 random bytes; printed nowhere.
#[derive(Clone)]
pub(crate) struct Key([u8; 32]);

impl Key {
    /// From the key file's bytes.
    pub(crate) fn new(bytes: [u8; 32]) -> Self {
        Key(bytes)
    }

    /// Another secret for another use.
    pub(crate) fn derive(&self, context: &[u8]) -> [u8; 32] {
        *blake3::keyed_hash(&self.0, context).as_bytes()
    }
}

/// Who speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    /// The mirror set.
    pub set: SetId,
    /// This side's server.
    pub side: NodeId,
}

/// Which connection of which block link: told by the side that dials.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Line {
    /// Random number of the link.
    pub bundle: u64,
    /// The interconnect, from 0.
    pub lane: u8,
    /// How many interconnects the link uses together.
    pub lanes: u8,
    /// The link stands already; this is one more connection of it.
    pub joins: bool,
    /// Encrypted: if either side wants it.
    pub encrypt: bool,
    /// Payloads are packed: if either side wants it.
    pub pack: bool,
}

/// Which end of the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Dialler,
    Listener,
}

/// Why a connection is not the twin's.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Stranger {
    #[error("no answer in the handshake: {0}")]
    Silent(#[from] io::Error),
    #[error("not a futago block link of this version: the same program is needed on both servers")]
    Version,
    #[error("it is {found:?}, {wanted:?} was expected: check the configuration of both servers")]
    Other { found: Identity, wanted: Identity },
    #[error("it does not know the cluster key: pair the servers again if it is the twin")]
    Key,
}

fn greeting(who: Identity, line: Line, challenge: [u8; 32]) -> [u8; GREETING] {
    let mut bytes = [0; GREETING];
    bytes[..8].copy_from_slice(&MAGIC);
    bytes[8..10].copy_from_slice(&who.set.0.to_le_bytes());
    bytes[10] = who.side.0;
    bytes[11] = line.lane;
    bytes[12] = u8::from(line.joins);
    bytes[13] = line.lanes;
    bytes[14] = u8::from(line.encrypt);
    bytes[15] = u8::from(line.pack);
    bytes[16..24].copy_from_slice(&line.bundle.to_le_bytes());
    bytes[32..].copy_from_slice(&challenge);
    bytes
}

fn identity(greeting: &[u8; GREETING]) -> Result<Identity, Stranger> {
    if greeting[..8] != MAGIC {
        return Err(Stranger::Version);
    }
    Ok(Identity { set: SetId(u16::from_le_bytes([greeting[8], greeting[9]])), side: NodeId(greeting[10]) })
}

fn line(greeting: &[u8; GREETING]) -> Line {
    let mut bundle = [0; 8];
    bundle.copy_from_slice(&greeting[16..24]);
    Line {
        bundle: u64::from_le_bytes(bundle),
        lane: greeting[11],
        lanes: greeting[13],
        joins: greeting[12] != 0,
        encrypt: greeting[14] != 0,
        pack: greeting[15] != 0,
    }
}

fn proof(key: &Key, from: End, dialler: &[u8; GREETING], listener: &[u8; GREETING]) -> blake3::Hash {
    let role = match from {
        End::Dialler => b"dialler!",
        End::Listener => b"listener",
    };
    let mut hasher = blake3::Hasher::new_keyed(&key.0);
    hasher.update(CONTEXT).update(role).update(dialler).update(listener);
    hasher.finalize()
}

/// Greets and proves over a fresh stream whose reads and writes are bounded in time by the caller. Gives which connection it
/// is, as the side that dialled says.
///
/// # Errors
/// The other end is silent, another version, another identity than `peer`, or without the key.
pub(crate) fn shake(
    stream: &mut (impl Read + Write),
    end: End,
    (me, peer): (Identity, Identity),
    own_line: Line,
    key: &Key,
    challenge: [u8; 32],
) -> Result<Line, Stranger> {
    let mine = greeting(me, own_line, challenge);
    stream.write_all(&mine)?;
    let mut theirs = [0; GREETING];
    stream.read_exact(&mut theirs)?;
    let found = identity(&theirs)?;
    if found != peer {
        return Err(Stranger::Other { found, wanted: peer });
    }
    let (dialler, listener, other) = match end {
        End::Dialler => (&mine, &theirs, End::Listener),
        End::Listener => (&theirs, &mine, End::Dialler),
    };
    stream.write_all(proof(key, end, dialler, listener).as_bytes())?;
    let mut answer = [0; PROOF];
    stream.read_exact(&mut answer)?;
    // blake3::Hash compares in constant time.
    if proof(key, other, dialler, listener) != blake3::Hash::from_bytes(answer) {
        return Err(Stranger::Key);
    }
    let asked = line(&theirs);
    let (encrypt, pack) = (own_line.encrypt || asked.encrypt, own_line.pack || asked.pack);
    Ok(Line { encrypt, pack, ..line(dialler) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixStream;
    use std::time::Duration;

    const ONE: Identity = Identity { set: SetId(3), side: NodeId(1) };
    const TWO: Identity = Identity { set: SetId(3), side: NodeId(2) };

    const LINE: Line =
        Line { bundle: 0x1234_5678_9abc_def0, lane: 1, lanes: 2, joins: true, encrypt: true, pack: false };

    type Outcome = Result<Line, Stranger>;

    fn meet(key_one: [u8; 32], key_two: [u8; 32], wanted: Identity) -> (Outcome, Outcome) {
        let (mut one, mut two) = UnixStream::pair().unwrap();
        one.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        two.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let listener = std::thread::spawn(move || {
            let key = Key::new(key_two);
            shake(&mut two, End::Listener, (TWO, ONE), Line::default(), &key, [2; 32])
        });
        let dialled = shake(&mut one, End::Dialler, (ONE, wanted), LINE, &Key::new(key_one), [1; 32]);
        drop(one);
        (dialled, listener.join().unwrap())
    }

    #[test]
    fn twins_meet() {
        let (dialled, listened) = meet([7; 32], [7; 32], TWO);
        assert_eq!((dialled.unwrap(), listened.unwrap()), (LINE, LINE));
    }

    #[test]
    fn another_key_is_refused_on_both_sides() {
        let (dialled, listened) = meet([7; 32], [8; 32], TWO);
        assert!(matches!(dialled, Err(Stranger::Key | Stranger::Silent(_))));
        assert!(matches!(listened, Err(Stranger::Key | Stranger::Silent(_))));
    }

    #[test]
    fn another_set_is_named() {
        let (dialled, _) = meet([7; 32], [7; 32], Identity { set: SetId(4), side: NodeId(2) });
        assert!(matches!(dialled, Err(Stranger::Other { found: TWO, .. })));
    }

    /// A stream that says back what it is told, as one without the key could.
    struct Mirror(std::collections::VecDeque<u8>);
    impl Read for Mirror {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            self.0.read(into)
        }
    }
    impl Write for Mirror {
        fn write(&mut self, from: &[u8]) -> io::Result<usize> {
            self.0.write(from)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn an_echo_proves_nothing() {
        let mut echo = Mirror(std::collections::VecDeque::new());
        let result = shake(&mut echo, End::Dialler, (ONE, ONE), LINE, &Key::new([7; 32]), [1; 32]);
        assert!(matches!(result, Err(Stranger::Key)));
    }
}
