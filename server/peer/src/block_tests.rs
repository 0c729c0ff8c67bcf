//! Codec of the block frames: everything survives the way there and back, nothing damaged does, nothing panics.

use super::*;
use crate::block::{AHEAD_RUNS_MAX, HOT_MAX, Hello, KeepOld, MAP_PAGE_BYTES, Odd, Refused, ZERO_BYTES_MAX};
use wire::{Generation, Incarnation, NodeId, SetId};

fn frames() -> Vec<Frame> {
    let hello = Hello {
        cluster: [7; 16],
        set: SetId(1),
        side: NodeId(2),
        size: 1 << 30,
        incarnation: Incarnation([3; 16]),
        holder: Some(NodeId(1)),
        active: false,
        twin_session: Session(9),
        history: vec![Generation([1; 16]); crate::control::HISTORY_MAX],
        base: Some(Generation([2; 16])),
        consistent: true,
        alone: false,
        dirty: u64::MAX,
        hot: vec![u32::MAX; HOT_MAX],
        undone: true,
        room: Some(u64::MAX),
    };
    let bodies = vec![
        Body::Hello(Box::new(hello)),
        Body::SessionStored,
        Body::Write { offset: 512, length: 4096 },
        Body::Written { of: u64::MAX },
        Body::Flush,
        Body::Flushed { of: 1 },
        Body::Copy { offset: 1 << 40, length: PAYLOAD_BYTES_MAX },
        Body::Copied { of: 5 },
        Body::Check { offset: 4096, hashes: vec![[0xab; 16]; 256], told: true, read: false },
        Body::Check { offset: 0, hashes: vec![[0xab; 16]], told: false, read: true },
        Body::Verify { offset: 8192, hashes: vec![[0xcd; 16]; 64] },
        Body::Verified {
            of: 9,
            odd: vec![
                Odd { block: 3, found: Some([1; 16]), stored: Some([2; 16]) },
                Odd { block: 255, found: None, stored: None },
            ],
        },
        Body::Checked { of: 3, different: vec![0xff; 32] },
        Body::MapAsk { from: 7 },
        Body::Map { page: 7, bits: vec![0x55; MAP_PAGE_BYTES], more: true },
        Body::Map { page: 0, bits: Vec::new(), more: false },
        Body::BuildBegin { generation: Generation([4; 16]), old: KeepOld::UntilEqual },
        Body::BuildBegin { generation: Generation([4; 16]), old: KeepOld::UntilDropped },
        Body::BuildBegin { generation: Generation([4; 16]), old: KeepOld::Not },
        Body::BuildReady,
        Body::BuildDone { history: vec![Generation([5; 16])] },
        Body::BuildStored,
        Body::Alive { nonce: 12, grant: Some(11) },
        Body::Failed { of: 4, errno: 5 },
        Body::Leaving,
        Body::Refused { reason: Refused::Stale },
        Body::Zero { offset: 512, length: ZERO_BYTES_MAX, unmap: true },
        Body::Read { offset: 512, length: 1536 },
        Body::ReadData { of: 9, length: 1536 },
        Body::Got { of: 10 },
        Body::Barrier,
        Body::Ahead { runs: vec![(u64::MAX, u32::MAX); AHEAD_RUNS_MAX] },
    ];
    let number = |(i, body)| Frame { epoch: Epoch(3), session: Session(8), sequence: i as u64 + 1, body };
    bodies.into_iter().enumerate().map(number).collect()
}

fn bytes_of(frame: &Frame) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode(frame, 77, &mut bytes).unwrap();
    bytes
}

fn read(bytes: &[u8]) -> Result<Frame, FrameFault> {
    let head: [u8; HEADER_BYTES] =
        bytes.get(..HEADER_BYTES).and_then(|part| part.try_into().ok()).ok_or(FrameFault::Magic)?;
    let header = decode_header(&head)?;
    decode_body(&header, &bytes[HEADER_BYTES..])
}

#[test]
fn every_frame_survives_the_way_there_and_back() {
    for frame in frames() {
        assert_eq!(read(&bytes_of(&frame)), Ok(frame));
    }
}

#[test]
fn every_single_bit_flip_is_refused() {
    for frame in frames() {
        let good = bytes_of(&frame);
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(read(&bad).is_err(), "bit {bit} of {frame:?}");
        }
    }
}

#[test]
fn every_truncation_and_extension_is_refused() {
    for frame in frames() {
        let good = bytes_of(&frame);
        for length in 0..good.len() {
            assert!(read(&good[..length]).is_err());
        }
        let mut long = good;
        long.push(0);
        assert!(read(&long).is_err());
    }
}

/// Bodies changed behind a correct checksum: whatever is read is inside the limits, and nothing panics.
#[test]
fn a_hostile_body_with_a_right_checksum_never_panics() {
    let mut state = 1u64;
    for frame in frames() {
        let good = bytes_of(&frame);
        for _ in 0..2_000 {
            let mut bad = good.clone();
            for _ in 0..3 {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                let span = bad.len() - HEADER_BYTES;
                bad[HEADER_BYTES + (state as usize >> 8) % span] = state as u8;
            }
            let crc = crc32c::crc32c_append(crc32c::crc32c(&bad[..44]), &bad[HEADER_BYTES..]);
            bad[44..48].copy_from_slice(&crc.to_le_bytes());
            if let Ok(read) = read(&bad) {
                assert_eq!(read.check(), Ok(()));
            }
        }
    }
}

