//! Ordinary programs, however linked, give no finding.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use sensor::verify::{
    Depth, Gap, Limits, Linkage, ModuleRef, Report, SlotKind, StrayKind, Verifier, VerifyError,
};

use crate::fixture::{Child, Workshop, command, have, have_32_bit, wait_for};

/// The sensor has none of its own to compare it with.
const NARROW_VDSO: Gap = Gap::Vdso { reason: "it is the 32-bit one" };

fn check(child: &Child) -> Report {
    Verifier::new(Limits::default()).check(child.pid()).unwrap()
}

fn assert_clean(report: &Report, what: &str) {
    let texts: Vec<String> = report.mismatches.iter().map(ToString::to_string).collect();
    assert!(texts.is_empty(), "{what}: {texts:#?}");
    let known = |gap: &Gap| *gap == NARROW_VDSO && what.contains("-m32");
    assert!(report.gaps.iter().all(known), "{what}: {:?}", report.gaps);
    assert!(report.settled && report.slots_checked > 50, "{what}: {report:?}");
    println!("{what}: {} slots, {} lenient", report.slots_checked, report.slots_lenient);
}

#[test]
fn every_way_to_link_a_program_is_clean_before_and_after_its_calls() {
    let cases: [&[&str]; 8] = [
        &["-pie", "-Wl,-z,lazy"],
        &["-pie", "-Wl,-z,now"],
        &["-pie", "-Wl,-z,now", "-fno-plt"],
        &["-no-pie", "-fno-pie", "-Wl,-z,lazy"],
        &["-no-pie", "-fno-pie", "-Wl,-z,norelro", "-Wl,-z,lazy"],
        &["-pie", "-Wl,--hash-style=sysv"],
        &["-pie", "-Wl,--hash-style=both", "-Wl,-z,pack-relative-relocs"],
        &["-pie", "-Wl,-z,lazy", "-Wl,-z,separate-code", "-pthread", "-Wl,--no-as-needed", "-lm"],
    ];
    for flags in cases {
        let shop = Workshop::new();
        let victim = shop.cc("victim.c", "victim", flags);
        for bind_now in [false, true] {
            let mut command = command(&victim);
            if bind_now {
                command.env("LD_BIND_NOW", "1");
            }
            let mut child = Child::ready(&mut command);
            let what = format!("{flags:?} bind_now={bind_now}");
            assert_clean(&check(&child), &what);
            child.assert_answers();
            let report = check(&child);
            assert_clean(&report, &what);
            assert_eq!((report.linkage, report.slots_lenient), (Linkage::Glibc, 0));
        }
    }
}

#[test]
fn programs_without_a_loader_are_said_to_be_static() {
    let mut cases = vec![("cc", &["-static"][..]), ("cc", &["-static-pie"][..])];
    if have("musl-gcc") {
        cases.push(("musl-gcc", &["-static", "-no-pie"][..]));
    }
    for (cc, flags) in cases {
        let shop = Workshop::new();
        let child = Child::ready(&mut command(shop.compile(cc, "victim.c", "victim", flags)));
        let report = check(&child);
        assert_eq!(report.linkage, Linkage::Static, "{cc} {flags:?}");
        assert!(report.mismatches.is_empty() && report.slots_checked == 0);
    }
}

#[test]
fn the_loader_may_be_run_as_a_command() {
    let shop = Workshop::new();
    let victim = shop.cc("victim.c", "victim", &["-pie", "-Wl,-z,lazy"]);
    let loader = ["/lib64/ld-linux-x86-64.so.2", "/lib/ld-linux-aarch64.so.1"];
    let loader = loader.into_iter().find(|path| Path::new(path).exists()).expect("a glibc loader");
    let mut child = Child::ready(command(loader).arg(victim));
    child.assert_answers();
    assert_clean(&check(&child), "explicit loader");
}

#[test]
fn rarer_references_resolve_as_the_loader_resolved_them() {
    for flags in [&["-pie"][..], &["-no-pie", "-fno-pie"], &["-pie", "-Wl,-z,lazy", "-fno-plt"]] {
        let shop = Workshop::new();
        shop.library("features.c", "libfeatures.so", &[]);
        shop.library("features.c", "libtwin.so", &[]);
        let libraries = ["-Wl,--no-as-needed", "-l:libfeatures.so", "-l:libtwin.so"];
        let main = shop.cc("features_main.c", "main", &[flags, &libraries].concat());
        let report = check(&Child::ready(&mut command(main)));
        assert_clean(&report, &format!("features {flags:?}"));
        assert_eq!(report.slots_lenient, 0);
    }
}

