//! What does not work for now, told when it begins, changes and ends, not at every attempt.

use std::collections::BTreeMap;
use std::error::Error;

/// What is in trouble, and why.
#[derive(Debug, Default)]
pub struct Troubles(BTreeMap<&'static str, String>);

/// What is worth a line of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Turn {
    /// It began, or its reason is another one.
    Fails {
        /// The reason.
        reason: String,
    },
    /// It is over.
    Works,
}

// === impl Troubles ===

impl Troubles {
    /// Notes how `what` went; `None` where that was told before.
    pub fn note(&mut self, what: &'static str, outcome: Result<(), String>) -> Option<Turn> {
        match outcome {
            Ok(()) => self.0.remove(what).map(|_| Turn::Works),
            Err(reason) if self.0.get(what) == Some(&reason) => None,
            Err(reason) => {
                self.0.insert(what, reason.clone());
                Some(Turn::Fails { reason })
            }
        }
    }

    /// What is in trouble now, with the reasons.
    pub fn now(&self) -> impl Iterator<Item = (&'static str, &str)> {
        self.0.iter().map(|(what, reason)| (*what, reason.as_str()))
    }
}

/// An error and its causes, on one line; a cause that the text before ends with is not repeated.
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.ends_with(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_turns_are_told() {
        let mut troubles = Troubles::default();
        let full = || Err("no space left".to_owned());
        let fails = |reason: &str| Some(Turn::Fails { reason: reason.to_owned() });
        assert_eq!(troubles.note("incidents", Ok(())), None);
        assert_eq!(troubles.note("incidents", full()), fails("no space left"));
        assert_eq!(troubles.note("incidents", full()), None);
        assert_eq!(troubles.note("incidents", Err("read-only".to_owned())), fails("read-only"));
        assert_eq!(troubles.note("baselines", Ok(())), None);
        assert_eq!(troubles.now().collect::<Vec<_>>(), [("incidents", "read-only")]);
        assert_eq!(troubles.note("incidents", Ok(())), Some(Turn::Works));
        assert_eq!(troubles.now().count(), 0);
    }
}
