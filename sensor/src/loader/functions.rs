//! Entry probes on guarded functions, per library file: found, weighed, attached, released.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use aya::Ebpf;
use aya::programs::uprobe::{UProbeAttachLocation, UProbeLink, UProbeScope};
use aya::programs::{Program, UProbe};
use sensor_common::record::InodeKey;
use serde::Serialize;

use super::error::reason;
use crate::symbol::find_symbol_offset;

/// Name of the program in the kernel object.
pub(super) const PROGRAM: &str = "function_entered";
/// Libraries watched at once; each brings as many probes as it has guarded functions.
const LIBRARIES_MAX: usize = 512;

/// How the kernel gets past the probed instruction (arch/x86/kernel/uprobes.c,
/// arch/arm64/kernel/probes/decode-insn.c).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// In the trap itself: about 0.8 us a call.
    Emulated,
    /// By single-stepping a copy: about 4 us a call.
    SingleStepped,
}

/// One guarded function of one library file.
#[derive(Clone, Debug, Serialize)]
pub struct FunctionProbe {
    /// The library's path, as the host sees it.
    pub library: PathBuf,
    /// Exported symbol.
    pub symbol: String,
    /// Where the probe sits in the file, bytes.
    pub offset: u64,
    /// What a call costs.
    pub step: Step,
    /// Why it is not attached.
    pub error: Option<String>,
}

/// Every library watched. Dropping a link detaches it.
#[derive(Default)]
pub(super) struct Functions {
    libraries: BTreeMap<InodeKey, (Vec<FunctionProbe>, Vec<UProbeLink>)>,
}

// === impl Functions ===

impl Functions {
    /// Attaches to those of `symbols` that `library` exports; a file that is watched already
    /// keeps its probes.
    pub(super) fn watch(
        &mut self,
        object: &mut Ebpf,
        library: &File,
        shown: &Path,
        key: InodeKey,
        symbols: &[String],
    ) -> Vec<FunctionProbe> {
        if let Some((probes, _)) = self.libraries.get(&key) {
            return probes.clone();
        }
        let mut probes = Vec::new();
        let mut links = Vec::new();
        for symbol in symbols {
            let Some((offset, step)) = site(library, symbol) else { continue };
            let attached = if self.libraries.len() < LIBRARIES_MAX {
                attach(object, library, offset)
            } else {
                Err(format!("{LIBRARIES_MAX} libraries are watched already"))
            };
            let (shown, symbol) = (shown.to_path_buf(), symbol.clone());
            let mut probe = FunctionProbe { library: shown, symbol, offset, step, error: None };
            match attached {
                Ok(link) => links.push(link),
                Err(error) => probe.error = Some(error),
            }
            probes.push(probe);
        }
        // A file that exports none of them is remembered too: it need not be read again.
        if self.libraries.len() < LIBRARIES_MAX {
            self.libraries.insert(key, (probes.clone(), links));
        }
        probes
    }

    /// Detaches from a library; true if it was watched.
    pub(super) fn release(&mut self, key: InodeKey) -> bool {
        self.libraries.remove(&key).is_some()
    }

    /// Every probe there is.
    pub(super) fn probes(&self) -> impl Iterator<Item = &FunctionProbe> {
        self.libraries.values().flat_map(|(probes, _)| probes)
    }
}

fn attach(object: &mut Ebpf, library: &File, offset: u64) -> Result<UProbeLink, String> {
    let Some(Program::UProbe(program)) = object.program_mut(PROGRAM) else {
        return Err("not in the kernel object".to_owned());
    };
    // The kernel follows the link to the very file that was looked at.
    let target = format!("/proc/self/fd/{}", library.as_raw_fd());
    attach_at(program, offset, &target).map_err(|error| reason(&error))
}

fn attach_at(
    program: &mut UProbe,
    offset: u64,
    target: &str,
) -> Result<UProbeLink, aya::programs::ProgramError> {
    let place = UProbeAttachLocation::AbsoluteOffset(offset);
    let id = program.attach(place, target, UProbeScope::AllProcesses)?;
    program.take_link(id)
}

/// Where to probe a function: at its entry, or behind an `endbr64` that would be single-stepped
/// where a `push` follows (neither has touched the return address by then).
fn site(library: &File, symbol: &str) -> Option<(u64, Step)> {
    let entry = find_symbol_offset(library, symbol)
        .inspect_err(|error| tracing::debug!(symbol, %error, "library cannot be read"))
        .ok()??
        .0;
    let mut code = [0_u8; 16];
    let read = library.read_at(&mut code, entry).ok()?;
    let code = code.get(..read)?;
    if let Some(rest) = code.strip_prefix(&ENDBR64[..])
        && is_push(rest)
    {
        return Some((entry + 4, Step::Emulated));
    }
    Some((entry, if is_emulated(code) { Step::Emulated } else { Step::SingleStepped }))
}

const ENDBR64: [u8; 4] = [0xf3, 0x0f, 0x1e, 0xfa];

#[cfg(target_arch = "x86_64")]
fn is_emulated(code: &[u8]) -> bool {
    let nop = matches!(code, [0x90, ..] | [0x66, 0x90, ..] | [0x0f, 0x1f, ..]);
    let branch = matches!(code, [0xe8 | 0xe9 | 0xeb, ..]);
    nop || branch || is_push(code)
}

/// `push` of a general register, with or without REX.B.
fn is_push(code: &[u8]) -> bool {
    matches!(code, [0x50..=0x57, ..] | [0x41, 0x50..=0x57, ..])
}

/// Hints (NOP, BTI, PACIASP is stepped), ADR(P), and direct branches.
#[cfg(target_arch = "aarch64")]
fn is_emulated(code: &[u8]) -> bool {
    let Some(word) = code.first_chunk::<4>() else { return false };
    let word = u32::from_le_bytes(*word);
    let adr = word & 0x1f00_0000 == 0x1000_0000;
    let branch = word & 0x7c00_0000 == 0x1400_0000;
    word == 0xd503_201f || adr || branch
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_push_is_emulated_and_a_move_is_stepped() {
        assert!(is_push(&[0x55, 0x48, 0x89, 0xe5]));
        assert!(is_push(&[0x41, 0x57]));
        assert!(!is_push(&[0x41, 0x89]));
        assert!(!is_push(&[0x48, 0x8b, 0x07]));
        assert!(!is_push(&[]));
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn endbr64_itself_is_stepped() {
        assert!(!is_emulated(&ENDBR64));
        assert!(is_emulated(&[0x0f, 0x1f, 0x44, 0, 0]));
        assert!(!is_emulated(&[0xc3]));
    }
}
