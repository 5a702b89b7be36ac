//! Names an address of a process: module, offset and symbol, else what its memory is.

use std::os::unix::fs::MetadataExt;

use super::bytes::printable;
use super::layout::{Layout, Module};
use super::process::Process;
use super::report::{ModuleRef, Target};

/// Names an address by module, offset and nearest dynamic symbol, else by its memory.
pub(crate) fn name(process: &Process, layout: &Layout, addr: u64) -> Target {
    let mut target = Target::bare(addr);
    if addr == 0 {
        return target;
    }
    let Some((at, vaddr)) = layout.module_at(addr) else {
        name_memory(process, &mut target);
        return target;
    };
    let module = layout.modules.get(at);
    target.module = module.and_then(Module::module_ref);
    target.offset = Some(vaddr);
    if let Some(object) = module.and_then(|module| module.object())
        && let Some((name, distance)) = object.elf.nearest_symbol(vaddr)
    {
        (target.symbol, target.symbol_offset) = (Some(printable(name)), Some(distance));
    }
    target
}

/// A file that is no module keeps its name; other memory is told by name and permissions.
fn name_memory(process: &Process, target: &mut Target) {
    let Some(vma) = process.area(target.addr) else {
        target.memory = Some("unmapped".to_owned());
        return;
    };
    if vma.is_file() {
        let dev = process.stat_file(vma).map_or(0, |metadata| metadata.dev());
        let path = vma.path.to_string();
        target.module = Some(ModuleRef { path, dev, ino: vma.ino, build_id: None });
        target.offset = Some(vma.offset.wrapping_add(target.addr - vma.start));
    }
    target.memory = Some(vma.describe());
}
