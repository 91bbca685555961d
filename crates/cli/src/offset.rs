//! `-o`: where to start reading.
//!
//! The words are kcat's and rpk's: `start` (`beginning`, `earliest`), `end` (`latest`), `+n` (n after
//! the start), `-n` (n before the end), `@timestamp`, or an absolute offset.

use std::str::FromStr;

use jiff::{SignedDuration, Timestamp};

/// A position in a partition, before it is resolved against that partition's real bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Position {
    Start,
    End,
    AfterStart(i64),
    BeforeEnd(i64),
    /// The first record at or after this time.
    At(Time),
    Offset(i64),
}

/// The time in `@timestamp`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Time {
    /// Milliseconds since the Unix epoch.
    UnixMs(i64),
    /// Milliseconds relative to now, negative for the past.
    FromNowMs(i64),
}

impl Time {
    /// Milliseconds since the Unix epoch, given what it is now in the same unit.
    pub fn resolve_ms(self, now_ms: i64) -> i64 {
        match self {
            Time::UnixMs(ms) => ms,
            Time::FromNowMs(ms) => now_ms.saturating_add(ms),
        }
    }
}

impl FromStr for Position {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "start" | "beginning" | "earliest" => return Ok(Position::Start),
            "end" | "latest" => return Ok(Position::End),
            _ => {}
        }
        if let Some(time) = text.strip_prefix('@') {
            return time.parse().map(Position::At);
        }
        let (wrap, digits): (fn(i64) -> Position, &str) = match text.split_at_checked(1) {
            Some(("+", digits)) => (Position::AfterStart, digits),
            Some(("-", digits)) => (Position::BeforeEnd, digits),
            _ => (Position::Offset, text),
        };
        // i64's own parser would take a second sign.
        if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err("expected start, end, +N, -N, @TIMESTAMP or an offset".into());
        }
        digits
            .parse()
            .map(wrap)
            .map_err(|_| "the offset is out of range".into())
    }
}

impl FromStr for Time {
    type Err = String;

    /// `1700000000000` (milliseconds), `2026-01-31T12:00:00Z` (RFC 3339) or `-1h30m` (before now).
    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(ms) = text.parse::<i64>()
            && ms >= 0
        {
            return Ok(Time::UnixMs(ms));
        }
        if let Ok(timestamp) = text.parse::<Timestamp>() {
            return Ok(Time::UnixMs(timestamp.as_millisecond()));
        }
        if text.starts_with('-')
            && let Ok(duration) = text.parse::<SignedDuration>()
            && let Ok(ms) = i64::try_from(duration.as_millis())
        {
            return Ok(Time::FromNowMs(ms));
        }
        Err("expected milliseconds since 1970, a time as 2026-01-31T12:00:00Z, or -1h30m".into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_signs() {
        let check = |text: &str, start: Position| assert_eq!(text.parse(), Ok(start), "{text}");
        check("start", Position::Start);
        check("beginning", Position::Start);
        check("earliest", Position::Start);
        check("end", Position::End);
        check("latest", Position::End);
        check("+3", Position::AfterStart(3));
        check("-3", Position::BeforeEnd(3));
        check("-0", Position::BeforeEnd(0));
        check("0", Position::Offset(0));
        check("9223372036854775807", Position::Offset(i64::MAX));
    }

    #[test]
    fn times() {
        let check =
            |text: &str, time: Time| assert_eq!(text.parse(), Ok(Position::At(time)), "{text}");
        check("@0", Time::UnixMs(0));
        check("@1700000000123", Time::UnixMs(1_700_000_000_123));
        check("@1970-01-01T00:00:01Z", Time::UnixMs(1000));
        check("@1970-01-01T01:00:01+01:00", Time::UnixMs(1000));
        check("@-1h30m", Time::FromNowMs(-5_400_000));
        check("@-2s", Time::FromNowMs(-2000));
        assert_eq!(Time::FromNowMs(-2000).resolve_ms(5000), 3000);
        assert_eq!(Time::UnixMs(7).resolve_ms(5000), 7);
    }

    #[test]
    fn nonsense_is_refused() {
        for text in [
            "",
            "+",
            "-",
            "@",
            "middle",
            "++1",
            "+-1",
            "--1",
            "1.5",
            "9223372036854775808",
            "@soon",
            "@-5",
        ] {
            assert!(text.parse::<Position>().is_err(), "{text}");
        }
    }
}
