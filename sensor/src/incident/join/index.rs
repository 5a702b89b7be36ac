//! Where an incident is found by: other lineages that joined it, and the files it blames.

use std::collections::BTreeMap;

use super::Open;
use crate::host::Lineage;

/// Each leads to the lineage that the incident is kept by. Bounded by what each incident may hold.
#[derive(Debug, Default)]
pub(super) struct Index {
    lineages: BTreeMap<Lineage, Lineage>,
    files: BTreeMap<String, Lineage>,
}

// === impl Index ===

impl Index {
    pub(super) fn stands_for(&self, lineage: &Lineage) -> Option<&Lineage> {
        self.lineages.get(lineage)
    }

    /// The incident that blames one of `files`, by the first that any does.
    pub(super) fn blaming(&self, files: &[String]) -> Option<&Lineage> {
        files.iter().find_map(|file| self.files.get(file))
    }

    pub(super) fn alias(&mut self, lineage: &Lineage, target: &Lineage) {
        self.lineages.insert(lineage.clone(), target.clone());
    }

    /// The first incident to blame a file is the one that others join.
    pub(super) fn blame(&mut self, file: String, target: &Lineage) {
        self.files.entry(file).or_insert_with(|| target.clone());
    }

    pub(super) fn add(&mut self, open: &Open) {
        let target = &open.entry().lineage;
        for lineage in &open.entry().others {
            self.alias(lineage, target);
        }
        for file in open.files() {
            self.blame(file.clone(), target);
        }
        // It has one of its own from now on.
        self.lineages.remove(target);
    }

    pub(super) fn remove(&mut self, open: &Open) {
        let target = &open.entry().lineage;
        self.lineages.retain(|_, stands_for| stands_for != target);
        self.files.retain(|_, blaming| blaming != target);
    }
}

#[cfg(test)]
impl Index {
    /// Whether everything leads to an incident that is open and knows of it.
    pub(super) fn is_sound(&self, open: &BTreeMap<Lineage, Open>) -> bool {
        let lineages = self.lineages.iter().all(|(lineage, target)| {
            let there = open.get(target);
            !open.contains_key(lineage)
                && there.is_some_and(|open| open.entry().others.contains(lineage))
        });
        let files = self.files.iter().all(|(file, target)| {
            open.get(target).is_some_and(|open| open.files().any(|known| known == file))
        });
        lineages && files
    }
}
