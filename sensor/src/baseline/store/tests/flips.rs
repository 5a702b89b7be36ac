//! Bits that flip in a stored file.

use super::super::{
    caught, file,
    place::{Place, Reader},
};
use super::disk::Disk;
use super::*;

/// Flips beside those of the header; `HALFSECOND_TEST_FLIPS` for another number.
const FLIPS: usize = 1_500;

fn flips() -> usize {
    match std::env::var("HALFSECOND_TEST_FLIPS") {
        Ok(number) => number.parse().expect("HALFSECOND_TEST_FLIPS is a number"),
        Err(_) => FLIPS,
    }
}

/// Entries of the second flush, as those of the first with this added.
const LATER: u64 = 1_000;

/// A small store of two flushes, closed in order or left by a kill.
fn file(entries: u64, killed: bool) -> Vec<u8> {
    let disk = Disk::default();
    let mut store = Store::at(Box::new(disk.clone())).0;
    write(&mut store, 0..entries).unwrap();
    let later: Vec<(String, Entry)> =
        (0..entries / 2).map(|number| (name(number), entry(number + LATER))).collect();
    let later: Vec<(&str, &Entry)> =
        later.iter().map(|(name, entry)| (name.as_str(), entry)).collect();
    store.write(&later).unwrap();
    let left = disk.content();
    drop(store);
    if killed { left } else { disk.content() }
}

/// What is found under a number: as of the first flush, of the second, or nothing.
fn found(store: &mut Store, number: u64) -> Option<u64> {
    let read = store.read(&name(number)).expect("the disk is well")?.baseline().unwrap();
    assert!([number, number + LATER].contains(&read.starts), "{number}: {}", read.starts);
    assert_eq!(read, numbered(read.starts), "not as it was written");
    Some(read.starts)
}

/// Bits to flip: of every byte of the header one, and seeded ones of all bytes that are no zeros.
fn bits(content: &[u8], seed: u64) -> Vec<usize> {
    let used: Vec<usize> = (0..content.len()).filter(|at| content[*at] != 0).collect();
    let mut word = seed | 1;
    let mut next = || {
        word ^= word << 13;
        word ^= word >> 7;
        word ^= word << 17;
        usize::try_from(word >> 1).unwrap()
    };
    let header: Vec<usize> = (0..320.min(content.len())).map(|at| at * 8 + next() % 8).collect();
    let others = (0..flips()).map(|_| used[next() % used.len()] * 8 + next() % 8);
    header.into_iter().chain(others).collect()
}

#[test]
fn a_flipped_bit_never_stops_the_sensor_nor_passes_for_content() {
    const ENTRIES: u64 = 12;
    let seed = 0x2026_1123;
    println!("seed {seed:#x}");
    for killed in [false, true] {
        let good = file(ENTRIES, killed);
        let first: Vec<_> = (0..ENTRIES).map(Some).collect();
        let half = usize::try_from(ENTRIES / 2).unwrap();
        let second: Vec<_> = (0..ENTRIES / 2)
            .map(|number| Some(number + LATER))
            .chain(first[half..].to_vec())
            .collect();
        let (mut harmless, mut former, mut aside) = (0, 0, 0);
        for bit in bits(&good, seed) {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            let disk = Disk::holding(&bad);
            // A command looks on first, without the check that writing begins with.
            if let Ok(reader) = caught(|| disk.open_to_read()) {
                let _ = caught(|| file_read(&reader));
            }
            let (mut store, opened) = Store::at(Box::new(disk.clone()));
            let there: Vec<_> = (0..ENTRIES).map(|number| found(&mut store, number)).collect();
            match opened {
                Opened::Ready if there == second => harmless += 1,
                // What a kill has left looks the same as a flush that was not over: it is undone.
                Opened::Ready if killed && there == first => former += 1,
                Opened::Ready => panic!("bit {bit}: {there:?} and nothing told"),
                Opened::SetAside { ref reason, .. } => {
                    assert!(!reason.is_empty());
                    assert_eq!(disk.files_aside(), 1, "bit {bit}");
                    assert!(there.iter().all(Option::is_none), "bit {bit}: {there:?}");
                    aside += 1;
                }
                Opened::InMemory { reason } => panic!("bit {bit}: {reason}"),
            }
            assert_eq!(store.tally().unreadable, 0, "bit {bit}");
            write(&mut store, [ENTRIES + 1]).unwrap_or_else(|error| panic!("bit {bit}: {error}"));
            assert!(stored(&mut store, ENTRIES + 1), "bit {bit}");
        }
        println!(
            "killed {killed}: {harmless} harmless, {aside} set aside, {former} back to the flush before"
        );
        assert!(aside + former > 10, "{aside} {former}");
    }
}

fn file_read(reader: &Reader) -> Result<(), redb::Error> {
    for (subject, json) in file::read_all(&reader.begin_read()?)?.unwrap_or_default() {
        let read: crate::baseline::Baseline = serde_json::from_slice(&json).unwrap();
        assert_eq!(subject, name(read.starts % LATER));
    }
    Ok(())
}
