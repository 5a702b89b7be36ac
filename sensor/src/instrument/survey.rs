//! One look at everything, put together: which program sits where, who holds what, and what of it
//! is the sensor's own.

mod holds;
mod thin;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use self::holds::Holds;
use super::account::{self, KnownKprobes};
use super::fprobe::Fprobes;
use super::holders::{OwnHolds, Walked};
use super::mounted::Mounted;
use super::objects::Objects;
use super::text::shown;
use super::tracefs::Told;
use super::{AskPerf, Instrument, Program, Source, Uprobe, What};
use super::{holders, modules, objects, tracefs};
use crate::event::FileKey;
use crate::loader::{PerfPlace, PerfSite};

/// Ids of the programs that this sensor's loader has loaded. The kernel gives an id again only when all
/// 2^31 were given, and to no program while another has it (kernel/bpf/syscall.c
/// `bpf_prog_alloc_id`); the loader's stay loaded for as long as the sensor runs.
pub type OwnPrograms = BTreeSet<u32>;

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Survey {
    /// What instruments the host and is not the sensor's own.
    pub foreign: Vec<Instrument>,
    /// Ids of those among them that run the same code as this sensor.
    pub alike: BTreeSet<String>,
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
    own: Own,
}

/// What makes something the sensor's own: its programs, held by this process.
#[derive(Clone, Debug, Default)]
struct Own {
    pid: u32,
    programs: OwnPrograms,
}

/// What a cheap look compares.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Glance {
    ids: (BTreeSet<u32>, BTreeSet<u32>),
    told: Told,
    modules: Vec<Instrument>,
}

/// Everything of one look, before anybody asks whose it is.
#[derive(Debug, Default)]
struct Looked {
    objects: Objects,
    /// Programs and links that are still there at the end.
    still: (BTreeSet<u32>, BTreeSet<u32>),
    walked: Walked,
    told: Told,
    modules: Vec<Instrument>,
}

impl std::fmt::Debug for Surveyor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Surveyor").field("own", &self.own).finish_non_exhaustive()
    }
}

// === impl Surveyor ===

impl Surveyor {
    /// `own` are the programs of this sensor's loader; what this process holds of them is its own.
    #[must_use]
    pub fn new(ask: Box<AskPerf>, own: OwnPrograms) -> Self {
        Self { ask, own: Own { pid: std::process::id(), programs: own } }
    }

    /// Everything; reads the descriptors of every process.
    pub fn survey(&mut self) -> Survey {
        let begun = Instant::now();
        let mut sources = Vec::new();
        let mounted = Mounted::now();
        let objects = objects::list(&mut sources);
        let told = tracefs::read(&mounted, &mut sources);
        let modules = modules::read(&mounted, &mut sources);
        let walked = holders::walk(&mut *self.ask, self.own.pid, &mounted, &mut sources);
        // What is loaded only to try the kernel out, or while its holder starts, is gone or held
        // by the next look.
        let still = objects::ids();
        let looked = Looked { objects, still, walked, told, modules };
        let survey = assemble(looked, &self.own, Fprobes::of_kernel);
        Survey { sources, took: begun.elapsed(), ..survey }
    }

    /// What costs nothing to look at.
    pub(super) fn glance() -> Glance {
        let mut sources = Vec::new();
        let mounted = Mounted::now();
        let told = tracefs::read(&mounted, &mut sources);
        let modules = modules::read(&mounted, &mut sources);
        Glance { ids: objects::ids(), told, modules }
    }
}

// === impl Own ===

impl Own {
    /// This process holds it, and runs nobody else's program by it.
    fn has(&self, pid: u32, program: Option<u32>) -> bool {
        pid == self.pid && program.is_none_or(|program| self.programs.contains(&program))
    }
}

