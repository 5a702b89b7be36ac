//! What people have decided, taken up while keeping house.

use tracing::{info, warn};

use crate::app::decisions::{Failed, settle_live};
use crate::incident::{Answer, Request, Suppressions, take};
use crate::trouble::chain;

use super::Worker;

/// What people leave in the state directory.
const REQUESTS: &str = "requests";

// === impl Worker ===

impl Worker {
    /// Follows every request that waits, and answers those that are done for good.
    pub(super) fn take_decisions(&mut self) {
        let Some(store) = self.incidents.clone() else { return };
        let waiting = match take(&self.config.state_dir) {
            Ok(waiting) => waiting,
            Err(error) => return self.tell_way(REQUESTS, Err(chain(&error))),
        };
        let mut outcome = Ok(());
        for pending in waiting {
            let answer = match &pending.request {
                Ok(request) => match settle_live(request, &mut self.analysis, &store) {
                    Ok(update) => {
                        told(request);
                        let state = update.incident.state;
                        self.publish(&[update]);
                        Answer::Done(state)
                    }
                    Err(Failed::Refused(refusal)) => Answer::Refused(refusal.to_string()),
                    Err(Failed::Store(error)) => {
                        self.store_failed("write", &error);
                        continue;
                    }
                },
                Err(reason) => {
                    warn!(reason, "a request in the state directory is none");
                    Answer::Refused(reason.clone())
                }
            };
            outcome = outcome.and(pending.answer(&answer));
        }
        self.tell_way(REQUESTS, outcome.map_err(|error| chain(&error)));
    }

    /// Counts and writes what was suppressed.
    pub(super) fn keep_suppressions(&mut self) {
        self.count_suppressed();
        let suppressions = self.analysis.incidents().suppressions();
        let Some(store) = self.incidents.clone() else { return };
        if let Err(error) = suppressions.save(|all| store.put_suppressions(all)) {
            self.store_failed("write", &error);
        }
    }

    /// What is suppressed from now on; a rule shows with its first scrape.
    pub(super) fn suppress(&mut self, suppressions: Suppressions) {
        for rule in &self.config.suppress {
            self.metrics.findings_suppressed.with_label_values(&[rule.name.as_str()]);
        }
        // Of those that held until now.
        self.count_suppressed();
        self.analysis.suppress(suppressions);
    }

    fn count_suppressed(&mut self) {
        for (rule, count) in self.analysis.incidents().suppressions().matched() {
            self.metrics.findings_suppressed.with_label_values(&[rule.as_str()]).inc_by(count);
        }
    }
}

fn told(request: &Request) {
    let Request { id, decision } = request;
    info!(
        id,
        decision = %decision.verb,
        who = decision.who,
        why = decision.why,
        uid = decision.uid,
        "a person has decided about an incident"
    );
}
