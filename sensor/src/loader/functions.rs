//! Entry probes on guarded functions, per library file: on every library the agent names, in
//! containers and chroots too.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::os::unix::fs::FileExt as _;
use std::{fmt, io};

use aya::Ebpf;
use aya::programs::uprobe::{UProbe, UProbeLinkId, UProbeScope};
use aya::programs::{Program, ProgramError};
use sensor_common::record::{FileKey, InodeKey};
use serde::Serialize;
use thiserror::Error;

use super::LoadError;
use super::error::{reason, uprobe_reason};
use super::handle::Sensor;
use super::site::{self, HitPrice};
use crate::verify::OwnProbes;

const PROGRAM: &str = "function_entry";

/// A function of a library file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FunctionSite {
    /// Its name, for messages.
    pub symbol: String,
    /// Where its first byte lies in the file.
    pub offset: u64,
}

/// A function whose entries are told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ProbedFunction {
    /// Its name.
    pub symbol: String,
    /// File offset of the probe: of the entry, or just behind its `endbr64`. [`Caller::ip`] points
    /// there.
    ///
    /// [`Caller::ip`]: crate::event::Caller::ip
    pub offset: u64,
    /// What one hit costs.
    pub price: HitPrice,
}

/// Why a function cannot be watched.
#[derive(Debug, Error)]
#[error("cannot watch {symbol} at file offset {offset:#x}: {reason}")]
pub struct FunctionError {
    /// Its name.
    pub symbol: String,
    /// Where it was said to be.
    pub offset: u64,
    /// Why not.
    pub reason: String,
}

/// What became of a request to watch a library no longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Released {
    /// It was not watched.
    Nothing,
    /// Others see the same file below another overlay: the probes stay.
    Shared,
    /// The same, and the probes now lie on it through the view of one of them.
    Moved,
    /// Its probes are gone.
    All {
        /// Views of others that are unwatched now, as none of them could be opened.
        orphans: usize,
    },
}

/// What is attached, and what was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProbesNow {
    /// Files with probes.
    pub files: usize,
    /// Probes on them.
    pub probes: usize,
    /// Probes attached so far.
    pub attached: u64,
    /// Of these, released again.
    pub released: u64,
}

/// Links of every library, by the view it is probed through. The identity of a file that is
/// replaced in place stays, and so do its probes: the kernel keeps them by inode.
#[derive(Default)]
pub(super) struct Libraries {
    by_view: BTreeMap<InodeKey, Library>,
    attached: u64,
    released: u64,
}

struct Library {
    key: FileKey,
    /// Seen through an overlay: containers of one image have one file below, and the kernel keeps
    /// the probes of that.
    is_overlay: bool,
    /// Everyone it is watched for, the view that is probed among them. A probe keeps the mount it
    /// was made through, so it has to move when that view is released.
    views: BTreeSet<InodeKey>,
    links: Vec<(ProbedFunction, UProbeLinkId)>,
}

impl fmt::Debug for Libraries {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.by_view.values().map(|library| library.key)).finish()
    }
}

impl Sensor {
    /// Watches functions of an open library, in every process that has or gets a role. Functions
    /// watched already stay as they are, also those of the same file seen through another overlay:
    /// a second probe there would tell every call twice.
    ///
    /// Errors: the library cannot be identified. Each function has its own result.
    pub fn attach_functions(
        &mut self,
        library: &File,
        sites: &[FunctionSite],
    ) -> Result<Vec<Result<ProbedFunction, FunctionError>>, LoadError> {
        let (key, _) = self.identify(library.as_fd())?;
        let view = InodeKey { ino: key.ino, dev: key.dev, reserved: 0 };
        let is_overlay = crate::filesystem::is_overlay(library);
        let own = self.own_probes();
        let (object, libraries) = self.functions_mut();
        let probed = libraries.below_overlays(&key, is_overlay).unwrap_or(view);
        let new = || Library { key, is_overlay, views: BTreeSet::new(), links: Vec::new() };
        let entry = libraries.by_view.entry(probed).or_insert_with(new);
        let before = entry.links.len();
        let results = sites.iter().map(|site| entry.attach(object, library, site, &own)).collect();
        libraries.attached += count(entry.links.len() - before);
        if entry.links.is_empty() {
            libraries.by_view.remove(&probed);
        } else {
            entry.views.insert(view);
        }
        Ok(results)
    }

    /// Watches a library no longer on behalf of those who see it as `view`. Where others see the
    /// same file below other overlays, the probes move to one of them: `heirs` opens it there, for
    /// as many as are needed.
    pub fn release_functions(
        &mut self,
        view: InodeKey,
        heirs: impl IntoIterator<Item = File>,
    ) -> Released {
        let libraries = &mut self.functions_mut().1.by_view;
        let Some((probed, library)) =
            libraries.iter_mut().find(|(_, library)| library.views.contains(&view))
        else {
            return Released::Nothing;
        };
        let probed = *probed;
        library.views.remove(&view);
        if probed != view {
            return Released::Shared;
        }
        let orphans = library.views.len();
        if orphans > 0 && heirs.into_iter().any(|heir| self.hand_over(view, &heir)) {
            return Released::Moved;
        }
        self.detach_functions(view);
        Released::All { orphans }
    }

