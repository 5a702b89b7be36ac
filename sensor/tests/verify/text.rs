//! Changed code is found, named and explained; ordinary programs have none.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Stdio;
use std::sync::mpsc;
use std::thread;

use sensor::verify::{
    Explanation, Gap, Limits, Linkage, OwnProbes, Patch, Report, StrayKind, Text, Verifier,
    VerifyError, list_processes, scan,
};

use crate::fixture::{Child, DEADLINE, MARK, PREFIX, Workshop, command, have, wait_for};
use crate::servers;

fn check(pid: u32) -> Report {
    Verifier::new(Limits::default()).check(pid).unwrap()
}

/// Whether the attack fixtures know this machine's instructions; says so where they do not.
fn x86() -> bool {
    let x86 = cfg!(target_arch = "x86_64");
    if !x86 {
        println!("not tried: the fixture knows x86_64 only");
    }
    x86
}

fn victim(shop: &Workshop, flags: &[&str]) -> Child {
    shop.cc("victim.c", "victim", &["-pie", "-Wl,-z,now"]);
    shop.library("patch_text.c", "libevil.so", flags);
    Child::ready(command(shop.path("victim")).env("LD_PRELOAD", shop.path("libevil.so")))
}

fn told(text: &Text) -> Vec<String> {
    let patches = text.patches.iter().map(ToString::to_string);
    patches.chain(text.strays.iter().map(ToString::to_string)).collect()
}

fn assert_quiet(report: &Report, what: &str) {
    let text = &report.text;
    assert!(text.unexplained().next().is_none(), "{what}: {:#?}", told(text));
    assert!(text.strays.is_empty(), "{what}: {:#?}", told(text));
    assert!(report.gaps.is_empty(), "{what}: {:?}", report.gaps);
}

#[test]
fn an_inline_patch_is_found_with_what_it_changed_and_where_it_leads() {
    if !x86() {
        return;
    }
    let shop = Workshop::new();
    let mut child = victim(&shop, &[]);
    child.assert_answers();
    let report = check(child.pid());
    assert!(report.mismatches.is_empty(), "{:?}", report.mismatches);
    let patches: Vec<&Patch> = report.text.unexplained().collect();
    assert_eq!(patches.len(), 1, "{:#?}", told(&report.text));
    let patch = patches[0];
    assert_eq!(patch.module.file_name(), "libc.so.6");
    assert!(patch.symbol.as_deref().unwrap().ends_with("getppid"), "{patch}");
    // The last bytes of the distance may be what was there before.
    assert!(patch.symbol_offset == Some(0) && (2..=5).contains(&patch.length), "{patch:?}");
    assert_eq!((patch.actual[0], patch.actual.len() as u64), (0xe9, patch.length));
    let target = patch.leads_to.as_ref().unwrap();
    assert_eq!(target.module.as_ref().unwrap().file_name(), "libevil.so");
    assert!(patch.actual_code[0].contains("jmp"), "{patch:?}");
    assert!(patch.expected_code[0].contains("mov eax, 0x6e"), "{patch:?}");
    let json = serde_json::to_value(patch).unwrap();
    assert!(json["actual"].as_str().unwrap().starts_with("e9 "), "{json}");
    assert!(report.text.strays.is_empty(), "{:#?}", told(&report.text));
}

#[test]
fn a_patch_that_was_taken_back_leaves_a_page_that_is_told() {
    if !x86() {
        return;
    }
    let shop = Workshop::new();
    let child = victim(&shop, &["-DRESTORE"]);
    let report = check(child.pid());
    assert_quiet(&report, "restored");
    let page = &report.text.restored[0];
    assert_eq!((page.module.file_name(), page.own_probe), ("libc.so.6", false));
    // As one of ours, it is accounted for.
    let own = OwnProbes::default();
    own.add(&fs::File::open(&page.module.path).unwrap(), page.offset + 1).unwrap();
    let report = Verifier::knowing(Limits::default(), own).check(child.pid()).unwrap();
    assert!(report.text.restored[0].own_probe);
}

