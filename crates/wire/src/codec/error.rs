//! Why bytes are no message, and why a message has no bytes.

/// What was wrong with the input, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{kind} at byte {offset}")]
pub struct DecodeError {
    pub kind: DecodeErrorKind,
    /// Bytes from the start of the reader's buffer.
    pub offset: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeErrorKind {
    #[error("the message ends {missing} bytes early")]
    UnexpectedEnd { missing: usize },
    #[error("length {0} is not possible")]
    InvalidLength(i64),
    #[error("{count} elements cannot lie in the {remaining} bytes that remain")]
    CountTooLarge { count: usize, remaining: usize },
    #[error("null where the version does not allow it")]
    NullNotAllowed,
    #[error("string that is not UTF-8")]
    InvalidUtf8,
    #[error("varint longer than its type")]
    VarintTooLong,
    #[error("a tagged field's size is not that of its value")]
    TaggedFieldSize,
    #[error("more memory would be needed than a message of this size may take")]
    BudgetExceeded,
    #[error("version {0} is not one of the message's")]
    UnsupportedVersion(i16),
}

/// Why a message cannot be written in a version: always a mistake of the caller, never of a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    #[error("version {0} is not one of the message's")]
    UnsupportedVersion(i16),
    #[error("{field} has a value, and version {version} has no place for it")]
    FieldNotInVersion { field: &'static str, version: i16 },
    #[error("{field} is null, and may not be in version {version}")]
    NullNotAllowed { field: &'static str, version: i16 },
    #[error("{0} bytes or elements are more than the length prefix can say")]
    TooLong(usize),
    #[error("tag {0} occurs twice")]
    DuplicateTag(u32),
    #[error("record bytes from outside inside a tagged field")]
    ExternalInTaggedField,
}
