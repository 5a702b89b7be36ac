//! Who asked the loader for a library: from a thread's stack to the first code outside the loader
//! and its C library. Who called a function: every frame, as far as they can be unwound.
//!
//! Frames of the loader and of libc are unwound by their own `.eh_frame`. Where that does not lead on
//! (a function that is not covered, a word that was not told), the rest of the stack is searched for
//! words that lie behind a call instruction: such a one may be left from an earlier call, so the
//! answer says which way it was found.
//!
//! Blind to code that jumps into the loader instead of calling it: its own caller is found then.

use std::fs::File;

use super::{AddressSpace, Symbolized, Symbolizer};
use crate::event::Stack;
use crate::verify::VerifyError;
use crate::verify::bytes::index;
use crate::verify::cache::Lru;
use crate::verify::elf::{Base, Headers, Machine, ReadAt as _, Saved, Step, read_step};
use crate::verify::maps::Vma;
use crate::verify::process::{FileKey, Process};

/// Frames unwound.
const FRAMES_MAX: usize = 64;
/// Callers told of one call.
const CALLERS_MAX: usize = 32;
/// Candidates whose code is looked at.
const CANDIDATES_MAX: usize = 256;
/// Files opened for one walk.
const FILES_MAX: usize = 16;
/// Steps kept between walks: mostly the same few of the loader.
const STEPS_MAX: usize = 1024;
/// Programs that are not position independent lie below, each at the address of the others.
const RANDOM: u64 = 1 << 32;
/// Looks at a process whose memory seems to lack the code that goes on: a list of mappings that is
/// read while the process maps something may lack one.
const LOOKS_MAX: u32 = 3;
/// Longest call instruction, bytes.
const CALL_BYTES: usize = 7;

/// The first code outside the loader that a walk came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asker {
    /// Where it goes on once it has its library.
    pub place: Symbolized,
    /// Every frame up to it was unwound; otherwise it is the nearest word on the stack that looks
    /// like it.
    pub unwound: bool,
    /// It had asked libc for something else, which then needed a library: a user's name, say.
    pub through_libc: bool,
}

/// Steps by file and the place in it; `None` where there is none to be had.
pub(super) type Steps = Lru<(FileKey, u64), Option<Step>>;

/// A mapped file that the walk came by.
struct Found<'a> {
    vma: &'a Vma,
    key: FileKey,
    /// Opened once it is needed.
    opened: Option<(File, Headers)>,
}

/// One walk.
struct Walk<'a> {
    process: &'a Process,
    stack: &'a Stack,
    loader: Option<&'a Vma>,
    files: Vec<Found<'a>>,
    steps: &'a mut Steps,
    machine: Machine,
    /// Innermost frame of the loader or libc so far.
    last: Option<u64>,
}

/// Registers of a frame.
#[derive(Clone, Copy)]
struct Frame {
    pc: u64,
    sp: u64,
    fp: u64,
}

impl Symbolizer {
    /// The asker on this stack of a process that runs now; `None` if none of its words leads out of
    /// the loader. `code` are addresses at which it had code when it was linked; it is gone if it has
    /// executed another program since.
    pub fn asker(
        &mut self,
        pid: u32,
        stack: &Stack,
        code: &[u64],
    ) -> Result<Option<Asker>, VerifyError> {
        let mut looks = 1;
        let (space, last, found) = loop {
            let space = AddressSpace::of(pid)?;
            if !is_of(&space.process, stack, code) {
                return Err(VerifyError::Gone { pid });
            }
            let mut walk = Walk::new(&space.process, stack, &mut self.steps);
            let found = walk.run();
            let last = walk.last.filter(|addr| walk.in_libc(*addr));
            let nowhere = found.is_some_and(|(addr, _)| space.process.maps.find(addr).is_none());
            if !nowhere || looks == LOOKS_MAX {
                break (space, last, found);
            }
            looks += 1;
        };
        let Some((addr, unwound)) = found else { return Ok(None) };
        let named = last.and_then(|addr| self.resolve_in(&space, addr - 1).symbol);
        let through_libc = named.is_some_and(|name| !is_interface(&name));
        Ok(Some(Asker { place: self.resolve_in(&space, addr), unwound, through_libc }))
    }

    /// Where the frames of this thread of a process that runs now go on, from whoever called the
    /// function that it is in outwards: 32 at most, and no more than can be unwound.
    pub fn callers(&mut self, pid: u32, stack: &Stack) -> Result<Vec<Symbolized>, VerifyError> {
        let space = AddressSpace::of(pid)?;
        let addresses = Walk::new(&space.process, stack, &mut self.steps).callers();
        Ok(addresses.into_iter().map(|addr| self.resolve_in(&space, addr)).collect())
    }
}

/// Whether this memory had this stack, with code at these addresses: they are chosen at random by
/// every exec. Without such code the stack itself must be there still, which a thread can unmap.
fn is_of(process: &Process, stack: &Stack, code: &[u64]) -> bool {
    let mut code = code.iter().filter(|addr| **addr >= RANDOM).peekable();
    if code.peek().is_none() {
        return stack.sp == 0 || process.maps.find(stack.sp).is_some();
    }
    let is_there = |vma: &Vma| vma.exec && vma.is_file();
    code.any(|addr| process.maps.find(*addr).is_some_and(is_there))
}

