use std::fs::{self, File, OpenOptions};
use std::path::Path;
use std::process::Command;
use std::sync::Mutex;

use super::*;

const PATIENCE: Duration = Duration::from_secs(20);
const BACKOFF: Backoff =
    Backoff { first: Duration::from_millis(5), most: Duration::from_millis(20) };

#[derive(Serialize)]
struct Told<'a> {
    id: &'a str,
    text: String,
}

fn start(sinks: Vec<Box<dyn Sink>>, pending: usize) -> (Outputs, Metrics) {
    let metrics = Metrics::new().unwrap();
    (Outputs::with_sinks(sinks, pending, BACKOFF, &metrics).unwrap(), metrics)
}

fn send(incidents: &Incidents, id: &str, text: impl Into<String>) {
    incidents.send(id, &Told { id, text: text.into() }).unwrap();
}

/// Waits for a condition; panics with what it found at the deadline.
fn wait_for<T: std::fmt::Debug>(what: &str, mut look: impl FnMut() -> (bool, T)) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let (done, found) = look();
        if done {
            return;
        }
        assert!(Instant::now() < deadline, "waited in vain for {what}; found {found:?}");
        thread::yield_now();
    }
}

/// Of every whole line; one that is being written, or taken back from a full disk, has no end yet.
fn ids(path: &Path) -> Vec<String> {
    let text = fs::read_to_string(path).unwrap();
    text.split_inclusive('\n')
        .filter(|line| line.ends_with('\n'))
        .map(|line| {
            let value: serde_json::Value = serde_json::from_str(line).unwrap();
            value["id"].as_str().unwrap().to_owned()
        })
        .collect()
}

#[test]
fn every_output_gets_every_incident_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("incidents.jsonl");
    let stream = folder.path().join("stream");
    let (outputs, metrics) = start(
        vec![
            Box::new(FileSink::new(path.clone(), 1 << 20, 2)),
            Box::new(LineSink::new("stdout", File::create(&stream).unwrap())),
        ],
        16,
    );
    for index in 0..10 {
        send(&outputs.incidents(), &index.to_string(), "x");
    }
    assert_eq!(outputs.close(PATIENCE), 0);
    let expected: Vec<_> = (0..10).map(|index| index.to_string()).collect();
    assert_eq!(ids(&path), expected);
    assert_eq!(ids(&stream), expected);
    assert_eq!(metrics.sink_written.with_label_values(&["file"]).get(), 10);
}

#[test]
fn a_full_device_is_counted_and_the_incident_kept() {
    let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
    let (outputs, metrics) = start(vec![Box::new(LineSink::new("stdout", full))], 16);
    send(&outputs.incidents(), "a", "x");
    let errors = metrics.sink_errors.with_label_values(&["stdout"]);
    wait_for("two failed attempts", || (errors.get() >= 2, errors.get()));
    assert_eq!(outputs.incidents().pending(), 1);
    assert_eq!(metrics.sink_failing.with_label_values(&["stdout"]).get(), 1);
    assert_eq!(outputs.close(PATIENCE), 1);
    assert_eq!(metrics.sink_written.with_label_values(&["stdout"]).get(), 0);
}

#[test]
fn a_broken_pipe_is_counted_and_the_incident_kept() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let file = File::from(std::os::fd::OwnedFd::from(writer));
    let (outputs, metrics) = start(vec![Box::new(LineSink::new("stdout", file))], 16);
    send(&outputs.incidents(), "a", "x");
    let errors = metrics.sink_errors.with_label_values(&["stdout"]);
    wait_for("a failed attempt", || (errors.get() >= 1, errors.get()));
    assert_eq!(outputs.close(PATIENCE), 1);
}

#[test]
fn a_missing_directory_holds_the_incident_until_it_is_there() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("later").join("incidents.jsonl");
    let (outputs, metrics) = start(vec![Box::new(FileSink::new(path.clone(), 1 << 20, 2))], 16);
    send(&outputs.incidents(), "a", "x");
    let errors = metrics.sink_errors.with_label_values(&["file"]);
    wait_for("a failed attempt", || (errors.get() >= 1, errors.get()));
    fs::create_dir(folder.path().join("later")).unwrap();
    wait_for("the incident to be written", || {
        let pending = outputs.incidents().pending();
        (pending == 0, pending)
    });
    assert_eq!(ids(&path), ["a"]);
    assert_eq!(metrics.sink_failing.with_label_values(&["file"]).get(), 0);
}

/// Never takes a line until the test lets it.
struct Hung(Arc<Mutex<()>>);

impl Sink for Hung {
    fn name(&self) -> &'static str {
        "stdout"
    }

    fn write(&mut self, _: &[u8]) -> io::Result<()> {
        drop(self.0.lock().unwrap());
        Ok(())
    }
}

#[test]
fn a_hung_output_holds_up_neither_sender_nor_the_other_output() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("incidents.jsonl");
    let gate = Arc::new(Mutex::new(()));
    let closed = gate.lock().unwrap();
    let (outputs, metrics) = start(
        vec![Box::new(Hung(Arc::clone(&gate))), Box::new(FileSink::new(path.clone(), 1 << 20, 0))],
        4,
    );
    let written = metrics.sink_written.with_label_values(&["file"]);
    for index in 0..20 {
        send(&outputs.incidents(), &index.to_string(), "x");
        wait_for("the file to take the incident", || (written.get() > index, written.get()));
    }
    assert_eq!(metrics.sink_dropped.with_label_values(&["stdout"]).get(), 16);
    assert_eq!(metrics.sink_dropped.with_label_values(&["file"]).get(), 0);
    assert_eq!(outputs.incidents().pending(), 4);
    drop(closed);
    assert_eq!(outputs.close(PATIENCE), 0);
}

