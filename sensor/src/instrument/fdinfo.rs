//! What `/proc/PID/fdinfo` says of BPF descriptors: total, whatever stands there.

use std::collections::BTreeMap;

use super::text::{bounded, shown};

/// Places told of one link; a link to many functions has thousands.
const PLACES_MAX: usize = 64;
/// Bytes kept of a path: all that the kernel takes, as a path that is cut leads nowhere.
const PATH_MAX: usize = 4096;

/// A BPF descriptor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Held {
    /// A program, by id.
    Program(u32),
    /// A link.
    Link(Link),
}

/// A BPF link.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Link {
    pub(super) id: u32,
    pub(super) program: u32,
    pub(super) kind: String,
    /// What it leads to: form without numbers that change.
    pub(super) place: String,
    /// Uprobes: path, offset, on return, USDT.
    pub(super) uprobes: Vec<LinkedUprobe>,
    /// Kernel functions.
    pub(super) kprobes: Vec<String>,
    /// They are called by way of a multiple attachment, which the kernel's list of kprobes lacks.
    pub(super) is_many: bool,
    /// It is one to a perf event whose place the kernel does not print (before 6.16).
    pub(super) untold: bool,
}

/// One place of a link to uprobes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct LinkedUprobe {
    pub(super) path: String,
    pub(super) offset: u64,
    pub(super) is_return: bool,
    pub(super) is_usdt: bool,
}

/// Reads the text of one descriptor; `None` for what is no BPF program or link.
pub(super) fn parse(text: &str) -> Option<Held> {
    let values = values(text);
    let number = |key: &str| values.get(key).and_then(|value| value.parse::<u32>().ok());
    if let Some(id) = number("link_id") {
        return Some(Held::Link(link(id, &values, text)));
    }
    number("prog_id").map(Held::Program)
}

/// First value of each key.
fn values(text: &str) -> BTreeMap<&str, &str> {
    let mut values = BTreeMap::new();
    for (key, value) in text.lines().filter_map(|line| line.split_once(":\t")) {
        values.entry(key).or_insert(value.trim());
    }
    values
}

fn link(id: u32, values: &BTreeMap<&str, &str>, text: &str) -> Link {
    let value = |key: &str| values.get(key).copied().unwrap_or_default();
    let kind = bounded(value("link_type"));
    let program = value("prog_id").parse().unwrap_or(0);
    let mut link = Link { id, program, kind, ..Link::default() };
    let event = value("event_type");
    if event == "uprobe" || event == "uretprobe" {
        link.uprobes.push(LinkedUprobe {
            path: path(value("name")),
            offset: hex(value("offset")).unwrap_or(0),
            is_return: event == "uretprobe",
            is_usdt: hex(value("ref_ctr_offset")).is_some_and(|offset| offset != 0),
        });
        link.place = format!("{event} {}", shown(value("name")));
    } else if event == "kprobe" || event == "kretprobe" {
        link.kprobes.push(bounded(value("name")));
        link.place = format!("{event} {}", bounded(value("name")));
    } else if link.kind.starts_with("uprobe_multi") || link.kind.starts_with("uretprobe_multi") {
        link.uprobes = many_uprobes(&link.kind, &path(value("path")), text);
        link.place = format!("{} {}", link.kind, shown(value("path")));
    } else if link.kind.starts_with("kprobe_multi") || link.kind.starts_with("kretprobe_multi") {
        link.kprobes = many_kprobes(text);
        link.is_many = true;
        link.place = link.kind.clone();
    } else {
        link.untold = link.kind == "perf" && event.is_empty() && value("tp_name").is_empty();
        link.place = plain(&link.kind, values);
    }
    link
}

/// Links to one place, which is told without ids of interfaces, groups and namespaces.
fn plain(kind: &str, values: &BTreeMap<&str, &str>) -> String {
    let told = ["tp_name", "event_type", "attach_type", "target_name"];
    let told = told.iter().filter_map(|key| values.get(key)).map(|value| bounded(value));
    let words: Vec<String> = std::iter::once(kind.to_owned()).chain(told).collect();
    words.join(" ").trim_end().to_owned()
}

/// A table below `cookie offset ref_ctr_offset` (`kernel/trace/bpf_trace.c`,
/// `bpf_uprobe_multi_show_fdinfo`, 6.16).
fn many_uprobes(kind: &str, path: &str, text: &str) -> Vec<LinkedUprobe> {
    let rows = table(text);
    let rows = rows.filter_map(|columns| {
        let offset = columns.iter().skip(1).find_map(|column| prefixed(column))?;
        let semaphore = columns.last().and_then(|column| prefixed(column)).unwrap_or(0);
        Some((offset, columns.len() >= 3 && semaphore != 0))
    });
    let uprobes = rows.map(|(offset, is_usdt)| LinkedUprobe {
        path: path.to_owned(),
        offset,
        is_return: kind.starts_with("uretprobe"),
        is_usdt,
    });
    uprobes.take(PLACES_MAX).collect()
}

