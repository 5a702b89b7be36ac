//! What tracefs and debugfs tell: uprobes and kprobes that somebody defined, ftrace hooks, the
//! tracer. Every parser is total; lines it does not know are left out.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::{Instrument, Source, Uprobe, What};

/// Bytes read of one file.
const FILE_MAX: u64 = 4 << 20;
/// Lines believed of one file.
const LINES_MAX: usize = 16_384;
/// Bytes kept of one name.
const NAME_MAX: usize = 256;

/// Where tracefs may be mounted.
const PLACES: [&str; 2] = ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"];
/// Every kprobe, registered by whatever interface.
const KPROBES: &str = "/sys/kernel/debug/kprobes/list";

/// Reads everything that can be read.
pub(super) fn read(sources: &mut Vec<Source>) -> Vec<Instrument> {
    read_at(&PLACES.map(PathBuf::from), Path::new(KPROBES), sources)
}

fn read_at(places: &[PathBuf], kprobes: &Path, sources: &mut Vec<Source>) -> Vec<Instrument> {
    let mut found = Vec::new();
    let Some(root) = places.iter().find(|place| place.join("README").exists()) else {
        let reason = "no tracefs is mounted at /sys/kernel/tracing, or it may not be read";
        sources.push(Source { name: "tracefs", reason: Some(reason.to_owned()) });
        return found;
    };
    let mut file = |name: &'static str, path: PathBuf, parse: fn(&str) -> Vec<Instrument>| {
        let reason = match text(&path) {
            Ok(text) => {
                found.extend(parse(&text));
                None
            }
            // The kernel is built without that feature: nothing to see.
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => Some(error.to_string()),
        };
        sources.push(Source { name, reason });
    };
    file("uprobe_events", root.join("uprobe_events"), uprobe_events);
    file("kprobe_events", root.join("kprobe_events"), kprobe_events);
    file("enabled_functions", root.join("enabled_functions"), enabled_functions);
    file("current_tracer", root.join("current_tracer"), current_tracer);
    file("kprobes", kprobes.to_owned(), kprobe_list);
    found
}

