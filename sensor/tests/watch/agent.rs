//! The whole sensor: a change in a root ends as an incident on standard output.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use super::harness::{Actor, Tree, unprivileged};
use super::lab::{Agent, free_port, wait_until};
use super::pam;

const PATIENCE: Duration = Duration::from_mins(1);

/// Findings of our detectors about a file below `root`.
fn findings<'a>(incident: &'a Value, root: &Path) -> Vec<&'a Value> {
    let about = |finding: &&Value| {
        (finding["detector"] == "loader_config_changed"
            || finding["detector"] == "pam_stack_changed")
            && finding["evidence"][0]["root"] == root.to_str().unwrap_or_default()
    };
    incident["findings"].as_array().into_iter().flatten().filter(about).collect()
}

/// A sensor with a tree to watch, whose state stands in the tree.
struct Watched {
    tree: Tree,
    agent: Agent,
    port: u16,
    _holder: Actor,
}

impl Watched {
    fn new() -> Self {
        Self::with(Tree::new())
    }

    fn with(tree: Tree) -> Self {
        let holder = tree.run(&["hold"]);
        let port = free_port().unwrap();
        let config = format!(
            "state_dir = \"{}\"\n[http]\nlisten = \"127.0.0.1:{port}\"\n[watch]\n\
             compare_every = \"100ms\"\n",
            tree.at("state").display()
        );
        let agent = Agent::spawn(&["run"], &config).unwrap();
        wait_until("a sensor that is ready", PATIENCE, || {
            Ok(agent.get(port, "/readyz").ok().filter(|(status, _)| *status == 200))
        })
        .unwrap();
        // Told by its own thread, which may come after the others.
        wait_until("the watch among the probes", PATIENCE, || {
            let (_, probes) = agent.get(port, "/api/v1/probes")?;
            Ok(probes.contains("loader_files").then_some(()))
        })
        .unwrap();
        Self { tree, agent, port, _holder: holder }
    }

    /// The incident with a finding about `file`, and that finding.
    fn incident(&self, file: &str) -> (Value, Value) {
        let root = self.tree.root();
        let about = |line: &Value| {
            findings(line, &root)
                .into_iter()
                .find(|one| one["evidence"][0]["file"] == file)
                .cloned()
        };
        // A line is written only when an incident opens or gets worse: the API has all of it.
        let incident = wait_until("an incident", PATIENCE, || {
            let (_, body) = self.agent.get(self.port, "/api/v1/incidents")?;
            let answer: Value = serde_json::from_str(&body)?;
            let all = answer["incidents"].as_array().into_iter().flatten();
            Ok(all.into_iter().find(|one| about(one).is_some()).cloned())
        });
        let incident = incident.unwrap();
        let finding = about(&incident).unwrap();
        (incident, finding)
    }
}

#[test]
fn a_library_planted_by_a_short_lived_process_is_an_incident_that_names_it() {
    if unprivileged() {
        return;
    }
    let watched = Watched::new();
    let actor = watched.tree.run(&["write", "/etc/ld.so.preload", "/opt/evil.so\n"]);
    let pid = actor.pid();
    actor.end();
    let (incident, finding) = watched.incident("/etc/ld.so.preload");
    println!("{}", serde_json::to_string_pretty(&incident).unwrap());
    assert_eq!(finding["severity"], "high");
    assert_eq!(finding["process"]["pid"], pid);
    let exe = finding["process"]["exe"].as_str().unwrap();
    assert!(exe.ends_with("/bin/actor"), "{exe}");
    let ancestors = finding["process"]["ancestors"].as_array().unwrap();
    assert!(!ancestors.is_empty(), "who started it");
    assert_eq!(finding["evidence"][0]["added"][0], "/opt/evil.so");
    assert_eq!(finding["explained_by"], Value::Null);
    let story = incident["story"].as_str().unwrap();
    assert!(story.contains("now puts /opt/evil.so into every program"), "{story}");
}

#[test]
fn a_package_manager_explains_itself_and_what_only_has_its_name_does_not() {
    if unprivileged() {
        return;
    }
    let watched = Watched::new();
    let tree = &watched.tree;
    for folder in ["usr/bin", "tmp/usr/bin", "usr/sbin"] {
        fs::create_dir_all(tree.at(folder)).unwrap();
    }
    for (program, owner) in [("usr/bin/dpkg", 0), ("tmp/usr/bin/dpkg", 0), ("usr/sbin/rpm", 1000)] {
        fs::copy(tree.at("bin/actor"), tree.at(program)).unwrap();
        std::os::unix::fs::chown(tree.at(program), Some(owner), None).unwrap();
    }
    for (program, file, explained, severity) in [
        ("/usr/bin/dpkg", "/etc/ld.so.preload", json!("/usr/bin/dpkg"), "low"),
        ("/tmp/usr/bin/dpkg", "/etc/ld.so.conf.d/b.conf", Value::Null, "medium"),
        ("/usr/sbin/rpm", "/etc/ld.so.conf.d/c.conf", Value::Null, "medium"),
    ] {
        let actor = tree.run_program(program, &["write", file, "/opt/x\n"]);
        let (_, finding) = watched.incident(file);
        assert_eq!(finding["explained_by"], explained, "{finding:#}");
        assert_eq!(finding["severity"], severity, "{finding:#}");
        actor.end();
    }
    // What explains itself opens no incident, but is counted.
    tree.run_program("/usr/bin/dpkg", &["write", "/etc/ld.so.conf.d/a.conf", "/opt/x\n"]).end();
    let series = "halfsecond_findings_total{detector=\"loader_config_changed\",severity=\"info\"}";
    wait_until("the finding to be counted", PATIENCE, || {
        Ok(watched.agent.metric(watched.port, series)?.filter(|count| *count >= 1.0))
    })
    .unwrap();
}

