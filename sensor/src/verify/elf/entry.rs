//! Where a loader's functions for lazy binding and for TLS descriptors begin. They have no names
//! outside of it, and no shipped loader keeps its local symbols; but they are written in assembly
//! and begin the same in every release (glibc `sysdeps/*/dl-trampoline.[Sh]`, `dl-tlsdesc.S` at
//! 2.36 to 2.41; musl `src/ldso/*/tlsdesc.s`).

use super::{Dynamic, Headers, Machine, ReadAt, SymbolTable};

/// Bytes of code looked through; glibc's loader has 150 KB, musl's C library 600 KB.
const MAX_TEXT: u64 = 8 << 20;

/// The functions of one loader.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct EntryPoints {
    /// What `GOT[2]` may lead to; none where this loader's are not known.
    pub(crate) resolvers: Option<Box<[u64]>>,
    /// What a TLS descriptor may lead to; none where this loader's are not all known.
    pub(crate) tlsdesc: Option<Box<[u64]>>,
}

/// Beginnings of functions: bytes with a mask. Instructions that vary with the frame's size keep
/// their registers.
#[derive(Clone, Copy, Debug)]
struct Pattern {
    bytes: &'static [u8],
    mask: &'static [u8],
}

/// The patterns of one machine.
#[derive(Debug)]
struct Known {
    /// `_dl_runtime_resolve*`; one must be found.
    resolve: &'static [Pattern],
    /// `_dl_runtime_profile*`, used under rtld-audit.
    profile: &'static [Pattern],
    /// glibc's `_dl_tlsdesc_return`, `_undefweak`, `_dynamic*`; each must be found.
    glibc_tlsdesc: &'static [Pattern],
    /// musl's `__tlsdesc_static`, `__tlsdesc_dynamic`.
    musl_tlsdesc: &'static [Pattern],
    /// What may stand in front: landing pads.
    pads: &'static [[u8; 4]],
    /// Functions begin at multiples of this.
    step: usize,
}

const fn exact(bytes: &'static [u8]) -> Pattern {
    Pattern { bytes, mask: &[] }
}

const X86_64: Known = Known {
    // push %rbx; mov %rsp, %rbx; and $-N, %rsp
    resolve: &[exact(&[0x53, 0x48, 0x89, 0xe3, 0x48, 0x83, 0xe4])],
    // sub $32, %rsp; mov %rbx, (%rsp); mov %rax, 8(%rsp); mov %rsp, %rbx
    profile: &[exact(&[
        0x48, 0x83, 0xec, 0x20, 0x48, 0x89, 0x1c, 0x24, 0x48, 0x89, 0x44, 0x24, 0x08, 0x48, 0x89,
        0xe3,
    ])],
    glibc_tlsdesc: &[
        // mov 8(%rax), %rax; ret
        exact(&[0x48, 0x8b, 0x40, 0x08, 0xc3]),
        // mov 8(%rax), %rax; sub %fs:0, %rax; ret
        exact(&[0x48, 0x8b, 0x40, 0x08, 0x64, 0x48, 0x2b, 0x04, 0x25, 0, 0, 0, 0, 0xc3]),
        // mov %rsi, -16(%rsp); mov %fs:8, %rsi
        exact(&[0x48, 0x89, 0x74, 0x24, 0xf0, 0x64, 0x48, 0x8b, 0x34, 0x25, 8, 0, 0, 0]),
    ],
    musl_tlsdesc: &[
        exact(&[0x48, 0x8b, 0x40, 0x08, 0xc3]),
        // mov 8(%rax), %rax; push %rdx; mov %fs:8, %rdx
        exact(&[0x48, 0x8b, 0x40, 0x08, 0x52, 0x64, 0x48, 0x8b, 0x14, 0x25, 8, 0, 0, 0]),
    ],
    pads: &[[0xf3, 0x0f, 0x1e, 0xfa]],
    step: 1,
};

const I386: Known = Known {
    resolve: &[
        // push %eax; push %ecx; push %edx; mov 16(%esp), %edx; mov 12(%esp), %eax; call
        exact(&[0x50, 0x51, 0x52, 0x8b, 0x54, 0x24, 0x10, 0x8b, 0x44, 0x24, 0x0c, 0xe8]),
    ],
    profile: &[
        // The variant for shadow stacks: it does not return by its own address.
        exact(&[0x50, 0x52, 0x8b, 0x54, 0x24, 0x0c, 0x8b, 0x44, 0x24, 0x08, 0xe8]),
        // push %esp; addl $8, (%esp); push %ebp; push %eax; push %ecx; push %edx; mov %esp, %ecx
        exact(&[0x54, 0x83, 0x04, 0x24, 0x08, 0x55, 0x50, 0x51, 0x52, 0x89, 0xe1]),
    ],
    glibc_tlsdesc: &[
        // mov 4(%eax), %eax; ret
        exact(&[0x8b, 0x40, 0x04, 0xc3]),
        // mov 4(%eax), %eax; sub %gs:0, %eax; ret
        exact(&[0x8b, 0x40, 0x04, 0x65, 0x2b, 0x05, 0, 0, 0, 0, 0xc3]),
        // sub $N, %esp; mov %ecx, N(%esp); mov %edx, N(%esp); mov 4(%eax), %eax; mov %gs:4, %edx
        Pattern {
            bytes: &[
                0x83, 0xec, 0, 0x89, 0x4c, 0x24, 0, 0x89, 0x54, 0x24, 0, 0x8b, 0x40, 0x04, 0x65,
                0x8b, 0x15, 4, 0, 0, 0,
            ],
            mask: &[
                0xff, 0xff, 0, 0xff, 0xff, 0xff, 0, 0xff, 0xff, 0xff, 0, 0xff, 0xff, 0xff, 0xff,
                0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
            ],
        },
    ],
    musl_tlsdesc: &[
        exact(&[0x8b, 0x40, 0x04, 0xc3]),
        // mov 4(%eax), %eax; push %edx; mov %gs:4, %edx
        exact(&[0x8b, 0x40, 0x04, 0x52, 0x65, 0x8b, 0x15, 4, 0, 0, 0]),
    ],
    pads: &[[0xf3, 0x0f, 0x1e, 0xfb]],
    step: 1,
};

