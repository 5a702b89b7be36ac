//! Frames: numbered, packed and with a checksum each.

use std::io::{self, Read, Write};

use flate2::read::DeflateDecoder;
use flate2::write::DeflateEncoder;
use flate2::{Compression, Crc};

use super::reader::ReadError;

/// What a recording begins with.
pub(super) const MAGIC: [u8; 8] = *b"halfsecR";
/// Version of the format.
pub(super) const VERSION: u32 = 1;
/// Bytes of a frame's text.
pub(super) const PLAIN_MAX: usize = 4 << 20;
/// The same packed: DEFLATE makes nothing longer by more than a thousandth.
const PACKED_MAX: usize = 5 << 20;
/// Bytes before a frame's packed text.
const HEAD: usize = 16;

/// Writes frames.
#[derive(Debug)]
pub(super) struct FrameWriter<W> {
    out: W,
    number: u32,
    /// Bytes of the whole frames so far.
    written: u64,
}

/// Reads frames.
#[derive(Debug)]
pub(super) struct FrameReader<R> {
    input: R,
    number: u32,
    /// Where the next frame begins.
    offset: u64,
}

/// What comes next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Frame {
    /// A frame's text.
    Text(Vec<u8>),
    /// Nothing more, between two frames.
    Over,
    /// The file ends inside a frame.
    Cut,
}

// === impl FrameWriter ===

impl<W: Write> FrameWriter<W> {
    /// Begins a recording.
    pub(super) fn begin(mut out: W) -> io::Result<Self> {
        out.write_all(&MAGIC)?;
        out.write_all(&VERSION.to_le_bytes())?;
        Ok(Self { out, number: 0, written: 12 })
    }

    /// Writes one frame. `text` is no longer than [`PLAIN_MAX`].
    pub(super) fn frame(&mut self, text: &[u8]) -> io::Result<()> {
        let mut packed = DeflateEncoder::new(Vec::new(), Compression::fast());
        packed.write_all(text)?;
        let packed = packed.finish()?;
        let mut head = Vec::with_capacity(HEAD);
        for number in [Ok(self.number), u32::try_from(text.len()), u32::try_from(packed.len())] {
            head.extend(number.map_err(io::Error::other)?.to_le_bytes());
        }
        let sum = checksum(&head, &packed);
        head.extend(sum.to_le_bytes());
        self.out.write_all(&head)?;
        self.out.write_all(&packed)?;
        self.out.flush()?;
        self.number = self.number.wrapping_add(1);
        self.written += u64::try_from(HEAD + packed.len()).unwrap_or(0);
        Ok(())
    }

    /// Bytes of all that is whole.
    pub(super) fn written(&self) -> u64 {
        self.written
    }

    /// What is written to.
    pub(super) fn out(&mut self) -> &mut W {
        &mut self.out
    }
}

// === impl FrameReader ===

impl<R: Read> FrameReader<R> {
    /// Reads what stands before the first frame.
    pub(super) fn begin(mut input: R) -> Result<Self, ReadError> {
        let mut magic = [0; MAGIC.len()];
        let mut version = [0; 4];
        let read = fill(&mut input, &mut magic, 0)?;
        if read < magic.len() || magic != MAGIC {
            return Err(ReadError::NoRecording);
        }
        if fill(&mut input, &mut version, 8)? < version.len() {
            return Err(ReadError::Empty);
        }
        match u32::from_le_bytes(version) {
            VERSION => Ok(Self { input, number: 0, offset: 12 }),
            found => Err(ReadError::Version { found }),
        }
    }

    /// Where the next frame begins, bytes from the start of the file.
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    /// The next frame.
    pub(super) fn next(&mut self) -> Result<Frame, ReadError> {
        let mut head = [0; HEAD];
        match fill(&mut self.input, &mut head, self.offset)? {
            0 => return Ok(Frame::Over),
            HEAD => {}
            _ => return Ok(Frame::Cut),
        }
        let [number, plain, packed, sum] = words(&head);
        let sizes = usize::try_from(plain).ok().zip(usize::try_from(packed).ok());
        let fits = |&(plain, packed): &(usize, usize)| plain <= PLAIN_MAX && packed <= PACKED_MAX;
        let Some((plain, packed)) = sizes.filter(fits) else {
            return Err(self.damaged("a frame says that it is larger than any is"));
        };
        // Room only for what is there: the head may lie.
        let mut bytes = Vec::new();
        let limit = u64::try_from(packed).unwrap_or(0);
        let read = self.input.by_ref().take(limit).read_to_end(&mut bytes);
        read.map_err(|source| ReadError::Io { offset: self.offset, source })?;
        if bytes.len() < packed {
            return Ok(Frame::Cut);
        }
        if checksum(head.get(..12).unwrap_or_default(), &bytes) != sum {
            return Err(self.damaged("a frame's checksum is wrong"));
        }
        if number != self.number {
            return Err(self.damaged("a frame is missing or out of order"));
        }
        let text =
            unpack(&bytes, plain).ok_or_else(|| self.damaged("a frame cannot be unpacked"))?;
        self.number = self.number.wrapping_add(1);
        self.offset += u64::try_from(HEAD + packed).unwrap_or(0);
        Ok(Frame::Text(text))
    }

    fn damaged(&self, what: &str) -> ReadError {
        ReadError::Damaged { offset: self.offset, what: what.to_owned() }
    }
}

/// Exactly so many bytes of text, or none.
fn unpack(packed: &[u8], plain: usize) -> Option<Vec<u8>> {
    let mut text = Vec::new();
    let limit = u64::try_from(plain).ok()?.saturating_add(1);
    DeflateDecoder::new(packed).take(limit).read_to_end(&mut text).ok()?;
    (text.len() == plain).then_some(text)
}

fn checksum(head: &[u8], packed: &[u8]) -> u32 {
    let mut crc = Crc::new();
    crc.update(head);
    crc.update(packed);
    crc.sum()
}

fn words(head: &[u8; HEAD]) -> [u32; 4] {
    let (words, _) = head.as_chunks::<4>();
    let mut all = [0; 4];
    for (word, bytes) in all.iter_mut().zip(words) {
        *word = u32::from_le_bytes(*bytes);
    }
    all
}

/// Reads until the buffer is full or nothing is left; tells how much that was.
fn fill(input: &mut impl Read, buffer: &mut [u8], offset: u64) -> Result<usize, ReadError> {
    let mut filled = 0;
    while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match input.read(rest) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(source) => return Err(ReadError::Io { offset, source }),
        }
    }
    Ok(filled)
}
