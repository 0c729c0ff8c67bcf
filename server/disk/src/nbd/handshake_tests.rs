//! The NBD handshake as a table of options and answers, and against bytes of chance.

use super::*;
use std::io::Cursor;

/// A client that has said everything before it listens.
struct Client {
    says: Cursor<Vec<u8>>,
    hears: Vec<u8>,
}

impl Read for Client {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.says.read(into)
    }
}

impl Write for Client {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.hears.extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn export() -> Export {
    Export { name: "data".into(), size: 1 << 30, preferred: 4096 }
}

fn option(number: u32, data: &[u8]) -> Vec<u8> {
    let mut out = OPTION_MAGIC.to_vec();
    out.extend_from_slice(&number.to_be_bytes());
    out.extend_from_slice(&(data.len() as u32).to_be_bytes());
    out.extend_from_slice(data);
    out
}

fn string(text: &str) -> Vec<u8> {
    let mut out = (text.len() as u32).to_be_bytes().to_vec();
    out.extend_from_slice(text.as_bytes());
    out
}

fn go(name: &str, wanted: &[u16]) -> Vec<u8> {
    let mut out = string(name);
    out.extend_from_slice(&(wanted.len() as u16).to_be_bytes());
    wanted.iter().for_each(|kind| out.extend_from_slice(&kind.to_be_bytes()));
    out
}

fn queries(name: &str, all: &[&str]) -> Vec<u8> {
    let mut out = string(name);
    out.extend_from_slice(&(all.len() as u32).to_be_bytes());
    all.iter().for_each(|query| out.extend_from_slice(&string(query)));
    out
}

/// Option, kind, data.
type Answer = (u32, u32, Vec<u8>);

/// What came of these options, the answers, and what is no answer behind them.
fn talk(flags: u32, options: &[Vec<u8>]) -> (Result<Agreed, String>, Vec<Answer>, Vec<u8>) {
    let mut says = flags.to_be_bytes().to_vec();
    options.iter().for_each(|option| says.extend_from_slice(option));
    let mut client = Client { says: Cursor::new(says), hears: Vec::new() };
    let result = negotiate(&mut client, &export(), None);
    let result = result.map(|(agreed, _)| agreed).map_err(|ended| ended.to_string());
    let mut answers = Vec::new();
    let mut rest = client.hears.strip_prefix(&HELLO[..]).unwrap();
    while let Some(after) = rest.strip_prefix(&REPLY_MAGIC.to_be_bytes()[..]) {
        let number = |at: usize| u32::from_be_bytes(after[at..at + 4].try_into().unwrap());
        let length = number(8) as usize;
        answers.push((number(0), number(4), after[12..12 + length].to_vec()));
        rest = &after[12 + length..];
    }
    (result, answers, rest.to_vec())
}

fn kinds(options: &[Vec<u8>]) -> Vec<u32> {
    talk(3, options).1.into_iter().map(|(_, kind, _)| kind).collect()
}

#[test]
fn a_modern_client_enters_with_chunks() {
    let options = [
        option(STRUCTURED_REPLY, &[]),
        option(SET_META_CONTEXT, &queries("data", &["other:thing", "base:allocation"])),
        option(GO, &go("data", &[INFO_NAME, INFO_DESCRIPTION, INFO_BLOCK_SIZE])),
    ];
    let (result, answers, rest) = talk(3, &options);
    assert_eq!(result, Ok(Agreed { structured: true }));
    assert!(rest.is_empty());
    let kinds: Vec<(u32, u32)> = answers.iter().map(|(option, kind, _)| (*option, *kind)).collect();
    let info = (GO, INFORMATION);
    let set = SET_META_CONTEXT;
    let wanted = [(STRUCTURED_REPLY, ACK), (set, ACK), info, info, info, info, (GO, ACK)];
    assert_eq!(kinds, wanted);
    // Export: 1 GiB; flags with FUA, zeroes, several connections, no fragments.
    assert_eq!(answers[2].2, [0, 0, 0, 0, 0, 0, 0x40, 0, 0, 0, 1, 0xed]);
    assert_eq!(answers[3].2, [0, 3, 0, 0, 2, 0, 0, 0, 0x10, 0, 0, 0x10, 0, 0]);
    assert_eq!(answers[4].2, b"\0\x01data");
}

#[test]
fn an_old_client_enters_by_name_with_and_without_the_zeroes() {
    for (flags, length) in [(1, 134), (3, 10), (0, 134)] {
        let (result, answers, rest) = talk(flags, &[option(EXPORT_NAME, b"")]);
        assert_eq!((result, answers.len(), rest.len()), (Ok(Agreed::default()), 0, length));
        assert_eq!(rest[8..10], [1, 0x6d]);
    }
    assert!(talk(3, &[option(EXPORT_NAME, b"other")]).0.is_err());
}

#[test]
fn each_option_has_its_answer() {
    assert_eq!(kinds(&[option(LIST, &[])]), [SERVER, ACK]);
    assert_eq!(kinds(&[option(LIST, b"x")]), [INVALID]);
    assert_eq!(kinds(&[option(INFO, &go("", &[]))]), [INFORMATION, INFORMATION, ACK]);
    assert_eq!(kinds(&[option(GO, &go("other", &[]))]), [UNKNOWN]);
    assert_eq!(kinds(&[option(GO, b"\0\0\0\x09data\0\0")]), [INVALID]);
    assert_eq!(kinds(&[option(GO, b"\0\0\0\0\0\x01\0\0more")]), [INVALID]);
    assert_eq!(kinds(&[option(5, &[])]), [UNSUPPORTED], "no TLS on the unix socket");
    assert_eq!(kinds(&[option(99, b"what")]), [UNSUPPORTED]);
    // Contexts need chunks.
    assert_eq!(kinds(&[option(LIST_META_CONTEXT, &queries("", &[]))]), [INVALID]);
    let chunks = option(STRUCTURED_REPLY, &[]);
    let list = |all: &[&str]| kinds(&[chunks.clone(), option(LIST_META_CONTEXT, &queries("", all))]);
    assert_eq!(list(&[]), [ACK, ACK]);
    assert_eq!(list(&["base:", "qemu:"]), [ACK, ACK]);
    assert_eq!(
        kinds(&[chunks, option(SET_META_CONTEXT, &queries("other", &["base:allocation"]))]),
        [ACK, UNKNOWN]
    );
    assert_eq!(kinds(&[option(STRUCTURED_REPLY, b"x")]), [INVALID]);
    let (result, answers, _) = talk(3, &[option(ABORT, &[])]);
    assert_eq!((result, answers.len()), (Err("the client went".into()), 1));
}

#[test]
fn a_client_that_asks_too_much_is_cut_off() {
    let long = option(LIST, &vec![0; NBD_OPTION_BYTES_MAX + 1]);
    assert_eq!(kinds(&[long]), [TOO_BIG]);
    let many = vec![option(LIST, &[]); NBD_OPTIONS_MAX + 1];
    assert_eq!(talk(3, &many).0, Err("not the NBD protocol: too many options".into()));
    assert!(talk(8, &[]).0.is_err(), "unknown flags");
    assert!(talk(3, &[b"IHAVENOT".to_vec()]).0.is_err());
    let mut queries = string("");
    queries.extend_from_slice(&u32::MAX.to_be_bytes());
    assert_eq!(kinds(&[option(STRUCTURED_REPLY, &[]), option(SET_META_CONTEXT, &queries)]), [ACK, INVALID]);
}

#[test]
fn bytes_of_chance_never_panic_and_get_no_more_than_bounded_answers() {
    let mut state = 7_u64;
    let mut random = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    for _ in 0..20_000 {
        let mut options = Vec::new();
        for _ in 0..random() % 6 {
            let mut data = go("data", &[3, 1]);
            if random() & 1 == 0 {
                data = queries("data", &["base:allocation", "x"]);
            }
            for _ in 0..random() % 4 {
                let at = random() as usize % data.len();
                data[at] = random() as u8;
            }
            data.truncate(random() as usize % (data.len() + 1));
            let mut option = option(random() as u32 % 12, &data);
            if random() % 8 == 0 {
                let at = random() as usize % option.len();
                option[at] = random() as u8;
            }
            options.push(option);
        }
        let mut says = vec![0, 0, 0, 3];
        options.iter().for_each(|option| says.extend_from_slice(option));
        let mut client = Client { says: Cursor::new(says), hears: Vec::new() };
        let _ = negotiate(&mut client, &export(), None);
        assert!(client.hears.len() < 2048);
    }
}
