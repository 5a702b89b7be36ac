//! The fixture does what it claims, seen from outside, and changes nothing for who logs in.

use std::{sync::Arc, time::Duration};

use anyhow::{Context as _, Result, ensure};

use crate::lab::{Machine, Method, Slot, SshdLab, Variant, Version, cpu_time, library_word, maps};

const HOOKED: &str = "RSA_public_decrypt";
const BURN_MS: u32 = 300;

fn server(machine: &Arc<Machine>, variant: Variant, burn_ms: u32) -> Result<SshdLab> {
    SshdLab::builder(machine)
        .variant(variant)
        .burn_ms(burn_ms)
        .start()
        .with_context(|| format!("{variant:?}, {burn_ms} ms"))
}

/// Every method behaves as it does on a clean server, down to the remote exit code.
fn logins_behave(lab: &SshdLab) -> Result<()> {
    for method in Method::GOOD {
        let done = lab.login(method)?;
        ensure!(
            (done.code, done.stdout.as_str(), done.stderr.as_str()) == (Some(0), "ok", ""),
            "{method:?}: {done:?}\n{}",
            lab.log()
        );
    }
    let done = lab.run(Method::Rsa, "exit 7")?;
    ensure!(done.code == Some(7), "{done:?}");
    let done = lab.login(Method::WrongPassword)?;
    ensure!(done.code == Some(255) && done.stdout.is_empty(), "a wrong password: {done:?}");
    Ok(())
}

/// The one connection's monitor.
fn monitor(lab: &SshdLab) -> Result<i32> {
    let monitors = lab.monitors()?;
    ensure!(monitors.len() == 1, "one connection, but {monitors:?}");
    Ok(monitors[0].pid)
}

/// The slot of the monitor leads into libcrypto, sealed.
fn slot_is_clean(lab: &SshdLab) -> Result<()> {
    let session = lab.open(Method::Rsa)?;
    let slot = Slot::read(monitor(lab)?, HOOKED)?;
    ensure!(slot.target.path.ends_with("/libcrypto.so.3"), "{slot:?}");
    ensure!(!slot.writable, "{slot:?}");
    ensure!(session.close()? == Some(0));
    Ok(())
}

/// The slot of the monitor leads into the fixture, and RSA verification went through it once.
fn slot_is_hooked(lab: &SshdLab, variant: Variant) -> Result<()> {
    let library = lab.fixture().hook_library().context("a variant without a hook")?;
    for (method, calls) in [(Method::Rsa, 1), (Method::Ed25519, 0)] {
        let session = lab.open(method)?;
        let monitor = monitor(lab)?;
        let slot = Slot::read(monitor, HOOKED)?;
        ensure!(slot.target.is_of(library)?, "{slot:?}");
        ensure!(slot.target.permissions.starts_with("r-x"), "{slot:?}");
        ensure!(slot.writable == (variant == Variant::NoRelro), "{slot:?}");
        // A jump leaves no trace to count.
        if variant != Variant::TailJump {
            let counted = library_word(monitor, library, "xz_like_calls")?;
            ensure!(counted == calls, "{method:?}: {counted} calls through the wrapper");
        }
        ensure!(session.close()? == Some(0));
    }
    Ok(())
}

/// The monitor's CPU time holds the burn, and only when there is one. CPU time, so a busy machine
/// does not matter; a whole login without burn takes about 30 ms.
fn burn_shows(lab: &SshdLab, burn_ms: u32) -> Result<()> {
    let session = lab.open(Method::Ed25519)?;
    let spent = cpu_time(monitor(lab)?)?;
    let burn = Duration::from_millis(BURN_MS.into());
    ensure!((spent >= burn) == (burn_ms == BURN_MS), "{burn_ms} ms of burn, {spent:?} spent");
    ensure!(session.close()? == Some(0));
    Ok(())
}

