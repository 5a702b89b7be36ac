//! What to do next: evidence first, then doubt, then repair.

use super::text::{base, name, plain};
use super::title::lead;
use crate::finding::{Evidence, Finding, Severity};

/// What the findings are about, for the commands.
struct Target<'a> {
    pid: u32,
    program: String,
    /// The file that is suspected.
    library: Option<&'a str>,
}

/// Advice for an incident with these findings: the [steps], and what [decides] about it.
pub(super) fn recommendation(findings: &[Finding]) -> String {
    let mut advice = steps(findings);
    advice.extend(decides(findings).map(str::to_owned));
    advice.join(" ")
}

/// What would confirm or refute the suspicion.
pub(super) fn decides(findings: &[Finding]) -> Option<&'static str> {
    lead(findings).map(decide)
}

/// What to do, one after the other.
pub(super) fn steps(findings: &[Finding]) -> Vec<String> {
    let Some(worst) = lead(findings) else { return Vec::new() };
    let target = Target {
        pid: worst.process.pid,
        program: name(base(&worst.process.exe)),
        library: std::iter::once(worst)
            .chain(findings)
            .flat_map(|finding| &finding.evidence)
            .find_map(suspect),
    };
    let seen = |detector: &str| findings.iter().any(|finding| finding.detector == detector);
    let mut advice = Vec::new();
    // Nobody was seen: there is no process to save evidence from.
    let seen_at_it = target.pid != 0;
    if seen_at_it && (worst.severity >= Severity::High || target.library.is_some()) {
        advice.push(collect(&target));
    }
    if worst.severity >= Severity::High {
        advice.push(isolate(seen("preauth_exec") || seen("auth_without_method")));
    }
    if let Some(library) = target.library {
        advice.push(verify_package(library));
    }
    advice.extend(DETECTORS.iter().filter(|(id, _)| seen(id)).map(|(_, text)| (*text).to_owned()));
    if advice.is_empty() {
        advice.push(format!(
            "Look at {} with `halfsecond scan --pid {}`.",
            target.program, target.pid
        ));
    }
    advice
}

/// What a detector asks for beyond the evidence that all share.
const DETECTORS: [(&str, &str); 11] = [
    (
        "preload_env",
        "Find who set the variable: the unit file and its drop-ins, /etc/environment and what else \
         pam_env reads, ~/.ssh/environment for what came by ssh, /proc/PID/environ of the parents. Look \
         at what lies where it leads, and keep a copy.",
    ),
    (
        "loader_config_changed",
        "Compare /etc/ld.so.preload, /etc/ld.so.conf.d and the loader's package with a known host; \
         look with a statically linked program (busybox, `halfsecond scan`), as a preloaded library \
         sits in every other one.",
    ),
    (
        "dlopen_unexpected",
        "Keep the module that asked as well as the library: the one says how code got in, the other \
         what it was to do.",
    ),
    (
        "link_time_shift",
        "See what was installed shortly before (/var/log/dpkg.log, `dnf history`) and whether \
         further starts are slow too.",
    ),
    (
        "auth_cpu_shift",
        "Log in again by other methods, with a key and a password that are good for nothing else \
         and void afterwards: a cost that every method pays arises before authentication, one that a \
         single method pays arises in its code.",
    ),
    (
        "preauth_exec",
        "Review what the command did: its children, files written since, new keys in \
         authorized_keys, new sessions.",
    ),
    (
        "auth_without_method",
        "Review the session's commands and end it once its memory and that of its monitor are saved; \
         look for other sessions of the same peer (`last`, `ss -tnp`).",
    ),
    (
        "pam_stack_changed",
        "Keep a root shell open, then compare /etc/pam.d and PAM's modules with their packages \
         (`dpkg -V libpam-runtime libpam-modules`, `rpm -V pam`) and with a known host; passwords \
         that were typed since the change may be known to others.",
    ),
    (
        "foreign_probe",
        "Ask whoever runs the process that holds the probe, and save its executable and what it \
         writes: until it ends it reads every password that passes there. Passwords used meanwhile \
         are to be changed.",
    ),
    (
        "kernel_hook",
        "List `bpftool prog`, /sys/kernel/debug/kprobes/list and `lsmod`, and keep them.",
    ),
    (
        "blinded",
        "Run `halfsecond doctor`, and `halfsecond scan --pid` for a process that is named; until both \
         are clean, silence means nothing.",
    ),
];

/// Commands that only read, in an order in which the most fleeting comes first.
fn collect(target: &Target<'_>) -> String {
    let Target { pid, program, library } = target;
    let library = library.map(|path| (path, is_typeable(path)));
    let others = match library {
        Some((path, true)) => format!(" that `grep -l {path} /proc/[0-9]*/maps` names"),
        _ if plain(program) => format!(" of {program} (`pgrep -x {program}`)"),
        _ => format!(" of {program}"),
    };
    let file = match library {
        Some((path, true)) => format!(
            "`cp -p {path} .` (where it has been replaced since, from /proc/{pid}/map_files, by the \
             address that maps has for it)"
        ),
        Some(_) => format!("the library as it is mapped (from /proc/{pid}/map_files)"),
        None => format!("`cp /proc/{pid}/exe .`"),
    };
    format!(
        "Save evidence before {program} is restarted or any package changed: either destroys it. As \
         root, in a directory of its own (`mkdir -m 700 /root/evidence && cd /root/evidence`), for pid \
         {pid}, or where that has ended for another process{others}: `cp /proc/{pid}/maps maps.{pid}`, \
         `gcore -a {pid}` for its memory (if gdb is installed already; keys and passwords are in it), \
         {file}; and this incident: `halfsecond incidents ID --json > incident.json`. Copy all of it to \
         another host."
    )
}

