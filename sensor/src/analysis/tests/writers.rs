//! Foreign hands in a program's memory, and its own in what was sealed, as incidents.

use sensor_common::record::{WRITE_MEM, WRITE_PTRACE, WRITE_VM};

use super::origins::owned;
use super::*;
use crate::event::Role;
use crate::host::{Body, Owners};
use crate::package::{Content, Origin};

const INJECTOR: &str = "/home/mallory/inject";
const DAEMON: &str = "/usr/sbin/rsyslogd";

impl Bench {
    /// A process of `path` with this user, below the shell with that number.
    fn starts(&mut self, path: &str, parent: u32, uid: u32) -> u32 {
        let tgid = self.world.fresh();
        self.world.fork(parent, tgid, Role::NONE);
        self.world.exec_as(tgid, parent, path, Role::NONE, 0, uid, None);
        tgid
    }

    /// What the world has made, once the provenance station has found this origin for the writers.
    fn run_knowing(&mut self, origin: &Arc<Origin>) {
        let mut seen = Vec::new();
        for event in self.world.take() {
            self.station.on_event(event, &mut |one| seen.push(one));
        }
        for mut one in seen {
            if let Body::Written(written) = &mut one.body {
                written.owners = Owners::Asked;
                let mut answer = one.clone();
                self.told.extend(self.analysis.on_observation(one));
                if let Body::Written(written) = &mut answer.body {
                    (written.owners, written.origin) = (Owners::Answered, Some(Arc::clone(origin)));
                }
                one = answer;
            }
            self.told.extend(self.analysis.on_observation(one));
        }
        self.findings = self.analysis.tally().findings;
    }

    fn written(&self) -> &Finding {
        let of = |finding: &&Finding| finding.detector == "remote_write";
        self.told.last().unwrap().incident.findings.iter().find(of).unwrap()
    }
}

fn writer(finding: &Finding) -> (&str, &[String], &[String], u64) {
    let found = finding.evidence.iter().find_map(|evidence| match evidence {
        Evidence::Writer { exe, ancestors, ways, times, .. } => {
            Some((exe.as_str(), ancestors.as_slice(), ways.as_slice(), *times))
        }
        _ => None,
    });
    found.unwrap_or_else(|| panic!("no writer in {:?}", finding.evidence))
}

#[test]
fn a_patch_from_outside_is_one_critical_incident_that_names_the_writer() {
    let mut bench = Bench::new();
    bench.run();
    let shell = bench.starts("/usr/bin/bash", 1, 0);
    let injector = bench.starts(INJECTOR, shell, 0);
    bench.redirect(LISTENER);
    bench.world.write(injector, Some(LISTENER), WRITE_MEM, 1);
    bench.run();
    assert_eq!(bench.fired(), ["remote_write"]);
    bench.world.now += 50 * MS;
    bench.run();
    assert_eq!(bench.fired(), ["got_redirected", "remote_write"]);
    let incident = bench.incident();
    assert_eq!(incident.severity, Severity::Critical);
    println!("{}\n{}\n{}", incident.title, incident.story, incident.recommendation);
    for finding in &incident.findings {
        let (exe, ancestors, ways, times) = writer(finding);
        assert_eq!((exe, times), (INJECTOR, 1), "{}", finding.detector);
        assert_eq!(ancestors.first().map(String::as_str), Some("/usr/bin/bash"));
        assert_eq!(ways, ["/proc/PID/mem"]);
        assert_eq!(finding.process.pid, LISTENER);
    }
    assert_eq!(incident.story.matches("inject (").count(), 1, "{}", incident.story);
}

#[test]
fn a_write_that_came_after_the_first_look_is_found_by_the_second() {
    let mut bench = Bench::new();
    bench.run();
    let injector = bench.starts(INJECTOR, 1, 0);
    bench.world.write(injector, Some(LISTENER), WRITE_VM, 1);
    bench.world.now += 50 * MS;
    bench.run();
    assert_eq!(bench.fired(), ["remote_write"]);
    // The kernel side tells no more of this pair for a second.
    bench.redirect(LISTENER);
    bench.world.now += 500 * MS;
    bench.run();
    assert_eq!(bench.fired(), ["remote_write"]);
    bench.world.now += 600 * MS;
    bench.run();
    assert_eq!(bench.fired(), ["got_redirected", "remote_write"]);
}

