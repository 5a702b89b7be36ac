//! What a real Prometheus gets from the sensor, and how it tells that it is well.

use anyhow::Result;

use crate::{
    lab::{Agent, Machine, Method, Prometheus, Version, free_port, wait_until},
    learned,
    running::{PATIENCE, Sensor, Settings, State, same},
};

const VERDICTS: &str = "sum(halfsecond_auth_cpu_seconds_count{method=\"publickey\",\
                        verdict=\"accepted\"})";

#[test]
fn prometheus_sees_each_login_in_a_histogram() {
    let machine = Machine::acquire().unwrap();
    let state = State::new().unwrap();
    let lab = learned::server(&machine, Version::V9_2).unwrap();
    let sensor = Sensor::start(&machine, state.path(), Settings::default()).unwrap();
    let prometheus = Prometheus::scraping(sensor.port()).unwrap();
    let counts = |wanted: u32| {
        prometheus
            .query_until(VERDICTS, PATIENCE, |found| {
                found.first().map_or(0.0, |sample| sample.value) >= f64::from(wanted)
            })
            .unwrap()
    };
    let up = prometheus.query_until("up", PATIENCE, |found| !found.is_empty()).unwrap();
    assert!(same(up[0].value, 1.0), "{up:?}");
    for (more, logins) in [(1, 1), (2, 3)] {
        for _ in 0..more {
            learned::login(&lab, Method::Rsa).unwrap();
        }
        let found = counts(logins);
        assert!(same(found[0].value, logins.into()), "after {logins} logins: {found:?}");
    }
    // The bucket counts and the sum belong together: a login takes 1 ms to 10 s of CPU.
    let seconds = prometheus.query("sum(halfsecond_auth_cpu_seconds_sum)").unwrap();
    assert!(seconds[0].value > 0.003 && seconds[0].value < 30.0, "{seconds:?}");
    let armed = prometheus.query("halfsecond_start_to_armed_seconds").unwrap();
    assert!(armed[0].value > 0.0, "{armed:?}");
    let missing = prometheus.query("halfsecond_probe_attached == 0").unwrap();
    println!("not attached here: {missing:?}");
    sensor.stop().unwrap().must_be_quiet().unwrap();
}

#[test]
fn sensor_is_ready_only_once_it_is_armed_and_alive_all_the_time() {
    let machine = Machine::acquire().unwrap();
    let state = State::new().unwrap();
    let port = free_port().unwrap();
    let settings = Settings::default();
    let agent = Agent::spawn(&["run"], &settings.toml(state.path(), port)).unwrap();
    // Not ready, or not there yet, until it says so.
    let mut earlier = Vec::new();
    wait_until("readiness", PATIENCE, || -> Result<_> {
        let Ok((ready, reason)) = agent.get(port, "/readyz") else { return Ok(None) };
        let (alive, said) = agent.get(port, "/healthz")?;
        assert_eq!(alive, 200, "{said}");
        earlier.push((ready, reason));
        Ok((ready == 200).then_some(()))
    })
    .unwrap();
    earlier.dedup();
    println!("readiness: {earlier:?}");
    let unready = &earlier[..earlier.len() - 1];
    assert!(unready.iter().all(|(status, _)| *status == 503), "{earlier:?}");
    let sensor = Sensor::armed(&machine, agent, port).unwrap();
    let (status, probes) = sensor.agent().get(port, "/api/v1/probes").unwrap();
    let probes: serde_json::Value = serde_json::from_str(&probes).unwrap();
    assert_eq!((status, &probes["ready"]), (200, &true.into()), "{probes:#}");
    assert!(sensor.incidents().unwrap().is_empty());
    sensor.stop().unwrap();
}
