//! Probes that were set through tracefs: `uprobe_events`.

use std::fs::File;
use std::io::Read;

use super::super::super::bytes::printable;
use super::Described;

const LISTS: [&str; 2] =
    ["/sys/kernel/tracing/uprobe_events", "/sys/kernel/debug/tracing/uprobe_events"];
const LIST_MAX: u64 = 4 << 20;

/// All of them; none where tracefs is not to be read.
pub(super) fn read() -> Vec<Described> {
    let text = LISTS.iter().find_map(|path| {
        let mut text = Vec::new();
        File::open(path).ok()?.take(LIST_MAX).read_to_end(&mut text).ok()?;
        Some(text)
    });
    text.unwrap_or_default().split(|byte| *byte == b'\n').filter_map(parse).collect()
}

/// `p:uprobes/name /bin/bash:0x00000000000392f0(0x...)  arg=%ax`
/// (Documentation/trace/uprobetracer.rst).
fn parse(line: &[u8]) -> Option<Described> {
    let line = std::str::from_utf8(line).ok()?;
    let (event, rest) = line.split_once(' ')?;
    let (_, name) = event.split_once(':')?;
    // The path may hold colons and spaces: it ends at the last `:0x`.
    let at = rest.rfind(":0x")?;
    let (path, number) = (rest.get(..at)?, rest.get(at + 3..)?);
    let digits = number.find(|c: char| !c.is_ascii_hexdigit()).unwrap_or(number.len());
    Some(Described {
        path: path.to_owned(),
        offset: u64::from_str_radix(number.get(..digits)?, 16).ok()?,
        owner: format!("the tracefs event {}", printable(name.as_bytes())),
        root: None,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_line_names_file_offset_and_event() {
        let found = parse(b"p:uprobes/p_bash /bin/my: bash:0x00000000000392f0").unwrap();
        assert_eq!((found.path.as_str(), found.offset), ("/bin/my: bash", 0x392f0));
        assert_eq!(found.owner, "the tracefs event uprobes/p_bash");
        let more = parse(b"r:g/e /lib/libc.so.6:0x10(0x20) arg1=$retval").unwrap();
        assert_eq!((more.path.as_str(), more.offset), ("/lib/libc.so.6", 0x10));
        assert_eq!(parse(b""), None);
    }

    proptest! {
        #[test]
        fn any_line_is_total(line in prop::collection::vec(any::<u8>(), 0..120)) {
            let _ = parse(&line);
        }
    }
}
