use super::*;

/// Feeds `wire` in reads of `read_bytes` the way a connection does; returns the frames.
fn feed(wire: &[u8], read_bytes: usize, budget: &Arc<Budget>) -> Result<Vec<Vec<u8>>, FrameError> {
    let mut reader = FrameReader::new(1 << 20);
    let mut out = Vec::new();
    let mut rest = wire;
    while !rest.is_empty() {
        // Nobody gets much more than they have shown.
        let shown = reader.arrived_bytes().max(limits::SMALL_FRAME_BYTES);
        assert!(reader.held_bytes() <= 4 * shown);
        let length_missing = reader.length_bytes_missing();
        match reader.next() {
            Next::Scratch => {
                let reserved = budget.try_charge(limits::SCRATCH_BYTES);
                let size = if reserved.is_some() {
                    read_bytes
                } else {
                    length_missing
                };
                let (now, later) = rest.split_at(size.min(rest.len()));
                let mut reserved = reserved.unwrap_or_else(|| budget.empty());
                reader.take(now, budget, &mut reserved, &mut out)?;
                rest = later;
            }
            Next::Memory { charge, bytes } => {
                let mut growing = std::pin::pin!(charge.grow(bytes));
                let mut context = std::task::Context::from_waker(std::task::Waker::noop());
                assert!(growing.as_mut().poll(&mut context).is_ready());
            }
            Next::Body { buffer, limit } => {
                let (now, later) = rest.split_at(limit.min(read_bytes).min(rest.len()));
                buffer.extend_from_slice(now);
                rest = later;
                reader.body_grew(&mut out);
            }
        }
    }
    assert!(!reader.is_mid_frame());
    Ok(out.into_iter().map(|frame| frame.bytes).collect())
}

use std::future::Future;

fn frame(length: usize, fill: u8) -> Vec<u8> {
    let mut frame = (length as u32).to_be_bytes().to_vec();
    frame.resize(4 + length, fill);
    frame
}

#[test]
fn frames_come_out_whole_however_they_are_cut() {
    let lengths = [1, 3, 10, 200, 70_000, 1, 300_000, 131_068, 131_072, 5];
    let frames: Vec<Vec<u8>> = lengths
        .iter()
        .enumerate()
        .map(|(i, length)| frame(*length, i as u8))
        .collect();
    let wire = frames.concat();
    for budget_bytes in [1 << 30, limits::SCRATCH_BYTES, 100] {
        for read_bytes in [1, 2, 3, 5, 4096, limits::SCRATCH_BYTES] {
            if read_bytes < 100 && budget_bytes == 100 {
                continue; // slow, and no other path
            }
            let budget = Budget::new(budget_bytes);
            assert_eq!(
                feed(&wire, read_bytes, &budget).unwrap(),
                frames,
                "{read_bytes}"
            );
            assert_eq!(budget.in_use(), 0);
        }
    }
}

#[test]
fn a_length_that_cannot_be_ends_it() {
    let budget = Budget::new(1 << 30);
    for (wire, expected) in [
        (&[0, 0, 0, 0][..], FrameError::NotALength(0)),
        (&[0xff, 0xff, 0xff, 0xff, 1], FrameError::NotALength(-1)),
        (&[0x80, 0, 0, 0], FrameError::NotALength(i32::MIN)),
    ] {
        assert_eq!(feed(wire, 100, &budget).unwrap_err(), expected);
    }
    let http = feed(b"GET / HTTP/1.1\r\n", 100, &budget)
        .unwrap_err()
        .to_string();
    assert!(http.contains("it speaks HTTP"), "{http}");
    let tls = feed(&[0x16, 3, 1, 2, 0], 100, &budget)
        .unwrap_err()
        .to_string();
    assert!(tls.contains("it speaks TLS"), "{tls}");
    assert_eq!(budget.in_use(), 0);
}

#[test]
fn what_came_before_a_bad_length_comes_out() {
    let budget = Budget::new(1 << 30);
    let mut reader = FrameReader::new(1000);
    let mut out = Vec::new();
    let mut reserved = budget.try_charge(limits::SCRATCH_BYTES).unwrap();
    let wire = [frame(5, 1), vec![0xff; 4]].concat();
    reader
        .take(&wire, &budget, &mut reserved, &mut out)
        .unwrap_err();
    assert_eq!(out.len(), 1);
}

#[test]
fn an_announced_length_takes_no_memory() {
    let budget = Budget::new(1 << 30);
    let mut reader = FrameReader::new(100 << 20);
    let mut out = Vec::new();
    let mut reserved = budget.try_charge(limits::SCRATCH_BYTES).unwrap();
    reader
        .take(
            &(100u32 << 20).to_be_bytes(),
            &budget,
            &mut reserved,
            &mut out,
        )
        .unwrap();
    drop(reserved);
    assert!(reader.is_mid_frame());
    assert!(budget.in_use() <= limits::FRAME_BUFFER_LEAST_BYTES);
    // And with an empty budget, nothing at all before memory was granted.
    let empty = Budget::new(0);
    let mut reader = FrameReader::new(100 << 20);
    let mut none = empty.empty();
    reader
        .take(&(100u32 << 20).to_be_bytes(), &empty, &mut none, &mut out)
        .unwrap();
    assert_eq!(empty.in_use(), 0);
    assert!(matches!(reader.next(), Next::Memory { .. }));
}

#[test]
fn the_charge_goes_with_the_last_slice() {
    let budget = Budget::new(1 << 20);
    let mut reader = FrameReader::new(1000);
    let mut out = Vec::new();
    let mut reserved = budget.try_charge(limits::SCRATCH_BYTES).unwrap();
    reader
        .take(&frame(100, 7), &budget, &mut reserved, &mut out)
        .unwrap();
    drop(reserved);
    let bytes = out.pop().unwrap().into_charged_bytes();
    let slice = bytes.slice(50..60);
    drop(bytes);
    assert_eq!(budget.in_use(), 104);
    assert_eq!(&slice[..], &[7; 10]);
    drop(slice);
    assert_eq!(budget.in_use(), 0);
}
