//! Everything that is done with an export, and with an order of a command, for the fuzzer.

use std::path::Path;

use jiff::Timestamp;

use super::exchange::Sealed;
use super::{Baseline, Baselines, Criteria, Import, Measure, Store, Terms, differences, order};
use crate::config::Config;

const CRITERIA: Criteria =
    Criteria { observations: 20, run_length: 1_000_000, guarded: true, unit: "starts" };

/// Subjects of an export, each taken over, compared and judged.
pub(crate) fn read(data: &[u8]) -> usize {
    let Ok(sealed) = Sealed::of(Path::new("export"), data.to_vec()) else { return 0 };
    let Ok(export) = sealed.parse(Timestamp::MAX) else { return 0 };
    let host = export.head.host.clone();
    let import = Import { time: Timestamp::UNIX_EPOCH, host, signer: None, forced: true };
    let terms = Terms { settled_too: true, times: true };
    for theirs in export.baselines.values() {
        let mut own = Baseline::default();
        own.merge(theirs, &import, terms, false);
        own.adopt();
        own.add_start(Timestamp::UNIX_EPOCH, None);
        let _ = (own.standing(&CRITERIA), theirs.standing(&CRITERIA));
    }
    let same = differences(&export.baselines, &export.baselines);
    assert!(same.is_empty(), "no export differs from itself: {same:?}");
    export.baselines.len()
}

/// An order, carried out twice on a store that knows the subjects; whether it is one.
pub(crate) fn obey(data: &[u8]) -> usize {
    let Ok(act) = order::parse(data) else { return 0 };
    let mut baselines = Baselines::new(Store::off());
    for subject in act.subjects() {
        baselines.learn(&subject, super::Changed::Learned).add_start(Timestamp::UNIX_EPOCH, None);
    }
    let measure = Measure::new(&Config::default());
    for _ in 0..2 {
        let _ = baselines.obey(&act, &measure);
    }
    1
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::baseline::Act;
    use crate::host::{Method, ModuleId};

    /// An export of one program of which something of every kind was learned.
    fn text() -> String {
        let mut baseline = Baseline::default();
        let module = ModuleId { path: "/lib/a.so".to_owned(), build: "aa".to_owned() };
        for _ in 0..30 {
            baseline.add_start(Timestamp::UNIX_EPOCH, Some(Method::Publickey));
            baseline.add_library(&module, Timestamp::UNIX_EPOCH, false);
            baseline.add_caller("f", &module);
            baseline.add_opening("/lib/a.so", &module);
            baseline.add_unasked("/lib/a.so");
            baseline.add_variable("LD_PRELOAD=/lib/a.so");
            baseline.add_helper("/usr/bin/keys");
            baseline.add_constructors(300_000);
            baseline.add_auth(Method::Publickey, 30_000_000, Some(8_000_000), None);
        }
        let baselines = [("/x ab".to_owned(), baseline)].into();
        let (export, _) =
            crate::baseline::Export::of("h".to_owned(), Timestamp::UNIX_EPOCH, 20, baselines);
        export.write(None).unwrap()
    }

    proptest! {
        /// Digits for digits above all: what is well-formed and means something else.
        #[test]
        fn an_altered_export_is_taken_or_refused(
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8)
        ) {
            let mut bytes = text().into_bytes();
            for (at, byte) in changes {
                let at = at.index(bytes.len());
                bytes[at] = if bytes[at].is_ascii_digit() { b'0' + byte % 10 } else { byte };
            }
            prop_assert!(read(&bytes) <= 1);
        }
    }

    #[test]
    fn an_order_of_each_kind_is_obeyed() {
        let subject = "/x ab".to_owned();
        let host = "h".to_owned();
        let import = Import { time: Timestamp::UNIX_EPOCH, host, signer: None, forced: true };
        let terms = Terms { settled_too: true, times: true };
        let baselines = [(subject.clone(), Baseline::default())].into();
        for act in [
            Act::Forget { subject: subject.clone() },
            Act::Approve { subject, approvals: Vec::new() },
            Act::Import { import, terms, baselines },
        ] {
            assert_eq!(obey(&serde_json::to_vec(&order::Order::new(act)).unwrap()), 1);
        }
        assert_eq!(obey(b"{}"), 0);
    }

    #[test]
    fn an_export_is_read_to_its_last_subject() {
        assert_eq!(read(text().as_bytes()), 1);
        assert_eq!(read(b""), 0);
    }
}
