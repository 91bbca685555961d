//! The floor's topics: one file a partition, and where in it each batch begins.

use std::collections::HashMap;
use std::fs::File;
use std::io::{IoSlice, Write};
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};

pub struct Partition {
    pub file: Arc<File>,
    path: PathBuf,
    /// First offset and position of each batch.
    batches: Vec<(i64, u64)>,
    pub end_offset: i64,
    end_position: u64,
    dirty: bool,
}

pub struct Files {
    dir: PathBuf,
    pub topics: HashMap<String, Vec<Partition>>,
    dirty: bool,
}

impl Files {
    pub fn new(dir: PathBuf) -> Files {
        Files {
            dir,
            topics: HashMap::new(),
            dirty: false,
        }
    }

    pub fn create(&mut self, topic: &str, partitions: i32) -> Result<()> {
        let mut made = Vec::new();
        for index in 0..partitions {
            let path = self.dir.join(format!("{topic}-{index}"));
            let file = File::options()
                .create_new(true)
                .read(true)
                .append(true)
                .open(&path)?;
            made.push(Partition {
                file: Arc::new(file),
                path,
                batches: Vec::new(),
                end_offset: 0,
                end_position: 0,
                dirty: false,
            });
        }
        self.topics.insert(topic.to_owned(), made);
        Ok(())
    }

    pub fn delete(&mut self, topic: &str) -> Result<()> {
        for partition in self.topics.remove(topic).unwrap_or_default() {
            std::fs::remove_file(partition.path)?;
        }
        Ok(())
    }

    pub fn partition(&mut self, topic: &str, index: i32) -> Result<&mut Partition> {
        let partitions = self.topics.get_mut(topic);
        partitions
            .and_then(|all| all.get_mut(index as usize))
            .with_context(|| format!("no partition {topic}-{index}"))
    }

    /// Appends one batch as it came, with its offset put in; returns that offset.
    pub fn append(&mut self, topic: &str, index: i32, batch: &[u8]) -> Result<i64> {
        self.dirty = true;
        let partition = self.partition(topic, index)?;
        let base = partition.end_offset;
        let last_delta = batch.get(23..27).context("less than a batch")?;
        let last_delta = i32::from_be_bytes(last_delta.try_into()?);
        let mut file = &*partition.file;
        let offset = base.to_be_bytes();
        let written = file.write_vectored(&[IoSlice::new(&offset), IoSlice::new(&batch[8..])])?;
        ensure!(written == batch.len(), "a short write");
        partition.batches.push((base, partition.end_position));
        partition.end_position += batch.len() as u64;
        partition.end_offset = base + i64::from(last_delta) + 1;
        partition.dirty = true;
        Ok(base)
    }

    /// Syncs every file that was appended to since the last time.
    pub fn sync(&mut self) -> Result<()> {
        if !std::mem::take(&mut self.dirty) {
            return Ok(());
        }
        for partition in self.topics.values_mut().flatten() {
            if std::mem::take(&mut partition.dirty) {
                partition.file.sync_data()?;
            }
        }
        Ok(())
    }
}

impl Partition {
    /// Position and length of the whole batches from `offset` on, at most `bytes_max` but one batch
    /// at least; nothing at the end.
    pub fn range(&self, offset: i64, bytes_max: u64) -> (u64, u64) {
        if offset >= self.end_offset {
            return (self.end_position, 0);
        }
        let first = self.batches.partition_point(|(base, _)| *base <= offset) - 1;
        let position = self.batches[first].1;
        let end_max = position + bytes_max;
        if self.end_position <= end_max {
            return (position, self.end_position - position);
        }
        // The last start of a batch that is still within the limit is the end of the one before.
        let beyond = self.batches.partition_point(|(_, start)| *start <= end_max) - 1;
        let last = beyond.max(first + 1);
        let end = self
            .batches
            .get(last)
            .map_or(self.end_position, |(_, start)| *start);
        (position, end - position)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a client is handed must begin at its offset and hold whole batches.
    #[test]
    fn ranges_are_whole_batches() {
        let dir = std::env::temp_dir().join(format!("floor-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let mut files = Files::new(dir.clone());
        files.create("t", 1).unwrap();
        // Three batches of 100 bytes, two records each.
        let mut batch = vec![0; 100];
        batch[26] = 1;
        for base in [0, 2, 4] {
            assert_eq!(files.append("t", 0, &batch).unwrap(), base);
        }
        let partition = files.partition("t", 0).unwrap();
        assert_eq!(partition.end_offset, 6);
        let cases = [
            (0, 1000, (0, 300)),
            (0, 200, (0, 200)),
            (1, 250, (0, 200)),
            (2, 10, (100, 100)),
            (5, 1000, (200, 100)),
            (6, 1000, (300, 0)),
        ];
        for (offset, bytes_max, want) in cases {
            assert_eq!(
                partition.range(offset, bytes_max),
                want,
                "{offset} {bytes_max}"
            );
        }
        files.delete("t").unwrap();
        std::fs::remove_dir(dir).unwrap();
    }
}
