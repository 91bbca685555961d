//! The transaction coordinator's settings, under Kafka's names where Kafka has them.

/// Times in milliseconds, sizes as the names say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TransactionConfig {
    /// `transaction.max.timeout.ms`: the longest timeout that a producer may ask for.
    pub max_timeout_ms: i32,
    /// `transactional.id.expiration.ms`: how long an id without a transaction is remembered.
    pub transactional_id_expiration_ms: i64,
    /// `transaction.two.phase.commit.enable` (KIP-939).
    pub two_phase_commit_enable: bool,
    /// Refuses what arrives late on an older connection of its producer; see `guard`. Off only to
    /// show what happens without it.
    pub legacy_guard: bool,
    /// How long a request waits for the transaction before it to complete. Kafka answers
    /// CONCURRENT_TRANSACTIONS at once and lets the client poll.
    pub parked_max_ms: i64,
    /// The largest record of one id: the topic's `max.message.bytes` less room for the rest of
    /// the batch.
    pub record_bytes_max: usize,
}

impl Default for TransactionConfig {
    fn default() -> TransactionConfig {
        TransactionConfig {
            max_timeout_ms: 15 * 60 * 1_000,
            transactional_id_expiration_ms: 7 * 24 * 60 * 60 * 1_000,
            two_phase_commit_enable: false,
            legacy_guard: true,
            parked_max_ms: 5_000,
            record_bytes_max: (1 << 20) - 4_096,
        }
    }
}
