//! Tests over every message, and of the parts together.

mod codec;
mod every;
mod frames;
mod messages;
mod oracle;
mod records;
mod validate;
