//! Every single write, change of size and sync fails in turn, in each way there is.

use super::disk::{Disk, Fault, Kind};
use super::*;
use redb::StorageBackend;

use crate::baseline::keep::{Baselines, Changed};

/// Flushes of every subject.
const FLUSHES: u64 = 6;

/// What was told to be on disk: observations by subject.
type Acknowledged = [u64; 5];
const ALL: Acknowledged = [FLUSHES; 5];

fn baselines(disk: &Disk) -> Baselines {
    Baselines::new(Store::at(Box::new(disk.clone())).0)
}

/// Learns and flushes; notes what each flush that succeeds has told.
fn learn(baselines: &mut Baselines, acknowledged: &mut Acknowledged) {
    for flush in 0..FLUSHES {
        for at in 0..ALL.len() as u64 {
            let baseline = baselines.learn(&name(at), Changed::Learned);
            let library =
                ModuleId { path: format!("/lib/{flush}.so"), build: format!("{at:040x}") };
            baseline.add_start(Timestamp::UNIX_EPOCH, None);
            baseline.add_library(&library, Timestamp::UNIX_EPOCH, false);
        }
        baselines.flush(true);
        if baselines.failure().is_none() {
            for (at, told) in (0..).zip(acknowledged.iter_mut()) {
                *told = baselines.get(&name(at)).starts;
            }
        }
    }
}

/// All that was told is there, whole.
fn check(baselines: &mut Baselines, acknowledged: &Acknowledged, what: &str) {
    for (at, told) in (0..).zip(acknowledged) {
        let found = baselines.get(&name(at));
        assert!(
            found.starts >= *told,
            "{what}: {at}: {told} were told, {} are there",
            found.starts
        );
        assert_eq!(found.libraries.len() as u64, found.starts.min(FLUSHES), "{what}: {at}");
    }
}

/// Operations of opening and all flushes where nothing fails.
fn operations() -> u64 {
    let disk = Disk::default();
    let mut acknowledged = Acknowledged::default();
    learn(&mut baselines(&disk), &mut acknowledged);
    assert_eq!(acknowledged, ALL);
    disk.operations()
}

#[test]
fn whatever_operation_fails_in_whatever_way_nothing_that_was_told_is_lost() {
    let all = operations();
    println!("{all} operations, each failing in 5 ways");
    let opening = {
        let disk = Disk::default();
        let _open = baselines(&disk);
        disk.operations()
    };
    for kind in [Kind::Once, Kind::Broken, Kind::Full, Kind::Torn, Kind::Dead] {
        let mut failed = 0;
        for at in 0..all {
            let what = format!("{kind:?} at operation {at} of {all}");
            let disk = Disk::default();
            disk.break_by(Some(Fault { at, kind }));
            let mut running = baselines(&disk);
            let mut acknowledged = Acknowledged::default();
            learn(&mut running, &mut acknowledged);
            check(&mut running, &acknowledged, &what);
            failed += u64::from(running.tally().failures > 0);

            // The disk is mended: what is in memory is written, without a restart.
            disk.break_by(None);
            running.flush(true);
            assert_eq!(running.failure(), None, "{what}");
            check(&mut running, &ALL, &what);
            // But for a file that was only being made, a failing disk is no damage.
            let made = at >= opening || matches!(kind, Kind::Once | Kind::Full);
            assert!(disk.files_aside() == 0 || !made, "{what}: {}", disk.files_aside());
            drop(running);
            let mut again = baselines(&disk);
            check(&mut again, &ALL, &what);
            assert_eq!(again.tally().unreadable, 0, "{what}");
        }
        println!("{kind:?}: {failed} of {all} made a flush fail");
        assert!(failed > all / 2, "{kind:?}: {failed}");
    }
}

#[test]
fn a_power_cut_at_any_operation_leaves_what_was_told() {
    let all = operations();
    let mut word = 0x9e37_79b9_7f4a_7c15_u64;
    for at in 0..all {
        for cut in 0..4_u32 {
            let what = format!("power cut {cut} at operation {at} of {all}");
            let disk = Disk::default();
            disk.break_by(Some(Fault { at, kind: Kind::Dead }));
            let mut acknowledged = Acknowledged::default();
            learn(&mut baselines(&disk), &mut acknowledged);
            // Of what was not synced all, nothing, and any part may have arrived.
            let left = disk.after_power_cut(|| {
                word ^= word << 13;
                word ^= word >> 7;
                word ^= word << 17;
                cut == 1 || (cut > 1 && word.is_multiple_of(2))
            });
            let found = Disk::holding(&left);
            let (store, opened) = Store::at(Box::new(found));
            // A file whose very first bytes did not arrive is none, and holds nothing that was told.
            let nothing = acknowledged == Acknowledged::default();
            assert!(opened == Opened::Ready || nothing, "{what}: {opened:?}");
            check(&mut Baselines::new(store), &acknowledged, &what);
        }
    }
}

#[test]
fn what_is_on_a_full_disk_is_known_though_it_leaves_memory() {
    let disk = Disk::default();
    let mut running = baselines(&disk);
    let mut acknowledged = Acknowledged::default();
    learn(&mut running, &mut acknowledged);
    drop(running);
    for kind in [Kind::Full, Kind::Broken, Kind::Dead] {
        disk.break_by(Some(Fault { at: 0, kind }));
        let mut running = baselines(&disk);
        if kind != Kind::Dead {
            check(&mut running, &acknowledged, "read from a disk that takes nothing");
        }
        // What is learned of a program whose baseline nobody can read must not replace it.
        for at in 0..ALL.len() as u64 {
            let baseline = running.learn(&name(at), Changed::Learned);
            baseline.add_start(Timestamp::UNIX_EPOCH, None);
        }
        running.flush(true);
        assert!(running.failure().is_some(), "{kind:?}");
        disk.break_by(None);
        running.flush(true);
        assert_eq!(running.failure(), None, "{kind:?}");
        check(&mut running, &acknowledged, "after it was mended");
        drop(running);
        check(&mut baselines(&disk), &acknowledged, "after a restart");
    }
}

#[test]
fn a_file_that_is_set_aside_by_a_failing_disk_is_told_once_it_works() {
    let disk = Disk::default();
    let mut running = baselines(&disk);
    let mut acknowledged = Acknowledged::default();
    learn(&mut running, &mut acknowledged);
    // Somebody writes over the file, and then the disk fills up.
    disk.break_by(Some(Fault { at: disk.operations(), kind: Kind::Once }));
    running.learn(&name(0), Changed::Learned);
    assert_eq!(running.flush(true), None);
    let size = disk.content().len();
    StorageBackend::write(&disk, 0, &vec![7; size]).unwrap();
    disk.break_by(Some(Fault { at: disk.operations() + 1, kind: Kind::Full }));
    running.learn(&name(0), Changed::Learned);
    assert_eq!(running.flush(true), None);
    assert!(running.failure().is_some());
    disk.break_by(None);
    let told = running.flush(true);
    assert!(matches!(told, Some(Opened::SetAside { .. })), "{told:?}");
    // All that was in memory was in the file that is gone.
    running.flush(true);
    drop(running);
    check(&mut baselines(&disk), &acknowledged, "written again");
}
