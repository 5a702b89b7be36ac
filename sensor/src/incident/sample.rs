//! Findings as the detectors make them, for tests.

use jiff::{SignedDuration, Timestamp};

use crate::finding::{Evidence, Family, Finding, ProcessRef, Severity};
use crate::host::{Lineage, ProcessId};

pub(super) const LIBLZMA: &str = "/usr/lib/x86_64-linux-gnu/liblzma.so.5.4.1";
pub(super) const BUILD_ID: &str = "ab12cd34ef567890ab12cd34ef567890ab12cd34";
pub(super) const LIBCRYPTO: &str = "/usr/lib/x86_64-linux-gnu/libcrypto.so.3";
pub(super) const LIBCRYPTO_ID: &str = "77ff0123456789ab77ff0123456789ab77ff0123";
/// Event clock of the connection's start, ns.
pub(super) const START_NS: u64 = 1_000_000_000_000;
const PEER: &str = "192.0.2.7:5022";

/// The listener of the samples.
pub(super) fn sshd() -> Lineage {
    Lineage::Sshd(ProcessId { tgid: 700, start_ticks: 4200 })
}

/// A point of time `ms` after the connection's start.
pub(super) fn at(ms: i64) -> Timestamp {
    "2026-11-22T14:03:07Z".parse::<Timestamp>().unwrap() + SignedDuration::from_millis(ms)
}

/// The event clock `ms` after the connection's start.
pub(super) fn ktime(ms: i64) -> u64 {
    START_NS + u64::try_from(ms).unwrap() * 1_000_000
}

/// A finding of the sshd that serves the connection.
pub(super) fn finding(
    detector: &str,
    family: Family,
    severity: Severity,
    confidence: f64,
    ms: i64,
    evidence: Vec<Evidence>,
) -> Finding {
    Finding {
        time: at(ms),
        ktime_ns: ktime(ms),
        id: format!("{detector}-{ms}"),
        detector: detector.to_owned(),
        family,
        severity,
        confidence,
        title: format!("{detector} in sshd"),
        host: "web1".to_owned(),
        process: ProcessRef {
            pid: 812,
            exe: "/usr/sbin/sshd".to_owned(),
            cmdline: vec!["/usr/sbin/sshd".to_owned(), "-D".to_owned(), "-R".to_owned()],
            uid: 0,
            start: Some(at(0)),
            ancestors: vec!["/usr/sbin/sshd".to_owned(), "/usr/lib/systemd/systemd".to_owned()],
            container: None,
            pod: None,
        },
        subject: "/usr/sbin/sshd 0011223344".to_owned(),
        evidence,
        attack: vec!["T1554".to_owned()],
        explained_by: None,
        suppressed_by: None,
    }
}

/// Linking took longer, in one library.
pub(super) fn slow_link() -> Finding {
    let timing = timing("link_cpu", 0.304, 0.003, Some((LIBLZMA, 0.3)));
    let usual = Evidence::Note { text: "liblzma.so.5.4.1: its usual share is 0.0001 s".to_owned() };
    let evidence = vec![timing, library(String::new()), usual];
    finding("link_time_shift", Family::Linker, Severity::Medium, 0.9, 310, evidence)
}

/// Code of libcrypto is not its file's; it leads into that library, or nowhere.
pub(super) fn patched(leads: bool) -> Finding {
    let into = |text: &str| if leads { text.to_owned() } else { String::new() };
    let code = Evidence::Code {
        module: LIBCRYPTO.to_owned(),
        build_id: Some(LIBCRYPTO_ID.to_owned()),
        place: format!("{LIBCRYPTO}+0x277490 (RSA_public_decrypt+0x0)"),
        function: "RSA_public_decrypt".to_owned(),
        length: 5,
        expected: "f3 0f 1e fa 55".to_owned(),
        actual: "e9 1b 3c 00 00".to_owned(),
        expected_code: vec!["0x277490: endbr64".to_owned()],
        actual_code: vec!["0x277490: jmp 0x120f".to_owned()],
        leads_to: into("/usr/lib/x86_64-linux-gnu/liblzma.so.5.4.1+0x120f"),
        leads_to_module: into(LIBLZMA),
        leads_to_build_id: leads.then(|| BUILD_ID.to_owned()),
        explained_by: None,
    };
    finding("text_patched", Family::Hook, Severity::Critical, 0.97, 330, vec![code])
}

