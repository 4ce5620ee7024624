//! How messages are framed in the bytes from a client, seen on their way to the codec.
//!
//! HTTP/1: the codec resolves what names two lengths (RFC 9112, section 6.3) before anybody can look: equal lengths
//! become one, and chunks win over a length. We refuse such requests instead, because whoever sends one hopes that two
//! parsers disagree. This only finds them: it never decides where a body ends for anybody else. Where it can't follow,
//! the next request is refused, so being led astray gains nothing.
//!
//! HTTP/2: whether a header block is under way, so that PINGs on an idle connection don't look like a slow head.

use memchr::memchr;

/// A line that is longer than any head may be is not kept.
const MAX_LINE: usize = 128 << 10;

/// Follows the requests of an HTTP/1 connection.
#[derive(Debug, Default)]
pub(super) struct H1Framing {
    at: At,
    head: Head,
    /// The start of a line whose end has not come yet.
    line: Vec<u8>,
    /// Complete heads so far.
    heads: u64,
}

#[derive(Debug, Default)]
enum At {
    #[default]
    Head,
    Body(u64),
    /// In the line with the size of a chunk.
    Size,
    /// Bytes of a chunk, and of the line end after them.
    Chunk(u64),
    Trailers,
    /// Nothing that follows is of interest.
    Over,
}

#[derive(Debug, Default)]
struct Head {
    started: bool,
    lengths: u32,
    length: u64,
    codings: u32,
    unclear: bool,
}

impl H1Framing {
    /// Looks at bytes in the order of the connection; the number (from 0) of a request whose framing is ambiguous.
    pub(super) fn feed(&mut self, mut bytes: &[u8]) -> Option<u64> {
        while !bytes.is_empty() {
            match &mut self.at {
                At::Over => return None,
                At::Body(left) => {
                    bytes = skip(left, bytes);
                    if *left == 0 {
                        self.at = At::Head;
                    }
                }
                At::Chunk(left) => {
                    bytes = skip(left, bytes);
                    if *left == 0 {
                        self.at = At::Size;
                    }
                }
                At::Head | At::Size | At::Trailers => {
                    let Some(end) = memchr(b'\n', bytes) else {
                        if self.line.len() + bytes.len() > MAX_LINE {
                            return Some(self.lost());
                        }
                        self.line.extend_from_slice(bytes);
                        return None;
                    };
                    let (line, rest) = bytes.split_at(end);
                    bytes = rest.get(1..).unwrap_or_default();
                    if let Some(number) = self.whole_line(line) {
                        return Some(number);
                    }
                }
            }
        }
        None
    }

    /// Complete heads so far.
    pub(super) fn heads(&self) -> u64 {
        self.heads
    }

    /// Whether a head has begun and not ended.
    pub(super) fn is_in_head(&self) -> bool {
        matches!(self.at, At::Head) && (self.head.started || !self.line.is_empty())
    }

    fn whole_line(&mut self, end: &[u8]) -> Option<u64> {
        if self.line.is_empty() {
            return self.line(end);
        }
        let mut line = std::mem::take(&mut self.line);
        line.extend_from_slice(end);
        let found = self.line(&line);
        line.clear();
        self.line = line;
        found
    }

    fn line(&mut self, line: &[u8]) -> Option<u64> {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        match self.at {
            At::Head if line.is_empty() && self.head.started => return self.end_of_head(),
            At::Head => self.head.line(line),
            At::Size => match chunk_size(line) {
                Some(0) => self.at = At::Trailers,
                // With the line end after the bytes.
                Some(size) => self.at = At::Chunk(size.saturating_add(2)),
                None => return Some(self.lost()),
            },
            At::Trailers if line.is_empty() => self.at = At::Head,
            At::Trailers | At::Body(_) | At::Chunk(_) | At::Over => {}
        }
        None
    }

    fn end_of_head(&mut self) -> Option<u64> {
        let head = std::mem::take(&mut self.head);
        if head.unclear || head.lengths > 1 || (head.lengths > 0 && head.codings > 0) {
            return Some(self.lost());
        }
        self.heads += 1;
        self.at = match head {
            Head { codings: 1.., .. } => At::Size,
            Head { length: 0, .. } => At::Head,
            Head { length, .. } => At::Body(length),
        };
        None
    }

