use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt as _;

use proptest::prelude::*;

use super::*;

#[derive(Default)]
struct Tree(BTreeMap<String, String>);

impl Files for Tree {
    fn read(&self, path: &str) -> Option<Vec<u8>> {
        self.0.get(path).map(|text| text.as_bytes().to_vec())
    }

    fn list(&self, directory: &str) -> Option<Vec<String>> {
        let below = format!("{directory}/");
        Some(self.0.keys().filter_map(|path| Some(path.strip_prefix(&below)?.to_owned())).collect())
    }
}

fn tree(files: &[(&str, &str)]) -> Tree {
    Tree(files.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned())).collect())
}

fn arguments(line: &str) -> Vec<String> {
    line.split(' ').map(str::to_owned).collect()
}

fn paths(tree: &Tree, line: &str) -> Option<Vec<String>> {
    let (all, _) = named(tree, &arguments(line))?;
    Some(all.into_iter().map(|named| named.path).collect())
}

#[test]
fn commands_are_found_in_every_file_that_is_in_force() {
    let tree = tree(&[
        (
            "/etc/ssh/sshd_config",
            "# AuthorizedKeysCommand /no\nInclude sshd_config.d/*.conf\n\
             Match User git\n\tauthorizedkeyscommand=\"/opt/my keys\" %u\n\
             \"AuthorizedKeysCommand\" \"/opt/my keys\" %u # why\n",
        ),
        ("/etc/ssh/sshd_config.d/50.conf", "AuthorizedPrincipalsCommand /opt/principals %i\n"),
        ("/etc/ssh/sshd_config.d/60.txt", "AuthorizedKeysCommand /opt/not-included\n"),
        ("/etc/ssh/sshd_config.d/.70.conf", "AuthorizedKeysCommand /opt/hidden\n"),
        ("/srv/other", "AuthorizedKeysCommand none\nInclude /etc/ssh/sshd_config.d/50.conf\n"),
    ]);
    let all = ["/opt/my keys", "/opt/principals"].map(str::to_owned).to_vec();
    assert_eq!(paths(&tree, "/usr/sbin/sshd -D -R"), Some(all));
    let other = Some(vec!["/opt/principals".to_owned()]);
    assert_eq!(paths(&tree, "/usr/sbin/sshd -Df /srv/other -R"), other);
    assert_eq!(paths(&tree, "/usr/sbin/sshd -f/srv/other"), other);
    let more = Some(vec!["/opt/by-option".to_owned(), "/opt/principals".to_owned()]);
    let line = "/usr/sbin/sshd -oAuthorizedKeysCommand=/opt/by-option -f /srv/other -R";
    assert_eq!(paths(&tree, line), more);
    assert_eq!(paths(&tree, "/usr/sbin/sshd -f /srv/gone"), None, "not known is not none");
}

#[test]
fn kerberos_is_asked_about_passwords_where_a_line_in_force_says_so() {
    let asks = |text: &str, line: &str| {
        let tree = tree(&[
            ("/etc/ssh/sshd_config", text),
            ("/etc/ssh/more", "Match User a\n\tkerberosauthentication = \"yes\"\n"),
        ]);
        named(&tree, &arguments(line)).map(|(_, kerberos)| kerberos)
    };
    for (text, line, wanted) in [
        ("", "sshd -R", false),
        ("KerberosAuthentication no\n", "sshd -R", false),
        ("# KerberosAuthentication yes\nKerberosOrLocalPasswd yes\n", "sshd -R", false),
        ("KerberosAuthentication yes\n", "sshd -R", true),
        ("Match Address 192.0.2.0/24\nkerberosAuthentication=YES\n", "sshd -R", true),
        ("Include more\n", "sshd -R", true),
        ("", "sshd -oKerberosAuthentication=yes -R", true),
    ] {
        assert_eq!(asks(text, line), Some(wanted), "{text:?} {line}");
    }
}

#[test]
fn the_programs_of_pam_exec_are_found_through_includes() {
    let tree = tree(&[
        ("/etc/ssh/sshd_config", "UsePAM yes\n"),
        ("/etc/pam.d/sshd", "@include common-auth\naccount required pam_nologin.so\n"),
        ("/usr/lib/pam.d/sshd", "auth required pam_exec.so /opt/hidden-by-etc\n"),
        (
            "/etc/pam.d/common-auth",
            "auth optional pam_exec.so quiet expose_authtok log=/x type=auth /opt/notify %u\n\
             auth substack deeper\nauth required pam_unix.so /opt/no-program\n",
        ),
        ("/usr/lib/pam.d/deeper", "auth optional /lib/security/pam_exec.so relative\n"),
    ]);
    assert_eq!(paths(&tree, "sshd -R"), Some(vec!["/opt/notify".to_owned()]));
}

