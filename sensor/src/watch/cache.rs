//! `ld.so.cache` as glibc's loader reads it: which name leads to which file.

/// Bytes read of a cache; a host with 5000 libraries has 500 KB.
pub(crate) const FILE_MAX: u64 = 16 << 20;
/// Entries looked at.
const ENTRIES_MAX: usize = 65_536;
/// Bytes of one name.
const NAME_MAX: usize = 4096;

/// `struct cache_file_new` (glibc 2.36, `sysdeps/generic/dl-cache.h`): magic and version, number of
/// entries, length of the strings, flags, padding, offset of the extensions, padding.
const MAGIC: &[u8] = b"glibc-ld.so.cache1.1";
const HEAD: usize = 48;
/// `struct file_entry_new`: flags, key, value, OS version, hwcap.
const ENTRY: usize = 24;
/// `struct cache_file` before it in caches of the old format: magic, number, entries of 12 bytes.
const OLD_MAGIC: &[u8] = b"ld.so-1.7.0";
const OLD_HEAD: usize = 16;
const OLD_ENTRY: usize = 12;

/// The entries as `name`, `path`; `None` where it is no cache the loader would take.
pub(crate) fn entries(bytes: &[u8]) -> Option<Vec<(&[u8], &[u8])>> {
    let start = start(bytes)?;
    let cache = bytes.get(start..)?;
    let count = usize::try_from(word(cache, 20)?).ok()?.min(ENTRIES_MAX);
    let mut found = Vec::new();
    for index in 0..count {
        let at = HEAD + index * ENTRY;
        let (key, value) = (word(cache, at + 4)?, word(cache, at + 8)?);
        // Offsets count from the beginning of the new format's part.
        let (Some(key), Some(value)) = (string(cache, key), string(cache, value)) else { continue };
        found.push((key, value));
    }
    Some(found)
}

fn start(bytes: &[u8]) -> Option<usize> {
    if bytes.starts_with(MAGIC) {
        return Some(0);
    }
    if !bytes.starts_with(OLD_MAGIC) {
        return None;
    }
    let count = usize::try_from(word(bytes, 12)?).ok()?;
    let end = count.checked_mul(OLD_ENTRY)?.checked_add(OLD_HEAD)?;
    // Aligned to the strictest member, 8 bytes.
    let start = end.checked_next_multiple_of(8)?;
    bytes.get(start..)?.starts_with(MAGIC).then_some(start)
}

fn string(cache: &[u8], at: u32) -> Option<&[u8]> {
    let rest = cache.get(usize::try_from(at).ok()?..)?;
    let rest = rest.get(..NAME_MAX).unwrap_or(rest);
    rest.get(..rest.iter().position(|byte| *byte == 0)?)
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn cache(pairs: &[(&str, &str)]) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend(u32::try_from(pairs.len()).unwrap().to_le_bytes());
        bytes.resize(HEAD, 0);
        let mut strings = Vec::new();
        let base = HEAD + pairs.len() * ENTRY;
        for (key, value) in pairs {
            let mut entry = 3_u32.to_le_bytes().to_vec();
            for text in [key, value] {
                entry.extend(u32::try_from(base + strings.len()).unwrap().to_le_bytes());
                strings.extend(text.as_bytes());
                strings.push(0);
            }
            entry.resize(ENTRY, 0);
            bytes.extend(entry);
        }
        bytes.extend(strings);
        bytes
    }

    #[test]
    fn names_lead_to_paths_in_both_formats() {
        let new = cache(&[("libc.so.6", "/lib/libc.so.6"), ("libx.so", "/tmp/libx.so")]);
        let want: Vec<(&[u8], &[u8])> =
            vec![(b"libc.so.6", b"/lib/libc.so.6"), (b"libx.so", b"/tmp/libx.so")];
        assert_eq!(entries(&new), Some(want.clone()));
        let mut old = OLD_MAGIC.to_vec();
        old.push(0);
        old.extend(1_u32.to_le_bytes());
        old.resize(OLD_HEAD + OLD_ENTRY, 0);
        old.resize(old.len().next_multiple_of(8), 0);
        old.extend(&new);
        assert_eq!(entries(&old), Some(want));
    }

    #[test]
    fn this_machines_cache_is_understood() {
        let Ok(bytes) = std::fs::read("/etc/ld.so.cache") else {
            println!("skipped: this machine has no /etc/ld.so.cache");
            return;
        };
        let found = entries(&bytes).unwrap();
        assert!(found.iter().any(|(key, path)| *key == b"libc.so.6" && path.starts_with(b"/")));
    }

    #[test]
    fn what_is_no_cache_is_refused() {
        assert_eq!(entries(b""), None);
        assert_eq!(entries(b"glibc-ld.so.cache1.0aaaaaaaaaaaaaaaa"), None);
        let mut lying = cache(&[("a", "b")]);
        lying[20] = 0xff;
        assert_eq!(entries(&lying), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(tail: Vec<u8>, old: bool) {
            let mut bytes = if old { OLD_MAGIC.to_vec() } else { MAGIC.to_vec() };
            bytes.extend(tail);
            let _ = entries(&bytes);
        }
    }
}