#[test]
fn each_reference_gets_its_own_version() {
    let shop = Workshop::new();
    std::fs::write(shop.path("v1.map"), "V1 { versioned; };").unwrap();
    std::fs::write(shop.path("v2.map"), "V1 { versioned; }; V2 { versioned; } V1;").unwrap();
    let script = |name: &str| format!("-Wl,--version-script,{}", shop.path(name).display());
    shop.library("versions.c", "libversions.so", &["-DOLD", &script("v1.map")]);
    shop.library("versions_user.c", "libold.so", &["-DNAME=old_user", "-l:libversions.so"]);
    shop.library("versions.c", "libversions.so", &[&script("v2.map")]);
    shop.library("versions_user.c", "libnew.so", &["-DNAME=new_user", "-l:libversions.so"]);
    let main = shop.cc("versions_main.c", "main", &["-l:libold.so", "-l:libnew.so"]);
    assert_clean(&check(&Child::ready(&mut command(main))), "versions");
}

#[test]
fn interposition_by_preload_is_no_redirection_but_is_told() {
    let shop = Workshop::new();
    let victim = shop.cc("victim.c", "victim", &["-pie", "-Wl,-z,now"]);
    let library = shop.library("plugin.c", "libpre.so", &["-DNUMBER=1"]);
    let list = format!("{}:libm.so.6", library.display());
    let child = Child::ready(command(victim).env("LD_PRELOAD", list));
    let report = check(&child);
    assert_clean(&report, "preload");
    let names: Vec<&str> = report.preloads.iter().map(ModuleRef::file_name).collect();
    assert_eq!(names, ["libpre.so", "libm.so.6"]);
}

#[test]
fn an_auditor_that_only_watches_redirects_nothing() {
    for flags in [&["-pie", "-Wl,-z,now"][..], &["-pie", "-Wl,-z,lazy"]] {
        let shop = Workshop::new();
        let victim = shop.cc("victim.c", "victim", flags);
        let audit = shop.library("audit.c", "libaudit.so", &[]);
        let mut child = Child::ready(command(victim).env("LD_AUDIT", audit));
        child.assert_answers();
        let report = check(&child);
        assert_clean(&report, &format!("watching auditor {flags:?}"));
    }
}

#[test]
fn libraries_opened_at_run_time_are_clean_in_every_mode() {
    let shop = Workshop::new();
    let host = shop.cc("host.c", "host", &["-pie"]);
    let mut arguments = Vec::new();
    for (number, mode) in ["l", "g", "d", "n", "l", "g", "n", "d"].into_iter().enumerate() {
        let define = format!("-DNUMBER={number}");
        let name = format!("libplugin{number}.so");
        let path = shop.library("plugin.c", &name, &[&define, "-Wl,-z,lazy"]);
        arguments.push(format!("{mode}:{}", path.display()));
    }
    let child = Child::ready(command(host).args(arguments));
    assert_clean(&check(&child), "dlopen and dlmopen");
}

#[test]
fn musl_programs_with_opened_libraries_are_clean() {
    if !have("musl-gcc") {
        return;
    }
    let shop = Workshop::new();
    let host = shop.compile("musl-gcc", "host.c", "host", &["-pie"]);
    let mut arguments = Vec::new();
    for number in 0..3 {
        let (define, name) = (format!("-DNUMBER={number}"), format!("libplugin{number}.so"));
        let flags = ["-shared", "-fPIC", &define];
        let path = shop.compile("musl-gcc", "plugin.c", &name, &flags);
        arguments.push(format!("l:{}", path.display()));
    }
    let report = check(&Child::ready(command(host).args(arguments)));
    assert_eq!(report.linkage, Linkage::Musl);
    assert!(report.mismatches.is_empty() && report.gaps.is_empty(), "{report:?}");
    assert_eq!(report.modules, 5);
}