fn text(path: &Path) -> io::Result<String> {
    let mut bytes = Vec::new();
    File::open(path)?.take(FILE_MAX).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// `p:GROUP/NAME PATH:OFFSET[%return][(SEMAPHORE)] ARGUMENTS`
/// (Documentation/trace/uprobetracer.rst); `r` is a probe on the return.
fn uprobe_events(text: &str) -> Vec<Instrument> {
    lines(text).filter_map(uprobe_event).collect()
}

fn uprobe_event(line: &str) -> Option<Instrument> {
    let (head, place) = definition(line)?;
    let at = place.rfind(":0x")?;
    let (path, rest) = (place.get(..at)?, place.get(at + 3..)?);
    let end = rest.find(|digit: char| !digit.is_ascii_hexdigit()).unwrap_or(rest.len());
    let offset = u64::from_str_radix(rest.get(..end)?, 16).ok()?;
    let after = rest.get(end..)?;
    let uprobe = Uprobe {
        file: None,
        path: bounded(path),
        offset,
        is_return: head.starts_with('r') || after.starts_with("%return"),
        is_usdt: after.contains('('),
        by: "tracefs",
        program: None,
    };
    Some(instrument(format!("tracefs {}", bounded(line)), What::Uprobe(uprobe)))
}

/// `p:GROUP/NAME [MODULE:]FUNCTION+OFFSET ARGUMENTS`.
fn kprobe_events(text: &str) -> Vec<Instrument> {
    let events = lines(text).filter_map(|line| {
        let (_, place) = definition(line)?;
        let what = What::Kprobe { place: function(place), by: "tracefs" };
        Some(instrument(format!("tracefs {}", bounded(line)), what))
    });
    events.collect()
}

fn definition(line: &str) -> Option<(&str, &str)> {
    let mut words = line.split_whitespace();
    let head = words.next().filter(|head| head.starts_with(['p', 'r']))?;
    Some((head, words.next()?))
}

/// `ADDRESS  k  FUNCTION+OFFSET  [FLAGS]` (kernel/kprobes.c `report_probe`).
fn kprobe_list(text: &str) -> Vec<Instrument> {
    let probes = lines(text).filter_map(|line| {
        let mut words = line.split_whitespace();
        let (address, kind) = (words.next()?, words.next()?);
        if !matches!(kind, "k" | "r" | "j") {
            return None;
        }
        let place = words.next()?;
        let id = format!("kprobe {} {kind} {}", bounded(address), bounded(place));
        Some(instrument(id, What::Kprobe { place: function(place), by: "kernel" }))
    });
    probes.collect()
}

/// `FUNCTION (COUNT) FLAGS …` (kernel/trace/ftrace.c `t_show`), and who is called, on the same line
/// or on indented ones. BPF programs and kprobes are listed elsewhere.
fn enabled_functions(text: &str) -> Vec<Instrument> {
    const ELSEWHERE: [&str; 3] = ["bpf_trampoline_", "kprobe_ftrace_handler", "bpf_dispatcher_"];
    let mut entries: Vec<String> = Vec::new();
    for line in lines(text) {
        match entries.last_mut() {
            Some(entry) if line.starts_with(char::is_whitespace) => entry.push_str(line),
            _ => entries.push(line.to_owned()),
        }
    }
    entries.retain(|entry| !ELSEWHERE.iter().any(|who| entry.contains(who)));
    let hooks = entries.iter().filter_map(|line| {
        let (name, rest) = line.split_once(" (")?;
        let flags = bounded(rest.split("tramp:").next().unwrap_or_default());
        let function = bounded(name);
        let what = What::Ftrace { function: function.clone(), flags: format!("({}", flags.trim()) };
        Some(instrument(format!("ftrace {function}"), what))
    });
    hooks.collect()
}

fn current_tracer(text: &str) -> Vec<Instrument> {
    let name = bounded(text.trim());
    if name.is_empty() || name == "nop" {
        return Vec::new();
    }
    vec![instrument(format!("tracer {name}"), What::Tracer(name))]
}

/// Without the offset, which differs between builds of a kernel.
fn function(place: &str) -> String {
    bounded(place.split_once('+').map_or(place, |(function, _)| function))
}

fn instrument(id: String, what: What) -> Instrument {
    Instrument { id, what, holders: Vec::new() }
}

fn lines(text: &str) -> impl Iterator<Item = &str> {
    text.lines().take(LINES_MAX)
}

fn bounded(text: &str) -> String {
    let text: String = text.chars().filter(|character| !character.is_control()).collect();
    let end = text.floor_char_boundary(NAME_MAX.min(text.len()));
    text.get(..end).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_uprobe_of_tracefs_tells_file_offset_and_kind() {
        let text = "p:uprobes/p_libc_0x9b010 /usr/lib/x86_64-linux-gnu/libc.so.6:0x000000000009b010\n\
            r:uprobes/x /tmp/a b:0x10 arg1=%ax\n\
            p:g/n /usr/sbin/sshd:0x40%return\np:g/usdt /usr/lib/libc.so.6:0x50(0x60)\nnonsense\n";
        let found = uprobe_events(text);
        let told: Vec<_> = found
            .iter()
            .map(|one| match &one.what {
                What::Uprobe(probe) => (probe.path.as_str(), probe.offset, one.kind()),
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(
            told,
            [
                ("/usr/lib/x86_64-linux-gnu/libc.so.6", 0x9_b010, "uprobe"),
                ("/usr/sbin/sshd", 0x40, "uretprobe"),
                ("/usr/lib/libc.so.6", 0x50, "USDT probe"),
            ]
        );
    }

    #[test]
    fn kprobes_are_told_by_their_function() {
        let events =
            kprobe_events("p:kprobes/myprobe do_sys_openat2+0\nr4:k/r vfs_read arg=$retval\n");
        assert_eq!(events[0].form(), "kprobe do_sys_openat2 by tracefs");
        assert_eq!(events[1].name(), "vfs_read");
        let list =
            "ffffffff8123  k  vfs_read+0x0    [FTRACE]\nffffffff9999  r  commit_creds+0x0 \n";
        let list = kprobe_list(list);
        assert_eq!(list.len(), 2);
        assert_eq!(list[1].name(), "commit_creds");
    }

    #[test]
    fn ftrace_hooks_and_tracers_are_told() {
        let text = "tcp4_seq_show (1) R I     \ttramp: 0xffffffffc0 (hook+0x0/0x90 [rootkit])\n\
            \tdirect-->0xff\nbpf_lsm_file_open (1) \n\
            vfs_open (1) R   D   \ttramp: x (call_direct_funcs+0x0/0xa0)\n\
            \tdirect-->bpf_trampoline_64+0x0/0x12\n";
        let hooks = enabled_functions(text);
        assert_eq!(hooks.len(), 2);
        let What::Ftrace { function, flags } = &hooks[0].what else { panic!() };
        assert_eq!((function.as_str(), flags.as_str()), ("tcp4_seq_show", "(1) R I"));
        assert!(current_tracer("nop\n").is_empty() && current_tracer("").is_empty());
        assert_eq!(current_tracer("function\n")[0].form(), "tracer function");
    }

    #[test]
    fn what_cannot_be_read_is_told_with_its_reason() {
        let folder = tempfile::tempdir().unwrap();
        let mut sources = Vec::new();
        let places = [folder.path().to_owned()];
        assert!(read_at(&places, Path::new("/nowhere"), &mut sources).is_empty());
        assert!(sources[0].reason.is_some());
        std::fs::write(folder.path().join("README"), "").unwrap();
        std::fs::create_dir(folder.path().join("uprobe_events")).unwrap();
        sources.clear();
        read_at(&places, Path::new("/nowhere"), &mut sources);
        let reason = |name| {
            let source: &Source = sources.iter().find(|source| source.name == name).unwrap();
            source.reason.is_some()
        };
        assert!(reason("uprobe_events") && !reason("kprobe_events"));
    }

    proptest! {
        #[test]
        fn any_text_is_read(text in "(?s)([pr]:a/b |/x:0x|%return|\\(|k |.|\n){0,300}") {
            for parse in [uprobe_events, kprobe_events, enabled_functions, kprobe_list, current_tracer] {
                for one in parse(&text) {
                    prop_assert!(one.name().len() <= 2 * NAME_MAX);
                }
            }
        }
    }
}
