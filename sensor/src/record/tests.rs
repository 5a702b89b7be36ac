//! Recordings that were cut, changed, made up, or could not be written.

mod people;

use std::io::{self, Write};
use std::sync::mpsc;
use std::time::Duration;

use flate2::write::DeflateEncoder;
use flate2::{Compression, Crc};

use super::testing::{Shared, at, decision, header, incident, recording, steps, suppression};
use super::*;
use crate::config::Config;
use crate::detect::{CheckFailed, CheckReport, Nature, Refusal};
use crate::host::{CheckReason, Lineage, ProcessId};
use crate::incident::{Entry, Verb};

const PATIENCE: Duration = Duration::from_mins(1);

fn process(tgid: u32) -> ProcessId {
    ProcessId { tgid, start_ticks: 7 }
}

/// An incident as a store has it.
fn entry(id: &str) -> Entry {
    Entry {
        lineage: Lineage::Sshd(process(1)),
        others: Vec::new(),
        omitted: 0,
        connections: 1,
        over: false,
        incident: incident(id, "/usr/sbin/sshd ab", -60),
    }
}

fn decided(id: &str, verb: Verb, past: Option<Entry>) -> Step {
    let id = id.to_owned();
    Step::Decided(Box::new(Decided { id, decision: decision(verb, 60), ktime_ns: 9, past }))
}

/// One of each kind that needs no host.
fn sample() -> Vec<Step> {
    let refusal = Refusal { nature: Nature::Odd, ..Refusal::default() };
    let report = CheckReport { slots_checked: 5, settled: true, ..CheckReport::default() };
    let answer = |outcome| {
        let question = Question::Check(CheckReason::Sealed);
        Step::Answer(Box::new(Answer { process: process(2), question, outcome }))
    };
    let known = Step::Known { subject: "/usr/bin/su cd".to_owned(), stored: "{}".to_owned() };
    vec![
        Step::AskDates(true),
        Step::Restored(Box::new(entry("aa"))),
        Step::Restore { now: "2026-11-22T14:03:07Z".parse().unwrap(), ktime_ns: 9 },
        Step::Suppression(Box::new(suppression("edr"))),
        Step::Suppressions,
        decided("bb", Verb::Close, Some(entry("bb"))),
        Step::Tick(10),
        known,
        answer(Ok(report)),
        answer(Err(CheckFailed::Refused(refusal))),
        Step::Loss,
        Step::Tick(u64::MAX),
        Step::Finish,
    ]
}

/// Whether `part` is what the original begins with.
fn is_prefix(part: &[String], whole: &[String]) -> bool {
    whole.starts_with(part)
}

/// A file with these texts as its frames.
fn frames(texts: &[&[u8]]) -> Vec<u8> {
    let mut file = b"halfsecR\x01\0\0\0".to_vec();
    for (number, text) in texts.iter().enumerate() {
        let mut packed = DeflateEncoder::new(Vec::new(), Compression::fast());
        packed.write_all(text).unwrap();
        file.extend(frame(u32::try_from(number).unwrap(), text.len(), &packed.finish().unwrap()));
    }
    file
}

fn frame(number: u32, plain: usize, packed: &[u8]) -> Vec<u8> {
    let mut head = number.to_le_bytes().to_vec();
    head.extend(u32::try_from(plain).unwrap().to_le_bytes());
    head.extend(u32::try_from(packed.len()).unwrap().to_le_bytes());
    let mut crc = Crc::new();
    crc.update(&head);
    crc.update(packed);
    head.extend(crc.sum().to_le_bytes());
    [&head, packed].concat()
}

fn first_frame() -> Vec<u8> {
    frame_of(&header(&Config::default()))
}

fn frame_of(header: &Header) -> Vec<u8> {
    let mut text = serde_json::to_vec(header).unwrap();
    text.push(b'\n');
    text
}

fn refused(file: &[u8]) -> String {
    steps(file).expect_err("it is no recording").to_string()
}

#[test]
fn what_was_written_is_read_back() {
    let all: Vec<String> =
        sample().iter().map(|step| serde_json::to_string(step).unwrap()).collect();
    let file = recording(&sample());
    assert_eq!(steps(&file).unwrap(), all);
    let mut reader = Reader::open(&file[..]).unwrap();
    assert_eq!(*reader.header(), header(&Config::default()));
    while reader.step().unwrap().is_some() {}
    assert_eq!(reader.ended(), Some(Ended::Whole));
    assert!(reader.step().unwrap().is_none(), "again");
}

