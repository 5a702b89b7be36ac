//! The reader against real files and against damaged ones.

use std::fs::{self, File};

use proptest::prelude::*;

use super::super::width::Width;
use super::*;

/// A real library with versions, IFUNCs, RELRO and a build-id.
fn libc_bytes() -> Vec<u8> {
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    let path = maps.lines().filter_map(|line| line.split_whitespace().nth(5));
    let path = path.into_iter().find(|path| path.contains("libc.so.6")).expect("libc is mapped");
    fs::read(path).unwrap()
}

#[test]
fn libc_is_read_completely() {
    let file = ElfFile::read(libc_bytes().as_slice()).unwrap();
    assert_eq!(file.dynamic.soname.as_deref(), Some(&b"libc.so.6"[..]));
    assert!(file.headers.build_id.as_ref().is_some_and(|id| id.len() == 40));
    assert!(file.symbols.iter().count() > 2000);
    assert!(file.relocations.slots.windows(2).all(|pair| pair[0].vaddr < pair[1].vaddr));
    assert!(file.fde_starts.len() > 1000);
    let memcpy = file.symbols.default_definition(&file.dynamic, "memcpy").unwrap();
    assert!(memcpy.is_ifunc(), "{memcpy:?}");
}

#[test]
fn a_versioned_reference_finds_its_version() {
    let bytes = libc_bytes();
    let file = ElfFile::read(bytes.as_slice()).unwrap();
    // realpath has two versions: the default and an old hidden one.
    let name = SymbolName::new(b"realpath");
    let all = file.symbols.definitions(&file.dynamic, &name);
    if all.len() < 2 {
        println!("libc has {} version of realpath here: nothing to tell apart", all.len());
    }
    for (number, sym) in all {
        let version = file.symbols.version(number).unwrap();
        let wanted = Some((&version, &file.dynamic));
        let found = file.symbols.find_glibc(&file.dynamic, &name, wanted, true).unwrap();
        assert_eq!(found, (number, sym));
    }
}

/// Other machines' loaders and C libraries, where their cross compilers are installed.
const FOREIGN: [(&str, Machine, Width); 4] = [
    ("/usr/aarch64-linux-gnu/lib/ld-linux-aarch64.so.1", Machine::Aarch64, Width::Eight),
    ("/usr/aarch64-linux-gnu/lib/libc.so.6", Machine::Aarch64, Width::Eight),
    ("/lib32/ld-linux.so.2", Machine::I386, Width::Four),
    ("/lib32/libc.so.6", Machine::I386, Width::Four),
];

#[test]
fn files_of_other_machines_are_read_completely() {
    for (path, machine, width) in FOREIGN {
        let Ok(bytes) = fs::read(path) else {
            println!("{path} is not installed: not tried");
            continue;
        };
        let file = ElfFile::read(bytes.as_slice()).unwrap();
        assert_eq!((file.headers.machine, file.headers.width), (machine, width), "{path}");
        assert!(file.headers.build_id.is_some(), "{path}");
        let found = &file.relocations;
        assert!(found.relative.len() + found.relr.len() > 10, "{path}");
        assert_eq!(found.skipped.other, 0, "{path}");
        assert!(found.slots.windows(2).all(|pair| pair[0].vaddr < pair[1].vaddr), "{path}");
        let function = |vaddr: u64| file.headers.is_text(vaddr);
        let lazy = found.slots.iter().filter(|slot| slot.kind == SlotKind::JumpSlot);
        assert!(lazy.clone().all(|slot| slot.file_word == 0 || function(slot.file_word)), "{path}");
        let resolvers = found.slots.iter().filter(|slot| slot.kind == SlotKind::Irelative);
        assert!(resolvers.clone().all(|slot| function(slot.addend)), "{path}");
        if path.contains("/ld-") {
            let points = &file.entry_points;
            assert!(points.resolvers.is_some() && points.tlsdesc.is_some(), "{path}: {points:x?}");
        } else {
            assert!(resolvers.count() > 0 && file.fde_starts.len() > 1000, "{path}");
            let memcpy = file.symbols.default_definition(&file.dynamic, "memcpy").unwrap();
            assert!(memcpy.is_ifunc(), "{memcpy:?}");
        }
    }
}

#[test]
fn files_that_are_no_known_elf_say_so() {
    assert!(matches!(ElfFile::read(&b"#!/bin/sh\n"[..]), Err(ElfError::NotElf)));
    assert!(matches!(ElfFile::read(&[0; 64][..]), Err(ElfError::NotElf)));
    let mut bytes = libc_bytes();
    // The x32 ABI.
    bytes[4] = 1;
    let error = ElfFile::read(bytes.as_slice()).unwrap_err();
    assert_eq!(error.to_string(), "other machines' ELF files are not covered");
    bytes[4] = 2;
    bytes[18] = 8;
    assert!(matches!(ElfFile::read(bytes.as_slice()), Err(ElfError::Unsupported(_))));
}

#[test]
fn a_truncated_file_names_the_table_it_lacks() {
    let bytes = libc_bytes();
    for keep in [64, 1000, 4096, bytes.len() / 4, bytes.len() / 2] {
        let error = ElfFile::read(&bytes[..keep]).unwrap_err();
        assert!(matches!(error, ElfError::Read { .. }), "{keep}: {error}");
    }
}

#[test]
fn an_absurd_table_size_costs_no_memory() {
    let source = File::open("/proc/self/exe").unwrap();
    let error = read_bytes(&source, "test table", 0, u64::MAX).unwrap_err();
    assert!(matches!(error, ElfError::TooLarge { .. }), "{error}");
    let error = read_bytes(&source, "test table", u64::MAX - 4, 64).unwrap_err();
    assert!(matches!(error, ElfError::Malformed(_)), "{error}");
}

/// The parts of a file whose damage matters: headers, dynamic tables, the dynamic section.
fn interesting(bytes: &[u8]) -> Vec<usize> {
    let headers = Headers::read(bytes).unwrap();
    let (_, dynamic, size) = headers.dynamic.unwrap();
    let dynamic = index(dynamic)..index(dynamic + size);
    (0..0x400).chain(dynamic).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn random_bytes_are_total(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
        let _ = ElfFile::read(bytes.as_slice());
    }

    #[test]
    fn a_damaged_library_is_refused_or_read(
        damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        tables in proptest::collection::vec((0_usize..0x30000, any::<u8>()), 0..8),
    ) {
        thread_local! {
            static LIBC: (Vec<u8>, Vec<usize>) = {
                let bytes = libc_bytes();
                let places = interesting(&bytes);
                (bytes, places)
            };
        }
        LIBC.with(|(bytes, places)| {
            let mut bytes = bytes.clone();
            for (at, byte) in damage {
                bytes[*at.get(places)] = byte;
            }
            for (at, byte) in tables {
                bytes[at] = byte;
            }
            for depth in [Depth::Got, Depth::Full] {
                let Ok(file) = ElfFile::read_to(bytes.as_slice(), depth) else { continue };
                let name = SymbolName::new(b"malloc");
                let _ = file.symbols.find_glibc(&file.dynamic, &name, None, true);
                let _ = file.symbols.find_musl(&file.dynamic, &name, true);
                let _ = file.nearest_symbol(0x1000);
                let _ = read_function_table(bytes.as_slice(), &file.headers, &file.symbols);
            }
        });
    }
}