fn isolate(entered: bool) -> String {
    if entered {
        "Treat the host as entered: cut it off from the network, leave it running.".to_owned()
    } else {
        "Meanwhile let only an administration network reach the host, and keep a session open."
            .to_owned()
    }
}

/// A path that a shell would read differently is not put into a command.
fn is_typeable(path: &str) -> bool {
    plain(path) && path.starts_with('/')
}

fn verify_package(library: &str) -> String {
    if !is_typeable(library) {
        return "Ask the package manager who owns the file (its path stands in the evidence) and \
                verify that package with `dpkg -V` or `rpm -V`. Without an owner, see when the file came \
                and what makes the program load it."
            .to_owned();
    }
    format!(
        "See whose file it is: `dpkg -S {library}` (`rpm -qf {library}`). With an owner: `dpkg -V \
         PACKAGE` (`rpm -V`) compares it with what was installed, which says nothing where the \
         package itself is bad; so compare it with the distribution's own build of that version, too \
         (`readelf -n {library}` has the build-id). Without an owner: `stat {library}` says when it \
         came; find what makes the program load it (`readelf -d` of program and libraries for a RUNPATH, \
         /etc/ld.so.preload, /etc/ld.so.conf.d, the environment of its unit)."
    )
}

fn decide(worst: &Finding) -> &'static str {
    match worst.detector.as_str() {
        "got_redirected" | "text_patched" | "audit_unrequested" | "relro_reopened" => {
            "Confirmed if a clean build of the same version does not redirect the function; refuted \
             if somebody put a profiler, tracer or hardening library there on purpose."
        }
        "remote_write" => {
            "Confirmed if nobody responsible can say what the writer was to do there; refuted if \
             somebody debugs or traces the program on purpose."
        }
        "module_unlinked" => {
            "Confirmed if nobody can name the program that loads code past the loader; refuted if a \
             known tool (a profiler, an emulator, a just-in-time compiler) does."
        }
        "blinded" => {
            "Confirmed if it goes on after a restart, and no debugger, tracer or file server holds \
             what is named; refuted if one does."
        }
        "foreign_caller" => {
            "Confirmed if the caller's file differs from its package or its source has no such \
             call; refuted if an upgrade or a new module explains the call."
        }
        "auth_without_method" => {
            "Confirmed if the server's own log has no line \"Accepted\" for this peer, or its sshd or \
             PAM differs from its package; refuted if an sshd that was built or patched here lets \
             users in by a way of its own."
        }
        "preauth_exec" => {
            "Confirmed if no sshd configuration (AuthorizedKeysCommand, PAM exec, banner scripts) \
             asks for the program; refuted if one does."
        }
        "link_time_shift" | "auth_cpu_shift" | "auth_wall_shift" => {
            "Confirmed if further runs stay slow and an older build of the same package is fast; \
             refuted if the excess goes away by itself or an intended change explains it."
        }
        "foreign_probe" => {
            "Confirmed if nobody responsible runs a tracer there; refuted if an administrator or a \
             monitoring agent does."
        }
        "kernel_hook" => {
            "Confirmed if nobody responsible loaded it; refuted if an agent, a driver or an \
             administrator's tracing session explains it."
        }
        "loader_config_changed" => {
            "Confirmed if no package and nobody responsible put the entry there; refuted if a \
             configuration management run or an installation explains it."
        }
        "dlopen_unexpected" => {
            "Confirmed if the module that asked differs from its package, or has no reason in its \
             source or configuration (PAM, NSS, engines) to open the library; refuted if a change of \
             that configuration explains it."
        }
        "preload_env" => {
            "Confirmed if nobody responsible set the variable; refuted if a unit file or a known \
             tool did."
        }
        _ => {
            "Confirmed if nobody responsible can name the change behind it; refuted if a package \
             upgrade or an administrator's action explains it."
        }
    }
}

fn suspect(evidence: &Evidence) -> Option<&str> {
    let module = match evidence {
        Evidence::Slot { actual_module, .. } => actual_module,
        Evidence::Code { leads_to_module, .. } => leads_to_module,
        Evidence::Mapping { module, .. } => module,
        Evidence::Writer { exe, .. } => exe,
        Evidence::Caller { caller_module, .. } => caller_module,
        Evidence::Library { path, .. } => path,
        Evidence::Audit { callback_module, .. } => callback_module,
        Evidence::Opened { caller_module, library, .. } => {
            if caller_module.starts_with('/') {
                caller_module
            } else {
                library
            }
        }
        Evidence::Timing { module, .. } => module.as_ref()?,
        _ => return None,
    };
    (!module.is_empty()).then_some(module)
}
