//! What appears below a connection before its authentication is proven: programs and sessions.
//!
//! sshd and PAM start few programs then, each from a place of its own: sshd-auth as the network
//! child, `AuthorizedKeysCommand` and PAM's helpers below the monitor or the child that talks to
//! PAM. A program counts as one of them by its place and its file, never by its name alone.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::commands::{Commands, Runs};
use super::observe::{Body, ConnectionId, Observation, ProcessId};
use super::outside::Unanswered;
use super::pipeline::{At, Pipeline};
use super::proof::{Doubt, Sign};
use super::table::Proc;
use crate::event::{Exec, InodeKey, Role};
use crate::serial::Word;

/// Programs told of one connection; whoever runs more was told often enough.
const TOLD_MAX: u32 = 32;
/// Signs of a session told of one connection.
const SIGNS_MAX: u32 = 8;
/// Configurations remembered: one for each root and command line of a server.
const CONFIGS_MAX: usize = 64;
/// A configuration is read again for a program that it does not have, but not more often.
const FRESH_NS: u64 = 1_000_000_000;
/// Directories in which only a system's administrator puts programs.
const SYSTEM: [&str; 8] = [
    "/bin/",
    "/sbin/",
    "/usr/bin/",
    "/usr/sbin/",
    "/usr/lib/",
    "/usr/libexec/",
    "/lib/",
    "/lib64/",
];
/// PAM's own helpers, which are there to be run before a verdict. None of them runs another program.
const HELPERS: [&str; 9] = [
    "unix_chkpwd",
    "unix_update",
    "pam_extrausers_chkpwd",
    "pwhistory_helper",
    "ccreds_chkpwd",
    "tcb_chkpwd",
    "krb5_child",
    "p11_child",
    "oidc_child",
];

/// What a process below a connection is to sshd.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Starter {
    /// The monitor itself.
    Monitor,
    /// The network child, which may run nothing, or something below it.
    Network,
    /// A fork of the monitor: it talks to PAM, or is about to execute something.
    Sshd,
    /// A command that sshd or PAM is configured to run, or something below it.
    Command,
    /// What may be such a command, or something below it.
    Uncertain,
    /// A helper that runs nothing.
    Leaf,
    /// Anything else.
    Stranger,
}

/// A program was executed below a connection before its authentication was proven.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Below {
    /// What executed it.
    pub by: Starter,
    /// Why it belongs there; `None` where nothing says so.
    #[serde(with = "crate::serial::option")]
    pub known: Option<Word>,
    /// Only root decides about its file, as far as anybody could look.
    pub protected: bool,
    /// Why its place may be another; `None` where the connection was seen as a whole.
    pub doubt: Option<Doubt>,
}

/// Whether a program belongs where it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// This is why.
    Known(&'static str),
    /// Nothing says so.
    Strange,
    /// It may be configured: its own arguments, the server's or the configuration could not be read.
    Unsaid,
}

/// Configurations by the root of their server and its arguments.
#[derive(Debug, Default)]
pub(super) struct Configs(Vec<(Key, u64, Arc<Commands>)>);

pub(super) type Key = (Option<InodeKey>, Arc<[String]>);

/// How often a session's proof was not known, by the reason.
pub(super) type NotKnown = [u64; Doubt::ALL.len()];

// === impl Starter ===

impl Starter {
    /// As a sentence names it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Monitor => "sshd's monitor in its own place",
            Self::Network => "sshd's unprivileged network child",
            Self::Sshd => "a child of sshd's monitor",
            Self::Command => "a configured command",
            Self::Uncertain => "what may be a configured command",
            Self::Leaf => "a helper of PAM",
            Self::Stranger => "a program that does not belong there either",
        }
    }
}

// === impl Pipeline ===