    /// Moves the probes to the same file as seen through `heir`: they are there twice for a moment
    /// and never missing.
    fn hand_over(&mut self, from: InodeKey, heir: &File) -> bool {
        let Ok((key, _)) = self.identify(heir.as_fd()) else { return false };
        let own = self.own_probes();
        let view = InodeKey { ino: key.ino, dev: key.dev, reserved: 0 };
        let (object, libraries) = self.functions_mut();
        let Some(old) = libraries.by_view.get(&from) else { return false };
        let (views, is_overlay) = (old.views.clone(), old.is_overlay);
        if view == from || !views.contains(&view) {
            return false;
        }
        let sites: Vec<FunctionSite> =
            old.links.iter().map(|(function, _)| function.site()).collect();
        let mut new = Library { key, is_overlay, views, links: Vec::new() };
        let done = sites.iter().all(|site| new.attach(object, heir, site, &own).is_ok());
        libraries.attached += count(new.links.len());
        let left = if done {
            libraries.by_view.insert(view, new);
            from
        } else {
            // Keyed by nobody's view, only to be taken down again.
            let aside = InodeKey { reserved: u32::MAX, ..view };
            libraries.by_view.insert(aside, new);
            aside
        };
        self.detach_functions(left);
        done
    }

    /// Stops watching every function of a library, for whomever; true if there was one.
    pub fn detach_functions(&mut self, library: InodeKey) -> bool {
        let (object, libraries) = self.functions_mut();
        let Some(library) = libraries.by_view.remove(&library) else { return false };
        libraries.released += count(library.links.len());
        let Ok(program) = program(object) else { return false };
        for (function, link) in library.links {
            if let Err(error) = program.detach(link) {
                let reason = reason(&error);
                tracing::warn!(symbol = function.symbol, reason, "cannot detach");
            }
        }
        true
    }

    /// What is watched, per library.
    pub fn probed_functions(&self) -> Vec<(FileKey, Vec<ProbedFunction>)> {
        let libraries = self.libraries().by_view.values();
        libraries
            .map(|library| {
                let functions = library.links.iter().map(|(function, _)| function.clone());
                (library.key, functions.collect())
            })
            .collect()
    }

    /// How much of it there is.
    pub fn probes_now(&self) -> ProbesNow {
        let Libraries { by_view, attached, released } = self.libraries();
        ProbesNow {
            files: by_view.len(),
            probes: by_view.values().map(|library| library.links.len()).sum(),
            attached: *attached,
            released: *released,
        }
    }
}

impl Libraries {
    /// The library that is the same file below two overlays: on one file system an overlay keeps
    /// the numbers and times of what lies below (fs/overlayfs/inode.c `ovl_inode_init`,
    /// `ovl_copyattr`).
    fn below_overlays(&self, key: &FileKey, is_overlay: bool) -> Option<InodeKey> {
        let content = |key: &FileKey| (key.ino, key.ctime_s, key.size);
        let same = |library: &Library| {
            is_overlay && library.is_overlay && content(&library.key) == content(key)
        };
        self.by_view.iter().find(|(_, library)| same(library)).map(|(inode, _)| *inode)
    }
}

impl ProbedFunction {
    /// To attach it once more: [`site::choose`] finds nothing to step over there.
    fn site(&self) -> FunctionSite {
        FunctionSite { symbol: self.symbol.clone(), offset: self.offset }
    }
}

fn count(probes: usize) -> u64 {
    u64::try_from(probes).unwrap_or(u64::MAX)
}

impl Library {
    fn attach(
        &mut self,
        object: &mut Ebpf,
        file: &File,
        site: &FunctionSite,
        own: &OwnProbes,
    ) -> Result<ProbedFunction, FunctionError> {
        let failed = |reason: String| FunctionError {
            symbol: site.symbol.clone(),
            offset: site.offset,
            reason,
        };
        let (ahead, price) = look(file, site.offset).map_err(|error| failed(error.to_string()))?;
        let offset = site.offset.saturating_add(ahead);
        if let Some((function, _)) = self.links.iter().find(|(known, _)| known.offset == offset) {
            return Ok(function.clone());
        }
        // Before: who compares code may come at any time.
        own.add(file, offset).map_err(|error| failed(error.to_string()))?;
        let program = program(object).map_err(|error| failed(error.to_string()))?;
        // The descriptor names the inode whatever has become of its path.
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        let link = program
            .attach(offset, path, UProbeScope::AllProcesses)
            .map_err(|error| failed(uprobe_reason(&error)))?;
        let function = ProbedFunction { symbol: site.symbol.clone(), offset, price };
        self.links.push((function.clone(), link));
        Ok(function)
    }
}

fn look(file: &File, offset: u64) -> io::Result<(u64, HitPrice)> {
    let mut code = [0; site::LOOK];
    let read = file.read_at(&mut code, offset)?;
    if read == 0 {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "beyond the end of the file"));
    }
    Ok(site::choose(code.get(..read).unwrap_or_default()))
}

fn program(object: &mut Ebpf) -> Result<&mut UProbe, ProgramError> {
    match object.program_mut(PROGRAM) {
        Some(Program::UProbe(program)) => Ok(program),
        _ => Err(ProgramError::UnexpectedProgramType),
    }
}
