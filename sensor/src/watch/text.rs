//! The loader's text files, read as the loader and ldconfig read them; bounded, total.

/// Bytes read of one file.
pub(crate) const FILE_MAX: u64 = 64 * 1024;
/// Entries taken from one file, and bytes of one entry.
const ENTRIES_MAX: usize = 256;
const ENTRY_MAX: usize = 4096;

/// Libraries of ld.so.preload: separated by white space or colons, `#` begins a comment that ends
/// with the line (glibc 2.36, `elf/rtld.c`, `dl_main`).
pub(crate) fn preload(bytes: &[u8]) -> Vec<String> {
    let separator = |byte: &u8| byte.is_ascii_whitespace() || matches!(byte, b':' | 0);
    entries(lines(bytes).flat_map(|line| line.split(separator)))
}

/// Directories and `include` lines of ld.so.conf (glibc 2.36, `elf/ldconfig.c`, `parse_conf`).
pub(crate) fn conf(bytes: &[u8]) -> Vec<String> {
    let directive = |line: &&[u8]| !line.starts_with(b"hwcap");
    entries(lines(bytes).map(<[u8]>::trim_ascii).filter(directive))
}

/// Directories of musl's path file: separated by newlines or colons (musl 1.2, `ldso/dynlink.c`,
/// `path_open`).
pub(crate) fn search_path(bytes: &[u8]) -> Vec<String> {
    entries(bytes.split(|byte| matches!(byte, b'\n' | b':')))
}

fn lines(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    bytes
        .split(|byte| *byte == b'\n')
        .map(|line| line.split(|byte| *byte == b'#').next().unwrap_or_default())
}

fn entries<'a>(parts: impl Iterator<Item = &'a [u8]>) -> Vec<String> {
    let shown = |part: &[u8]| {
        let part = part.get(..ENTRY_MAX).unwrap_or(part);
        let text = String::from_utf8_lossy(part);
        text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
    };
    parts.filter(|part| !part.is_empty()).take(ENTRIES_MAX).map(shown).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn preload_is_split_as_the_loader_splits_it() {
        let text = b"# all: of /this.so\n/a.so:/b.so\t/c.so # /d.so\n\n  libe.so  ";
        assert_eq!(preload(text), ["/a.so", "/b.so", "/c.so", "libe.so"]);
        assert!(preload(b"").is_empty() && preload(b" \n#x").is_empty());
    }

    #[test]
    fn directories_keep_their_includes() {
        let text = b"include /etc/ld.so.conf.d/*.conf\n# c\n/opt/lib # x\nhwcap 1 y\n";
        assert_eq!(conf(text), ["include /etc/ld.so.conf.d/*.conf", "/opt/lib"]);
        assert_eq!(search_path(b"/lib:/usr/lib\n/x\n"), ["/lib", "/usr/lib", "/x"]);
    }

    #[test]
    fn a_hostile_file_is_bounded() {
        let many = b"/x ".repeat(20_000);
        assert_eq!(preload(&many).len(), ENTRIES_MAX);
        assert_eq!(preload(&b"x".repeat(60_000))[0].len(), ENTRY_MAX);
        assert_eq!(preload(b"/a\x1b[2J.so"), ["/a\u{fffd}[2J.so"]);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(bytes: Vec<u8>) {
            let _ = (preload(&bytes), conf(&bytes), search_path(&bytes));
        }
    }
}