#[test]
fn code_in_anonymous_memory_is_found_and_compared() {
    for (flags, differing) in [(&["-DREPLACE"][..], 0), (&["-DREPLACE", "-DCHANGE"][..], 1)] {
        let shop = Workshop::new();
        let mut child = victim(&shop, flags);
        child.assert_answers();
        let report = check(child.pid());
        let strays = &report.text.strays;
        assert_eq!(strays.len(), 1, "{:#?}", told(&report.text));
        assert_eq!((strays[0].kind, strays[0].differing), (StrayKind::Replaced, Some(differing)));
        assert_eq!(strays[0].module.as_ref().unwrap().file_name(), "victim");
        assert!(report.text.patches.is_empty(), "{:#?}", told(&report.text));
    }
}

#[test]
fn a_module_that_left_the_list_is_found() {
    let shop = Workshop::new();
    let mut child = victim(&shop, &["-DUNLINK"]);
    child.assert_answers();
    let report = check(child.pid());
    let strays = &report.text.strays;
    assert_eq!(strays.len(), 1, "{:#?}", told(&report.text));
    assert_eq!(strays[0].kind, StrayKind::Unlisted);
    assert_eq!(strays[0].module.as_ref().unwrap().file_name(), "libevil.so");
}

#[test]
fn a_module_with_a_false_address_is_found() {
    let shop = Workshop::new();
    let child = victim(&shop, &["-DMOVE"]);
    let report = check(child.pid());
    let kinds: Vec<StrayKind> = report.text.strays.iter().map(|stray| stray.kind).collect();
    assert_eq!(kinds, [StrayKind::Misplaced], "{:#?}", told(&report.text));
}

#[test]
fn static_programs_are_compared_too() {
    let shop = Workshop::new();
    let path = shop.cc("victim.c", "victim", &["-static", "-no-pie"]);
    let child = Child::ready(&mut command(&path));
    assert_quiet(&check(child.pid()), "static");
    let maps = fs::read_to_string(format!("/proc/{}/maps", child.pid())).unwrap();
    let line = maps.lines().find(|line| line.contains(" r-xp ") && line.contains("victim"));
    let end = line.unwrap().split(['-', ' ']).nth(1).unwrap();
    let last = u64::from_str_radix(end, 16).unwrap() - 1;
    let memory = OpenOptions::new().write(true).open(format!("/proc/{}/mem", child.pid()));
    memory.unwrap().write_all_at(&[0x5a], last).unwrap();
    let report = check(child.pid());
    assert_eq!(report.linkage, Linkage::Static);
    assert_eq!(report.text.unexplained().count(), 1, "{:#?}", told(&report.text));
}

#[test]
fn relocations_inside_of_code_are_no_patches() {
    if !x86() {
        return;
    }
    let shop = Workshop::new();
    shop.library("textrel.c", "libtextrel.so", &["-DLIBRARY", "-Wl,-z,notext"]);
    let flags = ["-pie", "-Wl,--no-as-needed", "-l:libtextrel.so"];
    let child = Child::ready(&mut command(shop.cc("textrel.c", "textrel", &flags)));
    let report = check(child.pid());
    assert!(report.text.private_pages > 0, "the loader wrote nothing into the code: {report:?}");
    assert_quiet(&report, "DT_TEXTREL");
    assert!(report.text.patches.is_empty());
}

#[test]
fn our_own_probes_are_subtracted_and_others_are_not_ours() {
    if !x86() {
        return;
    }
    let shop = Workshop::new();
    let path = shop.cc("probed.c", "probed", &["-no-pie", "-fno-pie"]);
    let child = Child::ready(&mut command(&path));
    let (addr, offset) = probed_at(&path);
    let memory = OpenOptions::new().write(true).open(format!("/proc/{}/mem", child.pid()));
    memory.unwrap().write_all_at(&[0xcc], addr).unwrap();
    let found = check(child.pid());
    assert_eq!(found.text.unexplained().count(), 1, "{:#?}", told(&found.text));
    assert_eq!(found.text.patches[0].offset, offset);
    let own = OwnProbes::default();
    own.add(&fs::File::open(&path).unwrap(), offset).unwrap();
    let report = Verifier::knowing(Limits::default(), own).check(child.pid()).unwrap();
    assert_quiet(&report, "own probe");
    assert_eq!((report.text.own_probes, report.text.patches.len()), (1, 0));
}