/// libc's functions that open a library for who calls them: `dlopen`, `dlmopen`,
/// `__libc_dlopen_mode`.
fn is_interface(name: &str) -> bool {
    name.contains("dlopen") || name.contains("dlmopen")
}

// === impl Walk ===

impl<'a> Walk<'a> {
    fn new(process: &'a Process, stack: &'a Stack, steps: &'a mut Steps) -> Self {
        let auxv = process.auxv.unwrap_or_default();
        // Run as a command, the loader is what the kernel started.
        let loader = if auxv.base == 0 { auxv.phdr } else { auxv.base };
        let loader = process.maps.find(loader).filter(|vma| vma.is_file());
        let machine =
            if cfg!(target_arch = "aarch64") { Machine::Aarch64 } else { Machine::X86_64 };
        let files = Vec::new();
        Self { process, stack, loader, files, steps, machine, last: None }
    }

    /// Address and whether it was unwound.
    fn run(&mut self) -> Option<(u64, bool)> {
        match self.unwind() {
            Ok(pc) => Some((pc, true)).filter(|(pc, _)| *pc != 0),
            Err(sp) => self.search(sp).map(|addr| (addr, false)),
        }
    }

    /// The first address outside; else the stack pointer of the last frame.
    fn unwind(&mut self) -> Result<u64, u64> {
        let mut frame = Frame { pc: self.stack.ip, sp: self.stack.sp, fp: self.stack.fp };
        for depth in 0..FRAMES_MAX {
            // A return address may lie behind the last instruction of its function.
            let pc = if depth == 0 { frame.pc } else { frame.pc.wrapping_sub(1) };
            if !self.in_runtime(pc) {
                return Ok(frame.pc);
            }
            self.last = Some(frame.pc);
            match self.step(frame, pc, depth == 0) {
                Some(next) => frame = next,
                None => break,
            }
        }
        Err(frame.sp)
    }

    /// Return addresses outwards. What leads to no code ends them.
    fn callers(&mut self) -> Vec<u64> {
        let mut frame = Frame { pc: self.stack.ip, sp: self.stack.sp, fp: self.stack.fp };
        let mut found = Vec::new();
        while found.len() < CALLERS_MAX {
            let first = found.is_empty();
            let pc = if first { frame.pc } else { frame.pc.wrapping_sub(1) };
            let Some(next) = self.step(frame, pc, first) else { break };
            let before = next.pc.wrapping_sub(1);
            if !self.process.maps.find(before).is_some_and(|vma| vma.exec) {
                break;
            }
            found.push(next.pc);
            frame = next;
        }
        found
    }

    fn step(&mut self, frame: Frame, pc: u64, first: bool) -> Option<Frame> {
        let step = self.rule(pc)?;
        let base = match step.base {
            Base::StackPointer => frame.sp,
            Base::FramePointer => frame.fp,
        };
        // The stack is left upwards only, so this ends.
        let sp = base.checked_add_signed(step.offset).filter(|sp| first || *sp > frame.sp)?;
        let pc = match step.return_address {
            Saved::At(offset) => self.word(sp.checked_add_signed(offset)?)?,
            Saved::Same if first && self.stack.lr != 0 => self.stack.lr,
            Saved::Same | Saved::Lost => return None,
        };
        let fp = match step.frame_pointer {
            Saved::Same => frame.fp,
            Saved::At(offset) => {
                sp.checked_add_signed(offset).and_then(|at| self.word(at)).unwrap_or(0)
            }
            Saved::Lost => 0,
        };
        Some(Frame { pc, sp, fp })
    }

    /// The step of the function at `pc`.
    fn rule(&mut self, pc: u64) -> Option<Step> {
        let vma = self.process.maps.find(pc)?;
        let offset = vma.offset.wrapping_add(pc - vma.start);
        let key = (self.find(vma)?.key, offset);
        if let Some(known) = self.steps.get(&key) {
            return known;
        }
        let (file, headers) = self.open(vma)?;
        let vaddr = headers.vaddr_of(offset, true);
        let step = vaddr.and_then(|vaddr| read_step(file, headers, vaddr));
        self.steps.insert(key, step, 1);
        step
    }

    /// The word at an address of the stack; `None` where it was not told.
    fn word(&self, addr: u64) -> Option<u64> {
        let into = addr.checked_sub(self.stack.sp).filter(|into| into % 8 == 0)?;
        self.stack.words.get(index(into / 8)).copied().filter(|word| *word != 0)
    }

    /// The first word from `sp` on that lies behind a call, outside the loader.
    fn search(&mut self, sp: u64) -> Option<u64> {
        let from = index(sp.saturating_sub(self.stack.sp) / 8);
        let stack = self.stack;
        let words = stack.words.iter().skip(from).copied();
        let register = (from == 0).then_some(stack.lr);
        let mut left = CANDIDATES_MAX;
        for word in register.into_iter().chain(words).filter(|word| *word != 0) {
            let Some(vma) = self.process.maps.find(word).filter(|vma| vma.exec) else { continue };
            left = left.checked_sub(1)?;
            if !self.is_behind_call(vma, word) {
                continue;
            }
            if !self.in_runtime(word) {
                return Some(word);
            }
            self.last = Some(word);
        }
        None
    }

