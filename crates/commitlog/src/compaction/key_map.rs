//! The last offset of each key, in bounded memory: Kafka's `SkimpyOffsetMap`.
//!
//! Keys are known by 128 bits of their BLAKE3 hash, so that no choice of keys makes two of them
//! look like one. An open-addressing table that doubles as it fills, up to a given number of keys.

const HASH_BYTES: usize = 16;
const VACANT: i64 = -1;

#[derive(Clone, Debug)]
pub(crate) struct KeyMap {
    slots: Vec<Slot>,
    len: usize,
    keys_max: usize,
}

#[derive(Clone, Copy, Debug)]
struct Slot {
    hash: [u8; HASH_BYTES],
    offset: i64,
}

const EMPTY: Slot = Slot {
    hash: [0; HASH_BYTES],
    offset: VACANT,
};

impl KeyMap {
    pub fn new(keys_max: usize) -> KeyMap {
        KeyMap {
            slots: vec![EMPTY; 64],
            len: 0,
            keys_max,
        }
    }

    /// Sets the key's last offset; false if it is new and the map is full.
    #[must_use]
    pub fn put(&mut self, key: &[u8], offset: i64) -> bool {
        assert!(offset >= 0);
        let hash = hash(key);
        let at = self.slot_of(&hash);
        if self.slots[at].offset == VACANT {
            if self.len == self.keys_max {
                return false;
            }
            self.len += 1;
        }
        self.slots[at] = Slot { hash, offset };
        if self.len * 4 > self.slots.len() * 3 {
            self.grow();
        }
        true
    }

    pub fn get(&self, key: &[u8]) -> Option<i64> {
        let offset = self.slots[self.slot_of(&hash(key))].offset;
        (offset != VACANT).then_some(offset)
    }

    /// The slot that holds the hash, or the vacant one where it belongs. There is always one.
    fn slot_of(&self, hash: &[u8; HASH_BYTES]) -> usize {
        let mask = self.slots.len() - 1;
        let (front, _) = hash.split_first_chunk().expect("a hash has 16 bytes");
        let mut at = u64::from_le_bytes(*front) as usize & mask;
        while self.slots[at].offset != VACANT && self.slots[at].hash != *hash {
            at = (at + 1) & mask;
        }
        at
    }

    fn grow(&mut self) {
        let doubled = vec![EMPTY; self.slots.len() * 2];
        for slot in std::mem::replace(&mut self.slots, doubled) {
            if slot.offset != VACANT {
                let at = self.slot_of(&slot.hash);
                self.slots[at] = slot;
            }
        }
    }
}

fn hash(key: &[u8]) -> [u8; HASH_BYTES] {
    let hash = blake3::hash(key);
    *hash.as_bytes().first_chunk().expect("a hash has 32 bytes")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn behaves_like_a_map() {
        let mut map = KeyMap::new(usize::MAX);
        let mut model = BTreeMap::new();
        for i in 0..5000i64 {
            let key = (i * 7919 % 1777).to_string();
            assert!(map.put(key.as_bytes(), i));
            model.insert(key, i);
        }
        assert_eq!(map.len, model.len());
        for (key, offset) in &model {
            assert_eq!(map.get(key.as_bytes()), Some(*offset), "{key}");
        }
        assert_eq!(map.get(b"absent"), None);
        assert_eq!(map.get(b""), None);
    }

    #[test]
    fn full_refuses_new_keys_only() {
        let mut map = KeyMap::new(2);
        assert!(map.put(b"a", 1) && map.put(b"b", 2));
        assert!(!map.put(b"c", 3));
        assert!(map.put(b"a", 4));
        assert_eq!((map.get(b"a"), map.get(b"c")), (Some(4), None));
    }
}
