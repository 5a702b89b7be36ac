//! What the provenance station has told of the libraries seen lately, so that a finding that names one
//! says which package brought it, and when, and how the loader found it.

use std::sync::Arc;

use crate::detect::Brought;
use crate::detect::judge::Judged;
use crate::event::FileKey;
use crate::finding::Evidence;
use crate::host::{Body, ModuleId, Observation, ProcessId, Traced};
use crate::package::{Content, Origin, Owned, Owner};
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
    asked: Lru<(ProcessId, String), ()>,
    /// Files of the host that are what their packages brought: a path may hold another by now.
    vouched: Lru<ModuleId, (FileKey, Arc<Origin>)>,
}

// === impl Origins ===

impl Origins {
    pub(super) fn new() -> Self {
        Self {
            packages: Lru::new(REMEMBERED, REMEMBERED),
            ways: Lru::new(REMEMBERED, REMEMBERED),
            judged: Lru::new(REMEMBERED, REMEMBERED),
            answered: Lru::new(REMEMBERED, REMEMBERED),
            asked: Lru::new(REMEMBERED, REMEMBERED),
            vouched: Lru::new(REMEMBERED, REMEMBERED),
        }
    }

    /// What was thought of a library when it was mapped.
    pub(super) fn judged(&mut self, process: ProcessId, path: &str, judged: Judged) {
        self.judged.insert((process, path.to_owned()), judged, 1);
    }

    /// Notes that an answer about a library is to be expected.
    pub(super) fn note_asked(&mut self, seen: &Observation) {
        if let Body::Library(library) = &seen.body
            && library.asked
        {
            self.asked.insert((seen.process.id, library.module.path.clone()), (), 1);
        }
    }

    /// Takes an answer, and adds to it what was thought of its library.
    pub(super) fn note(&mut self, seen: &Observation, traced: &mut Traced) {
        let path = traced.library.module.path.clone();
        self.note_vouched(seen, traced);
        let subject = seen.process.program.subject.clone();
        self.packages.insert(path.clone(), Arc::clone(&traced.origin), 1);
        self.ways.insert((subject, path.clone()), traced.way.clone(), 1);
        let key = (seen.process.id, path);
        traced.judged = self.judged.get(&key);
        self.answered.insert(key, (), 1);
    }

    /// The word of a package counts for the files of the host's own root.
    fn note_vouched(&mut self, seen: &Observation, traced: &Traced) {
        let Traced { library, origin, .. } = traced;
        let genuine = origin.content == Content::Matches
            && origin.package().is_some_and(|owned| !owned.config)
            && seen.process.shown.container.is_none();
        if genuine {
            let known = (library.file, Arc::clone(origin));
            self.vouched.insert(library.module.clone(), known, 1);
        }
    }

    /// This process has mapped the library, and the answer about it is still to come.
    pub(super) fn awaits(&self, process: ProcessId, path: &str) -> bool {
        let key = (process, path.to_owned());
        self.asked.peek(&key).is_some() && self.answered.peek(&key).is_none()
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

    fn vouched(&self, module: &ModuleId, file: Option<&FileKey>) -> Option<&Owned> {
        let (known, origin) = self.vouched.peek(module)?;
        origin.package().filter(|_| file.is_none_or(|file| file == known))
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
