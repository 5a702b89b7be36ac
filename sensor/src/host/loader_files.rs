//! Changes of the loader's and PAM's files, as the watch tells them: who did it, and whose work it is.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::container::Container;
use super::module::ModuleId;
use super::observe::{Body, Lineage, Observation, Process, ProcessId, Program};
use super::pipeline::Pipeline;
use crate::event::{FileKey, Role};
use crate::finding::ProcessRef;
use crate::watch::{Action, Actor, Change, LoaderConfig, Tool};

/// Ancestors looked at.
const DEPTH: usize = 16;
/// Where programs of the system stand; `/bin` and `/sbin` on hosts without a merged `/usr`.
const FOLDERS: [&str; 7] = [
    "/usr/bin",
    "/usr/sbin",
    "/bin",
    "/sbin",
    "/usr/libexec",
    "/usr/lib/rpm",
    "/usr/lib/packagekit",
];
/// Programs that unpack packages or run their scripts.
const PACKAGES: [&str; 15] = [
    "dpkg",
    "dpkg-deb",
    "apt",
    "apt-get",
    "aptitude",
    "rpm",
    "rpmkeys",
    "dnf5",
    "microdnf",
    "tdnf",
    "zypper",
    "packagekitd",
    "rpm-ostree",
    "apk",
    "pacman",
];
/// The same, written in Python.
const SCRIPTS: [&str; 4] =
    ["/usr/bin/dnf", "/usr/bin/dnf-3", "/usr/bin/yum", "/usr/bin/unattended-upgrade"];
/// Debian's `ldconfig` is a script that starts `ldconfig.real`.
const LDCONFIG: [&str; 2] = ["ldconfig", "ldconfig.real"];
/// What writes the services of PAM on its own: SUSE's, and Fedora's two.
const PAM_TOOLS: [&str; 3] = ["pam-config", "authselect", "authconfig"];
/// Debian's, written in Perl.
const PAM_SCRIPTS: [&str; 1] = ["/usr/sbin/pam-auth-update"];
/// What stands for a process that was not seen.
const UNKNOWN: &str = "unknown";

impl Pipeline {
    /// One change; call it when the records of that moment have been read.
    pub fn on_loader_change(&mut self, change: Change, out: &mut impl FnMut(Observation)) {
        let Change { ktime_ns, touches, crowded, mut config } = change;
        let ids: Vec<Option<ProcessId>> =
            touches.iter().map(|touch| self.actor(&touch.actor, touch.ktime_ns)).collect();
        // Whoever changed what it says, rather than its mode.
        let content = |action: &Action| *action != Action::Attributes;
        let lead = touches.iter().position(|touch| touch.actions.iter().any(content)).unwrap_or(0);
        // Nobody vouches for those who were not even counted.
        config.tool = if crowded { None } else { self.tool_of_all(&ids, &config) };
        config.further = ids
            .iter()
            .zip(&touches)
            .enumerate()
            .filter(|(at, _)| *at != lead)
            .map(|(_, (id, touch))| self.executable(*id, &touch.actor))
            .chain(crowded.then(|| "and more".to_owned()))
            .collect();
        config.further.dedup();
        let id = ids.get(lead).copied().flatten();
        let process = match id.and_then(|id| self.shown(id)) {
            Some(process) => process,
            None => self.unseen(touches.get(lead).map(|touch| &touch.actor), &config),
        };
        let connection = id
            .and_then(|id| self.table.get(id))
            .and_then(|proc| proc.connection)
            .and_then(|connection| self.tracker.shown(connection));
        let time = self.clock.wall(ktime_ns);
        let body = Body::LoaderConfig(Box::new(config));
        out(Observation { ktime_ns, time, process, connection, body });
    }

