//! Frames between sshd's monitor and its unprivileged child: method, user and verdict of a login,
//! whatever sshd logs.
//!
//! `mm_request_send` (OpenSSH monitor_wrap.c, 8.4 to 10.x) writes each frame in two steps to a
//! socket pair: five header bytes (u32 length, type included, big endian; u8 type), then the
//! payload. **Payloads of other types than those of [`verdict_at_start`] and [`PWNAM`] are never
//! read: types 12 and 108 and the PAM child's type 6 carry plaintext passwords.**

use aya_ebpf::macros::{fentry, kprobe, raw_tracepoint, tracepoint};
use aya_ebpf::programs::{FEntryContext, ProbeContext, RawTracePointContext, TracePointContext};
use sensor_common::record::{Frame, NO_VERDICT, USER_MAX};
use sensor_common::{Counter, Ring, Role};

use super::{current_tgid, finish, role_of};
use crate::emit::{self, begin};
use crate::globals::offset;
use crate::kernel::KernelPtr;
use crate::kernel::sock::Sock;
use crate::kernel::task::Task;
use crate::maps::FRAMES;
use crate::regs::{Syscall, number};
use crate::state::{FrameKey, FrameState};
use crate::user::UserPtr;

/// Bytes of a frame's header.
const HEADER: u32 = 5;
/// sshd refuses longer frames (`mm_request_receive`, monitor_wrap.c).
const FRAME_MAX: u32 = 256 * 1024;
/// `MONITOR_REQ_PWNAM` (monitor.h): the payload starts with the user name.
const PWNAM: u8 = 8;

/// Types whose payload starts with the verdict (monitor.h): `MONITOR_ANS_AUTHPASSWORD`,
/// `MONITOR_ANS_KEYALLOWED`, `MONITOR_ANS_KEYVERIFY`, `MONITOR_ANS_PAM_ACCOUNT`.
#[inline(always)]
fn verdict_at_start(frame_type: u8) -> bool {
    matches!(frame_type, 13 | 23 | 25 | 103)
}

/// TP_PROTO(struct sock *sk, int ret, int flags), include/trace/events/sock.h, 6.3 to 7.0. Runs in
/// the sender after every send on any socket; `ret` is what `write` will return.
#[raw_tracepoint(tracepoint = "sock_send_length")]
pub fn frame_sent(ctx: RawTracePointContext) -> i32 {
    let sent = ctx.arg::<i32>(1);
    if sent <= 0 {
        return 0;
    }
    finish(try_send(Sock::new(ctx.arg(0)), sent as u32))
}

/// `int security_socket_sendmsg(struct socket *sock, struct msghdr *msg, int size)`,
/// security/security.c, 5.10 to 7.0. Runs before the send.
#[fentry(function = "security_socket_sendmsg")]
pub fn frame_sending(ctx: FEntryContext) -> i32 {
    finish(try_send(socket(ctx.arg(0)), ctx.arg::<i32>(2) as u32))
}

/// As [`frame_sending`], where trampolines are refused.
#[kprobe(function = "security_socket_sendmsg")]
pub fn frame_sending_kprobe(ctx: ProbeContext) -> u32 {
    let sock = ctx.arg(0).and_then(socket);
    finish(try_send(sock, ctx.arg::<u32>(2).unwrap_or(0))) as u32
}

/// Every `write` on the host: the last resort.
#[tracepoint(category = "syscalls", name = "sys_enter_write")]
pub fn frame_write(_ctx: TracePointContext) -> u32 {
    let tgid = current_tgid();
    let role = role_of(tgid);
    if !role.contains(Role::SSHD) {
        return 0;
    }
    finish(try_call(tgid, role, None)) as u32
}

/// The `struct sock` of a `struct socket *`.
#[inline(always)]
fn socket(address: u64) -> Option<Sock> {
    KernelPtr::new(address)?.follow(offset!(socket_sk)).map(Sock::from)
}

