//! `halfsecond scan` over given processes, and its account.

use std::fmt;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

/// How often those that are left are tried together.
const TRIES: usize = 3;
/// Exit codes of the agent: nothing found, findings, no such process, no privilege, failed.
const NOTHING: i32 = 0;
const FINDINGS: i32 = 1;
const NO_SUCH: i32 = 2;

/// What scans looked at and found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Account {
    /// Compared with what the loader should have done.
    pub(super) checked: u64,
    /// Static programs, which have no loader.
    pub(super) without_loader: u64,
    /// Not compared: why, for each.
    pub(super) refused: Vec<String>,
    pub(super) gone: u64,
    /// What was not covered of processes that were checked.
    pub(super) gaps: Vec<String>,
    pub(super) found: Vec<String>,
}

/// Checks these processes in full.
///
/// # Errors
/// When the agent says something that is not understood; what it cannot check is in the account.
pub(super) fn scan(agent: &Path, pids: &[u32]) -> Result<Account> {
    let mut account = Account::default();
    let mut left = pids.to_vec();
    for _ in 0..TRIES {
        let output = run(agent, &left)?;
        if let Some(NOTHING | FINDINGS) = output.status.code() {
            account.add(&Account::read(&output.stdout)?);
            return Ok(account);
        }
        // One that is not there any more ends the account of all.
        let before = left.len();
        left.retain(|pid| Path::new(&format!("/proc/{pid}/exe")).read_link().is_ok());
        account.gone += u64::try_from(before - left.len())?;
        if left.is_empty() {
            return Ok(account);
        }
        if before == left.len() {
            break;
        }
    }
    for pid in left {
        account.add(&scan_one(agent, pid)?);
    }
    Ok(account)
}

fn scan_one(agent: &Path, pid: u32) -> Result<Account> {
    let output = run(agent, &[pid])?;
    match output.status.code() {
        Some(NOTHING | FINDINGS) => Account::read(&output.stdout),
        Some(NO_SUCH) => Ok(Account { gone: 1, ..Account::default() }),
        _ => {
            let said = String::from_utf8_lossy(&output.stderr);
            let why = format!("process {pid}: {}", said.trim().replace('\n', "; "));
            Ok(Account { refused: vec![why], ..Account::default() })
        }
    }
}

fn run(agent: &Path, pids: &[u32]) -> Result<Output> {
    let mut command = Command::new(agent);
    command.args(["scan", "--json"]).stdin(Stdio::null());
    for pid in pids {
        command.args(["--pid", &pid.to_string()]);
    }
    command.output().with_context(|| format!("cannot start {}", agent.display()))
}

// === impl Account ===

impl Account {
    /// From the lines of `scan --json`.
    fn read(lines: &[u8]) -> Result<Self> {
        let text = std::str::from_utf8(lines).context("the scan's output is no text")?;
        let (mut found, mut summary) = (Vec::new(), None);
        for line in text.lines() {
            let value: Value =
                serde_json::from_str(line).with_context(|| format!("no JSON: {line}"))?;
            match value["kind"].as_str() {
                Some("process") => found.push(told(&value)),
                Some("summary") => summary = Some(value),
                _ => bail!("the scan says something else: {line}"),
            }
        }
        let summary = summary.context("the scan has no summary")?;
        let count = |key: &str| {
            summary[key].as_u64().with_context(|| format!("the scan does not tell {key}"))
        };
        let mut account = Self {
            checked: count("checked")?,
            without_loader: count("without_loader")?,
            ..Self::default()
        };
        account.gone = count("gone")?;
        account.gaps = texts(&summary["gaps"]);
        account.refused = texts(&summary["failures"]);
        for (key, why) in [("denied", "denied"), ("not_covered", "not covered")] {
            let times = usize::try_from(count(key)?).unwrap_or(usize::MAX);
            account.refused.extend(std::iter::repeat_n(why.to_owned(), times));
        }
        account.found = found;
        Ok(account)
    }

    pub(super) fn add(&mut self, more: &Self) {
        self.checked += more.checked;
        self.without_loader += more.without_loader;
        self.gone += more.gone;
        self.refused.extend_from_slice(&more.refused);
        self.gaps.extend_from_slice(&more.gaps);
        self.found.extend_from_slice(&more.found);
    }
}

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { checked, without_loader, refused, gone, gaps, found } = self;
        write!(
            f,
            "{checked} checked, {without_loader} static, {gone} gone, {} refused, ",
            refused.len()
        )?;
        write!(f, "{} gaps, {} findings", gaps.len(), found.len())
    }
}

fn told(finding: &Value) -> String {
    let text = |key: &str| finding[key].as_str().unwrap_or_default().to_owned();
    let evidence = finding["evidence"].as_array().map(Vec::as_slice).unwrap_or_default();
    let first = evidence.first().map(Value::to_string).unwrap_or_default();
    let more = evidence.len().saturating_sub(1);
    let pid = &finding["pid"];
    format!("{}: process {pid} {}: {first} and {more} more", text("detector"), text("exe"))
}

fn texts(list: &Value) -> Vec<String> {
    let list = list.as_array().into_iter().flatten();
    list.filter_map(|text| Some(text.as_str()?.to_owned())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SUMMARY: &str = r#"{"kind":"summary","checked":3,"without_loader":1,"gone":0,"denied":1,
        "not_covered":1,"failures":["process 9: no"],"gaps":["process 4: part"]}"#;

    #[test]
    fn an_account_is_read_from_the_scans_lines() {
        let finding = r#"{"kind":"process","pid":4,"exe":"/bin/x","detector":"text_patched","evidence":[1,2]}"#;
        let text = format!("{finding}\n{}\n", SUMMARY.replace('\n', ""));
        let account = Account::read(text.as_bytes()).unwrap();
        assert_eq!((account.checked, account.without_loader), (3, 1));
        assert_eq!(account.refused, ["process 9: no", "denied", "not covered"]);
        assert_eq!(account.found, ["text_patched: process 4 /bin/x: 1 and 1 more"]);
        assert_eq!(account.gaps.len(), 1);
    }

    #[test]
    fn a_scan_that_tells_less_than_all_is_an_error() {
        assert!(Account::read(b"").is_err());
        assert!(Account::read(br#"{"kind":"summary","checked":3}"#).is_err());
        assert!(Account::read(b"{\"kind\":\"other\"}").is_err());
    }
}
