//! Origins of the libraries seen lately, so that a finding that names one says which package brought
//! it, and when.

use std::sync::Arc;

use crate::finding::Evidence;
use crate::host::Traced;
use crate::package::Origin;
use crate::verify::cache::Lru;

/// Libraries remembered.
const REMEMBERED: usize = 2048;

/// What the provenance station has told, by path: findings name modules so.
#[derive(Debug)]
pub(super) struct Origins(Lru<String, Arc<Origin>>);

// === impl Origins ===

impl Origins {
    pub(super) fn new() -> Self {
        Self(Lru::new(REMEMBERED, REMEMBERED))
    }

    pub(super) fn note(&mut self, traced: &Traced) {
        let path = traced.library.module.path.clone();
        self.0.insert(path, Arc::clone(&traced.origin), 1);
    }

    /// Adds the package of the module that a finding speaks of, unless it is there.
    pub(super) fn add_to(&mut self, evidence: &mut Vec<Evidence>) {
        if evidence.iter().any(|one| matches!(one, Evidence::Package { .. })) {
            return;
        }
        let Some(at) = evidence.iter().position(|one| module(one).is_some()) else { return };
        let Some(path) = evidence.get(at).and_then(module) else { return };
        let Some(origin) = self.0.get(&path.to_owned()) else { return };
        if origin.package().is_some() {
            evidence.insert(at + 1, Evidence::of_origin(&origin));
        }
    }
}

/// The module that a piece of evidence holds against.
fn module(evidence: &Evidence) -> Option<&str> {
    let path = match evidence {
        Evidence::Slot { actual_module, .. } => actual_module,
        Evidence::Code { leads_to_module, .. } => leads_to_module,
        Evidence::Mapping { module, .. } => module,
        Evidence::Caller { caller_module, .. } => caller_module,
        Evidence::Audit { callback_module, .. } => callback_module,
        Evidence::Library { path, .. } => path,
        Evidence::Timing { module, .. } => module.as_ref()?,
        _ => return None,
    };
    (!path.is_empty()).then_some(path)
}
