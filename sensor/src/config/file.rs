//! The configuration file as written, turned into a complete and checked [`Config`].

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::time::Duration;

use super::error::LoadError;
use super::reader::{Section, Source};
use super::{
    Config, Detect, GuardedFunction, GuardedProgram, Http, Learning, Limits, Logins, Output,
    Patrol, Probes, Watch,
};
use super::{suppress, value};
use crate::baseline::Bounds;

/// Larger than any configuration that was meant.
const FILE_MAX: u64 = 1024 * 1024;
const GUARDED_MAX: usize = 256;
/// About 100 MB of the 256 that the service may take (deploy/halfsecond.service).
const LOGINS_MAX: usize = 100_000;
/// Each is an entry probe in every library that has it.
const FUNCTIONS_MAX: usize = 64;

/// Reads and checks the file at `path`.
pub(super) fn read(path: &Path) -> Result<Config, LoadError> {
    let fail = |source| LoadError::Read { path: path.to_owned(), source };
    let mut text = String::new();
    let file = File::open(path).map_err(fail)?;
    if file.metadata().map_err(fail)?.is_dir() {
        return Err(fail(io::Error::from(io::ErrorKind::IsADirectory)));
    }
    file.take(FILE_MAX + 1).read_to_string(&mut text).map_err(fail)?;
    if u64::try_from(text.len()).is_ok_and(|len| len > FILE_MAX) {
        return Err(LoadError::TooLarge { path: path.to_owned(), limit: FILE_MAX });
    }
    parse(path, &text).map(|(config, _)| config)
}

/// Checks the text of the file at `path`; gives the configuration and the name of every key there
/// is, each in the order in which it is first asked for.
pub(super) fn parse(path: &Path, text: &str) -> Result<(Config, Vec<String>), LoadError> {
    let source = Source::new(path, text);
    let table = source.parse();
    let config = config(source.top(table.get_ref()));
    let (problems, keys) = source.finish();
    if problems.is_empty() { Ok((config, keys)) } else { Err(LoadError::Invalid { problems }) }
}

fn config(mut top: Section<'_, '_>) -> Config {
    let default = Config::default();
    let state_dir = top.get("state_dir", default.state_dir, value::absolute_path);
    let file = Some(state_dir.join("incidents.jsonl"));
    let config = Config {
        http: http(top.section("http"), &default.http),
        output: output(top.section("output"), Output { file, ..default.output }),
        guarded: guarded(&mut top).unwrap_or(default.guarded),
        functions: functions(&mut top).unwrap_or(default.functions),
        learning: learning(top.section("learning"), default.learning),
        detect: detect(top.section("detect"), default.detect),
        limits: limits(top.section("limits"), default.limits),
        probes: probes(top.section("probes"), default.probes),
        provenance: provenance(top.section("provenance"), default.provenance),
        watch: watch(top.section("watch"), default.watch),
        patrol: patrol(top.section("patrol"), default.patrol),
        logins: logins(top.section("logins"), default.logins),
        suppress: suppress::rules(&mut top),
        state_dir,
    };
    top.finish();
    config
}

fn http(mut section: Section<'_, '_>, default: &Http) -> Http {
    let http = Http { listen: section.get("listen", default.listen, value::socket_or_off) };
    section.finish();
    http
}

fn output(mut section: Section<'_, '_>, default: Output) -> Output {
    let sizes = 4096..=64 * 1024 * 1024 * 1024;
    let output = Output {
        stdout: section.get("stdout", default.stdout, value::boolean),
        file: section.get("file", default.file, value::path_or_off),
        max_bytes: section.get("max_bytes", default.max_bytes, value::size(sizes)),
        keep: section.get("keep", default.keep, value::integer(0..=100)),
        pending: section.get("pending", default.pending, value::integer(16..=65_536)),
    };
    section.finish();
    output
}

fn guarded(top: &mut Section<'_, '_>) -> Option<Vec<GuardedProgram>> {
    let entries = top.sections("guarded", GUARDED_MAX)?;
    let read = |mut entry: Section<'_, '_>| {
        let path = entry.require("path", "\"/usr/sbin/sshd\"", value::absolute_path);
        let sshd = entry.get("sshd", false, value::boolean);
        entry.finish();
        Some(GuardedProgram { path: path?, sshd })
    };
    Some(entries.into_iter().filter_map(read).collect())
}

