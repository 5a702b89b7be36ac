//! Libraries that a guarded program opens after its start: told each time, with who asked, and with
//! nothing of what else lies on a stack.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use sensor::event::{Event, EventBody, Opened, Role};
use sensor::loader::probes::Hook;
use sensor::symbol::{Asker, Symbolizer};
use sensor::verify::VerifyError;

use crate::harness::{Bench, inode_of, same, skip};

const SECRETS: [&str; 6] =
    ["correct horse battery", "hunter2", "Tr0ub4dor&3", "s3cr3t", "пароль-пароль", "UVUVUVUVUVUV"];

/// The programs, built.
struct Fixture {
    dir: tempfile::TempDir,
}

impl Fixture {
    /// `None`, with the reason printed, where there is no compiler.
    fn build() -> Option<Self> {
        let fixture = Self { dir: tempfile::tempdir().expect("a directory") };
        let source =
            |name: &str| Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/kernel/c").join(name);
        std::fs::write(fixture.path("plugin.c"), "int plugin(void) { return 1; }\n")
            .expect("write");
        let shared = ["-shared", "-fPIC"];
        let run = format!("-Wl,-rpath,{}", fixture.dir.path().display());
        for (output, source, more) in [
            ("plugin.so", fixture.path("plugin.c"), &shared[..]),
            ("libasks.so", source("asks.c"), &shared[..]),
            ("opens", source("opens.c"), &["-l:libasks.so", run.as_str()]),
        ] {
            let mut cc = Command::new("cc");
            cc.args(["-O2", "-fomit-frame-pointer", "-Wl,--build-id", "-o"]);
            cc.arg(fixture.path(output))
                .arg(source)
                .arg(format!("-L{}", fixture.dir.path().display()));
            match cc.args(more).arg("-ldl").status() {
                Ok(status) => assert!(status.success(), "cc: {status}"),
                Err(error) => {
                    skip(&format!("no cc: {error}"));
                    return None;
                }
            }
        }
        Some(fixture)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Started, and waiting with its library opened and closed.
    fn open(&self, mode: &str) -> Child {
        let mut child = Command::new(self.path("opens"))
            .arg(mode)
            .arg(self.path("plugin.so"))
            .args(SECRETS)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("spawn");
        let mut line = String::new();
        let output = child.stdout.take().expect("piped");
        BufReader::new(output).read_line(&mut line).expect("a line");
        assert_eq!(line, "done\n");
        child
    }
}

fn end(mut child: Child) {
    drop(child.stdin.take());
    assert!(child.wait().expect("wait").success());
}

fn openings(events: &[Event]) -> Vec<&Opened> {
    events
        .iter()
        .filter_map(|event| match &event.body {
            EventBody::Opened(opened) => Some(&**opened),
            _ => None,
        })
        .collect()
}

/// The opening of the plug-in, and who asked.
fn asked(bench: &mut Bench, fixture: &Fixture, child: &Child) -> Asker {
    let plugin = inode_of(&bench.sensor, &fixture.path("plugin.so"));
    let event = bench.expect("an opening", child.id(), |event| {
        event.tgid == child.id()
            && matches!(&event.body, EventBody::Opened(opened) if opened.file.ino == plugin.ino)
    });
    let EventBody::Opened(opened) = &event.body else { unreachable!() };
    let kept = opened.stack.words.iter().filter(|word| **word != 0).count();
    println!("{kept} of {} words told", opened.stack.words.len());
    let found = Symbolizer::default().asker(child.id(), &opened.stack, &[]).expect("maps");
    let found = found.expect("an asker");
    println!("{} unwound: {} through libc: {}", found.place, found.unwound, found.through_libc);
    found
}

fn bench() -> Option<(Bench, Fixture)> {
    let mut bench = Bench::start()?;
    if !bench.serves(Hook::Memory) {
        return None;
    }
    let fixture = Fixture::build()?;
    bench.guard(&fixture.path("opens"), Role::GUARDED);
    Some((bench, fixture))
}

fn module(asker: &Asker) -> String {
    asker.place.module.as_ref().expect("a module").path.clone()
}

#[test]
fn a_library_opened_and_closed_at_once_is_told_with_its_asker() {
    let Some((mut bench, fixture)) = bench() else { return };
    let child = fixture.open("self");
    let asker = asked(&mut bench, &fixture, &child);
    same("module", module(&asker), fixture.path("opens").display().to_string());
    same("through libc", asker.through_libc, false);
    same("unwound", asker.unwound, true);
    end(child);
}

#[test]
fn an_asker_whose_address_reads_as_text_is_found() {
    let Some((mut bench, fixture)) = bench() else { return };
    let child = fixture.open("fixed");
    let asker = asked(&mut bench, &fixture, &child);
    same("module", module(&asker), fixture.path("opens").display().to_string());
    same("unwound", asker.unwound, true);
    if cfg!(target_arch = "x86_64") {
        let address = asker.place.addr.to_le_bytes();
        let is_text = address[..6].iter().all(|byte| (b' '..=b'~').contains(byte));
        assert!(is_text, "{:#x} tests nothing", asker.place.addr);
    } else {
        skip("programs of this architecture lie at addresses that never read as text");
    }
    end(child);
}

#[test]
fn a_library_that_asks_behind_its_programs_back_is_the_asker() {
    let Some((mut bench, fixture)) = bench() else { return };
    let child = fixture.open("other");
    let asker = asked(&mut bench, &fixture, &child);
    same("module", module(&asker), fixture.path("libasks.so").display().to_string());
    same("symbol", asker.place.symbol.as_deref(), Some("ask"));
    end(child);
}

#[test]
fn code_in_anonymous_memory_is_the_asker() {
    let Some((mut bench, fixture)) = bench() else { return };
    let child = fixture.open("memory");
    let asker = asked(&mut bench, &fixture, &child);
    same("module", asker.place.module.clone(), None);
    same("memory", asker.place.memory.as_str(), "anonymous rwx");
    end(child);
}

#[test]
fn an_opening_before_an_exec_is_not_looked_for_in_the_memory_behind_it() {
    let Some((mut bench, fixture)) = bench() else { return };
    let child = fixture.open("exec");
    let id = child.id();
    let told = |event: &Event| event.tgid == id && matches!(event.body, EventBody::Modules(_));
    let event = bench.expect("its modules", id, told);
    let EventBody::Modules(modules) = &event.body else { unreachable!() };
    let code: Vec<u64> = modules.placed.iter().map(|placed| placed.start).collect();
    let told = |event: &Event| event.tgid == id && matches!(event.body, EventBody::Opened(_));
    let event = bench.expect("an opening", id, told);
    let EventBody::Opened(opened) = &event.body else { unreachable!() };
    // By its code, and by its stack where none is known.
    for code in [&code[..], &[]] {
        let found = Symbolizer::default().asker(id, &opened.stack, code);
        assert!(matches!(found, Err(VerifyError::Gone { .. })), "{code:x?}: {found:?}");
    }
    end(child);
}

#[test]
fn an_opening_is_told_each_time_and_to_nobody_who_is_not_guarded() {
    let Some((mut bench, fixture)) = bench() else { return };
    for _ in 0..2 {
        let child = fixture.open("self");
        let tgid = child.id();
        end(child);
        let events = bench.until_exit(tgid);
        same("openings", openings(&events).len(), 1);
    }
    let opens = inode_of(&bench.sensor, &fixture.path("opens"));
    bench.sensor.guard_inode(opens, Role::NONE).expect("unguard");
    let child = fixture.open("self");
    let tgid = child.id();
    end(child);
    let events = bench.until_exit(tgid);
    same("openings", openings(&events).len(), 0);
}

#[test]
fn no_secret_on_the_stack_is_in_a_record() {
    let Some((mut bench, fixture)) = bench() else { return };
    for mode in ["self", "fixed", "other", "memory"] {
        let child = fixture.open(mode);
        let tgid = child.id();
        asked(&mut bench, &fixture, &child);
        end(child);
        let events = bench.until_exit(tgid);
        for opened in openings(&events) {
            let registers = [opened.stack.fp, opened.stack.lr];
            for word in opened.stack.words.iter().chain(&registers) {
                let bytes = word.to_ne_bytes();
                // Every four bytes of a secret in a row, and its end with what follows it.
                let told = SECRETS.iter().any(|secret| {
                    secret
                        .as_bytes()
                        .windows(4)
                        .any(|part| bytes.windows(4).any(|window| window == part))
                });
                assert!(!told, "{mode}: {word:#x} holds a piece of a secret");
            }
        }
    }
}

#[test]
fn a_guarded_start_tells_where_its_code_lies_before_its_link_time() {
    let Some((mut bench, fixture)) = bench() else { return };
    let child = fixture.open("self");
    let maps = std::fs::read_to_string(format!("/proc/{}/maps", child.id())).expect("maps");
    let tgid = child.id();
    end(child);
    let events = bench.until_exit(tgid);
    let place = |wanted: fn(&EventBody) -> bool| {
        events.iter().position(|event| wanted(&event.body)).expect("told")
    };
    let at = place(|body| matches!(body, EventBody::Modules(_)));
    assert!(at < place(|body| matches!(body, EventBody::Link(_))), "{events:#?}");
    let EventBody::Modules(modules) = &events[at].body else { unreachable!() };
    same("overflow", modules.overflow, 0);
    // Program, libc, libasks.
    assert!(modules.placed.len() >= 3, "{modules:#?}");
    for placed in modules.placed.iter().filter(|placed| placed.start != 0) {
        let line = maps.lines().find(|line| {
            let start = line.split('-').next().and_then(|text| u64::from_str_radix(text, 16).ok());
            line.contains(" r-xp ") && start.is_some_and(|start| start == placed.start & !0xfff)
        });
        let line = line.unwrap_or_else(|| panic!("{placed:x?} is not in\n{maps}"));
        let ino = line.split_ascii_whitespace().nth(4).and_then(|text| text.parse().ok());
        same("inode", ino, Some(placed.ino));
    }
}
