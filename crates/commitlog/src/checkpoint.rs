//! A partition's checkpoint: what recovery may take for granted.
//!
//! `oncelog-checkpoint`, a small text file beside the segments, replaced atomically. It says:
//!
//! - where the log starts (`log-start-offset`; records below are deleted, whatever files remain);
//! - up to where every byte was synced (`recovery-point`: offset, segment, position in it);
//! - which sealed segments there are below that point, and their exact sizes, so that a lost or
//!   shortened file is noticed and refused instead of taken for the log's end;
//! - up to where the log is compacted (`first-dirty-offset`);
//! - how many aborted transactions each segment's `.txnindex` names below that point, and their CRC
//!   (`aborted`), because that file has none of its own;
//! - the replacement of segments that a compaction is in the middle of, if any (`swap`); see
//!   [`crate::compaction`].
//!
//! The second line is the CRC-32C of everything after it. A file that does not check is no
//! checkpoint: recovery then scans the whole log.
//!
//! Deliberately not here: when one is written ([`crate::background`]), and what recovery makes of it.

use crate::aborted::AbortedSummary;
use crc_fast::CrcAlgorithm;
use std::fmt::Write as _;

/// A place in the log: an offset that begins a batch (or the log's end), and where it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Point {
    pub offset: i64,
    /// Base offset of the segment.
    pub segment: i64,
    /// Bytes of the segment below the point.
    pub position: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Checkpoint {
    pub log_start_offset: i64,
    pub recovery_point: Point,
    pub first_dirty_offset: i64,
    /// (base offset, bytes) of the segments before the recovery point's, in order.
    pub segments: Vec<(i64, u64)>,
    /// Segments that have any, in order.
    pub aborted: Vec<AbortedSummary>,
    pub swap: Option<Swap>,
}

/// Segments that are replaced by one, or by none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Swap {
    /// Base offsets of the segments that go.
    pub replaced: Vec<i64>,
    /// Base offset of the one that comes: the first of `replaced`. `None`: nothing was left.
    pub replacement: Option<i64>,
}

const TITLE: &str = "oncelog-checkpoint 1";

impl Checkpoint {
    pub fn encode(&self) -> String {
        let body = self.body();
        let crc = crc32c(body.as_bytes());
        format!("{TITLE}\ncrc32c {crc:08x}\n{body}")
    }

    fn body(&self) -> String {
        let point = &self.recovery_point;
        let mut body = format!(
            "log-start-offset {}\nrecovery-point {} {} {}\nfirst-dirty-offset {}\nsegments {}\n",
            self.log_start_offset,
            point.offset,
            point.segment,
            point.position,
            self.first_dirty_offset,
            self.segments.len(),
        );
        for (base_offset, bytes) in &self.segments {
            writeln!(body, "{base_offset} {bytes}").expect("writes to a string");
        }
        for aborted in &self.aborted {
            let AbortedSummary {
                base_offset,
                count,
                crc,
            } = aborted;
            writeln!(body, "aborted {base_offset} {count} {crc:08x}").expect("writes to a string");
        }
        if let Some(swap) = &self.swap {
            write!(body, "swap {}", swap.replacement.unwrap_or(-1)).expect("writes to a string");
            for base_offset in &swap.replaced {
                write!(body, " {base_offset}").expect("writes to a string");
            }
            body.push('\n');
        }
        body
    }