#[test]
fn a_recording_cut_at_any_byte_is_an_error_or_a_prefix_that_says_so() {
    // As a sensor writes it: one frame for the header, one for the steps, one for the end.
    let file = recording(&sample());
    let whole = steps(&file).unwrap();
    let mut prefixes = 0;
    for cut in 0..file.len() {
        let part = &file[..cut];
        let Ok(mut reader) = Reader::open(part) else {
            assert!(matches!(Reader::open(part), Err(ReadError::NoRecording | ReadError::Empty)));
            continue;
        };
        let mut read = Vec::new();
        while let Some(step) = reader.step().unwrap_or_else(|error| panic!("{cut}: {error}")) {
            read.push(serde_json::to_string(&step).unwrap());
        }
        assert!(is_prefix(&read, &whole), "{cut}: {read:?}");
        assert!(matches!(reader.ended(), Some(Ended::Cut { .. })), "{cut}");
        prefixes += 1;
        let told = replay(
            &mut Reader::open(part).unwrap(),
            &Settings::of(&Config::default()),
            &mut |_| {},
        );
        assert!(matches!(told.unwrap().ended, Ended::Cut { .. }), "{cut}");
    }
    assert!(prefixes > 0);
}

#[test]
fn a_flipped_bit_is_an_error_or_a_prefix_and_never_something_else() {
    let file = recording(&sample());
    let whole = steps(&file).unwrap();
    let header = Reader::open(&file[..]).unwrap().header().clone();
    for bit in 0..file.len() * 8 {
        let mut changed = file.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        let Ok(mut reader) = Reader::open(&changed[..]) else { continue };
        assert_eq!(*reader.header(), header, "bit {bit}");
        let mut read = Vec::new();
        let ended = loop {
            match reader.step() {
                Ok(Some(step)) => read.push(serde_json::to_string(&step).unwrap()),
                Ok(None) => break reader.ended(),
                Err(_) => break None,
            }
        };
        assert!(is_prefix(&read, &whole), "bit {bit}: {read:?}");
        assert_ne!(ended, Some(Ended::Whole), "bit {bit}");
    }
}

#[test]
fn what_is_no_recording_is_told_as_what_it_is() {
    assert_eq!(refused(b""), "this is no recording of halfsecond's");
    assert_eq!(refused(b"\x7fELF\x02\x01\x01\0\0\0\0\0"), "this is no recording of halfsecond's");
    assert!(refused(b"halfsecR\x02\0\0\0").contains("has format 2"));
    assert!(refused(b"halfsecR\x01\0\0\0").contains("nothing in it"));
    let damaged = refused(&frames(&[b"{}\n"]));
    assert!(damaged.contains("at byte 12") && damaged.contains("header"), "{damaged}");
    let two_lines = [&first_frame()[..], b"\"loss\"\n"].concat();
    assert!(refused(&frames(&[&two_lines])).contains("not one line"));
}

#[test]
fn what_is_no_step_and_what_follows_the_end_is_damage() {
    let head = first_frame();
    let of = |text: &[u8]| refused(&frames(&[&head, text]));
    assert!(of(b"\"loss\"").contains("no end"));
    assert!(of(b"{\"later\":1}\n").contains("no step"));
    assert!(of(b"{\"end\":{\"steps\":2}}\n").contains("not as many steps"));
    assert!(of(b"{\"end\":{\"steps\":0}}\n\"loss\"\n").contains("follows its end"));
    let end = &b"{\"end\":{\"steps\":0}}\n"[..];
    assert!(refused(&frames(&[&head, end, end])).contains("follows its end"));
    assert_eq!(steps(&frames(&[&head, b"\"loss\"\n"])).unwrap(), ["\"loss\""]);
    // A frame that is missing, or comes twice.
    let mut file = frames(&[&head]);
    file.extend(frame(2, 0, &[3, 0]));
    assert!(refused(&file).contains("out of order"));
}

#[test]
fn settings_that_no_sensor_takes_are_damage() {
    let refused = |config: &Config| refused(&frames(&[&frame_of(&header(config))]));
    let mut config = Config::default();
    config.detect.run_length = 0;
    assert!(refused(&config).contains("run length"));
    let mut config = Config::default();
    config.patrol.every = Some(Duration::MAX);
    assert!(refused(&config).contains("longer than"));
}

#[test]
fn frames_that_claim_more_than_they_are_cost_no_memory() {
    let head = frames(&[&first_frame()]);
    let large = [&head[..], &[1, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 1, 0, 0, 0, 0, 0, 0, 0]].concat();
    assert!(refused(&large).contains("larger than any is"));
    // A megabyte of zeros that says that it is ten bytes.
    let mut packed = DeflateEncoder::new(Vec::new(), Compression::best());
    packed.write_all(&vec![0; 1 << 20]).unwrap();
    let bomb = [&head[..], &frame(1, 10, &packed.finish().unwrap())].concat();
    assert!(refused(&bomb).contains("cannot be unpacked"));
    // Five megabytes that are not there.
    let promised = [&head[..], &[1, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0x50, 0, 0, 0, 0, 0]].concat();
    assert_eq!(steps(&promised).unwrap(), Vec::<String>::new());
}

/// A disk that is full after so many bytes.
struct Full(Shared, usize);

