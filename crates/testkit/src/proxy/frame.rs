//! Where one RESP frame ends: all that a proxy needs to know of it.

/// Longer than any honest header, status or error line.
const LINE_BYTES_MAX: usize = 64 * 1024;
/// Deeper nesting than any real frame.
const DEPTH_MAX: usize = 32;

/// The bytes are not RESP, or of a kind that no Redis sends.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct NotResp;

/// Finds the ends of RESP2 and RESP3 frames in a stream, however it is cut into chunks.
#[derive(Debug, Default)]
pub(super) struct Scanner {
    /// The header line so far, without its line feed.
    line: Vec<u8>,
    /// Bytes of a bulk string, with its line end, that are still to come.
    body: usize,
    /// For each open aggregate, the outermost first, how many parts are still to come.
    open: Vec<u64>,
    is_push: bool,
}

/// A frame that is complete.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct FrameEnd {
    /// How many of the bytes given belong to it.
    pub(super) length: usize,
    /// Whether it is a RESP3 push, which answers no request.
    pub(super) is_push: bool,
}

impl Scanner {
    /// Returns the end of the first frame that ends in `bytes`; `None` takes all of them in.
    pub(super) fn next_end(&mut self, bytes: &[u8]) -> Result<Option<FrameEnd>, NotResp> {
        let mut at = 0;
        while at < bytes.len() {
            let is_whole = if self.body > 0 {
                let taken = self.body.min(bytes.len() - at);
                self.body -= taken;
                at += taken;
                self.body == 0
            } else {
                at += 1;
                self.take_header_byte(bytes[at - 1])?
            };
            if is_whole && self.close_parents() {
                return Ok(Some(FrameEnd { length: at, is_push: self.is_push }));
            }
        }
        Ok(None)
    }

    /// Returns whether the next byte begins a frame.
    pub(super) fn is_between_frames(&self) -> bool {
        self.line.is_empty() && self.body == 0 && self.open.is_empty()
    }

    /// Returns whether the byte completes a part without a body.
    fn take_header_byte(&mut self, byte: u8) -> Result<bool, NotResp> {
        if byte != b'\n' {
            self.line.push(byte);
            return if self.line.len() > LINE_BYTES_MAX { Err(NotResp) } else { Ok(false) };
        }
        let line = std::mem::take(&mut self.line);
        let (kind, text) = line.split_first().ok_or(NotResp)?;
        if self.open.is_empty() {
            self.is_push = *kind == b'>';
        }
        match kind {
            b'+' | b'-' | b':' | b',' | b'#' | b'(' | b'_' => Ok(true),
            b'$' | b'=' | b'!' => Ok(self.open_body(length(text)?)),
            b'*' | b'~' | b'>' => self.open_aggregate(length(text)?, 1),
            b'%' => self.open_aggregate(length(text)?, 2),
            _ => Err(NotResp),
        }
    }

    fn open_body(&mut self, length: Option<usize>) -> bool {
        let Some(length) = length else { return true };
        self.body = length.saturating_add(2);
        false
    }

    fn open_aggregate(&mut self, length: Option<usize>, per_entry: u64) -> Result<bool, NotResp> {
        let parts = (length.unwrap_or(0) as u64).saturating_mul(per_entry);
        if parts == 0 {
            return Ok(true);
        }
        self.open.push(parts);
        if self.open.len() > DEPTH_MAX { Err(NotResp) } else { Ok(false) }
    }

    /// Counts one whole part in its parent; returns whether the outermost frame is complete.
    fn close_parents(&mut self) -> bool {
        while let Some(left) = self.open.last_mut() {
            *left -= 1;
            if *left > 0 {
                return false;
            }
            self.open.pop();
        }
        true
    }
}

/// Reads a header's number with its carriage return; `None` is the null of RESP2.
fn length(text: &[u8]) -> Result<Option<usize>, NotResp> {
    let text = text.strip_suffix(b"\r").ok_or(NotResp)?;
    let number: i64 = std::str::from_utf8(text).ok().and_then(|t| t.parse().ok()).ok_or(NotResp)?;
    Ok(usize::try_from(number).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the lengths of the frames in `stream`, fed in chunks of `chunk` bytes.
    fn lengths(stream: &[u8], chunk: usize) -> Result<Vec<usize>, NotResp> {
        let (mut scanner, mut ends, mut length) = (Scanner::default(), vec![], 0);
        for mut bytes in stream.chunks(chunk) {
            while let Some(end) = scanner.next_end(bytes)? {
                ends.push(length + end.length);
                bytes = &bytes[end.length..];
                length = 0;
            }
            length += bytes.len();
        }
        assert!(scanner.is_between_frames(), "the last frame is incomplete");
        Ok(ends)
    }

    #[test]
    fn every_frame_ends_where_it_ends_however_the_stream_is_cut() {
        let frames: [&[u8]; 9] = [
            b"+OK\r\n",
            b"$5\r\na\r\nb\n\r\n",
            b"$-1\r\n",
            b"$0\r\n\r\n",
            b"*0\r\n",
            b"*2\r\n*2\r\n:1\r\n$1\r\nx\r\n*-1\r\n",
            b"%1\r\n+k\r\n~2\r\n#t\r\n,1.5\r\n",
            b"_\r\n",
            b">2\r\n+message\r\n=5\r\ntxt:x\r\n",
        ];
        let expected: Vec<_> = frames.iter().map(|frame| frame.len()).collect();
        let stream = frames.concat();
        for chunk in 1..=stream.len() {
            assert_eq!(lengths(&stream, chunk), Ok(expected.clone()), "chunks of {chunk}");
        }
    }

    #[test]
    fn push_is_told_from_an_answer() {
        let mut scanner = Scanner::default();
        assert!(scanner.next_end(b">1\r\n:1\r\n").unwrap().unwrap().is_push);
        assert!(!scanner.next_end(b"*1\r\n:1\r\n").unwrap().unwrap().is_push);
    }

    #[test]
    fn inline_command_and_hostile_nesting_are_not_resp() {
        assert_eq!(Scanner::default().next_end(b"PING\r\n"), Err(NotResp));
        assert_eq!(Scanner::default().next_end("*1\r\n".repeat(99).as_bytes()), Err(NotResp));
        assert_eq!(Scanner::default().next_end(b"\r\n\r\n"), Err(NotResp));
    }
}
