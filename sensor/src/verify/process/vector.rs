//! Memory of another process in many pieces by one system call: `unsafe` for that call only.

use std::io;
use std::ops::Range;
use std::ptr;

use super::super::bytes::index;

/// `UIO_MAXIOV` (include/uapi/linux/uio.h).
const PIECES_MAX: usize = 1024;

/// Reads pieces of the memory of `pid`, one after the other into `buf`, which they fill; all of it
/// or an error (`process_vm_readv(2)`).
pub(super) fn read(pid: u32, pieces: &[Range<u64>], buf: &mut [u8]) -> io::Result<()> {
    let pid = libc::pid_t::try_from(pid).map_err(|_| io::ErrorKind::InvalidInput)?;
    let mut rest = buf;
    for some in pieces.chunks(PIECES_MAX) {
        let remote = some.iter().map(remote).collect::<io::Result<Vec<_>>>()?;
        let bytes = remote.iter().map(|piece| piece.iov_len).sum();
        let (now, later) = rest.split_at_mut_checked(bytes).ok_or(io::ErrorKind::InvalidInput)?;
        rest = later;
        read_some(pid, now, &remote)?;
    }
    if rest.is_empty() { Ok(()) } else { Err(io::ErrorKind::InvalidInput.into()) }
}

fn remote(piece: &Range<u64>) -> io::Result<libc::iovec> {
    let start = usize::try_from(piece.start).map_err(|_| io::ErrorKind::InvalidInput)?;
    let iov_len = index(piece.end.saturating_sub(piece.start));
    Ok(libc::iovec { iov_base: ptr::without_provenance_mut(start), iov_len })
}

#[expect(unsafe_code, reason = "neither std nor rustix has this call")]
fn read_some(pid: libc::pid_t, buf: &mut [u8], remote: &[libc::iovec]) -> io::Result<()> {
    let local = libc::iovec { iov_base: buf.as_mut_ptr().cast(), iov_len: buf.len() };
    let count = libc::c_ulong::try_from(remote.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    // SAFETY: `local` is one piece, all of `buf`, which nobody else uses meanwhile; `remote` are
    // `count` pieces of another address space, which the kernel checks.
    let read =
        unsafe { libc::process_vm_readv(pid, &raw const local, 1, remote.as_ptr(), count, 0) };
    match usize::try_from(read) {
        Ok(read) if read == buf.len() => Ok(()),
        // It stops at the first page that is not there.
        Ok(_) => Err(io::ErrorKind::UnexpectedEof.into()),
        Err(_) => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_come_in_their_order_and_all_or_nothing() {
        let memory: Vec<u8> = (0..=255).cycle().take(100_000).collect();
        let at = memory.as_ptr().addr() as u64;
        let me = std::process::id();
        // More than one call takes.
        let pieces: Vec<_> = (0..3000).rev().map(|n| at + n * 30..at + n * 30 + 7).collect();
        let mut buf = vec![0; 3000 * 7];
        read(me, &pieces, &mut buf).unwrap();
        let wanted: Vec<u8> =
            (0..3000).rev().flat_map(|n| memory[n * 30..n * 30 + 7].to_vec()).collect();
        assert_eq!(buf, wanted);
        assert!(read(me, &pieces, &mut vec![0; 3000 * 7 + 1]).is_err());
        assert!(read(me, &pieces, &mut vec![0; 3000 * 7 - 1]).is_err());
        assert!(read(me, &[at..at + 8, 0..8], &mut [0; 16]).is_err());
        assert!(read(u32::MAX, &pieces[..1], &mut [0; 7]).is_err());
    }
}
