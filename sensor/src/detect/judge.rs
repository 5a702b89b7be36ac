//! Known, still being learned, or unexpected: the judgements that detectors and learning share, so
//! that nothing is ever both reported and learned.

use super::{World, upgrade};
use crate::host::{
    Asked, Called, Library, Located, ModuleId, Observation, Opening, Preloaded, Variable,
};

/// A judgement on something seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Judged {
    /// In the baseline.
    Known,
    /// Not in it, and the baseline is still open for it: learned if what it belongs to turns out
    /// well.
    Learning,
    /// Not in a settled baseline.
    Unexpected,
    /// The file could not be read, and one of its path is known: teaches nothing, accuses nobody.
    Undecided,
}

/// A library mapped by a program.
///
/// After the start of a connection's process, a library may be there because of how the client
/// authenticates: while one of the methods tried is new, so may the library be. What the loader
/// maps before the program runs cannot depend on the client.
pub(crate) fn library(seen: &Observation, library: &Library, world: &World<'_>) -> Judged {
    if library.module.is_unread() && world.own.has_path(&library.module.path) {
        return Judged::Undecided;
    }
    if world.own.has_library(&library.module) {
        return Judged::Known;
    }
    // The first time that its build-id is read.
    if world.own.was_unread(&library.module, &library.file) {
        return Judged::Learning;
    }
    if !settled(seen, world) || (!library.during_link && new_method(seen, world)) {
        return Judged::Learning;
    }
    Judged::Unexpected
}

/// A call of a guarded function.
pub(crate) fn caller(
    seen: &Observation,
    call: &Called,
    caller: &Located,
    world: &World<'_>,
) -> Judged {
    let module = &caller.module;
    let known = world.own.callers.get(&call.function);
    if known.is_some_and(|callers| callers.modules.contains(module)) {
        return Judged::Known;
    }
    // Code outside any file has no business with a guarded function, whatever was learned.
    if !is_file(module) {
        return Judged::Unexpected;
    }
    if module.is_unread() && may_be_known(seen, call, module, world) {
        return Judged::Undecided;
    }
    // Where it comes from weighs more than how often it was seen: what no package brought may have been
    // there before the sensor.
    let own = *module == seen.process.program.module || call.library.as_ref() == Some(module);
    if !own && seen.process.program.guarded() && world.packages.foreign(&module.path) {
        return if settled(seen, world) { Judged::Unexpected } else { Judged::Undecided };
    }
    // What it has replaced did the same.
    let before = known.and_then(|known| Some((known, upgrade::replaced(module, None, world)?)));
    if before.is_some_and(|(known, before)| known.modules.contains(before.known)) {
        return Judged::Learning;
    }
    // Learned where the frames of the library did not lead out of it.
    let inside = |callers: &crate::baseline::Callers| {
        call.library.as_ref().is_some_and(|library| callers.modules.contains(library))
    };
    if call.behind().is_some() && known.is_some_and(inside) {
        return Judged::Learning;
    }
    // The program itself, and the library that defines the function, need no baseline.
    if own {
        return Judged::Learning;
    }
    if !settled(seen, world) || new_method(seen, world) {
        return Judged::Learning;
    }
    // A function never called while learning: a library that was there may be its first caller. One
    // that is read for the first time now may be the caller that is known.
    let unread = |known: &ModuleId| known.is_unread() && known.path == module.path;
    let is_open = known.is_none_or(|callers| callers.modules.iter().any(unread));
    if is_open && may_belong(seen, module, world) && !upgrade::has_followed(module, world.own) {
        return Judged::Learning;
    }
    Judged::Unexpected
}

/// A library opened after the start. What nobody was seen to ask for is judged as a library only.
pub(crate) fn opening(seen: &Observation, opening: &Opening, world: &World<'_>) -> Judged {
    let Some(asked) = &opening.asked else { return Judged::Known };
    if homeless(seen, asked, world) {
        return Judged::Unexpected;
    }
    let module = asked.place.module.before_deletion();
    let library = &opening.module;
    // The file that is known may not have been read before.
    let has_library =
        world.own.has_library(library) || world.own.was_unread(library, &opening.file);
    let openings = &world.own.openings;
    // Which of its functions libc is asked first that need a library depends on the day.
    let known = openings.knows(&library.path, &module)
        || (asked.through_libc && belongs(seen, &module, world));
    if known && has_library {
        return Judged::Known;
    }
    if goes_on(opening, (&module, known), world) {
        return Judged::Learning;
    }
    let same_asker = openings.askers(&library.path).any(|known| known.path == module.path);
    if (library.is_unread() && world.own.has_path(&library.path))
        || (module.is_unread() && same_asker)
    {
        return Judged::Undecided;
    }
    let watched = openings.settled(world.learning.observations);
    if !settled(seen, world) || !watched || new_method(seen, world) {
        return Judged::Learning;
    }
    // A machine under load tells of a library that it was opened, and not who asked: that somebody is
    // seen at it for the first time says nothing then.
    let unread = |known: &ModuleId| known.is_unread() && known.path == module.path;
    let asker_open = openings.askers(&library.path).any(unread)
        || !openings.settled_for(&library.path, world.learning.observations);
    if asker_open && has_library && may_belong(seen, &module, world) {
        return Judged::Learning;
    }
    Judged::Unexpected
}

