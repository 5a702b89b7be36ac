//! Numbers of the ELF ABI (gABI, GNU extensions, x86-64 and `AArch64` psABI; glibc `elf/elf.h`).

pub(super) const ELFMAG: [u8; 4] = *b"\x7fELF";
pub(super) const ELFCLASS32: u8 = 1;
pub(super) const ELFCLASS64: u8 = 2;
pub(super) const ELFDATA2LSB: u8 = 1;
pub(super) const ET_EXEC: u16 = 2;
pub(super) const ET_DYN: u16 = 3;
pub(super) const EM_X86_64: u16 = 62;
pub(super) const EM_AARCH64: u16 = 183;

pub(super) const PT_LOAD: u32 = 1;
pub(super) const PT_DYNAMIC: u32 = 2;
pub(super) const PT_INTERP: u32 = 3;
pub(super) const PT_NOTE: u32 = 4;
pub(super) const PT_GNU_EH_FRAME: u32 = 0x6474_e550;
pub(super) const PT_GNU_RELRO: u32 = 0x6474_e552;
pub(super) const PF_X: u32 = 1;
pub(super) const NT_GNU_BUILD_ID: u32 = 3;

pub(super) const DT_NULL: u64 = 0;
pub(super) const DT_NEEDED: u64 = 1;
pub(super) const DT_PLTRELSZ: u64 = 2;
pub(super) const DT_HASH: u64 = 4;
pub(super) const DT_STRTAB: u64 = 5;
pub(super) const DT_SYMTAB: u64 = 6;
pub(super) const DT_RELA: u64 = 7;
pub(super) const DT_RELASZ: u64 = 8;
pub(super) const DT_STRSZ: u64 = 10;
pub(super) const DT_SONAME: u64 = 14;
pub(super) const DT_SYMBOLIC: u64 = 16;
pub(super) const DT_JMPREL: u64 = 23;
pub(super) const DT_FLAGS: u64 = 30;
pub(super) const DT_GNU_HASH: u64 = 0x6fff_fef5;
pub(crate) const DT_DEPAUDIT: u64 = 0x6fff_fefb;
pub(crate) const DT_AUDIT: u64 = 0x6fff_fefc;
pub(super) const DT_VERSYM: u64 = 0x6fff_fff0;
pub(super) const DT_VERDEF: u64 = 0x6fff_fffc;
pub(super) const DT_VERNEED: u64 = 0x6fff_fffe;
pub(super) const DF_SYMBOLIC: u64 = 2;
pub(super) const VER_FLG_BASE: u16 = 1;

pub(super) const SHN_UNDEF: u16 = 0;
pub(super) const SHN_ABS: u16 = 0xfff1;
pub(super) const SHT_SYMTAB: u32 = 2;
pub(super) const STB_LOCAL: u8 = 0;
pub(super) const STB_GLOBAL: u8 = 1;
pub(super) const STB_WEAK: u8 = 2;
pub(super) const STB_GNU_UNIQUE: u8 = 10;
pub(super) const STT_NOTYPE: u8 = 0;
pub(super) const STT_OBJECT: u8 = 1;
pub(super) const STT_FUNC: u8 = 2;
pub(super) const STT_COMMON: u8 = 5;
pub(super) const STT_TLS: u8 = 6;
pub(super) const STT_GNU_IFUNC: u8 = 10;
pub(super) const STV_INTERNAL: u8 = 1;
pub(super) const STV_HIDDEN: u8 = 2;
pub(super) const STV_PROTECTED: u8 = 3;

pub(super) const R_X86_64_GLOB_DAT: u32 = 6;
pub(super) const R_X86_64_JUMP_SLOT: u32 = 7;
pub(super) const R_X86_64_IRELATIVE: u32 = 37;
pub(super) const R_AARCH64_GLOB_DAT: u32 = 1025;
pub(super) const R_AARCH64_JUMP_SLOT: u32 = 1026;
pub(super) const R_AARCH64_IRELATIVE: u32 = 1032;
