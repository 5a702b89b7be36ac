//! Recorded files, and what becomes of those that are missing, cut or hostile.

use proptest::prelude::*;

use super::super::text::NAME_MAX;
use super::*;

fn all(text: &str, parse: fn(&[u8]) -> Option<Instrument>) -> Vec<Instrument> {
    text.as_bytes().split(|byte| *byte == b'\n').filter_map(parse).collect()
}

#[test]
fn a_uprobe_of_tracefs_tells_file_offset_and_kind() {
    let text = "p:uprobes/p_libc_0x9b010 /usr/lib/x86_64-linux-gnu/libc.so.6:0x000000000009b010\n\
        r:uprobes/x /tmp/a b:0x10 arg1=%ax\n\
        p:g/n /usr/sbin/sshd:0x40%return\np:g/usdt /usr/lib/libc.so.6:0x50(0x60)\nnonsense\n";
    let found = all(text, uprobe_event);
    let told: Vec<_> = found
        .iter()
        .map(|one| match &one.what {
            What::Uprobe(probe) => (probe.path.to_str().unwrap(), probe.offset, one.kind()),
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
fn probes_that_differ_behind_256_bytes_are_two_and_keep_their_whole_path() {
    let deep = format!("/srv/{}", "x/".repeat(400));
    let text = format!("p:g/a {deep}libpam.so.0:0x10\np:g/a {deep}libpam.so.0:0x20\n");
    let found = all(&text, uprobe_event);
    assert_ne!(found[0].id, found[1].id);
    for one in &found {
        let What::Uprobe(probe) = &one.what else { panic!() };
        assert!(probe.path.ends_with("libpam.so.0"), "{probe:?}");
        assert!(one.id.len() < NAME_MAX && one.form().len() < 2 * NAME_MAX, "{}", one.form());
    }
    let other = all(&format!("p:g/a {deep}libc.so.6:0x10\n"), uprobe_event);
    assert_ne!(other[0].form(), found[0].form());
}

#[test]
fn a_path_that_is_no_text_leads_where_it_leads() {
    let found = uprobe_event(b"p:g/a /tmp/\xff\x01/libpam.so.0:0x10").unwrap();
    let What::Uprobe(probe) = &found.what else { panic!() };
    assert_eq!(probe.path.as_os_str().as_bytes(), b"/tmp/\xff\x01/libpam.so.0");
    assert!(!found.name().contains('\u{1}'));
}

#[test]
fn kprobes_and_fprobes_of_tracefs_are_told_by_their_function() {
    let text = "p:kprobes/myprobe do_sys_openat2+0\nr4:k/r vfs_read arg=$retval\n";
    let events = all(text, kprobe_event);
    assert_eq!(events[0].form(), "kprobe do_sys_openat2 by tracefs");
    assert_eq!(events[1].name(), "vfs_read");
    let text = "p:kprobes/a vfs_read\nf:fprobes/b vfs_read%return $retval\nt:t/c sched_switch\n";
    let forms: Vec<_> = all(text, other_event).iter().map(Instrument::form).collect();
    let tracepoint = "kprobe tracepoint sched_switch by tracefs";
    assert_eq!(forms, ["kprobe vfs_read by fprobe on return", tracepoint]);
    assert_eq!(other_event(b"f:fprobes/b vfs_read").unwrap().form(), "kprobe vfs_read by fprobe");
}

/// A folder that stands for both file systems, or for none.
fn places(folder: &Path, is_there: bool) -> Places {
    let is = if is_there { |_: &Mounted, _: &Path| true } else { |_: &Mounted, _: &Path| false };
    Places {
        tracefs: vec![folder.to_owned()],
        debugfs: folder.join("debug"),
        has_kprobes: vec![folder.join("kprobe")],
        is_tracefs: is,
        is_debugfs: is,
        is_kernels: |_, _| true,
    }
}

fn read(places: &Places, sources: &mut Vec<Source>) -> Told {
    places.read(&Mounted::now(), sources)
}

fn reason(sources: &[Source], name: &str) -> Option<String> {
    sources.iter().find(|source| source.name == name).unwrap().reason.clone()
}

#[test]
fn everything_that_stands_there_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    write("uprobe_events", "p:g/a /lib/libpam.so.0:0x10\n");
    write("enabled_functions", "vfs_read (1)  \nvfs_write (1) R  \ttramp: 0xff (hook+0x0/0x9)\n");
    write("current_tracer", "nop\n");
    write("instances/hidden/current_tracer", "function\n");
    write("debug/kprobes/list", "ff  k  b+0x0\nff  k  a+0x0\nff  k  a+0x0\n");
    let mut sources = Vec::new();
    let told = read(&places(folder.path(), true), &mut sources);
    let forms: Vec<_> = told.instruments.iter().map(Instrument::form).collect();
    assert_eq!(forms, ["uprobe in /lib/libpam.so.0 by tracefs", "tracer function in hidden"]);
    let functions: Vec<_> = told.kprobes.iter().map(|one| one.function.as_str()).collect();
    assert_eq!(functions, ["a", "a", "b"]);
    assert_eq!(told.hooks.len(), 2);
    assert!(sources.iter().all(|source| source.reason.is_none()), "{sources:?}");
}

#[test]
fn what_cannot_be_read_is_told_with_its_reason() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("uprobe_events")).unwrap();
    let mut sources = Vec::new();
    read(&places(folder.path(), true), &mut sources);
    assert!(reason(&sources, "uprobe_events").is_some());
    // This kernel has neither: nothing to see.
    assert_eq!(reason(&sources, "kprobe_events"), None);
    assert_eq!(reason(&sources, "kprobes"), None);
}