    /// Read from the file, which the process cannot bend for this; without one, from its memory.
    fn is_behind_call(&mut self, vma: &'a Vma, addr: u64) -> bool {
        let len = index(addr - vma.start).min(CALL_BYTES);
        let mut bytes = [0; CALL_BYTES];
        let Some(bytes) = bytes.get_mut(..len).filter(|bytes| !bytes.is_empty()) else {
            return false;
        };
        let back = len as u64;
        let read = if vma.is_file() {
            let offset = vma.offset.wrapping_add(addr - vma.start).wrapping_sub(back);
            self.open(vma).is_some_and(|(file, _)| file.read_exact_at(offset, bytes).is_ok())
        } else {
            self.process.read(addr - back, bytes).is_ok()
        };
        read && ends_in_call(bytes, self.machine)
    }

    /// In the loader, or in the libc that lies beside it: another file of that name is a stranger.
    fn in_runtime(&self, addr: u64) -> bool {
        let Some(vma) = self.process.maps.find(addr).filter(|vma| vma.exec) else { return false };
        self.loader.is_some_and(|loader| {
            loader.same_file(vma)
                || (split(&loader.path).0 == split(&vma.path).0 && is_libc(split(&vma.path).1))
        })
    }

    /// In libc proper, which opens libraries of its own accord.
    fn in_libc(&self, addr: u64) -> bool {
        let vma = self.process.maps.find(addr.wrapping_sub(1));
        let is_other = |vma: &Vma| {
            self.loader.is_some_and(|loader| !loader.same_file(vma))
                && !split(&vma.path).1.starts_with("libdl")
        };
        vma.is_some_and(is_other)
    }

    fn find(&mut self, vma: &'a Vma) -> Option<&mut Found<'a>> {
        if let Some(known) = self.files.iter().position(|found| found.vma.same_file(vma)) {
            return self.files.get_mut(known);
        }
        if !vma.is_file() || self.files.len() >= FILES_MAX {
            return None;
        }
        let key = FileKey::of(&self.process.stat_file(vma).ok()?);
        self.files.push(Found { vma, key, opened: None });
        self.files.last_mut()
    }

    fn open(&mut self, vma: &'a Vma) -> Option<&(File, Headers)> {
        let process = self.process;
        let found = self.find(vma)?;
        if found.opened.is_none() {
            let file = process.open_file(vma).ok()?;
            // What was opened counts: the file may have been written since the stat.
            found.key = FileKey::of(&file.metadata().ok()?);
            let headers = Headers::read(&file).ok()?;
            found.opened = Some((file, headers));
        }
        found.opened.as_ref()
    }
}

/// None yet.
pub(super) fn no_steps() -> Steps {
    Lru::new(STEPS_MAX, STEPS_MAX)
}

/// Directory and name; a file that was replaced meanwhile is still the same kind of file.
fn split(path: &str) -> (&str, &str) {
    let path = path.strip_suffix(" (deleted)").unwrap_or(path);
    path.rsplit_once('/').unwrap_or(("", path))
}

fn is_libc(name: &str) -> bool {
    ["libc.so", "libc-2.", "libdl.so", "libdl-2."].iter().any(|start| name.starts_with(start))
}

/// The last instruction in `bytes` may be a call.
fn ends_in_call(bytes: &[u8], machine: Machine) -> bool {
    match machine {
        Machine::X86_64 | Machine::I386 => ends_in_call_x86(bytes),
        Machine::Aarch64 => bytes.last_chunk::<4>().is_some_and(|word| {
            let word = u32::from_le_bytes(*word);
            // BL; BLR; BLRAA, BLRAB and their zero forms.
            word >> 26 == 0b10_0101
                || word & 0xffff_fc1f == 0xd63f_0000
                || word & 0xfeff_f800 == 0xd63f_0800
        }),
    }
}

/// `call rel32`, or `call` through a register or memory (opcode FF /2) with every form of operand.
fn ends_in_call_x86(bytes: &[u8]) -> bool {
    if bytes.iter().rev().nth(4) == Some(&0xe8) {
        return true;
    }
    (2..=bytes.len()).any(|len| {
        let Some([0xff, modrm, rest @ ..]) = bytes.get(bytes.len() - len..) else { return false };
        let (mode, operand) = (modrm >> 6, modrm & 7);
        let has_index = mode != 3 && operand == 4;
        let displacement = match mode {
            0 if operand == 5 => 4,
            0 if has_index && rest.first().is_some_and(|sib| sib & 7 == 5) => 4,
            1 => 1,
            2 => 4,
            _ => 0,
        };
        modrm >> 3 & 7 == 2 && rest.len() == usize::from(has_index) + displacement
    })
}

#[cfg(test)]
mod tests;
