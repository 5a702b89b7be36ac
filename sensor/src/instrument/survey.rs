//! One look at everything, put together: which program sits where, who holds what, and what of it
//! is the sensor's own.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use super::fdinfo::Link;
use super::holders::{Handle, Holding};
use super::objects::Objects;
use super::{AskPerf, Instrument, Program, Source, Uprobe, What};
use super::{holders, modules, objects, tracefs};
use crate::event::FileKey;
use crate::loader::{PerfPlace, PerfSite};

/// Ftrace hooks told one by one; a tracer hooks every function at once.
const HOOKS_MAX: usize = 32;
/// Bytes kept of a path that the kernel side read.
const PATH_MAX: usize = 256;

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Survey {
    /// What instruments the host and is not the sensor's own.
    pub foreign: Vec<Instrument>,
    /// How much is the sensor's own.
    pub own: usize,
    /// Which sources could be read.
    pub sources: Vec<Source>,
    /// How long it took.
    pub took: Duration,
}

/// Looks.
pub struct Surveyor {
    ask: Box<AskPerf>,
    own: u32,
}

/// What a cheap look compares.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Glance {
    ids: (BTreeSet<u32>, BTreeSet<u32>),
    /// What tracefs and the list of modules tell.
    told: Vec<String>,
}

/// Holds by what they are on.
#[derive(Default)]
struct Holds {
    programs: BTreeMap<u32, Vec<u32>>,
    links: BTreeMap<u32, (Link, Vec<u32>)>,
    perf: Vec<(PerfSite, Vec<u32>)>,
}

impl std::fmt::Debug for Surveyor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Surveyor").field("own", &self.own).finish_non_exhaustive()
    }
}

// === impl Surveyor ===

impl Surveyor {
    /// What this process holds is the sensor's own.
    #[must_use]
    pub fn new(ask: Box<AskPerf>) -> Self {
        Self { ask, own: std::process::id() }
    }

    /// Everything; reads the descriptors of every process.
    pub fn survey(&mut self) -> Survey {
        let begun = Instant::now();
        let mut sources = Vec::new();
        let objects = objects::list(&mut sources);
        let mut rest = tracefs::read(&mut sources);
        rest.extend(modules::read(&mut sources));
        let holdings = holders::walk(&mut *self.ask, &mut sources);
        // What is loaded only to try the kernel out, or while its holder starts, is gone or held
        // by the next look.
        let still = objects::ids();
        let (foreign, own) = assemble(objects, &still, holdings, rest, self.own);
        Survey { foreign, own, sources, took: begun.elapsed() }
    }

    /// What costs nothing to look at.
    pub(super) fn glance() -> Glance {
        let mut sources = Vec::new();
        let mut told = tracefs::read(&mut sources);
        told.extend(modules::read(&mut sources));
        Glance { ids: objects::ids(), told: told.into_iter().map(|one| one.id).collect() }
    }
}

// === impl Holds ===

impl Holds {
    fn of(holdings: Vec<Holding>) -> Self {
        let mut holds = Self::default();
        for Holding { pid, what } in holdings {
            let pids = match what {
                Handle::Program(id) => holds.programs.entry(id).or_default(),
                Handle::Link(link) => {
                    &mut holds.links.entry(link.id).or_insert_with(|| (link, Vec::new())).1
                }
                Handle::Perf(site) => {
                    let known = holds.perf.iter().position(|(known, _)| *known == site);
                    let at = known.unwrap_or_else(|| {
                        holds.perf.push((site, Vec::new()));
                        holds.perf.len() - 1
                    });
                    match holds.perf.get_mut(at) {
                        Some((_, pids)) => pids,
                        None => continue,
                    }
                }
            };
            if !pids.contains(&pid) {
                pids.push(pid);
                pids.sort_unstable();
            }
        }
        holds
    }