/// A table below `cookie func`.
fn many_kprobes(text: &str) -> Vec<String> {
    let functions = table(text).filter_map(|columns| columns.get(1).map(|name| bounded(name)));
    functions.take(PLACES_MAX).collect()
}

/// The columns of the lines behind the one that begins with `cookie` and has no colon.
fn table(text: &str) -> impl Iterator<Item = Vec<&str>> {
    let mut lines = text.lines();
    lines.by_ref().find(|line| line.starts_with("cookie") && !line.contains(':'));
    lines.map(|line| line.split_whitespace().collect())
}

fn prefixed(text: &str) -> Option<u64> {
    text.strip_prefix("0x").and_then(|digits| u64::from_str_radix(digits, 16).ok())
}

fn hex(text: &str) -> Option<u64> {
    prefixed(text).or_else(|| text.parse().ok())
}

/// As it is: it is followed, and shown by [`shown`] only.
fn path(text: &str) -> String {
    text.get(..text.floor_char_boundary(PATH_MAX.min(text.len()))).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::text::NAME_MAX;
    use super::*;

    const PROGRAM: &str = "pos:\t0\nflags:\t02000002\nmnt_id:\t17\nino:\t1038\nprog_type:\t2\n\
        prog_jited:\t1\nprog_tag:\t221b03661b9d56ac\nmemlock:\t4096\nprog_id:\t28496\n";
    const RAW: &str = "pos:\t0\nflags:\t02000000\nmnt_id:\t17\nino:\t1038\n\
        link_type:\traw_tracepoint\nlink_id:\t25960\nprog_tag:\t72c263834556aef5\n\
        prog_id:\t28502\ntp_name:\tsched_process_fork\ncookie:\t0\n";
    const UPROBE: &str = "pos:\t0\nlink_type:\tperf\nlink_id:\t7\nprog_tag:\t0\nprog_id:\t9\n\
        name:\t/usr/lib/libpam.so.0\noffset:\t0x3640\nref_ctr_offset:\t0x0\n\
        event_type:\turetprobe\ncookie:\t0\n";
    const MULTI: &str = "link_type:\tuprobe_multi\nlink_id:\t10\nprog_tag:\tf9\nprog_id:\t33\n\
        uprobe_cnt:\t2\npid:\t0\npath:\t/usr/bin/sshd\n\
        cookie\t offset\t ref_ctr_offset\n\
        10\t 0xa69f13\t 0x0\n0\t 0xa69f1e\t 0x20\n";

    fn link_of(text: &str) -> Link {
        match parse(text) {
            Some(Held::Link(link)) => link,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_program_is_known_by_its_id() {
        assert_eq!(parse(PROGRAM), Some(Held::Program(28496)));
        assert_eq!(parse("pos:\t0\nflags:\t02\nmap_id:\t3\n"), None);
    }

    #[test]
    fn a_link_tells_its_program_and_tracepoint() {
        let link = link_of(RAW);
        assert_eq!((link.id, link.program), (25960, 28502));
        assert_eq!(link.place, "raw_tracepoint sched_process_fork");
        assert!(!link.untold);
    }

    #[test]
    fn a_link_to_a_uprobe_tells_file_and_offset_or_that_it_does_not() {
        let link = link_of(UPROBE);
        let path = "/usr/lib/libpam.so.0".to_owned();
        let place = LinkedUprobe { path, offset: 0x3640, is_return: true, is_usdt: false };
        assert_eq!(link.uprobes, [place]);
        let old = link_of("link_type:\tperf\nlink_id:\t7\nprog_id:\t9\n");
        assert!(old.untold && old.uprobes.is_empty());
    }

    #[test]
    fn a_link_to_many_uprobes_tells_each() {
        let link = link_of(MULTI);
        let places: Vec<_> = link.uprobes.iter().map(|one| (one.offset, one.is_usdt)).collect();
        assert_eq!(places, [(0xa6_9f13, false), (0xa6_9f1e, true)]);
        assert_eq!(link.uprobes[0].path, "/usr/bin/sshd");
    }

    #[test]
    fn numbers_of_interfaces_are_no_part_of_a_place() {
        let text = "link_type:\txdp\nlink_id:\t4\nprog_id:\t5\nifindex:\t12\n";
        assert_eq!(link_of(text).place, "xdp");
    }

    proptest! {
        #[test]
        fn any_text_is_read(text in "(?s)(link_(id|type):\t|path:\t|cookie |.|\n){0,300}") {
            if let Some(Held::Link(link)) = parse(&text) {
                prop_assert!(link.uprobes.len() <= PLACES_MAX && link.kprobes.len() <= PLACES_MAX);
                prop_assert!(link.kind.len() <= NAME_MAX);
            }
        }
    }
}