/// What is foreign, and how much is not.
fn assemble(looked: Looked, own: &Own, fprobes: fn() -> Fprobes) -> Survey {
    let Looked { objects, still, walked, told, modules } = looked;
    let holds = Holds::of(walked.holdings, own);
    let mut known = known_kprobes(&holds, &told.instruments);
    known.is_whole = walked.own == OwnHolds::Placed;
    if known.has_several() {
        known.fprobes = fprobes();
    }
    let accounted = account::hooks(&told.hooks, &told.kprobes, &known, &objects.targets);
    let kprobes = account::kprobes(&told.kprobes, &known);
    let mut foreign = programs(&objects, &still.0, &holds, own, accounted.functions);
    // Whether it is the sensor that holds one, its descriptors tell.
    if walked.own != OwnHolds::Unread {
        foreign.extend(strayed(&objects, &still.1, &holds, own));
    }
    foreign.extend(probes(&holds, &objects));
    foreign.extend(told.instruments);
    foreign.extend(kprobes);
    foreign.extend(thin::thinned(accounted.unowned));
    foreign.extend(modules);
    let alike = alike(&objects, &foreign, own);
    let own = objects.programs.iter().filter(|(id, _)| own.programs.contains(id)).count();
    Survey { foreign, alike, own, ..Survey::default() }
}

/// Programs of others, with where they sit.
fn programs(
    objects: &Objects,
    still: &BTreeSet<u32>,
    holds: &Holds,
    own: &Own,
    mut functions: BTreeMap<u32, Vec<String>>,
) -> Vec<Instrument> {
    let mut places = places(objects, holds);
    let is_foreign = |id: &u32| still.contains(id) && !own.programs.contains(id);
    let foreign = objects.programs.iter().filter(|(id, _)| is_foreign(id)).map(|(id, program)| {
        let what = What::Program(Program {
            places: places.remove(id).unwrap_or_default(),
            functions: functions.remove(id).unwrap_or_default(),
            ..program.clone()
        });
        Instrument { id: format!("program {id}"), what, holders: holds.of_program(*id) }
    });
    foreign.collect()
}

/// Ids of what runs the sensor's own code, by digests of it. They leave out the settings that the code
/// was given.
fn alike(objects: &Objects, foreign: &[Instrument], own: &Own) -> BTreeSet<String> {
    let of_own = objects.programs.iter().filter(|(id, _)| own.programs.contains(id));
    let tags: BTreeSet<u64> =
        of_own.map(|(_, program)| program.tag).filter(|tag| *tag != 0).collect();
    let same = objects.programs.iter().filter(|(_, program)| tags.contains(&program.tag));
    let same: BTreeSet<u32> = same.map(|(id, _)| *id).collect();
    let is_alike = |one: &&Instrument| match &one.what {
        What::Program(program) => tags.contains(&program.tag),
        What::Uprobe(Uprobe { program: Some((id, _)), .. }) => same.contains(id),
        _ => false,
    };
    foreign.iter().filter(is_alike).map(|one| one.id.clone()).collect()
}

/// The sensor's own programs, attached by somebody else. A link that it is making, or gives up just
/// now, is not.
fn strayed(objects: &Objects, still: &BTreeSet<u32>, holds: &Holds, own: &Own) -> Vec<Instrument> {
    let names: BTreeMap<u32, &Program> =
        objects.programs.iter().map(|(id, it)| (*id, it)).collect();
    let is_stray = |link: &&objects::Link| {
        own.programs.contains(&link.program)
            && still.contains(&link.id)
            && holds.links.get(&link.id).is_none_or(|held| !held.is_own)
    };
    let strays = objects.links.iter().filter(is_stray).filter_map(|link| {
        let program = names.get(&link.program)?;
        let held = holds.links.get(&link.id);
        let place = held.map(|held| held.link.place.clone()).filter(|place| !place.is_empty());
        let what = What::Program(Program {
            places: vec![place.unwrap_or_else(|| link.kind.clone())],
            ..(*program).clone()
        });
        let holders = held.map(|held| held.pids.iter().copied().collect()).unwrap_or_default();
        Some(Instrument { id: format!("link {} of an own program", link.id), what, holders })
    });
    strays.collect()
}

/// Where each program sits.
fn places(objects: &Objects, holds: &Holds) -> BTreeMap<u32, Vec<String>> {
    let mut places: BTreeMap<u32, Vec<String>> = BTreeMap::new();
    for link in &objects.links {
        let place = match holds.links.get(&link.id) {
            Some(held) if !held.link.place.is_empty() => held.link.place.clone(),
            _ => link.kind.clone(),
        };
        places.entry(link.program).or_default().push(place);
    }
    for held in &holds.perf {
        let Some(program) = held.site.program else { continue };
        let place = match &held.site.place {
            PerfPlace::Uprobe { path, .. } => format!("uprobe {}", shown(path)),
            PerfPlace::Kprobe { function, .. } => format!("kprobe {}", shown(function)),
            PerfPlace::Other(_) => "perf event".to_owned(),
        };
        places.entry(program).or_default().push(place);
    }
    places
}

