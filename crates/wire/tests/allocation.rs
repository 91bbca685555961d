//! No frame, whatever is in it, makes decoding allocate more than its budget.
//!
//! One test in one binary, because the allocator counts for the whole process.

mod counting;

use bytes::Bytes;
use counting::peak_of;
use oncelog_wire::{ApiKey, Reader, RequestBody, ResponseBody, limits};

/// Bytes that decoding held at most, beyond the frame.
fn peak_of_decoding(api: ApiKey, version: i16, frame: &Bytes) -> usize {
    let reader = || Reader::new(frame.clone());
    let (_, request) = peak_of(|| RequestBody::decode(api, version, &mut reader()));
    let (_, response) = peak_of(|| ResponseBody::decode(api, version, &mut reader()));
    request.max(response)
}

fn for_every_version(mut check: impl FnMut(ApiKey, i16)) {
    for api in ApiKey::ALL {
        let (min, max) = api.schema_versions();
        (min..=max).for_each(|version| check(*api, version));
    }
}

#[test]
fn decoding_stays_within_its_budget() {
    let mut state = 1u64;
    let mut random = move || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        state >> 33
    };
    // Small frames: every one of their bytes as a count, and noise.
    for_every_version(|api, version| {
        for _ in 0..40 {
            let len = random() % 200;
            let mask = [0xff, 0x0f, 0x01][(random() % 3) as usize];
            let frame: Bytes = (0..len).map(|_| random() as u8 & mask).collect();
            let peak = peak_of_decoding(api, version, &frame);
            assert!(
                peak <= 64 << 10,
                "{} v{version}: {peak} bytes for {frame:?}",
                api.name()
            );
        }
        for fill in [0x7f, 0xff, 0x80] {
            let peak = peak_of_decoding(api, version, &vec![fill; 64].into());
            assert!(
                peak <= 64 << 10,
                "{} v{version}: {peak} bytes for {fill:#x}",
                api.name()
            );
        }
    });
    // Large ones that are all count: elements as small as they can be.
    // Six MiB, so that the budget is the one that grows with the frame.
    let len = 6 << 20;
    let mut frame = vec![0u8; len];
    for at in [0, 4, 8] {
        frame.fill(0);
        frame[at..at + 4].copy_from_slice(&((len / 32) as u32).to_be_bytes());
        check_large(&frame.clone().into());
    }
    frame.fill(1);
    frame[..5].copy_from_slice(&[0x81, 0x80, 0x80, 0x01, 0x01]);
    check_large(&frame.into());
}

fn check_large(frame: &Bytes) {
    let limit = limits::decode_budget(frame.len());
    for_every_version(|api, version| {
        let peak = peak_of_decoding(api, version, frame);
        assert!(
            peak <= limit,
            "{} v{version}: {peak} bytes of {limit}",
            api.name()
        );
    });
}