impl Pipeline {
    /// After [`Body::Started`]: tells a program that was executed before the end of the proof.
    pub(super) fn executed_below(
        &mut self,
        id: ProcessId,
        at: At,
        exec: &Exec,
        out: &mut impl FnMut(Observation),
    ) {
        let Some(connection) = self.table.get(id).and_then(|proc| proc.connection) else { return };
        let Some(conn) = self.tracker.conn(connection) else { return };
        if !conn.confirmed || conn.is_over() || self.is_sshds(id, connection) {
            return;
        }
        let Some(conn) = self.tracker.conn_mut(connection) else { return };
        let by = conn.place(connection.0, id);
        let (standing, becomes) = self.standing(id, connection, at, exec, by);
        let known = if let Standing::Known(why) = standing { Some(why) } else { None };
        let protected = known.is_some() || self.is_protected(id, connection);
        let Some(conn) = self.tracker.conn_mut(connection) else { return };
        conn.starters.insert(id, becomes);
        let finished = conn.proof.finished();
        let sign = Sign::Executed { finished };
        // After the keys no command is due any more, whatever is configured.
        let unsaid = standing == Standing::Unsaid && !finished;
        conn.executed += u32::from(known.is_none() && !unsaid);
        if conn.executed > TOLD_MAX {
            conn.released = true;
            return;
        }
        let certain = conn.proof.unproven(sign).is_some_and(|unproven| unproven.doubt.is_none());
        let unread = unsaid.then_some(Doubt::ConfigurationUnread);
        let doubt = self.doubt_of(connection, sign).or(unread);
        let below = Below { by, known, protected, doubt };
        self.emit(id, at.ktime_ns, Body::Below(below), out);
        if unsaid && certain {
            return self.count_unsaid(connection);
        }
        // Root's of a user namespace is another number here.
        let root = self.table.get(connection.0).map_or(0, |monitor| monitor.uid);
        let anothers = exec.uid != root && by != Starter::Network;
        if known.is_none() && (finished || anothers) {
            self.tell_unproven(id, connection, at, sign, out);
        }
    }

    /// Once for each connection. It is followed on: its session needs a verdict all the same.
    fn count_unsaid(&mut self, connection: ConnectionId) {
        let Some(conn) = self.tracker.conn_mut(connection) else { return };
        if !std::mem::replace(&mut conn.unsaid, true) {
            self.count(Doubt::ConfigurationUnread);
        }
    }

    fn count(&mut self, doubt: Doubt) {
        let place = Doubt::ALL.iter().position(|known| *known == doubt);
        if let Some(count) = place.and_then(|place| self.not_known.get_mut(place)) {
            *count += 1;
        }
    }

    /// A session's process has appeared: told if its connection has no proof, counted if nobody can
    /// say.
    pub(super) fn tell_unproven(
        &mut self,
        id: ProcessId,
        connection: ConnectionId,
        at: At,
        sign: Sign,
        out: &mut impl FnMut(Observation),
    ) {
        let Some(conn) = self.tracker.conn_mut(connection) else { return };
        conn.heard.serves(sign);
        let Some(unproven) = conn.proof.unproven(sign) else { return };
        conn.signs += 1;
        if !conn.confirmed || conn.released || conn.signs > SIGNS_MAX {
            return;
        }
        if let Some(doubt) = unproven.doubt {
            conn.released = true;
            self.count(doubt);
        }
        self.emit_of(id, Some(connection), at.ktime_ns, Body::Unproven(unproven), out);
    }

    /// Before there is a network child nobody has anything to say: that no frame was seen is no doubt
    /// then, if this program's frames are read otherwise.
    fn doubt_of(&self, connection: ConnectionId, sign: Sign) -> Option<Doubt> {
        let conn = self.tracker.conn(connection)?;
        let doubt = conn.proof.unproven(sign)?.doubt?;
        let read = conn.program.as_ref().is_some_and(|program| self.tracker.reads(program));
        let early = doubt == Doubt::FramesUnread && conn.network.is_none() && read;
        (!early).then_some(doubt)
    }

    /// The monitor, or sshd-auth in the place of the network child: OpenSSH installs it beside
    /// sshd-session.
    fn is_sshds(&self, id: ProcessId, connection: ConnectionId) -> bool {
        if id == connection.0 {
            return self.table.get(id).is_some_and(Proc::sshd);
        }
        let program = |id| self.table.get(id).and_then(|proc| proc.program.clone());
        let (Some(own), Some(monitor)) = (program(id), program(connection.0)) else { return false };
        let directory = |path: &str| path.rsplit_once('/').map(|(dir, _)| dir.to_owned());
        let is_direct = self.tracker.conn(connection).is_some_and(|conn| conn.network == Some(id));
        is_direct
            && own.role.contains(Role::SSHD)
            && own.file.dev == monitor.file.dev
            && directory(&own.module.path) == directory(&monitor.module.path)
    }

