//! The distribution's Prometheus, scraping one port of loopback each second.

use std::{collections::BTreeMap, fs, process::Command, time::Duration};

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;
use tempfile::TempDir;

use super::{
    http::{free_port, get, percent_encode},
    machine::require,
    process::{Running, wait_until},
};

const REQUEST: Duration = Duration::from_secs(5);
const START: Duration = Duration::from_mins(1);

/// A running Prometheus; dropping it ends it and removes its data.
#[derive(Debug)]
pub(crate) struct Prometheus {
    server: Running,
    port: u16,
    _dir: TempDir,
}

/// One element of an instant vector.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Sample {
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) value: f64,
}

#[derive(Deserialize)]
struct Answer {
    status: String,
    #[serde(default)]
    error: String,
    data: Option<Data>,
}

#[derive(Deserialize)]
struct Data {
    result: Vec<Element>,
}

#[derive(Deserialize)]
struct Element {
    metric: BTreeMap<String, String>,
    /// Unix time and the value, which is a string because it may be NaN.
    value: (f64, String),
}

impl Prometheus {
    /// Starts it, scraping /metrics on port `target` of 127.0.0.1, and waits until it is ready.
    pub(crate) fn scraping(target: u16) -> Result<Self> {
        require(&["prometheus"])?;
        let dir = tempfile::Builder::new().prefix("halfsecond-prometheus-").tempdir()?;
        let config = dir.path().join("prometheus.yml");
        fs::write(
            &config,
            format!(
                "global:\n  scrape_interval: 1s\n  scrape_timeout: 1s\n\
                 scrape_configs:\n- job_name: halfsecond\n  static_configs:\n  \
                 - targets: ['127.0.0.1:{target}']\n"
            ),
        )?;
        let port = free_port()?;
        let mut command = Command::new("prometheus");
        command.arg(format!("--config.file={}", config.display()));
        command.arg(format!("--storage.tsdb.path={}", dir.path().join("data").display()));
        command.arg(format!("--web.listen-address=127.0.0.1:{port}"));
        let mut server = Running::spawn(&mut command)?;
        let ready = wait_until("a Prometheus that is ready", START, || {
            if let Some(status) = server.has_exited()? {
                bail!("prometheus ended at start: {status}");
            }
            // Refused connections are what starting looks like.
            let status = get(port, "/-/ready", REQUEST).map(|(status, _)| status);
            Ok((status.ok() == Some(200)).then_some(()))
        });
        ready.with_context(|| server.transcript())?;
        Ok(Self { server, port, _dir: dir })
    }

    /// The instant vector that `expression` gives now.
    pub(crate) fn query(&self, expression: &str) -> Result<Vec<Sample>> {
        let path = format!("/api/v1/query?query={}", percent_encode(expression));
        let (_, body) = get(self.port, &path, REQUEST)?;
        let answer: Answer = serde_json::from_str(&body).with_context(|| body.clone())?;
        let Some(data) = answer.data.filter(|_| answer.status == "success") else {
            bail!("{expression}: {}", answer.error);
        };
        let sample = |element: Element| {
            Ok(Sample { labels: element.metric, value: element.value.1.parse()? })
        };
        data.result.into_iter().map(sample).collect()
    }

    /// Asks `expression` until its answer pleases `wanted`.
    pub(crate) fn query_until(
        &self,
        expression: &str,
        timeout: Duration,
        wanted: impl Fn(&[Sample]) -> bool,
    ) -> Result<Vec<Sample>> {
        let mut last = Vec::new();
        wait_until(expression, timeout, || {
            last = self.query(expression)?;
            Ok(wanted(&last).then(|| last.clone()))
        })
        .with_context(|| format!("last answer: {last:?}\n{}", self.server.transcript()))
    }
}
