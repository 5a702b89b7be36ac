//! Connections frame by frame, in every layout of sshd's processes.

use super::{AUTH_PATH, BELOW, LISTENER, SESSION_PATH, SSHD, SSHD_PATH, World};
use crate::event::Role;

/// How OpenSSH divides a connection among programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Layout {
    /// 8.4 to 9.7: one program.
    One,
    /// 9.8 and 9.9: sshd-session, whose network child executes nothing.
    Session,
    /// 10.x: sshd-session and sshd-auth.
    SessionAuth,
}

/// How a client proves who it is, as the frames of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    Publickey,
    Password,
    KeyboardInteractive,
    Gssapi,
    /// A key that is offered and refused, then a password.
    KeyThenPassword,
    /// `AuthenticationMethods publickey,password`.
    Both,
}

/// A connection on its way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Flow {
    pub(crate) monitor: u32,
    pub(crate) network: u32,
}

impl Layout {
    pub(crate) const ALL: [Self; 3] = [Self::One, Self::Session, Self::SessionAuth];

    fn monitor(self) -> &'static str {
        if self == Self::One { SSHD_PATH } else { SESSION_PATH }
    }
}

impl Way {
    pub(crate) const ALL: [Self; 6] = [
        Self::Publickey,
        Self::Password,
        Self::KeyboardInteractive,
        Self::Gssapi,
        Self::KeyThenPassword,
        Self::Both,
    ];

    /// Type and value, which only answers of the monitor have, and not all. `ok`: of the last answer.
    fn frames(self, ok: bool) -> Vec<(u8, Option<u32>)> {
        let key =
            |ok: bool| vec![(22, None), (23, Some(1)), (24, None), (25, Some(u32::from(!ok)))];
        let password = |ok: bool| vec![(12, None), (13, Some(u32::from(ok)))];
        match self {
            Self::Publickey => key(ok),
            Self::Password => password(ok),
            Self::KeyboardInteractive => {
                let asked = [(106, None), (107, Some(0)), (108, None), (109, Some(1))];
                // A wrong password is told by the next question's answer.
                let last = if ok {
                    vec![(106, None), (107, Some(0)), (108, None), (109, Some(0))]
                } else {
                    vec![(106, None), (107, Some(u32::MAX))]
                };
                let (begin, end) = ([(104, None), (105, None)], [(110, None), (111, None)]);
                [&begin[..], &asked, &last, &end].concat()
            }
            Self::Gssapi => {
                vec![(42, None), (44, None), (48, None), (46, None), (47, Some(u32::from(ok)))]
            }
            Self::KeyThenPassword => [vec![(22, None), (23, Some(0))], password(ok)].concat(),
            Self::Both => [key(true), password(ok)].concat(),
        }
    }
}

impl World {
    /// Accepted, served, and about to authenticate.
    pub(crate) fn connect(&mut self, layout: Layout, pam: bool) -> Flow {
        let (monitor, network) = (self.fresh(), self.fresh());
        self.fork(LISTENER, monitor, SSHD);
        let peer = Some("192.0.2.7:50022".parse().unwrap());
        self.exec_as(monitor, LISTENER, layout.monitor(), BELOW, 0, 0, peer);
        if self.calls_libpam {
            self.libpam(monitor, layout.monitor(), BELOW);
        }
        self.fork(monitor, network, BELOW);
        if layout == Layout::SessionAuth {
            self.exec(network, monitor, AUTH_PATH, BELOW, 0);
        }
        let flow = Flow { monitor, network };
        // Keys of the host are signed first.
        self.frame(network, 6, None, 0);
        self.frame(monitor, 7, None, 0);
        self.frame(network, 8, None, 0);
        if pam {
            self.frame(network, 100, None, 0);
        }
        flow
    }

    /// One way with its answers.
    pub(crate) fn prove(&mut self, flow: Flow, way: Way, ok: bool) {
        let talks = (way == Way::KeyboardInteractive).then(|| {
            let child = self.fresh();
            self.fork(flow.monitor, child, BELOW);
            // Its own frames: a prompt, and at the end PAM's status.
            self.pam_called(child, "authenticate get_authtok");
            self.frame(child, 1, None, 0);
            child
        });
        for (frame_type, value) in way.frames(ok) {
            // `enum monitor_reqtype`: a request is even, and its answer the next.
            let sender = if frame_type % 2 == 1 { flow.monitor } else { flow.network };
            self.frame(sender, frame_type, value, 0);
            if let Some(child) = talks.filter(|_| (frame_type, value) == (109, Some(1))) {
                if ok {
                    self.pam_called(child, "acct_mgmt");
                }
                self.frame(child, if ok { 0 } else { 7 }, None, 0);
            }
            if frame_type == 12 {
                self.pam_called(flow.monitor, "authenticate get_authtok");
            }
        }
        if let Some(child) = talks {
            self.exit(child, BELOW, 0);
        }
    }

    /// PAM's word on the account.
    pub(crate) fn account(&mut self, flow: Flow, allowed: bool) {
        self.frame(flow.network, 102, None, 0);
        self.pam_called(flow.monitor, "acct_mgmt");
        self.frame(flow.monitor, 103, Some(u32::from(allowed)), 0);
    }

    /// The network child takes authentication for finished, and ends.
    pub(crate) fn hand_over(&mut self, flow: Flow) {
        self.frame(flow.network, 26, None, 0);
        self.exit(flow.network, BELOW, 0);
        self.pam_called(flow.monitor, "setcred open_session");
    }

    /// As sshd with PAM does, unless it is made not to.
    fn pam_called(&mut self, tgid: u32, calls: &str) {
        if self.calls_libpam {
            self.call_pam(tgid, BELOW, calls);
        }
    }

    /// The user's process, its terminal, and a shell below it. Gives the shell.
    pub(crate) fn session(&mut self, flow: Flow, uid: u32) -> u32 {
        let user = self.fresh();
        self.fork(flow.monitor, user, BELOW);
        self.frame(user, 28, None, 0);
        let shell = self.fresh();
        self.fork(user, shell, BELOW);
        self.exec_as(shell, user, "/usr/bin/bash", Role::BELOW_SSHD, 0, uid, None);
        shell
    }

    /// A child of `parent` that executes this; gives it.
    pub(crate) fn run_below(&mut self, parent: u32, path: &str, uid: u32) -> u32 {
        let child = self.fresh();
        self.fork(parent, child, BELOW);
        self.exec_as(child, parent, path, Role::BELOW_SSHD, 0, uid, None);
        child
    }

    /// All of it, as it should be.
    pub(crate) fn whole(&mut self, layout: Layout, way: Way, pam: bool) -> Flow {
        let flow = self.connect(layout, pam);
        self.prove(flow, way, true);
        if pam {
            self.account(flow, true);
        }
        self.hand_over(flow);
        let shell = self.session(flow, 1000);
        self.run_below(shell, "/usr/bin/true", 1000);
        flow
    }
}
