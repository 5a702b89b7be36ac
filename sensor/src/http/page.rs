//! The console's first page: state, probes and the latest incidents, as plain HTML.

use std::fmt::Write;

use serde_json::Value;

use crate::probe::ProbeReport;

const HEAD: &str = "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
    <meta name=\"viewport\" content=\"width=device-width\">\n<title>halfsecond</title>\n<style>\n\
    :root { color-scheme: light dark }\n\
    body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem }\n\
    table { border-collapse: collapse; width: 100% }\n\
    th, td { text-align: left; padding: .3rem .8rem .3rem 0; vertical-align: top; \
    border-bottom: 1px solid #8884 }\n\
    .critical, .high, .not { color: #c62828; font-weight: 600 }\n</style>\n</head>\n<body>\n\
    <h1>halfsecond</h1>\n";

const FOOT: &str = "<p><a href=\"/metrics\">metrics</a> · <a href=\"/api/v1/probes\">probes</a> · \
    <a href=\"/api/v1/incidents\">incidents</a> · <a href=\"/api/v1/logins\">logins</a></p>\n</body>\n</html>\n";

/// The page. Every text may come from a hostile process, so every one is escaped.
pub(super) fn console(
    ready: Result<(), String>,
    probes: &[ProbeReport],
    incidents: Result<&[Value], &String>,
) -> String {
    let mut page = HEAD.to_owned();
    match ready {
        Ok(()) => page.push_str("<p>Armed: every required probe is attached.</p>\n"),
        Err(reason) => push_line(&mut page, "<p class=\"not\">Not armed: ", &reason, "</p>\n"),
    }
    page.push_str("<h2>Incidents</h2>\n");
    match incidents {
        Ok([]) => page.push_str("<p>None.</p>\n"),
        Ok(incidents) => incident_rows(&mut page, incidents),
        Err(reason) => push_line(&mut page, "<p class=\"not\">Cannot be read: ", reason, "</p>\n"),
    }
    page.push_str("<h2>Probes</h2>\n");
    probe_rows(&mut page, probes);
    page.push_str(FOOT);
    page
}

fn incident_rows(page: &mut String, incidents: &[Value]) {
    page.push_str(
        "<table>\n<tr><th>Opened</th><th>Severity</th><th>State</th><th>Title</th></tr>\n",
    );
    for incident in incidents {
        let text =
            |key: &str| escape(incident.get(key).and_then(Value::as_str).unwrap_or_default());
        let (id, severity) = (text("id"), text("severity"));
        // A String takes every write.
        let _ = writeln!(
            page,
            "<tr><td>{}</td><td class=\"{severity}\">{severity}</td><td>{}</td>\
             <td><a href=\"/api/v1/incidents/{id}\">{}</a></td></tr>",
            text("opened"),
            text("state"),
            text("title"),
        );
    }
    page.push_str("</table>\n");
}

fn probe_rows(page: &mut String, probes: &[ProbeReport]) {
    page.push_str("<table>\n<tr><th>Probe</th><th>Mechanism</th><th>Note</th></tr>\n");
    for probe in probes {
        let mechanism = match &probe.mechanism {
            Some(mechanism) => escape(mechanism),
            None => "<span class=\"not\">not attached</span>".to_owned(),
        };
        let note = match (&probe.mechanism, &probe.reason) {
            (Some(_), _) => probe.price.clone().unwrap_or_default(),
            (None, Some(reason)) => format!("{reason}; not seen: {}", probe.unseen),
            (None, None) => format!("not seen: {}", probe.unseen),
        };
        let _ = writeln!(
            page,
            "<tr><td>{}</td><td>{mechanism}</td><td>{}</td></tr>",
            escape(&probe.probe),
            escape(&note),
        );
    }
    page.push_str("</table>\n");
}

fn push_line(page: &mut String, before: &str, text: &str, after: &str) {
    page.push_str(before);
    page.push_str(&escape(text));
    page.push_str(after);
}

fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            c => escaped.push(c),
        }
    }
    escaped
}
