//! Little-endian integers and strings out of byte slices that may be too short.

/// Two bytes at `at`, or `None` past the end.
pub(crate) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// Four bytes at `at`, or `None` past the end.
pub(crate) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// Eight bytes at `at`, or `None` past the end.
pub(crate) fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// The bytes from `at` up to (not including) the next NUL; `None` when there is no NUL.
pub(crate) fn cstr_at(bytes: &[u8], at: usize) -> Option<&[u8]> {
    let tail = bytes.get(at..)?;
    let end = tail.iter().position(|byte| *byte == 0)?;
    tail.get(..end)
}

/// A file or table quantity as an index; saturates where `usize` is narrower.
pub(crate) fn index(value: impl TryInto<usize>) -> usize {
    value.try_into().unwrap_or(usize::MAX)
}

/// Lossy text of untrusted bytes with control characters replaced, safe to print on a terminal.
pub(crate) fn printable(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes)
        .chars()
        .map(|c| if c.is_control() { '\u{fffd}' } else { c })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_past_the_end_give_none() {
        assert_eq!(u16_at(&[1], 0), None);
        assert_eq!(u32_at(&[1, 2, 3, 4], 1), None);
        assert_eq!(u64_at(&[0; 8], usize::MAX), None);
        assert_eq!(u32_at(&[1, 2, 3, 4], 0), Some(0x0403_0201));
    }

    #[test]
    fn a_string_without_terminator_is_refused() {
        assert_eq!(cstr_at(b"ab\0c", 0), Some(&b"ab"[..]));
        assert_eq!(cstr_at(b"ab\0c", 3), None);
        assert_eq!(cstr_at(b"ab\0c", 9), None);
    }

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        assert_eq!(printable(b"lib\x1b[2J\n.so"), "lib\u{fffd}[2J\u{fffd}.so");
    }
}
