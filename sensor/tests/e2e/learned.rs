//! What a sensor knows after it has watched clean logins: made once, copied per test.

use std::{
    fs,
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::{Result, ensure};

use crate::{
    lab::{Machine, Method, SshdLab, Version},
    running::{Sensor, Settings, State, scratch},
};

/// Serves whoever comes first; later tests of this run take what it made.
static MADE: Mutex<bool> = Mutex::new(false);

/// A copy of what a sensor has learned of OpenSSH 9.2 by all three methods.
pub(crate) fn state(machine: &Arc<Machine>) -> Result<State> {
    let template = scratch("e2e-learned");
    let mut made = MADE.lock().unwrap_or_else(PoisonError::into_inner);
    if !*made {
        if template.exists() {
            fs::remove_dir_all(&template)?;
        }
        fs::create_dir_all(&template)?;
        let lab = SshdLab::builder(machine).start()?;
        let sensor = Sensor::start(machine, &template, Settings::default())?;
        learn(&sensor, &lab)?;
        sensor.stop()?.must_be_quiet()?;
        *made = true;
    }
    State::copy_of(&template)
}

/// Logs in until the sensor has seen enough of every method, and shows that it has.
pub(crate) fn learn(sensor: &Sensor, lab: &SshdLab) -> Result<()> {
    let observations = usize::try_from(Settings::default().observations)?;
    // Both kinds of key count as one method; the password is another.
    let keys = [Method::Rsa, Method::Ed25519].into_iter().cycle().take(observations + 1);
    let passwords = std::iter::repeat_n(Method::Password, observations);
    for method in keys.chain(passwords) {
        login(lab, method)?;
    }
    sensor.caught_up(lab)?;
    let wanted = f64::from(Settings::default().observations);
    sensor.scrape_until("a settled baseline", |scrape| {
        let accepted = |method| {
            let labels = [("method", method), ("verdict", "accepted")];
            scrape.sum("halfsecond_auth_cpu_seconds_count", &labels)
        };
        let settled = scrape.sum("halfsecond_baselines", &[("state", "settled")]);
        accepted("publickey") >= wanted && accepted("password") >= wanted && settled >= 1.0
    })?;
    Ok(())
}

/// One login that must succeed.
pub(crate) fn login(lab: &SshdLab, method: Method) -> Result<()> {
    let done = lab.login(method)?;
    ensure!((done.code, &*done.stdout) == (Some(0), "ok"), "{method:?}: {done:?}\n{}", lab.log());
    Ok(())
}

/// A server of this version.
pub(crate) fn server(machine: &Arc<Machine>, version: Version) -> Result<SshdLab> {
    SshdLab::builder(machine).version(version).start()
}
