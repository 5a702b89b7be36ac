//! One entry per fuzz target (`fuzz/`): the readers of hostile input, which are private otherwise.
//!
//! Each takes any bytes, must neither panic nor take long nor much memory, and tells how many
//! things it understood, so that tests see that a well-formed input comes past the door.

use std::fs::File;
use std::io::{self, Write};

use rustix::fs::MemfdFlags;
use sensor_common::counters::Ring;

use crate::host::container::Container;
use crate::inventory::ElfFacts;
use crate::inventory::mounts::{self, Mounts};
use crate::kernel::{btf::Btf, offsets};
use crate::record::{Reader, Redactor, Step};
use crate::verify::auxv::Auxv;
use crate::verify::elf::{self, Depth, ElfFile, Machine};
use crate::verify::link_map::{self, Bounds, Memory};
use crate::verify::maps::Maps;
use crate::verify::width::Width;
use crate::{baseline, decode, host, incident, package, watch};

/// Where the synthetic memory of [`link_map`] begins.
const START: u64 = 0x1000;
/// As [`crate::verify::Limits`] has them.
const BOUNDS: Bounds = Bounds { modules: 4096, namespaces: 64, insist: false };
/// Longest name, as in a real process.
const MAX_NAME: usize = 4096;

/// Memory of a process that does not exist.
struct Synthetic<'a> {
    bytes: &'a [u8],
    width: Width,
}

/// A whole ELF file of either width: headers, dynamic section, symbols, versions, hash tables,
/// relocations, notes and unwind tables, by every reader there is.
pub fn elf(data: &[u8]) -> usize {
    let mut understood = elf::fuzz::read_everything(data).map_or(0, |starts| starts + 1);
    let _ = elf::read_dynamic(data).is_ok();
    for depth in [Depth::Got, Depth::Full] {
        let Ok(file) = ElfFile::read_to(data, depth) else { continue };
        let named = file.nearest_symbol(u64::MAX).map(|(name, _)| name.to_vec());
        for name in [&b"system"[..], named.as_deref().unwrap_or_default()] {
            let found = std::str::from_utf8(name)
                .ok()
                .and_then(|name| file.symbols.default_definition(&file.dynamic, name));
            understood += usize::from(found.is_some());
        }
        let table = elf::read_function_table(data, &file.headers, &file.symbols);
        understood += usize::from(table.bytes() > 0);
        understood += file.relocations.slots.len() + usize::from(file.bytes() > 0);
    }
    understood + in_file(data).unwrap_or(0)
}

/// The readers that only take files.
fn in_file(data: &[u8]) -> io::Result<usize> {
    let mut file = File::from(rustix::fs::memfd_create("halfsecond-fuzz", MemfdFlags::CLOEXEC)?);
    file.write_all(data)?;
    let facts = ElfFacts::read(&file)?.is_some();
    Ok(usize::from(facts) + usize::from(host::build_id::read(&file).is_some()))
}

/// Unwind tables. First byte: the machine (odd: aarch64); then the address of a place of code; the
/// rest is a segment at 0 that begins with `.eh_frame_hdr`.
pub fn eh_frame(data: &[u8]) -> usize {
    let Some(([machine, low, high], segment)) = data.split_first_chunk() else { return 0 };
    let machine = if machine % 2 == 1 { Machine::Aarch64 } else { Machine::X86_64 };
    let place = u16::from_le_bytes([*low, *high]);
    elf::fuzz::read_frames(segment, machine, place.into())
}

/// The loader's list of modules. First byte: width of addresses (odd: four bytes); the rest is
/// memory from 0x1000 on, with `struct r_debug` at its beginning.
pub fn link_map(data: &[u8]) -> usize {
    let Some((width, bytes)) = data.split_first() else { return 0 };
    let width = if width % 2 == 1 { Width::Four } else { Width::Eight };
    let memory = Synthetic { bytes, width };
    let insist = Bounds { insist: true, ..BOUNDS };
    let Ok(maps) = link_map::read_link_maps(&memory, START, BOUNDS)
        .or_else(|_| link_map::read_link_maps(&memory, START, insist))
    else {
        return 0;
    };
    maps.namespaces.iter().map(Vec::len).sum()
}