    /// Why it belongs there, and what it is to sshd from now on.
    fn standing(
        &mut self,
        id: ProcessId,
        connection: ConnectionId,
        at: At,
        exec: &Exec,
        by: Starter,
    ) -> (Standing, Starter) {
        match by {
            Starter::Command => {
                return (Standing::Known("it runs below a configured command"), by);
            }
            Starter::Uncertain => return (Standing::Unsaid, by),
            Starter::Network => return (Standing::Strange, by),
            Starter::Sshd => {}
            _ => return (Standing::Strange, Starter::Stranger),
        }
        if self.is_pams_own(id, connection) {
            return (Standing::Known("it is a helper of PAM"), Starter::Leaf);
        }
        let standing = self.configured(id, connection, at, exec);
        match standing {
            Standing::Known(_) => (standing, Starter::Command),
            Standing::Unsaid => (standing, Starter::Uncertain),
            Standing::Strange => (standing, Starter::Stranger),
        }
    }

    /// One of PAM's helpers by name, in a directory of the system below the monitor's root, where
    /// only root decides about it.
    fn is_pams_own(&self, id: ProcessId, connection: ConnectionId) -> bool {
        let Some(inside) = self.inside(id, connection) else { return false };
        let name = inside.rsplit('/').next().unwrap_or_default();
        let named = HELPERS.contains(&name) && SYSTEM.iter().any(|dir| inside.starts_with(dir));
        named && self.is_protected(id, connection)
    }

    /// Its path as the monitor sees it, which the kernel has walked: the root of both is what stands
    /// before the monitor's own `/usr`, unless they have the host's.
    fn inside(&self, id: ProcessId, connection: ConnectionId) -> Option<String> {
        let path =
            |id| self.table.get(id)?.program.as_ref().map(|program| program.module.path.clone());
        let (own, monitor) = (path(id)?, path(connection.0)?);
        let before = || monitor.rfind("/usr/").and_then(|at| monitor.get(..at)).unwrap_or_default();
        let root = if self.is_at_home(connection.0) { "" } else { before() };
        own.strip_prefix(root).filter(|inside| inside.starts_with('/')).map(str::to_owned)
    }

    /// Nobody but root can have put it there. Where nobody could look, or the file has gone since, its
    /// path speaks for it.
    fn is_protected(&self, id: ProcessId, connection: ConnectionId) -> bool {
        let Some(inside) = self.inside(id, connection) else { return false };
        // A root of a user namespace has files of its own, whose owner is another's here.
        if self.table.get(connection.0).is_some_and(|monitor| monitor.euid != 0) {
            return true;
        }
        match self.outside.look_inside(connection.0.tgid, false, &inside) {
            Ok(Some(found)) => found.protected,
            Ok(None) | Err(Unanswered) => SYSTEM.iter().any(|dir| inside.starts_with(dir)),
        }
    }

    /// No configuration is known: sshd runs nothing that others than root decide about, as far as
    /// somebody could look.
    fn unsaid(&self, id: ProcessId, connection: ConnectionId) -> Standing {
        let Some(inside) = self.inside(id, connection) else { return Standing::Unsaid };
        let roots = self.table.get(connection.0).is_some_and(|monitor| monitor.euid == 0);
        let found = self.outside.look_inside(connection.0.tgid, false, &inside);
        let others = found.is_ok_and(|found| found.is_some_and(|found| !found.protected));
        if roots && others { Standing::Strange } else { Standing::Unsaid }
    }

