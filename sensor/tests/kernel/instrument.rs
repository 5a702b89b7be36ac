//! What others put on this host is found and named, and the sensor's own is not.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use aya::programs::raw_trace_point::RawTracePoint;
use aya::programs::{ProgramInfo, loaded_programs};
use sensor::analysis::Analysis;
use sensor::baseline::Store;
use sensor::config::Config;
use sensor::detect::NoCheck;
use sensor::finding::Severity;
use sensor::host::{Body, Observation};
use sensor::instrument::{AskPerf, Class, OwnPrograms, Seen, Surveyor, Told, Watch, What};
use sensor::loader::{Loader, LoaderConfig, Sensor};
use sensor::symbol::find_symbol_offset;

use crate::harness::skip;

const DEADLINE: Duration = Duration::from_mins(1);
const EVENTS: &str = "/sys/kernel/tracing/uprobe_events";
/// What the other process of a test prints when it has come so far, programs loaded for instance.
const LOADED: &str = "programs are loaded";
/// Id of a program for it.
const PROGRAM: &str = "HALFSECOND_TEST_PROGRAM";

/// Ends with the test.
struct Ends(Child);

impl Drop for Ends {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Removes its definition with the test.
struct Defined(String);

impl Drop for Defined {
    fn drop(&mut self) {
        if let Ok(mut events) = File::options().append(true).open(EVENTS) {
            // One write is one command.
            let _ = events.write_all(format!("-:{}\n", self.0).as_bytes());
        }
    }
}

fn loaded() -> Option<Sensor> {
    match Loader::load(&LoaderConfig::default()) {
        Ok(sensor) => Some(sensor),
        Err(error) => {
            skip(&format!("{error}"));
            None
        }
    }
}

/// With the ids of its programs.
fn asking(mut sensor: Sensor) -> (Box<AskPerf>, OwnPrograms) {
    let events = sensor.perf_events().expect("loads");
    let own = sensor.program_ids();
    let ask = Box::new(move |file: std::os::fd::BorrowedFd<'_>, is_link| {
        let _held = &sensor;
        events.ask(file, is_link)
    });
    (ask, own)
}

/// The station, around a sensor of its own.
fn watch() -> Option<(Watch, Receiver<Told>)> {
    let (out, told) = channel();
    let tell = Box::new(move |one| drop(out.send(one)));
    let guarded = Config::default().guarded;
    let mut sensor = loaded()?;
    sensor.attach().expect("attaches");
    let (ask, own) = asking(sensor);
    let watch = Watch::start(&guarded, ask, own, tell).expect("a thread");
    Some((watch, told))
}

/// The first news that `wanted` takes.
fn await_seen(told: &Receiver<Told>, wanted: impl Fn(&Seen) -> bool) -> Seen {
    let end = Instant::now() + DEADLINE;
    let mut others = Vec::new();
    while let Ok(one) = told.recv_timeout(end.saturating_duration_since(Instant::now())) {
        let Told::Seen(seen) = one else { continue };
        let Body::Instrument(found) = seen.body else { continue };
        if wanted(&found) {
            return *found;
        }
        others.push(found.key());
    }
    panic!("not told within {DEADLINE:?}; told: {others:#?}");
}

fn is_at(seen: &Seen, path: &Path, offset: u64) -> bool {
    match &seen.instrument.what {
        What::Uprobe(probe) => Path::new(&probe.path) == path && probe.offset == offset,
        _ => false,
    }
}

fn mapped(name: &str) -> Option<PathBuf> {
    let folders = ["/lib/x86_64-linux-gnu", "/lib/aarch64-linux-gnu", "/lib64", "/usr/lib"];
    let found =
        folders.iter().map(|folder| Path::new(folder).join(name)).find(|path| path.exists());
    if found.is_none() {
        skip(&format!("no {name}"));
    }
    found
}

