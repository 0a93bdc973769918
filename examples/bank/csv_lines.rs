//! The lines of a file, one at a time: the file may be larger than the memory, and so may a line.

use std::io::{self, BufRead};

use crate::reason::Reason;

/// The most bytes of a line, its end not counted.
pub const MAX_LINE: usize = 1024;

const BYTE_ORDER_MARK: &[u8] = b"\xEF\xBB\xBF";
/// What is kept of a line: enough to see that it is too long, with or without what is stripped from it.
const KEPT: usize = BYTE_ORDER_MARK.len() + MAX_LINE + b"\r".len() + 1;

/// A line without its end, or why it can't be read.
pub type Line<'a> = Result<&'a [u8], Reason>;

/// Reads lines, and counts them and their bytes.
pub struct Lines<R> {
    input: R,
    kept: Vec<u8>,
    number: u64,
    bytes: u64,
}

impl<R: BufRead> Lines<R> {
    pub fn new(input: R) -> Self {
        Self { input, kept: Vec::with_capacity(KEPT), number: 0, bytes: 0 }
    }

    /// The number of the line that was read last. The first is 1, and empty ones count.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// How many bytes were read so far.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The next line; `None` after the last one.
    pub fn read(&mut self) -> io::Result<Option<Line<'_>>> {
        if !self.fill()? {
            return Ok(None);
        }
        self.number += 1;
        // Not only from the first line: files that were joined have marks inside.
        let line = self.kept.strip_prefix(BYTE_ORDER_MARK).unwrap_or(&self.kept);
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        Ok(Some(if line.len() > MAX_LINE { Err(Reason::LineTooLong(MAX_LINE)) } else { Ok(line) }))
    }

    /// Reads up to the end of the line and keeps its beginning. False at the end of the input.
    fn fill(&mut self) -> io::Result<bool> {
        self.kept.clear();
        let begin = self.bytes;
        loop {
            let chunk = match self.input.fill_buf() {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                chunk => chunk?,
            };
            if chunk.is_empty() {
                return Ok(self.bytes > begin);
            }
            let end = chunk.iter().position(|byte| *byte == b'\n');
            let content = &chunk[..end.unwrap_or(chunk.len())];
            let room = KEPT - self.kept.len();
            self.kept.extend_from_slice(&content[..content.len().min(room)]);
            let read = content.len() + usize::from(end.is_some());
            self.input.consume(read);
            self.bytes += read as u64;
            if end.is_some() {
                return Ok(true);
            }
        }
    }
}
