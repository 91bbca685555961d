//! What is done to a file.

use std::fmt;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use crash_campaign::random::Random;
use oncelog_wire::records::Batches;

/// A batch's header, much of which its CRC does not cover.
const HEADER_BYTES: u64 = 61;

#[derive(Clone, Copy, Debug)]
enum How {
    Flip {
        at: u64,
        bit: u8,
    },
    /// Other bytes from here on.
    Scribble {
        at: u64,
        length: u64,
        seed: u64,
    },
    Zero {
        at: u64,
        length: u64,
    },
    Cut {
        to: u64,
    },
    Extend {
        by: u64,
        seed: u64,
    },
    Empty,
    Remove,
}

#[derive(Clone, Debug)]
pub struct Harm {
    /// Below the data directory.
    pub file: String,
    how: How,
}

/// The kinds of file, as often as each is chosen.
const KINDS: [&str; 16] = [
    ".log",
    ".log",
    ".log",
    ".log",
    ".index",
    ".timeindex",
    ".snapshot",
    "leader-epoch-checkpoint",
    "oncelog-checkpoint",
    "oncelog-checkpoint",
    "__cluster_metadata-0/",
    "__cluster_metadata-0/",
    "__consumer_offsets-0/",
    "__consumer_offsets-0/",
    "partition.metadata",
    "meta.properties",
];

/// One to three of the files in `data`, and what becomes of them.
pub fn choose(data: &Path, random: &mut Random) -> Vec<Harm> {
    let files = files(data);
    let count = if random.one_in(2) {
        1
    } else {
        random.range(2, 4)
    };
    let mut harms: Vec<Harm> = Vec::new();
    while harms.len() < count as usize {
        let kind = random.pick(&KINDS);
        let candidates: Vec<&String> = files.iter().filter(|file| file.contains(kind)).collect();
        if candidates.is_empty() {
            continue;
        }
        let file = random.pick(&candidates).clone();
        let how = how(&fs::read(data.join(&file)).unwrap(), random);
        if harms.iter().all(|harm| harm.file != file) {
            harms.push(Harm { file, how });
        }
    }
    harms
}

fn how(content: &[u8], random: &mut Random) -> How {
    let length = content.len() as u64;
    let headers = headers(content);
    if !headers.is_empty() && random.one_in(4) {
        return How::Flip {
            at: random.pick(&headers) + random.range(0, HEADER_BYTES),
            bit: random.range(0, 8) as u8,
        };
    }
    if length == 0 {
        return How::Extend {
            by: random.range(1, 100),
            seed: random.draw(),
        };
    }
    let at = random.range(0, length);
    match random.range(0, 12) {
        0..5 => How::Flip {
            at,
            bit: random.range(0, 8) as u8,
        },
        5 | 6 => How::Scribble {
            at,
            length: random.range(1, 200).min(length - at),
            seed: random.draw(),
        },
        7 => How::Zero {
            at: at / 512 * 512,
            length: 512.min(length - at / 512 * 512),
        },
        8 => How::Cut { to: at },
        9 => How::Extend {
            by: random.range(1, 5_000),
            seed: random.draw(),
        },
        10 => How::Empty,
        _ => How::Remove,
    }
}

/// Where batches begin; none if this is no segment.
fn headers(content: &[u8]) -> Vec<u64> {
    let mut headers = Vec::new();
    let mut batches = Batches::new(Bytes::copy_from_slice(content));
    let mut position = 0;
    while let Some(Ok(_)) = batches.next() {
        headers.push(position);
        position = batches.position() as u64;
    }
    headers
}

impl Harm {
    pub fn inflict(&self, data: &Path) {
        let path = data.join(&self.file);
        if let How::Remove = self.how {
            return fs::remove_file(path).unwrap();
        }
        let file = File::options().read(true).write(true).open(&path).unwrap();
        let length = file.metadata().unwrap().len();
        match self.how {
            How::Flip { at, bit } => {
                let mut byte = [0];
                file.read_exact_at(&mut byte, at).unwrap();
                file.write_all_at(&[byte[0] ^ 1 << bit], at).unwrap();
            }
            How::Scribble { at, length, seed } => {
                file.write_all_at(&noise(length, seed), at).unwrap();
            }
            How::Zero { at, length } => file.write_all_at(&vec![0; length as usize], at).unwrap(),
            How::Cut { to } => file.set_len(to).unwrap(),
            How::Extend { by, seed } => file.write_all_at(&noise(by, seed), length).unwrap(),
            How::Empty => file.set_len(0).unwrap(),
            How::Remove => unreachable!("done above"),
        }
    }

    pub fn kind(&self) -> &'static str {
        match self.how {
            How::Flip { .. } => "flipped bits",
            How::Scribble { .. } => "overwritten pieces",
            How::Zero { .. } => "zeroed pieces",
            How::Cut { .. } | How::Empty => "cut files",
            How::Extend { .. } => "extended files",
            How::Remove => "removed files",
        }
    }

    /// Nothing in this file is only there: a start may not be refused for it. (A topic id in
    /// partition.metadata that is another one may mean that the whole directory is another's.)
    pub fn can_be_rebuilt(&self) -> bool {
        let hints = [
            ".index",
            ".timeindex",
            ".snapshot",
            "leader-epoch-checkpoint",
            "oncelog-checkpoint",
        ];
        hints.iter().any(|name| self.file.ends_with(name))
    }

    pub fn leaves_nothing(&self) -> bool {
        matches!(self.how, How::Remove | How::Empty)
    }

    /// The base offset that a segment's name says.
    pub fn begins_at(&self) -> Option<i64> {
        let name = self.file.rsplit('/').next()?;
        name.strip_suffix(".log")?.parse().ok()
    }

    pub fn is_in(&self, dir: &str) -> bool {
        self.file.starts_with(&format!("{dir}/"))
    }

    pub fn is_log_of(&self, dir: &str) -> bool {
        self.is_in(dir) && self.file.ends_with(".log")
    }
}

impl fmt::Display for Harm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} of {}", self.how, self.file)
    }
}

fn noise(length: u64, seed: u64) -> Vec<u8> {
    let mut random = Random::new(seed);
    (0..length).map(|_| random.draw() as u8).collect()
}

/// Every file below `data` but the lock, sorted.
pub fn files(data: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut dirs = vec![PathBuf::from(data)];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                dirs.push(path);
                continue;
            }
            let name = path.strip_prefix(data).unwrap().to_str().unwrap();
            if !name.ends_with("lock") {
                found.push(name.to_owned());
            }
        }
    }
    found.sort();
    found
}
