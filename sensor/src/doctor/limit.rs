//! What is not seen on any host, whatever is attached: said, so that silence is not taken for more
//! than it is.

use serde::Serialize;

/// One of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Limit {
    /// A name for it.
    pub limit: &'static str,
    /// What is not seen, and what tells of it all the same.
    pub unseen: &'static str,
}

/// All that are known.
pub const LIMITS: [Limit; 6] = [
    Limit {
        limit: "transient_slots",
        unseen: "an import redirected between two checks and restored before the second \
                 (got_redirected); who calls a guarded function is told each time (foreign_caller), \
                 so a wrapper that calls on is seen, one that jumps there is not",
    },
    Limit {
        limit: "data_pointers",
        unseen: "function pointers in memory that stays writable (.data, the heap: method tables of \
                 OpenSSL, PAM's handlers and conversations) are not compared, whether they were \
                 changed for one connection or for good; such a hook is seen if it calls a guarded \
                 function from a module that never did, or brings a module, and not if it answers by \
                 itself, jumps on, or leads to code that was there",
    },
    Limit {
        limit: "callers_of_others",
        unseen: "callers in programs that are not guarded, of functions that are not listed \
                 (`[[functions]]`), and of copies inside a program (OpenSSH's Ed25519, Dropbear's \
                 and strongSwan's own code)",
    },
    Limit {
        limit: "forged_verdicts",
        unseen: "a session whose verdict the monitor itself was made to forge (auth_without_method): its \
                 answers are believed for public keys and without PAM, and with PAM where libpam was \
                 asked, whatever it said, so such a hook is seen as a redirected slot or patched code \
                 only; verdicts that nobody can compare with libpam \
                 (halfsecond_verdicts_compared_total) and sessions of which nobody can say whether they had a verdict are counted by \
                 their reason (halfsecond_sessions_not_known_total), not told",
    },
    Limit {
        limit: "logins_elsewhere",
        unseen: "logins (`halfsecond logins`) of programs that are not guarded, have libpam built in, \
                 or do without it: Dropbear with its own passwords and keys, sudo and su without \
                 PAM; cron authenticates nobody, so its jobs are only counted \
                 (halfsecond_pam_logins_total)",
    },
    Limit {
        limit: "mapped_perf_events",
        unseen: "a probe by a perf event without a BPF program, whose descriptor is closed and whose \
                 buffer stays mapped: the kernel lists it nowhere (foreign_probe); in a program's \
                 code the breakpoint itself is found (text_patched), without its owner; one with a \
                 BPF program is told by that program, without its place",
    },
];
