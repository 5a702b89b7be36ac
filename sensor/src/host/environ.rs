//! Loader variables: from the kernel side's records, and from `/proc` where those end too early.

use super::observe::{Body, Observation, ProcessId};
use super::outside::Outside;
use super::pipeline::{At, Pipeline};
use super::preload;
use super::table::Proc;
use super::variable::{Owners, Ownership, Preloaded, Variable};
use crate::event::Env;
use sensor_common::record::ENV_TRUNCATED;

/// Loader variables remembered of one process.
const VARIABLES_MAX: usize = 16;
/// Variables told of one environment read later.
const LATE_MAX: usize = 32;
/// Environments read in one second, each at most 6 MB: long ones are rare, unless made to keep the
/// sensor busy.
const READS_PER_SECOND: u32 = 8;
const SECOND_NS: u64 = 1_000_000_000;

/// Limits how many environments are read.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Reads {
    second: u64,
    used: u32,
}

// === impl Reads ===

impl Reads {
    fn allow(&mut self, now_ns: u64) -> bool {
        let second = now_ns / SECOND_NS;
        if self.second != second {
            *self = Self { second, used: 0 };
        }
        self.used = self.used.saturating_add(1);
        self.used <= READS_PER_SECOND
    }
}

impl Pipeline {
    pub(super) fn on_env(&mut self, at: At, env: &Env, out: &mut impl FnMut(Observation)) {
        let Some(id) = self.find(at) else { return };
        self.learn_details(id);
        if env.variable & ENV_TRUNCATED != 0 {
            self.on_long_environment(id, at.ktime_ns, out);
            return;
        }
        // Of some names the kernel side compares the beginning only.
        let Some((name, value)) = preload::obeyed(&env.text) else { return };
        let seen = Seen { name, value, cut: env.truncated, late: false };
        // The rest may tell another library, or what set the value.
        let whole = env.truncated.then(|| self.read_late(id, at.ktime_ns)).flatten();
        let whole = whole.as_ref().and_then(|all| {
            all.iter().find(|text| text.len() > env.text.len() && text.starts_with(&env.text))
        });
        match whole.and_then(|text| preload::obeyed(text)) {
            Some((name, value)) => {
                let cut = value.len() >= preload::VALUE_MAX;
                self.tell_variable(id, at.ktime_ns, &Seen { name, value, cut, late: true }, out);
            }
            None => self.tell_variable(id, at.ktime_ns, &seen, out),
        }
    }

    /// The kernel side gave up before the end: what can still be read is told, and that it was late.
    fn on_long_environment(
        &mut self,
        id: ProcessId,
        now_ns: u64,
        out: &mut impl FnMut(Observation),
    ) {
        let all = self.read_late(id, now_ns);
        let read = all.is_some();
        for text in all.unwrap_or_default() {
            let Some((name, value)) = preload::obeyed(&text) else { continue };
            let known = self.table.get(id).is_some_and(|proc| proc.variables.contains(&text));
            if !known {
                let cut = value.len() >= preload::VALUE_MAX;
                self.tell_variable(id, now_ns, &Seen { name, value, cut, late: true }, out);
            }
        }
        self.emit(id, now_ns, Body::LongEnvironment { read }, out);
    }

    /// The loader variables of a process's environment as it is now: it may have been overwritten.
    fn read_late(&mut self, id: ProcessId, now_ns: u64) -> Option<Vec<String>> {
        if self.table.get(id)?.ended || !self.reads.allow(now_ns) {
            return None;
        }
        let bytes = self.outside.environ(id.tgid)?;
        let still = self.outside.stat(id.tgid)?.start_ticks == id.start_ticks;
        still.then(|| preload::variables(&bytes, LATE_MAX))
    }

