//! Which lineage a finding counts for, where sshd starts more than once in a row.
//!
//! `sshd -t` before a restart and a listener that is replaced before it served anyone are one story
//! with the next start of the same program.

use std::collections::BTreeMap;

use crate::host::Lineage;

/// Lineages remembered; beyond, the first ones are forgotten, which costs a second incident.
const MAX: usize = 1024;

/// Starts of sshd that have findings, and those of them that served nobody yet.
#[derive(Debug, Default)]
pub(super) struct Families {
    stands_for: BTreeMap<Lineage, Lineage>,
    /// By subject: the lineage, and when it last had a finding.
    unserved: BTreeMap<String, (Lineage, u64)>,
}

// === impl Families ===

impl Families {
    /// The lineage that a finding joins by.
    pub(super) fn of(
        &mut self,
        lineage: Lineage,
        subject: &str,
        served: bool,
        now_ns: u64,
        window_ns: u64,
    ) -> Lineage {
        if !matches!(lineage, Lineage::Sshd(_)) {
            return lineage;
        }
        if served {
            let family = self.stands_for.get(&lineage).cloned().unwrap_or(lineage);
            self.unserved.retain(|_, (waiting, _)| *waiting != family);
            return family;
        }
        if let Some(family) = self.stands_for.get(&lineage) {
            return family.clone();
        }
        let waiting = self.unserved.get(subject);
        let waiting = waiting.filter(|(_, last)| now_ns.saturating_sub(*last) <= window_ns);
        let family = waiting.map_or_else(|| lineage.clone(), |(family, _)| family.clone());
        bound(&mut self.stands_for);
        bound(&mut self.unserved);
        self.stands_for.insert(lineage, family.clone());
        self.unserved.insert(subject.to_owned(), (family.clone(), now_ns));
        family
    }
}

fn bound<K: Ord + Clone, V>(map: &mut BTreeMap<K, V>) {
    if map.len() >= MAX {
        map.pop_first();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::ProcessId;

    fn sshd(tgid: u32) -> Lineage {
        Lineage::Sshd(ProcessId { tgid, start_ticks: 1 })
    }

    #[test]
    fn starts_that_served_nobody_are_one_family_with_the_next() {
        let mut families = Families::default();
        assert_eq!(families.of(sshd(1), "sshd", false, 10, 100), sshd(1));
        assert_eq!(families.of(sshd(2), "sshd", false, 20, 100), sshd(1));
        assert_eq!(families.of(sshd(2), "sshd-session", true, 30, 100), sshd(1));
        // That one serves: the next start is a story of its own.
        assert_eq!(families.of(sshd(3), "sshd", false, 40, 100), sshd(3));
        assert_eq!(families.of(sshd(2), "sshd", false, 50, 100), sshd(1));
    }

    #[test]
    fn the_window_and_the_program_part_families() {
        let mut families = Families::default();
        families.of(sshd(1), "sshd", false, 10, 100);
        assert_eq!(families.of(sshd(2), "sshd", false, 111, 100), sshd(2));
        assert_eq!(families.of(sshd(3), "other", false, 112, 100), sshd(3));
    }
}
