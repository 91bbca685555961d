//! A Produce request of version 3 to 7, read in place: the one request that must cost nothing.

use anyhow::{Context, Result};

pub struct Cursor<'a>(pub &'a [u8]);

impl<'a> Cursor<'a> {
    pub fn take(&mut self, len: usize) -> Result<&'a [u8]> {
        let (taken, rest) = self
            .0
            .split_at_checked(len)
            .context("a request that ends early")?;
        self.0 = rest;
        Ok(taken)
    }

    pub fn i16(&mut self) -> Result<i16> {
        Ok(i16::from_be_bytes(self.take(2)?.try_into()?))
    }

    pub fn i32(&mut self) -> Result<i32> {
        Ok(i32::from_be_bytes(self.take(4)?.try_into()?))
    }

    /// Null is as good as empty here.
    pub fn string(&mut self) -> Result<&'a str> {
        let len = self.i16()?.max(0);
        Ok(std::str::from_utf8(self.take(len as usize)?)?)
    }

    pub fn bytes(&mut self) -> Result<&'a [u8]> {
        let len = self.i32()?.max(0);
        self.take(len as usize)
    }
}

/// What is in front of every request.
pub struct Header {
    pub api_key: i16,
    pub version: i16,
    pub correlation_id: i32,
}

impl Header {
    /// Leaves the cursor behind the client id, which is the end of the header in old versions.
    pub fn read(cursor: &mut Cursor) -> Result<Header> {
        let header = Header {
            api_key: cursor.i16()?,
            version: cursor.i16()?,
            correlation_id: cursor.i32()?,
        };
        cursor.string()?;
        Ok(header)
    }
}

/// Calls `append` with topic, partition and records of everything in a Produce request; its acks.
pub fn each_produced<'a>(
    cursor: &mut Cursor<'a>,
    mut append: impl FnMut(&'a str, i32, &'a [u8]) -> Result<()>,
) -> Result<i16> {
    cursor.string()?; // the transactional id
    let acks = cursor.i16()?;
    cursor.i32()?; // the timeout
    for _ in 0..cursor.i32()? {
        let topic = cursor.string()?;
        for _ in 0..cursor.i32()? {
            let index = cursor.i32()?;
            append(topic, index, cursor.bytes()?)?;
        }
    }
    Ok(acks)
}
