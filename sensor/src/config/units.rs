//! Durations and sizes as a person writes them: a number and a unit.

use std::time::Duration;

const DURATION_UNITS: [(&str, u64); 7] = [
    ("ns", 1),
    ("us", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("min", 60_000_000_000),
    ("h", 3_600_000_000_000),
    ("d", 86_400_000_000_000),
];

const SIZE_UNITS: [(&str, u64); 4] =
    [("B", 1), ("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30)];

/// Reads a duration such as `10ms`, `1.5s` or `5min`; `None` where it is none or does not fit.
#[must_use]
pub fn parse_duration(text: &str) -> Option<Duration> {
    parse_scaled(text, &DURATION_UNITS).map(Duration::from_nanos)
}

/// Reads a size in bytes such as `512B` or `4MiB`; `None` where it is none or does not fit.
#[must_use]
pub fn parse_size(text: &str) -> Option<u64> {
    parse_scaled(text, &SIZE_UNITS)
}

/// Writes a duration so that [`parse_duration`] reads it back.
#[must_use]
pub fn format_duration(duration: Duration) -> String {
    format_scaled(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX), &DURATION_UNITS)
}

/// Writes a size so that [`parse_size`] reads it back.
#[must_use]
pub fn format_size(bytes: u64) -> String {
    format_scaled(bytes, &SIZE_UNITS)
}

/// Digits, at most one point, at most nine digits after it; then a unit, blanks between allowed.
fn parse_scaled(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let scale = units.iter().find(|(name, _)| *name == unit.trim())?.1;
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    if fraction.is_empty() || fraction.len() > 9 || !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let whole = whole.parse::<u64>().ok()?.checked_mul(scale)?;
    let power = 10_u128.pow(u32::try_from(fraction.len()).ok()?);
    let scaled = fraction.parse::<u128>().ok()?.checked_mul(u128::from(scale))?;
    if scaled % power != 0 {
        return None;
    }
    whole.checked_add(u64::try_from(scaled / power).ok()?)
}

fn format_scaled(value: u64, units: &[(&str, u64)]) -> String {
    let fitting =
        units.iter().rev().find(|(_, scale)| value >= *scale && value.is_multiple_of(*scale));
    match (fitting, units.first()) {
        (Some((unit, scale)), _) => format!("{}{unit}", value / scale),
        (None, Some((unit, _))) => format!("{value}{unit}"),
        (None, None) => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn durations_are_read_with_their_unit() {
        for (text, expected) in [
            ("10ms", Some(Duration::from_millis(10))),
            ("2 s", Some(Duration::from_secs(2))),
            ("1.5s", Some(Duration::from_millis(1500))),
            ("5min", Some(Duration::from_mins(5))),
            ("1d", Some(Duration::from_hours(24))),
            ("10", None),
            ("ms", None),
            ("", None),
            ("1.s", None),
            ("1..5s", None),
            ("-1s", None),
            ("5m", None),
            ("99999999999999999999s", None),
            ("999999999999d", None),
            ("0.5ns", None),
            ("1٣s", None),
        ] {
            assert_eq!(parse_duration(text), expected, "{text:?}");
        }
    }

    #[test]
    fn sizes_are_read_with_their_unit() {
        for (text, expected) in [
            ("4MiB", Some(4 << 20)),
            ("512B", Some(512)),
            ("0.5KiB", Some(512)),
            ("1GiB", Some(1 << 30)),
            ("4MB", None),
            ("4", None),
        ] {
            assert_eq!(parse_size(text), expected, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(nanos in 0_u64.., bytes in 0_u64..) {
            let duration = Duration::from_nanos(nanos);
            prop_assert_eq!(parse_duration(&format_duration(duration)), Some(duration));
            prop_assert_eq!(parse_size(&format_size(bytes)), Some(bytes));
        }

        #[test]
        fn no_text_panics(text in ".{0,40}") {
            let _ = parse_duration(&text);
            let _ = parse_size(&text);
        }
    }
}
