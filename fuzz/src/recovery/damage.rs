//! What happens to the files of a partition while no broker runs.

use crate::batches::repair;
use crate::partition_world::DIR;
use oncelog_commitlog::Disk;
use oncelog_commitlog::testing::MemoryDisk;

/// One piece of damage to one file, by its place in the sorted directory.
#[derive(Clone, Copy, Debug)]
pub struct Damage {
    file: u8,
    how: How,
}

#[derive(Clone, Copy, Debug)]
enum How {
    FlipBit {
        at: u16,
        bit: u8,
    },
    Truncate {
        to: u16,
    },
    Overwrite {
        at: u16,
        with: [u8; 2],
    },
    Zero {
        at: u16,
        length: u8,
    },
    Append {
        what: u8,
        length: u8,
    },
    Remove,
    /// Another file's content, under this name.
    CopyFrom {
        other: u8,
    },
    /// The same content, under a name with a suffix that means something.
    Suffix {
        which: u8,
    },
    /// Overwritten, and the checksum (of the batch there, of the checkpoint) made right: nothing
    /// by chance, somebody's work.
    Forge {
        at: u16,
        with: u8,
    },
}

/// What may be asked of recovery after the damage.
#[derive(Clone, Copy, Debug, Default)]
pub struct Done {
    /// A checksum was made right: anything may be believed.
    pub forged: bool,
    /// A file has another's content, checksum and all.
    pub copied: bool,
}

const SUFFIXES: [&str; 4] = [".swap", ".cleaned", ".deleted", ".tmp"];

impl Damage {
    pub fn read(bytes: &[u8; 6]) -> Damage {
        let [file, kind, a, b, c, d] = *bytes;
        let at = u16::from_be_bytes([a, b]);
        let how = match kind % 10 {
            0 | 1 => How::FlipBit { at, bit: c % 8 },
            2 => How::Truncate { to: at },
            3 => How::Overwrite { at, with: [c, d] },
            4 => How::Zero { at, length: c },
            5 => How::Append { what: c, length: d },
            6 => How::Remove,
            7 => How::CopyFrom { other: c },
            8 => How::Suffix { which: c },
            _ => How::Forge { at, with: c },
        };
        Damage { file, how }
    }
}

/// Does all of it; the disk holds the result for good.
pub fn apply(disk: &MemoryDisk, damage: &[Damage]) -> Done {
    let mut done = Done::default();
    for damage in damage {
        one(disk, damage, &mut done);
    }
    disk.sync_everything();
    done
}

fn one(disk: &MemoryDisk, damage: &Damage, done: &mut Done) {
    let names = disk.list(DIR).expect("the directory is there");
    let path = |which: u8| {
        let name = names.get(usize::from(which) % names.len().max(1));
        name.map(|name| format!("{DIR}/{name}"))
    };
    let Some(file) = path(damage.file) else {
        return; // everything was removed
    };
    let mut content = disk.content(&file).expect("a file of the directory");
    let length = content.len();
    let place = |at: u16| usize::from(at) % length.max(1);
    let put = |content: &mut Vec<u8>, at: u16, with: &[u8]| {
        for (byte, with) in content.iter_mut().skip(place(at)).zip(with) {
            *byte = *with;
        }
    };
    match damage.how {
        How::FlipBit { at, bit } if length > 0 => content[place(at)] ^= 1 << bit,
        How::FlipBit { .. } => {}
        How::Truncate { to } => content.truncate(usize::from(to) % (length + 1)),
        How::Overwrite { at, with } => put(&mut content, at, &with),
        How::Zero { at, length } => put(&mut content, at, &vec![0; usize::from(length)]),
        How::Append { what, length } => content.extend(vec![what; usize::from(length)]),
        How::Remove => return disk.remove(&file).expect("it was there"),
        How::CopyFrom { other } => {
            done.copied = true;
            content = path(other)
                .and_then(|file| disk.content(&file))
                .unwrap_or_default();
        }
        How::Suffix { which } => {
            let suffix = SUFFIXES[usize::from(which) % SUFFIXES.len()];
            return write(disk, &format!("{file}{suffix}"), &content);
        }
        How::Forge { at, with } => {
            done.forged = true;
            put(&mut content, at, &[with]);
            forge(&file, &mut content, place(at));
        }
    }
    write(disk, &file, &content);
}

/// Makes the checksum right that covers `at`.
fn forge(file: &str, content: &mut Vec<u8>, at: usize) {
    if file.ends_with(".log") {
        let mut begin = 0;
        while let Some(header) = content.get(begin..begin + 12) {
            let size =
                12 + u32::from_be_bytes([header[8], header[9], header[10], header[11]]) as usize;
            let end = content.len().min(begin.saturating_add(size));
            if at < end {
                let batch = repair(content[begin..end].to_vec());
                content.splice(begin..end, batch);
                return;
            }
            begin = end;
        }
    } else if file.ends_with("oncelog-checkpoint") {
        let mut lines = content.splitn(3, |byte| *byte == b'\n');
        let (Some(title), Some(_), Some(body)) = (lines.next(), lines.next(), lines.next()) else {
            return;
        };
        let crc = format!("\ncrc32c {:08x}\n", crate::batches::crc32c(body));
        *content = [title, crc.as_bytes(), body].concat();
    }
}

fn write(disk: &MemoryDisk, file: &str, content: &[u8]) {
    disk.remove(file).expect("removing is allowed");
    disk.write_at(file, 0, &[content])
        .expect("no fault is armed");
}