/// `sent`: bytes of this send. The monitor's socket pair is of the UNIX family.
#[inline(always)]
fn try_send(sock: Option<Sock>, sent: u32) -> Option<()> {
    let tgid = current_tgid();
    let role = role_of(tgid);
    if !role.contains(Role::SSHD) || !sock.is_some_and(Sock::is_unix) {
        return Some(());
    }
    try_call(tgid, role, Some(sent))
}

#[inline(always)]
fn try_call(tgid: u32, role: Role, sent: Option<u32>) -> Option<()> {
    let call = Syscall::current()?;
    if call.is_compat() || call.number()? != number::WRITE {
        return Some(());
    }
    let key = FrameKey { tgid, fd: call.arg::<0>()? as u32 };
    let buffer = UserPtr(call.arg::<1>()?);
    let asked = call.arg::<2>()?.min(u64::from(u32::MAX)) as u32;
    let written = sent.unwrap_or(asked);
    // SAFETY: plain integers, written by this process alone; a torn read gives a wrong count.
    match unsafe { FRAMES.get(key) }.copied() {
        Some(pending) => try_payload(key, role, pending, buffer, written),
        None if written == HEADER && asked == HEADER => try_header(key, role, buffer),
        None => Some(()),
    }
}

#[inline(always)]
fn try_header(key: FrameKey, role: Role, buffer: UserPtr) -> Option<()> {
    let header: [u8; HEADER as usize] = buffer.read()?;
    let frame_len = u32::from_be_bytes([header[0], header[1], header[2], header[3]]);
    if frame_len == 0 || frame_len > FRAME_MAX {
        return Some(());
    }
    let frame_type = header[4];
    let remaining = frame_len - 1;
    if remaining != 0 {
        let state =
            FrameState { frame_len, remaining, frame_type: u32::from(frame_type), reserved: 0 };
        if FRAMES.insert(key, state, 0).is_err() {
            emit::count(Counter::StateFull);
        }
        if frame_type == PWNAM || verdict_at_start(frame_type) {
            // Told with its payload.
            return Some(());
        }
    }
    send(role, frame_type, frame_len, None)
}

#[inline(always)]
fn try_payload(
    key: FrameKey,
    role: Role,
    pending: FrameState,
    buffer: UserPtr,
    written: u32,
) -> Option<()> {
    let remaining = pending.remaining.saturating_sub(written);
    if remaining == 0 {
        // Gone already is as good.
        let _ = FRAMES.remove(key);
    } else if FRAMES.insert(key, FrameState { remaining, ..pending }, 0).is_err() {
        emit::count(Counter::StateFull);
    }
    let first = pending.remaining == pending.frame_len - 1;
    let frame_type = pending.frame_type as u8;
    if !first || !(frame_type == PWNAM || verdict_at_start(frame_type)) {
        return Some(());
    }
    send(role, frame_type, pending.frame_len, (written >= 4).then_some(buffer))
}

/// `payload`: where at least four bytes of a whitelisted type's payload lie.
#[inline(always)]
fn send(role: Role, frame_type: u8, frame_len: u32, payload: Option<UserPtr>) -> Option<()> {
    let Some(mut record) = begin::<Frame>(Ring::Priority, role) else { return Some(()) };
    record.frame_len = frame_len;
    record.frame_type = frame_type;
    record.verdict = NO_VERDICT;
    let read = fill(&mut record, payload);
    record.submit();
    read
}

#[inline(always)]
fn fill(record: &mut Frame, payload: Option<UserPtr>) -> Option<()> {
    let task = Task::current()?;
    record.euid = task.euid()?;
    record.usage = task.usage()?;
    let Some(payload) = payload else { return Some(()) };
    let first = u32::from_be_bytes(payload.read()?);
    if record.frame_type != PWNAM {
        record.verdict = first;
        return Some(());
    }
    // The length of a string inside the frame; longer names are cut.
    let inside = record.frame_len.saturating_sub(HEADER).min(first);
    let len = if inside > USER_MAX as u32 { USER_MAX as u32 } else { inside };
    if len == 0 {
        return Some(());
    }
    payload.offset(4).read_bytes(record.user.get_mut(..len as usize)?)?;
    record.user_len = len as u8;
    Some(())
}
