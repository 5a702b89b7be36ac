//! What others put on this host is found and named, and the sensor's own is not.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use sensor::analysis::Analysis;
use sensor::baseline::Store;
use sensor::config::Config;
use sensor::detect::NoCheck;
use sensor::finding::Severity;
use sensor::host::{Body, Observation};
use sensor::instrument::{AskPerf, Class, Seen, Surveyor, Told, Watch, What};
use sensor::loader::{Loader, LoaderConfig, Sensor};
use sensor::symbol::find_symbol_offset;

use crate::harness::skip;

const DEADLINE: Duration = Duration::from_mins(1);
const EVENTS: &str = "/sys/kernel/tracing/uprobe_events";
/// What the other process of a test prints when its programs are loaded.
const LOADED: &str = "programs are loaded";

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

fn asking(mut sensor: Sensor) -> Box<AskPerf> {
    let events = sensor.perf_events().expect("loads");
    Box::new(move |file: std::os::fd::BorrowedFd<'_>, is_link| {
        let _held = &sensor;
        events.ask(file, is_link)
    })
}

/// The station, around a sensor of its own.
fn watch() -> Option<(Watch, Receiver<Told>)> {
    let (out, told) = channel();
    let tell = Box::new(move |one| drop(out.send(one)));
    let guarded = Config::default().guarded;
    let watch = Watch::start(&guarded, asking(loaded()?), tell).expect("a thread");
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
fn the_sensors_own_probes_are_not_told() {
    let Some(mut sensor) = loaded() else { return };
    sensor.attach().expect("attaches");
    if let Some(library) = mapped("libc.so.6") {
        let file = File::open(library).expect("open");
        let offset = find_symbol_offset(&file, "getppid").expect("ELF").expect("exported").0;
        let site = sensor::loader::FunctionSite { symbol: "getppid".to_owned(), offset };
        sensor.attach_functions(&file, &[site]).expect("identified");
    }
    let survey = Surveyor::new(asking(sensor)).survey();
    let own = std::process::id();
    let told: Vec<_> = survey.foreign.iter().filter(|one| one.holders.contains(&own)).collect();
    assert!(told.is_empty(), "{told:#?}");
    assert!(survey.own > 3, "{}", survey.own);
    for source in &survey.sources {
        println!("{}: {}", source.name, source.reason.as_deref().unwrap_or("read"));
    }
    println!("{} foreign, {} own, in {:?}", survey.foreign.len(), survey.own, survey.took);
}

/// What a first survey tells, without what tests and sensors of others hold, who come and go.
fn news() -> Option<Vec<Observation>> {
    let (_watch, told) = watch()?;
    let mut seen = Vec::new();
    let end = Instant::now() + DEADLINE;
    let mut is_counted = false;
    while let Ok(one) = told.recv_timeout(end.saturating_duration_since(Instant::now())) {
        match one {
            // The second survey: everything of the first was told.
            Told::Count(_) if is_counted => return Some(seen),
            Told::Count(_) => is_counted = true,
            Told::Seen(one) => seen.extend(is_lasting(&one).then_some(*one)),
            Told::Report(_) => {}
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
