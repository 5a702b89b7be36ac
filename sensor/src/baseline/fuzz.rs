//! Everything that is done with an export, for the fuzzer.

use std::path::Path;

use jiff::Timestamp;

use super::exchange::Sealed;
use super::{Baseline, Criteria, Import, Terms, differences};

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_export_is_read_to_its_last_subject() {
        let baselines = [("/x ab".to_owned(), Baseline::default())].into();
        let (export, left) =
            crate::baseline::Export::of("h".to_owned(), Timestamp::UNIX_EPOCH, 20, baselines);
        assert!(left.is_empty());
        assert_eq!(read(export.write(None).unwrap().as_bytes()), 1);
        assert_eq!(read(b""), 0);
    }
}
