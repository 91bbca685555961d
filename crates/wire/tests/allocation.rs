//! No frame, whatever is in it, makes decoding allocate more than its budget.
//!
//! One test in one binary, because the allocator counts for the whole process.
#![allow(unsafe_code)] // a global allocator cannot be had without

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use bytes::Bytes;
use oncelog_wire::{ApiKey, Reader, RequestBody, ResponseBody, limits};

struct Counting;

static LIVE: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let live = LIVE.fetch_add(layout.size(), Relaxed) + layout.size();
        PEAK.fetch_max(live, Relaxed);
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Relaxed);
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Bytes that decoding held at most, beyond the frame.
fn peak_of(api: ApiKey, version: i16, frame: &Bytes) -> usize {
    let mut most = 0;
    for request in [true, false] {
        let before = LIVE.load(Relaxed);
        PEAK.store(before, Relaxed);
        let r = &mut Reader::new(frame.clone());
        if request {
            let _ = RequestBody::decode(api, version, r);
        } else {
            let _ = ResponseBody::decode(api, version, r);
        }
        most = most.max(PEAK.load(Relaxed) - before);
    }
    most
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
            let peak = peak_of(api, version, &frame);
            assert!(
                peak <= 64 << 10,
                "{} v{version}: {peak} bytes for {frame:?}",
                api.name()
            );
        }
        for fill in [0x7f, 0xff, 0x80] {
            let peak = peak_of(api, version, &vec![fill; 64].into());
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
        let peak = peak_of(api, version, frame);
        assert!(
            peak <= limit,
            "{} v{version}: {peak} bytes of {limit}",
            api.name()
        );
    });
}
