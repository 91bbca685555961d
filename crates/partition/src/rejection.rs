//! Why a client's append was refused, in Kafka's vocabulary.

use oncelog_wire::ErrorCode;

/// Records of one batch that an answer names as being at fault; a batch may hold millions.
pub(crate) const RECORD_ERRORS_MAX: usize = 10_000;

/// A refused append. Nothing was appended and no state changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// What the client sees.
    pub code: ErrorCode,
    /// For the operator's log, and for Produce v8+ (`error_message`, KIP-467).
    pub message: String,
    /// The records at fault, if single records were (KIP-467); the whole batch is refused.
    pub record_errors: Vec<RecordError>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordError {
    /// Index of the record within its batch, from 0.
    pub batch_index: i32,
    pub message: String,
}

impl Rejection {
    pub(crate) fn new(code: ErrorCode, message: impl Into<String>) -> Rejection {
        Rejection {
            code,
            message: message.into(),
            record_errors: Vec::new(),
        }
    }
}