    /// The process in the table, with what was caught of it.
    fn actor(&mut self, actor: &Actor, ktime_ns: u64) -> Option<ProcessId> {
        let id = match actor.start_ticks {
            Some(start_ticks) => {
                let id = ProcessId { tgid: actor.tgid, start_ticks };
                let known = self.table.get(id).is_some();
                if known { Some(id) } else { self.look_up(actor.tgid, ktime_ns) }
            }
            // It was gone when asked: whoever had the id last, unless it was born since.
            None => self.table.current(actor.tgid).filter(|id| {
                self.table.get(*id).is_some_and(|proc| proc.born_ktime_ns <= ktime_ns)
            }),
        }?;
        self.learn_details(id);
        let proc = self.table.get_mut(id)?;
        if proc.cmdline.as_ref().is_none_or(|known| known.is_empty()) && !actor.cmdline.is_empty() {
            proc.cmdline = Some(actor.cmdline.clone().into());
            proc.shown = None;
        }
        if let Some(cgroup) = actor.cgroup.as_ref().filter(|_| !proc.container_read) {
            proc.container = Container::parse(cgroup).map(Arc::new);
            proc.container_read = true;
            proc.shown = None;
        }
        Some(id)
    }

    /// The tool whose work it is, if it is the work of tools alone.
    fn tool_of_all(&mut self, ids: &[Option<ProcessId>], config: &LoaderConfig) -> Option<Tool> {
        let mut found: Option<Tool> = None;
        for id in ids {
            let tool = self.tool(id.as_ref().copied()?, config)?;
            found = match found {
                Some(known) if !known.packages => Some(known),
                Some(known) if tool.packages => Some(known),
                _ => Some(tool),
            };
        }
        found
    }

    /// A package manager among the process and its ancestors; else ldconfig or what writes PAM's
    /// services, if it is the process.
    fn tool(&mut self, id: ProcessId, config: &LoaderConfig) -> Option<Tool> {
        let mut next = Some(id);
        let mut ldconfig = None;
        for depth in 0..DEPTH {
            let Some(current) = next else { break };
            self.learn_details(current);
            let Some(proc) = self.table.get(current) else { break };
            next = proc.parent;
            let Some(program) = proc.program.clone() else { continue };
            let cmdline = proc.cmdline.clone();
            let Some(path) = below(&program.module.path, &config.root.path) else { continue };
            let cmdline = cmdline.as_deref();
            let packages = named(path, &PACKAGES) || script(path, cmdline);
            let plain = depth == 0
                && if config.role.is_pam() {
                    named(path, &PAM_TOOLS) || pam_script(path, cmdline)
                } else {
                    named(path, &LDCONFIG)
                };
            if !packages && !plain {
                continue;
            }
            let tgid = current.tgid;
            let file = &program.file;
            if self.outside.is_roots_own(config.root.tgid, tgid, Path::new(path), file) {
                let tool = Tool { path: path.to_owned(), packages };
                if packages {
                    return Some(tool);
                }
                ldconfig = Some(tool);
            }
        }
        ldconfig
    }

    fn executable(&self, id: Option<ProcessId>, actor: &Actor) -> String {
        let known = id.and_then(|id| self.table.get(id)).and_then(|proc| proc.program.as_ref());
        let path = known.map(|program| program.module.path.clone());
        path.unwrap_or_else(|| shown(actor.exe.as_ref()))
    }

    /// Somebody of whom no more is known than was caught; nobody where only the difference was seen.
    fn unseen(&self, actor: Option<&Actor>, config: &LoaderConfig) -> Arc<Process> {
        let exe = shown(actor.and_then(|actor| actor.exe.as_ref()));
        let cgroup = match actor {
            Some(actor) => actor.cgroup.clone(),
            None => self.outside.cgroup(config.root.tgid),
        };
        let container = cgroup.and_then(|text| Container::parse(&text)).unwrap_or_default();
        let module = ModuleId { path: exe.clone(), build: "inode:none".to_owned() };
        let program = Program {
            file: FileKey::default(),
            subject: format!("{} {}", module.path, module.build),
            module,
            role: Role::default(),
            uncovered: None,
            root_unseen: false,
        };
        let tgid = actor.map_or(0, |actor| actor.tgid);
        let start_ticks = actor.and_then(|actor| actor.start_ticks);
        Arc::new(Process {
            id: ProcessId { tgid, start_ticks: start_ticks.unwrap_or(0) },
            lineage: Lineage::Program(program.subject.clone()),
            shown: ProcessRef {
                pid: tgid,
                exe,
                cmdline: actor.map(|actor| actor.cmdline.clone()).unwrap_or_default(),
                start: start_ticks.map(|ticks| self.clock.start(ticks)),
                container: container.id,
                pod: container.pod,
                ..ProcessRef::default()
            },
            program: Arc::new(program),
            euid: 0,
            secure: false,
            injected: false,
            variables: Arc::default(),
        })
    }
}

