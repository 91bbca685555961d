//! Randomness as a value: the cores never ask the operating system for any.
//!
//! SplitMix64 (Steele, Lea, Flood 2014): tiny, full period, and good enough for ids that must
//! differ, not for secrets. A host seeds it with real randomness, a simulation with a number, and
//! the same seed gives the same ids.

use oncelog_wire::Uuid;

#[derive(Clone, Debug)]
pub struct Seed {
    state: u64,
}

impl Seed {
    pub fn new(seed: u64) -> Seed {
        Seed { state: seed }
    }

    /// An independent generator, for a part that should not depend on how often others draw.
    pub fn fork(&mut self) -> Seed {
        Seed::new(self.next_u64())
    }

    pub fn next_u64(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`, which must not be 0. The bias is at most bound / 2^64.
    pub fn below(&mut self, bound: u64) -> u64 {
        assert!(bound > 0, "no number is below 0");
        ((u128::from(self.next_u64()) * u128::from(bound)) >> 64) as u64
    }

    /// A random (version 4) UUID.
    ///
    /// Never one that Kafka would not hand out: its text does not begin with `-`, so that tools
    /// take it for a value rather than an option.
    pub fn uuid(&mut self) -> Uuid {
        loop {
            let mut bytes = [0; 16];
            bytes[..8].copy_from_slice(&self.next_u64().to_be_bytes());
            bytes[8..].copy_from_slice(&self.next_u64().to_be_bytes());
            bytes[6] = (bytes[6] & 0x0f) | 0x40;
            bytes[8] = (bytes[8] & 0x3f) | 0x80;
            // A first sextet of 62 is `-` in URL-safe base64.
            if bytes[0] >> 2 != 62 {
                return Uuid(bytes);
            }
        }
    }

    /// A random UUID as Java prints one: 8-4-4-4-12 hexadecimal digits.
    pub fn uuid_text(&mut self) -> String {
        let Uuid(bytes) = self.uuid();
        let mut text = String::with_capacity(36);
        for (at, byte) in bytes.iter().enumerate() {
            if matches!(at, 4 | 6 | 8 | 10) {
                text.push('-');
            }
            text.push_str(&format!("{byte:02x}"));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn same_seed_same_ids_and_the_reference_values() {
        // The first outputs for seed 0 in the published reference implementation.
        let mut seed = Seed::new(0);
        assert_eq!(seed.next_u64(), 0xe220_a839_7b1d_cdaf);
        assert_eq!(seed.next_u64(), 0x6e78_9e6a_a1b9_65f4);
        assert_eq!(Seed::new(7).uuid_text(), Seed::new(7).uuid_text());
        assert_ne!(Seed::new(7).uuid_text(), Seed::new(8).uuid_text());
    }

    #[test]
    fn uuids_are_version_4_and_never_look_like_an_option() {
        let mut seed = Seed::new(42);
        for _ in 0..2_000 {
            let text = seed.uuid_text();
            assert_eq!(text.len(), 36);
            assert_eq!(&text[14..15], "4");
            assert!(matches!(&text[19..20], "8" | "9" | "a" | "b"), "{text}");
            let uuid = seed.uuid();
            assert!(!uuid.to_string().starts_with('-'));
        }
    }

    #[test]
    fn below_stays_below() {
        let mut seed = Seed::new(1);
        assert!((0..1_000).all(|_| seed.below(3) < 3));
        assert_eq!(seed.below(1), 0);
    }
}
