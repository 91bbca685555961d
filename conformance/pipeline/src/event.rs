//! An event, and how its payload is made of nothing but its id, so that any byte that arrives can be
//! judged by somebody who only knows the id.

use serde_json::{Value, json};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Document,
    /// No bytes at all.
    Empty,
    /// NULL, which becomes a record without a value.
    Tombstone,
}

/// As the writers' table holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    pub id: String,
    pub account: String,
    pub version: u64,
    pub kind: Kind,
}

/// What a payload turned out to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    Document {
        id: String,
        version: u64,
    },
    Empty,
    Tombstone,
    /// None of our payloads; its beginning.
    Other(String),
}

impl Kind {
    pub fn code(self) -> &'static str {
        match self {
            Kind::Document => "document",
            Kind::Empty => "empty",
            Kind::Tombstone => "tombstone",
        }
    }

    pub fn of(code: &str) -> Option<Kind> {
        let all = [Kind::Document, Kind::Empty, Kind::Tombstone];
        all.into_iter().find(|kind| kind.code() == code)
    }
}

impl Event {
    /// `None` is NULL. `size` is about that of a document, in bytes.
    pub fn payload(&self, size: usize) -> Option<String> {
        match self.kind {
            Kind::Tombstone => None,
            Kind::Empty => Some(String::new()),
            Kind::Document => Some(
                json!({
                    "event": self.id,
                    "version": self.version,
                    "place": "Köln",
                    "size": size,
                    "pad": pad(&self.id, size),
                })
                .to_string(),
            ),
        }
    }

    /// What its payload has to turn out to be.
    pub fn body(&self) -> Body {
        match self.kind {
            Kind::Tombstone => Body::Tombstone,
            Kind::Empty => Body::Empty,
            Kind::Document => Body::Document {
                id: self.id.clone(),
                version: self.version,
            },
        }
    }
}

impl Body {
    /// Databases may write JSON in their own way: it is its meaning that counts.
    pub fn of(payload: Option<&[u8]>) -> Body {
        let Some(bytes) = payload else {
            return Body::Tombstone;
        };
        if bytes.is_empty() {
            return Body::Empty;
        }
        document(bytes).unwrap_or_else(|| {
            let text = String::from_utf8_lossy(bytes);
            Body::Other(text.chars().take(60).collect())
        })
    }
}

fn document(bytes: &[u8]) -> Option<Body> {
    let found: Value = serde_json::from_slice(bytes).ok()?;
    let id = found["event"].as_str()?;
    let size = usize::try_from(found["size"].as_u64()?).ok()?;
    let whole = found["pad"].as_str()? == pad(id, size) && found["place"] == "Köln";
    let version = found["version"].as_u64()?;
    whole.then(|| Body::Document {
        id: id.to_owned(),
        version,
    })
}

/// Letters that follow from the id, so that parts of two payloads are never taken for one.
fn pad(id: &str, size: usize) -> String {
    let mut state = id.bytes().fold(7_u32, |sum, byte| {
        sum.wrapping_mul(31).wrapping_add(byte.into())
    });
    let letter = |_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        char::from(b'a' + (state >> 24) as u8 % 26)
    };
    (0..size).map(letter).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(kind: Kind) -> Event {
        Event {
            id: "e-1".to_owned(),
            account: "a".to_owned(),
            version: 7,
            kind,
        }
    }

    #[test]
    fn a_payload_is_recognised() {
        for kind in [Kind::Document, Kind::Empty, Kind::Tombstone] {
            for size in [0, 1, 3_000] {
                let event = event(kind);
                let payload = event.payload(size);
                assert_eq!(
                    Body::of(payload.as_deref().map(str::as_bytes)),
                    event.body()
                );
            }
            assert_eq!(Kind::of(kind.code()), Some(kind));
        }
    }

    #[test]
    fn what_is_missing_or_other_is_noticed() {
        let payload = event(Kind::Document).payload(50).unwrap();
        for cut in [1, payload.len() / 2, payload.len() - 1] {
            let cut = payload.as_bytes().get(..cut);
            assert!(matches!(Body::of(cut), Body::Other(_)));
        }
        let other = payload.replacen("\"pad\":\"", "\"pad\":\"Z", 1);
        assert!(matches!(Body::of(Some(other.as_bytes())), Body::Other(_)));
    }
}
