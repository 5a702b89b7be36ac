//! Entry probes on guarded functions, per library file: on every library the agent names, in
//! containers and chroots too.

use std::collections::BTreeMap;
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

/// Links of every library. The identity of a file that is replaced in place stays, and so do its
/// probes: the kernel keeps them by inode.
#[derive(Default)]
pub(super) struct Libraries(BTreeMap<InodeKey, Library>);

struct Library {
    key: FileKey,
    /// Seen through an overlay: containers of one image have one file below, and the kernel keeps
    /// the probes of that.
    is_overlay: bool,
    links: Vec<(ProbedFunction, UProbeLinkId)>,
}

impl fmt::Debug for Libraries {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.values().map(|library| library.key)).finish()
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
        let inode = InodeKey { ino: key.ino, dev: key.dev, reserved: 0 };
        let is_overlay = crate::filesystem::is_overlay(library);
        let own = self.own_probes();
        let (object, libraries) = self.functions_mut();
        let inode = libraries.below_overlays(&key, is_overlay).unwrap_or(inode);
        let new = || Library { key, is_overlay, links: Vec::new() };
        let entry = libraries.0.entry(inode).or_insert_with(new);
        let results = sites.iter().map(|site| entry.attach(object, library, site, &own)).collect();
        if libraries.0.get(&inode).is_some_and(|library| library.links.is_empty()) {
            libraries.0.remove(&inode);
        }
        Ok(results)
    }

    /// Stops watching every function of a library; true if there was one.
    pub fn detach_functions(&mut self, library: InodeKey) -> bool {
        let (object, libraries) = self.functions_mut();
        let Some(library) = libraries.0.remove(&library) else { return false };
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
        self.libraries()
            .0
            .values()
            .map(|library| {
                let functions = library.links.iter().map(|(function, _)| function.clone());
                (library.key, functions.collect())
            })
            .collect()
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
        self.0.iter().find(|(_, library)| same(library)).map(|(inode, _)| *inode)
    }
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