impl Write for Full {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = self.1.saturating_sub(self.0.0.lock().unwrap().len());
        if room == 0 {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.0.write(&bytes[..bytes.len().min(room)])
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Target for Full {
    fn end(&mut self, whole: u64, failed: bool) -> io::Result<()> {
        self.0.end(whole, failed)
    }
}

#[test]
fn a_full_disk_ends_the_recording_and_leaves_what_is_whole() {
    let whole = recording(&[]).len();
    for room in whole..whole + 60 {
        let file = Shared::default();
        let full = Box::new(Full(file.clone(), room));
        let header = header(&Config::default());
        let (recorder, under_way) = Recorder::start(full, &header, None).unwrap();
        for now in 0..100 {
            recorder.tell(|| Step::Tick(now * 7_919 * 104_729));
        }
        drop(recorder);
        let told = under_way.wait(PATIENCE);
        let bytes = file.0.lock().unwrap().clone();
        let Some(failure) = told.failure else { panic!("{room}: it all fits") };
        assert!(failure.contains("no storage space"), "{failure}");
        assert_eq!(told.bytes, bytes.len() as u64);
        let mut reader = Reader::open(&bytes[..]).unwrap();
        while reader.step().unwrap().is_some() {}
        assert!(matches!(reader.ended(), Some(Ended::Cut { .. })), "{room}");
    }
}

/// A disk that waits for a word.
struct Hanging(mpsc::Receiver<()>, Shared);

impl Write for Hanging {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // Gone: it need not wait any more.
        let _ = self.0.recv();
        self.1.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Target for Hanging {
    fn end(&mut self, whole: u64, failed: bool) -> io::Result<()> {
        self.1.end(whole, failed)
    }
}

#[test]
fn whoever_is_recorded_never_waits_for_the_disk() {
    let (go_on, waits) = mpsc::channel();
    let file = Shared::default();
    // What begins a recording: its mark, its version, and the header's frame in two parts.
    (0..4).for_each(|_| go_on.send(()).unwrap());
    let hanging = Box::new(Hanging(waits, file.clone()));
    let (recorder, under_way) =
        Recorder::start_with(hanging, &header(&Config::default()), None, 8).unwrap();
    let large = "x".repeat(300 << 10);
    let mut made = 0;
    for _ in 0..100 {
        recorder.tell(|| {
            made += 1;
            Step::Known { subject: large.clone(), stored: String::new() }
        });
    }
    assert!((8..100).contains(&made), "{made} steps were made for a recording that was over");
    let failure = recorder.progress().failure.expect("it is over");
    assert!(failure.contains("as fast as"), "{failure}");
    drop((go_on, recorder));
    assert_eq!(under_way.wait(PATIENCE).failure, Some(failure));
    let bytes = file.0.lock().unwrap().clone();
    let mut reader = Reader::open(&bytes[..]).unwrap();
    while reader.step().unwrap().is_some() {}
    assert!(matches!(reader.ended(), Some(Ended::Cut { .. })));
}

#[test]
fn checks_that_nobody_asks_for_are_counted() {
    let unasked = recording(&sample());
    let mut reader = Reader::open(&unasked[..]).unwrap();
    let settings = reader.header().settings;
    let replayed = replay(&mut reader, &settings, &mut |_| {}).unwrap();
    assert_eq!(replayed.counts.unasked, 2);
    assert_eq!((replayed.counts.losses, replayed.counts.unanswered), (1, 0));
    assert_eq!(replayed.ended, Ended::Whole);
}

/// The number at this place of a step, counted in depth, is another; false where there is none.
fn exchange(value: &mut serde_json::Value, left: &mut usize, number: u64) -> bool {
    match value {
        serde_json::Value::Number(_) if *left == 0 => {
            *value = number.into();
            true
        }
        serde_json::Value::Number(_) => {
            *left -= 1;
            false
        }
        serde_json::Value::Array(all) => all.iter_mut().any(|one| exchange(one, left, number)),
        serde_json::Value::Object(all) => all.values_mut().any(|one| exchange(one, left, number)),
        _ => false,
    }
}

#[test]
fn numbers_that_no_sensor_records_are_replayed_without_a_panic() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/recordings/steps.jsonl");
    let lines = std::fs::read_to_string(path).unwrap();
    let lines: Vec<&str> = lines.lines().collect();
    // So late that the incidents of its decisions are older.
    let header = Header { begun: at(1_000_000), ..header(&Config::default()) };
    let (head, settings) = (frame_of(&header), header.settings);
    let mut replays = 0;
    for (at, line) in lines.iter().enumerate() {
        for place in 0.. {
            let mut step: serde_json::Value = serde_json::from_str(line).unwrap();
            if !exchange(&mut step, &mut { place }, 0) {
                break;
            }
            for number in [0, u64::MAX / 2, u64::MAX] {
                exchange(&mut step, &mut { place }, number);
                let step = step.to_string();
                let mut all = lines.clone();
                all[at] = &step;
                // Again afterwards, when something is known.
                let text = [all.join("\n"), all.join("\n")].join("\n") + "\n";
                let file = frames(&[&head, text.as_bytes()]);
                let mut reader = Reader::open(&file[..]).unwrap();
                // An error where the number is none that fits.
                let told = replay(&mut reader, &settings, &mut |_| {});
                replays += usize::from(told.is_ok());
            }
        }
    }
    assert!(replays > 300, "{replays}");
}
