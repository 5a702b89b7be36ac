//! The findings in the sensor's incidents.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use jiff::Timestamp;
use serde_json::Value;

use super::watch::INCIDENTS;

/// Characters of a line of evidence that are shown.
const SHOWN: usize = 220;

/// One finding.
#[derive(Clone, Debug)]
pub(super) struct Found {
    pub(super) time: Timestamp,
    pub(super) detector: String,
    pub(super) severity: String,
    pub(super) title: String,
    /// Of a process of the corpus, not of whatever else runs here.
    pub(super) ours: bool,
    /// How often it was seen.
    pub(super) count: u64,
    pub(super) pid: u32,
    /// Who.
    pub(super) process: String,
    /// What was seen, one piece a line.
    pub(super) evidence: Vec<String>,
}

/// Every finding the sensor wrote into `folder`, in the order of time; those that opened nothing
/// (info) are in its counters only. Programs below `corpus` are ours.
pub(super) fn read(folder: &Path, corpus: &Path) -> Result<Vec<Found>> {
    let xtask = env::current_exe()?.display().to_string();
    // What the kernel adds where cargo has built it anew meanwhile.
    let xtask = xtask.strip_suffix(" (deleted)").unwrap_or(&xtask).to_owned();
    let own = [corpus.display().to_string(), xtask];
    let path = folder.join(INCIDENTS);
    let text = if path.exists() { fs::read_to_string(&path)? } else { String::new() };
    findings(&text, &own)
}

/// An incident is written again as it grows: the last word on each finding counts.
fn findings(text: &str, own: &[String]) -> Result<Vec<Found>> {
    let mut by_id = BTreeMap::new();
    for line in text.lines() {
        // The last one may be torn where the sensor was killed.
        let Ok(incident) = serde_json::from_str::<Value>(line) else { continue };
        for finding in incident["findings"].as_array().into_iter().flatten() {
            let id = finding["id"].as_str().unwrap_or_default().to_owned();
            by_id.insert(id, found(finding, own)?);
        }
    }
    let mut found: Vec<_> = by_id.into_values().collect();
    found.sort_by_key(|found| found.time);
    Ok(found)
}

fn found(finding: &Value, own: &[String]) -> Result<Found> {
    let text = |key: &str| finding[key].as_str().unwrap_or_default().to_owned();
    let process = &finding["process"];
    let ancestors = strings(&process["ancestors"]);
    let exe = process["exe"].as_str().unwrap_or_default();
    let container = process["container"].as_str().unwrap_or_default();
    let is_own = |path: &str| own.iter().any(|own| path.starts_with(own.as_str()));
    let pieces = finding["evidence"].as_array().map(Vec::as_slice).unwrap_or_default();
    let repeated = pieces.iter().find(|piece| piece["kind"] == "repeated");
    Ok(Found {
        time: text("time").parse().with_context(|| format!("not a finding: {finding}"))?,
        detector: text("detector"),
        severity: text("severity"),
        title: text("title"),
        ours: is_own(exe)
            || ancestors.iter().any(|path| is_own(path))
            || container.starts_with("halfsecond-corpus"),
        count: repeated.and_then(|piece| piece["count"].as_u64()).unwrap_or(1),
        pid: process["pid"].as_u64().and_then(|pid| u32::try_from(pid).ok()).unwrap_or(0),
        process: cut(&format!(
            "{exe} [{}] below {}",
            strings(&process["cmdline"]).join(" "),
            ancestors.join(", ")
        )),
        evidence: pieces.iter().map(|piece| cut(&evidence(piece))).collect(),
    })
}

/// `kind: key value, key value`.
fn evidence(piece: &Value) -> String {
    let fields = piece.as_object().into_iter().flatten();
    let fields = fields.filter(|(key, value)| *key != "kind" && !value.is_null());
    let told: Vec<_> = fields
        .map(|(key, value)| match value {
            Value::String(text) => format!("{key} {text}"),
            other => format!("{key} {other}"),
        })
        .collect();
    format!("{}: {}", piece["kind"].as_str().unwrap_or_default(), told.join(", "))
}

fn strings(list: &Value) -> Vec<String> {
    let list = list.as_array().into_iter().flatten();
    list.filter_map(|text| Some(text.as_str()?.to_owned())).collect()
}

fn cut(text: &str) -> String {
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn incident(exe: &str, ancestor: &str, count: u64) -> String {
        format!(
            r#"{{"id":"i","findings":[{{"id":"f","time":"2026-01-01T00:00:00.5Z",
            "detector":"preload_env","severity":"medium","title":"t",
            "process":{{"exe":"{exe}","cmdline":["a","b"],"ancestors":["{ancestor}"]}},
            "evidence":[{{"kind":"environment","name":"LD_PRELOAD","value":"x.so"}},
            {{"kind":"repeated","count":{count}}}]}}]}}"#
        )
        .replace('\n', "")
    }

    #[test]
    fn the_last_word_on_a_finding_counts() {
        let text =
            incident("/bin/a", "/bin/b", 1) + "\n" + &incident("/bin/a", "/bin/b", 7) + "\n{";
        let found = findings(&text, &[]).unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].count, 7);
        assert_eq!(found[0].evidence[0], "environment: name LD_PRELOAD, value x.so");
    }

    #[test]
    fn a_process_is_ours_by_its_path_or_by_who_started_it() {
        let own = ["/t/corpus".to_owned(), "/t/debug/xtask".to_owned()];
        let ours = |exe, ancestor| findings(&incident(exe, ancestor, 1), &own).unwrap()[0].ours;
        assert!(ours("/t/corpus/root/bin/a", "/bin/b"));
        assert!(ours("/bin/a", "/t/debug/xtask"));
        assert!(!ours("/bin/a", "/bin/b"));
    }
}