    /// Programs that `own` holds, by themselves or by a link.
    fn own_programs(&self, own: u32) -> BTreeSet<u32> {
        let held = self.programs.iter().filter(|(_, pids)| pids.contains(&own)).map(|(id, _)| *id);
        let links = self.links.values().filter(|(_, pids)| pids.contains(&own));
        held.chain(links.map(|(link, _)| link.program)).collect()
    }
}

/// What is foreign, and how much is not.
fn assemble(
    objects: Objects,
    still: &(BTreeSet<u32>, BTreeSet<u32>),
    holdings: Vec<Holding>,
    rest: Vec<Instrument>,
    own: u32,
) -> (Vec<Instrument>, usize) {
    let holds = Holds::of(holdings);
    let ours = holds.own_programs(own);
    let names: BTreeMap<u32, String> =
        objects.programs.iter().map(|(id, program)| (*id, program.name.clone())).collect();
    let (probes, own_kprobes) = probes(&holds, &names, &ours, own);
    let mut places = places(&objects, &holds);
    let mut foreign = Vec::new();
    for (id, program) in objects.programs {
        if !still.0.contains(&id) || ours.contains(&id) {
            continue;
        }
        let what =
            What::Program(Program { places: places.remove(&id).unwrap_or_default(), ..program });
        let holders = holders_of(id, &holds);
        foreign.push(Instrument { id: format!("program {id}"), what, holders });
    }
    let known: BTreeSet<String> = probes
        .iter()
        .filter(|probe| matches!(probe.what, What::Kprobe { .. }))
        .map(Instrument::name)
        .chain(own_kprobes)
        .collect();
    foreign.extend(probes);
    foreign.extend(thinned(rest, &known));
    (foreign, ours.len())
}

fn holders_of(program: u32, holds: &Holds) -> Vec<u32> {
    let mut holders = holds.programs.get(&program).cloned().unwrap_or_default();
    let links = holds.links.values().filter(|(link, _)| link.program == program);
    let events = holds.perf.iter().filter(|(site, _)| site.program == Some(program));
    holders.extend(links.flat_map(|(_, pids)| pids).chain(events.flat_map(|(_, pids)| pids)));
    holders.sort_unstable();
    holders.dedup();
    holders
}

/// Where each program sits.
fn places(objects: &Objects, holds: &Holds) -> BTreeMap<u32, Vec<String>> {
    let mut places: BTreeMap<u32, Vec<String>> = BTreeMap::new();
    for link in &objects.links {
        let place = match holds.links.get(&link.id) {
            Some((told, _)) if !told.place.is_empty() => told.place.clone(),
            _ => link.kind.clone(),
        };
        places.entry(link.program).or_default().push(place);
    }
    for (site, _) in &holds.perf {
        let Some(program) = site.program else { continue };
        let place = match &site.place {
            PerfPlace::Uprobe { path, .. } => format!("uprobe {}", bounded(path)),
            PerfPlace::Kprobe { function, .. } => format!("kprobe {}", bounded(function)),
            PerfPlace::Other(_) => "perf event".to_owned(),
        };
        places.entry(program).or_default().push(place);
    }
    places
}

