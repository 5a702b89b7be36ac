//! Packed entries: lossless, small, and never trusted.

use proptest::prelude::*;

use super::*;
use crate::host::Method;

/// A build-id as linkers make them.
fn build_id(number: u64) -> String {
    let mut word = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let words = std::iter::repeat_with(|| {
        word ^= word << 13;
        word ^= word >> 7;
        word ^= word << 17;
        word
    });
    let digits: Vec<String> = words.take(3).map(|word| format!("{word:016x}")).collect();
    digits.concat()[..40].to_owned()
}

fn full(libraries: u64) -> Baseline {
    let mut baseline = Baseline::default();
    let start: Timestamp = "2026-11-21T10:00:00.123456789Z".parse().unwrap();
    for at in 0..libraries {
        let time = start + jiff::SignedDuration::from_nanos(i64::try_from(at * 61_803).unwrap());
        let path = format!("/usr/lib/x86_64-linux-gnu/libthing{at}.so.{}", at % 7);
        baseline.add_library(&ModuleId { path, build: build_id(at) }, time, false);
        baseline.add_start(time, Some(Method::Publickey));
    }
    baseline.add_caller("RSA_public_decrypt", &ModuleId { path: "/a".into(), build: "b".into() });
    baseline.add_auth(Method::Password, 7_000_000, Some(2_000_000), None);
    baseline
}

fn packed(baseline: &Baseline) -> Entry {
    Entry::of(&mut baseline.clone(), true).unwrap()
}

#[test]
fn what_is_packed_is_read_back_and_the_baseline_is_left_as_it_was() {
    for baseline in [Baseline::default(), full(1), full(200)] {
        let mut lent = baseline.clone();
        let entry = Entry::of(&mut lent, false).unwrap();
        assert_eq!(lent, baseline);
        assert_eq!(entry.baseline(), Some(baseline));
    }
}

#[test]
fn it_was_last_seen_at_its_latest_start_or_library() {
    let mut baseline = Baseline::default();
    assert_eq!(packed(&baseline).seen_s, 0);
    let library = ModuleId { path: "/lib/a.so".into(), build: build_id(1) };
    baseline.add_library(&library, Timestamp::from_second(700).unwrap(), false);
    assert_eq!(packed(&baseline).seen_s, 700);
    baseline.add_start(Timestamp::from_second(900).unwrap(), None);
    assert_eq!(packed(&baseline).seen_s, 900);
}

#[test]
fn two_hundred_libraries_fit_in_two_pages() {
    let baseline = full(200);
    let (json, packed) = (serde_json::to_vec(&baseline).unwrap().len(), packed(&baseline));
    println!("200 libraries: {json} bytes as JSON, {} packed", packed.body.len());
    assert!(packed.body.len() < 7_900, "{}", packed.body.len());
}

#[test]
fn every_bit_that_flips_is_noticed() {
    let entry = packed(&full(20));
    let checksum = entry.checksum("a");
    assert_ne!(checksum, entry.checksum("b"), "an entry of another subject");
    for at in 0..entry.body.len() * 8 {
        let mut bad = entry.clone();
        bad.body[at / 8] ^= 1 << (at % 8);
        assert_ne!(bad.checksum("a"), checksum, "bit {at}");
        // Nor does it bring anybody down who reads it all the same.
        let _ = bad.baseline();
    }
    assert_ne!(Entry { guarded: false, ..entry.clone() }.checksum("a"), checksum);
    assert_ne!(Entry { seen_s: entry.seen_s + 1, ..entry }.checksum("a"), checksum);
}

#[test]
fn an_entry_cut_anywhere_is_none() {
    let entry = packed(&full(20));
    for kept in 1..entry.body.len() {
        let cut = Entry { body: entry.body[..kept].to_vec(), ..entry.clone() };
        assert_eq!(cut.baseline(), None, "{kept} bytes");
    }
}

#[test]
fn numbers_that_are_lies_cost_no_memory() {
    let body = |plain: &[u8]| {
        let mut encoder = DeflateEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(plain).unwrap();
        let mut body = vec![PACKED];
        put_bytes(&mut body, &encoder.finish().unwrap());
        body
    };
    let json = serde_json::to_vec(&Baseline::default()).unwrap();
    for lie in [u128::MAX, u128::from(u64::MAX), 1 << 40] {
        let mut plain = Vec::new();
        put_bytes(&mut plain, &json);
        put(&mut plain, lie);
        assert_eq!(unpack(&body(&plain)), None);
        let mut plain = Vec::new();
        put(&mut plain, lie);
        assert_eq!(unpack(&body(&plain)), None);
    }
    // A bomb ends where more is certainly not ours.
    let bomb = body(&vec![0; usize::try_from(INFLATED_MAX).unwrap() + 1000]);
    assert_eq!(unpack(&bomb), None);
}

proptest! {
    #[test]
    fn builds_and_times_of_any_kind_are_read_back(
        libraries in prop::collection::vec(
            ("[/a-z0-9é ]{0,30}", prop_oneof!["[0-9a-f]{0,70}", "[ -~]{0,40}"],
             -377_705_023_201_000_000_000_i128..253_402_207_200_999_999_999,
             -377_705_023_201_000_000_000_i128..253_402_207_200_999_999_999),
            0..40)
    ) {
        let time = |ns| Timestamp::from_nanosecond(ns).unwrap();
        let libraries = libraries.into_iter().map(|(path, build, first, last)| {
            (ModuleId { path, build }, Seen { first: time(first), last: time(last) })
        });
        let baseline = Baseline { libraries: libraries.collect(), ..Baseline::default() };
        prop_assert_eq!(packed(&baseline).baseline(), Some(baseline));
    }

    #[test]
    fn numbers_are_read_back(number in any::<u128>(), signed in any::<i128>()) {
        let mut bytes = Vec::new();
        put(&mut bytes, number);
        prop_assert_eq!(Cursor(&bytes).number(), Some(number));
        prop_assert_eq!(unzigzag(zigzag(signed)), signed);
    }

    #[test]
    fn any_bytes_are_read_without_a_panic(body in prop::collection::vec(any::<u8>(), 0..400)) {
        let _ = unpack(&body);
        let mut marked = vec![PACKED];
        marked.extend(body);
        let _ = unpack(&marked);
    }
}
