//! Instruments that nobody here wrote, at work in a process: found, and named as what they are.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use sensor::tool;
use sensor::verify::{Explanation, Limits, Report, SlotMismatch, StrayKind, Verifier};

use crate::fixture::{Child, Workshop, command, have, wait_for};

fn check(pid: u32) -> Report {
    Verifier::new(Limits::default()).check(pid).unwrap()
}

fn name(path: &str) -> Option<&'static str> {
    tool::by_library(path).map(|tool| tool.name)
}

/// The Python that has Frida, which `cargo xtask setup` puts below `target`.
fn python_with_frida() -> Option<PathBuf> {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent()?;
    let python = target.join("tools/frida/bin/python3");
    if !python.is_file() {
        println!("{} is not there: Frida is not tested", python.display());
        return None;
    }
    Some(python)
}

#[test]
fn frida_is_found_attached_and_hooking_and_leaves_a_trace() {
    let Some(python) = python_with_frida() else { return };
    let shop = Workshop::new();
    let mut child = Child::ready(&mut command(shop.cc("victim.c", "victim", &["-pie"])));
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/verify/drive_frida.py");
    let mut frida = command(python);
    let mut frida = Child::start(frida.arg(script).arg(child.pid().to_string()));
    assert_eq!(frida.line(), "attached");
    let attached = check(child.pid());
    let unlisted = attached.text.strays.iter().filter(|stray| stray.kind == StrayKind::Unlisted);
    let agents: Vec<_> = unlisted.filter_map(|stray| name(&stray.module.as_ref()?.path)).collect();
    assert_eq!(agents, ["Frida"], "{:#?}", attached.text.strays);

    assert_eq!(frida.ask("hook"), "hooked");
    let hooked = check(child.pid());
    let functions: Vec<_> =
        hooked.text.unexplained().filter_map(|one| one.symbol.clone()).collect();
    let of_getppid = functions.iter().filter(|function| function.ends_with("getppid"));
    assert_eq!(of_getppid.count(), 1, "{functions:?}");
    child.assert_answers();

    assert_eq!(frida.ask("detach"), "detached");
    // It goes on unloading its agent after it has said so.
    let left = wait_for("Frida's way out", || {
        let report = check(child.pid());
        report.is_clean().then_some(report)
    });
    let restored = left.text.restored.iter().any(|page| page.module.path.contains("libc.so"));
    assert!(restored, "{:#?}", left.text.restored);
    child.assert_answers();
}

#[test]
fn heaptrack_in_a_running_process_is_found_in_just_the_slots_it_is_made_for() {
    if !have("heaptrack") || !have("gdb") {
        return;
    }
    let shop = Workshop::new();
    let child = Child::ready(&mut command(shop.cc("allocating.c", "allocating", &["-pie"])));
    let mut heaptrack = command("heaptrack");
    heaptrack.arg("--output").arg(shop.path("heap")).args(["--pid", &child.pid().to_string()]);
    let heaptrack = Child::start(heaptrack.stderr(Stdio::null()));
    let report = wait_for("heaptrack", || {
        // Between the steps of the debugger that injects it nothing is settled.
        let report = Verifier::new(Limits::default()).check(child.pid()).ok()?;
        (!report.mismatches.is_empty() && report.settled).then_some(report)
    });
    for mismatch in &report.mismatches {
        let SlotMismatch { symbol, actual, .. } = mismatch;
        let library = &actual.module.as_ref().unwrap().path;
        assert_eq!(name(library), Some("heaptrack"), "{mismatch:?}");
        let tool = tool::by_library(library).unwrap();
        assert!(tool.rewires(symbol.as_deref().unwrap()), "{mismatch:?}");
    }
    // The victim first: heaptrack ends with it, and takes its helpers along.
    drop(child);
    let mut heaptrack = heaptrack;
    while heaptrack.line_or_end().is_some() {}
}

#[test]
fn ltrace_is_told_as_the_tracer_of_its_breakpoints() {
    if !have("ltrace") || !cfg!(target_arch = "x86_64") {
        return;
    }
    let shop = Workshop::new();
    let child = Child::ready(&mut command(shop.cc("victim.c", "victim", &["-pie"])));
    let mut ltrace = command("ltrace");
    ltrace.args(["-e", "getppid", "-o"]).arg(shop.path("log"));
    let ltrace = Child::start(ltrace.args(["-p", &child.pid().to_string()]));
    let report = wait_for("ltrace", || {
        let report = check(child.pid());
        (!report.text.patches.is_empty()).then_some(report)
    });
    assert!(report.is_clean(), "{:#?}", report.text.patches);
    for patch in &report.text.patches {
        let by = Explanation::Breakpoint { tracer: ltrace.pid(), name: "ltrace".to_owned() };
        assert_eq!(patch.explanation, Some(by), "{patch}");
    }
}
