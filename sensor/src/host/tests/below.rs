//! What may run below a connection before its verdict: helpers at their places, commands of the
//! configuration, and what nobody could read.

use super::proof::{below, doubts, played, unproven};
use super::*;
use crate::event::InodeKey;
use crate::host::outside::RootView;
use crate::host::testing::{CHKPWD, FIND_KEYS, Flow, Layout, Way};

#[test]
fn helpers_count_at_their_place_only() {
    let known = |parent: fn(Flow) -> u32, path: &'static str| {
        let (seen, _) = played(|world| {
            let flow = world.connect(Layout::One, true);
            world.run_below(parent(flow), path, 0);
        });
        let ran = below(&seen);
        assert_eq!(ran.len(), 1, "{path}: {ran:?}");
        (ran[0].1.by, ran[0].1.known.is_some(), ran[0].1.protected)
    };
    let (monitor, network) = (|flow: Flow| flow.monitor, |flow: Flow| flow.network);
    assert_eq!(known(monitor, CHKPWD), (Starter::Sshd, true, true));
    assert_eq!(known(network, CHKPWD), (Starter::Network, false, true));
    assert_eq!(known(monitor, "/tmp/unix_chkpwd"), (Starter::Sshd, false, false));
    assert_eq!(known(monitor, "/tmp/usr/sbin/unix_chkpwd"), (Starter::Sshd, false, false));
    assert_eq!(known(monitor, "/usr/bin/bash"), (Starter::Sshd, false, true));
    assert_eq!(known(network, AUTH_PATH), (Starter::Network, false, true), "of another layout");
}

#[test]
fn a_servers_own_directory_is_no_root() {
    let known = |root: RootView, key: Option<u64>, server: &str, path: &'static str| {
        let (seen, _) = played(|world| {
            let monitor = world.fresh();
            world.fork(LISTENER, monitor, SSHD);
            let mut fake = world.fake.0.lock().unwrap();
            fake.roots.insert(monitor, root);
            let key = key.map(|ino| InodeKey { ino, ..InodeKey::default() });
            fake.root_keys.extend(key.map(|key| (monitor, key)));
            drop(fake);
            let peer = Some("192.0.2.7:50022".parse().unwrap());
            world.exec_as(monitor, LISTENER, server, BELOW, 0, 0, peer);
            world.fork(monitor, monitor + 1000, BELOW);
            world.frame(monitor + 1000, 8, None, 0);
            world.run_below(monitor, path, 0);
        });
        below(&seen).iter().map(|(_, below)| below.known.is_some()).collect::<Vec<_>>()
    };
    let (opt, jail) = ("/opt/x/usr/sbin/sshd", "/srv/jail/usr/sbin/sshd");
    for key in [None, Some(7)] {
        assert_eq!(known(RootView::Host, key, opt, CHKPWD), [true], "{key:?}");
        assert_eq!(known(RootView::Host, key, opt, "/opt/x/usr/sbin/unix_chkpwd"), [false]);
        let inside = "/srv/jail/usr/sbin/unix_chkpwd";
        assert_eq!(known(RootView::Chroot, key, jail, inside), [true], "{key:?}");
        assert_eq!(known(RootView::Chroot, key, jail, CHKPWD), [false], "outside of its root");
    }
}

#[test]
fn a_helper_of_pam_runs_nothing_itself() {
    let (seen, _) = played(|world| {
        let flow = world.connect(Layout::Session, true);
        let helper = world.run_below(flow.monitor, CHKPWD, 0);
        let shell = world.run_below(helper, "/usr/bin/bash", 0);
        world.run_below(shell, CHKPWD, 0);
    });
    let known: Vec<bool> = below(&seen).iter().map(|(_, below)| below.known.is_some()).collect();
    assert_eq!(known, [true, false, false]);
}