/// A slot leads into that library.
pub(super) fn redirected() -> Finding {
    let slot = Evidence::Slot {
        module: "/usr/sbin/sshd".to_owned(),
        slot: "0x10e5a8".to_owned(),
        slot_kind: "GLOB_DAT".to_owned(),
        symbol: "RSA_public_decrypt@OPENSSL_3.0.0".to_owned(),
        expected: "libcrypto.so.3+0x1d3c40".to_owned(),
        expected_module: "/usr/lib/x86_64-linux-gnu/libcrypto.so.3".to_owned(),
        actual: "liblzma.so.5.4.1+0x120f (xz_like_wrapper+0x0)".to_owned(),
        actual_module: LIBLZMA.to_owned(),
        actual_build_id: Some(BUILD_ID.to_owned()),
    };
    let notes = ["473 slots were compared", "the vdso was not compared", "nor was a third"]
        .map(|text| Evidence::Note { text: text.to_owned() });
    let evidence = [slot].into_iter().chain(notes).chain([connection(0.35, None, false)]);
    let evidence = evidence.collect();
    finding("got_redirected", Family::Hook, Severity::Critical, 0.98, 350, evidence)
}

/// That library calls the real function.
pub(super) fn foreign_caller() -> Finding {
    let caller = Evidence::Caller {
        function: "RSA_public_decrypt".to_owned(),
        caller_module: LIBLZMA.to_owned(),
        caller: "liblzma.so.5.4.1+0x1231 (xz_like_wrapper+0x22)".to_owned(),
        known: vec!["/usr/sbin/sshd".to_owned()],
        stack: vec![
            "liblzma.so.5.4.1+0x1231 (xz_like_wrapper+0x22)".to_owned(),
            "sshd+0x6a2c1 (ssh_rsa_verify+0x111)".to_owned(),
        ],
    };
    let evidence = vec![caller, library(String::new()), connection(0.9, Some("publickey"), false)];
    finding("foreign_caller", Family::Hook, Severity::High, 0.9, 900, evidence)
}

/// The login took longer.
pub(super) fn slow_login() -> Finding {
    let timing = timing("auth_cpu", 0.33, 0.03, None);
    let evidence = vec![timing, connection(1.05, Some("publickey"), true)];
    finding("auth_cpu_shift", Family::Sshd, Severity::Medium, 0.8, 1050, evidence)
}

/// A variable for the loader.
pub(super) fn preload() -> Finding {
    let name = "LD_PRELOAD".to_owned();
    let variable = Evidence::Environment { name, value: "/tmp/x.so".to_owned() };
    finding("preload_env", Family::Linker, Severity::High, 0.9, 5, vec![variable])
}

/// A shell before authentication.
pub(super) fn shell() -> Finding {
    let exec = Evidence::Exec {
        path: "/usr/bin/dash".to_owned(),
        cmdline: ["sh", "-c", "id > /tmp/out"].map(str::to_owned).to_vec(),
    };
    let evidence = vec![exec, connection(0.412, None, false)];
    finding("preauth_exec", Family::Sshd, Severity::Critical, 0.95, 412, evidence)
}

/// A session that nobody authenticated.
pub(super) fn session() -> Finding {
    let session = Evidence::Session {
        sign: "sshd forked the process that serves a user".to_owned(),
        missing: "no method of authentication had succeeded".to_owned(),
        user: Some("alice".to_owned()),
        uid: 0,
    };
    let tried = Evidence::Note { text: "until then publickey had been tried".to_owned() };
    let evidence = vec![session, tried, connection(0.43, Some("publickey"), false)];
    finding("auth_without_method", Family::Sshd, Severity::Critical, 0.95, 430, evidence)
}

/// A library that was not there while learning.
pub(super) fn new_library() -> Finding {
    let evidence = vec![library("8:1:4711".to_owned())];
    finding("library_unexpected", Family::Linker, Severity::Medium, 0.7, 8, evidence)
}

/// Without any evidence.
pub(super) fn bare(detector: &str, severity: Severity) -> Finding {
    finding(detector, Family::Sensor, severity, 0.5, 20, Vec::new())
}

/// The whole chain, in time order.
pub(super) fn xz_like() -> Vec<Finding> {
    vec![new_library(), slow_link(), redirected(), foreign_caller(), slow_login()]
}

/// As detectors identify it.
fn library(inode: String) -> Evidence {
    let build_id = Some(BUILD_ID.to_owned());
    Evidence::Library { path: LIBLZMA.to_owned(), build_id, inode }
}

pub(super) fn timing(
    metric: &str,
    seconds: f64,
    baseline_seconds: f64,
    share: Option<(&str, f64)>,
) -> Evidence {
    Evidence::Timing {
        metric: metric.to_owned(),
        seconds,
        baseline_seconds,
        limit_seconds: baseline_seconds + 0.1,
        samples: 40,
        module: share.map(|(module, _)| module.to_owned()),
        module_seconds: share.map(|(_, seconds)| seconds),
    }
}

pub(super) fn connection(since: f64, method: Option<&str>, authenticated: bool) -> Evidence {
    Evidence::Connection {
        peer: Some(PEER.to_owned()),
        method: method.map(str::to_owned),
        authenticated,
        since_accept_seconds: since,
    }
}