#[test]
fn what_is_endless_or_too_much_is_not_known() {
    let endless = tree(&[("/etc/ssh/sshd_config", "Include /etc/ssh/sshd_config\n")]);
    assert_eq!(paths(&endless, "sshd"), None);
    let pam = tree(&[("/etc/ssh/sshd_config", ""), ("/etc/pam.d/sshd", "@include sshd\n")]);
    assert_eq!(paths(&pam, "sshd"), None);
    let many: Vec<String> = (0..100).map(|n| format!("AuthorizedKeysCommand /opt/{n}")).collect();
    assert_eq!(paths(&tree(&[("/etc/ssh/sshd_config", &many.join("\n"))]), "sshd"), None);
    let long = "x".repeat(10_000);
    assert_eq!(paths(&tree(&[("/etc/ssh/sshd_config", &long)]), "sshd"), None);
    let places = tree(&[("/etc/ssh/sshd_config", "Include /etc/*/x\n")]);
    assert_eq!(paths(&places, "sshd"), None);
}

#[test]
fn a_command_is_known_by_its_file_and_a_script_by_its_whole_call() {
    let stays = || false;
    let runs = |ino, cmdline: &[&str]| {
        let cmdline: Vec<String> = cmdline.iter().map(|word| (*word).to_owned()).collect();
        move |commands: &Commands, has_left: &dyn Fn() -> bool| {
            commands.has(&Runs { ino, path: "", cmdline: &cmdline, has_left }).is_some()
        }
    };
    let program = Commands::of(7, None);
    assert!(runs(7, &["anything"])(&program, &stays));
    assert!(!runs(8, &["/opt/keys"])(&program, &stays));
    let elsewhere = Runs { ino: 8, path: "/opt/7", cmdline: &[], has_left: &stays };
    assert!(program.has(&elsewhere).is_some(), "numbered otherwise by an overlay");
    let script = Commands::of(7, Some((9, &["/bin/sh", "-e", "/opt/keys"])));
    assert!(runs(9, &["/bin/sh", "-e", "/opt/keys", "alice"])(&script, &stays));
    assert!(!runs(9, &["/bin/sh", "-c", "id", "/opt/keys"])(&script, &stays));
    assert!(
        !runs(7, &["/bin/sh", "-e", "/opt/keys"])(&script, &stays),
        "the script itself runs not"
    );
    // Nobody can say any more what it was called with.
    let may_run = |ino, cmdline: &[&str], has_left: &dyn Fn() -> bool| {
        let cmdline: Vec<String> = cmdline.iter().map(|word| (*word).to_owned()).collect();
        let runs = Runs { ino, path: "", cmdline: &cmdline, has_left };
        (script.has(&runs).is_some(), script.may_have(&runs).is_some())
    };
    assert_eq!(may_run(9, &[], &stays), (false, true));
    assert_eq!(may_run(9, &["curl"], &|| true), (false, true));
    assert_eq!(may_run(9, &["curl"], &stays), (false, false));
    assert_eq!(may_run(8, &[], &|| true), (false, false));
}

#[test]
fn an_interpreter_has_at_most_one_argument() {
    let of = |head: &str| interpreter(head.as_bytes());
    assert_eq!(of("#! /bin/sh\nid"), Some(vec!["/bin/sh".to_owned()]));
    let one = Some(vec!["/usr/bin/env".to_owned(), "-S python3 -u".to_owned()]);
    assert_eq!(of("#!/usr/bin/env  -S python3 -u \n"), one);
    assert_eq!(of("\u{7f}ELF"), None);
}

#[test]
fn this_machines_own_configuration_is_read_or_said_to_be_unreadable() {
    let dir = tempfile::tempdir_in("/tmp").unwrap();
    let config = dir.path().join("sshd_config");
    std::fs::write(&config, "AuthorizedKeysCommand /bin/true %u\n").unwrap();
    let arguments = ["sshd".to_owned(), "-f".to_owned(), config.display().to_string()];
    let own = std::process::id();
    let Some(commands) = Commands::read(own, &arguments) else {
        // On another mount than the root's only what the kernel has in its cache is found.
        println!("not tried: {} lies on a mount of its own", config.display());
        return;
    };
    let ino = std::fs::metadata("/bin/true").unwrap().ino();
    let has_left = || false;
    assert!(commands.has(&Runs { ino, path: "", cmdline: &[], has_left: &has_left }).is_some());
    assert!(Commands::read(u32::MAX, &arguments).is_none());
}

proptest! {
    #[test]
    fn any_bytes_are_read_without_panic(bytes: Vec<u8>) {
        let _ = configured(&bytes);
    }

    #[test]
    fn any_line_is_read_without_panic(
        line in r#"(Include|AuthorizedKeysCommand|auth|@include)[ =]["'\\*?\[ -~]{0,60}"#
    ) {
        let _ = configured(line.as_bytes());
    }
}
