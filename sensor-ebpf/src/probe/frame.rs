//! Frames between sshd's monitor and its unprivileged child.
//!
//! A frame is two `write` calls on a Unix stream socket: five header bytes (u32 length of what
//! follows, u8 type; OpenSSH monitor_wrap.c `mm_request_send`), then the payload. Payloads carry
//! plaintext passwords in some types, so the rule is: of a payload nothing is read unless its type
//! is on the whitelist, and of those only the first word, the user name, or the name of a key's type.

use aya_ebpf::macros::{fentry, kprobe, raw_tracepoint, tracepoint};
use aya_ebpf::programs::{FEntryContext, ProbeContext, RawTracePointContext, TracePointContext};
use sensor_common::record::{FRAME_KEY_ALLOWED, Frame, NO_VERDICT, USER_MAX};
use sensor_common::{Counter, Role};

use super::{current_tgid, finish, role_of};
use crate::emit::{begin, count, ring_for};
use crate::globals::offset;
use crate::kernel::KernelPtr;
use crate::kernel::file::File;
use crate::kernel::sock::Sock;
use crate::kernel::task::Task;
use crate::maps::FRAMES;
use crate::regs::{Syscall, number};
use crate::state::{FrameKey, FrameState};
use crate::user::UserPtr;

const HEADER: u64 = 5;
/// monitor_wrap.c `mm_request_receive` refuses more.
const FRAME_MAX: u32 = 256 * 1024;

/// MONITOR_REQ_PWNAM: the user name. (monitor.h `enum monitor_reqtype`, 9.2 to 10.2.)
const PWNAM: u32 = 8;
/// MONITOR_REQ_KEYALLOWED: whose key is looked up, and its type.
const KEY_ALLOWED: u32 = FRAME_KEY_ALLOWED as u32;
/// `enum mm_keytype` (monitor_wrap.h): MM_HOSTKEY, MM_USERKEY.
const KEYS: [u32; 2] = [1, 2];
/// Answers, whose first word is the verdict: AUTHPASSWORD, KEYALLOWED, KEYVERIFY, GSSUSEROK,
/// PAM_ACCOUNT, PAM_QUERY, PAM_RESPOND. (Of the last that is all there is; the request before it, 108,
/// holds what the user typed. What follows the word of PAM_QUERY, PAM's own texts, is not read.)
const ANSWERS: [u32; 7] = [13, 23, 25, 47, 103, 107, 109];

/// TP_PROTO(struct sock *sk, int ret, int flags), include/trace/events/sock.h, 6.3 to 7.0. Runs in
/// the sender, once the bytes are sent.
#[raw_tracepoint(tracepoint = "sock_send_length")]
pub fn frame_sent(ctx: RawTracePointContext) -> i32 {
    finish(try_send(ctx.arg(0), || ctx.arg::<u64>(1) as u32 as i32))
}

/// int security_socket_sendmsg(struct socket *sock, struct msghdr *msg, int size),
/// security/security.c, 5.10 to 7.0.
#[fentry(function = "security_socket_sendmsg")]
pub fn frame_fentry(ctx: FEntryContext) -> i32 {
    finish(try_socket(ctx.arg(0), ctx.arg::<u64>(2) as u32 as i32))
}

/// As above.
#[kprobe]
pub fn frame_kprobe(ctx: ProbeContext) -> u32 {
    let size = ctx.arg::<u64>(2).unwrap_or(0) as u32 as i32;
    finish(try_socket(ctx.arg(0).unwrap_or(0), size)) as u32
}

/// Entry of `write`.
#[tracepoint]
pub fn frame_tracepoint(_ctx: TracePointContext) -> u32 {
    finish(try_write()) as u32
}

#[inline(always)]
fn try_socket(socket: u64, size: i32) -> Option<()> {
    if !is_of_interest() {
        return Some(());
    }
    let sock = KernelPtr::new(socket)?.follow(offset!(socket_sk))?;
    sent(sock.into(), size)
}

#[inline(always)]
fn try_send(sock: u64, size: impl FnOnce() -> i32) -> Option<()> {
    if !is_of_interest() {
        return Some(());
    }
    sent(Sock::new(sock)?, size())
}

#[inline(always)]
fn try_write() -> Option<()> {
    if !is_of_interest() {
        return Some(());
    }
    let call = Syscall::current()?;
    // Not a socket, or closed meanwhile.
    let Some(sock) = Task::current()?.file(call.arg::<0>()?).and_then(File::sock) else {
        return Some(());
    };
    sent(sock, call.arg::<2>()? as i32)
}

#[inline(always)]
fn is_of_interest() -> bool {
    role_of(current_tgid()).contains(Role::SSHD)
}