/// Uprobes and kprobes of links and perf events that are not the sensor's own, each place of a
/// program once; and the functions in which its own kprobes sit.
fn probes(
    holds: &Holds,
    names: &BTreeMap<u32, String>,
    ours: &BTreeSet<u32>,
    own: u32,
) -> (Vec<Instrument>, Vec<String>) {
    let with_name = |id: u32| (id, names.get(&id).cloned().unwrap_or_default());
    let (mut found, mut own_kprobes) = (Vec::new(), Vec::new());
    let mut seen = BTreeSet::new();
    let mut add = |what: What, owner: (bool, String), holders: &[u32]| {
        let (is_own, who) = owner;
        if is_own {
            if let What::Kprobe { place, .. } = what {
                own_kprobes.push(place);
            }
            return;
        }
        let instrument = Instrument { id: String::new(), what, holders: holders.to_vec() };
        let plain = format!("{} {} of {who}", instrument.kind(), instrument.name());
        // The same name may lead to another file each time.
        let file = match &instrument.what {
            What::Uprobe(uprobe) => uprobe.file,
            _ => None,
        };
        let of_file = |file: FileKey| format!("{plain} in {}:{}:{}", file.dev, file.ino, file.size);
        let id = file.map_or_else(|| plain.clone(), of_file);
        let is_twin = file.is_none() && seen.contains(&plain);
        seen.insert(plain);
        if !is_twin && (file.is_none() || seen.insert(id.clone())) {
            found.push(Instrument { id, ..instrument });
        }
    };
    // First, as they tell the file itself; the same place of a link is left out then.
    for (site, pids) in &holds.perf {
        let holder = pids.first().copied().unwrap_or(0);
        let who = site.program.map_or(format!("pid {holder}"), |id| format!("program {id}"));
        let is_own = pids.contains(&own) || site.program.is_some_and(|id| ours.contains(&id));
        if let Some(what) = perf(site, &with_name) {
            add(what, (is_own, who), pids);
        }
    }
    for (link, pids) in holds.links.values() {
        let owner = || (ours.contains(&link.program), format!("program {}", link.program));
        for place in &link.uprobes {
            let uprobe = Uprobe {
                file: None,
                path: place.path.clone(),
                offset: place.offset,
                is_return: place.is_return,
                is_usdt: place.is_usdt,
                by: "bpf link",
                program: Some(with_name(link.program)),
            };
            add(What::Uprobe(uprobe), owner(), pids);
        }
        for function in &link.kprobes {
            let what = What::Kprobe { place: function.clone(), by: "bpf link" };
            add(what, owner(), pids);
        }
    }
    (found, own_kprobes)
}

fn perf(site: &PerfSite, with_name: &dyn Fn(u32) -> (u32, String)) -> Option<What> {
    match &site.place {
        PerfPlace::Uprobe { file, path, offset, semaphore, is_return } => {
            Some(What::Uprobe(Uprobe {
                file: *file,
                path: bounded(path),
                offset: *offset,
                is_return: *is_return,
                is_usdt: semaphore.is_some(),
                by: "perf",
                program: site.program.map(with_name),
            }))
        }
        PerfPlace::Kprobe { function, .. } => {
            Some(What::Kprobe { place: bounded(function), by: "perf" })
        }
        PerfPlace::Other(_) => None,
    }
}

/// Without kprobes of the kernel's own list that are `known` already, and with many ftrace hooks
/// as one.
fn thinned(rest: Vec<Instrument>, known: &BTreeSet<String>) -> Vec<Instrument> {
    let is_hook = |one: &Instrument| matches!(one.what, What::Ftrace { .. });
    let hooks = rest.iter().filter(|one| is_hook(one)).count();
    let of_tracefs = rest.iter().filter_map(|one| match &one.what {
        What::Kprobe { place, by: "tracefs" } => Some(place.clone()),
        _ => None,
    });
    let defined: BTreeSet<String> = of_tracefs.collect();
    let is_known = |one: &Instrument| match &one.what {
        What::Kprobe { place, by: "kernel" } => known.contains(place) || defined.contains(place),
        _ => false,
    };
    let many = hooks > HOOKS_MAX;
    let mut kept: Vec<Instrument> =
        rest.into_iter().filter(|one| !is_known(one) && (!many || !is_hook(one))).collect();
    if many {
        let function = "(many functions)".to_owned();
        let what = What::Ftrace { function, flags: format!("{hooks} of them") };
        kept.push(Instrument { id: "ftrace many".to_owned(), what, holders: Vec::new() });
    }
    kept
}

fn bounded(text: &str) -> String {
    text.chars().filter(|character| !character.is_control()).take(PATH_MAX).collect()
}

#[cfg(test)]
mod tests;