#[test]
fn a_bpftrace_uprobe_in_pam_is_found_and_named_as_bpftraces() {
    let Some(library) = mapped("libpam.so.0") else { return };
    if !Path::new("/usr/bin/bpftrace").exists() {
        return skip("no bpftrace");
    }
    let Some((_watch, told)) = watch() else { return };
    let file = File::open(&library).expect("open");
    let offset = find_symbol_offset(&file, "pam_authenticate").expect("ELF").expect("exported").0;
    let probe = format!("uprobe:{}:pam_authenticate {{ printf(\"called\"); }}", library.display());
    let bpftrace = Command::new("/usr/bin/bpftrace")
        .args(["-e", &probe])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    let bpftrace = Ends(bpftrace.expect("starts"));
    let pid = bpftrace.0.id();
    let found =
        await_seen(&told, |seen| seen.instrument.holders.contains(&pid) && seen.site.is_some());
    let What::Uprobe(uprobe) = &found.instrument.what else { panic!("{found:?}") };
    assert_eq!(uprobe.offset, offset);
    assert!(uprobe.file.is_some_and(|file| file.ino != 0), "{uprobe:?}");
    assert!(uprobe.program.is_some(), "{uprobe:?}");
    let site = found.site.as_ref().expect("a protected file");
    assert_eq!(site.class, Class::Guarded);
    assert_eq!(site.symbol, Some(("pam_authenticate".to_owned(), 0)));
    let owner = found.owner.as_ref().expect("bpftrace runs");
    assert_eq!((owner.shown.pid, owner.shown.exe.as_str()), (pid, "/usr/bin/bpftrace"));
    let package = owner.package.as_deref().unwrap_or_default();
    assert!(package.starts_with("bpftrace ") && owner.is_tool, "{owner:?}");
}

#[test]
fn a_uprobe_of_tracefs_on_a_copy_of_the_c_library_is_found() {
    if !Path::new(EVENTS).exists() {
        return skip("no uprobe_events");
    }
    let Some(library) = mapped("libc.so.6") else { return };
    let folder = tempfile::tempdir().expect("folder");
    let copy = folder.path().join("libc.so.6");
    fs::copy(library, &copy).expect("copy");
    let file = File::open(&copy).expect("open");
    let offset = find_symbol_offset(&file, "getpid").expect("ELF").expect("exported").0;
    let Some((_watch, told)) = watch() else { return };
    let name = format!("halfsecond_test_{}/getpid", std::process::id());
    let mut events = File::options().append(true).open(EVENTS).expect("tracefs");
    let definition = format!("p:{name} {}:{offset:#x}\n", copy.display());
    events.write_all(definition.as_bytes()).expect("defined");
    drop(events);
    let _defined = Defined(name);
    let found = await_seen(&told, |seen| is_at(seen, &copy, offset));
    assert_eq!(found.owner, None, "tracefs tells nobody");
    let site = found.site.as_ref().expect("a protected file");
    assert_eq!(site.class, Class::Base);
    let (symbol, distance) = site.symbol.as_ref().expect("a name");
    assert!(symbol.contains("getpid") && *distance == 0, "{symbol}+{distance}");
}