fn hooked_server(variant: Variant) -> Result<()> {
    let machine = Machine::acquire()?;
    for burn_ms in [0, BURN_MS] {
        let lab = server(&machine, variant, burn_ms)?;
        logins_behave(&lab)?;
        slot_is_hooked(&lab, variant)?;
        burn_shows(&lab, burn_ms)?;
    }
    Ok(())
}

#[test]
fn clean_server_has_no_hook_and_no_foreign_library() {
    let machine = Machine::acquire().unwrap();
    let lab = server(&machine, Variant::Clean, 0).unwrap();
    logins_behave(&lab).unwrap();
    slot_is_clean(&lab).unwrap();
    burn_shows(&lab, 0).unwrap();
    let mappings = maps(lab.listener_pid().unwrap()).unwrap();
    assert!(mappings.iter().all(|mapping| !mapping.path.starts_with("/tmp")), "{mappings:?}");
}

#[test]
fn control_library_is_loaded_in_liblzmas_place_and_hooks_nothing() {
    let machine = Machine::acquire().unwrap();
    for burn_ms in [0, BURN_MS] {
        let lab = server(&machine, Variant::Control, burn_ms).unwrap();
        logins_behave(&lab).unwrap();
        slot_is_clean(&lab).unwrap();
        burn_shows(&lab, burn_ms).unwrap();
        let library = lab.fixture().library().unwrap();
        let mappings = maps(lab.listener_pid().unwrap()).unwrap();
        let ours = mappings.iter().find(|mapping| mapping.is_of(library).unwrap());
        let path = &ours.expect("the fixture is mapped").path;
        assert!(path.contains("/liblzma.so.5."), "mapped as {path}");
    }
}

#[test]
fn constructor_route_redirects_the_slot_and_seals_it_again() {
    hooked_server(Variant::Constructor).unwrap();
}

#[test]
fn server_without_relro_is_redirected_without_mprotect() {
    hooked_server(Variant::NoRelro).unwrap();
}

#[test]
fn audit_route_answers_with_the_wrapper_before_the_seal() {
    hooked_server(Variant::Audit).unwrap();
}

#[test]
fn tail_jump_route_redirects_the_slot() {
    hooked_server(Variant::TailJump).unwrap();
}

/// The next connection is hooked; the listener, which was there before, is not.
fn late_fixture_hooks_the_next_connection(variant: Variant) -> Result<()> {
    let machine = Machine::acquire()?;
    let lab = SshdLab::builder(&machine).variant(variant).burn_ms(BURN_MS).late().start()?;
    slot_is_clean(&lab)?;
    lab.arrive()?;
    lab.timed_login(Method::Rsa)?;
    slot_is_hooked(&lab, variant)?;
    burn_shows(&lab, BURN_MS)?;
    let listener = Slot::read(lab.listener_pid()?, HOOKED)?;
    ensure!(listener.target.path.ends_with("/libcrypto.so.3"), "{listener:?}");
    Ok(())
}

#[test]
fn fixture_that_comes_late_hooks_the_next_connection_alone() {
    for variant in Variant::HOOKING {
        late_fixture_hooks_the_next_connection(variant).unwrap();
    }
}

#[test]
fn server_without_pam_lets_the_same_users_in() {
    let machine = Machine::acquire().unwrap();
    let lab = SshdLab::builder(&machine).use_pam(false).start().unwrap();
    logins_behave(&lab).unwrap();
}

#[test]
fn openssh_10_serves_from_its_own_root() {
    let machine = Machine::acquire().unwrap();
    let lab = SshdLab::builder(&machine).version(Version::V10).start().unwrap();
    logins_behave(&lab).unwrap();
    let session = lab.open(Method::Rsa).unwrap();
    let monitor = monitor(&lab).unwrap();
    let maps = maps(monitor).unwrap();
    assert!(maps.iter().any(|map| map.path.ends_with("/openssh/sshd-session")), "{maps:?}");
    assert_eq!(session.close().unwrap(), Some(0));
}
