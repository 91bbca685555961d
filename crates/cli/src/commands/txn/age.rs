//! Times and durations, from arguments and for people.

use std::str::FromStr;
use std::time::{SystemTime, UNIX_EPOCH};

use jiff::{SignedDuration, Timestamp};

/// A duration on the command line: `15m`, `1h30m`, `500ms`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Age {
    pub ms: i64,
}

impl FromStr for Age {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let expected = "expected a duration as 15m, 1h30m or 500ms";
        let duration: SignedDuration = text.parse().map_err(|_| expected)?;
        match i64::try_from(duration.as_millis()) {
            Ok(ms) if ms >= 0 => Ok(Age { ms }),
            _ => Err(expected.into()),
        }
    }
}

pub fn now_ms() -> i64 {
    let since_epoch = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX)
}

/// Milliseconds since 1970 as RFC 3339.
pub fn time(ms: i64) -> String {
    match Timestamp::from_millisecond(ms) {
        Ok(time) => format!("{time:.3}"),
        Err(_) => format!("{ms} ms"),
    }
}

/// The two largest units: `2d 3h`, `15m 0s`, `1.250s`.
pub fn duration(ms: i64) -> String {
    let ms = ms.max(0);
    let (seconds, minutes, hours, days) =
        (ms / 1_000, ms / 60_000, ms / 3_600_000, ms / 86_400_000);
    match () {
        () if days > 0 => format!("{days}d {}h", hours % 24),
        () if hours > 0 => format!("{hours}h {}m", minutes % 60),
        () if minutes > 0 => format!("{minutes}m {}s", seconds % 60),
        () => format!("{seconds}.{:03}s", ms % 1_000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages() {
        for (text, ms) in [
            ("15m", 900_000),
            ("1h30m", 5_400_000),
            ("500ms", 500),
            ("0s", 0),
        ] {
            assert_eq!(text.parse(), Ok(Age { ms }), "{text}");
        }
        for text in ["", "15", "-1s", "soon"] {
            assert!(text.parse::<Age>().is_err(), "{text}");
        }
    }

    #[test]
    fn times_and_durations() {
        assert_eq!(time(1_700_000_000_123), "2023-11-14T22:13:20.123Z");
        assert_eq!(time(i64::MAX), format!("{} ms", i64::MAX));
        for (ms, text) in [
            (-5, "0.000s"),
            (1_250, "1.250s"),
            (61_000, "1m 1s"),
            (3_600_000, "1h 0m"),
            (100_000_000, "1d 3h"),
        ] {
            assert_eq!(duration(ms), text);
        }
    }
}