    fn tell_variable(
        &mut self,
        id: ProcessId,
        now_ns: u64,
        seen: &Seen<'_>,
        out: &mut impl FnMut(Observation),
    ) {
        let text = format!("{}={}", seen.name, seen.value);
        let Some(proc) = self.table.get_mut(id) else { return };
        let inherited = proc.inherited.contains(&text);
        let again = proc.variables.iter().any(|other| is_of(other, seen.name));
        if proc.variables.len() < VARIABLES_MAX {
            proc.shown = None;
            proc.variables =
                proc.variables.iter().cloned().chain([text]).collect::<Vec<_>>().into();
        }
        self.emit_variable(id, now_ns, seen, (inherited, again), out);
        if seen.name == "LD_LIBRARY_PATH" {
            self.tell_preloads_again(id, now_ns, out);
        }
    }

    fn emit_variable(
        &mut self,
        id: ProcessId,
        now_ns: u64,
        seen: &Seen<'_>,
        (inherited, again): (bool, bool),
        out: &mut impl FnMut(Observation),
    ) {
        let Some(proc) = self.table.get(id) else { return };
        let variable = Variable {
            name: seen.name.to_owned(),
            value: seen.value.to_owned(),
            inherited,
            again,
            cut: seen.cut,
            late: seen.late,
            libraries: libraries(&*self.outside, proc, self.holder(proc), seen.name, seen.value),
            owners: Owners::NotAsked,
        };
        self.emit(id, now_ns, Body::Environment(variable), out);
    }

    /// Whose root to look below: the process's own, or, where it is gone already, that of the nearest
    /// ancestor that is not; a short-lived program mostly has its parent's.
    fn holder(&self, proc: &Proc) -> u32 {
        const ANCESTORS: usize = 4;
        let lives = |id: &ProcessId| {
            self.outside.stat(id.tgid).is_some_and(|stat| stat.start_ticks == id.start_ticks)
        };
        let parent = |id: &ProcessId| self.table.get(*id).and_then(|proc| proc.parent);
        let line = std::iter::successors(Some(proc.id), parent).take(ANCESTORS);
        line.filter(lives).map(|id| id.tgid).next().unwrap_or(proc.id.tgid)
    }

    /// A search path decides where a library without a path is found: what came before it in the
    /// environment was looked for in the wrong places.
    fn tell_preloads_again(
        &mut self,
        id: ProcessId,
        now_ns: u64,
        out: &mut impl FnMut(Observation),
    ) {
        let Some(proc) = self.table.get(id) else { return };
        let earlier = std::sync::Arc::clone(&proc.variables);
        let inherited = std::sync::Arc::clone(&proc.inherited);
        for text in earlier.iter() {
            let Some((name, value)) = preload::obeyed(text).filter(|(name, value)| {
                preload::split(name, value).any(|library| !library.contains('/'))
            }) else {
                continue;
            };
            let seen = Seen { name, value, cut: false, late: false };
            self.emit_variable(id, now_ns, &seen, (inherited.contains(text), false), out);
        }
    }
}

/// One variable on its way.
#[derive(Clone, Copy, Debug)]
struct Seen<'a> {
    name: &'a str,
    value: &'a str,
    cut: bool,
    late: bool,
}

fn is_of(text: &str, name: &str) -> bool {
    text.strip_prefix(name).is_some_and(|rest| rest.starts_with('='))
}

/// What the variable makes the loader load.
fn libraries(
    outside: &dyn Outside,
    proc: &Proc,
    holder: u32,
    name: &str,
    value: &str,
) -> Vec<Preloaded> {
    // A container's files are not this host's.
    let on_host = proc.container.is_none();
    let exe = proc.program.as_ref().map_or("", |program| program.module.path.as_str());
    let paths: Vec<&str> =
        proc.variables.iter().filter_map(|text| text.strip_prefix("LD_LIBRARY_PATH=")).collect();
    preload::split(name, value)
        .map(|library| {
            let mut unseen = false;
            let file = preload::places(library, &paths, exe).iter().find_map(|path| {
                let looked = outside.look_inside(holder, on_host, path);
                unseen |= looked.is_err();
                looked.ok().flatten()
            });
            let unseen = unseen && file.is_none();
            Preloaded { name: library.to_owned(), file, unseen, owner: Ownership::Unknown }
        })
        .collect()
}
