//! Types of keys, logins vouched for by a host, and page faults of each phase.

use super::*;
use crate::host::testing::Flow;

/// One key is looked up, of a host or of a user, and signed with if it may log in.
fn offer(bench: &mut Bench, flow: Flow, (key_type, host): (&str, bool), allowed: bool, ok: bool) {
    bench.world.look_up(flow.network, key_type, host);
    bench.world.frame(flow.monitor, 23, Some(u32::from(allowed)), 0);
    if allowed {
        bench.world.frame(flow.network, 24, None, 0);
        bench.world.frame(flow.monitor, 25, Some(u32::from(!ok)), 0);
    }
}

/// The connection that comes of these offers.
fn offered(layout: Layout, offers: &[(&str, bool, bool, bool)]) -> Login {
    let mut bench = Bench::new(false);
    let flow = bench.world.connect(layout, false);
    for (key_type, host, allowed, ok) in offers {
        offer(&mut bench, flow, (key_type, *host), *allowed, *ok);
    }
    bench.world.exit(flow.network, BELOW, 0);
    bench.world.exit(flow.monitor, BELOW, 0);
    let events = bench.world.take();
    bench.one(events)
}

fn keys(login: &Login) -> Vec<(&str, Option<&str>, &str)> {
    let all = login.attempts.iter();
    all.map(|one| (one.method.name(), one.key_type.as_deref(), one.verdict.name())).collect()
}

#[test]
fn each_attempt_has_the_type_of_its_key() {
    let certificate = "sk-ssh-ed25519-cert-v01@openssh.com";
    for layout in Layout::ALL {
        let login = offered(
            layout,
            &[
                ("ssh-rsa", false, false, false),
                ("ssh-ed25519", false, true, false),
                (certificate, false, true, true),
            ],
        );
        let wanted = [
            ("publickey", Some("ssh-ed25519"), "refused"),
            ("publickey", Some(certificate), "accepted"),
        ];
        assert_eq!(keys(&login), wanted, "{layout:?}");
        let refused = offered(layout, &[("ssh-rsa", false, false, false)]);
        assert_eq!(keys(&refused), [("publickey", Some("ssh-rsa"), "refused")], "{layout:?}");
        let strange = offered(layout, &[("\u{1b}[2J", false, true, true)]);
        assert_eq!(keys(&strange), [("publickey", Some("other"), "accepted")], "{layout:?}");
    }
}

#[test]
fn a_login_that_a_host_vouches_for_is_told_as_such() {
    for layout in Layout::ALL {
        let login = offered(layout, &[("ssh-ed25519", true, true, true)]);
        assert_eq!(login.method, Some(Method::Hostbased), "{layout:?}");
        assert_eq!(keys(&login), [("hostbased", Some("ssh-ed25519"), "accepted")], "{layout:?}");
        let refused = offered(layout, &[("ssh-rsa", true, false, false)]);
        assert_eq!(keys(&refused), [("hostbased", Some("ssh-rsa"), "refused")], "{layout:?}");
        // The user's own key after it.
        let both =
            offered(layout, &[("ssh-rsa", true, true, false), ("ssh-ed25519", false, true, true)]);
        let wanted = [
            ("hostbased", Some("ssh-rsa"), "refused"),
            ("publickey", Some("ssh-ed25519"), "accepted"),
        ];
        assert_eq!(keys(&both), wanted, "{layout:?}");
    }
}

#[test]
fn a_password_has_no_key() {
    let mut bench = Bench::new(false);
    let flow = bench.world.connect(Layout::One, false);
    offer(&mut bench, flow, ("ssh-ed25519", false), false, false);
    bench.world.prove(flow, Way::Password, true);
    bench.world.exit(flow.network, BELOW, 0);
    bench.world.exit(flow.monitor, BELOW, 0);
    let events = bench.world.take();
    let login = bench.one(events);
    let wanted = [("password", None, "accepted"), ("publickey", Some("ssh-ed25519"), "refused")];
    assert_eq!(keys(&login), wanted);
}

#[test]
fn page_faults_are_told_by_phase() {
    let mut bench = Bench::new(false);
    let monitor = bench.world.login(&Made::new("publickey"));
    let mut events = bench.world.take();
    for event in &mut events {
        let EventBody::Frame(frame) = &mut event.body else { continue };
        frame.usage.minor_faults = match (event.tgid == monitor, frame.frame_type) {
            (true, 7) => 400,
            (true, 25) => 450,
            (true, 103) => 460,
            (false, 8) => 50,
            (false, 24) => 60,
            // What was told before stands.
            _ => 0,
        };
    }
    let login = bench.one(events);
    let Phases { link, key_exchange, auth, pam, session } = login.phases;
    let faults = |phase: Option<Phase>| phase.expect("reached").page_faults;
    assert_eq!(faults(link), Some(295));
    assert_eq!(faults(key_exchange), Some(400 + 50 - 295));
    assert_eq!((faults(auth), faults(pam)), (Some(50 + 10), Some(10)));
    assert_eq!(faults(session), None, "whose they are is not known by then");
}
