//! What a scan says of code: evidence, and its part of the account.

use serde_json::{Map, Value};

use crate::finding::Evidence;
use crate::verify::{Explanation, ModuleRef, Patch, Report, Stray, shown};

/// Explained changes and written pages told one by one; the rest is only counted.
const NOTES_MAX: usize = 40;

/// The account of code.
#[derive(Clone, Debug, Default)]
pub(super) struct CodeTally {
    /// Pages that were compared with their file.
    pub(super) pages: u64,
    /// Changes that nothing accounts for.
    pub(super) patches: u64,
    /// Contradictions between modules and mappings.
    pub(super) strays: u64,
    /// Changes by probes and debuggers.
    pub(super) explained: u64,
    /// Changes of files that were written to since the start: nothing can be said about them.
    pub(super) file_changed: u64,
    /// Pages that were written to and are as they should be again.
    pub(super) restored: u64,
    /// Processes with executable memory of no module.
    pub(super) with_loose: u64,
    pub(super) loose_bytes: u64,
    /// What accounts for changes, and which pages were written to.
    pub(super) notes: Vec<String>,
}

// === impl CodeTally ===

impl CodeTally {
    /// Adds a report; gives the findings by detector.
    pub(super) fn add(&mut self, report: &Report) -> Vec<(&'static str, Vec<Evidence>)> {
        let text = &report.text;
        self.pages += text.private_pages;
        self.with_loose += u64::from(!text.loose.is_empty());
        self.loose_bytes += text.loose_bytes();
        for page in &text.restored {
            self.restored += 1;
            let place = format!("{}+{:#x}", page.module.file_name(), page.offset);
            self.note(report.pid, &format!("{place}: written to, and as it was again"));
        }
        for patch in text.patches.iter().filter(|patch| patch.explanation.is_some()) {
            match patch.explanation {
                Some(Explanation::FileChanged) => self.file_changed += 1,
                _ => self.explained += 1,
            }
            self.note(report.pid, &patch.to_string());
        }
        let patches: Vec<Evidence> = text.unexplained().map(patched).collect();
        let strays: Vec<Evidence> = text.strays.iter().map(mapping).collect();
        self.patches += count(&patches);
        self.strays += count(&strays);
        let found = [("text_patched", patches), ("module_unlinked", strays)];
        found.into_iter().filter(|(_, evidence)| !evidence.is_empty()).collect()
    }

    fn note(&mut self, pid: u32, text: &str) {
        if self.notes.len() < NOTES_MAX {
            self.notes.push(format!("process {pid}: {text}"));
        }
    }

    /// Its keys of the summary.
    pub(super) fn summary(&self, summary: &mut Map<String, Value>) {
        let numbers = [
            ("code_pages_compared", self.pages),
            ("code_patched", self.patches),
            ("code_unlinked", self.strays),
            ("code_explained", self.explained),
            ("code_file_changed", self.file_changed),
            ("code_restored_pages", self.restored),
            ("with_anonymous_code", self.with_loose),
            ("anonymous_code_bytes", self.loose_bytes),
        ];
        summary.extend(numbers.map(|(key, number)| (key.to_owned(), number.into())));
        summary.insert("code_notes".to_owned(), self.notes.clone().into());
    }
}

fn count(items: &[Evidence]) -> u64 {
    u64::try_from(items.len()).unwrap_or(u64::MAX)
}

fn patched(patch: &Patch) -> Evidence {
    let target = patch.leads_to.as_ref();
    let module = target.and_then(|target| target.module.as_ref());
    let memory = target.and_then(|target| target.memory.clone());
    Evidence::Code {
        module: patch.module.path.clone(),
        build_id: patch.module.build_id.clone(),
        place: patch.place(),
        function: patch.symbol.clone().unwrap_or_default(),
        length: patch.length,
        expected: shown(&patch.expected),
        actual: shown(&patch.actual),
        expected_code: patch.expected_code.clone(),
        actual_code: patch.actual_code.clone(),
        leads_to: target.map(ToString::to_string).unwrap_or_default(),
        leads_to_module: module.map(|module| module.path.clone()).or(memory).unwrap_or_default(),
        leads_to_build_id: module.and_then(|module| module.build_id.clone()),
        explained_by: patch.explanation.as_ref().map(ToString::to_string),
    }
}

fn mapping(stray: &Stray) -> Evidence {
    let module = stray.module.as_ref();
    Evidence::Mapping {
        module: module.map(|module: &ModuleRef| module.path.clone()).unwrap_or_default(),
        build_id: module.and_then(|module| module.build_id.clone()),
        problem: stray.kind.clause().to_owned(),
        address: format!("{:#x}", stray.addr),
        size: stray.size,
        memory: stray.memory.clone(),
        differing: stray.differing,
    }
}