/// Texts and tables below /proc, and the loader's text files.
pub fn maps(data: &[u8]) -> usize {
    let mut understood = usize::from(Auxv::parse(data).is_ok());
    if let Ok(maps) = Maps::parse(data) {
        for vma in maps.iter() {
            understood += usize::from(maps.find(vma.start) == Some(vma));
            understood += usize::from(!vma.describe().is_empty());
            let _ = maps.after(vma.end);
        }
    }
    let _ = Mounts::parse(data, None);
    understood += mounts::lines(data).count();
    understood += mounts::unescape(data).len().min(1);
    let text = String::from_utf8_lossy(data);
    understood += usize::from(Container::parse(&text).is_some());
    understood += host::configured(data).min(1);
    let lists = [watch::text::preload, watch::text::conf, watch::text::search_path];
    understood + lists.iter().map(|list| list(data).len()).sum::<usize>()
}

/// The kernel's type information.
pub fn btf(data: &[u8]) -> usize {
    const FUNCTIONS: &[&str] = &["do_mmap", "f"];
    let mut understood = usize::from(offsets::resolve(data, FUNCTIONS).is_ok());
    let Ok(btf) = Btf::parse(data) else { return understood };
    for path in ["task_struct.mm", "task_struct.tgid", "s.a", "s.a.b", "s.a#bit"] {
        understood += usize::from(btf.member_offset(path).is_ok());
    }
    for name in ["task_struct", "s"] {
        understood += usize::from(btf.struct_size(name).is_some());
    }
    let _ = btf.tracepoint_arguments("mmap_lock_start_locking");
    understood + btf.functions(FUNCTIONS).len() + btf.len()
}

/// Records as the kernel object writes them. First byte: which ring.
pub fn records(data: &[u8]) -> usize {
    let Some((ring, record)) = data.split_first() else { return 0 };
    let ring = if ring % 2 == 0 { Ring::Bulk } else { Ring::Priority };
    usize::from(decode::decode(ring, record).is_ok())
}

/// Databases of other programs. First byte: 0 for ld.so.cache, others for what
/// [`package`]'s own entry takes.
pub fn cache(data: &[u8]) -> usize {
    let Some((format, bytes)) = data.split_first() else { return 0 };
    match *format {
        0 => watch::cache::entries(bytes).map_or(0, |found| found.len()),
        format => package::fuzz::database(format, bytes),
    }
}

/// An export of baselines from another host.
pub fn baselines(data: &[u8]) -> usize {
    baseline::fuzz::read(data)
}

/// What people leave for a running sensor. First byte: 0 for an order about baselines, 1 for a request about
/// an incident; otherwise the rest is the names of files in such a folder, a zero byte between two.
pub fn orders(data: &[u8]) -> usize {
    let Some((kind, rest)) = data.split_first() else { return 0 };
    match *kind {
        0 => baseline::fuzz::obey(rest),
        1 => incident::read_request(rest),
        _ => incident::read_names(rest),
    }
}

/// Recordings. First byte: 0 for a whole file; otherwise the rest is the text of frames, which no
/// checksum keeps from being read.
pub fn recording(data: &[u8]) -> usize {
    let Some((form, rest)) = data.split_first() else { return 0 };
    if *form == 0 {
        let Ok(mut reader) = Reader::open(rest) else { return 0 };
        return std::iter::from_fn(|| reader.step().ok().flatten()).count();
    }
    let redactor = Redactor::with([7; 32]);
    let lines = rest.split(|byte| *byte == b'\n');
    let steps = lines.filter_map(|line| serde_json::from_slice::<Step>(line).ok());
    steps.filter(|step| serde_json::to_vec(&redactor.apply(step.clone())).is_ok()).count()
}

// === impl Synthetic ===

