//! Variables that wait until the owners of all their libraries are known.

use std::collections::HashMap;

use crate::host::{Body, Observation, Owners, Ownership};
use crate::package::{Content, Origin, Owner};

/// One library of a waiting variable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Slot {
    question: u64,
    library: usize,
}

/// The variables that wait.
#[derive(Debug, Default)]
pub(super) struct Variables {
    waiting: HashMap<u64, (Observation, usize)>,
    last: u64,
}

// === impl Variables ===

impl Variables {
    /// Holds a variable; the slots of its libraries, each to be filled once.
    pub(super) fn hold(&mut self, seen: Observation) -> Vec<Slot> {
        let Body::Environment(variable) = &seen.body else { return Vec::new() };
        self.last += 1;
        let question = self.last;
        let found = variable.libraries.iter().enumerate().filter(|(_, it)| it.file.is_some());
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

    /// Fills a slot; the variable, once it was the last.
    pub(super) fn fill(&mut self, slot: Slot, origin: &Origin) -> Option<Observation> {
        let (seen, left) = self.waiting.get_mut(&slot.question)?;
        if let Body::Environment(variable) = &mut seen.body
            && let Some(library) = variable.libraries.get_mut(slot.library)
        {
            library.owner = ownership(origin);
        }
        *left = left.saturating_sub(1);
        if *left > 0 {
            return None;
        }
        let (mut seen, _) = self.waiting.remove(&slot.question)?;
        if let Body::Environment(variable) = &mut seen.body {
            variable.owners = Owners::Answered;
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