    /// The request that comes next, or whose head is being read, is the last.
    fn lost(&mut self) -> u64 {
        self.at = At::Over;
        self.line = Vec::new();
        self.heads
    }
}

impl Head {
    fn line(&mut self, line: &[u8]) {
        if !std::mem::replace(&mut self.started, !line.is_empty()) {
            return;
        }
        if let Some(value) = value_of(line, b"content-length:") {
            self.lengths += 1;
            match std::str::from_utf8(value.trim_ascii()).ok().and_then(|text| text.parse().ok()) {
                Some(length) => self.length = length,
                None => self.unclear = true,
            }
        } else if value_of(line, b"transfer-encoding:").is_some() {
            self.codings += 1;
        }
    }
}

fn value_of<'a>(line: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let (start, value) = line.split_at_checked(name.len())?;
    start.eq_ignore_ascii_case(name).then_some(value)
}

fn chunk_size(line: &[u8]) -> Option<u64> {
    let digits = line.split(|byte| *byte == b';').next()?.trim_ascii_end();
    let all_hex = !digits.is_empty() && digits.iter().all(u8::is_ascii_hexdigit);
    all_hex.then_some(())?;
    u64::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

fn skip<'a>(left: &mut u64, bytes: &'a [u8]) -> &'a [u8] {
    let now = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
    *left -= now as u64;
    bytes.get(now..).unwrap_or_default()
}

const FRAME_HEADER: usize = 9;
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const CONTINUATION: u8 = 9;
const END_HEADERS: u8 = 4;

/// Follows the frames of an HTTP/2 connection (RFC 9113, section 4.1).
#[derive(Debug)]
pub(super) struct H2Framing {
    /// Bytes before the next frame header.
    left: u64,
    header: [u8; FRAME_HEADER],
    have: usize,
    /// The header block ends with the frame that is under way.
    last_of_block: bool,
    in_block: bool,
}

/// What some bytes were about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct H2Seen {
    /// Something of a request, unlike keep-alive and flow control.
    pub(super) active: bool,
    /// A header block has begun and not ended.
    pub(super) in_block: bool,
}

impl H2Framing {
    /// At the start of a connection: the preface comes first.
    pub(super) fn new(preface: usize) -> Self {
        Self { left: preface as u64, header: [0; FRAME_HEADER], have: 0, last_of_block: false, in_block: false }
    }

    /// Looks at bytes in the order of the connection.
    pub(super) fn feed(&mut self, mut bytes: &[u8]) -> H2Seen {
        let mut active = self.in_block;
        while !bytes.is_empty() {
            if self.left > 0 {
                bytes = skip(&mut self.left, bytes);
                if self.left == 0 {
                    self.end_of_frame();
                }
                continue;
            }
            let Some(free) = self.header.get_mut(self.have..) else { break };
            let now = free.len().min(bytes.len());
            let (header, rest) = bytes.split_at(now);
            free.iter_mut().zip(header).for_each(|(to, from)| *to = *from);
            self.have += now;
            bytes = rest;
            if self.have == FRAME_HEADER {
                active |= self.start_of_frame();
            }
        }
        H2Seen { active, in_block: self.in_block }
    }

    fn start_of_frame(&mut self) -> bool {
        let [a, b, c, kind, flags, ..] = self.header;
        self.have = 0;
        self.left = u64::from(u32::from_be_bytes([0, a, b, c]));
        if matches!(kind, HEADERS | CONTINUATION) {
            self.in_block = true;
            self.last_of_block = flags & END_HEADERS != 0;
        }
        if self.left == 0 {
            self.end_of_frame();
        }
        matches!(kind, DATA | HEADERS | CONTINUATION)
    }

