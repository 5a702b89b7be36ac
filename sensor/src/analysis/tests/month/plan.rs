//! What happens on the simulated server in a month, and when.

use std::sync::Arc;

use super::host::{DAY, HOUR, Host};
use super::scenes::Scene;
use crate::host::testing::MS;
use crate::watch;

pub(super) const DAYS: u64 = 30;
/// When the upgrade comes that is attacked by, or its harmless namesake.
pub(super) const UPGRADE_DAY: u64 = 12;
const MINUTE: u64 = 60_000 * MS;
const LIBC: &str = "/usr/lib/x86_64-linux-gnu/libc.so.6";
const LIBZ: &str = "/usr/lib/x86_64-linux-gnu/libz.so.1";
const CRYPTO: &str = "/usr/lib/x86_64-linux-gnu/libcrypto.so.3";

/// Days on which the server is started anew, at 4:10.
const REBOOTS: [u64; 4] = [5, 11, 17, 24];
/// And on which only the sensor is, at 6:50, and the package that is upgraded while it is away.
const RESTARTS: [(u64, &str, &str); 2] =
    [(8, "libcom-err2", "1.47.0-2+b1"), (20, "libkrb5-3", "1.20.1-2+deb12u2")];
/// Packages by the day on which unattended-upgrades brings them.
const UPGRADES: [(u64, &str, &str); 12] = [
    (3, "libssl3", "3.0.11-1~deb12u2"),
    (4, "python3", "3.11.2-1+b1"),
    (6, "libkrb5-3", "1.20.1-2+deb12u1"),
    (9, "libpam-modules", "1.5.2-6+deb12u1"),
    (10, "libc6", "2.36-9+deb12u3"),
    (14, "zlib1g", "1:1.2.13.dfsg-1+b1"),
    (14, "libcap2", "1:2.66-4+b1"),
    (15, "bash", "5.2.15-2+b2"),
    (18, "openssh-server", "1:9.2p1-2+deb12u2"),
    (21, "libnss-systemd", "252.17-1~deb12u1"),
    (23, "libssl3", "3.0.11-1~deb12u3"),
    (26, "login", "1:4.13+dfsg1-1+b2"),
];

/// What liblzma's upgrade is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Liblzma {
    /// As any other.
    Harmless,
    /// It hooks sshd.
    Hooks,
}

