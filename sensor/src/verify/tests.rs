//! Reports and how two of them are put together.

use super::*;

fn report(mismatches: usize, settled: bool) -> Report {
    let module = ModuleRef { path: "/x".to_owned(), dev: 1, ino: 1, build_id: None };
    let target = Target {
        addr: 0x10,
        module: Some(module.clone()),
        offset: None,
        symbol: None,
        symbol_offset: None,
        memory: None,
    };
    let mismatch = |at: usize| SlotMismatch {
        module: module.clone(),
        slot_vaddr: at as u64,
        slot_addr: at as u64,
        kind: SlotKind::JumpSlot,
        category: Category::Redirected,
        sealed: true,
        symbol: None,
        version: None,
        expected: target.clone(),
        actual: target.clone(),
    };
    Report {
        pid: 1,
        start_ticks: 1,
        slots_checked: 1,
        slots: SlotCounts::default(),
        skipped: Skipped::default(),
        slots_lenient: 0,
        slots_ifunc: 0,
        modules: 1,
        mismatches: (0..mismatches).map(mismatch).collect(),
        gaps: Vec::new(),
        settled,
        linkage: Linkage::Glibc,
        preloads: Vec::new(),
        audit: None,
        namespaces: Vec::new(),
        text: Text::default(),
    }
}

#[test]
fn only_what_both_looks_saw_is_reported() {
    let both = report(2, true).confirmed_by(Ok(report(1, true))).unwrap();
    assert_eq!((both.mismatches.len(), both.settled, both.gaps.len()), (1, true, 0));
    let later = report(0, true).confirmed_by(Ok(report(1, true))).unwrap();
    assert!(later.mismatches.is_empty());
}

#[test]
fn a_process_that_ends_between_the_looks_is_reported_as_unconfirmed() {
    let gone = || Err(VerifyError::Gone { pid: 1 });
    let once = report(1, true).confirmed_by(gone()).unwrap();
    assert_eq!((once.mismatches.len(), once.gaps.as_slice()), (1, &[Gap::Unconfirmed][..]));
    // Seen in motion, or nothing seen: no report.
    assert!(report(1, false).confirmed_by(gone()).is_err());
    assert!(report(0, true).confirmed_by(gone()).is_err());
    let malformed = Err(VerifyError::NotSettled { pid: 1 });
    assert!(report(1, true).confirmed_by(malformed).is_err());
}

#[test]
fn a_verifier_can_move_to_a_worker_thread() {
    fn is_send<T: Send>() {}
    is_send::<Verifier>();
    is_send::<Report>();
    is_send::<VerifyError>();
}