/// The current task, of an sshd, sends `size` bytes on `sock`.
#[inline(always)]
fn sent(sock: Sock, size: i32) -> Option<()> {
    if size <= 0 || !sock.is_unix() {
        return Some(());
    }
    let call = Syscall::current()?;
    if call.number()? != number::WRITE || call.is_compat() {
        return Some(());
    }
    let key = FrameKey { tgid: current_tgid(), fd: call.arg::<0>()? as u32 };
    let buffer = UserPtr(call.arg::<1>()?);
    match FRAMES.get_ptr_mut(key) {
        Some(state) => payload(key, crate::maps::frame(state), buffer, size as u32),
        None if size as u64 == HEADER => header(key, buffer),
        None => Some(()),
    }
}

#[inline(always)]
fn header(key: FrameKey, buffer: UserPtr) -> Option<()> {
    let len = u32::from_be(buffer.read()?);
    let frame_type = u32::from(buffer.offset(4).read::<u8>()?);
    if len == 0 || len > FRAME_MAX {
        return Some(());
    }
    if len > 1 {
        // Also where the payload is not to be read: it must not be taken for a header.
        let state = FrameState { frame_len: len, remaining: len - 1, frame_type, reserved: 0 };
        if FRAMES.insert(key, state, 0).is_err() {
            count(Counter::StateFull);
        }
    }
    if len > 1 && is_whitelisted(frame_type) {
        return Some(());
    }
    tell(len, frame_type, None)
}

#[inline(always)]
fn payload(key: FrameKey, state: &mut FrameState, buffer: UserPtr, size: u32) -> Option<()> {
    let FrameState { frame_len, remaining, frame_type, .. } = *state;
    let is_first = remaining == frame_len.wrapping_sub(1);
    if size >= remaining {
        // Evicted already is as good.
        let _ = FRAMES.remove(key);
    } else {
        state.remaining = remaining - size;
    }
    if is_first && is_whitelisted(frame_type) {
        return tell(frame_len, frame_type, Some((buffer, size)));
    }
    Some(())
}

#[inline(always)]
fn is_whitelisted(frame_type: u32) -> bool {
    frame_type == PWNAM || frame_type == KEY_ALLOWED || ANSWERS.contains(&frame_type)
}

/// `payload`: where and how long, of a whitelisted type.
#[inline(always)]
fn tell(frame_len: u32, frame_type: u32, payload: Option<(UserPtr, u32)>) -> Option<()> {
    let task = Task::current()?;
    let role = role_of(current_tgid());
    let Some(mut record) = begin::<Frame>(ring_for(role), role) else { return Some(()) };
    record.frame_len = frame_len;
    record.frame_type = frame_type as u8;
    record.verdict = NO_VERDICT;
    record.usage = task.usage().unwrap_or_default();
    record.euid = task.euid().unwrap_or(u32::MAX);
    if let Some((buffer, size)) = payload
        && size >= 4
    {
        // A word that could not be read is no zero, which some answers accept with.
        let word = buffer.read().map(u32::from_be);
        let is_key = frame_type == KEY_ALLOWED && word.is_some_and(|word| KEYS.contains(&word));
        let text = match word {
            Some(len) if frame_type == PWNAM => Some((buffer.offset(4), len.min(size - 4))),
            _ if is_key => key_type(buffer, size),
            _ => None,
        };
        if let Some((from, len)) = text {
            record.text_len = copy(&mut record.text, from, len);
        }
        if let Some(word) = word
            && (is_key || (frame_type != PWNAM && frame_type != KEY_ALLOWED))
        {
            record.verdict = word;
            record.has_verdict = 1;
        }
    }
    record.submit();
    Some(())
}

/// Where a look-up has the name of its key's type, and how long that is. `mm_key_allowed`
/// (monitor_wrap.c, 8.4 to 10.2) writes u32 `mm_keytype`, strings user and host, and the key as a
/// string, which begins with that name as a string (sshkey.c `to_blob_buf`). None where it would lie
/// beyond what was written.
#[inline(always)]
fn key_type(payload: UserPtr, size: u32) -> Option<(UserPtr, u32)> {
    let size = u64::from(size);
    let user = 4;
    let host = user + 4 + length(payload, user, size)?;
    let key = host + 4 + length(payload, host, size)?;
    let name = key + 4;
    let len = length(payload, name, size)?;
    (name + 4 + len <= size).then_some((payload.offset(name + 4), len as u32))
}

/// Of the string that lies `at` bytes into a payload of `size`.
#[inline(always)]
fn length(payload: UserPtr, at: u64, size: u64) -> Option<u64> {
    if at + 4 > size {
        return None;
    }
    payload.offset(at).read().map(|len| u64::from(u32::from_be(len)))
}

/// Copies at most what there is room for, and returns the bytes copied.
#[inline(always)]
fn copy(into: &mut [u8; USER_MAX], from: UserPtr, len: u32) -> u8 {
    let len = crate::user::at_most::<USER_MAX>(u64::from(len));
    let copied = into.get_mut(..len).and_then(|room| from.read_bytes(room));
    if copied.is_some() { len as u8 } else { 0 }
}
