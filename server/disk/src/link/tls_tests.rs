//! TLS between two ends of a socket pair: what is sealed arrives, what was touched does not, another key is refused.

use super::*;
use crate::ring::Piece;
use crate::tls::RECORD_BYTES;
use std::os::unix::net::UnixStream;
use std::time::Duration;

fn meet(one: [u8; 32], two: [u8; 32]) -> (Result<Tls, Stranger>, Result<Tls, Stranger>) {
    let (mut near, mut far) = UnixStream::pair().unwrap();
    for end in [&near, &far] {
        end.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    }
    let listener = std::thread::spawn(move || {
        let tls = shake(&mut far, End::Listener, &Key::new(two));
        // Kept until the other side has said what it thinks.
        (tls, far)
    });
    let dialled = shake(&mut near, End::Dialler, &Key::new(one));
    drop(near);
    (dialled, listener.join().unwrap().0)
}

fn piece(length: usize) -> Piece {
    Piece { head: (0..length).map(|n| (n % 249) as u8).collect(), data: None }
}

#[test]
fn what_is_sealed_arrives_however_it_is_cut() {
    let (one, two) = meet([5; 32], [5; 32]);
    let (mut one, mut two) = (one.unwrap(), two.unwrap());
    for length in [1, 4096, 100_000, 1 << 20] {
        let sealed = one.seal(&[piece(length)]).unwrap();
        assert!(sealed.len() > length);
        let wanted = piece(length).head;
        assert!(!sealed.windows(16).any(|part| wanted.get(..16) == Some(part)), "in clear");
        let mut found = Vec::new();
        for part in sealed.chunks(70_000) {
            let mut into = vec![0; part.len() + RECORD_BYTES];
            let got = two.open(part, &mut into).unwrap();
            found.extend_from_slice(&into[..got]);
        }
        assert!(found == wanted, "{length} bytes");
    }
}

#[test]
fn what_was_touched_on_the_way_is_refused() {
    let (one, two) = meet([5; 32], [5; 32]);
    let mut sealed = one.unwrap().seal(&[piece(5000)]).unwrap();
    sealed[2500] ^= 1;
    assert!(two.unwrap().open(&sealed, &mut vec![0; 5000 + RECORD_BYTES]).is_err());
}

#[test]
fn another_key_is_refused_on_both_sides() {
    let (one, two) = meet([5; 32], [6; 32]);
    assert!(one.is_err() && two.is_err());
}
