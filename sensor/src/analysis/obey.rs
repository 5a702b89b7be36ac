//! What persons ask of the baselines while the sensor runs.

use jiff::Timestamp;

use super::Analysis;
use crate::baseline::Orders;
use crate::host::Directive;

impl Analysis {
    /// Carries out what commands have left, and answers them once it is on the disk; what each came to,
    /// for the log. `now` is what the answers say: an order is no event of a recording.
    pub(crate) fn obey(&mut self, orders: &Orders, now: Timestamp) -> Vec<String> {
        let carried = self.baselines.carry_out(orders, &self.measure, now);
        self.notes.extend(carried.opened);
        if carried.forgotten {
            // Else the kernel side would never tell the libraries again that it holds for known.
            self.directives.push(Directive::ForgetMappings);
        }
        carried.told
    }
}
