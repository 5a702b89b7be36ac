//! What a watched file is at one moment, and what a change of it comes to.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// Entries told of one change.
pub(super) const TOLD_MAX: usize = 32;

/// A watched path at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct State {
    /// Symbolic links on the way, as they are written.
    pub(super) links: Vec<String>,
    /// The file at its end; `None` where there is none.
    pub(super) file: Option<Identity>,
    /// What is in it.
    #[serde(serialize_with = "share::write", deserialize_with = "share::read")]
    pub(super) content: Arc<Content>,
}

/// Numbers that change when a file does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct Identity {
    pub(super) dev: u64,
    pub(super) ino: u64,
    pub(super) size: u64,
    pub(super) mtime_ns: i64,
    pub(super) ctime_ns: i64,
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) nlink: u32,
    /// It is the root of a mount: something was mounted over the name.
    pub(super) mounted: bool,
}

/// What a file says to the loader.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Content {
    /// There is no such file.
    #[default]
    Absent,
    /// Libraries or directories, in order.
    Entries(Vec<String>),
    /// A cache, by hashes of its pairs of name and path.
    Cache(BTreeSet<u64>),
    /// A program: its build-id and a hash of its bytes.
    Loader {
        /// GNU build-id, hex.
        build_id: Option<String>,
        /// FNV-1a. Not proof against someone who wants two files to have the same; the identity
        /// still differs then.
        hash: u64,
    },
    /// No regular file, or one that cannot be read or is no cache, with the reason.
    Other(String),
}

/// What came of a change.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Effect {
    pub(super) added: Vec<String>,
    pub(super) removed: Vec<String>,
    /// Entries gone from a cache, of which only hashes are known.
    pub(super) forgotten: usize,
    /// Nothing but owner, mode, links or times differs.
    pub(super) nothing: bool,
    /// The same bytes in another order, or another loader.
    pub(super) other: bool,
}

// === impl Content ===

impl Content {
    /// Entries in effect.
    pub(super) fn entries(&self) -> &[String] {
        match self {
            Self::Entries(entries) => entries,
            _ => &[],
        }
    }

    /// In a few words, its entries with `between` between them.
    pub(super) fn told(&self, between: &str) -> String {
        match self {
            Self::Absent => "absent".to_owned(),
            Self::Entries(entries) if entries.is_empty() => "no entries".to_owned(),
            Self::Entries(entries) => {
                let shown = entries.iter().take(TOLD_MAX).map(String::as_str);
                shown.collect::<Vec<_>>().join(between)
            }
            Self::Cache(pairs) => format!("{} libraries", pairs.len()),
            Self::Loader { build_id: Some(id), .. } => format!("build-id {id}"),
            Self::Loader { build_id: None, hash } => format!("no build-id, contents {hash:016x}"),
            Self::Other(what) => what.clone(),
        }
    }
}

// === impl State ===

impl State {
    /// What it takes to get from `before` to here. `fresh` are the entries of a cache that `before`
    /// did not have, in words.
    pub(super) fn effect(&self, before: &Self, fresh: Vec<String>) -> Effect {
        let (old, new) = (&*before.content, &*self.content);
        if let (Content::Cache(old), Content::Cache(new)) = (old, new) {
            let forgotten = old.difference(new).count();
            let nothing = old == new;
            return Effect { added: fresh, forgotten, nothing, ..Effect::default() };
        }
        let missing = |from: &Content, of: &Content| -> Vec<String> {
            let known: BTreeSet<&String> = of.entries().iter().collect();
            from.entries().iter().filter(|entry| !known.contains(entry)).cloned().collect()
        };
        let (added, removed) = (missing(new, old), missing(old, new));
        let empty = |content: &Content| match content {
            Content::Absent => true,
            content => matches!(content, Content::Entries(_)) && content.entries().is_empty(),
        };
        let nothing = old == new || empty(old) && empty(new);
        let other = !nothing && added.is_empty() && removed.is_empty();
        Effect { added, removed, forgotten: 0, nothing, other }
    }
}

/// An [`Arc`] written as what it holds.
mod share {
    use std::sync::Arc;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use super::Content;

    pub(super) fn write<S: Serializer>(content: &Arc<Content>, to: S) -> Result<S::Ok, S::Error> {
        content.as_ref().serialize(to)
    }

    pub(super) fn read<'de, D: Deserializer<'de>>(from: D) -> Result<Arc<Content>, D::Error> {
        Content::deserialize(from).map(Arc::new)
    }
}

/// FNV-1a, 64 bit.
pub(super) fn fnv(bytes: &[u8], from: Option<u64>) -> u64 {
    let start = from.unwrap_or(0xcbf2_9ce4_8422_2325);
    bytes.iter().fold(start, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(entries: &[&str]) -> State {
        let entries = entries.iter().map(|entry| (*entry).to_owned()).collect();
        State { content: Arc::new(Content::Entries(entries)), ..State::default() }
    }

    #[test]
    fn a_gained_entry_is_told_by_name() {
        let effect = entries(&["/a.so", "/b.so"]).effect(&entries(&["/b.so"]), Vec::new());
        assert_eq!(effect.added, ["/a.so"]);
        assert!(effect.removed.is_empty() && !effect.nothing && !effect.other);
        let gone = State::default().effect(&entries(&["/b.so"]), Vec::new());
        assert_eq!(gone.removed, ["/b.so"]);
    }

    #[test]
    fn an_empty_file_says_as_much_as_none() {
        assert!(entries(&[]).effect(&State::default(), Vec::new()).nothing);
        assert!(entries(&["/a"]).effect(&entries(&["/a"]), Vec::new()).nothing);
    }

    #[test]
    fn another_order_is_another_effect() {
        let effect = entries(&["/a", "/b"]).effect(&entries(&["/b", "/a"]), Vec::new());
        assert!(effect.other && !effect.nothing);
    }

    #[test]
    fn caches_are_compared_by_their_pairs() {
        let cache = |pairs: &[u64]| State {
            content: Arc::new(Content::Cache(pairs.iter().copied().collect())),
            ..State::default()
        };
        let effect = cache(&[1, 2, 3]).effect(&cache(&[1, 9, 8]), vec!["x".to_owned()]);
        assert_eq!((effect.forgotten, effect.added.len(), effect.nothing), (2, 1, false));
        assert!(cache(&[1]).effect(&cache(&[1]), Vec::new()).nothing);
    }
}
