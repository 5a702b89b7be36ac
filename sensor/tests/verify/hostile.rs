//! A process that is made to be hard to check costs a bounded amount of work, and ends as a finding
//! or as a refusal that is told. A file that nobody answers for is in `text.rs`.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;

use sensor::verify::{Gap, Held, Limits, Report, StrayKind, Verifier, VerifyError};

use crate::fixture::{Child, DEADLINE, Workshop, command};

const DT_NEEDED: u64 = 1;
const DT_HASH: u64 = 4;
const DT_STRSZ: u64 = 10;
const DT_GNU_HASH: u64 = 0x6fff_fef5;
const DT_NULL: u64 = 0;
const PT_LOAD: u64 = 1;
const PT_DYNAMIC: u64 = 2;
const PT_GNU_EH_FRAME: u64 = 0x6474_e550;

type Outcome = (Result<Report, VerifyError>, Held);

/// A 64-bit library to be falsified: its bytes, and where things are in it.
struct Image(Vec<u8>);

/// Checks in a thread of its own: what never ends fails the test rather than hold it up.
fn check(pid: u32) -> Outcome {
    let (send, done) = mpsc::channel();
    thread::spawn(move || {
        let mut verifier = Verifier::new(Limits::default());
        let outcome = verifier.check(pid);
        drop(send.send((outcome, verifier.held())));
    });
    let (outcome, held) = done.recv_timeout(DEADLINE).expect("the check does not end");
    assert!(held.file_bytes <= Limits::default().file_bytes, "{held:?}");
    (outcome, held)
}

fn hostile(shop: &Workshop, mode: &str, files: &[PathBuf]) -> Child {
    let program = shop.cc("hostile.c", "hostile", &["-pie", "-Wl,-z,now"]);
    let mut child = Child::ready(command(program).arg(mode).args(files));
    assert_eq!(child.line(), "done");
    child
}

#[test]
fn a_name_that_points_nowhere_hides_nothing() {
    let shop = Workshop::new();
    let plain = hostile(&shop, "", &[]);
    let named = hostile(&shop, "name", &[]);
    let plain = check(plain.pid()).0.unwrap();
    let report = check(named.pid()).0.unwrap();
    assert!(report.is_clean() && report.gaps.is_empty(), "{report:?}");
    assert_eq!((report.slots_checked, report.modules), (plain.slots_checked, plain.modules));
}

#[test]
fn lists_that_contradict_themselves_are_refused() {
    let shop = Workshop::new();
    for (mode, list) in
        [("loop", "link map"), ("back", "link map"), ("namespaces", "list of namespaces")]
    {
        let child = hostile(&shop, mode, &[]);
        let refusal = check(child.pid()).0.expect_err(mode);
        let right = matches!(&refusal, VerifyError::Malformed { what, .. } if *what == list);
        assert!(right, "{mode}: {refusal}");
    }
}

#[test]
fn a_list_of_modules_that_are_none_is_cut_and_a_finding() {
    let shop = Workshop::new();
    let child = hostile(&shop, "long", &[]);
    let report = check(child.pid()).0.unwrap();
    assert!(report.gaps.contains(&Gap::Truncated { what: "modules" }), "{:?}", report.gaps.len());
    assert!(report.gaps.len() <= Limits::default().modules + 8, "{}", report.gaps.len());
    let strays = &report.text.strays;
    assert!((1..=64).contains(&strays.len()), "{}", strays.len());
    assert!(strays.iter().all(|stray| stray.kind == StrayKind::Unmapped), "{strays:?}");
}