#[test]
fn a_packaged_debugger_that_root_runs_is_explained_and_another_of_its_name_is_not() {
    for (content, explained) in
        [(Content::Matches, true), (Content::Unread("gone".to_owned()), false)]
    {
        let origin = Arc::new(owned(content));
        let mut bench = Bench::new();
        bench.run();
        let gdb = bench.starts("/usr/bin/gdb", 1, 0);
        bench.world.write(gdb, Some(LISTENER), WRITE_PTRACE, 1);
        bench.run_knowing(&origin);
        let finding = bench.written();
        assert_eq!(finding.explained_by.is_some(), explained, "{finding:?}");
        let severity = if explained { Severity::Medium } else { Severity::Critical };
        assert_eq!(finding.severity, severity);
    }
}

#[test]
fn how_bad_it_is_depends_on_whose_memory_it_is() {
    let cases = [
        // A root daemon, somebody's program, and what the writer has started itself.
        (DAEMON, 0, false, Severity::High),
        ("/usr/bin/vim", 1000, false, Severity::Low),
        ("/usr/bin/vim", 1000, true, Severity::Info),
    ];
    for (path, uid, own, severity) in cases {
        let mut bench = Bench::new();
        bench.run();
        let tool = bench.starts("/usr/bin/rr", 1, 1000);
        let target = bench.starts(path, if own { tool } else { 1 }, uid);
        bench.world.write(tool, Some(target), WRITE_PTRACE, 1);
        bench.run();
        // What is merely worth knowing opens no incident.
        assert_eq!(bench.analysis.found(), [("remote_write", severity)], "{path} of {uid}");
    }
}

#[test]
fn an_unknown_target_is_told_as_unknown() {
    let mut bench = Bench::new();
    bench.run();
    let tool = bench.starts(INJECTOR, 1, 0);
    bench.world.write(tool, None, WRITE_VM, 3);
    bench.run();
    let finding = bench.written();
    assert_eq!((finding.severity, finding.process.pid), (Severity::Low, tool));
    assert!(finding.title.contains("another process"), "{}", finding.title);
}

#[test]
fn reopened_relro_is_told_and_what_was_done_with_it_too() {
    let mut bench = Bench::new();
    let tgid = bench.world.fresh();
    bench.world.fork(1, tgid, Role::NONE);
    bench.world.exec(tgid, 1, SSHD_PATH, SSHD, 0);
    bench.world.link(tgid, SSHD_PATH, &Login::new("publickey"));
    bench.run();
    assert_eq!(bench.fired(), Vec::<&str>::new());
    // An allocator's memory, then a sealed page.
    bench.world.reopen(tgid, None, 0, 3);
    bench.run();
    assert_eq!(bench.fired(), Vec::<&str>::new());
    bench.redirect(tgid);
    bench.world.reopen(tgid, Some(CRYPTO), 0x1000, 3);
    bench.world.now += 50 * MS;
    bench.run();
    assert_eq!(bench.fired(), ["got_redirected", "relro_reopened"]);
    let findings = &bench.incident().findings;
    println!("{}", bench.incident().story);
    for finding in findings {
        let told = finding.evidence.iter().any(|evidence| {
            matches!(evidence, Evidence::Protection { module, relro: true, access, .. }
                if module == CRYPTO && access == "rw-")
        });
        assert!(told, "{finding:?}");
    }
    let reopened = findings.iter().find(|finding| finding.detector == "relro_reopened").unwrap();
    assert_eq!(reopened.severity, Severity::High);
}

#[test]
fn code_made_writable_is_told() {
    let mut bench = Bench::new();
    bench.run();
    bench.world.reopen(LISTENER, Some(CRYPTO), 0x9000, 7);
    bench.run();
    assert_eq!(bench.fired(), ["relro_reopened"]);
    let finding = &bench.incident().findings[0];
    assert_eq!(finding.severity, Severity::High);
    assert!(finding.title.contains("code of libcrypto.so.3"), "{}", finding.title);
}