#[test]
fn a_command_before_the_network_child_does_not_take_its_place() {
    for layout in Layout::ALL {
        let (seen, _) = played(|world| {
            let flow = world.connect(layout, true);
            let mut events = world.take();
            // hosts_access(5): the monitor runs a shell before it forks its network child.
            let at = events.iter().position(|event| {
                event.tgid == flow.monitor && matches!(event.body, EventBody::Fork(_))
            });
            let rest = events.split_off(at.unwrap());
            world.events = events;
            world.run_below(flow.monitor, "/usr/bin/bash", 0);
            world.events.extend(rest);
            world.prove(flow, Way::Publickey, true);
            world.hand_over(flow);
            world.session(flow, 1000);
        });
        let ran = below(&seen);
        let by: Vec<Starter> = ran.iter().map(|(_, below)| below.by).collect();
        assert_eq!(by, [Starter::Sshd, Starter::Sshd], "{layout:?}: the shell, and the session's");
        let found = unproven(&seen);
        assert_eq!(found.first().map(|one| one.missing), Some(Missing::Account), "{layout:?}");
    }
}

#[test]
fn a_server_below_the_root_of_a_user_namespace_is_not_judged_by_owners() {
    let (seen, _) = played(|world| {
        let monitor = world.fresh();
        world.fork(LISTENER, monitor, SSHD);
        let peer = Some("192.0.2.7:50022".parse().unwrap());
        world.exec_as(monitor, LISTENER, SSHD_PATH, BELOW, 0, 100_000, peer);
        world.fork(monitor, monitor + 1000, BELOW);
        world.frame(monitor + 1000, 8, None, 0);
        world.run_below(monitor, "/usr/sbin/unix_update", 100_000);
        world.run_below(monitor, "/opt/helper", 100_000);
    });
    let ran: Vec<(bool, bool)> =
        below(&seen).iter().map(|(_, below)| (below.known.is_some(), below.protected)).collect();
    assert_eq!(ran, [(true, true), (false, true)]);
}

#[test]
fn a_configured_command_is_known_with_all_that_it_runs() {
    let mut world = World::new();
    let mut station = station(&mut world);
    let ino = world.fake.0.lock().unwrap().inode(Path::new(FIND_KEYS));
    world.fake.0.lock().unwrap().commands = Some(Commands::of(ino, None));
    let connect = |world: &mut World| {
        let next = world.fresh() + 1;
        let arguments = vec!["sshd".to_owned(), "-R".to_owned()];
        world.fake.0.lock().unwrap().cmdlines.insert(next, arguments);
        let flow = world.connect(Layout::One, false);
        assert_eq!(flow.monitor, next);
        flow
    };
    let flow = connect(&mut world);
    let command = world.run_below(flow.monitor, FIND_KEYS, 65534);
    world.run_below(command, "/usr/bin/true", 65534);
    world.run_below(flow.monitor, "/usr/bin/bash", 65534);
    world.run_below(flow.network, FIND_KEYS, 0);
    let seen = run(&mut station, world.take());
    let known: Vec<bool> = below(&seen).iter().map(|(_, below)| below.known.is_some()).collect();
    assert_eq!(known, [true, true, false, false]);
    assert_eq!(unproven(&seen).len(), 1, "another's identity, and no command's");
    let read = || world.fake.0.lock().unwrap().configs_read;
    assert_eq!(read(), 1, "and not again for each program");
    let before = read();
    world.now += 2000 * MS;
    let flow = connect(&mut world);
    world.run_below(flow.monitor, FIND_KEYS, 65534);
    world.run_below(flow.monitor, "/usr/bin/bash", 0);
    run(&mut station, world.take());
    let after = world.fake.0.lock().unwrap().configs_read;
    assert_eq!(after, before + 1, "once more for what it does not have");
    // Another configuration on the disk is not in force before the server reads it.
    world.now += 2000 * MS;
    world.fake.0.lock().unwrap().commands = Some(Commands::of(ino + 1000, None));
    let flow = connect(&mut world);
    world.run_below(flow.monitor, "/usr/bin/bash", 0);
    world.run_below(flow.monitor, FIND_KEYS, 65534);
    let seen = run(&mut station, world.take());
    let known: Vec<bool> = below(&seen).iter().map(|(_, below)| below.known.is_some()).collect();
    assert_eq!(known, [false, true]);
}

