//! The table of member offsets, filled in from the kernel's type information.

use std::path::Path;
use std::{fs, io};

use sensor_common::offsets::{KernelOffsets, MEMBERS, Member, Need, UNRESOLVED};
use thiserror::Error;
use zerocopy::{FromBytes as _, IntoBytes as _};

use super::btf::{Btf, BtfError, KernelFunction, MemberError};

/// More is refused: the 6.18 kernel's is 5.5 MB.
const FILE_MAX: u64 = 256 << 20;

/// Why the table cannot be filled in.
#[derive(Debug, Error)]
pub enum OffsetsError {
    /// The file cannot be read.
    #[error("cannot read the kernel's type information {path}")]
    Read {
        /// Which file.
        path: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Larger than any kernel's.
    #[error("the kernel's type information {path} has {len} bytes, more than {FILE_MAX}")]
    Size {
        /// Which file.
        path: String,
        /// Bytes.
        len: u64,
    },
    /// The file is not what it should be.
    #[error("cannot understand the kernel's type information")]
    Btf(#[from] BtfError),
    /// A member the sensor cannot do without.
    #[error("the kernel's type information lacks {name}{hint}")]
    Required {
        /// Field of [`KernelOffsets`].
        name: &'static str,
        /// What else may explain it.
        hint: String,
        /// Why.
        #[source]
        source: MemberError,
    },
}

/// What was found.
#[derive(Debug)]
pub struct Resolved {
    /// For the kernel side.
    pub offsets: KernelOffsets,
    /// Optional members this kernel does not have, with the reason.
    pub missing: Vec<(&'static str, MemberError)>,
    /// Size of `struct pt_regs`, bytes.
    pub pt_regs_size: Option<u32>,
    /// Which argument of the tracepoint `mmap_lock_start_locking` tells whether the lock is taken
    /// for writing: the last.
    pub lock_write_arg: Option<u32>,
    /// Those of the functions asked about that exist.
    pub functions: Vec<KernelFunction>,
}

/// Resolves every member of [`MEMBERS`] and looks for `functions` in the BTF file at `path`.
///
/// The file is read once and dropped again.
pub fn resolve_file(path: &Path, functions: &[&'static str]) -> Result<Resolved, OffsetsError> {
    let name = || path.display().to_string();
    let read = |source| OffsetsError::Read { path: name(), source };
    let len = fs::metadata(path).map_err(read)?.len();
    if len > FILE_MAX {
        return Err(OffsetsError::Size { path: name(), len });
    }
    let bytes = fs::read(path).map_err(read)?;
    resolve(&bytes, functions)
}

/// The same for bytes in memory.
pub fn resolve(bytes: &[u8], functions: &[&'static str]) -> Result<Resolved, OffsetsError> {
    let btf = Btf::parse(bytes)?;
    let mut words = vec![UNRESOLVED; MEMBERS.len()];
    let mut missing = Vec::new();
    for (word, member) in words.iter_mut().zip(MEMBERS) {
        match first_of(&btf, member) {
            Ok(offset) => *word = offset,
            Err(error) if member.need == Need::Optional => missing.push((member.name, error)),
            Err(source) => {
                let hint = btf.unread().map(|unread| format!(" ({unread})")).unwrap_or_default();
                return Err(OffsetsError::Required { name: member.name, hint, source });
            }
        }
    }
    // Equal lengths are asserted beside the table.
    let offsets = KernelOffsets::read_from_bytes(words.as_bytes()).unwrap_or(KernelOffsets::NONE);
    Ok(Resolved {
        offsets,
        missing,
        pt_regs_size: btf.struct_size("pt_regs"),
        lock_write_arg: btf
            .tracepoint_arguments("mmap_lock_start_locking")
            .and_then(|arguments| arguments.checked_sub(1)),
        functions: btf.functions(functions),
    })
}

/// The first of a member's names that exists, newest first; the reason of the oldest where none
/// does.
fn first_of(btf: &Btf<'_>, member: &Member) -> Result<u32, MemberError> {
    let mut last = MemberError::BadPath { path: member.name.to_owned() };
    for path in member.paths {
        match btf.member_offset(path) {
            Ok(offset) => return Ok(offset),
            Err(error) => last = error,
        }
    }
    Err(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_running_kernel_has_every_required_member() {
        let path = Path::new(crate::kernel::BTF_PATH);
        if !path.exists() {
            println!("not tried: no {}", path.display());
            return;
        }
        let resolved =
            resolve_file(path, &["security_mmap_file", "no_such_function"]).expect("resolves");
        let names: Vec<&str> = resolved.functions.iter().map(|function| function.name).collect();
        assert_eq!(names, ["security_mmap_file"]);
        assert!(resolved.pt_regs_size.is_some_and(|size| size >= 168));
        // Two arguments since 6.14, three before; 5.10 has no such tracepoint.
        assert!(matches!(resolved.lock_write_arg, None | Some(1 | 2)));
        println!("lock_write_arg: {:?}", resolved.lock_write_arg);
        for (name, reason) in &resolved.missing {
            println!("{name}: {reason}");
        }
    }

    #[test]
    fn bytes_that_are_not_type_information_are_named_as_such() {
        let error = resolve(&[0; 64], &[]).expect_err("refused");
        assert!(matches!(error, OffsetsError::Btf(BtfError::Magic { .. })), "{error}");
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = resolve_file(Path::new("/no/such/btf"), &[]).expect_err("refused");
        assert!(error.to_string().contains("/no/such/btf"), "{error}");
    }
}