/// The one that a distribution's script may stand in front of.
fn ldconfig() -> Option<&'static str> {
    let places = ["/sbin/ldconfig.real", "/sbin/ldconfig"];
    let found = places.into_iter().find(|path| Path::new(path).exists());
    if found.is_none() {
        println!("skipped: this machine has no ldconfig");
    }
    found
}

/// Makes a cache in the tree of the directories that a file names.
fn make_cache(tree: &Tree, directories: &str, cache: &str) {
    let mut command = Command::new("chroot");
    command.arg(tree.root()).args(["/usr/sbin/ldconfig", "-X", "-f", directories, "-C", cache]);
    let made = command.output().unwrap();
    assert!(made.status.success(), "{made:?}");
}

#[test]
fn a_cache_made_by_ldconfig_is_its_business_and_one_put_there_by_hand_is_medium() {
    let (false, Some(ldconfig)) = (unprivileged(), ldconfig()) else { return };
    let watched = Watched::new();
    let tree = &watched.tree;
    for folder in ["usr/sbin", "usr/lib", "var/cache/ldconfig"] {
        fs::create_dir_all(tree.at(folder)).unwrap();
    }
    fs::copy(ldconfig, tree.at("usr/sbin/ldconfig")).unwrap();
    make_cache(tree, "/etc/ld.so.conf", "/etc/ld.so.cache");
    let series = "halfsecond_findings_total{detector=\"loader_config_changed\",severity=\"info\"}";
    wait_until("the finding to be counted", PATIENCE, || {
        Ok(watched.agent.metric(watched.port, series)?.filter(|count| *count >= 1.0))
    })
    .unwrap();
    let root = tree.root();
    for line in watched.agent.lines(0).unwrap() {
        assert!(findings(&line, &root).is_empty(), "it opens no incident: {line:#}");
    }

    let libc = ["/lib/x86_64-linux-gnu/libc.so.6", "/lib/aarch64-linux-gnu/libc.so.6"];
    let libc = libc.into_iter().find(|path| Path::new(path).exists()).unwrap();
    fs::create_dir(tree.at("usr/lib/other")).unwrap();
    fs::copy(libc, tree.at("usr/lib/other/libc.so.6")).unwrap();
    // Not the file that the loader's tool reads, so that only the cache changes.
    fs::write(tree.at("tmp/conf"), "/usr/lib/other\n").unwrap();
    make_cache(tree, "/tmp/conf", "/tmp/cache");
    let actor = tree.run(&["rename", "/tmp/cache", "/etc/ld.so.cache"]);
    let (_, finding) = watched.incident("/etc/ld.so.cache");
    let (severity, pid) = (&finding["severity"], &finding["process"]["pid"]);
    assert_eq!((severity, pid), (&json!("medium"), &json!(actor.pid())), "{finding:#}");
    assert_eq!(finding["explained_by"], Value::Null);
    let pair = "libc.so.6 => /usr/lib/other/libc.so.6";
    assert_eq!(finding["evidence"][0]["added"][0], pair, "{finding:#}");
}

#[test]
fn a_changed_stack_of_pam_is_an_incident_that_says_what_it_comes_to() {
    if unprivileged() {
        return;
    }
    let watched = Watched::with(pam::tree());
    let tree = &watched.tree;
    // What dpkg would have there: a root without packages owns nothing.
    fs::create_dir_all(tree.at("var/lib/dpkg/info")).unwrap();
    fs::write(tree.at("var/lib/dpkg/status"), "").unwrap();
    let file = "/etc/pam.d/common-auth";
    let actor = tree.run(&["write", file, "auth sufficient pam_permit.so\n"]);
    let pid = actor.pid();
    let (incident, finding) = watched.incident(file);
    println!("{}", serde_json::to_string_pretty(&incident).unwrap());
    actor.end();
    assert_eq!(finding["severity"], "high");
    assert_eq!(finding["process"]["pid"], pid);
    let evidence = &finding["evidence"][0];
    assert_eq!(evidence["added"][0], "auth sufficient pam_permit.so");
    assert_eq!(evidence["opened"], json!(["common-auth", "sshd"]));
    assert_eq!(finding["explained_by"], Value::Null);
    let story = incident["story"].as_str().unwrap();
    assert!(story.contains("lets everybody in"), "{story}");

    // A module of nobody's, by another process.
    let module = "/usr/lib/x86_64-linux-gnu/security/pam_new.so";
    tree.run(&["write", module, "x"]).end();
    let (_, finding) = watched.incident(module);
    assert_eq!(finding["severity"], "high", "{finding:#}");
}