#[test]
fn a_newer_state_replaces_the_one_that_waits() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("later").join("incidents.jsonl");
    let (outputs, metrics) = start(vec![Box::new(FileSink::new(path.clone(), 1 << 20, 0))], 16);
    send(&outputs.incidents(), "first", "x");
    let errors = metrics.sink_errors.with_label_values(&["file"]);
    wait_for("a failed attempt", || (errors.get() >= 1, errors.get()));
    for round in 0..50 {
        send(&outputs.incidents(), "second", format!("round {round}"));
    }
    assert_eq!(outputs.incidents().pending(), 2);
    fs::create_dir(folder.path().join("later")).unwrap();
    assert_eq!(outputs.close(PATIENCE), 0);
    assert_eq!(ids(&path), ["first", "second"]);
    assert!(fs::read_to_string(&path).unwrap().contains("round 49"));
    assert_eq!(metrics.sink_dropped.with_label_values(&["file"]).get(), 0);
}

#[test]
fn rotation_keeps_as_many_files_as_asked_and_loses_none_of_their_lines() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("incidents.jsonl");
    let mut sink = FileSink::new(path.clone(), 100, 2);
    for index in 0..9 {
        // 40 bytes: two fit, a third would pass 100.
        let line = format!("{:<39}\n", format!("{{\"id\":\"{index}\"}}"));
        sink.write(line.as_bytes()).unwrap();
    }
    assert_eq!(ids(&path), ["8"]);
    assert_eq!(ids(&folder.path().join("incidents.jsonl.1")), ["6", "7"]);
    assert_eq!(ids(&folder.path().join("incidents.jsonl.2")), ["4", "5"]);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 3);
}

#[test]
fn keeping_none_starts_the_file_anew() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("incidents.jsonl");
    let mut sink = FileSink::new(path.clone(), 20, 0);
    for id in ["a", "b"] {
        sink.write(format!("{{\"id\":\"{id}\"}}\n").as_bytes()).unwrap();
    }
    assert_eq!(ids(&path), ["b"]);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn a_file_renamed_away_by_others_is_opened_anew() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("incidents.jsonl");
    let moved = folder.path().join("moved");
    let mut sink = FileSink::new(path.clone(), 1 << 20, 2);
    sink.write(b"{\"id\":\"a\"}\n").unwrap();
    fs::rename(&path, &moved).unwrap();
    sink.write(b"{\"id\":\"b\"}\n").unwrap();
    assert_eq!((ids(&moved), ids(&path)), (vec!["a".to_owned()], vec!["b".to_owned()]));
}

#[test]
fn a_torn_last_line_is_ended_before_the_next_one() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("incidents.jsonl");
    fs::write(&path, "{\"id\":\"to").unwrap();
    FileSink::new(path.clone(), 1 << 20, 2).write(b"{\"id\":\"b\"}\n").unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), "{\"id\":\"to\n{\"id\":\"b\"}\n");
}

#[test]
fn links_and_devices_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("incidents.jsonl");
    std::os::unix::fs::symlink(folder.path().join("elsewhere"), &path).unwrap();
    let error = FileSink::new(path, 1 << 20, 2).write(b"x\n").unwrap_err();
    assert!(error.to_string().contains("incidents.jsonl"), "{error}");
    let error = FileSink::new("/dev/null".into(), 1 << 20, 2).write(b"x\n").unwrap_err();
    assert_eq!(error.to_string(), "/dev/null: not a regular file");
}

/// A small file system that is gone at the end of the test.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn mount() -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=64k", "tmpfs"])
            .arg(folder.path())
            .output();
        match mounted {
            Ok(output) if output.status.success() => Some(Self(folder)),
            other => {
                println!("skipped: mounting a small tmpfs needs root: {other:?}");
                None
            }
        }
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(self.0.path()).status();
    }
}

#[test]
fn a_full_disk_leaves_whole_lines_and_recovers() {
    let Some(disk) = SmallDisk::mount() else { return };
    let path = disk.0.path().join("incidents.jsonl");
    let (outputs, metrics) = start(vec![Box::new(FileSink::new(path.clone(), 1 << 20, 0))], 64);
    fs::write(disk.0.path().join("ballast"), vec![0; 40 * 1024]).unwrap();
    for index in 0..20 {
        send(&outputs.incidents(), &index.to_string(), "x".repeat(3000));
    }
    let errors = metrics.sink_errors.with_label_values(&["file"]);
    wait_for("the disk to be full", || (errors.get() >= 2, errors.get()));
    let before = ids(&path).len();
    assert!(before < 20, "{before} lines on a full disk");
    assert!(outputs.incidents().pending() > 0);
    fs::remove_file(disk.0.path().join("ballast")).unwrap();
    // 20 incidents of 3 KB do not fit into 64 KiB with the rest; all but the last few do.
    wait_for("the disk to take more", || {
        let lines = ids(&path).len();
        (lines > before, lines)
    });
    assert_eq!(metrics.sink_dropped.with_label_values(&["file"]).get(), 0);
}
