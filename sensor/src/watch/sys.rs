//! The system calls of fanotify and of file handles: the only `unsafe` of the watch.
//!
//! Neither has a safe wrapper in the crates the sensor uses: rustix has no fanotify, and others
//! know nothing of events that carry a directory's handle and a name (`FAN_REPORT_DFID_NAME`).

use std::ffi::{CStr, CString, c_int, c_uint};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use rustix::fs::fstatvfs;
use rustix::io::{Errno, read};

/// `MAX_HANDLE_SZ` of `include/uapi/linux/fcntl.h`, bytes.
pub(super) const HANDLE_MAX: usize = 128;
/// `AT_HANDLE_FID` of `include/uapi/linux/fcntl.h` (6.5): a handle to compare, not to open by; all
/// that overlayfs gives without `nfs_export`.
const AT_HANDLE_FID: c_int = 0x200;

/// What a directory is watched for: names that come and go.
pub(super) const DIRECTORY: u64 = libc::FAN_CREATE
    | libc::FAN_DELETE
    | libc::FAN_MOVED_FROM
    | libc::FAN_MOVED_TO
    | libc::FAN_ONDIR;
/// What a file is watched for, under whatever name it is reached. Reading it raises nothing.
pub(super) const FILE: u64 = libc::FAN_MODIFY | libc::FAN_CLOSE_WRITE | libc::FAN_ATTRIB;

/// A file as the kernel names it in events: its file system and its handle.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Object {
    /// `f_fsid`; 0 where the file system has none.
    pub(super) fsid: u64,
    /// The file system's own kind of handle.
    pub(super) kind: i32,
    /// The handle.
    pub(super) handle: Box<[u8]>,
}

/// An fanotify group: marks and a queue of events.
#[derive(Debug)]
pub(super) struct Group(OwnedFd);

/// `struct file_handle` with room for any handle.
#[repr(C)]
struct FileHandle {
    handle_bytes: c_uint,
    handle_type: c_int,
    f_handle: [u8; HANDLE_MAX],
}

// === impl Group ===

impl Group {
    /// A group whose events carry handles and names. Fails with `EPERM` without `CAP_SYS_ADMIN`,
    /// with `EINVAL` before 5.9.
    ///
    /// Its queue is bounded by the kernel (16384 events); its marks are bounded by us.
    pub(super) fn open() -> io::Result<Self> {
        let flags = libc::FAN_CLASS_NOTIF
            | libc::FAN_CLOEXEC
            | libc::FAN_NONBLOCK
            | libc::FAN_UNLIMITED_MARKS
            | libc::FAN_REPORT_FID
            | libc::FAN_REPORT_DFID_NAME;
        let event_flags = (libc::O_RDONLY | libc::O_CLOEXEC | libc::O_LARGEFILE).cast_unsigned();
        let fd = init(flags, event_flags)?;
        Ok(Self(owned(fd)))
    }

    /// Watches the inode behind a handle (`O_PATH` will do) for `mask`; adds to what it was watched
    /// for. Fails with `EOPNOTSUPP`, `ENODEV` or `EXDEV` on file systems without handles.
    pub(super) fn mark(&self, file: BorrowedFd<'_>, mask: u64) -> io::Result<()> {
        // The call refuses an `O_PATH` descriptor but follows its link.
        let path = CString::new(format!("/proc/self/fd/{}", file.as_raw_fd()))?;
        add_mark(self.0.as_raw_fd(), mask, &path)
    }

    /// Takes every mark away.
    pub(super) fn flush(&self) -> io::Result<()> {
        flush_marks(self.0.as_raw_fd())
    }

    /// Events into `buffer`; 0 bytes where none wait.
    pub(super) fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        match read(&self.0, buffer) {
            Ok(length) => Ok(length),
            Err(Errno::AGAIN | Errno::INTR) => Ok(0),
            Err(error) => Err(error.into()),
        }
    }
}

impl AsFd for Group {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

// === impl Object ===

impl Object {
    /// The name the kernel has for an open file (`O_PATH` will do).
    pub(super) fn of(file: BorrowedFd<'_>) -> io::Result<Self> {
        // Before 6.5 the flag is unknown, and not needed where handles can be had at all.
        let handle = match handle_of(file.as_raw_fd(), libc::AT_EMPTY_PATH | AT_HANDLE_FID) {
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
                handle_of(file.as_raw_fd(), libc::AT_EMPTY_PATH)?
            }
            handle => handle?,
        };
        let length = usize::try_from(handle.handle_bytes).unwrap_or(0);
        let bytes = handle.f_handle.get(..length).ok_or(io::ErrorKind::InvalidData)?;
        let fsid = fstatvfs(file)?.f_fsid;
        Ok(Self { fsid, kind: handle.handle_type, handle: bytes.into() })
    }

    /// The same without the file system: some have no `f_fsid`, and events of theirs a made-up one.
    pub(super) fn anywhere(&self) -> Self {
        Self { fsid: 0, ..self.clone() }
    }
}

fn checked(result: c_int) -> io::Result<c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

#[expect(unsafe_code, reason = "a system call without a safe wrapper")]
fn init(flags: c_uint, event_flags: c_uint) -> io::Result<RawFd> {
    // SAFETY: takes two numbers by value; gives a new descriptor or an error.
    checked(unsafe { libc::fanotify_init(flags, event_flags) })
}

#[expect(unsafe_code, reason = "a descriptor that the kernel has just made")]
fn owned(fd: RawFd) -> OwnedFd {
    // SAFETY: `init` has just got it from the kernel, and nobody else has been told of it.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

#[expect(unsafe_code, reason = "a system call without a safe wrapper")]
fn add_mark(group: RawFd, mask: u64, path: &CStr) -> io::Result<()> {
    let flags = libc::FAN_MARK_ADD | libc::FAN_MARK_INODE;
    // SAFETY: the path is a string that ends in NUL and outlives the call, which only reads it;
    // a number that is no fanotify descriptor is refused.
    let result = unsafe { libc::fanotify_mark(group, flags, mask, libc::AT_FDCWD, path.as_ptr()) };
    checked(result).map(drop)
}

#[expect(unsafe_code, reason = "a system call without a safe wrapper")]
fn flush_marks(group: RawFd) -> io::Result<()> {
    let root = c"/";
    // SAFETY: as `add_mark`; the path is a constant and not used by a flush.
    let result = unsafe {
        libc::fanotify_mark(group, libc::FAN_MARK_FLUSH, 0, libc::AT_FDCWD, root.as_ptr())
    };
    checked(result).map(drop)
}

#[expect(unsafe_code, reason = "a system call without a safe wrapper")]
fn handle_of(file: RawFd, flags: c_int) -> io::Result<FileHandle> {
    let room = c_uint::try_from(HANDLE_MAX).unwrap_or(0);
    let mut handle = FileHandle { handle_bytes: room, handle_type: 0, f_handle: [0; HANDLE_MAX] };
    let mut mount_id: c_int = 0;
    let into: *mut FileHandle = &raw mut handle;
    let empty = c"";
    // SAFETY: `handle` has the layout of `struct file_handle` followed by as much room as its first
    // field says, `mount_id` is an int, and both outlive the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_name_to_handle_at,
            file,
            empty.as_ptr(),
            into,
            &raw mut mount_id,
            flags,
        )
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(handle) }
}
