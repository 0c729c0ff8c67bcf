//! Clients with and without papers at the door: who is let in, and what the others hear.

use super::*;
use crate::nbd::handshake::{Ended, Export, negotiate};
use crate::nbd::wire::Agreed;
use crate::tls::{Over, Tls};
use rustls::client::{ClientConfig, ClientConnection, Resumption};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

const HOME: &str = "10.1.2.3";
const SET: SetId = SetId(7);
/// In the year 2200.
const LATER: Duration = Duration::from_secs(86_400 * 365 * 230);
const STARTTLS: u32 = 5;
const GO: u32 = 7;
const ACK: u32 = 1;
const TLS_WANTED: u32 = 0x8000_0005;

fn authority(key: u8, set: SetId) -> Authority {
    Authority::of(&Key::new([key; 32]), set).unwrap()
}

fn option(number: u32, data: &[u8]) -> Vec<u8> {
    let mut out = b"IHAVEOPT".to_vec();
    out.extend_from_slice(&number.to_be_bytes());
    out.extend_from_slice(&(data.len() as u32).to_be_bytes());
    out.extend_from_slice(data);
    out
}

/// Says an option; the kind of its last answer.
fn ask(stream: &mut (impl Read + Write), number: u32, data: &[u8]) -> std::io::Result<u32> {
    stream.write_all(&option(number, data))?;
    loop {
        let mut head = [0; 20];
        stream.read_exact(&mut head)?;
        let [.., a, b, c, d] = head;
        let mut data = vec![0; u32::from_be_bytes([a, b, c, d]) as usize];
        stream.read_exact(&mut data)?;
        let kind = u32::from_be_bytes(head[12..16].try_into().unwrap());
        if kind != 3 {
            return Ok(kind);
        }
    }
}

/// What comes of a client that talks to the door of set 7: its own words, and the door's.
fn visit<T>(client: impl FnOnce(&mut UnixStream) -> T) -> (T, Result<Agreed, Ended>) {
    let (mut near, mut far) = UnixStream::pair().unwrap();
    for end in [&near, &far] {
        end.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    }
    let door = std::thread::spawn(move || {
        let config = authority(5, SET).server(&[HOME.parse().unwrap()]).unwrap();
        let export = Export { name: "data".into(), size: 1 << 30, preferred: 4096 };
        negotiate(&mut far, &export, Some(&config)).map(|(agreed, tls)| {
            assert!(tls.is_some());
            agreed
        })
    });
    let mut hello = [0; 18];
    near.read_exact(&mut hello).unwrap();
    near.write_all(&[0, 0, 0, 3]).unwrap();
    let said = client(&mut near);
    drop(near);
    (said, door.join().unwrap())
}

fn certificates(pem: &str) -> Vec<CertificateDer<'static>> {
    CertificateDer::pem_slice_iter(pem.as_bytes()).map(Result::unwrap).collect()
}

/// Goes over TLS with these papers (or only an idea of whom to believe) and enters.
fn enter(stream: &mut UnixStream, papers: &Papers, shown: bool, home: &str) -> std::io::Result<u32> {
    assert_eq!(ask(stream, STARTTLS, &[])?, ACK);
    let mut known = RootCertStore::empty();
    for certificate in certificates(&papers.authority) {
        known.add(certificate).unwrap();
    }
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[&TLS13])
        .unwrap()
        .with_root_certificates(known);
    let mut config = if shown {
        let key = PrivateKeyDer::from_pem_slice(papers.key.as_bytes()).unwrap();
        config.with_client_auth_cert(certificates(&papers.certificate), key).unwrap()
    } else {
        config.with_no_client_auth()
    };
    config.resumption = Resumption::disabled();
    let home = ServerName::try_from(home.to_string()).unwrap();
    let mut tls = Tls::shake(ClientConnection::new(Arc::new(config), home).unwrap(), stream)?;
    let mut over = Over { tls: &mut tls, stream };
    assert_eq!(ask(&mut over, 8, &[])?, ACK);
    // A second time is no time.
    assert_ne!(ask(&mut over, STARTTLS, &[])?, ACK);
    ask(&mut over, GO, &[0; 6])
}

#[test]
fn a_client_with_the_sets_papers_enters_whichever_server_issued_them() {
    let papers = authority(5, SET).client("backup host", LATER).unwrap();
    let (said, let_in) = visit(|stream| enter(stream, &papers, true, HOME));
    assert_eq!(said.unwrap(), ACK);
    assert_eq!(let_in.unwrap(), Agreed { structured: true });
}

#[test]
fn papers_of_another_set_or_cluster_past_their_date_or_none_do_not_let_in() {
    let right = authority(5, SET).client("right", LATER).unwrap();
    let with = |other: Papers| Papers { authority: right.authority.clone(), ..other };
    let strangers = [
        (with(authority(5, SetId(8)).client("other set", LATER).unwrap()), true),
        (with(authority(6, SET).client("other cluster", LATER).unwrap()), true),
        (authority(5, SET).client("past", DAY * 365).unwrap(), true),
        (right.clone(), false),
    ];
    for (papers, shown) in strangers {
        let (said, let_in) = visit(|stream| enter(stream, &papers, shown, HOME));
        assert!(said.is_err() && let_in.is_err());
    }
}

#[test]
fn a_client_finds_out_whether_it_is_the_set() {
    let other = authority(6, SET).client("other cluster", LATER).unwrap();
    assert!(visit(|stream| enter(stream, &other, true, HOME)).0.is_err());
    let right = authority(5, SET).client("right", LATER).unwrap();
    assert!(visit(|stream| enter(stream, &right, true, "10.1.2.4")).0.is_err(), "another address");
}

#[test]
fn in_clear_nothing_is_answered_but_the_way_out_of_it() {
    let (said, let_in) = visit(|stream| {
        let kinds: Vec<u32> =
            [3, 6, GO, 8, 9, 99].map(|number| ask(stream, number, &[0; 6]).unwrap()).to_vec();
        assert_eq!(kinds, [TLS_WANTED; 6]);
        assert_ne!(ask(stream, STARTTLS, b"x").unwrap(), ACK);
        ask(stream, 2, &[]).unwrap()
    });
    assert_eq!(said, ACK);
    assert!(matches!(let_in, Err(Ended::Left)));
    // The oldest way in has no answer but the end.
    let (said, let_in) = visit(|stream| ask(stream, 1, b"data"));
    assert!(said.is_err() && matches!(let_in, Err(Ended::Protocol(_))));
}

#[test]
fn papers_are_not_good_for_ever_and_show_no_key_in_a_log() {
    let folder = tempfile::tempdir().unwrap();
    let key = folder.path().join("key");
    std::fs::write(&key, [5; 32]).unwrap();
    assert!(issue(&key, SET, "long", PAPERS_DAYS_MAX + 1).is_err());
    let papers = issue(&key, SET, "host", PAPERS_DAYS_MAX).unwrap();
    assert_eq!(format!("{papers:?}"), "Papers");
}