/// The offset of a `stp` is in bits 15 to 21, the amount of a `sub` in bits 10 to 22.
const AARCH64: Known = Known {
    // stp x8, x9, [sp, #-N]!; stp x6, x7, [sp, #N]
    resolve: &[Pattern {
        bytes: &[0xe8, 0x27, 0x80, 0xa9, 0xe6, 0x1f, 0x00, 0xa9],
        mask: &[0xff, 0x7f, 0xc0, 0xff, 0xff, 0x7f, 0xc0, 0xff],
    }],
    // sub sp, sp, #N; stp x29, x30, [sp]; mov x29, sp; stp x0, x1, [x29, #N]
    profile: &[Pattern {
        bytes: &[
            0xff, 0x03, 0x00, 0xd1, 0xfd, 0x7b, 0x00, 0xa9, 0xfd, 0x03, 0x00, 0x91, 0xa0, 0x07,
            0x00, 0xa9,
        ],
        mask: &[
            0xff, 0x03, 0x80, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f,
            0xc0, 0xff,
        ],
    }],
    glibc_tlsdesc: &[
        // ldr x0, [x0, #8]; ret
        exact(&[0x00, 0x04, 0x40, 0xf9, 0xc0, 0x03, 0x5f, 0xd6]),
        // str x1, [sp, #-16]!; ldr x0, [x0, #8]; mrs x1, tpidr_el0
        exact(&[0xe1, 0x0f, 0x1f, 0xf8, 0x00, 0x04, 0x40, 0xf9, 0x41, 0xd0, 0x3b, 0xd5]),
        // stp x1, x2, [sp, #-N]!; stp x3, x4, [sp, #N]; mrs x4, tpidr_el0
        Pattern {
            bytes: &[0xe1, 0x0b, 0x80, 0xa9, 0xe3, 0x13, 0x00, 0xa9, 0x44, 0xd0, 0x3b, 0xd5],
            mask: &[0xff, 0x7f, 0xc0, 0xff, 0xff, 0x7f, 0xc0, 0xff, 0xff, 0xff, 0xff, 0xff],
        },
    ],
    musl_tlsdesc: &[
        exact(&[0x00, 0x04, 0x40, 0xf9, 0xc0, 0x03, 0x5f, 0xd6]),
        // stp x1, x2, [sp, #-16]!; mrs x1, tpidr_el0; ldr x0, [x0, #8]
        exact(&[0xe1, 0x0b, 0xbf, 0xa9, 0x41, 0xd0, 0x3b, 0xd5, 0x00, 0x04, 0x40, 0xf9]),
    ],
    // bti c, and the nop in its place
    pads: &[[0x5f, 0x24, 0x03, 0xd5], [0x1f, 0x20, 0x03, 0xd5]],
    step: 4,
};

/// The entry points of a loader; those of any other file are not looked for.
pub(super) fn find<R: ReadAt + ?Sized>(
    source: &R,
    headers: &Headers,
    dynamic: &Dynamic,
    symbols: &SymbolTable,
) -> EntryPoints {
    let exports = |name| symbols.default_definition(dynamic, name).is_some();
    let (glibc, musl) = (exports("_r_debug"), exports("_dl_debug_addr"));
    if !glibc && !musl {
        return EntryPoints::default();
    }
    let texts = headers.loads.iter().filter(|load| load.exec);
    let texts: Vec<(u64, Vec<u8>)> = texts
        .filter_map(|load| {
            let bytes = load.filesz.min(MAX_TEXT);
            Some((load.vaddr, headers.read_vaddr(source, "code", load.vaddr, bytes).ok()?))
        })
        .collect();
    let known = match headers.machine {
        Machine::X86_64 => &X86_64,
        Machine::I386 => &I386,
        Machine::Aarch64 => &AARCH64,
    };
    // Before 2.34, descriptors could be bound lazily, by functions that begin otherwise; from 2.35
    // on the loader exports this function.
    let current = exports("_dl_audit_preinit");
    let tlsdesc = match (glibc, current) {
        (true, true) => known.find_each(&texts, known.glibc_tlsdesc),
        (true, false) => None,
        (false, _) => known.find_each(&texts, known.musl_tlsdesc),
    };
    if !glibc {
        // musl binds nothing lazily.
        return EntryPoints { resolvers: Some(Box::from([])), tlsdesc };
    }
    let resolvers = known.find_each(&texts, known.resolve).map(|found| {
        let profile = known.find(&texts, known.profile).into_iter().map(|(_, vaddr)| vaddr);
        found.into_iter().chain(profile).collect()
    });
    EntryPoints { resolvers, tlsdesc }
}

