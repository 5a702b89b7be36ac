//! The questions about probes and programs that only bpf(2) answers: the only `unsafe` of the
//! verifier but for `maps/query.rs`.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use super::super::super::bytes::{index, printable, u32_at};

/// `enum bpf_cmd` (include/uapi/linux/bpf.h).
const PROG_GET_FD_BY_ID: libc::c_int = 13;
const OBJ_GET_INFO_BY_FD: libc::c_int = 15;
const TASK_FD_QUERY: libc::c_int = 20;
const LINK_GET_FD_BY_ID: libc::c_int = 30;
const LINK_GET_NEXT_ID: libc::c_int = 31;
/// `enum bpf_link_type`, `enum bpf_perf_event_type`, `enum bpf_task_fd_type`.
const LINK_PERF_EVENT: u32 = 7;
const LINK_UPROBE_MULTI: u32 = 12;
const PERF_UPROBES: [u32; 2] = [1, 2];
const TASK_UPROBES: [u32; 2] = [4, 5];
/// Paths are cut here, as in the kernel.
const PATH_MAX: usize = 4096;
/// Offsets of one link asked for.
const OFFSETS_MAX: usize = 4096;

/// Probes of one link, all in one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Uprobes {
    pub(super) path: String,
    pub(super) offsets: Vec<u64>,
}

/// Words of `struct bpf_prog_info` up to where it tells what a program is for (6.0).
const PROGRAM_WORDS: usize = 29;

/// `union bpf_attr`, and a structure that the kernel fills in: words, all zero at first.
type Words = [u64; 16];

/// The link with the next number; none after the last one. Needs `CAP_SYS_ADMIN`.
pub(super) fn next_link(id: u32) -> io::Result<Option<u32>> {
    let mut attr: Words = [0; 16];
    attr[0] = u64::from(id);
    match call(LINK_GET_NEXT_ID, &mut attr) {
        Ok(_) => Ok(Some(high(attr[0]))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Where the probes of a link are (kernel 6.6, several at once: 6.8); none if it is of another kind.
pub(super) fn link_probes(id: u32) -> io::Result<Option<Uprobes>> {
    let mut attr: Words = [0; 16];
    attr[0] = u64::from(id);
    let link = descriptor(call(LINK_GET_FD_BY_ID, &mut attr)?)?;
    let mut info: Words = [0; 16];
    info_of(&link, &mut info)?;
    let (mut path, mut offsets) = (vec![0_u8; PATH_MAX], vec![0_u64; OFFSETS_MAX]);
    let kind = low(info[0]);
    let mut ask: Words = [0; 16];
    match kind {
        LINK_PERF_EVENT if PERF_UPROBES.contains(&low(info[2])) => {
            (ask[3], ask[4]) = (address(&mut path)?, PATH_MAX as u64);
            info_of(&link, &mut ask)?;
            offsets = vec![u64::from(high(ask[4]))];
        }
        LINK_UPROBE_MULTI => {
            (ask[2], ask[3]) = (address(&mut path)?, address(&mut offsets)?);
            ask[6] = PATH_MAX as u64 | (OFFSETS_MAX as u64) << 32;
            info_of(&link, &mut ask)?;
            offsets.truncate(index(high(ask[6])));
        }
        _ => return Ok(None),
    }
    Ok(Some(Uprobes { path: text(&path), offsets }))
}

/// The probe behind a process's perf event; none if it is another kind of event.
pub(super) fn task_probe(pid: u32, fd: u32) -> io::Result<Option<(String, u64)>> {
    let mut path = vec![0_u8; PATH_MAX];
    let mut attr: Words = [0; 16];
    attr[0] = u64::from(pid) | u64::from(fd) << 32;
    attr[1] = (PATH_MAX as u64) << 32;
    attr[2] = address(&mut path)?;
    call(TASK_FD_QUERY, &mut attr)?;
    // prog_id, fd_type, probe_offset.
    let found = TASK_UPROBES.contains(&high(attr[3]));
    Ok(found.then(|| (text(&path), attr[4])))
}

/// The kernel function that a program of type tracing or LSM is loaded for: numbers of the type
/// information and of the function's type in it. None for others, and before 6.0.
pub(crate) fn program_target(id: u32) -> io::Result<Option<(u32, u32)>> {
    let mut attr: Words = [0; 16];
    attr[0] = u64::from(id);
    let program = descriptor(call(PROG_GET_FD_BY_ID, &mut attr)?)?;
    let mut info = [0_u64; PROGRAM_WORDS];
    info_of(&program, &mut info)?;
    // attach_btf_obj_id at byte 220, attach_btf_id at byte 224.
    let found = (high(info[27]), low(info[28]));
    Ok(Some(found).filter(|(_, function)| *function != 0))
}

fn info_of(link: &OwnedFd, info: &mut [u64]) -> io::Result<()> {
    let mut attr: Words = [0; 16];
    let fd = u32::try_from(link.as_raw_fd()).map_err(io::Error::other)?;
    attr[0] = u64::from(fd) | (size_of_val(info) as u64) << 32;
    attr[1] = address(info)?;
    call(OBJ_GET_INFO_BY_FD, &mut attr).map(drop)
}

/// The address of a buffer that outlives the call and that the kernel may fill.
fn address<T>(buffer: &mut [T]) -> io::Result<u64> {
    u64::try_from(buffer.as_mut_ptr().expose_provenance()).map_err(io::Error::other)
}

/// Every address in `attr` is one of [`address`], with the length of its buffer beside it.
#[expect(unsafe_code, reason = "a system call without a safe wrapper")]
fn call(command: libc::c_int, attr: &mut Words) -> io::Result<libc::c_long> {
    let size = size_of::<Words>();
    // SAFETY: `attr` is as long as it says, and what it points to, too, for as long as this takes.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, attr.as_mut_ptr(), size) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

#[expect(unsafe_code, reason = "a descriptor that the kernel has just made")]
fn descriptor(result: libc::c_long) -> io::Result<OwnedFd> {
    let fd = libc::c_int::try_from(result).map_err(io::Error::other)?;
    // SAFETY: the call that succeeded gave us this descriptor, and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn low(word: u64) -> u32 {
    u32_at(&word.to_le_bytes(), 0).unwrap_or(0)
}

fn high(word: u64) -> u32 {
    u32_at(&word.to_le_bytes(), 4).unwrap_or(0)
}

fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    printable(bytes.get(..end).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_listed_or_refused() {
        // Unprivileged, the kernel refuses; privileged, the list ends.
        let mut id = 0;
        for _ in 0..10_000 {
            match next_link(id) {
                Ok(Some(next)) => {
                    assert!(next > id);
                    id = next;
                    let _ = link_probes(id);
                }
                Ok(None) => return,
                Err(error) => {
                    assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
                    return;
                }
            }
        }
    }

    #[test]
    fn a_descriptor_that_is_no_probe_is_none() {
        assert!(!matches!(task_probe(std::process::id(), 0), Ok(Some(_))));
    }
}