#[test]
fn a_file_system_that_is_not_mounted_is_told_where_there_is_something_to_see() {
    let folder = tempfile::tempdir().unwrap();
    // What lies there is no tracefs, whatever it says.
    fs::write(folder.path().join("uprobe_events"), "").unwrap();
    let mut sources = Vec::new();
    assert_eq!(read(&places(folder.path(), false), &mut sources), Told::default());
    assert!(reason(&sources, "tracefs").unwrap().contains("mounted"));
    assert_eq!(reason(&sources, "kprobes"), None, "a kernel without kprobes");
    fs::create_dir(folder.path().join("kprobe")).unwrap();
    sources.clear();
    read(&places(folder.path(), false), &mut sources);
    assert!(reason(&sources, "kprobes").unwrap().contains("debugfs"));
    // Mounted, and the list is missing all the same.
    sources.clear();
    read(&places(folder.path(), true), &mut sources);
    assert!(reason(&sources, "kprobes").is_some());
}

#[test]
fn a_file_with_something_else_mounted_over_it_is_not_believed() {
    let folder = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink("/proc/version", folder.path().join("uprobe_events")).unwrap();
    let mut sources = Vec::new();
    read(&places(folder.path(), true), &mut sources);
    assert!(reason(&sources, "uprobe_events").unwrap().contains("mounted over"));
}

/// Whoever opens it waits for a writer, for ever.
fn never_opens(path: &Path) {
    let (at, mode) = (rustix::fs::CWD, rustix::fs::Mode::RUSR);
    rustix::fs::mknodat(at, path, rustix::fs::FileType::Fifo, mode, 0).unwrap();
}

#[test]
fn what_is_no_file_system_of_the_kernels_is_not_even_opened() {
    let folder = tempfile::tempdir().unwrap();
    let (file, place) = (folder.path().join("uprobe_events"), folder.path().join("place"));
    never_opens(&file);
    never_opens(&place);
    let over =
        |id: u32, path: &Path| format!("{id} 2 0:{id} / {} rw - fuse.x x rw\n", path.display());
    let list = format!("2 1 0:2 / / rw - tracefs x rw\n{}{}", over(3, &file), over(4, &place));
    let (out, answer) = std::sync::mpsc::channel();
    let root = folder.path().to_owned();
    std::thread::spawn(move || {
        let mounted = Mounted::parse(list.as_bytes());
        let mut sources = Vec::new();
        places(&root, true).read(&mounted, &mut sources);
        out.send((sources, is_tracefs(&mounted, &place), is_debugfs(&mounted, &place)))
    });
    let answer = answer.recv_timeout(std::time::Duration::from_secs(30));
    let (sources, is_tracefs, is_debugfs) = answer.expect("nothing waits");
    assert!(reason(&sources, "uprobe_events").unwrap().contains("mounted over"));
    assert!(!is_tracefs && !is_debugfs);
}

#[test]
fn a_file_that_is_too_long_is_told_as_cut() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("enabled_functions");
    fs::write(&path, "a (1)\n".repeat(LINES_MAX + 1)).unwrap();
    let mut sources = Vec::new();
    let told = read(&places(folder.path(), true), &mut sources);
    assert_eq!(told.hooks.len(), LINES_MAX);
    assert!(reason(&sources, "enabled_functions").is_some());
}

proptest! {
    #[test]
    fn any_bytes_are_read(
        text in "(?s)([pr]:a/b |/x:0x|%return|\\(|f:a/b |.){0,300}",
        junk: Vec<u8>,
    ) {
        for parse in [uprobe_event, kprobe_event, other_event] {
            for line in [text.as_bytes(), &junk] {
                if let Some(one) = parse(line) {
                    prop_assert!(one.name().len() <= 2 * NAME_MAX && one.id.len() <= NAME_MAX);
                }
            }
        }
        let _ = (current_tracer(&junk, None), current_tracer(text.as_bytes(), Some("x")));
    }
}
