//! Anonymous memory in the place of a page of code, in the child of `halfsecond scan --self-test`.
//!
//! Nobody can map memory in another process, so the child does it: a dozen instructions behind the
//! system call it waits in, which map one page and then wait for a signal for ever. They open
//! nothing, and what they overwrote is put back once they have run.

use std::io;

use super::mutate::{Area, Target};

/// `pause` on `x86_64`.
const PAUSE: u64 = 34;
const PAGE: u64 = 4096;

/// Puts a page of zeroes over code of the program itself; tells which, or nothing where the
/// instructions of this machine are not known.
pub(super) fn swap(target: &mut Target, areas: &[Area]) -> io::Result<Option<(String, u64)>> {
    if !cfg!(target_arch = "x86_64") {
        return Ok(None);
    }
    let place = target.place()?;
    let program = target.program.clone();
    let code = areas.iter().find(|area| {
        let own = program.canonicalize().is_ok_and(|path| path.to_str() == Some(&*area.path));
        own && area.is_code() && !area.holds(place)
    });
    // Where the program waits in its own code: a page of that which is far enough away.
    let code = code.or_else(|| {
        areas.iter().find(|area| area.is_code() && area.path.starts_with('/') && !area.holds(place))
    });
    let code = code.ok_or(io::ErrorKind::NotFound)?;
    let bytes = instructions(code.start);
    let old = target.read(place, bytes.len())?;
    target.write(place, &bytes)?;
    target.wake()?;
    Target::wait_for(|| Ok((target.call()? == Some(PAUSE)).then_some(())))?;
    target.write(place, &old)?;
    Ok(Some((code.path.clone(), code.start)))
}

/// `mmap(addr, PAGE, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0)`, then
/// `pause()` again and again.
fn instructions(addr: u64) -> Vec<u8> {
    let page = PAGE.to_le_bytes();
    [
        &[0xb8, 9, 0, 0, 0][..], // mov eax, 9
        &[0x48, 0xbf],           // mov rdi, addr
        &addr.to_le_bytes(),
        &[0xbe, page[0], page[1], page[2], page[3]], // mov esi, PAGE
        &[0xba, 5, 0, 0, 0],                         // mov edx, 5
        &[0x41, 0xba, 0x32, 0, 0, 0],                // mov r10d, 0x32
        &[0x49, 0xc7, 0xc0, 0xff, 0xff, 0xff, 0xff], // mov r8, -1
        &[0x45, 0x31, 0xc9],                         // xor r9d, r9d
        &[0x0f, 0x05],                               // syscall
        &[0xb8, 34, 0, 0, 0],                        // mov eax, 34
        &[0x0f, 0x05],                               // syscall
        &[0xeb, 0xf7],                               // jmp to the mov before
    ]
    .concat()
}