/// Kprobes that somebody has, to be counted against the kernel's own lists. The same probe of a link
/// and its perf event is one; what cannot be told apart is counted once.
fn known_kprobes(holds: &Holds, defined: &[Instrument]) -> KnownKprobes {
    let mut known = KnownKprobes::default();
    let mut seen = BTreeSet::new();
    let mut single = |function: &str, who: String, known: &mut KnownKprobes| {
        if seen.insert((function.to_owned(), who)) {
            *known.single.entry(function.to_owned()).or_default() += 1;
        }
    };
    for held in &holds.perf {
        if let PerfPlace::Kprobe { function, is_return, .. } = &held.site.place {
            let who = held.who();
            single(&shown(function), format!("{who} {is_return}"), &mut known);
        }
    }
    for held in holds.links.values() {
        let is_return = held.link.place.starts_with("kretprobe");
        for function in &held.link.kprobes {
            if held.link.is_many {
                let many = known.many.entry(function.clone()).or_default();
                *(if is_return { &mut many.on_return } else { &mut many.on_entry }) += 1;
            } else {
                let who = format!("program {} {is_return}", held.link.program);
                single(function, who, &mut known);
            }
        }
    }
    for one in defined {
        match &one.what {
            What::Kprobe { place, by: "tracefs" } => {
                let function = place.rsplit_once(':').map_or(place.as_str(), |(_, name)| name);
                *known.single.entry(function.to_owned()).or_default() += 1;
            }
            What::Kprobe { place, by: "fprobe" } => {
                known.many.entry(place.clone()).or_default().on_entry += 1;
            }
            What::Kprobe { place, by: "fprobe on return" } => {
                known.many.entry(place.clone()).or_default().on_return += 1;
            }
            _ => {}
        }
    }
    known
}

/// Uprobes and kprobes of links and perf events that are not the sensor's own, each place of a
/// program once.
fn probes(holds: &Holds, objects: &Objects) -> Vec<Instrument> {
    let names: BTreeMap<u32, &str> =
        objects.programs.iter().map(|(id, it)| (*id, it.name.as_str())).collect();
    let with_name = |id: u32| (id, names.get(&id).copied().unwrap_or_default().to_owned());
    let mut found = Vec::new();
    let mut seen = BTreeSet::new();
    let mut add = |what: What, who: &str, holders: &BTreeSet<u32>| {
        let holders = holders.iter().copied().collect();
        let instrument = Instrument { id: String::new(), what, holders };
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
    for held in holds.perf.iter().filter(|held| !held.is_own) {
        if let Some(what) = perf(&held.site, &with_name) {
            add(what, &held.who(), &held.pids);
        }
    }
    for held in holds.links.values().filter(|held| !held.is_own) {
        let (link, who) = (&held.link, format!("program {}", held.link.program));
        for place in &link.uprobes {
            let uprobe = Uprobe {
                file: None,
                path: PathBuf::from(&place.path),
                offset: place.offset,
                is_return: place.is_return,
                is_usdt: place.is_usdt,
                by: "bpf link",
                program: Some(with_name(link.program)),
            };
            add(What::Uprobe(uprobe), &who, &held.pids);
        }
        for function in &link.kprobes {
            let what = What::Kprobe { place: function.clone(), by: "bpf link" };
            add(what, &who, &held.pids);
        }
    }
    found
}

fn perf(site: &PerfSite, with_name: &dyn Fn(u32) -> (u32, String)) -> Option<What> {
    match &site.place {
        PerfPlace::Uprobe { file, path, offset, semaphore, is_return } => {
            Some(What::Uprobe(Uprobe {
                file: *file,
                path: PathBuf::from(path),
                offset: *offset,
                is_return: *is_return,
                is_usdt: semaphore.is_some(),
                by: "perf",
                program: site.program.map(with_name),
            }))
        }
        PerfPlace::Kprobe { function, .. } => {
            Some(What::Kprobe { place: shown(function), by: "perf" })
        }
        PerfPlace::Other(_) => None,
    }
}

#[cfg(test)]
mod tests;