#[test]
fn a_library_that_was_deleted_or_replaced_is_checked_as_mapped() {
    let shop = Workshop::new();
    let host = shop.cc("host.c", "host", &["-pie"]);
    let library = shop.library("plugin.c", "libplugin.so", &["-DNUMBER=1"]);
    let child = Child::ready(command(host).arg(format!("l:{}", library.display())));
    std::fs::remove_file(&library).unwrap();
    assert_clean(&check(&child), "deleted");
    shop.library("features.c", "libplugin.so", &[]);
    assert_clean(&check(&child), "replaced");
}

#[test]
fn a_static_32_bit_program_is_said_to_be_static() {
    if !cfg!(target_arch = "x86_64") || !have("as") || !have("ld") {
        println!("32-bit programs are only built on x86_64 with binutils");
        return;
    }
    let shop = Workshop::new();
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/verify/c/tiny32.s");
    let (object, program) = (shop.path("tiny.o"), shop.path("tiny"));
    let built = Command::new("as").arg("--32").arg(source).arg("-o").arg(&object).status();
    assert!(built.unwrap().success());
    let mut linker = Command::new("ld");
    let linker = linker.args(["-m", "elf_i386"]).arg(&object).arg("-o").arg(&program);
    assert!(linker.status().unwrap().success());
    let child = Child::start(&mut command(&program));
    let exe = format!("/proc/{}/exe", child.pid());
    wait_for("exec", || (std::fs::read_link(&exe).ok()? == program).then_some(()));
    let report = check(&child);
    assert_eq!((report.linkage, &report.gaps[..]), (Linkage::Static, &[NARROW_VDSO][..]));
}

#[test]
fn every_way_to_link_a_32_bit_program_is_clean() {
    if !have_32_bit() {
        return;
    }
    let cases: [&[&str]; 6] = [
        &["-pie", "-Wl,-z,lazy"],
        &["-pie", "-Wl,-z,now"],
        &["-no-pie", "-fno-pie", "-Wl,-z,lazy"],
        &["-no-pie", "-fno-pie", "-Wl,-z,norelro", "-Wl,-z,lazy"],
        &["-pie", "-fno-plt", "-Wl,--hash-style=sysv"],
        &["-pie", "-Wl,-z,pack-relative-relocs", "-pthread", "-Wl,--no-as-needed", "-lm"],
    ];
    for flags in cases {
        let shop = Workshop::new();
        let victim = shop.cc("victim.c", "victim", &[&["-m32"], flags].concat());
        let mut child = Child::ready(&mut command(&victim));
        assert_clean(&check(&child), &format!("-m32 {flags:?}"));
        child.assert_answers();
        let report = check(&child);
        assert_clean(&report, &format!("-m32 {flags:?}, called"));
        assert_eq!(report.linkage, Linkage::Glibc);
    }
    // Data relocated in text: allowed on this machine, and no matter of slots.
    let shop = Workshop::new();
    let flags = ["-m32", "-pie", "-fno-pie", "-Wl,-z,notext"];
    let child = Child::ready(&mut command(shop.cc("victim.c", "victim", &flags)));
    assert_clean(&check(&child), "-m32 with text relocations");
}

#[test]
fn libraries_opened_by_a_32_bit_program_are_clean_in_every_mode() {
    if !have_32_bit() {
        return;
    }
    let shop = Workshop::new();
    let host = shop.cc("host.c", "host", &["-m32", "-pie"]);
    let mut arguments = Vec::new();
    for (number, mode) in ["l", "g", "d", "n", "l", "g", "n", "d"].into_iter().enumerate() {
        let define = format!("-DNUMBER={number}");
        let name = format!("libplugin{number}.so");
        let path = shop.library("plugin.c", &name, &["-m32", &define, "-Wl,-z,lazy"]);
        arguments.push(format!("{mode}:{}", path.display()));
    }
    let child = Child::ready(command(host).args(arguments));
    assert_clean(&check(&child), "-m32, dlopen and dlmopen");
}