#[test]
fn programs_of_another_process_are_its_own_though_they_are_called_like_ours() {
    let Some((_watch, told)) = watch() else { return };
    let other = Command::new(std::env::current_exe().expect("this"))
        .args(["--exact", "instrument::another_process", "--ignored", "--nocapture"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn();
    let mut other = Ends(other.expect("starts"));
    let lines = BufReader::new(other.0.stdout.take().expect("piped")).lines();
    let is_loaded = lines.map_while(Result::ok).any(|line| line.contains(LOADED));
    assert!(is_loaded, "the other process has ended");
    let pid = other.0.id();
    let is_exec = |seen: &Seen| match &seen.instrument.what {
        What::Program(program) => {
            program.name == "process_exec" && seen.instrument.holders.contains(&pid)
        }
        _ => false,
    };
    let found = await_seen(&told, is_exec);
    let What::Program(program) = &found.instrument.what else { panic!() };
    assert_eq!(program.kind, "raw_tracepoint");
    assert!(program.loaded.is_some() && program.uid == Some(0), "{program:?}");
    let place = "raw_tracepoint sched_process_exec";
    assert!(program.places.iter().any(|told| told == place), "{program:?}");
    let owner = found.owner.as_ref().expect("it runs");
    assert_eq!((owner.shown.pid, &owner.package), (pid, &None));
    assert!(owner.is_twin && !owner.is_tool, "the same code, and nobody's excuse: {owner:?}");
}

/// Not a test of its own: what the test above starts.
#[test]
#[ignore = "loads programs for another test until its input ends"]
fn another_process() {
    let mut sensor = Loader::load(&LoaderConfig::default()).expect("loads");
    sensor.attach().expect("attaches");
    println!("{LOADED}");
    let mut rest = Vec::new();
    std::io::stdin().read_to_end(&mut rest).expect("input");
}

#[test]
fn an_own_program_that_another_process_attaches_is_told_as_that_processs() {
    let Some(mut sensor) = loaded() else { return };
    sensor.attach().expect("attaches");
    let (ask, own) = asking(sensor);
    let is_wanted =
        |info: &ProgramInfo| own.contains(&info.id()) && info.name_as_str() == Some("process_fork");
    let program = loaded_programs().flatten().find(is_wanted).expect("it is loaded").id();
    let mut other = Command::new(std::env::current_exe().expect("this"));
    other.args(["--exact", "instrument::another_attacher", "--ignored", "--nocapture"]);
    other.env(PROGRAM, program.to_string());
    let other = other.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
    let mut other = Ends(other.expect("starts"));
    let lines = BufReader::new(other.0.stdout.take().expect("piped")).lines();
    let is_loaded = lines.map_while(Result::ok).any(|line| line.contains(LOADED));
    assert!(is_loaded, "the other process has ended");
    let survey = Surveyor::new(ask, own).survey();
    let his: Vec<_> = survey.foreign.iter().filter(|one| one.holders == [other.0.id()]).collect();
    let [found] = his[..] else { panic!("{his:#?}") };
    let What::Program(told) = &found.what else { panic!("{found:?}") };
    assert_eq!(told.name, "process_fork");
    assert_eq!(told.places, ["raw_tracepoint sched_process_exec"]);
    let itself = format!("program {program}");
    let is_told = survey.foreign.iter().any(|one| one.id == itself);
    assert!(!is_told, "the program itself is the sensor's");
}

/// Not a test of its own: what the test above starts.
#[test]
#[ignore = "attaches a program for another test until its input ends"]
fn another_attacher() {
    let wanted: u32 = std::env::var(PROGRAM).expect("an id").parse().expect("a number");
    let info = loaded_programs().flatten().find(|info| info.id() == wanted).expect("loaded");
    let program = RawTracePoint::from_program_info(info, "process_fork".into());
    let mut program = program.expect("a raw tracepoint");
    // Before 6.10 a program is at a tracepoint once only, and this one's own has it.
    program.attach("sched_process_exec").expect("attaches");
    println!("{LOADED}");
    let mut rest = Vec::new();
    std::io::stdin().read_to_end(&mut rest).expect("input");
}

#[test]
fn the_sensors_own_probes_are_not_told() {
    // Other tests hold sensors of theirs in this process.
    let alone = Command::new(std::env::current_exe().expect("this"))
        .args(["--exact", "instrument::alone", "--ignored", "--nocapture"])
        .output()
        .expect("starts");
    let text = String::from_utf8_lossy(&alone.stdout);
    let errors = String::from_utf8_lossy(&alone.stderr);
    assert!(alone.status.success(), "{text}{errors}");
    // All but the other harness's own lines.
    text.lines().filter(|line| !line.contains("test")).for_each(|line| println!("{line}"));
}

/// Not a test of its own: what the test above starts.
#[test]
#[ignore = "part of another test, which starts it in a process of its own"]
fn alone() {
    let Some(mut sensor) = loaded() else { return };
    sensor.attach().expect("attaches");
    if let Some(library) = mapped("libc.so.6") {
        let file = File::open(library).expect("open");
        let offset = find_symbol_offset(&file, "getppid").expect("ELF").expect("exported").0;
        let site = sensor::loader::FunctionSite { symbol: "getppid".to_owned(), offset };
        sensor.attach_functions(&file, &[site]).expect("identified");
    }
    let (ask, own_programs) = asking(sensor);
    let survey = Surveyor::new(ask, own_programs).survey();
    let own = std::process::id();
    let told: Vec<_> = survey.foreign.iter().filter(|one| one.holders.contains(&own)).collect();
    assert!(told.is_empty(), "{told:#?}");
    assert!(survey.own > 3, "{}", survey.own);
    for source in &survey.sources {
        println!("{}: {}", source.name, source.reason.as_deref().unwrap_or("read"));
    }
    println!("{} foreign, {} own, in {:?}", survey.foreign.len(), survey.own, survey.took);
}

#[test]
fn a_survey_does_not_wait_for_who_never_answers_in_place_of_tracefs_or_a_process() {
    // In a mount namespace of its own, by a FUSE that nobody reads requests of.
    let cover = "exec 3<>/dev/fuse 4<>/dev/fuse 5<>/dev/fuse || exit 77; \
        over() { mount -i -t fuse -o fd=$1,rootmode=40000,user_id=0,group_id=0 none $2; }; \
        over 3 /sys/kernel/tracing && over 4 /sys/kernel/debug && over 5 /proc/1 || exit 77; \
        exec \"$@\"";
    let mut below = Command::new("unshare");
    below.args(["--mount", "sh", "-c", cover, "sh"]).arg(std::env::current_exe().expect("this"));
    below.args(["--exact", "instrument::below_a_mount", "--ignored", "--nocapture"]);
    let mut below = Ends(below.stdout(Stdio::piped()).spawn().expect("starts"));
    let lines = BufReader::new(below.0.stdout.take().expect("piped")).lines();
    let (out, ended) = channel();
    std::thread::spawn(move || {
        // To the end: the other one has more to say.
        let lines: Vec<String> = lines.map_while(Result::ok).collect();
        let _ = out.send(lines.iter().any(|line| line.contains(LOADED)));
    });
    let is_over = ended.recv_timeout(DEADLINE).expect("it waits");
    let status = below.0.wait().expect("ends");
    if status.code() == Some(77) {
        return skip("nothing can be mounted here");
    }
    assert!(is_over && status.success(), "{status}");
}

/// Not a test of its own: what the test above starts.
#[test]
#[ignore = "part of another test, which mounts something over tracefs first"]
fn below_a_mount() {
    let ask = |_: std::os::fd::BorrowedFd<'_>, _: bool| Err("not asked".to_owned());
    let survey = Surveyor::new(Box::new(ask), OwnPrograms::new()).survey();
    for name in ["tracefs", "descriptors"] {
        let source = survey.sources.iter().find(|source| source.name == name).expect("listed");
        assert!(source.reason.is_some(), "{:#?}", survey.sources);
    }
    println!("{LOADED}");
}

/// What a first survey tells, without what tests and sensors of others hold, who come and go.
fn news() -> Option<Vec<Observation>> {
    let (_watch, told) = watch()?;
    let mut seen = Vec::new();
    let end = Instant::now() + DEADLINE;
    // Whatever is new on the host brings the second survey forward.
    let mut new = None;
    while let Ok(one) = told.recv_timeout(end.saturating_duration_since(Instant::now())) {
        match one {
            // The second survey: everything of the first was told.
            Told::Count(_) if new.is_some() => return Some(seen),
            Told::Count(_) => new = Some(loaded()?),
            Told::Seen(one) => seen.extend(is_lasting(&one).then_some(*one)),
            Told::Report(_) | Told::Unread(_) => {}
        }
    }
    panic!("no second survey within {DEADLINE:?}");
}

fn is_lasting(seen: &Observation) -> bool {
    let Body::Instrument(found) = &seen.body else { return true };
    let is_of_tests = match &found.owner {
        Some(owner) => owner.package.is_none(),
        None => !matches!(found.instrument.what, What::Module(_)),
    };
    if is_of_tests {
        println!("left out: {}", found.key());
    }
    !is_of_tests
}

#[test]
fn this_machine_as_it_is_gives_nothing_above_info_once_learned() {
    let folder = tempfile::tempdir().expect("folder");
    let (store, _) = Store::open(folder.path());
    let config = Config::default();
    let mut analysis = Analysis::new(&config, "here".to_owned(), store, Box::new(NoCheck));
    let Some(first) = news() else { return };
    let mut quiet = None;
    for seen in first {
        if matches!(seen.body, Body::Surveyed) {
            quiet = Some(seen.clone());
        }
        analysis.on_observation(seen);
    }
    let Some(second) = news() else { return };
    let quiet =
        quiet.or_else(|| second.iter().find(|seen| matches!(seen.body, Body::Surveyed)).cloned());
    if let Some(quiet) = quiet {
        for _ in 0..config.learning.observations {
            analysis.on_observation(quiet.clone());
        }
    }
    for seen in second {
        analysis.on_observation(seen);
    }
    let loud: Vec<_> =
        analysis.found().into_iter().filter(|(_, severity)| *severity > Severity::Info).collect();
    assert!(loud.is_empty(), "{loud:?}");
}
