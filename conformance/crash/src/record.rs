//! The records of the crash tests. Each says which producer sent it and as which number, and the
//! rest of it follows from that, so that a record read back can be checked to the last byte.

use crate::random::Random;

/// Which record: its producer, and its number among that producer's for one partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Stamp {
    pub producer: u16,
    pub number: u32,
}

const HEAD: usize = 6;

impl Stamp {
    /// In the place of a record that nobody sent.
    pub const NOBODY: Stamp = Stamp {
        producer: u16::MAX,
        number: u32::MAX,
    };

    /// 6 to 3000 bytes; about half of them compress.
    pub fn value(self, partition: i32) -> Vec<u8> {
        let seed = u64::from(self.producer) << 48 | (partition as u64) << 32;
        let mut random = Random::new(seed | u64::from(self.number));
        let length = match random.range(0, 10) {
            0 => 0,
            1..8 => random.range(0, 900),
            _ => random.range(900, 3_000),
        };
        let mut value = Vec::with_capacity(HEAD + length as usize);
        value.extend_from_slice(&self.producer.to_be_bytes());
        value.extend_from_slice(&self.number.to_be_bytes());
        while value.len() < HEAD + length as usize {
            value.extend_from_slice(&random.draw().to_be_bytes());
            value.extend_from_slice(b"oncelog!");
        }
        value.truncate(HEAD + length as usize);
        value
    }

    /// Whose record this is; an error if it is nobody's, or not what was sent.
    pub fn of(value: &[u8], partition: i32) -> Result<Stamp, String> {
        let head = value.get(..HEAD).ok_or("a record without a stamp")?;
        let stamp = Stamp {
            producer: u16::from_be_bytes([head[0], head[1]]),
            number: u32::from_be_bytes([head[2], head[3], head[4], head[5]]),
        };
        match stamp.value(partition) == value {
            true => Ok(stamp),
            false => Err(format!("{stamp:?} came back with other bytes")),
        }
    }
}
