//! What the verifier says of code, as the detectors understand it.

use super::adapters::{module_id, place};
use crate::detect::{CodeChange, Place, StrayCode, WhyChanged};
use crate::verify::{Explanation, ModuleRef, Patch, Report, Stray, shown};

/// Changed code, pages that were written to and are as they were, and what no list accounts for.
pub(super) fn told(report: &Report) -> (Vec<CodeChange>, Vec<Place>, Vec<StrayCode>) {
    let text = &report.text;
    let changes = text.patches.iter().map(change).collect();
    let restored = text.restored.iter().filter(|page| !page.own_probe);
    let restored = restored.map(|page| owned(&page.module, page.addr, page.offset)).collect();
    let strays = text.strays.iter().map(stray).collect::<Vec<_>>();
    let loose = text.loose.iter().map(|loose| StrayCode {
        module: None,
        problem: "belongs to no module",
        address: 0,
        size: loose.bytes,
        memory: loose.memory.clone(),
        differing: None,
        usual: true,
    });
    (changes, restored, strays.into_iter().chain(loose).collect())
}

fn owned(module: &ModuleRef, address: u64, offset: u64) -> Place {
    let module = Some(module_id(module));
    Place { address, module, offset: Some(offset), symbol: None, memory: None }
}

fn change(patch: &Patch) -> CodeChange {
    let offset = patch.vaddr.unwrap_or(patch.offset);
    let symbol = patch.symbol.clone().zip(patch.symbol_offset);
    CodeChange {
        place: Place { symbol, ..owned(&patch.module, patch.addr, offset) },
        length: patch.length,
        expected: shown(&patch.expected),
        actual: shown(&patch.actual),
        expected_code: patch.expected_code.clone(),
        actual_code: patch.actual_code.clone(),
        leads_to: patch.leads_to.clone().map(place),
        why: match &patch.explanation {
            None => WhyChanged::Unknown,
            Some(Explanation::FileChanged) => WhyChanged::FileChanged,
            Some(tool) => WhyChanged::Tool(tool.to_string()),
        },
    }
}

pub(super) fn stray(found: &Stray) -> StrayCode {
    StrayCode {
        module: found.module.as_ref().map(module_id),
        problem: found.kind.clause(),
        address: found.addr,
        size: found.size,
        memory: found.memory.clone(),
        differing: found.differing,
        usual: false,
    }
}
