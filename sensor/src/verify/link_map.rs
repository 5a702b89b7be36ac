//! The loader's own list of modules, read from the memory of the process.

use std::collections::HashSet;
use std::io;

use super::error::VerifyError;
use super::process::Process;
use super::width::Width;

/// `RT_CONSISTENT` of `<link.h>`.
const RT_CONSISTENT: u64 = 0;

/// One `struct link_map` (musl: `struct dso`, which starts with the same five words).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Where the entry itself is.
    pub(crate) link_map: u64,
    /// `l_addr`: what is added to the file's addresses.
    pub(crate) base: u64,
    /// `l_ld`: address of the dynamic section.
    pub(crate) dynamic: u64,
    /// `l_name`: the path the loader found the file by; empty for the program.
    pub(crate) name: Vec<u8>,
}

/// All modules by namespace; the program's own namespace first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct LinkMaps {
    pub(crate) namespaces: Vec<Vec<Entry>>,
    /// Their numbers (`Lmid_t`): glibc appends each to the chain when it first uses it.
    pub(crate) numbers: Vec<usize>,
    /// The limit that cut the walk, if one did.
    pub(crate) truncated: Option<&'static str>,
    /// What was passed over because the bounds say so, as clauses that follow "the loader's list".
    pub(crate) flaws: Vec<&'static str>,
}

/// Bounds of a walk.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    pub(crate) modules: usize,
    pub(crate) namespaces: usize,
    /// What contradicts itself is noted and passed over rather than refused: for a process that
    /// does so at every look.
    pub(crate) insist: bool,
}

/// Memory that a link map is read from.
pub(crate) trait Memory {
    fn read(&self, addr: u64, buf: &mut [u8]) -> io::Result<()>;
    fn read_name(&self, addr: u64) -> Vec<u8>;
    fn pid(&self) -> u32;
    /// Width of its addresses.
    fn width(&self) -> Width;
}

impl Memory for Process {
    fn read(&self, addr: u64, buf: &mut [u8]) -> io::Result<()> {
        Process::read(self, addr, buf)
    }

    fn read_name(&self, addr: u64) -> Vec<u8> {
        Process::read_name(self, addr)
    }

    fn pid(&self) -> u32 {
        self.pid
    }

    fn width(&self) -> Width {
        self.width()
    }
}

impl LinkMaps {
    /// Notes a flaw, or gives the error back where none is to be passed over.
    fn pass_over(
        &mut self,
        bounds: Bounds,
        flaw: &'static str,
        error: VerifyError,
    ) -> Result<(), VerifyError> {
        if !bounds.insist {
            return Err(error);
        }
        if !self.flaws.contains(&flaw) {
            self.flaws.push(flaw);
        }
        Ok(())
    }
}

/// Walks `struct r_debug_extended` (glibc `elf/link.h` since 2.35, musl's `struct debug` without
/// the last word): version u32, map, brk, state u32, ldbase, next, each as wide as an address.
pub(crate) fn read_link_maps<M: Memory>(
    memory: &M,
    debug: u64,
    bounds: Bounds,
) -> Result<LinkMaps, VerifyError> {
    let pid = memory.pid();
    let unsettled = |_| VerifyError::NotSettled { pid };
    let mut found = LinkMaps::default();
    let (mut at, mut modules, mut seen) = (debug, 0, HashSet::new());
    let mut looked = 0;
    while at != 0 {
        if looked >= bounds.namespaces {
            found.truncated = Some("namespaces");
            break;
        }
        if !seen.insert(at) {
            let error = VerifyError::Malformed { pid, what: "list of namespaces" };
            found.pass_over(bounds, "leads back to a namespace before", error)?;
            break;
        }
        looked += 1;
        let [version, map, _, state, _] = read_words::<5, M>(memory, at).map_err(unsettled)?;
        // glibc fills in the version and the list together, just before relocation starts.
        let version = version & 0xffff_ffff;
        // A namespace that holds nothing (any more) is one whose audit library could not be loaded.
        if map == 0 && found.namespaces.is_empty() {
            return Err(VerifyError::NotSettled { pid });
        }
        if version == 0 || state & 0xffff_ffff != RT_CONSISTENT {
            found.pass_over(
                bounds,
                "is being changed, it says",
                VerifyError::NotSettled { pid },
            )?;
        }
        if map != 0 {
            let room = Bounds { modules: bounds.modules - modules, ..bounds };
            let entries = walk(memory, map, &mut seen, room, &mut found)?;
            modules += entries.len();
            found.namespaces.push(entries);
            found.numbers.push(looked - 1);
        }
        if modules >= bounds.modules {
            found.truncated = Some("modules");
            break;
        }
        at = if version <= 1 {
            0
        } else {
            let next = at.wrapping_add(5 * memory.width().bytes());
            read_words::<1, M>(memory, next).map_err(unsettled)?[0]
        };
    }
    // Nothing to insist on.
    if bounds.insist && found.namespaces.first().is_none_or(Vec::is_empty) {
        return Err(VerifyError::Malformed { pid, what: "link map" });
    }
    Ok(found)
}

