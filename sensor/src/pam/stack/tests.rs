use proptest::prelude::*;

use super::*;
use crate::pam::entries;

fn services(files: &[(&str, &str)]) -> Services {
    let files: Vec<(String, Vec<String>)> = files
        .iter()
        .map(|(name, text)| (format!("/etc/pam.d/{name}"), entries(text.as_bytes())))
        .collect();
    Services::new(files.iter().map(|(path, entries)| (path.as_str(), entries.as_slice())))
}

fn opens(text: &str) -> bool {
    services(&[("sshd", text)]).opens("sshd")
}

/// `/etc/pam.d/common-auth` of Debian 12.
const DEBIAN: &str = "auth [success=1 default=ignore] pam_unix.so nullok\n\
                      auth requisite pam_deny.so\nauth required pam_permit.so\n";
/// `system-auth` as authselect 1.4 writes it (profile `sssd`).
const FEDORA: &str = "auth required pam_env.so\nauth required pam_faildelay.so delay=2000000\n\
    auth [default=1 ignore=ignore success=ok] pam_usertype.so isregular\n\
    auth [default=1 ignore=ignore success=ok] pam_localuser.so\n\
    auth sufficient pam_unix.so nullok\n\
    auth [default=1 ignore=ignore success=ok] pam_usertype.so isregular\n\
    auth sufficient pam_sss.so forward_pass\nauth required pam_deny.so\n";

#[test]
fn what_distributions_bring_lets_nobody_in_unasked() {
    assert!(!opens(DEBIAN) && !opens(FEDORA));
    let su = "auth sufficient pam_rootok.so\n@include common-auth\n";
    let files = [("su", su), ("common-auth", DEBIAN)];
    assert!(!services(&files).opens("su"));
}

#[test]
fn each_way_to_let_everybody_in_is_found() {
    for text in [
        "auth sufficient pam_permit.so\n@include common-auth",
        "auth required pam_permit.so",
        "auth required pam_env.so\nauth [success=done default=ignore] pam_permit.so",
        "auth optional pam_permit.so\nauth sufficient pam_unix.so",
        "auth [success=1 default=ignore] pam_unix.so\nauth optional pam_deny.so\n\
         auth required pam_permit.so",
        "auth [default=1] pam_unix.so\nauth requisite pam_deny.so\nauth required pam_permit.so",
        "auth sufficient pam_succeed_if.so user = mallory\nauth required pam_unix.so",
        "auth substack common-auth\nauth sufficient pam_permit.so",
    ] {
        // In a substack `die` ends the substack only; what it thinks stays.
        let want = !text.contains("substack");
        assert_eq!(
            services(&[("sshd", text), ("common-auth", DEBIAN)]).opens("sshd"),
            want,
            "{text}"
        );
    }
}

#[test]
fn a_refusal_that_came_first_stands() {
    assert!(!opens("auth required pam_unix.so\nauth sufficient pam_permit.so"));
    assert!(!opens("auth requisite pam_unix.so\nauth required pam_permit.so"));
    assert!(!opens("auth [default=5] pam_unix.so\nauth required pam_permit.so"), "bad jump");
    assert!(!opens("auth gibberish pam_permit.so\nauth required pam_permit.so"));
    assert!(!opens("auth required pam_env.so"), "nobody said yes");
    assert!(!opens(""));
}

#[test]
fn a_service_without_lines_is_as_the_others() {
    let other = services(&[
        ("sshd", "account required pam_unix.so"),
        ("other", "auth required pam_permit.so"),
    ]);
    assert!(other.opens("sshd"));
}

#[test]
fn those_that_include_a_file_are_named() {
    let all = services(&[
        ("common-auth", DEBIAN),
        ("login", "auth substack middle"),
        ("middle", "@include common-auth"),
        ("sshd", "auth include common-auth"),
        ("cron", "auth required pam_unix.so"),
    ]);
    assert_eq!(all.with("common-auth"), ["common-auth", "login", "middle", "sshd"]);
    assert_eq!(all.with("cron"), ["cron"]);
}

#[test]
fn the_administrators_file_hides_the_vendors() {
    let (own, vendor) = (
        vec!["auth required pam_deny.so".to_owned()],
        vec!["auth required pam_permit.so".to_owned()],
    );
    for files in [
        [("/etc/pam.d/x", own.as_slice()), ("/usr/lib/pam.d/x", vendor.as_slice())],
        [("/usr/lib/pam.d/x", vendor.as_slice()), ("/etc/pam.d/x", own.as_slice())],
    ] {
        assert!(!Services::new(files).opens("x"));
    }
}

#[test]
fn includes_without_end_are_a_failure() {
    assert!(!services(&[("a", "@include a\nauth required pam_permit.so")]).opens("a"));
    let names: Vec<String> = (0..12).map(|at| format!("s{at}")).collect();
    let lines: Vec<String> = (1..13).map(|at| format!("@include s{at}\n").repeat(200)).collect();
    let mut deep: Vec<(&str, &str)> =
        names.iter().zip(&lines).map(|(name, text)| (name.as_str(), text.as_str())).collect();
    deep.push(("s12", ""));
    assert!(!services(&deep).opens("s0"), "bounded, though nothing is in any of them");
}

proptest! {
    #[test]
    fn any_services_are_total(
        a in r"((auth|@include|-auth) (required|sufficient|include|substack|b|a|\[success=[0-9a-z]{1,4} default=[0-9a-z]{1,6}\]) (a|b|pam_permit.so|pam_deny.so)\n){0,12}",
        b in r"((auth|@include) (optional|substack|a|\[default=[0-9a-z]{1,6}\]) (a|b|pam_permit.so)\n){0,12}",
    ) {
        let all = services(&[("a", &a), ("b", &b)]);
        let _ = (all.opens("a"), all.opens("b"), all.with("a"));
    }
}