/// A command, what it runs, and a program of another user's: after a server whose arguments are
/// these, or that gives no configuration.
fn unreadable(arguments: &[&str], is_read: bool) -> (Vec<Observation>, Pipeline) {
    played(|world| {
        let monitor = world.fresh() + 1;
        let arguments = arguments.iter().map(|word| (*word).to_owned()).collect();
        let mut fake = world.fake.0.lock().unwrap();
        fake.cmdlines.insert(monitor, arguments);
        fake.inside.insert("/tmp/x".to_owned(), false);
        fake.commands = is_read.then(Commands::default);
        drop(fake);
        let flow = world.connect(Layout::Session, false);
        assert_eq!(flow.monitor, monitor);
        let command = world.run_below(flow.monitor, FIND_KEYS, 65534);
        world.run_below(command, "/usr/bin/true", 65534);
        world.run_below(flow.monitor, "/tmp/x", 0);
        world.run_below(flow.network, "/usr/bin/bash", 0);
        world.prove(flow, Way::Password, false);
        world.hand_over(flow);
        world.session(flow, 1000);
    })
}

#[test]
fn what_may_be_configured_is_not_known_where_nobody_could_read_it() {
    let cases: [(&[&str], bool); 3] =
        [(&[], true), (&["sshd-session: alice [priv]"], true), (&[SSHD_PATH, "-D"], false)];
    for (arguments, is_read) in cases {
        let (seen, station) = unreadable(arguments, is_read);
        let unread = Some(Doubt::ConfigurationUnread);
        let told: Vec<_> = below(&seen).iter().map(|(_, one)| (one.known, one.doubt)).collect();
        let by_others = [(None, None), (None, None)];
        let whole = [[(None, unread), (None, unread)], by_others].concat();
        assert_eq!(told.get(..4), Some(&whole[..]), "{arguments:?}");
        // The session itself needs a verdict as ever.
        let whole = [Sign::Forked, Sign::Asked, Sign::Executed { finished: true }];
        let signs: Vec<Sign> = unproven(&seen).iter().map(|one| one.sign).collect();
        assert_eq!(signs, whole, "{arguments:?}: and not the command");
        assert!(unproven(&seen).iter().all(|one| one.doubt.is_none()), "{arguments:?}");
        assert_eq!(doubts(&station), [("configuration_unread", 1)], "{arguments:?}");
    }
}

/// A monitor sets its title right after its start: whoever looks late sees no arguments.
#[test]
fn where_a_monitors_arguments_are_gone_its_listeners_title_has_them() {
    let title = "sshd: /usr/sbin/sshd -D -f /etc/x [listener] 1 of 10-100 startups";
    for (title, is_known) in [(title, true), ("sshd: /usr/sbin/sshd -D -f /etc/", false)] {
        let mut world = World::new();
        let monitor = world.fresh() + 1;
        let ino = world.fake.0.lock().unwrap().inode(Path::new(FIND_KEYS));
        let mut fake = world.fake.0.lock().unwrap();
        fake.cmdlines.insert(LISTENER, vec![title.to_owned(), String::new()]);
        fake.cmdlines.insert(monitor, vec!["sshd: [accepted]".to_owned()]);
        fake.commands = Some(Commands::of(ino, None));
        drop(fake);
        let mut station = station(&mut world);
        let flow = world.connect(Layout::One, false);
        assert_eq!(flow.monitor, monitor);
        world.run_below(flow.monitor, FIND_KEYS, 65534);
        let seen = run(&mut station, world.take());
        let known: Vec<bool> = below(&seen).iter().map(|(_, one)| one.known.is_some()).collect();
        assert_eq!(known, [is_known], "{title}");
        assert_eq!(doubts(&station).is_empty(), is_known, "{title}");
    }
}

