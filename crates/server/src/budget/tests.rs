use super::*;
use std::future::Future;
use std::pin::pin;
use std::sync::atomic::AtomicBool;
use std::task::{Context, Poll, Waker};

fn poll<F: Future>(future: std::pin::Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

#[test]
fn charges_come_back() {
    let budget = Budget::with_reserve(100, 0);
    let mut charge = budget.try_charge(60).unwrap();
    assert_eq!(budget.in_use(), 60);
    let part = charge.split(20);
    assert!(budget.try_charge(41).is_none());
    assert!(charge.try_grow(40));
    drop(charge);
    assert_eq!(budget.in_use(), 20);
    drop(part);
    assert_eq!(budget.in_use(), 0);
}

#[test]
fn who_waits_is_served_in_order() {
    let budget = Budget::with_reserve(100, 0);
    let held = budget.try_charge(100).unwrap();
    let (mut one, mut two, mut three) = (budget.empty(), budget.empty(), budget.empty());
    {
        let mut first = pin!(one.grow(50));
        // The first in line is let past the limit, once.
        assert!(poll(first.as_mut()).is_ready());
        let mut second = pin!(two.grow(30));
        let mut third = pin!(three.grow(30));
        assert!(poll(second.as_mut()).is_pending());
        assert!(poll(third.as_mut()).is_pending());
        assert_eq!(budget.waited_total(), 3);
        // There is room now, but not past those who wait.
        drop(held);
        assert!(budget.try_charge(1).is_none());
        assert!(poll(second.as_mut()).is_ready());
        assert!(
            poll(third.as_mut()).is_pending(),
            "50 + 30 + 30 are more than 100"
        );
    }
    assert!(one.is_finisher() && !two.is_finisher());
    drop((one, two, three));
    assert_eq!(budget.in_use(), 0);
    assert_eq!(budget.pressure(), Pressure::default());
    assert!(!budget.lock().finishing);
}

#[test]
fn one_finisher_at_a_time_and_its_end_makes_the_next() {
    let budget = Budget::with_reserve(100, 0);
    let mut frames: Vec<Charge> = (0..4).map(|_| budget.try_charge(25).unwrap()).collect();
    // All four hold a quarter and want another: without the finisher, a deadlock.
    let mut done = 0;
    while let Some(mut frame) = frames.pop() {
        {
            let mut growing = pin!(frame.grow(25));
            assert!(
                poll(growing.as_mut()).is_ready(),
                "frame {done} could not go on"
            );
        }
        if frame.is_finisher() {
            assert!(frame.try_grow(1000), "a finisher goes on to its end");
            assert!(frames.last_mut().is_none_or(|other| !other.try_grow(25)));
        }
        frame.complete();
        drop(frame);
        done += 1;
    }
    assert_eq!((done, budget.in_use()), (4, 0));
}

#[test]
fn a_place_that_is_given_up_loses_nothing() {
    let budget = Budget::with_reserve(100, 0);
    let held = budget.try_charge(100).unwrap();
    let mut finisher = budget.empty();
    assert!(poll(pin!(finisher.grow(10))).is_ready());
    let mut leaver = budget.empty();
    {
        let mut growing = pin!(leaver.grow(50));
        assert!(poll(growing.as_mut()).is_pending());
        drop(held); // granted, and never looked at
    }
    assert_eq!(
        leaver.bytes(),
        50,
        "the grant went to the charge, which gives it back"
    );
    drop(leaver);
    drop(finisher);
    assert_eq!(budget.in_use(), 0);

    let held = budget.try_charge(100).unwrap();
    let mut finisher = budget.empty();
    assert!(poll(pin!(finisher.grow(10))).is_ready());
    let mut leaver = budget.empty();
    {
        let mut growing = pin!(leaver.grow(50));
        assert!(poll(growing.as_mut()).is_pending());
    }
    drop(leaver); // gone before it was granted
    drop((held, finisher));
    assert_eq!(budget.in_use(), 0);
    assert!(budget.try_charge(100).is_some());
}

#[test]
fn small_frames_do_not_wait_behind_large_ones() {
    let budget = Budget::with_reserve(100, 20);
    let held = budget.try_charge(80).unwrap();
    assert!(budget.try_charge(1).is_none(), "the rest is for small ones");
    let mut finisher = budget.empty();
    assert!(poll(pin!(finisher.grow(10))).is_ready());
    assert!(finisher.is_finisher());
    let mut large = budget.empty();
    let mut small = budget.empty();
    small.use_lane(Lane::Small);
    {
        let mut waiting = pin!(large.grow(10));
        assert!(poll(waiting.as_mut()).is_pending());
        assert!(small.try_grow(10), "what is left of 20 past the finisher");
        let mut next = budget.empty();
        next.use_lane(Lane::Small);
        let mut next = pin!(next.grow(10));
        assert!(poll(next.as_mut()).is_pending(), "there is nothing left");
        let pressure = budget.pressure();
        assert_eq!((pressure.wanted, pressure.served), (20, 1));
        drop(small);
        assert!(
            poll(next.as_mut()).is_ready(),
            "served before the large one"
        );
        assert!(poll(waiting.as_mut()).is_pending());
        assert_eq!(budget.pressure().served, 2);
        drop((held, finisher));
        assert!(poll(waiting.as_mut()).is_ready());
    }
    drop(large);
    assert_eq!(budget.in_use(), 0);
    assert_eq!(budget.pressure(), Pressure::default());
}

#[test]
fn the_account_hears_of_the_end() {
    struct Seen(AtomicBool);
    impl Account for Seen {
        fn returned(&self, bytes: usize) {
            assert_eq!(bytes, 7);
            self.0.store(true, Ordering::SeqCst);
        }
    }
    let budget = Budget::with_reserve(10, 0);
    let seen = Arc::new(Seen(AtomicBool::new(false)));
    let mut charge = budget.try_charge(7).unwrap();
    charge.report_to(seen.clone());
    drop(charge);
    assert!(seen.0.load(Ordering::SeqCst));
}

/// Many frames of any size through a budget that holds few of them: all come through, the sum
/// stays below the limit and one frame.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crowd_comes_through() {
    const LIMIT: usize = 1000;
    const FRAME_MAX: usize = 900;
    let budget = Budget::new(LIMIT);
    let mut crowd = tokio::task::JoinSet::new();
    for number in 0..100usize {
        let budget = budget.clone();
        crowd.spawn(async move {
            for round in 0..20usize {
                let size = 1 + (number * 37 + round * 101) % FRAME_MAX;
                let mut charge = budget.empty();
                while charge.bytes() < size {
                    let step = (size - charge.bytes()).min(100);
                    charge.grow(step).await;
                    assert!(budget.in_use() <= LIMIT + FRAME_MAX);
                    tokio::task::yield_now().await;
                }
                charge.complete();
                if number % 7 == 0 {
                    tokio::task::yield_now().await;
                }
            }
        });
    }
    let all = async { while crowd.join_next().await.is_some() {} };
    tokio::time::timeout(std::time::Duration::from_secs(30), all)
        .await
        .expect("a deadlock");
    assert_eq!(budget.in_use(), 0);
}