fn functions(top: &mut Section<'_, '_>) -> Option<Vec<GuardedFunction>> {
    let entries = top.sections("functions", FUNCTIONS_MAX)?;
    let read = |mut entry: Section<'_, '_>| {
        let library = entry.require("library", "\"libcrypto.so\"", value::library);
        let symbol = entry.require("symbol", "\"RSA_public_decrypt\"", value::symbol);
        entry.finish();
        Some(GuardedFunction { library: library?, symbol: symbol? })
    };
    Some(entries.into_iter().filter_map(read).collect())
}

fn learning(mut section: Section<'_, '_>, default: Learning) -> Learning {
    let flush = Duration::from_millis(100)..=Duration::from_hours(1);
    let learning = Learning {
        observations: section.get(
            "observations",
            default.observations,
            value::integer(2..=1_000_000),
        ),
        flush_every: section.get("flush_every", default.flush_every, value::duration(flush)),
        keep: Bounds {
            count: section.get("keep", default.keep.count, value::integer(64..=1_048_576)),
            bytes: section.get("max_bytes", default.keep.bytes, value::size(1 << 20..=64 << 30)),
        },
    };
    section.finish();
    learning
}

fn detect(mut section: Section<'_, '_>, default: Detect) -> Detect {
    let excess = || value::duration(Duration::from_millis(1)..=Duration::from_mins(1));
    let settle = value::duration(Duration::ZERO..=Duration::from_secs(10));
    let window = value::duration(Duration::from_secs(1)..=Duration::from_hours(24));
    let detect = Detect {
        link_gross_excess: section.get("link_gross_excess", default.link_gross_excess, excess()),
        auth_gross_excess: section.get("auth_gross_excess", default.auth_gross_excess, excess()),
        run_length: section.get(
            "run_length",
            default.run_length,
            value::integer(sensor_stats::RUN_LENGTHS),
        ),
        settle: section.get("settle", default.settle, settle),
        incident_window: section.get("incident_window", default.incident_window, window),
    };
    section.finish();
    detect
}

fn limits(mut section: Section<'_, '_>, default: Limits) -> Limits {
    let limits = Limits {
        bulk_ring_bytes: section.get("bulk_ring", default.bulk_ring_bytes, value::ring_size),
        priority_ring_bytes: section.get(
            "priority_ring",
            default.priority_ring_bytes,
            value::ring_size,
        ),
        queue: section.get("queue", default.queue, value::integer(16..=1_048_576)),
        processes: section.get("processes", default.processes, value::integer(256..=4_194_304)),
    };
    section.finish();
    limits
}

fn provenance(mut section: Section<'_, '_>, default: bool) -> bool {
    let provenance = section.get("enabled", default, value::boolean);
    section.finish();
    provenance
}

fn probes(mut section: Section<'_, '_>, default: Probes) -> Probes {
    let allowed = default.syscall_tracepoints;
    let probes =
        Probes { syscall_tracepoints: section.get("syscall_tracepoints", allowed, value::boolean) };
    section.finish();
    probes
}

fn watch(mut section: Section<'_, '_>, default: Watch) -> Watch {
    let every = value::duration(Duration::from_millis(100)..=Duration::from_hours(1));
    let watch = Watch {
        roots: section.get("roots", default.roots, value::integer(1..=65_536)),
        compare_every: section.get("compare_every", default.compare_every, every),
    };
    section.finish();
    watch
}

fn logins(mut section: Section<'_, '_>, default: Logins) -> Logins {
    let logins = Logins {
        keep: section.get("keep", default.keep, value::integer(0..=LOGINS_MAX)),
        failed_users: section.get("failed_users", default.failed_users, value::boolean),
    };
    section.finish();
    logins
}

fn patrol(mut section: Section<'_, '_>, default: Patrol) -> Patrol {
    let every = Duration::from_secs(1)..=Duration::from_hours(24);
    let share = value::duration(Duration::from_micros(10)..=Duration::from_secs(1));
    let patrol = Patrol {
        every: section.get("every", default.every, value::duration_or_off(every)),
        cpu_per_second: section.get("cpu_per_second", default.cpu_per_second, share),
    };
    section.finish();
    patrol
}
