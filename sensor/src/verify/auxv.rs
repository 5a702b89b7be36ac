//! The auxiliary vector: where the kernel put the loader, the program and the vDSO.

use super::width::Width;

const AT_NULL: u64 = 0;
const AT_PHDR: u64 = 3;
const AT_PAGESZ: u64 = 6;
const AT_BASE: u64 = 7;
const AT_SECURE: u64 = 23;
const AT_SYSINFO: u64 = 32;
const AT_SYSINFO_EHDR: u64 = 33;

/// The entries of `/proc/PID/auxv` that matter here (kernel: `fs/binfmt_elf.c`,
/// `create_elf_tables`). Zero means absent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Auxv {
    /// Load address of the program interpreter (`AT_BASE`); 0 when the kernel loaded none.
    pub(crate) base: u64,
    /// Address of the program headers of what the kernel started (`AT_PHDR`).
    pub(crate) phdr: u64,
    /// Address of the vDSO's ELF header (`AT_SYSINFO_EHDR`).
    pub(crate) vdso: u64,
    /// The program runs with more rights than who started it (`AT_SECURE`).
    pub(crate) secure: bool,
    /// How a 32-bit x86 process enters the kernel: a function of the vDSO (`AT_SYSINFO`).
    pub(crate) sysinfo: u64,
    /// Entries of a 32-bit process are half as wide.
    pub(crate) width: Width,
}

/// Why an auxiliary vector was not understood.
#[derive(Clone, Copy, Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum AuxvError {
    /// Neither layout fits.
    #[error("no page size entry in the auxiliary vector")]
    Malformed,
    /// No entries: a kernel thread, or a process that is leaving.
    #[error("the auxiliary vector is empty")]
    Empty,
}

impl Auxv {
    /// Reads entries of either width. A plausible `AT_PAGESZ` tells which.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, AuxvError> {
        if bytes.is_empty() {
            return Err(AuxvError::Empty);
        }
        let mut widths = [Width::Eight, Width::Four].into_iter();
        widths.find_map(|width| Self::parse_as(bytes, width)).ok_or(AuxvError::Malformed)
    }

    fn parse_as(bytes: &[u8], width: Width) -> Option<Self> {
        let (mut found, mut page) = (Self { width, ..Self::default() }, 0);
        for entry in bytes.chunks_exact(width.len() * 2) {
            let value = width.word_at(entry, width.len())?;
            match width.word_at(entry, 0)? {
                AT_NULL => break,
                AT_PHDR => found.phdr = value,
                AT_PAGESZ => page = value,
                AT_BASE => found.base = value,
                AT_SECURE => found.secure = value != 0,
                AT_SYSINFO => found.sysinfo = value,
                AT_SYSINFO_EHDR => found.vdso = value,
                _ => {}
            }
        }
        is_page_size(page).then_some(found)
    }
}

fn is_page_size(value: u64) -> bool {
    matches!(value, 0x1000 | 0x4000 | 0x1_0000)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn wide(entries: &[(u64, u64)]) -> Vec<u8> {
        entries
            .iter()
            .flat_map(|(tag, value)| [tag.to_le_bytes(), value.to_le_bytes()])
            .flatten()
            .collect()
    }

    #[test]
    fn the_loader_base_is_found() {
        let bytes = wide(&[(33, 0x7ffe), (6, 4096), (3, 0x40), (7, 0x7f00), (0, 0), (7, 1)]);
        let found = Auxv { base: 0x7f00, phdr: 0x40, vdso: 0x7ffe, ..Auxv::default() };
        assert_eq!(Auxv::parse(&bytes), Ok(found));
    }

    #[test]
    fn a_32_bit_vector_is_told_apart_from_garbage() {
        let narrow: Vec<u8> = [32_u32, 0xf7f0, 6, 4096, 7, 0xf7e0, 0, 0]
            .iter()
            .flat_map(|v| v.to_le_bytes())
            .collect();
        let found = Auxv { base: 0xf7e0, sysinfo: 0xf7f0, width: Width::Four, ..Auxv::default() };
        assert_eq!(Auxv::parse(&narrow), Ok(found));
        assert_eq!(Auxv::parse(&[1; 64]), Err(AuxvError::Malformed));
        assert_eq!(Auxv::parse(&[]), Err(AuxvError::Empty));
    }

    #[test]
    fn the_own_vector_parses() {
        let auxv = Auxv::parse(&std::fs::read("/proc/self/auxv").unwrap()).unwrap();
        assert_ne!(auxv.phdr, 0);
    }

    proptest! {
        #[test]
        fn any_bytes_are_total(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
            let _ = Auxv::parse(&bytes);
        }
    }
}
