//! What a check tells of debuggers, profilers and tracers at work in a process.

use super::check::{Category, CheckReport, Mismatch};
use super::{Place, World};
use crate::finding::Evidence;
use crate::tool;

/// Names the instruments whose libraries a report speaks of: whoever reads of patched code should
/// not have to know what each of them looks like.
pub(super) fn named(report: &CheckReport) -> Option<Evidence> {
    let actual = report.mismatches.iter().map(|mismatch| &mismatch.actual);
    let patched =
        report.changes.iter().flat_map(|change| [Some(&change.place), change.leads_to.as_ref()]);
    let places = actual.chain(patched.flatten()).map(Place::owner_path);
    let strays = report.strays.iter().filter_map(|stray| Some(stray.module.as_ref()?.path.clone()));
    let mut found: Vec<String> = places
        .chain(strays)
        .filter_map(|path| Some(format!("{} ({})", tool::by_library(&path)?.name, shown(&path))))
        .collect();
    found.sort_unstable();
    found.dedup();
    let found = found.join(", ");
    (!found.is_empty()).then(|| Evidence::Note {
        text: format!("In this process by the name of its library: {found}"),
    })
}

/// What accounts for redirected slots: one instrument that is meant to fill just these, from the
/// distribution's own package. In guarded programs nothing does, nor in containers: packages are known
/// by path.
pub(super) fn explain(slots: &[&Mismatch], world: &World<'_>) -> Option<String> {
    let library = slots.first()?.actual.module.as_ref()?;
    let tool = tool::by_library(&library.path)?;
    let is_meant = |slot: &&Mismatch| {
        slot.category == Category::Redirected
            && slot.actual.module.as_ref() == Some(library)
            && slot.symbol.as_deref().is_some_and(|function| tool.rewires(function))
    };
    if !slots.iter().all(is_meant) {
        return None;
    }
    Some(format!("{}, {}", tool.name, world.packages.brought(&library.path)?))
}

fn shown(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::baseline::Baseline;
    use crate::config::Config;
    use crate::detect::{Brought, StrayCode};
    use crate::event::FileKey;
    use crate::host::ModuleId;
    use crate::package::Owned;

    const INJECTED: &str = "/usr/lib/heaptrack/libheaptrack_inject.so";

    /// The only file that is what its package brought.
    #[derive(Debug)]
    struct Genuine(&'static str);

    impl Brought for Genuine {
        fn brought(&self, path: &str) -> Option<String> {
            (path == self.0).then(|| "package heaptrack 1.4.0-1".to_owned())
        }

        fn foreign(&self, path: &str) -> bool {
            path != self.0
        }

        fn vouched(&self, _module: &ModuleId, _file: Option<&FileKey>) -> Option<&Owned> {
            None
        }
    }

    fn module(path: &str) -> ModuleId {
        ModuleId { path: path.to_owned(), build: "ab".to_owned() }
    }

    fn slot(function: &str, into: &str) -> Mismatch {
        let place = |path| Place { module: Some(module(path)), ..Place::default() };
        Mismatch {
            module: module("/usr/bin/make"),
            slot: 0x4000,
            kind: "JUMP_SLOT".to_owned(),
            category: Category::Redirected,
            sealed: false,
            symbol: Some(function.to_owned()),
            version: None,
            expected: place("/usr/lib/libc.so.6"),
            actual: place(into),
        }
    }

    fn explained(slots: &[Mismatch], genuine: &'static str) -> Option<String> {
        let config = Config::default();
        let world = World {
            own: &Baseline::default(),
            login: None,
            detect: &config.detect,
            learning: &config.learning,
            packages: &Genuine(genuine),
        };
        explain(&slots.iter().collect::<Vec<_>>(), &world)
    }

    #[test]
    fn a_heap_profiler_of_a_package_accounts_for_the_allocators_slots() {
        let slots = [slot("malloc", INJECTED), slot("dlopen", INJECTED)];
        let why = explained(&slots, INJECTED);
        assert_eq!(why.as_deref(), Some("heaptrack, package heaptrack 1.4.0-1"));
    }

    #[test]
    fn neither_its_name_alone_nor_another_function_is_excused() {
        let slots = [slot("malloc", INJECTED)];
        assert_eq!(explained(&slots, "/elsewhere"), None);
        let more = [slot("malloc", INJECTED), slot("RSA_public_decrypt", INJECTED)];
        assert_eq!(explained(&more, INJECTED), None);
        let beside = [slot("malloc", INJECTED), slot("malloc", "/tmp/libheaptrack_inject.so")];
        assert_eq!(explained(&beside, INJECTED), None);
        assert_eq!(explained(&[slot("malloc", "/usr/lib/libx.so")], "/usr/lib/libx.so"), None);
        assert_eq!(explained(&[], INJECTED), None);
    }

    #[test]
    fn an_instrument_is_named_wherever_a_report_speaks_of_it() {
        let agent = "/memfd:frida-agent-64.so (deleted)";
        let stray = StrayCode {
            module: Some(module(agent)),
            problem: "is mapped as code and in no list of the loader",
            address: 1,
            size: 1,
            memory: String::new(),
            differing: None,
            usual: false,
        };
        let report = CheckReport { strays: vec![stray], ..CheckReport::default() };
        let Some(Evidence::Note { text }) = named(&report) else { panic!("{:?}", named(&report)) };
        assert!(text.contains("Frida") && text.contains("frida-agent-64.so"), "{text}");
        let slots = CheckReport { mismatches: vec![slot("malloc", INJECTED)], ..report };
        let Some(Evidence::Note { text }) = named(&slots) else { panic!() };
        assert!(text.contains("Frida") && text.contains("heaptrack"), "{text}");
        assert_eq!(named(&CheckReport::default()), None);
    }
}
