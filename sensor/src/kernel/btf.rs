//! Reads BTF, the kernel's own type information: bytes to member offsets.
//!
//! Total on any input. Only what a question needs is looked at: one pass notes where each type
//! starts, and names are compared where they lie. Format: Documentation/bpf/btf.rst.

mod error;
mod functions;

pub use self::error::{BtfError, MemberError};
pub use self::functions::{KernelFunction, excerpt};

const MAGIC: u16 = 0xeb9f;
/// Fields of the header this reader knows; later kernels may append more.
const HEADER_LEN: usize = 24;
/// Typedefs, qualifiers and anonymous members followed before a chain counts as a loop.
const DEPTH: u32 = 16;
/// Members looked at per question, nested and of all structs of the name: a kernel needs hundreds.
const MEMBERS_MAX: usize = 1 << 14;
/// More types than this are refused (a 6.18 kernel has 150 000).
const TYPES_MAX: usize = 8 << 20;

/// At the end of a path: the offset is wanted in bits.
const BIT: &str = "#bit";
const KIND_INT: u32 = 1;
const KIND_PTR: u32 = 2;
const KIND_ARRAY: u32 = 3;
const KIND_STRUCT: u32 = 4;
const KIND_UNION: u32 = 5;
const KIND_ENUM: u32 = 6;
const KIND_TYPEDEF: u32 = 8;
const KIND_VOLATILE: u32 = 9;
const KIND_CONST: u32 = 10;
const KIND_RESTRICT: u32 = 11;
const KIND_FUNC: u32 = 12;
const KIND_FUNC_PROTO: u32 = 13;
const KIND_VAR: u32 = 14;
const KIND_DATASEC: u32 = 15;
const KIND_DECL_TAG: u32 = 17;
const KIND_TYPE_TAG: u32 = 18;
const KIND_ENUM64: u32 = 19;

/// Type information, borrowed.
#[derive(Debug)]
pub struct Btf<'a> {
    types: &'a [u8],
    strings: &'a [u8],
    /// Start of each type in `types`; index 0 is type id 1.
    starts: Vec<u32>,
    /// Ids of the structs that have members.
    structs: Vec<u32>,
    /// Set where a type of unknown kind hides all that follow.
    unread: Option<BtfError>,
}

#[derive(Clone, Copy)]
struct Type {
    name: u32,
    info: u32,
    /// Size in bytes, or the id of another type.
    size_or_id: u32,
    /// Where its own entries start in `types`.
    entries: usize,
}

#[derive(Clone, Copy)]
struct Member {
    name: u32,
    type_id: u32,
    bit_offset: u32,
    is_bit_field: bool,
}

impl Type {
    fn kind(self) -> u32 {
        self.info >> 24 & 0x1f
    }

    fn entry_count(self) -> usize {
        // 16 bits, so it fits.
        (self.info & 0xffff) as usize
    }

    fn is_composite(self) -> bool {
        matches!(self.kind(), KIND_STRUCT | KIND_UNION)
    }

    /// Bytes of its entries; `None` for a kind not known.
    fn entries_len(self) -> Option<usize> {
        let each = match self.kind() {
            KIND_STRUCT | KIND_UNION | KIND_DATASEC | KIND_ENUM64 => 12,
            KIND_ENUM | KIND_FUNC_PROTO => 8,
            KIND_INT | KIND_VAR | KIND_DECL_TAG => return Some(4),
            KIND_ARRAY => return Some(12),
            // Also forward, typedef, the qualifiers, function, float, type tag.
            KIND_PTR | 7..=KIND_FUNC | 16 | KIND_TYPE_TAG => return Some(0),
            _ => return None,
        };
        Some(self.entry_count() * each)
    }
}

