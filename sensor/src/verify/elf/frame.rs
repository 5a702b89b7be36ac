//! How one frame leads to its caller's: call frame information of `.eh_frame` (LSB, "DWARF
//! Extensions"; DWARF 5, section 6.4), for the two registers a walk needs.
//!
//! Covers what compilers emit for C: a frame address by stack or frame pointer. Everything else,
//! frame addresses by expression for one, is `None`, and who walks must do without.

use super::super::bytes::{cstr_at, u32_at};
use super::{Headers, Machine, ReadAt};

/// `DW_EH_PE_pcrel | DW_EH_PE_sdata4`: what GNU and LLVM toolchains encode addresses as.
const PCREL_SDATA4: u8 = 0x1b;
/// Bytes of one CIE or FDE; those of real files have under a thousand.
const RECORD_MAX: u64 = 16 << 10;
/// Nested `DW_CFA_remember_state`.
const REMEMBERED_MAX: usize = 16;

/// Where a frame's own address is taken from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Base {
    StackPointer,
    FramePointer,
}

/// Where a caller's register is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Saved {
    /// Still in the register.
    Same,
    /// In memory, so many bytes from the frame address.
    At(i64),
    /// Not to be told.
    Lost,
}

/// From a frame to its caller's: the frame address (CFA), which is the caller's stack pointer, is
/// `base + offset`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Step {
    pub(crate) base: Base,
    pub(crate) offset: i64,
    pub(crate) return_address: Saved,
    pub(crate) frame_pointer: Saved,
}

/// DWARF numbers of the registers followed.
#[derive(Clone, Copy)]
struct Numbers {
    stack_pointer: u64,
    frame_pointer: u64,
}

/// What all functions of one CIE share.
struct Common {
    code_align: u64,
    data_align: i64,
    return_register: u64,
    instructions: Vec<u8>,
    numbers: Numbers,
    augmented: bool,
}

/// The rules at one place of a function.
#[derive(Clone, Copy)]
struct Row {
    cfa: Option<(u64, i64)>,
    return_address: Saved,
    frame_pointer: Saved,
}

struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

/// The step at `vaddr`; `None` where the file has no record for it, or one that is not covered.
pub(crate) fn read_step<R: ReadAt + ?Sized>(
    source: &R,
    headers: &Headers,
    vaddr: u64,
) -> Option<Step> {
    let at = find_record(source, headers, vaddr)?;
    let (body, body_at) = read_record(source, headers, at)?;
    let back = u64::from(u32_at(&body, 0)?);
    let (cie, _) = read_record(source, headers, body_at.checked_sub(back)?)?;
    let common = Common::parse(&cie, headers.machine)?;
    let mut cursor = Cursor { bytes: &body, at: 4 };
    let start = body_at.checked_add(4)?.checked_add_signed(cursor.i32()?.into())?;
    let len = u64::from(cursor.u32()?);
    let into = vaddr.checked_sub(start).filter(|into| *into < len)?;
    if common.augmented {
        let skipped = cursor.uleb()?;
        cursor.skip(skipped)?;
    }
    let row = common.row(cursor.rest()?, into)?;
    let (register, offset) = row.cfa?;
    let base = match register {
        _ if register == common.numbers.stack_pointer => Base::StackPointer,
        _ if register == common.numbers.frame_pointer => Base::FramePointer,
        _ => return None,
    };
    let Row { return_address, frame_pointer, .. } = row;
    Some(Step { base, offset, return_address, frame_pointer })
}