impl Known {
    /// All places of all patterns; none if one has no place.
    fn find_each(&self, texts: &[(u64, Vec<u8>)], patterns: &[Pattern]) -> Option<Box<[u64]>> {
        let found = self.find(texts, patterns);
        let complete = (0..patterns.len()).all(|number| found.iter().any(|one| one.0 == number));
        complete.then(|| found.into_iter().map(|(_, vaddr)| vaddr).collect())
    }

    /// Where patterns begin, each with its number, and the landing pads before them.
    fn find(&self, texts: &[(u64, Vec<u8>)], patterns: &[Pattern]) -> Vec<(usize, u64)> {
        let mut found = Vec::new();
        // Nearly all code is passed over by its first byte.
        let mut begins = [false; 256];
        for first in patterns.iter().filter_map(|pattern| pattern.bytes.first()) {
            begins[usize::from(*first)] = true;
        }
        for (start, text) in texts {
            let likely = text.iter().enumerate().filter(|(_, byte)| begins[usize::from(**byte)]);
            for (at, _) in likely.filter(|(at, _)| at.is_multiple_of(self.step)) {
                let Some(rest) = text.get(at..) else { break };
                for (number, _) in patterns.iter().enumerate().filter(|(_, one)| one.fits(rest)) {
                    let vaddr = start.saturating_add(at as u64);
                    found.push((number, vaddr));
                    let pad = at.checked_sub(4).and_then(|at| text.get(at..)?.first_chunk::<4>());
                    if pad.is_some_and(|pad| self.pads.contains(pad)) {
                        found.push((number, vaddr.saturating_sub(4)));
                    }
                }
            }
        }
        found
    }
}

impl Pattern {
    fn fits(&self, code: &[u8]) -> bool {
        let Some(code) = code.get(..self.bytes.len()) else { return false };
        if self.mask.is_empty() {
            return code == self.bytes;
        }
        let pairs = code.iter().zip(self.mask).map(|(byte, mask)| byte & mask);
        pairs.eq(self.bytes.iter().copied())
    }
}

impl EntryPoints {
    /// Heap bytes held.
    pub(super) fn bytes(&self) -> usize {
        let lists = [&self.resolvers, &self.tlsdesc];
        lists.into_iter().flatten().map(|list| list.len() * 8).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_and_bytes_agree() {
        for known in [&X86_64, &I386, &AARCH64] {
            let lists =
                [known.resolve, known.profile, known.glibc_tlsdesc, known.musl_tlsdesc].concat();
            for pattern in lists {
                let mask = pattern.mask;
                assert!(mask.is_empty() || mask.len() == pattern.bytes.len(), "{pattern:x?}");
                assert!(pattern.fits(pattern.bytes), "{pattern:x?}");
                assert!(!pattern.fits(&pattern.bytes[1..]), "{pattern:x?}");
            }
        }
    }

    #[test]
    fn the_address_of_a_landing_pad_counts_too() {
        let code = [&[0x90, 0xf3, 0x0f, 0x1e, 0xfa], X86_64.resolve[0].bytes, &[0xc0]].concat();
        let texts = [(0x1000, code)];
        assert_eq!(X86_64.find(&texts, X86_64.resolve), [(0, 0x1005), (0, 0x1001)]);
    }

    /// Debian 12 for arm64, glibc 2.36: `_dl_runtime_resolve`.
    #[test]
    fn the_frame_of_an_arm_function_may_differ() {
        let words = [0xa9b3_27e8_u32, 0xa901_1fe6];
        let code: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        assert!(AARCH64.resolve[0].fits(&code));
    }

    #[test]
    fn the_loader_of_this_machine_is_known() {
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let paths = maps.lines().filter_map(|line| line.split_whitespace().nth(5));
        let path = paths.into_iter().find(|path| path.contains("/ld-linux")).unwrap();
        let file = super::super::ElfFile::read(&std::fs::read(path).unwrap()[..]).unwrap();
        let resolvers = file.entry_points.resolvers.expect("GOT[2] has no known content");
        assert!((1..=12).contains(&resolvers.len()), "{resolvers:x?}");
        if file.symbols.default_definition(&file.dynamic, "_dl_audit_preinit").is_none() {
            println!("not tried: TLS descriptors of a glibc before 2.35");
            return;
        }
        assert!(file.entry_points.tlsdesc.is_some(), "descriptors have no known content");
    }
}
