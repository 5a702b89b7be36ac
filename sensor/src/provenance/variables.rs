//! Variables, and changes of PAM's files, that wait until the owners of all their libraries are known.

use std::collections::HashMap;
use std::sync::Arc;

use crate::host::{Body, Observation, Owners, Ownership};
use crate::package::{Content, Origin, Owner};
use crate::watch::{Preloaded, Root};

/// One library of what waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Slot {
    question: u64,
    library: usize,
}

/// Those that wait.
#[derive(Debug, Default)]
pub(super) struct Variables {
    waiting: HashMap<u64, (Observation, usize)>,
    last: u64,
}

// === impl Variables ===

impl Variables {
    /// Holds one; the slots of its libraries, each to be filled once.
    pub(super) fn hold(&mut self, seen: Observation) -> Vec<Slot> {
        self.last += 1;
        let question = self.last;
        let is_found: Vec<bool> = match &seen.body {
            Body::Environment(variable) => {
                variable.libraries.iter().map(|library| library.file.is_some()).collect()
            }
            Body::LoaderConfig(change) => {
                change.libraries.iter().map(|library| library.file.is_some()).collect()
            }
            _ => Vec::new(),
        };
        let found = is_found.iter().enumerate().filter(|(_, found)| **found);
        let slots: Vec<Slot> = found.map(|(library, _)| Slot { question, library }).collect();
        if !slots.is_empty() {
            self.waiting.insert(question, (seen, slots.len()));
        }
        slots
    }

    /// The file of a slot's library, with whose it is.
    pub(super) fn get(&self, slot: Slot) -> Option<(&Observation, &crate::host::FoundLibrary)> {
        let (seen, _) = self.waiting.get(&slot.question)?;
        let Body::Environment(variable) = &seen.body else { return None };
        Some((seen, variable.libraries.get(slot.library)?.file.as_ref()?))
    }

    /// The module of a slot, and the root it lies in.
    pub(super) fn module(&self, slot: Slot) -> Option<(&Root, &Preloaded)> {
        let (seen, _) = self.waiting.get(&slot.question)?;
        let Body::LoaderConfig(change) = &seen.body else { return None };
        Some((&change.root, change.libraries.get(slot.library)?))
    }

    /// Fills a slot; what waited, once it was the last.
    pub(super) fn fill(&mut self, slot: Slot, origin: &Arc<Origin>) -> Option<Observation> {
        let (seen, left) = self.waiting.get_mut(&slot.question)?;
        match &mut seen.body {
            Body::Environment(variable) => {
                if let Some(library) = variable.libraries.get_mut(slot.library) {
                    library.owner = ownership(origin);
                }
            }
            Body::LoaderConfig(change) => {
                if let Some(module) = change.libraries.get_mut(slot.library) {
                    module.origin = Some(Arc::clone(origin));
                }
            }
            _ => {}
        }
        *left = left.saturating_sub(1);
        if *left > 0 {
            return None;
        }
        let (mut seen, _) = self.waiting.remove(&slot.question)?;
        match &mut seen.body {
            Body::Environment(variable) => variable.owners = Owners::Answered,
            Body::LoaderConfig(change) => change.owners = Owners::Answered,
            _ => {}
        }
        Some(seen)
    }
}

fn ownership(origin: &Origin) -> Ownership {
    match (&origin.owner, &origin.content) {
        (Owner::Package(owned), content) => {
            let package = format!("{} {}", owned.package, owned.version);
            match content {
                Content::Differs { .. } => Ownership::Differs(package),
                Content::Matches | Content::NotRecorded | Content::Unread(_) => {
                    Ownership::Package(package)
                }
            }
        }
        (Owner::Nobody, _) => Ownership::Nobody,
        (Owner::Unknown(_), _) => Ownership::Unknown,
    }
}
