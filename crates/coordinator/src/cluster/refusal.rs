//! Why a request, or a part of one, is not carried out: a code and a sentence.

use super::limits::{ITEMS_PER_REQUEST, MESSAGE_CHARS};
use oncelog_wire::ErrorCode;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub code: ErrorCode,
    pub message: String,
}

impl Refusal {
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Refusal {
        let mut message = message.into();
        if let Some((end, _)) = message.char_indices().nth(MESSAGE_CHARS) {
            message.truncate(end);
        }
        Refusal { code, message }
    }

    pub fn invalid_request(message: impl Into<String>) -> Refusal {
        Refusal::new(ErrorCode::InvalidRequest, message)
    }

    pub fn invalid_config(message: impl Into<String>) -> Refusal {
        Refusal::new(ErrorCode::InvalidConfig, message)
    }

    /// For requests that name more than [`ITEMS_PER_REQUEST`] things; they are refused as a whole.
    pub fn too_many(items: usize) -> Result<(), Refusal> {
        if items <= ITEMS_PER_REQUEST {
            return Ok(());
        }
        let message = format!(
            "The request names {items} items, and at most {ITEMS_PER_REQUEST} are allowed."
        );
        Err(Refusal::invalid_request(message))
    }

    pub fn unknown_topic(name: &str) -> Refusal {
        let message = format!("The topic '{name}' does not exist.");
        Refusal::new(ErrorCode::UnknownTopicOrPartition, message)
    }
}

/// The two fields that answers have for it.
pub(crate) fn code_and_message<T>(result: &Result<T, Refusal>) -> (i16, Option<String>) {
    match result {
        Ok(_) => (ErrorCode::None.code(), None),
        Err(refusal) => (refusal.code.code(), Some(refusal.message.clone())),
    }
}
