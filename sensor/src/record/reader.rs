//! Reading recordings, which may be anything: bounded, and in error rather than in doubt.

use std::io::{self, Read};

use super::format::{Frame, FrameReader, VERSION};
use super::step::{Header, Step};

/// Reads a recording step by step.
#[derive(Debug)]
pub struct Reader<R> {
    frames: FrameReader<R>,
    header: Header,
    /// The frame at hand, where the next line begins, and where the frame does in the file.
    text: Vec<u8>,
    at: usize,
    offset: u64,
    steps: u64,
    ended: Option<Ended>,
}

/// How a recording ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// With its last step.
    Whole,
    /// Before it: what came after this byte is missing.
    Cut {
        /// Where the last whole frame ended.
        offset: u64,
    },
}

/// Why a recording cannot be read (any further).
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// It is something else.
    #[error("this is no recording of halfsecond's")]
    NoRecording,
    /// It was cut before anything was in it.
    #[error("the recording ends before its header; there is nothing in it")]
    Empty,
    /// Another version's.
    #[error(
        "the recording has format {found}, and this halfsecond reads format {VERSION}; use the \
         version that made it, or a newer one"
    )]
    Version {
        /// The file's.
        found: u32,
    },
    /// The file is not what was written.
    #[error(
        "the recording is damaged in the frame at byte {offset}: {what}; take another copy of it"
    )]
    Damaged {
        /// Where the frame begins, bytes.
        offset: u64,
        /// What is wrong, as a clause.
        what: String,
    },
    /// It cannot be read.
    #[error("the recording cannot be read after byte {offset}")]
    Io {
        /// Where, bytes.
        offset: u64,
        /// Why.
        #[source]
        source: io::Error,
    },
}

// === impl Reader ===

impl<R: Read> Reader<R> {
    /// Reads the header.
    pub fn open(input: R) -> Result<Self, ReadError> {
        let mut frames = FrameReader::begin(input)?;
        let offset = frames.offset();
        let damaged = |what: String| ReadError::Damaged { offset, what };
        let text = match frames.next()? {
            Frame::Text(text) => text,
            Frame::Over | Frame::Cut => return Err(ReadError::Empty),
        };
        let line = text.strip_suffix(b"\n").filter(|line| !line.contains(&b'\n'));
        let line = line.ok_or_else(|| damaged("its header is not one line".to_owned()))?;
        let header: Header = serde_json::from_slice(line)
            .map_err(|error| damaged(format!("its header cannot be understood: {error}")))?;
        if let Some(wrong) = header.settings.wrong() {
            return Err(damaged(format!("no sensor has such settings: {wrong}")));
        }
        let offset = frames.offset();
        Ok(Self { frames, header, text: Vec::new(), at: 0, offset, steps: 0, ended: None })
    }

    /// What stands at the beginning.
    #[must_use]
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// How it ended, once [`Reader::step`] has given `None`.
    #[must_use]
    pub fn ended(&self) -> Option<Ended> {
        self.ended
    }

    /// The next step but [`Step::End`]; `None` at the end.
    pub fn step(&mut self) -> Result<Option<Step>, ReadError> {
        if self.ended.is_some() {
            return Ok(None);
        }
        while self.at >= self.text.len() {
            self.offset = self.frames.offset();
            match self.frames.next()? {
                Frame::Text(text) => (self.text, self.at) = (text, 0),
                Frame::Over | Frame::Cut => {
                    self.ended = Some(Ended::Cut { offset: self.offset });
                    return Ok(None);
                }
            }
        }
        let rest = self.text.get(self.at..).unwrap_or_default();
        let end = rest.iter().position(|byte| *byte == b'\n');
        let Some(line) = end.and_then(|end| rest.get(..end)) else {
            return Err(self.damaged("its last line has no end"));
        };
        self.at += line.len() + 1;
        match serde_json::from_slice(line) {
            Ok(Step::End { steps }) => self.end(steps),
            Ok(step) => {
                self.steps += 1;
                Ok(Some(step))
            }
            Err(error) => Err(self.damaged(&format!("a line is no step: {error}"))),
        }
    }

    /// Where damage is that was found in what a step says.
    pub(super) fn damaged(&self, what: &str) -> ReadError {
        ReadError::Damaged { offset: self.offset, what: what.to_owned() }
    }

    fn end(&mut self, steps: u64) -> Result<Option<Step>, ReadError> {
        if steps != self.steps {
            return Err(self.damaged("it has not as many steps as its end says"));
        }
        let more = self.at < self.text.len() || self.frames.next()? != Frame::Over;
        if more {
            return Err(self.damaged("something follows its end"));
        }
        self.ended = Some(Ended::Whole);
        Ok(None)
    }
}