/// Address of the record for `vaddr`, by the binary search table of `.eh_frame_hdr`.
fn find_record<R: ReadAt + ?Sized>(source: &R, headers: &Headers, vaddr: u64) -> Option<u64> {
    const HEAD: u64 = 12;
    let (at, size) = headers.eh_frame_hdr?;
    let head = headers.read_vaddr(source, "eh_frame_hdr", at, HEAD.min(size)).ok()?;
    // Version 1; how the pointer to .eh_frame is encoded does not matter; udata4; datarel | sdata4.
    let [1, pointer, 0x03, 0x3b] = *head.first_chunk::<4>()? else { return None };
    if pointer & 0x0f != 0x0b && pointer & 0x0f != 0x03 {
        return None;
    }
    let count = u64::from(u32_at(&head, 8)?).min(size.saturating_sub(HEAD) / 8);
    let entry = |number: u64| {
        let from = at.checked_add(HEAD + number * 8)?;
        let bytes = headers.read_vaddr(source, "eh_frame_hdr", from, 8).ok()?;
        let relative = |from: usize| Some(i32::from_le_bytes(*bytes.get(from..)?.first_chunk()?));
        let place = |from| at.checked_add_signed(relative(from)?.into());
        Some((place(0)?, place(4)?))
    };
    let (mut low, mut high) = (0, count);
    while low < high {
        let middle = low + (high - low) / 2;
        if entry(middle)?.0 <= vaddr {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    Some(entry(low.checked_sub(1)?)?.1)
}

/// A record without its length, and its own address.
fn read_record<R: ReadAt + ?Sized>(
    source: &R,
    headers: &Headers,
    at: u64,
) -> Option<(Vec<u8>, u64)> {
    let head = headers.read_vaddr(source, "eh_frame", at, 4).ok()?;
    // All ones announce a 64-bit length, which nobody needs.
    let len = Some(u64::from(u32_at(&head, 0)?)).filter(|len| (4..RECORD_MAX).contains(len))?;
    let body = at.checked_add(4)?;
    Some((headers.read_vaddr(source, "eh_frame", body, len).ok()?, body))
}

// === impl Common ===

impl Common {
    fn parse(cie: &[u8], machine: Machine) -> Option<Self> {
        let numbers = match machine {
            Machine::X86_64 => Numbers { stack_pointer: 7, frame_pointer: 6 },
            Machine::Aarch64 => Numbers { stack_pointer: 31, frame_pointer: 29 },
            // Stacks are told in words of eight bytes.
            Machine::I386 => return None,
        };
        let version = *cie.get(4)?;
        if u32_at(cie, 0)? != 0 || !matches!(version, 1 | 3) {
            return None;
        }
        let augmentation = cstr_at(cie, 5)?;
        let mut cursor = Cursor { bytes: cie, at: 6 + augmentation.len() };
        let code_align = cursor.uleb()?;
        let data_align = cursor.sleb()?;
        let return_register =
            if version == 1 { u64::from(cursor.byte()?) } else { cursor.uleb()? };
        let mut encoding = 0;
        let augmented = match augmentation.split_first() {
            None => false,
            Some((b'z', letters)) => {
                let len = cursor.uleb()?;
                let mut data = Cursor { bytes: cursor.take(len)?, at: 0 };
                for letter in letters {
                    match letter {
                        b'R' => encoding = data.byte()?,
                        b'L' => drop(data.byte()?),
                        b'P' => data.skip_pointer()?,
                        b'B' | b'G' => {}
                        // With S it is a signal handler's: what it interrupted is not its caller.
                        _ => return None,
                    }
                }
                true
            }
            Some(_) => return None,
        };
        (encoding == PCREL_SDATA4).then_some(())?;
        let instructions = cursor.rest()?.to_vec();
        Some(Self { code_align, data_align, return_register, instructions, numbers, augmented })
    }

    /// Runs the instructions up to the place `into` bytes into the function.
    fn row(&self, instructions: &[u8], into: u64) -> Option<Row> {
        let row = Row { cfa: None, return_address: Saved::Same, frame_pointer: Saved::Same };
        let first = self.run(&self.instructions, row, None, u64::MAX)?;
        self.run(instructions, first, Some(first), into)
    }

    fn run(&self, bytes: &[u8], mut row: Row, first: Option<Row>, into: u64) -> Option<Row> {
        let mut cursor = Cursor { bytes, at: 0 };
        let mut remembered = Vec::new();
        let mut place = 0_u64;
        while let Some(op) = cursor.byte() {
            let low = u64::from(op & 0x3f);
            let advance = match (op >> 6, op) {
                (1, _) => Some(low),
                (0, 0x02) => Some(cursor.byte()?.into()),
                (0, 0x03) => Some(cursor.u16()?.into()),
                (0, 0x04) => Some(cursor.u32()?.into()),
                _ => None,
            };
            if let Some(delta) = advance {
                place = place.checked_add(delta.checked_mul(self.code_align)?)?;
                if place > into {
                    break;
                }
                continue;
            }
            match (op >> 6, op) {
                (2, _) => {
                    let offset = self.scaled(cursor.uleb()?)?;
                    self.set(&mut row, low, Saved::At(offset));
                }
                (3, _) => self.restore(&mut row, low, first?),
                (0, 0x0a) if remembered.len() < REMEMBERED_MAX => remembered.push(row),
                (0, 0x0b) => row = remembered.pop()?,
                (0, _) => self.extended(op, &mut cursor, &mut row, first)?,
                _ => return None,
            }
        }
        Some(row)
    }

    fn extended(
        &self,
        op: u8,
        cursor: &mut Cursor<'_>,
        row: &mut Row,
        first: Option<Row>,
    ) -> Option<()> {
        match op {
            0x05 => {
                let (register, offset) = (cursor.uleb()?, self.scaled(cursor.uleb()?)?);
                self.set(row, register, Saved::At(offset));
            }
            0x06 => self.restore(row, cursor.uleb()?, first?),
            0x07 => self.set(row, cursor.uleb()?, Saved::Lost),
            0x08 => self.set(row, cursor.uleb()?, Saved::Same),
            // In another register, or a value that is not in memory.
            0x09 | 0x14 => {
                let (register, _) = (cursor.uleb()?, cursor.uleb()?);
                self.set(row, register, Saved::Lost);
            }
            0x15 => {
                let (register, _) = (cursor.uleb()?, cursor.sleb()?);
                self.set(row, register, Saved::Lost);
            }
            0x0c => row.cfa = Some((cursor.uleb()?, i64::try_from(cursor.uleb()?).ok()?)),
            0x0d => row.cfa = Some((cursor.uleb()?, row.cfa?.1)),
            0x0e => row.cfa = Some((row.cfa?.0, i64::try_from(cursor.uleb()?).ok()?)),
            0x0f => {
                let len = cursor.uleb()?;
                cursor.skip(len)?;
                row.cfa = None;
            }
            0x10 | 0x16 => {
                let (register, len) = (cursor.uleb()?, cursor.uleb()?);
                cursor.skip(len)?;
                self.set(row, register, Saved::Lost);
            }
            0x11 => {
                let register = cursor.uleb()?;
                let offset = cursor.sleb()?.checked_mul(self.data_align)?;
                self.set(row, register, Saved::At(offset));
            }
            0x12 => {
                let register = cursor.uleb()?;
                row.cfa = Some((register, cursor.sleb()?.checked_mul(self.data_align)?));
            }
            0x13 => {
                let offset = cursor.sleb()?.checked_mul(self.data_align)?;
                row.cfa = Some((row.cfa?.0, offset));
            }
            // Signed return addresses (aarch64) are told without their signature; the size of
            // arguments matters to exceptions only.
            0x00 | 0x2d => {}
            0x2e => drop(cursor.uleb()?),
            _ => return None,
        }
        Some(())
    }

    fn scaled(&self, offset: u64) -> Option<i64> {
        i64::try_from(offset).ok()?.checked_mul(self.data_align)
    }

    fn set(&self, row: &mut Row, register: u64, saved: Saved) {
        if register == self.return_register {
            row.return_address = saved;
        } else if register == self.numbers.frame_pointer {
            row.frame_pointer = saved;
        }
    }

    fn restore(&self, row: &mut Row, register: u64, first: Row) {
        let Row { return_address, frame_pointer, .. } = first;
        let saved = if register == self.return_register { return_address } else { frame_pointer };
        self.set(row, register, saved);
    }
}

// === impl Cursor ===

impl<'a> Cursor<'a> {
    fn byte(&mut self) -> Option<u8> {
        let byte = *self.bytes.get(self.at)?;
        self.at += 1;
        Some(byte)
    }

    fn u16(&mut self) -> Option<u16> {
        Some(u16::from_le_bytes([self.byte()?, self.byte()?]))
    }

    fn u32(&mut self) -> Option<u32> {
        Some(u32::from_le_bytes(*self.take(4)?.first_chunk()?))
    }

    fn i32(&mut self) -> Option<i32> {
        Some(i32::from_le_bytes(*self.take(4)?.first_chunk()?))
    }

    fn take(&mut self, len: u64) -> Option<&'a [u8]> {
        let end = self.at.checked_add(usize::try_from(len).ok()?)?;
        let taken = self.bytes.get(self.at..end)?;
        self.at = end;
        Some(taken)
    }

    fn skip(&mut self, len: u64) -> Option<()> {
        self.take(len).map(|_| ())
    }

    fn rest(&self) -> Option<&'a [u8]> {
        self.bytes.get(self.at..)
    }

    /// The personality routine, of which only the size matters.
    fn skip_pointer(&mut self) -> Option<()> {
        let size = match self.byte()? & 0x0f {
            0x00 | 0x04 | 0x0c => 8,
            0x03 | 0x0b => 4,
            0x02 | 0x0a => 2,
            _ => return None,
        };
        self.skip(size)
    }

    fn uleb(&mut self) -> Option<u64> {
        let (value, _, _) = self.leb()?;
        Some(value)
    }

    fn sleb(&mut self) -> Option<i64> {
        let (value, bits, last) = self.leb()?;
        let sign = if last & 0x40 != 0 && bits < 64 { u64::MAX << bits } else { 0 };
        Some((value | sign).cast_signed())
    }

    /// Value, bits read and the last byte.
    fn leb(&mut self) -> Option<(u64, u32, u8)> {
        let (mut value, mut bits) = (0_u64, 0);
        loop {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f).checked_shl(bits)?;
            bits += 7;
            if byte & 0x80 == 0 {
                return Some((value, bits, byte));
            }
        }
    }
}

#[cfg(test)]
mod tests;