    /// `None` for anything that [`Checkpoint::encode`] did not make.
    pub fn decode(bytes: &[u8]) -> Option<Checkpoint> {
        let text = std::str::from_utf8(bytes).ok()?;
        let text = text.strip_prefix(TITLE)?.strip_prefix("\ncrc32c ")?;
        let (crc, body) = text.split_once('\n')?;
        // As it is written, to the letter: "D" is not what was there for "d".
        if crc != format!("{:08x}", crc32c(body.as_bytes())) {
            return None;
        }
        let mut lines = body.lines();
        let mut line = |name: &str| lines.next()?.strip_prefix(name)?.strip_prefix(' ');
        let log_start_offset = number(line("log-start-offset")?)?;
        let mut point = line("recovery-point")?.splitn(3, ' ');
        let recovery_point = Point {
            offset: number(point.next()?)?,
            segment: number(point.next()?)?,
            position: number(point.next()?)? as u64,
        };
        let first_dirty_offset = number(line("first-dirty-offset")?)?;
        let count = number(line("segments")?)? as usize;
        let mut segments = Vec::new();
        for _ in 0..count {
            let (base_offset, bytes) = lines.next()?.split_once(' ')?;
            segments.push((number(base_offset)?, number(bytes)? as u64));
        }
        let mut rest = lines.peekable();
        let mut aborted = Vec::new();
        while let Some(line) = rest.next_if(|line| line.starts_with("aborted ")) {
            aborted.push(decode_aborted(line)?);
        }
        let swap = match rest.next() {
            None => None,
            Some(line) => Some(decode_swap(line)?),
        };
        Some(Checkpoint {
            log_start_offset,
            recovery_point,
            first_dirty_offset,
            segments,
            aborted,
            swap,
        })
    }
}

fn decode_aborted(line: &str) -> Option<AbortedSummary> {
    let mut words = line.strip_prefix("aborted ")?.splitn(3, ' ');
    Some(AbortedSummary {
        base_offset: number(words.next()?)?,
        count: number(words.next()?)? as u64,
        crc: u32::from_str_radix(words.next()?, 16).ok()?,
    })
}

fn decode_swap(line: &str) -> Option<Swap> {
    let mut words = line.strip_prefix("swap ")?.split(' ');
    let replacement = match words.next()? {
        "-1" => None,
        base_offset => Some(number(base_offset)?),
    };
    let replaced = words.map(number).collect::<Option<Vec<i64>>>()?;
    Some(Swap {
        replaced,
        replacement,
    })
}

fn number(text: &str) -> Option<i64> {
    text.parse().ok().filter(|number| *number >= 0)
}

pub(crate) fn crc32c(bytes: &[u8]) -> u32 {
    crc_fast::checksum(CrcAlgorithm::Crc32Iscsi, bytes) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Checkpoint {
        Checkpoint {
            log_start_offset: 5,
            recovery_point: Point {
                offset: 120,
                segment: 100,
                position: 2048,
            },
            first_dirty_offset: 50,
            segments: vec![(0, 1000), (50, 1001)],
            aborted: Vec::new(),
            swap: None,
        }
    }

    #[test]
    fn round_trip() {
        let check = |checkpoint: Checkpoint| {
            let text = checkpoint.encode();
            assert_eq!(Checkpoint::decode(text.as_bytes()), Some(checkpoint));
        };
        check(Checkpoint::default());
        check(sample());
        for replacement in [None, Some(0)] {
            let replaced = vec![0, 50];
            check(Checkpoint {
                swap: Some(Swap {
                    replaced,
                    replacement,
                }),
                aborted: vec![AbortedSummary {
                    base_offset: 50,
                    count: 2,
                    crc: 0x0123_abcd,
                }],
                ..sample()
            });
        }
    }

    #[test]
    fn the_text() {
        let text = sample().encode();
        let (head, body) = text.split_at(text.find("log-start").unwrap());
        assert_eq!(head, "oncelog-checkpoint 1\ncrc32c 355025cc\n");
        assert_eq!(
            body,
            "log-start-offset 5\nrecovery-point 120 100 2048\nfirst-dirty-offset 50\nsegments 2\n\
             0 1000\n50 1001\n"
        );
    }

    #[test]
    fn any_flipped_bit_or_lost_byte_is_noticed() {
        let bytes = sample().encode().into_bytes();
        for i in 0..bytes.len() {
            assert_eq!(Checkpoint::decode(&bytes[..i]), None, "cut at {i}");
            for bit in 0..8 {
                let mut flipped = bytes.clone();
                flipped[i] ^= 1 << bit;
                assert_eq!(Checkpoint::decode(&flipped), None, "bit {bit} of byte {i}");
            }
        }
        assert_eq!(Checkpoint::decode(&[0; 100]), None);
    }
}
