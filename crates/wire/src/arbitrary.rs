//! Random values for tests, by seed: `Arbitrary` is generated for every message and struct.

use bytes::Bytes;

use crate::codec::{RawTaggedField, Records, Uuid};

pub(crate) trait Arbitrary {
    /// A value that is valid in `version`: fields that the version lacks hold their default.
    fn arbitrary(g: &mut Gen, version: i16) -> Self;
}

/// A seeded source of values (SplitMix64). Sizes shrink with depth, so that messages stay small.
pub(crate) struct Gen {
    state: u64,
    depth: u32,
}

impl Gen {
    pub fn new(seed: u64) -> Gen {
        Gen {
            state: seed,
            depth: 0,
        }
    }

    pub fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Below `bound`, which is not 0.
    pub fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    /// Half of all numbers lie at the edges, where mistakes are.
    fn edgy(&mut self) -> i64 {
        match self.below(8) {
            0 => 0,
            1 => -1,
            2 => i64::MAX,
            3 => i64::MIN,
            _ => self.next() as i64,
        }
    }

    pub fn bool(&mut self) -> bool {
        self.next() & 1 == 1
    }

    pub fn i8(&mut self) -> i8 {
        self.edgy() as i8
    }

    pub fn i16(&mut self) -> i16 {
        self.edgy() as i16
    }

    pub fn u16(&mut self) -> u16 {
        self.edgy() as u16
    }

    pub fn i32(&mut self) -> i32 {
        self.edgy() as i32
    }

    pub fn i64(&mut self) -> i64 {
        self.edgy()
    }

    pub fn f64(&mut self) -> f64 {
        self.next() as i32 as f64 / 8.0
    }

    pub fn uuid(&mut self) -> Uuid {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.next().to_be_bytes());
        bytes[8..].copy_from_slice(&self.next().to_be_bytes());
        Uuid(bytes)
    }

    pub fn string(&mut self) -> String {
        let len = match self.below(16) {
            0 => 0,
            1 => 130 + self.below(200),
            _ => self.below(12),
        };
        (0..len)
            .map(|_| ['a', 'Z', '-', '.', '\u{e9}', '\u{20ac}', '\u{1f980}'][self.below(7)])
            .collect()
    }

    pub fn bytes(&mut self) -> Bytes {
        let len = if self.below(16) == 0 {
            1000 + self.below(1000)
        } else {
            self.below(20)
        };
        (0..len).map(|_| self.next() as u8).collect()
    }

    pub fn records(&mut self) -> Records {
        Records::Bytes(self.bytes())
    }

    pub fn nullable<T>(&mut self, value: impl FnOnce(&mut Gen) -> T) -> Option<T> {
        if self.below(4) == 0 {
            None
        } else {
            Some(value(self))
        }
    }

    pub fn vec<T>(&mut self, mut element: impl FnMut(&mut Gen) -> T) -> Vec<T> {
        let most = [5, 4, 3, 2][self.depth.min(3) as usize];
        let count = self.below(most);
        self.depth += 1;
        let values = (0..count).map(|_| element(self)).collect();
        self.depth -= 1;
        values
    }

    /// Tags far above any that Kafka uses, in order.
    pub fn unknown_tagged_fields(&mut self) -> Vec<RawTaggedField> {
        if self.below(8) != 0 {
            return Vec::new();
        }
        let first = 100 + self.below(100_000) as u32;
        (0..1 + self.below(2) as u32)
            .map(|i| RawTaggedField {
                tag: first + i,
                data: self.bytes(),
            })
            .collect()
    }
}
