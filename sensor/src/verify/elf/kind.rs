//! The kinds of slots, and which relocation of which machine makes which.

use std::fmt;

use serde::ser::{Serialize, SerializeMap, Serializer};

use super::{Machine, abi};

/// What fills the slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum SlotKind {
    /// A PLT slot, perhaps bound on first call.
    JumpSlot,
    /// A GOT slot, bound at load.
    GlobDat,
    /// A slot filled by calling a resolver of the same file.
    Irelative,
    /// The function of a TLS descriptor, one of the loader's own.
    TlsDesc,
    /// `GOT[1]`: which link map lazy binding is for.
    LinkMap,
    /// `GOT[2]`: the loader's entry for lazy binding.
    Resolver,
    /// The address of a symbol in read-only data (`R_X86_64_64` and its kin): a vtable, a table of
    /// functions.
    Absolute,
    /// An address of the same file in read-only data.
    Relative,
    /// The same from the packed table (`DT_RELR`).
    Relr,
    /// An address in read-only data that was copied from a library into the program.
    Copy,
    /// A function run at start (`DT_PREINIT_ARRAY`, `DT_INIT_ARRAY`).
    InitArray,
    /// A function run at exit (`DT_FINI_ARRAY`).
    FiniArray,
    /// Where the dynamic section says that such functions, or the tables for binding, are.
    Dynamic,
}

/// How much of a process is compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Depth {
    /// The slots that calls into other modules go through.
    Got,
    /// Every address that is read-only once the loader is done, too.
    #[default]
    Full,
}

/// How many slots of each kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SlotCounts([u64; SlotKind::ALL.len()]);

/// What a relocation does, whatever the machine calls it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Relocation {
    JumpSlot,
    GlobDat,
    Irelative,
    TlsDesc,
    Absolute,
    Relative,
    Copy,
    /// Offsets in thread-local storage: no addresses.
    Tls,
    /// Nothing is written.
    None,
    Other,
}

// === impl SlotKind ===

impl SlotKind {
    /// Every kind, in the order of the type.
    pub const ALL: [Self; 13] = [
        Self::JumpSlot,
        Self::GlobDat,
        Self::Irelative,
        Self::TlsDesc,
        Self::LinkMap,
        Self::Resolver,
        Self::Absolute,
        Self::Relative,
        Self::Relr,
        Self::Copy,
        Self::InitArray,
        Self::FiniArray,
        Self::Dynamic,
    ];

    /// The key in machine-readable output.
    pub fn key(self) -> &'static str {
        match self {
            Self::JumpSlot => "jump_slot",
            Self::GlobDat => "glob_dat",
            Self::Irelative => "irelative",
            Self::TlsDesc => "tlsdesc",
            Self::LinkMap => "got_link_map",
            Self::Resolver => "got_resolver",
            Self::Absolute => "absolute",
            Self::Relative => "relative",
            Self::Relr => "relr",
            Self::Copy => "copy",
            Self::InitArray => "init_array",
            Self::FiniArray => "fini_array",
            Self::Dynamic => "dynamic",
        }
    }

    /// The depth at which it is compared.
    pub(crate) fn depth(self) -> Depth {
        match self {
            Self::JumpSlot
            | Self::GlobDat
            | Self::Irelative
            | Self::TlsDesc
            | Self::LinkMap
            | Self::Resolver => Depth::Got,
            _ => Depth::Full,
        }
    }
}

// === impl SlotCounts ===

impl SlotCounts {
    /// Slots of one kind.
    pub fn of(&self, kind: SlotKind) -> u64 {
        self.0.get(kind as usize).copied().unwrap_or(0)
    }

    /// Every kind with its number.
    pub fn iter(&self) -> impl Iterator<Item = (SlotKind, u64)> {
        SlotKind::ALL.into_iter().zip(self.0)
    }

    /// Slots of all kinds.
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }

    /// Adds the numbers of another.
    pub fn merge(&mut self, other: &Self) {
        for (kind, count) in other.iter() {
            self.add(kind, count);
        }
    }

    pub(crate) fn add(&mut self, kind: SlotKind, count: u64) {
        if let Some(place) = self.0.get_mut(kind as usize) {
            *place += count;
        }
    }
}

impl FromIterator<(SlotKind, u64)> for SlotCounts {
    fn from_iter<I: IntoIterator<Item = (SlotKind, u64)>>(counts: I) -> Self {
        let mut found = Self::default();
        for (kind, count) in counts {
            found.add(kind, count);
        }
        found
    }
}

