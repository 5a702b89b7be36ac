//! A whole login, with every record of it.

use super::*;

impl World {
    /// A whole connection. Gives the monitor's tgid.
    pub(crate) fn login(&mut self, login: &Login) -> u32 {
        let peer = Some("192.0.2.7:50022".parse().unwrap());
        let monitor = self.fresh();
        self.fork(LISTENER, monitor, SSHD);
        let exe = if login.tree == Tree::V9 { SSHD_PATH } else { SESSION_PATH };
        self.exec_as(monitor, LISTENER, exe, BELOW, 400_000, 0, peer);
        let linked = self.link(monitor, exe, login);
        self.now += 12 * MS;
        let child = self.fresh();
        self.fork(monitor, child, BELOW);
        if login.tree == Tree::V10 {
            self.exec(child, monitor, AUTH_PATH, BELOW, 100_000);
            self.link(
                child,
                AUTH_PATH,
                &Login {
                    libraries: login
                        .libraries
                        .iter()
                        .filter(|(path, _)| path != Path::new(EVIL))
                        .cloned()
                        .collect(),
                    ..login.clone()
                },
            );
            self.now += 12 * MS;
        }
        // A key of the host is signed with, then the user is asked for.
        let exchanged = linked + 12 * MS * login.slow_percent / 100 + login.exchange_ns;
        self.frame(child, 6, None, 3 * MS);
        self.frame(monitor, 7, None, exchanged);
        self.frame(child, 8, None, 4 * MS);
        for path in &login.opened {
            self.open(monitor, exe, path, &login.asker);
        }
        if let Some(helper) = &login.helper {
            let helper = helper.to_string_lossy().into_owned();
            let tgid = self.fresh();
            self.fork(monitor, tgid, BELOW);
            self.exec(tgid, monitor, &helper, Role::BELOW_SSHD, MS);
            self.exit(tgid, Role::BELOW_SSHD, MS);
        }
        self.now += login.idle_ns;
        for _ in 0..login.keys_refused {
            self.frame(child, 22, None, 7 * MS);
            self.frame(monitor, 23, Some(0), exchanged + MS);
        }
        let checking = 8 * MS * login.slow_percent / 100 + login.verdict_ns;
        let spent = exchanged + checking + self.noise(2 * MS);
        self.authenticate(monitor, child, login, spent);
        self.exit(child, BELOW, 9 * MS);
        if login.succeeds {
            let session = self.fresh();
            self.fork(monitor, session, BELOW);
            self.exec_as(session, monitor, "/usr/bin/bash", Role::BELOW_SSHD, MS, 1000, None);
            self.exit(session, Role::NONE, 3 * MS);
        }
        self.exit(monitor, BELOW, spent + 5 * MS);
        monitor
    }

    fn authenticate(&mut self, monitor: u32, child: u32, login: &Login, spent: u64) {
        let ok = login.succeeds;
        if login.method == "password" {
            self.frame(child, 12, None, 8 * MS);
            self.now += 60 * MS;
            self.frame(monitor, 13, Some(u32::from(ok)), spent + 50 * MS);
        } else {
            self.frame(child, 22, None, 7 * MS);
            self.frame(monitor, 23, Some(1), spent - MS);
            self.frame(child, 24, None, 8 * MS);
            if login.through {
                self.call_through(monitor, "RSA_public_decrypt", &login.caller);
            } else {
                self.call(monitor, "RSA_public_decrypt", &login.caller);
            }
            self.now += 20 * MS;
            self.frame(monitor, 25, Some(u32::from(!ok)), spent);
        }
        if ok {
            self.frame(child, 102, None, 8 * MS);
            self.frame(monitor, 103, Some(1), spent);
            self.frame(child, 26, None, 9 * MS);
        }
    }
}