#[test]
fn limits_hold_on_the_way_out_too() {
    let frame = |body| Frame { epoch: Epoch(1), session: Session(1), sequence: 1, body };
    let bad = [
        Body::Write { offset: 0, length: 0 },
        Body::Write { offset: 100, length: 512 },
        Body::Write { offset: 0, length: PAYLOAD_BYTES_MAX + 512 },
        Body::Write { offset: u64::MAX - 511, length: 512 },
        Body::Copy { offset: 512, length: 4096 },
        Body::Zero { offset: 0, length: 0, unmap: false },
        Body::Zero { offset: 100, length: 512, unmap: false },
        Body::Zero { offset: 0, length: ZERO_BYTES_MAX + 512, unmap: true },
        Body::Zero { offset: u64::MAX - 511, length: 512, unmap: true },
        Body::Read { offset: 1, length: 512 },
        Body::Read { offset: 0, length: 0 },
        Body::ReadData { of: 1, length: 0 },
        Body::ReadData { of: 1, length: PAYLOAD_BYTES_MAX + 512 },
        Body::Check { offset: 0, hashes: vec![[0; 16]; 257], told: false, read: false },
        Body::Verify { offset: 0, hashes: Vec::new() },
        Body::Verified { of: 1, odd: vec![Odd { block: 0, found: None, stored: None }; 257] },
        Body::Checked { of: 1, different: vec![0; 33] },
        Body::Map { page: 0, bits: vec![0; 5], more: false },
        Body::BuildDone { history: Vec::new() },
        Body::Ahead { runs: Vec::new() },
        Body::Ahead { runs: vec![(0, 1); AHEAD_RUNS_MAX + 1] },
    ];
    for body in bad {
        let mut out = vec![1, 2];
        assert!(encode(&frame(body), 0, &mut out).is_err());
        assert_eq!(out, [1, 2]);
    }
}

#[test]
fn a_payload_is_checked() {
    let payload = vec![9u8; 4096];
    let frame = Frame {
        epoch: Epoch(1),
        session: Session(1),
        sequence: 1,
        body: Body::Write { offset: 0, length: 4096 },
    };
    let mut bytes = Vec::new();
    encode(&frame, checksum(&payload), &mut bytes).unwrap();
    let header = decode_header(&bytes[..HEADER_BYTES].try_into().unwrap()).unwrap();
    assert_eq!(header.check_payload(&payload), Ok(()));
    assert!(header.check_payload(&payload[..512]).is_err());
    let mut bad = payload;
    bad[5] ^= 1;
    assert_eq!(header.check_payload(&bad), Err(FrameFault::Checksum { part: "payload" }));
}

#[test]
fn what_was_received_is_told_in_every_header() {
    for frame in frames() {
        let mut bytes = Vec::new();
        encode_with(&frame, Payload::default(), 0xfedc_ba98, &mut bytes).unwrap();
        let header = decode_header(bytes[..HEADER_BYTES].first_chunk().unwrap()).unwrap();
        assert_eq!(header.received, 0xfedc_ba98);
        assert_eq!(decode_body(&header, &bytes[HEADER_BYTES..]), Ok(frame));
    }
}

#[test]
fn a_packed_payload_is_shorter_than_the_frame_says_and_only_a_payload_is_packed() {
    let frame = |body| Frame { epoch: Epoch(1), session: Session(1), sequence: 1, body };
    let packed = |length| Payload { checksum: 1, packed: Some(length) };
    let write = frame(Body::Write { offset: 0, length: 4096 });
    for length in [1, 512, 4095] {
        let mut bytes = Vec::new();
        encode_with(&write, packed(length), 0, &mut bytes).unwrap();
        let header = decode_header(bytes[..HEADER_BYTES].first_chunk().unwrap()).unwrap();
        assert_eq!((header.packed, header.payload_length), (true, length));
        assert_eq!(decode_body(&header, &bytes[HEADER_BYTES..]), Ok(write.clone()));
    }
    let mut bytes = Vec::new();
    assert!(encode_with(&write, packed(4097), 0, &mut bytes).is_err());
    assert!(encode_with(&frame(Body::Flush), packed(1), 0, &mut bytes).is_err());
    assert!(bytes.is_empty());
    for (body, length) in [(Body::Write { offset: 0, length: 4096 }, 4096), (Body::Flush, 0)] {
        let mut bytes = Vec::new();
        encode_with(&frame(body), packed(length), 0, &mut bytes).unwrap();
        let header = decode_header(bytes[..HEADER_BYTES].first_chunk().unwrap()).unwrap();
        assert!(decode_body(&header, &bytes[HEADER_BYTES..]).is_err());
    }
}