/// Address and file offset of `probed` in a program that is not position independent.
fn probed_at(path: &Path) -> (u64, u64) {
    use object::{Object, ObjectSection, ObjectSymbol};
    let bytes = fs::read(path).unwrap();
    let file = object::File::parse(&*bytes).unwrap();
    let symbol = file.symbols().find(|symbol| symbol.name() == Ok("probed")).unwrap();
    let section = file.section_by_index(symbol.section_index().unwrap()).unwrap();
    let offset = section.file_range().unwrap().0 + symbol.address() - section.address();
    (symbol.address(), offset)
}

#[test]
fn a_debuggers_breakpoint_is_explained_with_its_name() {
    if !have("gdb") || !x86() {
        return;
    }
    let shop = Workshop::new();
    let child = Child::ready(&mut command(shop.cc("victim.c", "victim", &["-pie"])));
    let mut gdb = command("gdb");
    gdb.args(["-nx", "-q", "-iex", "set debuginfod enabled off"]);
    gdb.args(["-ex", "set breakpoint always-inserted on", "-ex", "break getppid"]);
    gdb.args(["-ex", "echo \\nmarked\\n", "-p", &child.pid().to_string()]);
    let mut gdb = Child::start(gdb.stderr(Stdio::null()));
    while gdb.line() != "marked" {}
    let report = check(child.pid());
    assert_quiet(&report, "gdb");
    let patch = report.text.patches.first().expect("a breakpoint");
    let name = "gdb".to_owned();
    assert_eq!(patch.explanation, Some(Explanation::Breakpoint { tracer: gdb.pid(), name }));
    assert!(patch.symbol.as_deref().unwrap().ends_with("getppid"), "{patch}");
}

#[test]
fn somebody_elses_probe_is_explained_with_its_owner_even_as_a_call() {
    if !have("bpftrace") || !x86() {
        return;
    }
    let shop = Workshop::new();
    let program = shop.cc("probed.c", "probed", &["-no-pie", "-fno-pie"]);
    let mut child = Child::ready(&mut command(&program));
    let script = format!("uprobe:{}:probed {{ @hits = count(); }}", program.display());
    let mut bpftrace = command("bpftrace");
    let log = shop.path("log");
    bpftrace.args(["-e", &script]).stderr(fs::File::create(&log).unwrap());
    let bpftrace = Child::start(&mut bpftrace);
    let ended = || {
        !Path::new(&format!("/proc/{}/maps", bpftrace.pid())).exists()
            || fs::read(format!("/proc/{}/maps", bpftrace.pid())).is_ok_and(|maps| maps.is_empty())
    };
    let first = wait_for("the probe", || {
        if ended() {
            return Some(None);
        }
        let report = check(child.pid());
        (!report.text.patches.is_empty()).then_some(Some(report))
    });
    let Some(report) = first else {
        println!("not tried: {}", fs::read_to_string(&log).unwrap_or_default());
        return;
    };
    let assert_probe = |report: &Report| {
        assert_quiet(report, "bpftrace");
        let patch = report.text.patches.first().expect("a probe");
        let Some(Explanation::Probe { owner }) = &patch.explanation else { panic!("{patch}") };
        assert_eq!(owner, &format!("bpftrace, process {}", bpftrace.pid()));
        assert!(patch.symbol.as_deref() == Some("probed"), "{patch}");
        patch.length
    };
    assert_probe(&report);
    // From 6.18 on the kernel turns the nop into a call once it was hit.
    for _ in 0..20 {
        assert_eq!(child.ask(""), "called");
    }
    match assert_probe(&check(child.pid())) {
        5 => println!("the kernel has turned the nop into a call"),
        bytes => println!("{bytes} byte: this kernel leaves the trap where it is"),
    }
}

#[test]
fn just_in_time_compilers_are_told_and_no_finding() {
    let node = "process.stdout.write('ready\\n'); let s = 0; \
                for (let i = 0; i < 1e7; i++) s += i; process.stdin.resume()";
    let programs = [("node", vec!["-e", node])];
    for (program, arguments) in programs {
        if have(program) {
            let child = Child::ready(command(program).args(arguments));
            assert_jit(&child, program);
        }
    }
    if have("java") {
        let shop = Workshop::new();
        let source = shop.path("Wait.java");
        let code = "class Wait { public static void main(String[] a) throws Exception { \
                    System.out.println(\"ready\"); System.in.read(); } }";
        fs::write(&source, code).unwrap();
        let mut child = Child::start(command("java").arg(&source).stderr(Stdio::null()));
        // A runtime without compiler cannot run a source file.
        if child.line_or_end().as_deref() == Some("ready") {
            assert_jit(&child, "java");
        } else {
            println!("not tried: java does not run a source file here");
        }
    }
}