    fn end_of_frame(&mut self) {
        if std::mem::take(&mut self.last_of_block) {
            self.in_block = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whole, and in pieces of every small size.
    fn feed(bytes: &[u8]) -> Option<u64> {
        let whole = H1Framing::default().feed(bytes);
        for size in 1..8 {
            let mut framing = H1Framing::default();
            let pieces = bytes.chunks(size).find_map(|piece| framing.feed(piece));
            assert_eq!(pieces, whole, "in pieces of {size}: {:?}", String::from_utf8_lossy(bytes));
        }
        whole
    }

    #[test]
    fn the_request_with_two_lengths_is_found_whatever_came_before() {
        const BAD: [&str; 6] = [
            "POST / HTTP/1.1\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n",
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nCONTENT-LENGTH:3\r\n\r\n",
            "POST / HTTP/1.1\r\ncontent-length: 3\r\nx: y\r\ncontent-length: 3\r\n\r\n",
            "POST / HTTP/1.1\r\ncontent-length: 3\r\ncontent-length: 4\r\n\r\n",
            "POST / HTTP/1.1\r\ncontent-length: 3, 3\r\n\r\n",
            "POST / HTTP/1.1\ncontent-length: 3\ntransfer-encoding: chunked\n\n",
        ];
        const GOOD: [&str; 6] = [
            "",
            "GET / HTTP/1.1\r\nhost: a\r\n\r\n",
            "\r\n\r\nPOST / HTTP/1.1\r\ncontent-length: 12\r\n\r\ncontent-leng",
            "POST / HTTP/1.1\r\ncontent-length: 0\r\n\r\n",
            "POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n4\r\n\r\n\r\n\r\nA;x=y\r\n0123456789\r\n0\r\n\r\n",
            "POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n0 \r\ncontent-length: 1\r\n\r\n",
        ];
        for good in GOOD {
            let number = u64::from(!good.is_empty());
            assert_eq!(feed(good.as_bytes()), None, "{good:?}");
            for bad in BAD {
                assert_eq!(feed(format!("{good}{bad}").as_bytes()), Some(number), "{good:?} {bad:?}");
                assert_eq!(feed(format!("{good}{good}{bad}{good}").as_bytes()), Some(2 * number), "{good:?} {bad:?}");
            }
        }
    }

    #[test]
    fn where_it_is_lost_the_next_request_is_refused() {
        assert_eq!(feed(b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\nxyz\r\n"), Some(1));
        assert_eq!(feed(b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n+3\r\n"), Some(1));
        assert_eq!(feed(&vec![b'a'; MAX_LINE + 1]), Some(0));
    }

    fn frame(kind: u8, flags: u8, length: usize) -> Vec<u8> {
        let mut bytes = (length as u32).to_be_bytes()[1..].to_vec();
        bytes.extend([kind, flags, 0, 0, 0, 1]);
        bytes.resize(FRAME_HEADER + length, 0);
        bytes
    }

    #[test]
    fn a_header_block_is_under_way_from_its_first_frame_to_its_last() {
        let mut framing = H2Framing::new(24);
        let seen = |active, in_block| H2Seen { active, in_block };
        assert_eq!(framing.feed(&[b'P'; 24]), seen(false, false));
        assert_eq!(framing.feed(&frame(4, 0, 18)), seen(false, false), "SETTINGS");
        assert_eq!(framing.feed(&frame(6, 0, 8)), seen(false, false), "PING");
        assert_eq!(framing.feed(&frame(HEADERS, END_HEADERS, 10)), seen(true, false));
        assert_eq!(framing.feed(&frame(DATA, 1, 10)), seen(true, false));
        let headers = frame(HEADERS, END_HEADERS, 10);
        assert_eq!(framing.feed(&headers[..8]), seen(false, false));
        assert_eq!(framing.feed(&headers[8..12]), seen(true, true));
        assert_eq!(framing.feed(&headers[12..]), seen(true, false));
        assert_eq!(framing.feed(&frame(HEADERS, 0, 10)), seen(true, true));
        assert_eq!(framing.feed(&frame(CONTINUATION, 0, 0)), seen(true, true));
        assert_eq!(framing.feed(&frame(CONTINUATION, END_HEADERS, 0)), seen(true, false));
        let mut byte_by_byte = H2Framing::new(0);
        for byte in frame(HEADERS, 0, 3).iter().chain(&frame(6, 0, 8)) {
            byte_by_byte.feed(&[*byte]);
        }
        assert!(byte_by_byte.in_block);
    }
}
