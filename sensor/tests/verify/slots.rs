//! The slots of files, listed by the `object` crate from section headers and symbols: independent
//! of the reader under test.

use std::collections::BTreeMap;
use std::fs;
use std::ops::Range;

use object::elf;
use object::read::elf::{Dyn, FileHeader, ProgramHeader, Rel, Rela, SectionHeader, Sym};
use object::{Endianness, FileKind};
use sensor::verify::SlotKind;

/// One file as far as its slots are concerned; addresses are the file's.
#[derive(Debug, Default)]
pub(crate) struct FileSlots {
    pub(crate) slots: BTreeMap<u64, SlotKind>,
    /// Copies into read-only data: address, name, size.
    pub(crate) copies: Vec<(u64, Vec<u8>, u64)>,
    /// Defined dynamic symbols by name: value, size.
    pub(crate) symbols: BTreeMap<Vec<u8>, (u64, u64)>,
    /// Addresses of functions.
    pub(crate) functions: Vec<u64>,
    pub(crate) fixed: bool,
    pub(crate) wide: bool,
}

/// Numbers of one machine: jump slot, GOT, IFUNC, descriptor, absolute, relative, copy.
type Numbers = [elf::RelocationType; 7];

const X86_64: Numbers = [
    elf::R_X86_64_JUMP_SLOT,
    elf::R_X86_64_GLOB_DAT,
    elf::R_X86_64_IRELATIVE,
    elf::R_X86_64_TLSDESC,
    elf::R_X86_64_64,
    elf::R_X86_64_RELATIVE,
    elf::R_X86_64_COPY,
];
const I386: Numbers = [
    elf::R_386_JMP_SLOT,
    elf::R_386_GLOB_DAT,
    elf::R_386_IRELATIVE,
    elf::R_386_TLS_DESC,
    elf::R_386_32,
    elf::R_386_RELATIVE,
    elf::R_386_COPY,
];
const AARCH64: Numbers = [
    elf::R_AARCH64_JUMP_SLOT,
    elf::R_AARCH64_GLOB_DAT,
    elf::R_AARCH64_IRELATIVE,
    elf::R_AARCH64_TLSDESC,
    elf::R_AARCH64_ABS64,
    elf::R_AARCH64_RELATIVE,
    elf::R_AARCH64_COPY,
];
const KINDS: [SlotKind; 7] = [
    SlotKind::JumpSlot,
    SlotKind::GlobDat,
    SlotKind::Irelative,
    SlotKind::TlsDesc,
    SlotKind::Absolute,
    SlotKind::Relative,
    SlotKind::Copy,
];
/// Pointers of the dynamic section that lead to code or to tables for binding.
const POINTERS: [elf::DynamicTag; 15] = [
    elf::DT_PLTGOT,
    elf::DT_STRTAB,
    elf::DT_SYMTAB,
    elf::DT_RELA,
    elf::DT_REL,
    elf::DT_JMPREL,
    elf::DT_VERSYM,
    elf::DT_INIT,
    elf::DT_FINI,
    elf::DT_PREINIT_ARRAY,
    elf::DT_PREINIT_ARRAYSZ,
    elf::DT_INIT_ARRAY,
    elf::DT_INIT_ARRAYSZ,
    elf::DT_FINI_ARRAY,
    elf::DT_FINI_ARRAYSZ,
];

/// Reads a file of either class.
pub(crate) fn of(path: &str) -> FileSlots {
    let data = fs::read(path).unwrap();
    match FileKind::parse(&*data).unwrap() {
        FileKind::Elf32 => list::<elf::FileHeader32<Endianness>>(&data),
        FileKind::Elf64 => list::<elf::FileHeader64<Endianness>>(&data),
        other => panic!("{path}: {other:?}"),
    }
}