fn assert_jit(child: &Child, program: &str) {
    let report = check(child.pid());
    assert_quiet(&report, program);
    assert!(report.text.patches.is_empty(), "{program}: {:#?}", told(&report.text));
    assert!(report.text.loose_bytes() > 0, "{program}: {:?}", report.text);
    println!("{program}: {:?}", report.text.loose);
}

#[test]
fn real_programs_have_their_files_code() {
    let programs = [servers::sshd(), servers::python(), servers::perl(), servers::bash()];
    for server in programs.into_iter().flatten() {
        let report = check(server.pid());
        let exe = fs::read_link(format!("/proc/{}/exe", server.pid())).unwrap();
        assert_quiet(&report, &exe.display().to_string());
    }
}

#[test]
fn no_running_process_has_unexplained_code_three_times() {
    let mut verifier = Verifier::new(Limits::default());
    for round in 0..3 {
        let (mut seen, mut pages, mut explained, mut unexplained) = (0, 0, 0, Vec::new());
        scan(&mut verifier, list_processes().unwrap(), |pid, outcome| match outcome {
            Ok(report) => {
                seen += 1;
                pages += report.text.private_pages;
                explained += report.text.patches.len() - report.text.unexplained().count();
                let found = told_unexplained(&report.text);
                if is_own_fixture(pid) {
                    println!("{pid}: a test fixture: {found:?}");
                } else {
                    unexplained.extend(found.into_iter().map(|text| format!("{pid}: {text}")));
                }
            }
            Err(VerifyError::Gone { .. } | VerifyError::NoMemory { .. }) => {}
            Err(error) => println!("{pid}: not checked: {error}"),
        });
        println!("round {round}: {seen} processes, {pages} pages, {explained} explained");
        assert!(seen > 0, "nothing was checked");
        assert!(unexplained.is_empty(), "{unexplained:#?}");
    }
}

fn told_unexplained(text: &Text) -> Vec<String> {
    let patches = text.unexplained().map(ToString::to_string);
    patches.chain(text.strays.iter().map(ToString::to_string)).collect()
}

/// Attack fixtures of this project's tests, which may run at the same time.
fn is_own_fixture(pid: u32) -> bool {
    let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    let marked = environment.split(|byte| *byte == 0).any(|text| text.starts_with(MARK.as_bytes()));
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap_or_default();
    marked || maps.contains(&format!("/{PREFIX}"))
}

#[test]
fn files_that_nobody_answers_for_do_not_keep_the_check_waiting() {
    let shop = Workshop::new();
    let program = shop.cc("stuck_fs.c", "stuck_fs", &[]);
    let mount = shop.path("mnt");
    fs::create_dir(&mount).unwrap();
    let mut child = Child::start(command(&program).arg(&program).arg(&mount));
    let line = child.line();
    if line != "ready" {
        println!("{line}");
        return;
    }
    let (pid, (send, done)) = (child.pid(), mpsc::channel());
    thread::spawn(move || drop(send.send(check(pid))));
    let report = done.recv_timeout(DEADLINE).expect("the check waits for the file system");
    let gaps: Vec<String> = report.gaps.iter().map(ToString::to_string).collect();
    assert!(gaps.iter().any(|gap| gap.contains("files on fuse.stuck are not read")), "{gaps:?}");
}

#[test]
fn without_text_nothing_is_said_of_code() {
    let shop = Workshop::new();
    let child = victim(&shop, &["-DUNLINK"]);
    let limits = Limits { text: false, ..Limits::default() };
    let report = Verifier::new(limits).check(child.pid()).unwrap();
    assert!(report.text.strays.is_empty());
    assert!(matches!(report.gaps.as_slice(), [Gap::Unlisted { .. }]), "{:?}", report.gaps);
}
