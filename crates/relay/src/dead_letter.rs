//! What becomes of a row that can never be published, where the configuration says to quarantine it:
//! records of the dead-letter topic that hold all of it, in parts where it is large.
//!
//! Headers: `oncelog.error` (why), `oncelog.relay`, `oncelog.position`, `oncelog.part` (`1/3`), and, of
//! an event that had been routed, `oncelog.topic` and the event's own headers.

use std::sync::Arc;

use serde_json::{Map, Value as Json};

use crate::event::Event;
use crate::position::Position;
use crate::relay::Settings;
use crate::row::{OutboxRow, bytes_to_json};

/// The most of a value that one record holds: well below the megabyte that brokers take by default.
const PART_BYTES_MAX: usize = 256 << 10;
/// Of a key or a header's value: they could be what is too large. The value is never cut.
const SMALL_BYTES_MAX: usize = 4 << 10;

/// The row as a JSON object of its columns.
pub fn of_row(settings: &Settings, row: &OutboxRow, reason: &str) -> Vec<Event> {
    let columns = row.columns.iter().zip(&row.values);
    let fields: Map<String, Json> = columns
        .map(|(name, value)| (name.clone(), value.to_json()))
        .collect();
    let value = Json::Object(fields).to_string().into_bytes();
    parts(settings, None, Some(value), &row.position, reason, &[])
}

/// An event that the broker, or the client, refuses. Key and headers that are large are in the value
/// instead, which then is a JSON object.
pub fn of_event(settings: &Settings, event: &Event, reason: &str) -> Vec<Event> {
    let small = |bytes: &Option<Vec<u8>>| bytes.as_ref().is_none_or(|b| b.len() <= SMALL_BYTES_MAX);
    let mut headers = vec![(
        "oncelog.topic".into(),
        Some(event.topic.as_bytes().to_vec()),
    )];
    let bytes: usize = event.headers.iter().map(|(name, _)| name.len()).sum();
    let fits = small(&event.key)
        && bytes <= SMALL_BYTES_MAX
        && event.headers.iter().all(|(_, value)| small(value));
    if fits {
        headers.extend(event.headers.iter().cloned());
        let (key, value) = (event.key.clone(), event.value.clone());
        return parts(settings, key, value, &event.position, reason, &headers);
    }
    let text = |bytes: &Option<Vec<u8>>| {
        bytes
            .as_ref()
            .map_or(Json::Null, |bytes| bytes_to_json(bytes))
    };
    let listed = event.headers.iter();
    let listed = listed.map(|(name, value)| Json::from(vec![name.to_string().into(), text(value)]));
    let whole = serde_json::json!({
        "key": text(&event.key),
        "value": text(&event.value),
        "headers": listed.collect::<Vec<_>>(),
    });
    let value = Some(whole.to_string().into_bytes());
    parts(settings, None, value, &event.position, reason, &headers)
}

fn parts(
    settings: &Settings,
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    position: &Position,
    reason: &str,
    more: &[(Arc<str>, Option<Vec<u8>>)],
) -> Vec<Event> {
    let text = |text: &str| Some(text.as_bytes().to_vec());
    let topic: Arc<str> = settings.dead_letter_topic.as_str().into();
    let pieces: Vec<Option<Vec<u8>>> = match value {
        Some(value) if value.len() > PART_BYTES_MAX => value
            .chunks(PART_BYTES_MAX)
            .map(|piece| Some(piece.to_vec()))
            .collect(),
        whole => vec![whole],
    };
    let count = pieces.len();
    let event = |(index, value): (usize, Option<Vec<u8>>)| {
        let mut headers: Vec<(Arc<str>, Option<Vec<u8>>)> = vec![
            ("oncelog.error".into(), text(reason)),
            ("oncelog.relay".into(), text(&settings.name)),
            ("oncelog.position".into(), text(&position.to_string())),
            (
                "oncelog.part".into(),
                text(&format!("{}/{count}", index + 1)),
            ),
        ];
        headers.extend(more.iter().cloned());
        Event {
            topic: Arc::clone(&topic),
            // One partition, so that the parts are in order.
            partition: Some(0),
            key: key.clone(),
            value,
            headers,
            timestamp_ms: None,
            position: position.clone(),
        }
    };
    pieces.into_iter().enumerate().map(event).collect()
}
