//! Programs that call libpam.

use std::path::Path;

use super::{MODULE_SIZE, MS, World};
use crate::event::{Caller, EventBody, Modules, Placement, Role, Stack, Usage};

pub(crate) const LIBPAM: &str = "/usr/lib/x86_64-linux-gnu/libpam.so.0.85.1";
pub(crate) const PAM_FUNCTIONS: [&str; 6] = [
    "pam_authenticate",
    "pam_acct_mgmt",
    "pam_setcred",
    "pam_open_session",
    "pam_get_authtok",
    "pam_end",
];
/// What one call takes, with a wait in it.
pub(crate) const CALL_WALL_NS: u64 = 10 * MS;
pub(crate) const CALL_CPU_NS: u64 = 3 * MS;

impl World {
    /// A guarded program starts.
    pub(crate) fn start_pam(&mut self, path: &str, uid: u32) -> u32 {
        let tgid = self.fresh();
        self.fork(1, tgid, Role::NONE);
        self.exec_as(tgid, 1, path, Role::GUARDED, 0, uid, None);
        self.libpam(tgid, path, Role::GUARDED);
        tgid
    }

    /// It is linked with libpam.
    pub(crate) fn libpam(&mut self, tgid: u32, exe: &str, role: Role) {
        self.map(tgid, exe, Path::new(LIBPAM), role);
        let file = self.fake.with(|shared| shared.file(Path::new(LIBPAM)));
        let placed = Placement {
            start: file.ino * MODULE_SIZE + 0x1000,
            len: 0x8000,
            offset: 0x800,
            ino: file.ino,
            dev: file.dev,
            generation: file.generation,
        };
        let modules = Modules { placed: vec![placed], overflow: 0 };
        self.push(tgid, role, EventBody::Modules(Box::new(modules)));
    }

    /// Calls in this order, without `pam_`; `end:7` is handed a status.
    pub(crate) fn call_pam(&mut self, tgid: u32, role: Role, calls: &str) {
        for (number, call) in calls.split_whitespace().enumerate() {
            let (name, status) = call.split_once(':').unwrap_or((call, ""));
            let place = PAM_FUNCTIONS.iter().position(|function| function[4..] == *name);
            let place = place.unwrap_or_else(|| panic!("{call} is no call"));
            let ip = self.fake.with(|shared| {
                let library = shared.inode(Path::new(LIBPAM)) * MODULE_SIZE;
                let ip = library + 0x2000 + 0x100 * place as u64;
                shared.symbols.insert(ip, PAM_FUNCTIONS[place].to_owned());
                ip
            });
            let calls = number as u64;
            let caller = Caller {
                usage: Usage {
                    sum_exec_ns: calls * CALL_CPU_NS,
                    voluntary_switches: calls,
                    ..Usage::default()
                },
                ip,
                return_address: ip + 0x20,
                status: status.parse().ok(),
                stack: Stack::default(),
            };
            // The clock moves by a little with each event as well.
            self.now += CALL_WALL_NS - 10_000;
            self.push(tgid, role, EventBody::Caller(caller));
        }
    }

    /// A program that makes these calls and ends.
    pub(crate) fn pam(&mut self, path: &str, uid: u32, calls: &str) -> u32 {
        let tgid = self.start_pam(path, uid);
        self.call_pam(tgid, Role::GUARDED, calls);
        self.exit(tgid, Role::GUARDED, 20 * MS);
        tgid
    }
}
