//! `partition.metadata`: which topic a directory belongs to, in Kafka's text format version 0.

use bytes::Bytes;
use oncelog_wire::Uuid;

pub(crate) fn encode(topic_id: Uuid) -> Bytes {
    format!("version: 0\ntopic_id: {topic_id}\n").into()
}

/// `None` if the file does not say.
pub(crate) fn decode(bytes: &[u8]) -> Option<Uuid> {
    let mut lines = std::str::from_utf8(bytes).ok()?.lines();
    let version = lines.next()?.strip_prefix("version:")?;
    if version.trim() != "0" {
        return None;
    }
    lines.next()?.strip_prefix("topic_id:")?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_kafkas() {
        let id = Uuid([7; 16]);
        let content = encode(id);
        assert_eq!(
            &content[..],
            b"version: 0\ntopic_id: BwcHBwcHBwcHBwcHBwcHBw\n"
        );
        assert_eq!(decode(&content), Some(id));
        for bad in [
            "",
            "version: 0\n",
            "version: 1\ntopic_id: BwcHBwcHBwcHBwcHBwcHBw\n",
            "\0\0",
        ] {
            assert_eq!(decode(bad.as_bytes()), None, "{bad:?}");
        }
    }
}