/// What was opened, or who asked for it, or both have replaced a library that did the same; `known`: who
/// asked for it always did.
fn goes_on(opening: &Opening, (asker, known): (&ModuleId, bool), world: &World<'_>) -> bool {
    let library = &opening.module;
    let before = upgrade::replaced(library, Some(&opening.file), world);
    let before_asker = upgrade::replaced(asker, None, world);
    let is_upgrade = before.is_some() || (before_asker.is_some() && world.own.has_library(library));
    let libraries = [Some(library), before.map(|before| before.known)];
    let askers = [Some(asker), before_asker.map(|before| before.known)];
    let mut pairs = libraries.iter().flatten().flat_map(|library| {
        let askers = askers.iter().flatten();
        askers.map(move |asker| world.own.openings.knows(&library.path, asker))
    });
    is_upgrade && (known || pairs.any(|is_known| is_known))
}

/// Of an opening that teaches no asker: it is too early to say that those who are known are all.
pub(crate) fn askers_are_open(opening: &Opening, judged: Judged, world: &World<'_>) -> bool {
    let observations = world.learning.observations;
    let unseen = opening.asked.is_none() || judged == Judged::Undecided;
    unseen && !world.own.openings.settled_for(&opening.module.path, observations)
}

/// Code that nobody can look at on a disk: anonymous memory, a memfd, a file that was deleted; but
/// for what an upgrade has replaced under a process that runs.
pub(crate) fn homeless(seen: &Observation, asked: &Asked, world: &World<'_>) -> bool {
    let module = &asked.place.module;
    if module.is_mapped_file() {
        return false;
    }
    let was_file = is_file(module) && !module.path.starts_with("/memfd:");
    !(was_file && belongs(seen, &module.before_deletion(), world))
}

/// The program itself or a library of its baseline.
pub(crate) fn belongs(seen: &Observation, module: &ModuleId, world: &World<'_>) -> bool {
    seen.process.program.module.same_file(module) || world.own.has_library(module)
}

/// The same, or a library of it that could not be read was at this path: whether this is that file is
/// judged as a library.
fn may_belong(seen: &Observation, module: &ModuleId, world: &World<'_>) -> bool {
    seen.process.program.module.may_be(module)
        || world.own.libraries.iter().any(|(known, _)| known.may_be(module))
}

/// What calls could not be read, and is in a place from which calls are known, or may become so.
fn may_be_known(seen: &Observation, call: &Called, module: &ModuleId, world: &World<'_>) -> bool {
    let callers = world.own.callers.get(&call.function);
    let mut known = callers.into_iter().flat_map(|callers| &callers.modules);
    let library = call.library.as_ref();
    !settled(seen, world)
        || module.path == seen.process.program.module.path
        || library.is_some_and(|library| library.path == module.path)
        || known.any(|known| known.path == module.path)
}

/// A loader variable: by its name, but for one that loads code, where each library counts.
pub(crate) fn knows_variable(variable: &Variable, world: &World<'_>) -> bool {
    let known = |key: &str| world.own.environment.contains(key);
    if !injects(&variable.name) || variable.libraries.is_empty() {
        return known(&variable.name);
    }
    variable.libraries.iter().all(|library| known(&key(variable, library)))
}

/// What the baseline is to remember of it.
pub(crate) fn variable_keys(variable: &Variable) -> Vec<String> {
    if !injects(&variable.name) || variable.libraries.is_empty() {
        return vec![variable.name.clone()];
    }
    let named = |library: &Preloaded| format!("{}={}", variable.name, library.name);
    variable.libraries.iter().flat_map(|each| [key(variable, each), named(each)]).collect()
}

/// By the file where it was found: the same name may lead elsewhere next time.
fn key(variable: &Variable, library: &Preloaded) -> String {
    let file = library.file.as_ref().map_or(library.name.as_str(), |file| file.path.as_str());
    format!("{}={file}", variable.name)
}

/// It puts code into a program.
pub(crate) fn injects(name: &str) -> bool {
    matches!(name, "LD_PRELOAD" | "LD_AUDIT")
}

/// The detectors may speak of this process's program.
pub(crate) fn settled(seen: &Observation, world: &World<'_>) -> bool {
    world.own.settled(world.learning.observations, seen.process.program.guarded())
}

/// A method was tried on this connection that few logins have used.
pub(crate) fn new_method(seen: &Observation, world: &World<'_>) -> bool {
    seen.connection.as_ref().is_some_and(|connection| {
        !world.own.knows_methods(&connection.attempted, world.learning.observations)
    })
}

/// A mapped file, not the kernel's name for other memory.
pub(crate) fn is_file(module: &ModuleId) -> bool {
    module.path.starts_with('/')
}
