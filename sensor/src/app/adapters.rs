//! The symboliser as the host asks for it, and its words for places.

use rustix::fs::{major, minor};

use crate::detect::Place;
use crate::event::{FileKey, Stack};
use crate::host::{Asked, Locate, Located, ModuleId, Unseen};
use crate::symbol::{AddressSpace, Symbolized, Symbolizer};
use crate::verify::{ModuleRef, Target, VerifyError};

/// Finds addresses through the maps of live processes.
#[derive(Debug, Default)]
pub(super) struct Places(Symbolizer);

// === impl Places ===

impl Locate for Places {
    fn locate(&mut self, tgid: u32, addresses: &[u64]) -> Vec<Option<Located>> {
        let Ok(space) = AddressSpace::of(tgid) else { return vec![None; addresses.len()] };
        addresses.iter().map(|address| located(self.0.resolve_in(&space, *address))).collect()
    }

    fn asker(&mut self, tgid: u32, stack: &Stack, code: &[u64]) -> Result<Asked, Unseen> {
        let asker = self.0.asker(tgid, stack, code).map_err(|error| match error {
            VerifyError::Gone { .. } | VerifyError::NoMemory { .. } => Unseen::Gone,
            _ => Unseen::Unread,
        })?;
        let asker = asker.ok_or(Unseen::Unread)?;
        let (unwound, through_libc) = (asker.unwound, asker.through_libc);
        let gone = Located {
            module: ModuleId { path: asker.place.memory.clone(), build: "inode:none".to_owned() },
            offset: asker.place.addr,
            symbol: None,
        };
        let place = located(asker.place).unwrap_or(gone);
        Ok(Asked { place, unwound, through_libc })
    }

    fn callers(&mut self, tgid: u32, stack: &Stack) -> Vec<Located> {
        let callers = self.0.callers(tgid, stack).unwrap_or_default();
        // What nothing is mapped at any more ends them.
        callers.into_iter().map_while(located).collect()
    }
}

fn located(found: Symbolized) -> Option<Located> {
    let module = match &found.module {
        Some(module) if found.unread.is_some() => {
            ModuleId::unread(module.path.clone(), &key(module))
        }
        Some(module) => module_id(module),
        None if found.memory == "unmapped" => return None,
        None => ModuleId { path: found.memory, build: "inode:none".to_owned() },
    };
    Some(Located {
        module,
        offset: found.vaddr.or(found.file_offset).unwrap_or(found.addr),
        symbol: found.symbol.zip(found.symbol_offset),
    })
}

pub(super) fn place(target: Target) -> Place {
    Place {
        address: target.addr,
        module: target.module.as_ref().map(module_id),
        offset: target.offset,
        symbol: target.symbol.zip(target.symbol_offset),
        memory: target.memory,
    }
}

pub(super) fn module_id(module: &ModuleRef) -> ModuleId {
    ModuleId::new(module.path.clone(), module.build_id.clone(), &key(module))
}

fn key(module: &ModuleRef) -> FileKey {
    let dev = major(module.dev) << 20 | minor(module.dev);
    FileKey { ino: module.ino, dev, ..FileKey::default() }
}
