//! JSON without building a tree of it: only the fields that a mapping names are looked at, and numbers
//! keep their digits.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

/// The raw values of those fields of the object in `text` that are in `names`, in their order; the last
/// one of several with one name. `None`: it is no object (another JSON value).
///
/// Errors: where and why it is no JSON.
pub fn fields<'a>(
    text: &'a [u8],
    names: &[String],
) -> Result<Option<Vec<Option<&'a RawValue>>>, String> {
    let first = text.iter().find(|byte| !byte.is_ascii_whitespace());
    if first != Some(&b'{') {
        let other: Result<IgnoredAny, _> = serde_json::from_slice(text);
        return other.map(|_| None).map_err(|error| error.to_string());
    }
    let mut reader = serde_json::Deserializer::from_slice(text);
    let found = Fields { names }.deserialize(&mut reader);
    let found = found.map_err(|error| error.to_string())?;
    reader.end().map_err(|error| error.to_string())?;
    Ok(Some(found))
}

/// The value at a path below `raw`: names of fields, and indexes into arrays.
pub fn descend<'a>(raw: &'a RawValue, path: &[String]) -> Option<&'a RawValue> {
    let Some((step, rest)) = path.split_first() else {
        return Some(raw);
    };
    let inner = match raw.get().as_bytes().first() {
        Some(b'{') => {
            let found = fields(raw.get().as_bytes(), std::slice::from_ref(step)).ok()??;
            found.into_iter().next().flatten()?
        }
        Some(b'[') => {
            let items: Vec<&RawValue> = serde_json::from_str(raw.get()).ok()?;
            items.get(step.parse::<usize>().ok()?).copied()?
        }
        _ => return None,
    };
    descend(inner, rest)
}

pub fn is_json(text: &str) -> bool {
    serde_json::from_str::<IgnoredAny>(text).is_ok()
}

struct Fields<'n> {
    names: &'n [String],
}

impl<'de> DeserializeSeed<'de> for Fields<'_> {
    type Value = Vec<Option<&'de RawValue>>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Fields<'_> {
    type Value = Vec<Option<&'de RawValue>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = vec![None; self.names.len()];
        while let Some(index) = map.next_key_seed(Name { names: self.names })? {
            match index {
                Some(index) => found[index] = Some(map.next_value::<&'de RawValue>()?),
                None => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(found)
    }
}

struct Name<'n> {
    names: &'n [String],
}

impl<'de> DeserializeSeed<'de> for Name<'_> {
    type Value = Option<usize>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Name<'_> {
    type Value = Option<usize>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a field's name")
    }

    fn visit_str<E>(self, name: &str) -> Result<Self::Value, E> {
        Ok(self.names.iter().position(|known| known == name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn fields_are_found_with_all_their_digits() {
        let text = br#" {"a": 1.10, "skip": [{"b": 1}], "b": {"c": ["x", 2]}, "a": 12345678901234567890.5}"#;
        let found = fields(text, &names(&["b", "a", "none"])).unwrap().unwrap();
        assert_eq!(found[1].unwrap().get(), "12345678901234567890.5");
        assert!(found[2].is_none());
        let inner = found[0].unwrap();
        assert_eq!(descend(inner, &names(&["c", "1"])).unwrap().get(), "2");
        assert!(descend(inner, &names(&["c", "2"])).is_none());
        assert!(descend(inner, &names(&["c", "0", "x"])).is_none());
    }

    #[test]
    fn what_is_no_object_and_what_is_no_json_differ() {
        assert!(fields(b"[1]", &[]).unwrap().is_none());
        assert!(fields(b"", &[]).is_err());
        assert!(fields(b"{\"a\":1} x", &names(&["a"])).is_err());
        assert!(fields(b"{\"a\":", &names(&["a"])).is_err());
    }
}
