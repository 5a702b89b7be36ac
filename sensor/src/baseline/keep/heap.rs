//! What a baseline takes in memory.

use crate::baseline::samples::Samples;
use crate::baseline::subject::{Baseline, Callers, Openings, Seen};
use crate::host::ModuleId;

/// What the allocator adds to a block, and a map to an entry, about.
const BLOCK: usize = 16;
const ENTRY: usize = 32;
/// A stream: its reference has tens of bins.
const STREAM: usize = 2048;

/// Bytes on the heap, about: a few percent either way do not matter where it bounds memory.
pub(super) fn of(baseline: &Baseline) -> usize {
    let Baseline { libraries, callers, openings, environment, helpers, .. } = baseline;
    let Openings { askers, unasked, .. } = openings;
    let libraries = libraries.iter().map(|(module, _)| size_of::<Seen>() + module_bytes(module));
    let callers = callers.iter().map(|(name, Callers { modules, .. })| {
        text(name) + ENTRY + modules.iter().map(module_bytes).sum::<usize>()
    });
    let askers = askers
        .iter()
        .map(|(path, modules)| text(path) + modules.iter().map(module_bytes).sum::<usize>());
    let names = environment.iter().chain(helpers).chain(&baseline.instruments);
    let shares = baseline.shares.iter().map(|(path, share)| text(path) + samples(share));
    let auth = baseline.auth.values().map(samples);
    size_of::<Baseline>()
        + libraries.sum::<usize>()
        + callers.sum::<usize>()
        + askers.sum::<usize>()
        + names.map(|name| text(name)).sum::<usize>()
        + unasked.keys().map(|path| text(path)).sum::<usize>()
        + shares.chain(auth).sum::<usize>()
        + samples(&baseline.link)
        + baseline.shifts.len() * STREAM
}

fn text(text: &str) -> usize {
    size_of::<String>() + text.len() + BLOCK + ENTRY
}

fn module_bytes(ModuleId { path, build }: &ModuleId) -> usize {
    2 * (size_of::<String>() + BLOCK) + path.len() + build.len()
}

fn samples(samples: &Samples) -> usize {
    size_of::<Samples>() + size_of_val(samples.latest_us()) + BLOCK + ENTRY
}
