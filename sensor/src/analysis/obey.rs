//! What persons ask of the baselines while the sensor runs.

use jiff::Timestamp;

use super::Analysis;
use crate::baseline::{Baseline, Changed, Orders};
use crate::host::Directive;

impl Analysis {
    /// Carries out what commands have left, and answers them once it is on the disk; what each came to,
    /// for the log, and whose baselines were changed. `now` is what the answers say.
    pub(crate) fn obey(&mut self, orders: &Orders, now: Timestamp) -> (Vec<String>, Vec<String>) {
        let carried = self.baselines.carry_out(orders, &self.measure, now);
        self.notes.extend(carried.opened);
        if carried.forgotten {
            // Else the kernel side would never tell the libraries again that it holds for known.
            self.directives.push(Directive::ForgetMappings);
        }
        (carried.told, carried.subjects)
    }

    /// A baseline as a person's order has left it.
    pub(crate) fn change(&mut self, subject: &str, baseline: Baseline) {
        *self.baselines.learn(subject, Changed::Learned) = baseline;
    }
}
