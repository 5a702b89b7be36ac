//! Tests that failed, tried once more.
//!
//! End to end a sensor races real logins on a machine that others load. What fails there once in many
//! runs is a fault, of the test or of the sensor, and must be seen; but it must not hide whether the
//! change at hand works. So few failures are tried again alone, and what passes then is told.

/// More failures than these are no accident.
const FEW: usize = 2;

/// Names of the tests that failed, from libtest's closing list:
/// `failures:`, a name on each line behind four blanks, an empty line.
#[derive(Debug, Default)]
pub(super) struct Failures {
    listing: bool,
    names: Vec<String>,
}

// === impl Failures ===

impl Failures {
    /// Takes in one line of output. The list comes last, after what the tests printed under the same
    /// heading.
    pub(super) fn read(&mut self, line: &str) {
        if line == "failures:" {
            self.listing = true;
            self.names.clear();
        } else if self.listing {
            match line.strip_prefix("    ").filter(|name| is_name(name)) {
                Some(name) => self.names.push(name.to_owned()),
                None => self.listing = false,
            }
        }
    }

    /// Those to be tried again, where they are `failed` in all and few.
    pub(super) fn few(self, failed: u64) -> Vec<String> {
        let all = self.names.len() as u64 == failed;
        if all && self.names.len() <= FEW { self.names } else { Vec::new() }
    }
}

fn is_name(word: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b':');
    !word.is_empty() && word.bytes().all(fits)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTPUT: &str = "test a::b ... ok\n\nfailures:\n\n---- c::d stdout ----\n    not::this\n\n\
                          failures:\n    c::d\n    e\n\ntest result: FAILED. 1 passed; 2 failed\n";

    fn read(output: &str) -> Failures {
        let mut failures = Failures::default();
        output.lines().for_each(|line| failures.read(line));
        failures
    }

    #[test]
    fn the_closing_list_has_the_names() {
        assert_eq!(read(OUTPUT).few(2), ["c::d", "e"]);
    }

    #[test]
    fn what_is_not_listed_in_full_is_not_tried_again() {
        assert!(read(OUTPUT).few(3).is_empty());
        assert!(read("test a ... ok\n").few(1).is_empty());
        assert!(read("").few(0).is_empty());
    }

    #[test]
    fn many_are_no_accident() {
        assert!(read("failures:\n    a\n    b\n    c\n\n").few(3).is_empty());
    }
}