/// One list: addr, name, ld, next, prev. A loop or a wrong back pointer is an error (a list being
/// changed looks like that for a moment, so callers retry).
fn walk<M: Memory>(
    memory: &M,
    head: u64,
    seen: &mut HashSet<u64>,
    bounds: Bounds,
    found: &mut LinkMaps,
) -> Result<Vec<Entry>, VerifyError> {
    let pid = memory.pid();
    let malformed = || VerifyError::Malformed { pid, what: "link map" };
    let (mut entries, mut at, mut before) = (Vec::new(), head, 0);
    while at != 0 && entries.len() < bounds.modules {
        if !seen.insert(at) {
            found.pass_over(bounds, "leads back to a module before", malformed())?;
            break;
        }
        let Ok([base, name, dynamic, next, previous]) = read_words::<5, M>(memory, at) else {
            found.pass_over(bounds, "leads to where nothing is", malformed())?;
            break;
        };
        if previous != before {
            found.pass_over(bounds, "says otherwise backwards than forwards", malformed())?;
        }
        let name = if name == 0 { Vec::new() } else { memory.read_name(name) };
        entries.push(Entry { link_map: at, base, dynamic, name });
        (before, at) = (at, next);
    }
    Ok(entries)
}

fn read_words<const N: usize, M: Memory>(memory: &M, addr: u64) -> io::Result<[u64; N]> {
    let mut bytes = [0; 64];
    let width = memory.width();
    let bytes = bytes.get_mut(..N * width.len()).ok_or(io::ErrorKind::InvalidInput)?;
    memory.read(addr, bytes)?;
    Ok(std::array::from_fn(|at| width.word_at(bytes, at * width.len()).unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Bytes at an address; everything else is unmapped.
    struct Fake {
        start: u64,
        bytes: Vec<u8>,
        width: Width,
    }

    impl Memory for Fake {
        fn read(&self, addr: u64, buf: &mut [u8]) -> io::Result<()> {
            let at = addr.checked_sub(self.start).ok_or(io::ErrorKind::InvalidInput)?;
            crate::verify::elf::ReadAt::read_exact_at(self.bytes.as_slice(), at, buf)
        }

        fn read_name(&self, addr: u64) -> Vec<u8> {
            let at = usize::try_from(addr.wrapping_sub(self.start)).unwrap();
            super::super::bytes::cstr_at(&self.bytes, at).unwrap_or(&[]).to_vec()
        }

        fn pid(&self) -> u32 {
            1
        }

        fn width(&self) -> Width {
            self.width
        }
    }

    const BOUNDS: Bounds = Bounds { modules: 8, namespaces: 4, insist: false };
    const INSIST: Bounds = Bounds { insist: true, ..BOUNDS };
    const START: u64 = 0x1000;

    /// `r_debug` at 0x1000, entries at 0x1040 and 0x1080, a name at 0x10c0.
    fn words() -> Vec<u64> {
        let mut words = vec![0; 26];
        words[..6].copy_from_slice(&[1, START + 0x40, 0, 0, 0x7f00, 0]);
        words[8..13].copy_from_slice(&[0x5500, START + 0xc0, 0x5600, START + 0x80, 0]);
        words[16..21].copy_from_slice(&[0x7700, 0, 0x7800, 0, START + 0x40]);
        words[24] = u64::from_le_bytes(*b"libx\0\0\0\0");
        words
    }

    fn fake(words: &[u64]) -> Fake {
        let bytes = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        Fake { start: START, bytes, width: Width::Eight }
    }

    #[test]
    fn the_list_of_a_32_bit_process_is_read() {
        let head = START + 0x20;
        let words = [1, head, 0, 0, 0x7f00, 0, 0, 0, 0x5500, START + 0x34, 0x5600, 0, 0];
        let name = u64::from(u32::from_le_bytes(*b"lib\0"));
        let words = words.into_iter().chain([name]).map(|word| u32::try_from(word).unwrap());
        let bytes = words.flat_map(u32::to_le_bytes).collect();
        let memory = Fake { start: START, bytes, width: Width::Four };
        let maps = read_link_maps(&memory, START, BOUNDS).unwrap();
        let entry = &maps.namespaces[0][0];
        assert_eq!((entry.base, entry.dynamic, &entry.name[..]), (0x5500, 0x5600, &b"lib"[..]));
    }

    #[test]
    fn both_entries_are_found_in_order() {
        let maps = read_link_maps(&fake(&words()), START, BOUNDS).unwrap();
        let entries = &maps.namespaces[0];
        assert_eq!((entries[0].base, entries[0].dynamic), (0x5500, 0x5600));
        assert_eq!(entries[0].name, b"libx");
        assert_eq!((entries[1].base, entries.len()), (0x7700, 2));
    }

    #[test]
    fn a_second_namespace_is_followed_from_version_two_on() {
        let mut words = words();
        words[5] = START + 0xd0;
        assert_eq!(read_link_maps(&fake(&words), START, BOUNDS).unwrap().namespaces.len(), 1);
        words[0] = 2;
        words.extend([2, START + 0x100, 0, 0, 0, 0]);
        words.extend([0x9900, 0, 0x9a00, 0, 0]);
        let both = read_link_maps(&fake(&words), START, BOUNDS).unwrap();
        assert_eq!((both.namespaces.len(), both.numbers), (2, vec![0, 1]));
    }

    #[test]
    fn an_empty_second_namespace_is_passed_over() {
        let mut words = words();
        words[5] = START + 0xd0;
        words[0] = 2;
        words.extend([2, 0, 0, 0, 0, 0]);
        assert_eq!(read_link_maps(&fake(&words), START, BOUNDS).unwrap().namespaces.len(), 1);
    }

    #[test]
    fn a_loader_at_work_is_not_settled() {
        for change in [(0, 0), (1, 0), (3, 1), (3, 2)] {
            let mut words = words();
            words[change.0] = change.1;
            let result = read_link_maps(&fake(&words), START, BOUNDS);
            assert!(
                matches!(result, Err(VerifyError::NotSettled { .. })),
                "{change:?}: {result:?}"
            );
        }
    }

    #[test]
    fn loops_and_wrong_back_pointers_are_refused() {
        for change in [(19, START + 0x40), (20, START), (11, START + 0x40), (11, 1)] {
            let mut words = words();
            words[change.0] = change.1;
            let result = read_link_maps(&fake(&words), START, BOUNDS);
            assert!(matches!(result, Err(VerifyError::Malformed { .. })), "{change:?}: {result:?}");
        }
    }

    #[test]
    fn who_insists_is_told_what_contradicts_and_gets_the_list_as_far_as_it_goes() {
        let insist = |changes: &[(usize, u64)]| {
            let mut words = words();
            for (at, word) in changes {
                words[*at] = *word;
            }
            read_link_maps(&fake(&words), START, INSIST).unwrap()
        };
        let sound = insist(&[]);
        assert_eq!(sound, read_link_maps(&fake(&words()), START, BOUNDS).unwrap());
        for (changes, flaw, modules) in [
            (&[(3, 1)][..], "is being changed, it says", 2),
            (&[(0, 0)], "is being changed, it says", 2),
            (&[(20, START)], "says otherwise backwards than forwards", 2),
            (&[(19, START + 0x40)], "leads back to a module before", 2),
            (&[(11, 1)], "leads to where nothing is", 1),
            (&[(0, 2), (5, START)], "leads back to a namespace before", 2),
        ] {
            let maps = insist(changes);
            assert_eq!((maps.flaws.as_slice(), maps.namespaces.len()), (&[flaw][..], 1));
            let entries = &maps.namespaces[0];
            assert_eq!(entries[..], sound.namespaces[0][..modules], "{changes:?}");
        }
        for nowhere in [0, 8] {
            let mut none = words();
            none[1] = nowhere;
            assert!(
                read_link_maps(&fake(&none), START, INSIST).is_err(),
                "there is no list at all"
            );
        }
    }

    #[test]
    fn an_endless_list_is_cut_and_said_so() {
        let mut words = words();
        words.truncate(8);
        for number in 0..100_u64 {
            let at = START + 64 + number * 40;
            let before = if number == 0 { 0 } else { at - 40 };
            words.extend([number, 0, 1, at + 40, before]);
        }
        let maps = read_link_maps(&fake(&words), START, BOUNDS).unwrap();
        assert_eq!((maps.namespaces[0].len(), maps.truncated), (8, Some("modules")));
    }

    proptest! {
        #[test]
        fn any_memory_is_total(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            for width in [Width::Four, Width::Eight] {
                let bytes = bytes.clone();
                let memory = Fake { start: START, bytes, width };
                let found = read_link_maps(&memory, START, BOUNDS);
                let insisted = read_link_maps(&memory, START, INSIST);
                // Who insists sees the same where nothing is wrong.
                prop_assert!(found.is_err() || found.ok() == insisted.ok());
            }
        }

        #[test]
        fn a_changed_word_is_total(at in 0_usize..26, word in 0_u64..0x1200) {
            let mut words = words();
            words[at] = word;
            let _ = read_link_maps(&fake(&words), START, BOUNDS);
        }
    }
}
