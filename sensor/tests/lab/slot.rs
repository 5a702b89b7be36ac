//! Reads a live process from outside, independently of the agent's own reader: where a slot of
//! its program leads, and what a word of a library holds.

use std::{
    fs::{self, File},
    os::unix::fs::{FileExt as _, MetadataExt as _},
    path::Path,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use object::{
    Endianness, Object as _, ObjectSymbol as _, ObjectSymbolTable as _, RelocationTarget,
    read::elf::ElfFile64,
};

/// One line of /proc/PID/maps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mapping {
    pub(crate) start: u64,
    pub(crate) end: u64,
    /// As in the file: "r-xp".
    pub(crate) permissions: String,
    pub(crate) offset: u64,
    /// As stat(2) encodes it.
    pub(crate) device: u64,
    pub(crate) inode: u64,
    /// As the server sees it; empty for anonymous memory.
    pub(crate) path: String,
}

/// Where an imported function's slot leads.
#[derive(Clone, Debug)]
pub(crate) struct Slot {
    /// The mapping of the address the slot holds.
    pub(crate) target: Mapping,
    /// Whether the slot itself can be written.
    pub(crate) writable: bool,
}

/// The mappings of `pid`.
pub(crate) fn maps(pid: i32) -> Result<Vec<Mapping>> {
    let path = format!("/proc/{pid}/maps");
    let text = fs::read_to_string(&path).with_context(|| path.clone())?;
    text.lines().map(|line| mapping(line).with_context(|| format!("{path}: {line}"))).collect()
}

fn mapping(line: &str) -> Option<Mapping> {
    let mut fields = line.splitn(6, ' ');
    let (start, end) = fields.next()?.split_once('-')?;
    let permissions = fields.next()?.to_owned();
    let offset = u64::from_str_radix(fields.next()?, 16).ok()?;
    let (major, minor) = fields.next()?.split_once(':')?;
    let major = u32::from_str_radix(major, 16).ok()?;
    let minor = u32::from_str_radix(minor, 16).ok()?;
    Some(Mapping {
        start: u64::from_str_radix(start, 16).ok()?,
        end: u64::from_str_radix(end, 16).ok()?,
        permissions,
        offset,
        device: rustix::fs::makedev(major, minor),
        inode: fields.next()?.parse().ok()?,
        path: fields.next().unwrap_or_default().trim_start().to_owned(),
    })
}

impl Mapping {
    /// Whether this is a mapping of the very file at `path`, whatever name it is mapped under.
    pub(crate) fn is_of(&self, path: &Path) -> Result<bool> {
        let file = fs::metadata(path).with_context(|| path.display().to_string())?;
        Ok(self.inode == file.ino() && self.device == file.dev())
    }
}

impl Slot {
    /// Reads the slot of the imported `function` in the main program of `pid`.
    pub(crate) fn read(pid: i32, function: &str) -> Result<Self> {
        let bytes = fs::read(format!("/proc/{pid}/exe"))?;
        let program = ElfFile64::<Endianness>::parse(&*bytes)?;
        let maps = maps(pid)?;
        let exe = fs::read_link(format!("/proc/{pid}/exe"))?;
        let base = base_of(&maps, &exe.to_string_lossy())?;
        let slot = base + import_slot(&program, function)?;
        let target = word_at(pid, slot)?;
        let holder = mapping_of(&maps, slot).context("the slot is not mapped")?;
        let target = mapping_of(&maps, target)
            .with_context(|| format!("{function} leads to unmapped {target:#x}"))?;
        Ok(Self { target: target.clone(), writable: holder.permissions.contains('w') })
    }
}

/// The exported 8-byte variable `symbol` of the library built at `file`, in `pid`.
pub(crate) fn library_word(pid: i32, file: &Path, symbol: &str) -> Result<u64> {
    let bytes = fs::read(file)?;
    let library = ElfFile64::<Endianness>::parse(&*bytes)?;
    let symbol = library
        .dynamic_symbols()
        .find(|found| found.name() == Ok(symbol))
        .with_context(|| format!("{} does not export {symbol}", file.display()))?;
    for mapping in maps(pid)? {
        if mapping.offset == 0 && mapping.is_of(file)? {
            return word_at(pid, mapping.start + symbol.address());
        }
    }
    bail!("{} is not mapped in {pid}", file.display())
}

/// CPU time `pid` has used up to its last switch (first field of schedstat).
pub(crate) fn cpu_time(pid: i32) -> Result<Duration> {
    let text = fs::read_to_string(format!("/proc/{pid}/schedstat"))?;
    let nanoseconds = text.split_whitespace().next().context("an empty schedstat")?.parse()?;
    Ok(Duration::from_nanos(nanoseconds))
}

/// Offset of the relocated word that imports `function`.
fn import_slot(program: &ElfFile64<'_, Endianness>, function: &str) -> Result<u64> {
    let symbols = program.dynamic_symbol_table().context("no dynamic symbols")?;
    let mut relocations = program.dynamic_relocations().context("no dynamic relocations")?;
    relocations
        .find(|(_, relocation)| match relocation.target() {
            RelocationTarget::Symbol(index) => {
                symbols.symbol_by_index(index).is_ok_and(|symbol| symbol.name() == Ok(function))
            }
            _ => false,
        })
        .map(|(offset, _)| offset)
        .with_context(|| format!("the program does not import {function}"))
}

fn base_of(maps: &[Mapping], path: &str) -> Result<u64> {
    maps.iter()
        .find(|mapping| mapping.offset == 0 && mapping.path == path)
        .map(|mapping| mapping.start)
        .with_context(|| format!("{path} is not mapped from its start"))
}

fn mapping_of(maps: &[Mapping], address: u64) -> Option<&Mapping> {
    maps.iter().find(|mapping| (mapping.start..mapping.end).contains(&address))
}

fn word_at(pid: i32, address: u64) -> Result<u64> {
    let mut word = [0; 8];
    File::open(format!("/proc/{pid}/mem"))?
        .read_exact_at(&mut word, address)
        .with_context(|| format!("reading {address:#x} of {pid}"))?;
    Ok(u64::from_le_bytes(word))
}