#[test]
fn a_shallow_check_compares_what_calls_go_through() {
    let shop = Workshop::new();
    let child = Child::ready(&mut command(shop.cc("victim.c", "victim", &["-pie"])));
    let full = check(&child);
    let shallow = Limits { depth: Depth::Got, ..Limits::default() };
    let got = Verifier::new(shallow).check(child.pid()).unwrap();
    for (kind, count) in got.slots.iter() {
        let wanted = match kind {
            SlotKind::JumpSlot
            | SlotKind::GlobDat
            | SlotKind::Irelative
            | SlotKind::TlsDesc
            | SlotKind::LinkMap
            | SlotKind::Resolver => full.slots.of(kind),
            _ => 0,
        };
        assert_eq!(count, wanted, "{kind}");
    }
    assert!(full.slots.of(SlotKind::Relative) + full.slots.of(SlotKind::Relr) > 500);
    assert!(full.slots.of(SlotKind::InitArray) > 0 && full.slots.of(SlotKind::Dynamic) > 20);
    // Addresses in thread-local storage and in writable data are left out, and counted.
    assert!(full.skipped.tls > 0 && full.skipped.writable > 0, "{:?}", full.skipped);
}

#[test]
fn processes_that_cannot_be_checked_say_why() {
    let mut verifier = Verifier::new(Limits::default());
    let mut ended = Command::new("true").spawn().unwrap();
    // A zombie until it is waited for.
    let state = format!("/proc/{}/stat", ended.id());
    wait_for("a zombie", || std::fs::read_to_string(&state).ok()?.contains(") Z ").then_some(()));
    let error = verifier.check(ended.id()).unwrap_err();
    assert!(matches!(error, VerifyError::NoMemory { .. }), "{error:?}");
    ended.wait().unwrap();
    let error = verifier.check(ended.id()).unwrap_err();
    assert!(matches!(error, VerifyError::Gone { .. }), "{error:?}");
    // Kernel threads: kthreadd has PID 2 where this is the initial PID namespace.
    if std::fs::read_to_string("/proc/2/comm").is_ok_and(|name| name.trim() == "kthreadd") {
        let error = verifier.check(2).unwrap_err();
        assert!(matches!(error, VerifyError::NoMemory { .. }), "{error:?}");
    } else {
        println!("no kthreadd in this PID namespace: kernel threads are not tested");
    }
}

#[test]
fn limits_that_are_reached_are_told() {
    let shop = Workshop::new();
    let child = Child::ready(&mut command(shop.cc("victim.c", "victim", &["-pie"])));
    let hurried = Limits { time: Duration::ZERO, ..Limits::default() };
    let error = Verifier::new(hurried).check(child.pid()).unwrap_err();
    assert!(matches!(error, VerifyError::TooSlow { .. }), "{error:?}");
    let narrow = Limits { modules: 2, recheck_after: Duration::ZERO, ..Limits::default() };
    let report = Verifier::new(narrow).check(child.pid()).unwrap();
    assert!(report.gaps.contains(&Gap::Truncated { what: "modules" }), "{:?}", report.gaps);
}

#[test]
fn executable_mappings_that_are_no_module_are_named() {
    if !have("python3") {
        return;
    }
    let script = "import mmap; f = open('/bin/true', 'rb'); \
                  m = mmap.mmap(f.fileno(), 0, flags=mmap.MAP_PRIVATE, \
                  prot=mmap.PROT_READ | mmap.PROT_EXEC); print('ready', flush=True); input()";
    let child = Child::ready(command("python3").args(["-c", script]));
    let report = check(&child);
    let path = std::fs::canonicalize("/bin/true").unwrap().display().to_string();
    let strays = &report.text.strays;
    assert_eq!((strays.len(), strays[0].kind), (1, StrayKind::Unlisted), "{strays:?}");
    assert_eq!(strays[0].module.as_ref().unwrap().path, path);
    assert!(report.gaps.is_empty(), "{:?}", report.gaps);
    assert!(report.mismatches.is_empty(), "{:?}", report.mismatches);
}

#[test]
fn caches_stay_within_their_bounds() {
    let shop = Workshop::new();
    let child = Child::ready(&mut command(shop.cc("victim.c", "victim", &["-pie"])));
    let mut roomy = Verifier::new(Limits::default());
    roomy.check(child.pid()).unwrap();
    assert_eq!((roomy.held().files, roomy.held().plans), (3, 1));
    let limits = Limits { file_entries: 1, plan_bytes: 64, ..Limits::default() };
    let mut tight = Verifier::new(limits);
    for _ in 0..3 {
        assert_clean(&tight.check(child.pid()).unwrap(), "without room to remember");
        assert_eq!((tight.held().files, tight.held().plans), (1, 0));
    }
}
