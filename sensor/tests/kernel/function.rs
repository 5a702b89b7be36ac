//! Entries of guarded functions.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

use object::{Object as _, ObjectSegment as _, ObjectSymbol as _};
use sensor::event::{EventBody, Role};
use sensor::loader::FunctionSite;
use sensor::loader::probes::Hook;

use crate::harness::{Bench, inode_of, same, skip};

/// The C library of `/bin/true`, which every start of a program calls into.
pub fn libc() -> Option<PathBuf> {
    let maps = std::fs::read_to_string("/proc/self/maps").expect("maps");
    let own = maps.lines().filter_map(|line| line.split_ascii_whitespace().nth(5));
    let candidates = ["/lib/x86_64-linux-gnu/libc.so.6", "/lib/aarch64-linux-gnu/libc.so.6"];
    let found = own
        .map(PathBuf::from)
        .chain(candidates.iter().map(PathBuf::from))
        .find(|path| path.file_name().is_some_and(|name| name == "libc.so.6") && path.exists());
    if found.is_none() {
        skip("no libc.so.6");
    }
    found.and_then(|path| std::fs::canonicalize(path).ok())
}

pub fn file_offset(library: &Path, symbol: &str) -> u64 {
    let bytes = std::fs::read(library).expect("read");
    let elf = object::File::parse(&*bytes).expect("ELF");
    let address = elf
        .dynamic_symbols()
        .find(|found| found.name() == Ok(symbol) && found.is_definition())
        .map(|found| found.address())
        .expect("the symbol");
    elf.segments()
        .find_map(|segment| {
            let within = address.checked_sub(segment.address())?;
            let (start, len) = segment.file_range();
            (within < len).then(|| start + within)
        })
        .expect("in a segment")
}

#[test]
fn a_guarded_function_tells_its_caller_only_in_processes_with_a_role() {
    let Some(mut bench) = Bench::start() else { return };
    if !bench.serves(Hook::Functions) {
        return;
    }
    let Some(path) = libc() else { return };
    let library = File::open(&path).expect("open");
    let site = FunctionSite { symbol: "getppid".to_owned(), offset: file_offset(&path, "getppid") };
    let results =
        bench.sensor.attach_functions(&library, std::slice::from_ref(&site)).expect("identify");
    let probed = match &results[..] {
        [Ok(probed)] => probed.clone(),
        other => panic!("not attached: {other:?}"),
    };
    println!("{probed:?}");
    // sh asks for its parent when it starts.
    let shell = Path::new("/bin/sh");
    if !shell.exists() {
        skip("no /bin/sh");
        return;
    }
    let run = |bench: &mut Bench| {
        let mut child = Command::new(shell).args(["-c", ":"]).spawn().expect("spawn");
        child.wait().expect("wait");
        bench.until_exit(child.id())
    };
    let events = run(&mut bench);
    let callers = |events: &[sensor::event::Event]| -> Vec<sensor::event::Caller> {
        events
            .iter()
            .filter_map(|event| match event.body {
                EventBody::Caller(ref caller) => Some(caller.clone()),
                _ => None,
            })
            .collect()
    };
    same("callers in a process without a role", callers(&events).len(), 0);

    let shell_file = File::open(std::fs::canonicalize(shell).expect("path")).expect("open");
    let (key, _) = bench.sensor.identify(std::os::fd::AsFd::as_fd(&shell_file)).expect("identify");
    let inode = sensor::event::InodeKey { ino: key.ino, dev: key.dev, reserved: 0 };
    bench.sensor.guard_inode(inode, Role::GUARDED).expect("guard");
    let events = run(&mut bench);
    let callers = callers(&events);
    assert!(!callers.is_empty(), "nobody called: {events:#?}");
    for caller in &callers {
        // Page offsets survive loading; the caller is the shell, not the library.
        same("offset in its page", caller.ip & 0xfff, probed.offset & 0xfff);
        assert!(caller.return_address != 0 && caller.return_address.abs_diff(caller.ip) > 4096);
        // The stack leads further; on x86_64 it begins with where the function returns to.
        let (stack, told) = (&caller.stack, |word: &&u64| **word != 0);
        assert!(stack.sp != 0 && stack.words.iter().filter(told).count() > 1, "{stack:?}");
        #[cfg(target_arch = "x86_64")]
        same("top of the stack", stack.words.first().copied(), Some(caller.return_address));
    }
    let library_inode = inode_of(&bench.sensor, &path);
    same("watched libraries", bench.sensor.probed_functions().len(), 1);
    assert!(bench.sensor.detach_functions(library_inode));
    let events = run(&mut bench);
    let still = events.iter().filter(|event| matches!(event.body, EventBody::Caller(_))).count();
    same("callers once detached", still, 0);
}

#[test]
fn of_a_second_argument_only_what_may_be_a_status_of_pam_is_told() {
    let Some(mut bench) = Bench::start() else { return };
    if !bench.serves(Hook::Functions) {
        return;
    }
    let Some(path) = libc() else { return };
    let shell = Path::new("/bin/sh");
    if !shell.exists() {
        skip("no /bin/sh");
        return;
    }
    let library = File::open(&path).expect("open");
    // int kill(pid_t pid, int sig): the shell's own command calls it.
    let site = FunctionSite { symbol: "kill".to_owned(), offset: file_offset(&path, "kill") };
    let results = bench.sensor.attach_functions(&library, &[site]).expect("identify");
    assert!(matches!(&results[..], [Ok(_)]), "not attached: {results:?}");
    let inode = inode_of(&bench.sensor, &std::fs::canonicalize(shell).expect("path"));
    bench.sensor.guard_inode(inode, Role::GUARDED).expect("guard");
    let script = "trap '' 10 40; kill -0 $$; kill -10 $$; kill -40 $$";
    let mut child = Command::new(shell).args(["-c", script]).spawn().expect("spawn");
    child.wait().expect("wait");
    let events = bench.until_exit(child.id());
    let told: Vec<Option<u8>> = events
        .iter()
        .filter_map(|event| match &event.body {
            EventBody::Caller(caller) => Some(caller.status),
            _ => None,
        })
        .collect();
    // 32 is one more than the last.
    same("second arguments", told, vec![Some(0), Some(10), None]);
    // Other tests count what is watched.
    let library = inode_of(&bench.sensor, &path);
    assert!(bench.sensor.detach_functions(library));
    bench.sensor.guard_inode(inode, Role::NONE).expect("unguard");
}

#[test]
fn an_offset_beyond_the_file_is_refused_with_a_reason() {
    let Some(mut bench) = Bench::start() else { return };
    if !bench.serves(Hook::Functions) {
        return;
    }
    let path = std::fs::canonicalize("/bin/true").expect("path");
    let file = File::open(path).expect("open");
    let site = FunctionSite { symbol: "nowhere".to_owned(), offset: 1 << 40 };
    let results = bench.sensor.attach_functions(&file, &[site]).expect("identify");
    let Some(Err(error)) = results.first() else { panic!("attached: {results:?}") };
    assert!(error.to_string().contains("nowhere"), "{error}");
}
