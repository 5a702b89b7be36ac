//! JSON lines on a stream, such as standard output.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;

use super::Sink;

/// Writes lines to an open descriptor.
#[derive(Debug)]
pub struct LineSink {
    name: &'static str,
    file: File,
    /// A line was cut off by an error: a reader must not glue the next one to it.
    torn: bool,
}

impl LineSink {
    /// On a descriptor of its own for standard output: the standard library's handle would keep
    /// what it could not write in its buffer, and write it twice.
    pub fn stdout() -> io::Result<Self> {
        let file = File::from(io::stdout().as_fd().try_clone_to_owned()?);
        Ok(Self::new("stdout", file))
    }

    /// On an open file, pipe or socket.
    #[must_use]
    pub fn new(name: &'static str, file: File) -> Self {
        Self { name, file, torn: false }
    }
}

impl Sink for LineSink {
    fn name(&self) -> &'static str {
        self.name
    }

    fn write(&mut self, line: &[u8]) -> io::Result<()> {
        if self.torn {
            self.file.write_all(b"\n")?;
            self.torn = false;
        }
        let mut rest = line;
        while !rest.is_empty() {
            match self.file.write(rest) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => {
                    rest = rest.get(written..).unwrap_or_default();
                    self.torn = !rest.is_empty();
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}