fn shown(exe: Option<&PathBuf>) -> String {
    exe.map_or_else(|| UNKNOWN.to_owned(), |path| path.to_string_lossy().into_owned())
}

/// The path as a program below `root` sees it. One that the kernel walked from a root of its own
/// has no prefix.
fn below<'a>(path: &'a str, root: &str) -> Option<&'a str> {
    let root = root.trim_end_matches('/');
    let inside = path.strip_prefix(root).filter(|inside| inside.starts_with('/'));
    inside.or_else(|| path.starts_with('/').then_some(path))
}

fn named(path: &str, names: &[&str]) -> bool {
    path.rsplit_once('/')
        .is_some_and(|(folder, name)| FOLDERS.contains(&folder) && names.contains(&name))
}

/// A package manager in Python: the interpreter's word for what it runs has to do.
fn script(path: &str, cmdline: Option<&[String]>) -> bool {
    path.starts_with("/usr/bin/python3") && runs(cmdline, &SCRIPTS)
}

/// The same for what writes PAM's services.
fn pam_script(path: &str, cmdline: Option<&[String]>) -> bool {
    path.starts_with("/usr/bin/perl") && runs(cmdline, &PAM_SCRIPTS)
}

fn runs(cmdline: Option<&[String]>, scripts: &[&str]) -> bool {
    cmdline
        .and_then(|arguments| arguments.iter().skip(1).find(|text| !text.starts_with('-')))
        .is_some_and(|script| scripts.contains(&script.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::host::testing::{MS, World, clock};
    use crate::watch::{Role as FileRole, Touch};

    const DPKG: &str = "/usr/bin/dpkg";
    const LDCONFIG_PATH: &str = "/usr/sbin/ldconfig";
    const NOBODY: Role = Role(0);

    fn change(touches: Vec<Touch>) -> Change {
        let config = LoaderConfig {
            actions: Vec::new(),
            ..LoaderConfig::written(FileRole::Cache, "/etc/ld.so.cache")
        };
        let ktime_ns = touches.first().map_or(0, |touch| touch.ktime_ns);
        Change { ktime_ns, touches, crowded: false, config }
    }

    /// Below `parent` a program runs, renames the cache into place and ends, all unobserved by
    /// `/proc`.
    fn runs(world: &mut World, parent: u32, path: &str) -> Touch {
        let tgid = world.fresh();
        world.fork(parent, tgid, NOBODY);
        world.exec(tgid, parent, path, NOBODY, MS);
        let ktime_ns = world.now + 1;
        world.exit(tgid, NOBODY, MS);
        let actor = Actor { tgid, ..Actor::default() };
        Touch { actor, ktime_ns, actions: vec![Action::RenamedInto] }
    }

    fn told(station: &mut Pipeline, change: Change) -> (Arc<Process>, LoaderConfig) {
        let mut seen = Vec::new();
        station.on_loader_change(change, &mut |one| seen.push(one));
        let Some(Observation { process, body: Body::LoaderConfig(config), .. }) = seen.pop() else {
            panic!("{seen:?}")
        };
        (process, *config)
    }

    fn station(world: &mut World) -> Pipeline {
        let fake = world.fake.clone();
        let mut station =
            Pipeline::new(&Config::default(), clock(), Box::new(fake.clone()), Box::new(fake));
        station.start(world.now);
        for event in world.take() {
            station.on_event(event, &mut |_| {});
        }
        station
    }

    #[test]
    fn processes_that_ended_one_after_the_other_are_known_with_their_ancestors() {
        let mut world = World::new();
        let dpkg = world.fresh();
        world.fork(1, dpkg, NOBODY);
        world.exec(dpkg, 1, DPKG, NOBODY, MS);
        let touches: Vec<Touch> = (0..20).map(|_| runs(&mut world, dpkg, LDCONFIG_PATH)).collect();
        let mut station = station(&mut world);
        let (process, config) = told(&mut station, change(touches));
        assert_eq!(process.program.module.path, LDCONFIG_PATH);
        assert_eq!(process.shown.ancestors, [DPKG, "/usr/lib/systemd/systemd"]);
        assert_eq!(config.tool, Some(Tool { path: DPKG.to_owned(), packages: true }));
        assert_eq!(config.further, [LDCONFIG_PATH]);
    }

    #[test]
    fn one_stranger_among_them_is_explained_by_nobody() {
        let mut world = World::new();
        let dpkg = world.fresh();
        world.fork(1, dpkg, NOBODY);
        world.exec(dpkg, 1, DPKG, NOBODY, MS);
        let own = runs(&mut world, dpkg, LDCONFIG_PATH);
        let stranger = runs(&mut world, 1, "/usr/bin/mv");
        let unknown = Touch { actor: Actor { tgid: 9, ..Actor::default() }, ..own.clone() };
        let mut station = station(&mut world);
        for touches in [vec![own.clone(), stranger], vec![own.clone(), unknown]] {
            let (_, config) = told(&mut station, change(touches));
            assert_eq!(config.tool, None, "{:?}", config.further);
        }
        let crowded = Change { crowded: true, ..change(vec![own]) };
        assert_eq!(told(&mut station, crowded).1.tool, None);
    }

    #[test]
    fn ldconfig_alone_is_ldconfig_and_nobody_is_nobody() {
        let mut world = World::new();
        let alone = runs(&mut world, 1, LDCONFIG_PATH);
        let mut station = station(&mut world);
        let (_, config) = told(&mut station, change(vec![alone]));
        assert_eq!(config.tool, Some(Tool { path: LDCONFIG_PATH.to_owned(), packages: false }));
        let (process, config) = told(&mut station, change(Vec::new()));
        assert_eq!((process.shown.pid, process.shown.exe.as_str()), (0, "unknown"));
        assert_eq!(config.tool, None);
    }

    #[test]
    fn a_tool_is_known_by_its_place_below_the_root() {
        assert_eq!(below("/srv/x/usr/bin/dpkg", "/srv/x"), Some("/usr/bin/dpkg"));
        assert_eq!(below("/usr/bin/dpkg", "/"), Some("/usr/bin/dpkg"));
        assert_eq!(below("/srv/xy/dpkg", "/srv/x"), Some("/srv/xy/dpkg"));
        assert!(named("/usr/bin/dpkg", &PACKAGES) && named("/sbin/apk", &PACKAGES));
        for path in ["/tmp/usr/bin/dpkg", "/usr/local/bin/dpkg", "/usr/bin/dpkg2", "dpkg"] {
            assert!(!named(path, &PACKAGES), "{path}");
        }
    }

    #[test]
    fn a_script_is_known_by_its_first_argument_that_is_no_option() {
        let line = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        let python = "/usr/bin/python3.9";
        assert!(script(python, Some(&line(&["/usr/bin/python3", "-s", "/usr/bin/dnf", "update"]))));
        assert!(!script(python, Some(&line(&["python3", "/tmp/x.py", "/usr/bin/dnf"]))));
        assert!(!script("/tmp/python3", Some(&line(&["python3", "/usr/bin/dnf"]))));
        assert!(!script(python, None));
        let update = line(&["/usr/bin/perl", "-w", "/usr/sbin/pam-auth-update", "--package"]);
        assert!(pam_script("/usr/bin/perl", Some(&update)) && !pam_script(python, Some(&update)));
    }
}
