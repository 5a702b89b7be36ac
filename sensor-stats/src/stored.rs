//! Reading state back that somebody may have altered.

use std::collections::BTreeMap;

use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer};

/// Entries of one map that are read; more were not written by us.
const ENTRIES_MAX: usize = 64;

#[derive(Deserialize)]
#[serde(untagged)]
enum Stored<T> {
    Sound(T),
    Other(IgnoredAny),
}

/// For `#[serde(deserialize_with)]`: what is of another shape counts as absent, so that a part that
/// makes no sense costs itself and not the whole entry.
///
/// # Errors
/// Where the input ends or breaks off: that is no matter of shape.
pub fn or_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Ok(match Stored::deserialize(deserializer)? {
        Stored::Sound(value) => value,
        Stored::Other(_) => T::default(),
    })
}

/// The same for the entries of a map, each by itself: what is of another shape is left out.
///
/// # Errors
/// As [`or_default`].
pub fn sound_entries<'de, D, T>(deserializer: D) -> Result<BTreeMap<String, T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    let stored: BTreeMap<String, Stored<T>> = or_default(deserializer)?;
    let sound = stored.into_iter().filter_map(|(key, value)| match value {
        Stored::Sound(value) => Some((key, value)),
        Stored::Other(_) => None,
    });
    Ok(sound.take(ENTRIES_MAX).collect())
}
