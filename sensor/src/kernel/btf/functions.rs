//! Kernel functions by name, and type information cut down to them.

use std::collections::BTreeMap;

use super::{Btf, HEADER_LEN, KIND_FUNC, KIND_FUNC_PROTO, KIND_PTR, KIND_TYPEDEF, MAGIC};

const KIND_FORWARD: u32 = 7;
/// Header of a type without entries, bytes.
const TYPE_LEN: u32 = 12;
/// Of BTF, since it exists.
const VERSION: u8 = 1;

/// A function of the running kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KernelFunction {
    /// Its symbol.
    pub name: &'static str,
    /// Its type id, by which a program is bound to it.
    pub id: u32,
}

impl Btf<'_> {
    /// Which of `names` are functions of the kernel, by one pass; the first of several of one name.
    pub fn functions(&self, names: &[&'static str]) -> Vec<KernelFunction> {
        let mut wanted: BTreeMap<&[u8], &'static str> =
            names.iter().map(|name| (name.as_bytes(), *name)).collect();
        let mut found = Vec::new();
        for id in 1..=u32::try_from(self.len()).unwrap_or(u32::MAX) {
            let Some(each) = self.type_by_id(id) else { continue };
            if each.kind() != KIND_FUNC {
                continue;
            }
            if let Some(name) = self.name(each.name).and_then(|name| wanted.remove(name)) {
                found.push(KernelFunction { name, id });
            }
        }
        found
    }

    /// How many arguments a program at the raw tracepoint `name` gets; `None` where there is no
    /// such tracepoint.
    ///
    /// `include/trace/bpf_probe.h` declares a pointer to the probe's function by this name, whose
    /// first parameter is for the kernel itself.
    pub fn tracepoint_arguments(&self, name: &str) -> Option<u32> {
        let wanted = format!("btf_trace_{name}");
        let types = 1..=u32::try_from(self.len()).unwrap_or(u32::MAX);
        let typedef = types
            .filter_map(|id| self.type_by_id(id))
            .find(|each| each.kind() == KIND_TYPEDEF && self.is_named(each.name, &wanted))?;
        let pointer = self.type_by_id(typedef.size_or_id).filter(|it| it.kind() == KIND_PTR)?;
        let proto = self.type_by_id(pointer.size_or_id)?;
        let parameters = u32::try_from(proto.entry_count()).ok()?;
        (proto.kind() == KIND_FUNC_PROTO).then(|| parameters.checked_sub(1)).flatten()
    }
}

/// BTF in which every one of `functions` has its id, and every other type is an empty one.
///
/// For a library that wants the whole of the kernel's type information to look up an id. Parsed,
/// the whole is tens of thousands of small allocations, which a heap that has grown around them
/// does not give back (15 MB of a 6.18 kernel's); this is two arrays.
pub fn excerpt(functions: &[KernelFunction]) -> Vec<u8> {
    let names: BTreeMap<u32, &str> = functions.iter().map(|each| (each.id, each.name)).collect();
    let last = names.last_key_value().map_or(0, |(id, _)| *id);
    let mut types: Vec<u32> = Vec::new();
    let mut strings = vec![0_u8];
    for id in 1..=last {
        let (name, kind) = match names.get(&id) {
            Some(name) => {
                let at = u32::try_from(strings.len()).unwrap_or(0);
                strings.extend_from_slice(name.as_bytes());
                strings.push(0);
                (at, KIND_FUNC)
            }
            None => (0, KIND_FORWARD),
        };
        types.extend([name, kind << 24, 0]);
    }
    let types_len = last.saturating_mul(TYPE_LEN);
    let strings_len = u32::try_from(strings.len()).unwrap_or(0);
    let header_len = u32::try_from(HEADER_LEN).unwrap_or(0);
    let mut bytes = MAGIC.to_ne_bytes().to_vec();
    bytes.extend([VERSION, 0]);
    for word in [header_len, 0, types_len, types_len, strings_len].into_iter().chain(types) {
        bytes.extend(word.to_ne_bytes());
    }
    bytes.extend(strings);
    bytes
}