fn list<Elf: FileHeader<Endian = Endianness>>(data: &[u8]) -> FileSlots {
    let header = Elf::parse(data).unwrap();
    let endian = header.endian().unwrap();
    let sections = header.sections(endian, data).unwrap();
    let numbers = match header.e_machine(endian) {
        elf::EM_X86_64 => X86_64,
        elf::EM_386 => I386,
        elf::EM_AARCH64 => AARCH64,
        other => panic!("machine {other}"),
    };
    let wide = header.is_class_64();
    let word = if wide { 8 } else { 4 };
    let fixed = header.e_type(endian) == elf::ET_EXEC;
    let mut found = FileSlots { fixed, wide, ..FileSlots::default() };
    let segments = header.program_headers(endian, data).unwrap();
    let relro = segments.iter().find(|one| one.p_type(endian) == elf::PT_GNU_RELRO);
    let relro = relro.map_or(0..0, |one| {
        let start: u64 = one.p_vaddr(endian).into();
        let size: u64 = one.p_memsz(endian).into();
        start..start + size
    });
    let symbols = sections.symbols(endian, data, elf::SHT_DYNSYM).unwrap();
    for symbol in symbols.iter() {
        let value: u64 = symbol.st_value(endian).into();
        if symbol.st_shndx(endian) != elf::SHN_UNDEF && value != 0 {
            let name = symbol.name(endian, symbols.strings()).unwrap().to_vec();
            found.symbols.entry(name).or_insert((value, symbol.st_size(endian).into()));
            if symbol.st_type() == elf::STT_FUNC {
                found.functions.push(value);
            }
        }
    }
    let mut add = |vaddr: u64, number: elf::RelocationType, symbol: u32| {
        let Some(at) = numbers.iter().position(|one| *one == number) else { return };
        let kind = KINDS[at];
        let data = matches!(kind, SlotKind::Absolute | SlotKind::Relative | SlotKind::Copy);
        if data && !(relro.start <= vaddr && vaddr + word <= relro.end) {
            return;
        }
        if kind == SlotKind::Copy {
            let symbol = symbols.symbol(object::SymbolIndex(symbol as usize)).unwrap();
            let name = symbol.name(endian, symbols.strings()).unwrap().to_vec();
            found.copies.push((vaddr, name, symbol.st_size(endian).into()));
        } else {
            found.slots.insert(vaddr, kind);
        }
    };
    for section in sections.iter() {
        // Only what the loader applies is in memory.
        if section.sh_flags(endian).0 & elf::SHF_ALLOC.0 == 0 {
            continue;
        }
        if let Some((table, _)) = section.rela(endian, data).unwrap() {
            for one in table {
                let (symbol, number) = (one.r_sym(endian, false), one.r_type(endian, false));
                add(one.r_offset(endian).into(), number, symbol);
            }
        }
        if let Some((table, _)) = section.rel(endian, data).unwrap() {
            for one in table {
                let (symbol, number) = (one.r_sym(endian), one.r_type(endian));
                add(one.r_offset(endian).into(), number, symbol);
            }
        }
    }
    for section in sections.iter() {
        for one in section.relr(endian, data).unwrap().into_iter().flatten() {
            let vaddr: u64 = one.into();
            if relro.start <= vaddr && vaddr + word <= relro.end {
                found.slots.insert(vaddr, SlotKind::Relr);
            }
        }
    }
    add_special::<Elf>(data, header, endian, &relro, &mut found);
    found
}

/// The loader's words in the GOT, the arrays, the dynamic section.
fn add_special<Elf: FileHeader<Endian = Endianness>>(
    data: &[u8],
    header: &Elf,
    endian: Endianness,
    relro: &Range<u64>,
    found: &mut FileSlots,
) {
    let word = if found.wide { 8 } else { 4 };
    let segments = header.program_headers(endian, data).unwrap();
    let Some(dynamic) = segments.iter().find(|one| one.p_type(endian) == elf::PT_DYNAMIC) else {
        return;
    };
    let start: u64 = dynamic.p_vaddr(endian).into();
    let mut tags = Vec::new();
    for (number, entry) in (0..).zip(dynamic.dynamic(endian, data).unwrap().unwrap()) {
        let (tag, value): (_, u64) = (entry.d_tag(endian), entry.d_val(endian).into());
        if tag == elf::DT_NULL {
            break;
        }
        tags.push((tag, value));
        let vaddr = start + number * word * 2 + word;
        if POINTERS.contains(&tag) && relro.contains(&vaddr) {
            found.slots.insert(vaddr, SlotKind::Dynamic);
        }
    }
    let tag = |tag| tags.iter().find(|(one, _)| *one == tag).map(|(_, value)| *value);
    if let (Some(got), Some(_)) = (tag(elf::DT_PLTGOT), tag(elf::DT_JMPREL)) {
        found.slots.entry(got + word).or_insert(SlotKind::LinkMap);
        found.slots.entry(got + 2 * word).or_insert(SlotKind::Resolver);
    }
    let arrays = [
        (elf::DT_PREINIT_ARRAY, elf::DT_PREINIT_ARRAYSZ, SlotKind::InitArray),
        (elf::DT_INIT_ARRAY, elf::DT_INIT_ARRAYSZ, SlotKind::InitArray),
        (elf::DT_FINI_ARRAY, elf::DT_FINI_ARRAYSZ, SlotKind::FiniArray),
    ];
    for (at, size, kind) in arrays {
        let (Some(at), Some(size)) = (tag(at), tag(size)) else { continue };
        for vaddr in (at..at + size).step_by(usize::try_from(word).unwrap()) {
            if relro.contains(&vaddr) && (found.fixed || found.slots.contains_key(&vaddr)) {
                found.slots.insert(vaddr, kind);
            }
        }
    }
}
