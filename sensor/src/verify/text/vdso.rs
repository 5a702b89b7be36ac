//! The vDSO of a process against the sensor's own: the kernel gives all 64-bit processes the same.
//! Time namespaces change the data page beside it, not the code.
//!
//! It is known twice: by the name that the kernel gives its area, whatever the process makes of it,
//! and by the address in the auxiliary vector. Both have to be the same.

use super::super::auxv::Auxv;
use super::super::elf::Machine;
use super::super::maps::{Maps, Vma};
use super::super::process::Process;

pub(super) const NAME: &str = "[vdso]";
/// Two pages of code on both machines, up to 64 KiB with large pages; more is not read.
const MAX_BYTES: u64 = 256 << 10;

/// The bytes of the sensor's own vDSO.
#[derive(Debug, Default)]
pub(super) struct OwnVdso {
    pub(super) bytes: Vec<u8>,
}

/// How another process's looks.
#[derive(Debug)]
pub(super) enum Seen<'a> {
    /// None was given to it, or there is nothing to compare it with.
    None,
    /// Bytes of as long an area.
    Bytes(&'a Vma, Vec<u8>),
    /// Not where the kernel put it, or the kernel is made to say that it is elsewhere.
    Moved(u64),
    /// Nowhere, and nothing is in its place.
    Unmapped(u64),
    /// There, and not to be read.
    Unread,
}

impl OwnVdso {
    /// Empty without one, and then nothing is compared.
    pub(super) fn read() -> Self {
        let pid = std::process::id();
        let read = || {
            let auxv = Auxv::parse(&std::fs::read("/proc/self/auxv").ok()?).ok()?;
            let maps = Maps::parse(&std::fs::read("/proc/self/maps").ok()?).ok()?;
            let process = Process::open(pid).ok()?;
            bytes(&process, area(&maps, auxv.vdso)?)
        };
        Self { bytes: read().unwrap_or_default() }
    }

    pub(super) fn look<'a>(&self, process: &'a Process) -> Seen<'a> {
        let Ok(auxv) = process.auxv else { return Seen::None };
        if self.bytes.is_empty() {
            return Seen::None;
        }
        match (area(&process.maps, auxv.vdso), named(&process.maps)) {
            (Some(vma), _) => {
                bytes(process, vma).map_or(Seen::Unread, |bytes| Seen::Bytes(vma, bytes))
            }
            (None, Some(other)) if auxv.vdso == 0 => Seen::Moved(other.start),
            (None, None) if auxv.vdso == 0 => Seen::None,
            (None, None) if process.maps.find(auxv.vdso).is_none() => Seen::Unmapped(auxv.vdso),
            (None, _) => Seen::Moved(auxv.vdso),
        }
    }
}

/// The machine that this program, and thus every 64-bit process here, is for.
pub(super) fn machine() -> Machine {
    if cfg!(target_arch = "aarch64") { Machine::Aarch64 } else { Machine::X86_64 }
}

fn area(maps: &Maps, addr: u64) -> Option<&Vma> {
    maps.find(addr).filter(|vma| is_vdso(vma) && vma.start == addr)
}

fn named(maps: &Maps) -> Option<&Vma> {
    maps.iter().find(|vma| is_vdso(vma))
}

/// No process can give memory of its own this name: that of a file begins with a slash.
fn is_vdso(vma: &Vma) -> bool {
    &*vma.path == NAME && !vma.is_file()
}

fn bytes(process: &Process, vma: &Vma) -> Option<Vec<u8>> {
    let size = usize::try_from((vma.end - vma.start).min(MAX_BYTES)).ok()?;
    let mut bytes = vec![0; size];
    process.read(vma.start, &mut bytes).ok()?;
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_own_vdso_is_equal_to_itself() {
        let own = OwnVdso::read();
        assert!(own.bytes.len() >= 4096);
        let process = Process::open(std::process::id()).unwrap();
        let Seen::Bytes(_, bytes) = own.look(&process) else { panic!("no vDSO") };
        assert!(bytes == own.bytes);
    }
}