impl<'a> Btf<'a> {
    /// Reads the header and notes where each type starts.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, BtfError> {
        let magic = half(bytes, 0).ok_or(BtfError::Truncated { what: "magic", at: 0 })?;
        if magic != MAGIC {
            return Err(BtfError::Magic { magic });
        }
        let header_len = header_word(bytes, 4)?;
        if header_len < HEADER_LEN {
            return Err(BtfError::Truncated { what: "header", at: header_len });
        }
        let section = |offset: usize, length: usize, what| {
            let start = header_len.saturating_add(header_word(bytes, offset)?);
            let end = start.saturating_add(header_word(bytes, length)?);
            bytes.get(start..end).ok_or(BtfError::Truncated { what, at: start })
        };
        let types = section(8, 12, "types")?;
        let strings = section(16, 20, "strings")?;
        let mut btf =
            Self { types, strings, starts: Vec::new(), structs: Vec::new(), unread: None };
        btf.index()?;
        Ok(btf)
    }

    /// The first thing this reader does not know, where there is one: whatever is missing may
    /// lie behind it.
    pub fn unread(&self) -> Option<&BtfError> {
        self.unread.as_ref()
    }

    /// How many types were read.
    pub fn len(&self) -> usize {
        self.starts.len()
    }

    /// True if there is not one type.
    pub fn is_empty(&self) -> bool {
        self.starts.is_empty()
    }

    /// Byte offset of `struct.member[.member…]` from the start of the struct.
    ///
    /// Anonymous structs and unions are searched. Several structs of the name are accepted where
    /// all that have the member agree. With `#bit` at the end of the path, the offset is in bits and
    /// the member may be a bit field.
    pub fn member_offset(&self, path: &str) -> Result<u32, MemberError> {
        let mut names = path.strip_suffix(BIT).unwrap_or(path).split('.');
        let outer = names.next().unwrap_or_default();
        let members: Vec<&str> = names.collect();
        if outer.is_empty() || members.is_empty() || members.iter().any(|name| name.is_empty()) {
            return Err(MemberError::BadPath { path: path.to_owned() });
        }
        let candidates = self.structs_named(outer);
        if candidates.is_empty() {
            return Err(MemberError::NoStruct { name: outer.to_owned() });
        }
        let (mut found, mut failed) = (None, None);
        let mut budget = MEMBERS_MAX;
        for candidate in &candidates {
            match self.resolve(*candidate, &members, path, &mut budget) {
                Ok(offset) if found.is_none_or(|other| other == offset) => found = Some(offset),
                Ok(_) => {
                    return Err(MemberError::Ambiguous {
                        name: outer.to_owned(),
                        path: path.to_owned(),
                        count: candidates.len(),
                    });
                }
                Err(error) => failed = Some(error),
            }
        }
        match (found, failed) {
            (Some(offset), _) => Ok(offset),
            (None, Some(error)) => Err(error),
            (None, None) => Err(MemberError::NoStruct { name: outer.to_owned() }),
        }
    }

    /// Size of a struct, bytes; `None` if there is none of the name or several that disagree.
    pub fn struct_size(&self, name: &str) -> Option<u32> {
        let sizes: Vec<u32> =
            self.structs_named(name).into_iter().map(|found| found.size_or_id).collect();
        let first = *sizes.first()?;
        sizes.iter().all(|size| *size == first).then_some(first)
    }

    fn index(&mut self) -> Result<(), BtfError> {
        let mut at = 0;
        while at < self.types.len() {
            let id = self.starts.len() + 1;
            if id > TYPES_MAX {
                return Err(BtfError::TooManyTypes);
            }
            let truncated = BtfError::Truncated { what: "a type", at };
            let Some(each) = self.type_from(at) else { return Err(truncated) };
            let Some(len) = each.entries_len() else {
                self.unread = Some(BtfError::UnknownKind { id, kind: each.kind() });
                return Ok(());
            };
            let end = each.entries + len;
            if end > self.types.len() {
                return Err(truncated);
            }
            let (Ok(start), Ok(number)) = (u32::try_from(at), u32::try_from(id)) else {
                return Err(truncated);
            };
            self.starts.push(start);
            if each.kind() == KIND_STRUCT && each.entry_count() > 0 {
                self.structs.push(number);
            }
            at = end;
        }
        Ok(())
    }

    fn type_from(&self, at: usize) -> Option<Type> {
        Some(Type {
            name: word(self.types, at)?,
            info: word(self.types, at + 4)?,
            size_or_id: word(self.types, at + 8)?,
            entries: at + 12,
        })
    }

    fn type_at(&self, id: usize) -> Option<Type> {
        let start = *self.starts.get(id.checked_sub(1)?)?;
        self.type_from(usize::try_from(start).ok()?)
    }

    fn type_by_id(&self, id: u32) -> Option<Type> {
        self.type_at(usize::try_from(id).ok()?)
    }

    fn name(&self, offset: u32) -> Option<&'a [u8]> {
        let rest = self.strings.get(usize::try_from(offset).ok()?..)?;
        let len = rest.iter().position(|byte| *byte == 0)?;
        rest.get(..len)
    }

    fn is_named(&self, offset: u32, name: &str) -> bool {
        let Some(start) = usize::try_from(offset).ok() else { return false };
        let end = start.saturating_add(name.len());
        self.strings.get(start..end) == Some(name.as_bytes()) && self.strings.get(end) == Some(&0)
    }

    /// Every struct of that name that has members (a forward declaration is of another kind).
    fn structs_named(&self, name: &str) -> Vec<Type> {
        self.structs
            .iter()
            .filter_map(|id| self.type_by_id(*id))
            .filter(|each| self.is_named(each.name, name))
            .collect()
    }

    fn resolve(
        &self,
        outer: Type,
        members: &[&str],
        path: &str,
        budget: &mut usize,
    ) -> Result<u32, MemberError> {
        let inconsistent = || MemberError::Inconsistent { path: path.to_owned() };
        let mut inside = outer;
        let mut bits = 0_u32;
        for (index, name) in members.iter().enumerate() {
            if index > 0 && !inside.is_composite() {
                return Err(MemberError::NoMember {
                    member: (*name).to_owned(),
                    path: path.to_owned(),
                });
            }
            let (member, before) = self.find(inside, name, 0, budget).ok_or_else(|| {
                MemberError::NoMember { member: (*name).to_owned(), path: path.to_owned() }
            })?;
            let offset = before.checked_add(member.bit_offset).ok_or_else(inconsistent)?;
            bits = bits.checked_add(offset).ok_or_else(inconsistent)?;
            let is_bits = member.is_bit_field || !bits.is_multiple_of(8);
            if is_bits && !(path.ends_with(BIT) && index + 1 == members.len()) {
                return Err(MemberError::BitField { path: path.to_owned() });
            }
            inside = self.strip(member.type_id).ok_or_else(inconsistent)?;
        }
        Ok(if path.ends_with(BIT) { bits } else { bits / 8 })
    }

    /// The member of that name and the bits before its innermost struct.
    fn find(
        &self,
        inside: Type,
        name: &str,
        depth: u32,
        budget: &mut usize,
    ) -> Option<(Member, u32)> {
        *budget = budget.checked_sub(1 + inside.entry_count())?;
        if depth > DEPTH || !inside.is_composite() {
            return None;
        }
        let members = || (0..inside.entry_count()).filter_map(|index| self.member(inside, index));
        if let Some(found) = members().find(|member| self.is_named(member.name, name)) {
            return Some((found, 0));
        }
        members().filter(|member| self.is_named(member.name, "")).find_map(|anonymous| {
            let nested = self.strip(anonymous.type_id)?;
            let (found, before) = self.find(nested, name, depth + 1, budget)?;
            Some((found, before.checked_add(anonymous.bit_offset)?))
        })
    }

    fn member(&self, inside: Type, index: usize) -> Option<Member> {
        let at = inside.entries + index * 12;
        let offset = word(self.types, at + 8)?;
        // With the kind flag the upper byte is the width of a bit field.
        let has_width = inside.info >> 31 != 0;
        Some(Member {
            name: word(self.types, at)?,
            type_id: word(self.types, at + 4)?,
            bit_offset: if has_width { offset & 0x00ff_ffff } else { offset },
            is_bit_field: has_width && offset >> 24 != 0,
        })
    }

    /// The type behind typedefs and qualifiers. `void` (id 0) has none.
    fn strip(&self, mut id: u32) -> Option<Type> {
        for _ in 0..DEPTH {
            let each = self.type_by_id(id)?;
            match each.kind() {
                KIND_TYPEDEF | KIND_VOLATILE | KIND_CONST | KIND_RESTRICT | KIND_TYPE_TAG => {
                    id = each.size_or_id;
                }
                _ => return Some(each),
            }
        }
        None
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().copied().map(u32::from_ne_bytes)
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().copied().map(u16::from_ne_bytes)
}

fn header_word(bytes: &[u8], at: usize) -> Result<usize, BtfError> {
    word(bytes, at)
        .and_then(|value| usize::try_from(value).ok())
        .ok_or(BtfError::Truncated { what: "header", at })
}

#[cfg(test)]
#[path = "btf/tests.rs"]
mod tests;
