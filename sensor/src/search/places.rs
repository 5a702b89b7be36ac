//! The places that a loader asks for a name without a path, in its order.

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::expand::{self, Expanded};
use super::order::Order;
use super::{Loader, Rule, Start};

/// Modules followed upwards from one that needs a library.
const CHAIN_MAX: usize = 64;

/// A list of directories that the distribution did not decide about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum List {
    /// `DT_RPATH`: for all that the module and what it needs ask for.
    Rpath,
    /// `DT_RUNPATH`: for what the module itself asks for.
    Runpath,
    /// `LD_LIBRARY_PATH`.
    LibraryPath,
    /// No list: a name with a path.
    Path,
}

/// One place.
#[derive(Clone, Debug)]
pub(super) enum Element {
    Listed {
        list: List,
        /// Number of the module.
        of: Option<usize>,
        text: String,
        directories: Vec<PathBuf>,
        relative: bool,
    },
    Cache,
    System(PathBuf),
}

/// What is asked for a name that a module needs.
pub(super) struct Places<'a> {
    start: &'a Start,
    by: Option<usize>,
    order: &'a Order,
}

// === impl List ===

impl fmt::Display for List {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Rpath => "RPATH",
            Self::Runpath => "RUNPATH",
            Self::LibraryPath => "LD_LIBRARY_PATH",
            Self::Path => "path",
        })
    }
}

// === impl Element ===

impl Element {
    fn new(list: List, of: Option<usize>, expanded: Expanded) -> Self {
        let Expanded { text, directories, relative } = expanded;
        Self::Listed { list, of, text, directories, relative }
    }

    /// A name with a path, which is no element of a list but as good as one.
    pub(super) fn of_path(name: &str, path: &std::path::Path) -> Self {
        Self::Listed {
            list: List::Path,
            of: None,
            text: name.to_owned(),
            directories: path.parent().map(std::path::Path::to_owned).into_iter().collect(),
            relative: !name.starts_with(['/', '$']),
        }
    }

    pub(super) fn directories(&self) -> &[PathBuf] {
        match self {
            Self::Listed { directories, .. } => directories,
            Self::System(directory) => std::slice::from_ref(directory),
            Self::Cache => &[],
        }
    }

    /// That it was found here.
    pub(super) fn rule(&self, start: &Start) -> Rule {
        match self {
            Self::Listed { list, of, text, .. } => Rule::Listed {
                list: *list,
                of: of.and_then(|of| start.modules.get(of)).map(|module| module.path.clone()),
                element: text.clone(),
            },
            Self::Cache => Rule::Cache,
            Self::System(directory) => Rule::System(directory.clone()),
        }
    }
}

// === impl Places ===

impl<'a> Places<'a> {
    pub(super) fn new(start: &'a Start, by: Option<usize>, order: &'a Order) -> Self {
        Self { start, by, order }
    }

    pub(super) fn all(&self) -> Vec<Element> {
        match self.start.loader {
            Loader::Glibc => self.glibc(),
            Loader::Musl => self.musl(),
        }
    }

    /// `_dl_map_object`.
    fn glibc(&self) -> Vec<Element> {
        let mut all = Vec::new();
        let runpath = self.by.filter(|by| self.list(*by, List::Runpath).is_some());
        if runpath.is_none() {
            let mut chain = self.chain();
            if !chain.contains(&0) {
                chain.push(0);
            }
            for of in chain {
                // A module that has both has only the latter (`elf_get_dynamic_info`).
                if self.list(of, List::Runpath).is_none() {
                    self.add(&mut all, List::Rpath, of);
                }
            }
        }
        self.add_library_path(&mut all);
        if let Some(of) = runpath {
            self.add(&mut all, List::Runpath, of);
        }
        all.push(Element::Cache);
        let modules = &self.start.modules;
        let asking = self.by.and_then(|by| modules.get(by));
        if !asking.is_some_and(|module| module.names.no_default) {
            all.extend(self.start.system.iter().cloned().map(Element::System));
        }
        all
    }

    /// `load_library`.
    fn musl(&self) -> Vec<Element> {
        let mut all = Vec::new();
        self.add_library_path(&mut all);
        for of in self.chain() {
            // Both are the same to it, and the latter counts.
            if self.list(of, List::Runpath).is_some() {
                self.add(&mut all, List::Runpath, of);
            } else {
                self.add(&mut all, List::Rpath, of);
            }
        }
        all.extend(self.start.system.iter().cloned().map(Element::System));
        all
    }

    /// The module that asks, the one that asked for it, and so on.
    fn chain(&self) -> Vec<usize> {
        let mut chain: Vec<usize> = Vec::new();
        let mut next = self.by;
        while let Some(at) = next.filter(|at| chain.len() < CHAIN_MAX && !chain.contains(at)) {
            chain.push(at);
            next = self.order.asked_by(at);
        }
        chain
    }

    fn list(&self, of: usize, list: List) -> Option<&'a str> {
        let names = &self.start.modules.get(of)?.names;
        match list {
            List::Rpath => names.rpath.as_deref(),
            List::Runpath => names.runpath.as_deref(),
            List::LibraryPath | List::Path => None,
        }
    }

    fn add(&self, all: &mut Vec<Element>, list: List, of: usize) {
        let Some(text) = self.list(of, list) else { return };
        let elements = expand::list(self.start, list, text, Some(of));
        all.extend(elements.into_iter().map(|one| Element::new(list, Some(of), one)));
    }

    fn add_library_path(&self, all: &mut Vec<Element>) {
        let Some(text) = self.start.library_path.as_deref().filter(|_| !self.start.secure) else {
            return;
        };
        let elements = expand::list(self.start, List::LibraryPath, text, None);
        all.extend(elements.into_iter().map(|one| Element::new(List::LibraryPath, None, one)));
    }
}
