//! How many calls of a kernel function its fprobes are, and so the links and definitions that hook many
//! functions: it differs between kernels, and none says it but by the functions that it has.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _};
use std::sync::LazyLock;

/// The kernel's symbols; names are told to everybody, addresses are not needed.
const SYMBOLS: &str = "/proc/kallsyms";
/// Bytes read of them: a few hundred thousand, of up to 512 bytes each, but most of thirty.
const SYMBOLS_MAX: u64 = 64 << 20;
/// Bytes of one line.
const LINE_MAX: u64 = 1024;

/// See the head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fprobes {
    /// Each is one (kernel/trace/fprobe.c, before 6.14).
    Each,
    /// All are one (6.14, `fprobe_graph_ops`).
    Shared,
    /// Those that are called on the return are one; those that are not, another (6.19,
    /// `fprobe_ftrace_ops`).
    Split,
}

static OF_KERNEL: LazyLock<Fprobes> = LazyLock::new(|| {
    File::open(SYMBOLS)
        .map_or(Fprobes::Each, |file| Fprobes::by_symbols(BufReader::new(file.take(SYMBOLS_MAX))))
});

// === impl Fprobes ===

impl Fprobes {
    /// Those of this kernel, found out once. Where that cannot be told, as many calls as there can be.
    pub(super) fn of_kernel() -> Self {
        *OF_KERNEL
    }

    /// `ADDRESS KIND NAME` and `[MODULE]` where a module has it (kernel/kallsyms.c `s_show`).
    fn by_symbols(mut symbols: impl std::io::BufRead) -> Self {
        let (mut line, mut found) = (Vec::new(), Self::Each);
        loop {
            line.clear();
            match symbols.by_ref().take(LINE_MAX).read_until(b'\n', &mut line) {
                Ok(0) | Err(_) => return found,
                Ok(_) => {}
            }
            let mut words = line.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
            match (words.nth(2), words.next()) {
                (Some(b"fprobe_ftrace_entry"), None) => return Self::Split,
                // Until then `fprobe_exit_handler`.
                (Some(b"fprobe_return"), None) => found = Self::Shared,
                _ => {}
            }
        }
    }

    /// What the kernel counts of so many.
    pub(super) fn calls(self, on_entry: usize, on_return: usize) -> usize {
        match self {
            Self::Each => on_entry + on_return,
            Self::Shared => (on_entry + on_return).min(1),
            Self::Split => on_entry.min(1) + on_return.min(1),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const OLD: &str = "0 T _text\n0 t fprobe_handler\n0 t fprobe_exit_handler\n";

    fn of(text: &str) -> Fprobes {
        Fprobes::by_symbols(text.as_bytes())
    }

    #[test]
    fn a_kernel_is_known_by_its_own_functions() {
        assert_eq!((of(""), of(OLD)), (Fprobes::Each, Fprobes::Each));
        let graph = format!("{OLD}ffffffff81 t fprobe_return\n0 T x\n");
        assert_eq!(of(&graph), Fprobes::Shared);
        assert_eq!(of(&format!("{graph}0 t fprobe_ftrace_entry")), Fprobes::Split);
        assert_eq!(of("0 t fprobe_ftrace_entry\t[mine]\n"), Fprobes::Each, "a module's");
    }

    #[test]
    fn this_kernel_is_one_of_them() {
        let of_kernel = Fprobes::of_kernel();
        println!("{of_kernel:?}");
        let text = std::fs::read_to_string(SYMBOLS).unwrap_or_default();
        let has =
            |name: &str| text.lines().any(|line| line.split_whitespace().nth(2) == Some(name));
        assert_eq!(
            of_kernel == Fprobes::Each,
            !has("fprobe_return") && !has("fprobe_ftrace_entry")
        );
    }

    #[test]
    fn calls_are_as_many_as_the_kernel_counts() {
        let calls = |fprobes: Fprobes| [(0, 0), (2, 0), (2, 3)].map(|(a, b)| fprobes.calls(a, b));
        assert_eq!(calls(Fprobes::Each), [0, 2, 5]);
        assert_eq!(calls(Fprobes::Shared), [0, 1, 1]);
        assert_eq!(calls(Fprobes::Split), [0, 1, 2]);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read(bytes: Vec<u8>, text in "(0 t fprobe_return|\t\\[m\\]|.|\n){0,50}") {
            Fprobes::by_symbols(&bytes[..]);
            of(&text);
        }
    }
}
