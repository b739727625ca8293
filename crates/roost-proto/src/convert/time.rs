//! Times and spans. Out of range is an error on the way in and the nearest valid value on the way
//! out, since a time that the hub made must never fail a reply.

use std::time::Duration;

use roost_types::UnixMillis;

use super::Violation;

/// The last second that a `Timestamp` may name: 9999-12-31T23:59:59Z.
const LAST_SECOND: i64 = 253_402_300_799;
/// The most seconds that a `google.protobuf.Duration` may have: about 10,000 years.
const MOST_SECONDS: i64 = 315_576_000_000;
const MOST_NANOS: i32 = 999_999_999;

/// Hub time as a timestamp; what lies beyond the year 9999 becomes its last millisecond.
pub fn timestamp_out(time: UnixMillis) -> prost_types::Timestamp {
    let since_epoch = Duration::from_millis(time.0);
    match i64::try_from(since_epoch.as_secs()) {
        Ok(seconds) if seconds <= LAST_SECOND => {
            prost_types::Timestamp { seconds, nanos: since_epoch.subsec_nanos().cast_signed() }
        }
        _ => prost_types::Timestamp { seconds: LAST_SECOND, nanos: 999_000_000 },
    }
}

/// A timestamp as hub time, cut to whole milliseconds. Refuses what is no valid `Timestamp` and
/// what lies before 1970.
pub fn timestamp(time: &prost_types::Timestamp, field: &str) -> Result<UnixMillis, Violation> {
    let prost_types::Timestamp { seconds, nanos } = *time;
    if !(0..=MOST_NANOS).contains(&nanos) {
        let what = format!("has {nanos} nanos; a timestamp has 0 to {MOST_NANOS}");
        return Err(Violation::invalid(field, what));
    }
    let whole = u64::try_from(seconds).ok().filter(|_| seconds <= LAST_SECOND);
    let (Some(whole), Ok(nanos)) = (whole, u64::try_from(nanos)) else {
        let what = format!(
            "is {seconds} s after 1970-01-01T00:00:00Z; it must lie between then and the end of 9999"
        );
        return Err(Violation::invalid(field, what));
    };
    Ok(UnixMillis(whole * 1000 + nanos / 1_000_000))
}

/// A span; what is longer than a `Duration` of protobuf may be becomes the longest.
pub fn duration_out(span: Duration) -> prost_types::Duration {
    match i64::try_from(span.as_secs()) {
        Ok(seconds) if seconds < MOST_SECONDS => {
            prost_types::Duration { seconds, nanos: span.subsec_nanos().cast_signed() }
        }
        _ => prost_types::Duration { seconds: MOST_SECONDS, nanos: 0 },
    }
}

/// A span from outside. Refuses what is no valid `Duration`, and what is not between 1 ms and
/// `most`.
pub fn duration(
    span: &prost_types::Duration,
    most: Duration,
    field: &str,
) -> Result<Duration, Violation> {
    let prost_types::Duration { seconds, nanos } = *span;
    let whole = match (u64::try_from(seconds), u32::try_from(nanos)) {
        (Ok(seconds), Ok(nanos)) if nanos <= MOST_NANOS.unsigned_abs() => {
            Some(Duration::new(seconds, nanos))
        }
        _ => None,
    };
    match whole {
        Some(span) if span >= Duration::from_millis(1) && span <= most => Ok(span),
        _ => Err(Violation::invalid(
            field,
            format!(
                "is {seconds} s and {nanos} ns; it must be at least 1 ms and at most {} s, with 0 to {MOST_NANOS} ns",
                most.as_secs()
            ),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HOUR: Duration = Duration::from_hours(1);

    fn time(seconds: i64, nanos: i32) -> Result<UnixMillis, Violation> {
        timestamp(&prost_types::Timestamp { seconds, nanos }, "t")
    }

    fn span(seconds: i64, nanos: i32) -> Result<Duration, Violation> {
        duration(&prost_types::Duration { seconds, nanos }, HOUR, "d")
    }

    #[test]
    fn timestamps_outside_their_range_are_refused_with_the_field() {
        for (seconds, nanos) in [
            (-1, 0),
            (i64::MIN, 0),
            (i64::MAX, 0),
            (LAST_SECOND + 1, 0),
            (0, -1),
            (0, MOST_NANOS + 1),
            (0, i32::MIN),
            (0, i32::MAX),
        ] {
            let violation = time(seconds, nanos).unwrap_err();
            assert_eq!(violation.field, "t", "{seconds} {nanos}");
        }
        assert_eq!(time(0, 0), Ok(UnixMillis(0)));
        assert_eq!(time(1, 999_999), Ok(UnixMillis(1000)));
        assert_eq!(time(LAST_SECOND, MOST_NANOS), Ok(UnixMillis(253_402_300_799_999)));
    }

    #[test]
    fn hub_times_beyond_the_year_9999_stop_there() {
        let last = timestamp_out(UnixMillis(u64::MAX));
        assert_eq!(last, timestamp_out(UnixMillis(253_402_300_799_999)));
        assert_eq!(timestamp(&last, "t"), Ok(UnixMillis(253_402_300_799_999)));
    }

    #[test]
    fn spans_outside_their_range_are_refused_with_what_is_allowed() {
        for (seconds, nanos) in [
            (0, 0),
            (0, 999_999),
            (-1, 0),
            (1, -1),
            (0, i32::MIN),
            (0, i32::MAX),
            (3600, 1),
            (i64::MAX, 0),
            (i64::MIN, 0),
        ] {
            let violation = span(seconds, nanos).unwrap_err();
            assert!(violation.description.contains("at most 3600 s"), "{violation}");
        }
        assert_eq!(span(0, 1_000_000), Ok(Duration::from_millis(1)));
        assert_eq!(span(3600, 0), Ok(HOUR));
    }

    #[test]
    fn spans_beyond_ten_thousand_years_stop_there() {
        assert_eq!(duration_out(Duration::MAX).seconds, MOST_SECONDS);
        assert_eq!(duration_out(Duration::MAX).nanos, 0);
    }

    proptest! {
        #[test]
        fn times_come_back(millis in 0..=253_402_300_799_999_u64) {
            prop_assert_eq!(timestamp(&timestamp_out(UnixMillis(millis)), "t"), Ok(UnixMillis(millis)));
        }

        #[test]
        fn spans_come_back(millis in 1..=3_600_000_u64) {
            let span = Duration::from_millis(millis);
            prop_assert_eq!(duration(&duration_out(span), HOUR, "d"), Ok(span));
        }

        #[test]
        fn nothing_from_outside_panics(seconds: i64, nanos: i32) {
            let valid = (0..=MOST_NANOS).contains(&nanos);
            prop_assert!(valid || time(seconds, nanos).is_err());
            prop_assert!(valid || span(seconds, nanos).is_err());
        }
    }
}