impl Serialize for SlotCounts {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (kind, count) in self.iter() {
            map.serialize_entry(kind.key(), &count)?;
        }
        map.end()
    }
}

// === impl Relocation ===

impl Relocation {
    /// By the numbers of the psABI.
    pub(super) fn of(machine: Machine, number: u32) -> Self {
        match machine {
            Machine::X86_64 => Self::of_x86_64(number),
            Machine::I386 => Self::of_i386(number),
            Machine::Aarch64 => Self::of_aarch64(number),
        }
    }

    fn of_x86_64(number: u32) -> Self {
        match number {
            abi::R_NONE => Self::None,
            abi::R_X86_64_JUMP_SLOT => Self::JumpSlot,
            abi::R_X86_64_GLOB_DAT => Self::GlobDat,
            abi::R_X86_64_IRELATIVE => Self::Irelative,
            abi::R_X86_64_TLSDESC => Self::TlsDesc,
            abi::R_X86_64_64 => Self::Absolute,
            abi::R_X86_64_RELATIVE => Self::Relative,
            abi::R_X86_64_COPY => Self::Copy,
            abi::R_X86_64_DTPMOD64 | abi::R_X86_64_DTPOFF64 | abi::R_X86_64_TPOFF64 => Self::Tls,
            _ => Self::Other,
        }
    }

    fn of_i386(number: u32) -> Self {
        match number {
            abi::R_NONE => Self::None,
            abi::R_386_JMP_SLOT => Self::JumpSlot,
            abi::R_386_GLOB_DAT => Self::GlobDat,
            abi::R_386_IRELATIVE => Self::Irelative,
            abi::R_386_TLS_DESC => Self::TlsDesc,
            abi::R_386_32 => Self::Absolute,
            abi::R_386_RELATIVE => Self::Relative,
            abi::R_386_COPY => Self::Copy,
            abi::R_386_TLS_TPOFF
            | abi::R_386_TLS_TPOFF32
            | abi::R_386_TLS_DTPMOD32
            | abi::R_386_TLS_DTPOFF32 => Self::Tls,
            _ => Self::Other,
        }
    }

    fn of_aarch64(number: u32) -> Self {
        match number {
            abi::R_NONE => Self::None,
            abi::R_AARCH64_JUMP_SLOT => Self::JumpSlot,
            abi::R_AARCH64_GLOB_DAT => Self::GlobDat,
            abi::R_AARCH64_IRELATIVE => Self::Irelative,
            abi::R_AARCH64_TLSDESC => Self::TlsDesc,
            abi::R_AARCH64_ABS64 => Self::Absolute,
            abi::R_AARCH64_RELATIVE => Self::Relative,
            abi::R_AARCH64_COPY => Self::Copy,
            abi::R_AARCH64_TLS_DTPMOD | abi::R_AARCH64_TLS_DTPREL | abi::R_AARCH64_TLS_TPREL => {
                Self::Tls
            }
            _ => Self::Other,
        }
    }
}

// === impl Display ===

impl fmt::Display for SlotKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::JumpSlot => "JUMP_SLOT",
            Self::GlobDat => "GLOB_DAT",
            Self::Irelative => "IRELATIVE",
            Self::TlsDesc => "TLSDESC",
            Self::LinkMap => "GOT[1]",
            Self::Resolver => "GOT[2]",
            Self::Absolute => "ABSOLUTE",
            Self::Relative => "RELATIVE",
            Self::Relr => "RELR",
            Self::Copy => "COPY",
            Self::InitArray => "INIT_ARRAY",
            Self::FiniArray => "FINI_ARRAY",
            Self::Dynamic => "DYNAMIC",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_is_counted_under_its_own_key() {
        let mut counts = SlotCounts::default();
        for (number, kind) in SlotKind::ALL.into_iter().enumerate() {
            counts.add(kind, number as u64 + 1);
        }
        for (number, kind) in SlotKind::ALL.into_iter().enumerate() {
            assert_eq!(counts.of(kind), number as u64 + 1, "{kind}");
        }
        let json = serde_json::to_value(counts).unwrap();
        assert_eq!(json.as_object().unwrap().len(), SlotKind::ALL.len());
        assert_eq!((json["jump_slot"].as_u64(), json["dynamic"].as_u64()), (Some(1), Some(13)));
        assert_eq!(counts.total(), 91);
    }
}
