//! Single values of the file: read, checked against their range, or refused with the remedy.

use std::fmt::Display;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use toml::de::DeValue;

use super::reader::Wrong;
use super::units::{format_duration, format_size, parse_duration, parse_size};

/// What turns an output or the listener off.
pub(super) const OFF: &str = "off";

pub(super) fn boolean(value: &DeValue<'_>) -> Result<bool, Wrong> {
    value.as_bool().ok_or_else(|| wrong("is not a truth value", "write true or false"))
}

pub(super) fn integer<T>(range: RangeInclusive<T>) -> impl Fn(&DeValue<'_>) -> Result<T, Wrong>
where
    T: FromStr + PartialOrd + Display,
{
    move |value| {
        let remedy = format!("write a whole number from {} to {}", range.start(), range.end());
        let Some(integer) = value.as_integer() else {
            return Err(wrong("is not a whole number", remedy));
        };
        (integer.radix() == 10)
            .then(|| integer.as_str().parse().ok())
            .flatten()
            .filter(|number| range.contains(number))
            .ok_or_else(|| wrong("is out of range", remedy))
    }
}

pub(super) fn duration(
    range: RangeInclusive<Duration>,
) -> impl Fn(&DeValue<'_>) -> Result<Duration, Wrong> {
    move |value| {
        let (from, to) = (format_duration(*range.start()), format_duration(*range.end()));
        let parsed = value.as_str().and_then(parse_duration).ok_or_else(|| {
            wrong(
                "is not a duration",
                "write a number and ns, us, ms, s, min, h or d, like \"10ms\" or \"5min\"",
            )
        })?;
        if range.contains(&parsed) {
            Ok(parsed)
        } else {
            Err(wrong("is out of range", format!("write from \"{from}\" to \"{to}\"")))
        }
    }
}

pub(super) fn duration_or_off(
    range: RangeInclusive<Duration>,
) -> impl Fn(&DeValue<'_>) -> Result<Option<Duration>, Wrong> {
    let duration = duration(range);
    move |value| match value.as_str() {
        Some(OFF) => Ok(None),
        _ => duration(value).map(Some),
    }
}

pub(super) fn size(range: RangeInclusive<u64>) -> impl Fn(&DeValue<'_>) -> Result<u64, Wrong> {
    move |value| {
        let (from, to) = (format_size(*range.start()), format_size(*range.end()));
        let parsed = value.as_str().and_then(parse_size).ok_or_else(|| {
            wrong("is not a size", "write a number and B, KiB, MiB or GiB, like \"4MiB\"")
        })?;
        if range.contains(&parsed) {
            Ok(parsed)
        } else {
            Err(wrong("is out of range", format!("write from \"{from}\" to \"{to}\"")))
        }
    }
}

/// The kernel takes ring buffers of a power of two, in whole pages.
pub(super) fn ring_size(value: &DeValue<'_>) -> Result<u32, Wrong> {
    let bytes = size(64 * 1024..=256 * 1024 * 1024)(value)?;
    if !bytes.is_power_of_two() {
        let above = format_size(bytes.next_power_of_two());
        let below = format_size(bytes.next_power_of_two() / 2);
        return Err(wrong("is not a power of two", format!("write \"{below}\" or \"{above}\"")));
    }
    u32::try_from(bytes).map_err(|_| wrong("is out of range", "write less than \"4GiB\""))
}

pub(super) fn absolute_path(value: &DeValue<'_>) -> Result<PathBuf, Wrong> {
    value
        .as_str()
        .filter(|text| text.starts_with('/') && text.len() < 4096 && !text.contains('\0'))
        .map(PathBuf::from)
        .ok_or_else(|| wrong("is not an absolute path", "write a path that begins with /"))
}

pub(super) fn path_or_off(value: &DeValue<'_>) -> Result<Option<PathBuf>, Wrong> {
    if value.as_str() == Some(OFF) {
        return Ok(None);
    }
    absolute_path(value)
        .map(Some)
        .map_err(|wrong| Wrong { remedy: format!("{}, or \"{OFF}\"", wrong.remedy), ..wrong })
}

pub(super) fn socket_or_off(value: &DeValue<'_>) -> Result<Option<SocketAddr>, Wrong> {
    if value.as_str() == Some(OFF) {
        return Ok(None);
    }
    value.as_str().and_then(|text| text.parse().ok()).map(Some).ok_or_else(|| {
        wrong(
            "is not an address and port",
            format!("write one like \"127.0.0.1:9477\" or \"[::1]:9477\", or \"{OFF}\""),
        )
    })
}

/// Start of a library's file name: no directory.
pub(super) fn library(value: &DeValue<'_>) -> Result<String, Wrong> {
    named(value, |c| c.is_ascii_graphic() && c != '/').ok_or_else(|| {
        wrong("is not the start of a library's file name", "write one like \"libcrypto.so\"")
    })
}

/// A symbol as compilers and linkers name them.
pub(super) fn symbol(value: &DeValue<'_>) -> Result<String, Wrong> {
    named(value, |c| c.is_ascii_alphanumeric() || "_.$@".contains(c))
        .ok_or_else(|| wrong("is not a symbol", "write one like \"RSA_public_decrypt\""))
}

fn named(value: &DeValue<'_>, allowed: impl Fn(char) -> bool) -> Option<String> {
    let text = value.as_str()?;
    (!text.is_empty() && text.len() <= 255 && text.chars().all(allowed)).then(|| text.to_owned())
}

fn wrong(what: &str, remedy: impl Into<String>) -> Wrong {
    Wrong { what: what.to_owned(), remedy: remedy.into() }
}
