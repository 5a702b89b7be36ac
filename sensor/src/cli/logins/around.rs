//! What logins cost before and after an incident, for `halfsecond explain`.

use std::collections::BTreeSet;
use std::io::{self, Write};

use jiff::Timestamp;
use serde_json::{Value, json};

use super::ask;
use super::plot::{self, Marks};
use super::series::{self, Series, Split};
use super::svg;
use crate::cli::Failure;
use crate::cli::term::Style;
use crate::config::Config;
use crate::logins::Query;

/// Distributions on both sides of a moment.
#[derive(Debug)]
pub(in crate::cli) struct Around {
    series: Vec<Series>,
    split: Split,
}

// === impl Around ===

impl Around {
    /// Of the logins that these programs served, before and after `at`, when the incident `id`
    /// began; `None` where they have served none.
    pub(in crate::cli) fn new(
        config: &Config,
        subjects: &BTreeSet<&str>,
        at: Timestamp,
        id: &str,
    ) -> Result<Option<Self>, Failure> {
        let mut logins = ask::logins(config, &Query::all())?.logins;
        logins.retain(|login| subjects.contains(&*login.subject));
        if logins.is_empty() {
            return Ok(None);
        }
        let split = Split { at, incident: Some(id.to_owned()) };
        Ok(Some(Self { series: series::of(&logins, Some(&split)), split }))
    }

    pub(in crate::cli) fn text(&self, out: &mut impl Write, style: Style) -> io::Result<()> {
        let marks = Marks::of_locale(&|name| std::env::var(name).ok());
        plot::text(out, &self.series, Some(&self.split), marks, style)
    }

    pub(in crate::cli) fn picture(&self, title: &str) -> String {
        svg::picture(&self.series, title, Some(&self.split))
    }

    /// Every sample, in milliseconds.
    pub(in crate::cli) fn json(&self) -> Value {
        let each = |series: &Series| {
            json!({
                "method": series.method, "metric": series.what.metric(),
                "before_ms": series.before, "after_ms": series.after,
            })
        };
        self.series.iter().map(each).collect()
    }
}