/// One thing that is to happen.
#[derive(Clone, Copy, Debug)]
enum Event {
    Login { password: bool, percent: u64 },
    Stranger,
    Su,
    Start(&'static str),
    Rotation,
    Backup,
    Upgrades(u64),
    Look,
    Reboot,
    Restart(&'static str, &'static str),
}

/// Lets the month happen. Gives when liblzma was upgraded, and the first login after it was over, ns.
pub(super) fn live(host: &mut Host, liblzma: Liblzma) -> (u64, u64) {
    let mut upgraded = None;
    let mut login = None;
    for day in 0..DAYS {
        for (at_ns, event) in day_of(host, day) {
            happen(host, event, at_ns);
            if matches!(event, Event::Upgrades(UPGRADE_DAY)) {
                let at_ns = at_ns + 20 * MINUTE;
                upgraded = Some(at_ns);
                login = Some(upgrade_liblzma(host, liblzma, at_ns));
            }
        }
    }
    host.stop();
    (upgraded.expect("its day came"), login.expect("somebody logged in"))
}

/// A day, in order.
fn day_of(host: &mut Host, day: u64) -> Vec<(u64, Event)> {
    let weekday = day % 7 < 5;
    let mut all = Vec::new();
    if day == 0 {
        all.push((0, Event::Reboot));
    }
    // Configuration management, and cron.
    for half in 0..48 {
        let at_ns = half * HOUR / 2 + 90_000 * MS;
        let then = ["/usr/bin/apt", "/usr/bin/ssh", "/usr/bin/dpkg-query"];
        let then = then[usize::try_from(half % 3).unwrap()];
        all.extend([(at_ns, Event::Start("/usr/bin/python3")), (at_ns, Event::Start(then))]);
        if half % 2 == 0 {
            all.push((half * HOUR / 2 + 17 * MINUTE, Event::Start("/usr/bin/run-parts")));
        }
    }
    let mut any = |host: &mut Host, from: u64, hours: u64, event: Event| {
        all.push((from * HOUR + host.random(hours * HOUR), event));
    };
    let (keys, passwords) = if weekday { (8, 3) } else { (2, 1) };
    for at in 0..keys + passwords {
        let percent = 96 + host.random(9);
        any(host, 7, 12, Event::Login { password: at >= keys, percent });
    }
    for _ in 0..3 + host.random(4) {
        any(host, 0, 24, Event::Stranger);
    }
    for _ in 0..if weekday { 2 } else { 0 } {
        any(host, 8, 9, Event::Su);
    }
    all.push((2 * HOUR, Event::Backup));
    all.push((6 * HOUR + 25 * MINUTE, Event::Rotation));
    all.push((6 * HOUR + 31 * MINUTE, Event::Upgrades(day)));
    all.extend((1..4).map(|at| (at * 6 * HOUR + 5 * MINUTE, Event::Look)));
    if REBOOTS.contains(&day) {
        all.push((4 * HOUR + 10 * MINUTE, Event::Reboot));
    }
    for (_, package, version) in RESTARTS.into_iter().filter(|(its, ..)| *its == day) {
        all.push((6 * HOUR + 50 * MINUTE, Event::Restart(package, version)));
    }
    all.sort_by_key(|(at_ns, _)| *at_ns);
    all.into_iter().map(|(at_ns, event)| (day * DAY + at_ns, event)).collect()
}

fn happen(host: &mut Host, event: Event, at_ns: u64) {
    match event {
        Event::Login { password, percent } => login(host, password, percent, at_ns),
        Event::Stranger => {
            let scenes = Arc::clone(&host.scenes);
            let scene = host.pick(&scenes.refused);
            host.play(scene, at_ns);
            host.count("strangers refused");
        }
        Event::Su => {
            let scenes = Arc::clone(&host.scenes);
            let scene = host.pick(&scenes.su);
            host.play(scene, at_ns);
            host.count("starts of su");
        }
        Event::Start(path) => {
            let managed = path != "/usr/bin/run-parts";
            host.start(path, &[LIBC, LIBZ, CRYPTO], at_ns);
            host.count(if managed {
                "starts by configuration management"
            } else {
                "starts by cron"
            });
        }
        Event::Rotation => rotation(host, at_ns),
        Event::Backup => backup(host, at_ns),
        Event::Upgrades(day) => upgrades(host, day, at_ns),
        Event::Look => {
            host.check_listener(at_ns, "Patrol");
            host.count("looks at the listener");
        }
        Event::Reboot => host.boot(at_ns),
        Event::Restart(package, version) => {
            host.stop();
            assert!(host.files.upgrade(package, version, Host::wall(at_ns)) > 0, "{package}");
            host.count("packages upgraded");
            host.start_sensor(at_ns + MINUTE);
            host.count("restarts of the sensor");
        }
    }
}

fn login(host: &mut Host, password: bool, percent: u64, at_ns: u64) {
    let scenes = Arc::clone(&host.scenes);
    let of = if password { &scenes.passwords } else { &scenes.keys };
    let scene = host.pick(of).slow(percent);
    host.play(&scene, at_ns);
    host.count(if password { "logins by password" } else { "logins by key" });
}

/// Compresses yesterday's logs and has sshd reopen its own: it is asked whether its configuration is
/// sound, and starts itself anew in the same process. Neither was recorded: both are a monitor's start,
/// without its connection.
fn rotation(host: &mut Host, at_ns: u64) {
    for path in ["/usr/sbin/logrotate", "/usr/bin/gzip", "/usr/sbin/invoke-rc.d"] {
        host.start(path, &[LIBC], at_ns);
    }
    let scenes = Arc::clone(&host.scenes);
    let start = scenes.keys[0].without_connection(&["Started", "Library", "Linked", "Ended"]);
    host.play(&start, at_ns);
    host.check_listener(at_ns, "Late");
    host.count("log rotations");
}

/// Many starts, and a machine that is busy with them.
fn backup(host: &mut Host, at_ns: u64) {
    for at in 0..12 {
        let path = ["/usr/bin/rsync", "/usr/bin/tar", "/usr/bin/gzip", "/usr/bin/pg_dump"][at % 4];
        host.start(path, &[LIBC, LIBZ], at_ns);
    }
    let percent = 130 + host.random(40);
    login(host, false, percent, at_ns + 10_000 * MS);
    host.count("backups");
}

/// What unattended-upgrades does on a day.
fn upgrades(host: &mut Host, day: u64, at_ns: u64) {
    for path in ["/usr/bin/unattended-upgrade", "/usr/bin/apt"] {
        host.start(path, &[LIBC, LIBZ], at_ns);
    }
    for (_, package, version) in UPGRADES.iter().filter(|(its, ..)| *its == day) {
        upgrade(host, package, version, at_ns);
        if *package == "openssh-server" {
            host.restart_sshd(at_ns + MINUTE);
        }
    }
}

/// dpkg replaces the files, and has ldconfig write the loader's cache.
fn upgrade(host: &mut Host, package: &str, version: &str, at_ns: u64) {
    let dpkg = host.start("/usr/bin/dpkg", &[LIBC], at_ns);
    let at = Host::wall(at_ns);
    assert!(host.files.upgrade(package, version, at) > 0, "{package} has files");
    if package == "libpam-modules" {
        let module = "/usr/lib/x86_64-linux-gnu/security/pam_unix.so";
        host.loader_file(&dpkg, watch::Role::PamModule, module);
    }
    let ldconfig = host.start("/usr/sbin/ldconfig", &[LIBC], at_ns);
    host.loader_file(&ldconfig, watch::Role::Cache, "/etc/ld.so.cache");
    host.count("packages upgraded");
}

/// liblzma is upgraded, and the server lives on with it; where it hooks sshd, until somebody has the
/// version before it put back, as Debian did in March 2024. Gives the end of the first login.
fn upgrade_liblzma(host: &mut Host, liblzma: Liblzma, at_ns: u64) -> u64 {
    let scenes = Arc::clone(&host.scenes);
    if liblzma == Liblzma::Harmless {
        upgrade(host, "liblzma5", "5.4.5-0.3", at_ns);
        let scene: &Scene = host.pick(&scenes.keys);
        return host.play(scene, at_ns + 3 * MINUTE);
    }
    upgrade(host, "liblzma5", "5.6.1-1", at_ns);
    let mut first = None;
    for at in 1..=8 {
        let scene = host.pick(&scenes.hooked);
        let end_ns = host.play(scene, at_ns + at * 3 * MINUTE);
        first.get_or_insert(end_ns);
        host.count("logins to a hooked sshd");
    }
    upgrade(host, "liblzma5", "5.6.1+really5.4.5-1", at_ns + 26 * MINUTE);
    first.expect("a login")
}
