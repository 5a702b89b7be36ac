//! How many of the last samples were above a limit, per object, in bounded memory.

use std::collections::BTreeMap;

/// Objects counted at once.
const OBJECTS_MAX: usize = 1024;
/// Samples looked back at.
const WINDOW: u32 = 5;

/// The last samples of each object, newest in the lowest bit: 1 above the limit.
#[derive(Clone, Debug, Default)]
pub(super) struct Streaks(BTreeMap<String, u64>);

// === impl Streaks ===

impl Streaks {
    /// Notes one sample; gives how many of the object's last five were above the limit.
    pub(super) fn note(&mut self, object: &str, above: bool) -> u32 {
        if !self.0.contains_key(object) {
            if !above {
                return 0;
            }
            if self.0.len() >= OBJECTS_MAX {
                self.0.pop_first();
            }
        }
        let samples = self.0.entry(object.to_owned()).or_default();
        *samples = ((*samples << 1) | u64::from(above)) & ((1 << WINDOW) - 1);
        let recent = samples.count_ones();
        if recent == 0 {
            self.0.remove(object);
        }
        recent
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_count_until_five_more_have_come() {
        let mut streaks = Streaks::default();
        let seen: Vec<u32> = [true, true, false, true, false, false, false]
            .into_iter()
            .map(|above| streaks.note("a", above))
            .collect();
        assert_eq!(seen, [1, 2, 2, 3, 3, 2, 1]);
    }

    #[test]
    fn objects_that_are_calm_cost_nothing() {
        let mut streaks = Streaks::default();
        for at in 0..3000 {
            streaks.note(&format!("{at}"), false);
        }
        assert_eq!(streaks.0.len(), 0);
        for at in 0..3000 {
            streaks.note(&format!("{at}"), true);
        }
        assert_eq!(streaks.0.len(), OBJECTS_MAX);
        for _ in 0..5 {
            streaks.note("2999", false);
        }
        assert_eq!(streaks.0.len(), OBJECTS_MAX - 1);
    }
}