#[test]
fn files_that_claim_more_than_they_have_are_accounted_for() {
    let shop = Workshop::new();
    let gnu = shop.library("plugin.c", "libgnu.so", &["-DNUMBER=1", "-Wl,--hash-style=gnu"]);
    let sysv = shop.library("plugin.c", "libsysv.so", &["-DNUMBER=1", "-Wl,--hash-style=sysv"]);
    let mut files = Vec::new();
    let mut put = |name: &str, from: &Path, change: &dyn Fn(&mut Image)| {
        let mut image = Image(fs::read(from).unwrap());
        change(&mut image);
        files.push(shop.path(name));
        fs::write(shop.path(name), image.0).unwrap();
    };
    put("whole.so", &gnu, &|_| {});
    // Sections 64 KiB before the end of all addresses.
    put("sections.so", &gnu, &|image| image.set(40, u64::MAX - 0xffff, 8));
    put("segments.so", &gnu, &|image| image.set(56, 0xffff, 2));
    put("offset.so", &gnu, &|image| image.set(image.header(PT_LOAD) + 8, 1 << 62, 8));
    put("size.so", &gnu, &|image| image.set(image.header(PT_LOAD) + 32, u64::MAX, 8));
    put("dynamic.so", &gnu, &|image| image.set(image.header(PT_DYNAMIC) + 32, u64::MAX, 8));
    put("frames.so", &gnu, &|image| image.set(image.header(PT_GNU_EH_FRAME) + 32, 1 << 40, 8));
    put("strings.so", &gnu, &|image| image.set_tag(DT_STRSZ, 4 << 30));
    put("needed.so", &gnu, &|image| image.set_tag(DT_NEEDED, u64::MAX));
    for (number, word) in ["buckets", "bias", "bloom"].into_iter().enumerate() {
        put(&format!("gnu-{word}.so"), &gnu, &|image| {
            let table = image.tag(DT_GNU_HASH);
            image.set(table + number * 4, u64::from(u32::MAX), 4);
        });
    }
    for (number, word) in ["buckets", "chains"].into_iter().enumerate() {
        put(&format!("sysv-{word}.so"), &sysv, &|image| {
            let table = image.tag(DT_HASH);
            image.set(table + number * 4, u64::from(u32::MAX), 4);
        });
    }
    for file in &files {
        let name = file.file_name().unwrap().to_str().unwrap();
        let child = hostile(&shop, "map", std::slice::from_ref(file));
        let report = check(child.pid()).0.unwrap();
        let how = accounted(&report, file);
        println!("{name}: {}", how.join("; "));
        assert!(!how.is_empty(), "{name}: nothing is said of it: {report:?}");
        assert!(report.mismatches.is_empty(), "{name}: {:?}", report.mismatches);
    }
}

/// Where a report tells of a file: as a finding, as something not read, or as loose memory.
fn accounted(report: &Report, file: &Path) -> Vec<String> {
    let strays = report.text.strays.iter().filter(|stray| {
        stray.module.as_ref().is_some_and(|module| Path::new(&module.path) == file)
    });
    let name = file.to_str().unwrap();
    let gaps = report.gaps.iter().map(ToString::to_string).filter(|gap| gap.contains(name));
    let loose = report.text.loose.iter().map(|loose| format!("loose: {}", loose.memory));
    strays.map(ToString::to_string).chain(gaps).chain(loose).collect()
}

// === impl Image ===

impl Image {
    fn get(&self, at: usize, len: usize) -> u64 {
        let mut word = [0; 8];
        word[..len].copy_from_slice(&self.0[at..at + len]);
        u64::from_le_bytes(word)
    }

    fn set(&mut self, at: usize, value: u64, len: usize) {
        self.0[at..at + len].copy_from_slice(&value.to_le_bytes()[..len]);
    }

    /// Where the first program header of a kind is.
    fn header(&self, kind: u64) -> usize {
        let (table, count) = (self.index(32, 8), self.index(56, 2));
        let mut headers = (0..count).map(|number| table + number * 56);
        headers.find(|at| self.get(*at, 4) == kind).unwrap()
    }

    /// Where an entry of the dynamic section is.
    fn entry(&self, tag: u64) -> usize {
        let first = self.index(self.header(PT_DYNAMIC) + 8, 8);
        let mut entries = (first..).step_by(16);
        let found = entries.find(|at| [tag, DT_NULL].contains(&self.get(*at, 8))).unwrap();
        assert_eq!(self.get(found, 8), tag, "the library has no such entry");
        found
    }

    /// Hash tables are in the first segment, where addresses are places in the file.
    fn tag(&self, tag: u64) -> usize {
        self.index(self.entry(tag) + 8, 8)
    }

    fn set_tag(&mut self, tag: u64, value: u64) {
        let entry = self.entry(tag);
        self.set(entry + 8, value, 8);
    }

    fn index(&self, at: usize, len: usize) -> usize {
        usize::try_from(self.get(at, len)).unwrap()
    }
}