impl Memory for Synthetic<'_> {
    fn read(&self, addr: u64, buf: &mut [u8]) -> io::Result<()> {
        let at = addr.checked_sub(START).ok_or(io::ErrorKind::InvalidInput)?;
        elf::ReadAt::read_exact_at(self.bytes, at, buf)
    }

    fn read_name(&self, addr: u64) -> Vec<u8> {
        let at = addr.checked_sub(START).and_then(|at| usize::try_from(at).ok());
        let rest = at.and_then(|at| self.bytes.get(at..)).unwrap_or_default();
        let room = rest.get(..MAX_NAME).unwrap_or(rest);
        let end = room.iter().position(|byte| *byte == 0).unwrap_or(0);
        room.get(..end).unwrap_or_default().to_vec()
    }

    fn pid(&self) -> u32 {
        1
    }

    fn width(&self) -> Width {
        self.width
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_target_understands_what_is_well_formed() {
        let exe = std::fs::read("/proc/self/exe").unwrap();
        assert!(elf(&exe) > 100);
        assert!(maps(&std::fs::read("/proc/self/maps").unwrap()) > 10);
        assert!(maps(&std::fs::read("/proc/self/mountinfo").unwrap()) > 1);
        let words = [1_u64, 0x1030, 0, 0, 0x7f00, 0, 0x5500, 0, 0x5600, 0, 0];
        let bytes = words.iter().flat_map(|word| word.to_le_bytes());
        assert_eq!(link_map(&[0].into_iter().chain(bytes).collect::<Vec<_>>()), 1);
        if let Ok(types) = std::fs::read(crate::kernel::BTF_PATH) {
            assert!(btf(&types) > 1000);
        }
        if let Ok(known) = std::fs::read("/etc/ld.so.cache") {
            assert!(cache(&[&[0], &known[..]].concat()) > 1);
        }
    }

    #[test]
    fn recordings_are_read_to_the_end() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/recordings");
        let file = std::fs::read(format!("{folder}/attacked.rec")).unwrap();
        assert!(recording(&[&[0], &file[..]].concat()) > 100);
        // One of each kind that the host station tells; each is understood.
        let steps = std::fs::read_to_string(format!("{folder}/steps.jsonl")).unwrap();
        let lines = steps.lines().count();
        assert!(lines > 10);
        assert_eq!(recording(&[&[1], steps.as_bytes()].concat()), lines);
    }

    #[test]
    fn the_frames_of_a_made_up_function_are_read() {
        let mut segment = vec![1, 0x1b, 3, 0x3b, 16, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 40, 0, 0, 0];
        // One CIE: CFA = rsp + 8, return address at CFA - 8. One FDE for 0x100..0x120.
        segment.extend([16, 0, 0, 0, 0, 0, 0, 0, 1, b'z', b'R', 0, 1, 0x78, 16, 1, 0x1b, 12, 7, 8]);
        segment.extend([16, 0, 0, 0, 24, 0, 0, 0, 0xd0, 0, 0, 0, 32, 0, 0, 0, 0, 0x41, 0x0e, 16]);
        // The function itself; its start twice (asked, and from the table), and four bytes on.
        assert_eq!(eh_frame(&[&[0, 0, 1], &segment[..]].concat()), 1 + 3);
    }

    #[test]
    fn databases_of_packages_are_read_to_the_file() {
        let apk = b"\x01P:x\nV:1-r0\nA:x86_64\nF:usr/bin\nR:x\n\n";
        assert_eq!(cache(apk), 1);
        let status =
            b"\x02Package: x\nStatus: install ok installed\nArchitecture: all\nVersion: 1\n\n";
        assert_eq!(cache(&[&status[..], b"\0/usr/bin/x\n\0"].concat()), 1);
        assert_eq!(cache(b"\x062026-11-20 06:10:02 upgrade x:amd64 1 2\n"), 1);
        let run = b"\x07Running `apk add x` at 2026-11-21 10:00:00\n(1/1) Installing x (1-r0)\n";
        assert_eq!(cache(run), 1);
    }

    #[test]
    fn orders_and_names_of_orders_are_read() {
        let forget = br#"{"version":1,"act":{"act":"forget","subject":"/x ab"}}"#;
        assert_eq!(orders(&[&[0], &forget[..]].concat()), 1);
        let close = br#"{"id":"a","decision":{"verb":"close","time":"2026-11-22T15:00:00Z",
            "who":"al","uid":0}}"#;
        assert_eq!(orders(&[&[1], &close[..]].concat()), 1);
        assert_eq!(orders(b"\x021.json\x002.taken\x00../3.json\x004.answer\x00.json"), 2);
    }

    #[test]
    fn what_once_broke_a_reader_is_read_now() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../fuzz/regressions");
        let mut read = 0;
        for target in std::fs::read_dir(folder).unwrap() {
            let folder = target.unwrap().path();
            let run = match folder.file_name().unwrap().to_str().unwrap() {
                "elf" => elf,
                "eh_frame" => eh_frame,
                "link_map" => link_map,
                "maps" => maps,
                "btf" => btf,
                "records" => records,
                "cache" => cache,
                "baselines" => baselines,
                "orders" => orders,
                "recording" => recording,
                other => panic!("no target {other}"),
            };
            for input in std::fs::read_dir(folder).unwrap() {
                let _ = run(&std::fs::read(input.unwrap().path()).unwrap());
                read += 1;
            }
        }
        assert!(read > 0);
    }

    #[test]
    fn nothing_at_all_is_understood_as_nothing() {
        for target in
            [elf, eh_frame, link_map, maps, btf, records, cache, baselines, orders, recording]
        {
            assert_eq!(target(&[]), 0);
        }
    }
}
