//! What the provenance station has told of the libraries seen lately, so that a finding that names one
//! says which package brought it, and when, and how the loader found it.

use std::sync::Arc;

use crate::detect::Brought;
use crate::detect::judge::Judged;
use crate::finding::Evidence;
use crate::host::{Body, Observation, ProcessId, Traced};
use crate::package::{Content, Origin, Owner};
use crate::search::Explained;
use crate::verify::cache::Lru;

/// Libraries remembered.
const REMEMBERED: usize = 2048;

/// How a library was found, or why that cannot be told.
type Way = Result<Arc<Explained>, Arc<str>>;

/// By path: findings name modules so.
#[derive(Debug)]
pub(super) struct Origins {
    packages: Lru<String, Arc<Origin>>,
    /// Of one program: another one's loader goes another way.
    ways: Lru<(String, String), Way>,
    /// Until the answer is there, which may be learned meanwhile.
    judged: Lru<(ProcessId, String), Judged>,
    answered: Lru<(ProcessId, String), ()>,
}

// === impl Origins ===

impl Origins {
    pub(super) fn new() -> Self {
        Self {
            packages: Lru::new(REMEMBERED, REMEMBERED),
            ways: Lru::new(REMEMBERED, REMEMBERED),
            judged: Lru::new(REMEMBERED, REMEMBERED),
            answered: Lru::new(REMEMBERED, REMEMBERED),
        }
    }

    /// What was thought of a library when it was mapped.
    pub(super) fn judged(&mut self, process: ProcessId, path: &str, judged: Judged) {
        self.judged.insert((process, path.to_owned()), judged, 1);
    }

    /// Takes an answer, and adds to it what was thought of its library.
    pub(super) fn note(&mut self, seen: &Observation, traced: &mut Traced) {
        let path = traced.library.module.path.clone();
        let subject = seen.process.program.subject.clone();
        self.packages.insert(path.clone(), Arc::clone(&traced.origin), 1);
        self.ways.insert((subject, path.clone()), traced.way.clone(), 1);
        let key = (seen.process.id, path);
        traced.judged = self.judged.get(&key);
        self.answered.insert(key, (), 1);
    }

    /// There is nothing to wait for.
    pub(super) fn is_answered(&mut self, seen: &Observation) -> bool {
        match &seen.body {
            Body::Library(library) => {
                let key = (seen.process.id, library.module.path.clone());
                self.answered.get(&key).is_some()
            }
            _ => true,
        }
    }

    /// Adds what is known of the module that a finding speaks of, unless it is there, and of the
    /// one in whose place that is.
    pub(super) fn add_to(&mut self, subject: &str, evidence: &mut Vec<Evidence>) {
        let Some(at) = evidence.iter().position(|one| module(one).is_some()) else { return };
        let Some(path) = evidence.get(at).and_then(module).map(str::to_owned) else { return };
        let has = |is: fn(&Evidence) -> bool| evidence.iter().any(is);
        let place = evidence.get(at).and_then(instead_of).filter(|place| **place != *path);
        let told = has(|one| matches!(one, Evidence::Package { .. }));
        let known = [Some(path.as_str()), place].into_iter().flatten().map(str::to_owned);
        let packages: Vec<_> = known
            .filter(|_| !told)
            .filter_map(|path| Some((self.packages.get(&path)?, path)))
            .filter(|(origin, _)| origin.package().is_some())
            .map(|(origin, path)| Evidence::of_origin(&path, &origin))
            .collect();
        let way = self.ways.get(&(subject.to_owned(), path));
        let way = way.filter(|_| !has(|one| matches!(one, Evidence::Search { .. })));
        let way = way.map(|way| Evidence::of_search(&way));
        let rest = evidence.split_off(at + 1);
        evidence.extend(way.into_iter().chain(packages).chain(rest));
    }
}

// === impl Brought ===

impl Brought for Origins {
    fn brought(&self, path: &str) -> Option<String> {
        let origin = self.packages.peek(&path.to_owned())?;
        let owned = origin.package().filter(|_| origin.content == Content::Matches)?;
        Some(format!("package {} {}", owned.package, owned.version))
    }

    fn foreign(&self, path: &str) -> bool {
        let differs = |origin: &Origin| matches!(origin.content, Content::Differs { .. });
        let origin = self.packages.peek(&path.to_owned());
        origin.is_some_and(|origin| origin.owner == Owner::Nobody || differs(origin))
    }
}

/// The module whose code or function another took over.
fn instead_of(evidence: &Evidence) -> Option<&str> {
    let path = match evidence {
        Evidence::Slot { expected_module, .. } => expected_module,
        Evidence::Code { module, .. } => module,
        _ => return None,
    };
    (!path.is_empty()).then_some(path)
}

/// The module that a piece of evidence holds against.
fn module(evidence: &Evidence) -> Option<&str> {
    let path = match evidence {
        Evidence::Slot { actual_module, .. } => actual_module,
        Evidence::Code { leads_to_module, .. } => leads_to_module,
        Evidence::Mapping { module, .. } => module,
        Evidence::Caller { caller_module, .. } | Evidence::Opened { caller_module, .. } => {
            caller_module
        }
        Evidence::Audit { callback_module, .. } => callback_module,
        Evidence::Library { path, .. } => path,
        Evidence::Timing { module, .. } => module.as_ref()?,
        _ => return None,
    };
    (!path.is_empty()).then_some(path)
}