#[test]
fn where_arguments_cannot_be_read_the_only_server_of_the_same_root_speaks_for_them() {
    let mut world = World::new();
    let mut station = station(&mut world);
    let connect = |world: &mut World, root: u64, arguments: &[&str]| {
        let monitor = world.fresh() + 1;
        let arguments = arguments.iter().map(|word| (*word).to_owned()).collect();
        let root = InodeKey { ino: root, ..InodeKey::default() };
        let mut fake = world.fake.0.lock().unwrap();
        fake.cmdlines.insert(monitor, arguments);
        fake.root_keys.insert(monitor, root);
        drop(fake);
        world.connect(Layout::One, false)
    };
    let ino = world.fake.0.lock().unwrap().inode(Path::new(FIND_KEYS));
    world.fake.0.lock().unwrap().commands = Some(Commands::of(ino, None));
    let mut told = |world: &mut World, root: u64, arguments: &[&str]| {
        let flow = connect(world, root, arguments);
        world.run_below(flow.monitor, FIND_KEYS, 65534);
        world.run_below(flow.monitor, "/usr/bin/bash", 0);
        let seen = run(&mut station, world.take());
        let all = below(&seen).into_iter();
        all.map(|(_, one)| (one.known.is_some(), one.doubt.is_some())).collect::<Vec<_>>()
    };
    let readable = [(true, false), (false, false)];
    let unsaid = [(false, true), (false, true)];
    assert_eq!(told(&mut world, 7, &[]), unsaid, "nobody has read anything yet");
    assert_eq!(told(&mut world, 7, &["sshd", "-D"]), readable);
    assert_eq!(told(&mut world, 7, &[]), readable);
    assert_eq!(told(&mut world, 8, &[]), unsaid, "another root");
    assert_eq!(told(&mut world, 7, &["sshd", "-f", "/other"]), readable);
    assert_eq!(told(&mut world, 7, &["sshd: alice [priv]"]), unsaid, "two servers");
}

#[test]
fn short_lived_children_do_not_hide_what_runs_after_them() {
    let run_after = |ends: bool| {
        let (seen, _) = played(|world| {
            let flow = world.connect(Layout::Session, false);
            for _ in 0..1500 {
                let child = world.fresh();
                world.fork(flow.monitor, child, BELOW);
                if ends {
                    world.exit(child, BELOW, MS);
                }
            }
            world.run_below(flow.monitor, "/usr/bin/bash", 0);
            world.frame(flow.network, 12, None, 0);
            world.frame(flow.monitor, 13, Some(0), 0);
        });
        let ran: Vec<_> = below(&seen).iter().map(|(_, one)| (one.known, one.doubt)).collect();
        let cpu_ns = seen.iter().find_map(|one| match &one.body {
            Body::Verdict(verdict) => Some(verdict.cpu_ns),
            _ => None,
        });
        let partial = seen.last().and_then(|one| one.connection.as_ref()).unwrap().partial;
        (ran, cpu_ns, partial)
    };
    assert_eq!(run_after(true), (vec![(None, None)], Some(1500 * MS), false));
    let (ran, _, partial) = run_after(false);
    assert_eq!((ran, partial), (Vec::new(), true), "too many at once to be followed");
}

#[test]
fn an_interpreter_that_has_gone_is_a_configured_scripts_for_another_user_only() {
    for (uid, standing, by) in
        [(65534, (true, false), Starter::Command), (0, (false, true), Starter::Uncertain)]
    {
        let (seen, station) = played(|world| {
            let mut fake = world.fake.0.lock().unwrap();
            let shell = fake.inode(Path::new("/usr/bin/bash"));
            fake.commands = Some(Commands::of(9999, Some((shell, &["/bin/sh", "/opt/keys"]))));
            drop(fake);
            let flow = world.connect(Layout::Session, false);
            // Its arguments cannot be read.
            let script = world.run_below(flow.monitor, "/usr/bin/bash", uid);
            world.run_below(script, "/usr/bin/true", uid);
        });
        let ran: Vec<_> = below(&seen).into_iter().map(|(_, one)| one).collect();
        let told: Vec<_> =
            ran.iter().map(|one| (one.known.is_some(), one.doubt.is_some())).collect();
        assert_eq!(told, [standing, standing], "{uid}");
        assert_eq!(ran.last().map(|one| one.by), Some(by), "{uid}");
        assert_eq!(doubts(&station).len(), usize::from(uid == 0), "{uid}");
        assert_eq!(unproven(&seen), [], "{uid}");
    }
}

#[test]
fn whoever_runs_programs_without_end_is_told_within_bounds() {
    let (seen, _) = played(|world| {
        let flow = world.connect(Layout::SessionAuth, false);
        for _ in 0..60 {
            world.run_below(flow.monitor, "/usr/bin/bash", 1000);
        }
    });
    assert!(below(&seen).len() <= 32, "{}", below(&seen).len());
    assert!(unproven(&seen).len() <= 8, "{}", unproven(&seen).len());
}