    /// Whether sshd's configuration, or PAM's for it, names the program.
    fn configured(
        &mut self,
        id: ProcessId,
        connection: ConnectionId,
        at: At,
        exec: &Exec,
    ) -> Standing {
        let key = self.configs_key(connection).or_else(|| self.listeners_key(connection));
        let Some(key) = key else { return self.unsaid(id, connection) };
        let cmdline = self.table.get(id).and_then(|proc| proc.cmdline.clone()).unwrap_or_default();
        let has_left =
            || self.outside.exe(id.tgid).is_none_or(|(_, file)| file.ino != exec.exe.ino);
        let path = self.inside(id, connection).unwrap_or_default();
        let runs = Runs { ino: exec.exe.ino, path: &path, cmdline: &cmdline, has_left: &has_left };
        // What may be a script as well as a shell of the monitor's own is no more than that.
        let own = self.table.get(connection.0).is_some_and(|monitor| monitor.uid == exec.uid);
        let of = |commands: &Commands| match (commands.has(&runs), commands.may_have(&runs)) {
            (Some(why), _) => Some(Standing::Known(why)),
            (None, Some(why)) => Some(if own { Standing::Unsaid } else { Standing::Known(why) }),
            (None, None) => None,
        };
        let known = self.configs.get(&key);
        if let Some(standing) = known.and_then(|(_, commands)| of(commands)) {
            return standing;
        }
        if known.is_some_and(|(read_ns, _)| at.ktime_ns.saturating_sub(read_ns) < FRESH_NS) {
            return Standing::Strange;
        }
        // What was read long ago may have been changed since.
        let Ok(read) = self.outside.sshd_commands(connection.0.tgid, &key.1) else {
            return self.unsaid(id, connection);
        };
        let standing = of(&read);
        self.configs.keep(key, at.ktime_ns, read);
        standing.unwrap_or(Standing::Strange)
    }

    /// The same by the listener's arguments, which its title keeps (sshd.c `prepare_proctitle`, 8.2 on):
    /// the monitor is started with these and `-R`.
    pub(super) fn listeners_key(&mut self, connection: ConnectionId) -> Option<Key> {
        let monitor = self.table.get(connection.0)?;
        let (root, listener) = (monitor.root, monitor.parent?);
        self.learn_details(listener);
        let listener = self.table.get(listener).filter(|proc| proc.sshd())?;
        let arguments = listening(listener.cmdline.as_ref()?)?;
        Some((root, arguments.into_iter().chain(["-R".to_owned()]).collect()))
    }

    /// Which configuration is in force for the monitor. Where its arguments are not known, that of the
    /// only server below the same root.
    pub(super) fn configs_key(&self, connection: ConnectionId) -> Option<Key> {
        let monitor = self.table.get(connection.0)?;
        // A title (`sshd: user [priv]`) that was set before anybody looked says nothing of them.
        let is_title = |all: &[String]| all.first().is_none_or(|first| first.contains(": "));
        match monitor.cmdline.clone().filter(|all| !is_title(all)) {
            Some(arguments) => Some((monitor.root, arguments)),
            None => self.configs.only_of(monitor.root?),
        }
    }
}

/// Arguments of a listener, from its own or from its title, which has blanks between them; `None`
/// where it was cut. Who has put blanks into one is not understood: a word of it that stands alone is
/// no option.
fn listening(cmdline: &[String]) -> Option<Vec<String>> {
    let first = cmdline.first()?;
    let Some((_, title)) = first.split_once(": ") else { return Some(cmdline.to_vec()) };
    let (arguments, _) = title.split_once(" [listener]")?;
    Some(arguments.split(' ').map(str::to_owned).collect())
}

// === impl Configs ===

impl Configs {
    pub(super) fn get(&self, key: &Key) -> Option<(u64, &Commands)> {
        let (_, read_ns, commands) = self.0.iter().find(|(known, ..)| known == key)?;
        Some((*read_ns, commands))
    }

    /// The only one below this root.
    fn only_of(&self, root: InodeKey) -> Option<Key> {
        let mut all = self.0.iter().map(|(key, ..)| key).filter(|key| key.0 == Some(root));
        let only = all.next()?;
        all.next().is_none().then(|| only.clone())
    }

    /// With what it said before: a server goes on with what it has read until it is told to reload.
    pub(super) fn keep(&mut self, key: Key, now_ns: u64, mut commands: Commands) {
        if let Some((_, before)) = self.get(&key) {
            commands.add(before);
        }
        self.0.retain(|(known, ..)| *known != key);
        if self.0.len() >= CONFIGS_MAX {
            self.0.remove(0);
        }
        self.0.push((key, now_ns, Arc::new(commands)));
    }
}
