//! A sensor that comes and goes does logins no harm: its probes sit in libraries of processes that
//! seccomp and `RLIMIT_NOFILE` 0 confine, and appear and vanish while these run.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
};

use anyhow::{Result, anyhow, ensure};

use crate::{
    lab::{Machine, Method, SshdLab, Version, wait_until},
    learned,
    running::{PATIENCE, Sensor, Settings, State, times},
};

/// Clients that log in at the same time.
const CLIENTS: usize = 2;
/// Logins that a sensor sees before it goes.
const SEEN: usize = 3;

/// Logs in so many times in all, one after the other in each client, and counts.
fn log_in(lab: &SshdLab, client: usize, logins: usize, done: &AtomicUsize) -> Result<()> {
    let methods = Method::GOOD.into_iter().cycle().skip(client);
    for method in methods.take(logins.div_ceil(CLIENTS)) {
        learned::login(lab, method)?;
        done.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}

/// Sensors one after the other, ended in turn as a service manager does and as the kernel does out
/// of memory, until nobody logs in any more; gives how many.
fn come_and_go(
    machine: &Arc<Machine>,
    state: &State,
    done: &AtomicUsize,
    over: &AtomicBool,
) -> Result<usize> {
    let mut comings = 0;
    while !over.load(Ordering::Relaxed) {
        let sensor = Sensor::start(machine, state.path(), Settings::default())?;
        let before = done.load(Ordering::Relaxed);
        wait_until("logins with the sensor attached", PATIENCE, || {
            let seen = done.load(Ordering::Relaxed) >= before + SEEN;
            Ok((seen || over.load(Ordering::Relaxed)).then_some(()))
        })?;
        if comings % 2 == 0 {
            sensor.stop()?;
        } else {
            ensure!(sensor.kill()?.code().is_none(), "it was not killed");
        }
        comings += 1;
    }
    Ok(comings)
}

#[test]
fn a_sensor_that_comes_and_goes_while_people_log_in_kills_no_login() {
    let machine = Machine::acquire().unwrap();
    let logins = times("HALFSECOND_E2E_COMINGS", 60).unwrap();
    for version in [Version::V9_2, Version::V10] {
        let (lab, state) = (learned::server(&machine, version).unwrap(), State::new().unwrap());
        let (done, over) = (AtomicUsize::new(0), AtomicBool::new(false));
        let comings = thread::scope(|scope| {
            let clients: Vec<_> = (0..CLIENTS)
                .map(|client| {
                    scope.spawn({
                        let (lab, done) = (&lab, &done);
                        move || log_in(lab, client, logins, done)
                    })
                })
                .collect();
            let sensors = scope.spawn(|| come_and_go(&machine, &state, &done, &over));
            let ended = clients.into_iter().map(|client| {
                client.join().map_err(|_| anyhow!("a client panicked")).and_then(|result| result)
            });
            let ended: Vec<Result<()>> = ended.collect();
            over.store(true, Ordering::Relaxed);
            let comings = sensors.join().map_err(|_| anyhow!("the sensors panicked"))?;
            ended.into_iter().collect::<Result<()>>()?;
            comings
        });
        let comings = comings.unwrap_or_else(|error| panic!("{error:?}\n{}", lab.log()));
        let done = done.into_inner();
        assert!(done >= logins && comings >= 2, "{done} logins, {comings} sensors");
        // sshd's own words for a child that seccomp ended.
        let log = lab.log();
        assert!(!log.contains("terminated by signal"), "{log}");
        println!("{version:?}: {done} logins, {comings} sensors came and went");
    }
}
