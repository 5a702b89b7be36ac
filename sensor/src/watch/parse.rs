//! Events as fanotify writes them (`include/uapi/linux/fanotify.h`): total, bounds-checked.

use super::sys::{HANDLE_MAX, Object};

/// `FANOTIFY_METADATA_VERSION`.
const VERSION: u8 = 3;
/// `FAN_EVENT_METADATA_LEN`.
const HEAD: usize = 24;
const INFO_FID: u8 = 1;
const INFO_DFID_NAME: u8 = 2;
const INFO_DFID: u8 = 3;

/// One event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Event {
    /// `FAN_*` bits; several where the kernel has merged events.
    pub(super) mask: u64,
    /// Thread group id of who did it, as this PID namespace has it; 0 where it has none.
    pub(super) tgid: u32,
    /// The directory and the name in it.
    pub(super) entry: Option<(Object, Vec<u8>)>,
    /// The file itself.
    pub(super) file: Option<Object>,
}

/// What a buffer held.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Batch {
    /// In the order of the queue.
    pub(super) events: Vec<Event>,
    /// The queue was full: events are missing.
    pub(super) overflow: bool,
    /// Bytes that were not understood end the batch.
    pub(super) malformed: bool,
}

/// Reads a buffer of events.
pub(super) fn batch(mut bytes: &[u8]) -> Batch {
    let mut batch = Batch::default();
    while !bytes.is_empty() {
        let Some((event, rest)) = event(bytes) else {
            batch.malformed = true;
            break;
        };
        bytes = rest;
        if event.mask & libc::FAN_Q_OVERFLOW != 0 {
            batch.overflow = true;
        } else {
            batch.events.push(event);
        }
    }
    batch
}

fn event(bytes: &[u8]) -> Option<(Event, &[u8])> {
    let length = usize::try_from(word(bytes, 0)?).ok()?;
    let head = usize::from(u16::from_ne_bytes(bytes.get(6..8)?.try_into().ok()?));
    if *bytes.get(4)? != VERSION || head < HEAD || length < head || length > bytes.len() {
        return None;
    }
    let (whole, rest) = bytes.split_at(length);
    let mask = u64::from_ne_bytes(whole.get(8..16)?.try_into().ok()?);
    let tgid = u32::try_from(word(whole, 20)?.cast_signed()).unwrap_or(0);
    let mut event = Event { mask, tgid, entry: None, file: None };
    let mut infos = whole.get(head..)?;
    while !infos.is_empty() {
        let length = usize::from(u16::from_ne_bytes(infos.get(2..4)?.try_into().ok()?));
        let info = infos.get(..length).filter(|_| length >= 4)?;
        match *info.first()? {
            INFO_FID => event.file = Some(object(info)?.0),
            INFO_DFID_NAME => {
                let (object, name) = object(info)?;
                let end = name.iter().position(|byte| *byte == 0).unwrap_or(name.len());
                event.entry = Some((object, name.get(..end)?.to_vec()));
            }
            INFO_DFID => event.entry = Some((object(info)?.0, Vec::new())),
            _ => {}
        }
        infos = infos.get(length..)?;
    }
    Some((event, rest))
}

/// The handle of an information record, and what follows it.
fn object(info: &[u8]) -> Option<(Object, &[u8])> {
    let fsid = u64::from(word(info, 4)?) | u64::from(word(info, 8)?) << 32;
    let length = usize::try_from(word(info, 12)?).ok().filter(|length| *length <= HANDLE_MAX)?;
    let kind = word(info, 16)?.cast_signed();
    let handle = info.get(20..20 + length)?.into();
    Some((Object { fsid, kind, handle }, info.get(20 + length..)?))
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn info(kind: u8, handle: &[u8], name: &[u8]) -> Vec<u8> {
        let length = u16::try_from(20 + handle.len() + name.len()).unwrap();
        let mut bytes = vec![kind, 0];
        bytes.extend(length.to_ne_bytes());
        bytes.extend([1, 0, 0, 0, 2, 0, 0, 0]);
        bytes.extend(u32::try_from(handle.len()).unwrap().to_ne_bytes());
        bytes.extend(7_i32.to_ne_bytes());
        bytes.extend(handle);
        bytes.extend(name);
        bytes
    }

    fn record(mask: u64, pid: i32, infos: &[Vec<u8>]) -> Vec<u8> {
        let infos = infos.concat();
        let mut bytes = u32::try_from(HEAD + infos.len()).unwrap().to_ne_bytes().to_vec();
        bytes.extend([VERSION, 0, 24, 0]);
        bytes.extend(mask.to_ne_bytes());
        bytes.extend((-1_i32).to_ne_bytes());
        bytes.extend(pid.to_ne_bytes());
        bytes.extend(infos);
        bytes
    }

    fn named(handle: &[u8]) -> Object {
        Object { fsid: 1 | 2 << 32, kind: 7, handle: handle.into() }
    }

    #[test]
    fn a_directory_entry_and_a_file_are_told_apart() {
        let created = record(libc::FAN_CREATE, 42, &[info(2, b"dir.", b"ld.so.preload\0\0\0")]);
        let written =
            record(libc::FAN_MODIFY, 43, &[info(2, b"dir.", b"x\0\0\0"), info(1, b"file", b"")]);
        let batch = batch(&[created, written].concat());
        assert!(!batch.malformed && !batch.overflow);
        let [created, written] = batch.events.as_slice() else { panic!("{batch:?}") };
        assert_eq!(created.entry, Some((named(b"dir."), b"ld.so.preload".to_vec())));
        assert_eq!((created.tgid, created.file.clone()), (42, None));
        assert_eq!((written.mask, written.file.clone()), (libc::FAN_MODIFY, Some(named(b"file"))));
    }

    #[test]
    fn an_overflow_is_no_event() {
        let batch = batch(&record(libc::FAN_Q_OVERFLOW, -1, &[]));
        assert_eq!(batch, Batch { overflow: true, ..Batch::default() });
    }

    #[test]
    fn information_of_an_unknown_kind_is_passed_over() {
        let events = batch(&record(
            libc::FAN_DELETE,
            1,
            &[info(99, b"abcd", b""), info(2, b"dir.", b"a\0")],
        ));
        assert_eq!(events.events[0].entry, Some((named(b"dir."), b"a".to_vec())));
    }

    #[test]
    fn lengths_that_lie_end_the_batch() {
        let good = record(libc::FAN_CREATE, 1, &[info(2, b"dir.", b"a\0")]);
        for (at, byte) in [(0, 5), (0, 0xff), (4, 2), (6, 8), (26, 3), (26, 0xff), (36, 0xff)] {
            let mut bad = good.clone();
            bad[at] = byte;
            assert!(batch(&bad).malformed, "byte {at} = {byte}");
        }
        assert!(batch(&good[..good.len() - 1]).malformed);
    }

    proptest! {
        #[test]
        fn any_bytes_parse_without_panic(bytes: Vec<u8>) {
            let _ = batch(&bytes);
        }

        #[test]
        fn a_damaged_event_parses_without_panic(at in 0_usize..60, byte: u8) {
            let mut bytes = record(libc::FAN_CREATE, 1, &[info(2, b"dir.", b"a\0"), info(1, b"", b"")]);
            let at = at % bytes.len();
            bytes[at] = byte;
            let _ = batch(&bytes);
        }
    }
}
