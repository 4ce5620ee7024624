//! Frames on a stream (RFC 9114, section 7): found in whatever pieces the bytes come. What is let pass is never gathered, what
//! is gathered has its limit, and what isn't known is skipped as it comes.

use bytes::{Bytes, BytesMut};

use super::code::Code;
use super::varint;

pub(super) const DATA: u64 = 0x0;
pub(super) const HEADERS: u64 = 0x1;
pub(super) const CANCEL_PUSH: u64 = 0x3;
pub(super) const SETTINGS: u64 = 0x4;
pub(super) const PUSH_PROMISE: u64 = 0x5;
pub(super) const GOAWAY: u64 = 0x7;
pub(super) const MAX_PUSH_ID: u64 = 0xd;
/// Of HTTP/2, without a meaning here (RFC 9114, section 7.2.8).
const RESERVED: [u64; 4] = [0x2, 0x6, 0x8, 0x9];

/// Bytes of a frame on a control stream: settings are few, and the others have one number.
const MOST_OF_CONTROL: usize = 4096;

/// Bytes of trailers as they are written: few, and of all requests of a connection some may be on their way.
const MOST_OF_TRAILERS: usize = 8 << 10;

/// What a stream is for, which says what may be on it.
#[derive(Clone, Copy, Debug)]
pub(super) enum Use {
    /// A request; its next field section may have so many bytes as it is written.
    Request { section: usize },
    /// The connection's control stream.
    Control,
}

/// What becomes of a frame.
enum Treatment {
    Pass,
    Gather(usize),
    Skip,
    Refuse,
}

impl Use {
    fn treatment(self, kind: u64) -> Treatment {
        match (self, kind) {
            (_, kind) if RESERVED.contains(&kind) || kind == PUSH_PROMISE => Treatment::Refuse,
            (Self::Request { .. }, DATA) => Treatment::Pass,
            (Self::Request { section }, HEADERS) => Treatment::Gather(section),
            (Self::Request { .. }, CANCEL_PUSH | SETTINGS | GOAWAY | MAX_PUSH_ID) => Treatment::Refuse,
            (Self::Control, DATA | HEADERS) => Treatment::Refuse,
            (Self::Control, CANCEL_PUSH | SETTINGS | GOAWAY | MAX_PUSH_ID) => Treatment::Gather(MOST_OF_CONTROL),
            _ => Treatment::Skip,
        }
    }
}

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Piece {
    /// Some of a DATA frame; never empty.
    Data(Bytes),
    /// A whole frame of another kind.
    Frame(u64, Bytes),
}

/// Why a stream can't be read on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// The connection is over.
    Connection(Code),
    /// A frame is bigger than what we take.
    TooLarge,
}

/// Finds frames.
#[derive(Debug)]
pub(super) struct Frames {
    of: Use,
    state: State,
}

#[derive(Debug)]
enum State {
    /// Kind and length, as far as they came.
    Head(BytesMut),
    Passing(u64),
    Skipping(u64),
    Gathering {
        kind: u64,
        length: usize,
        so_far: BytesMut,
    },
}

impl Frames {
    pub(super) fn new(of: Use) -> Self {
        Self { of, state: State::Head(BytesMut::new()) }
    }

    /// Whether the stream may end here (RFC 9114, section 7.1).
    pub(super) fn is_between(&self) -> bool {
        matches!(&self.state, State::Head(head) if head.is_empty())
    }

    /// Bytes that are held until more of them come.
    pub(super) fn held(&self) -> usize {
        match &self.state {
            State::Head(head) => head.len(),
            State::Gathering { so_far, .. } => so_far.len(),
            State::Passing(_) | State::Skipping(_) => 0,
        }
    }

    /// The next piece in `input`, from which it is taken; `None`: more is needed.
    ///
    /// # Errors
    /// [`Fault`].
    pub(super) fn next(&mut self, input: &mut Bytes) -> Result<Option<Piece>, Fault> {
        while !input.is_empty() {
            match &mut self.state {
                State::Head(head) => match take_head(head, input) {
                    None => return Ok(None),
                    Some((kind, length)) => {
                        if let Some(piece) = self.begin(kind, length)? {
                            return Ok(Some(piece));
                        }
                    }
                },
                State::Passing(left) => {
                    let data = take(input, left);
                    if *left == 0 {
                        self.state = State::Head(BytesMut::new());
                    }
                    return Ok(Some(Piece::Data(data)));
                }
                State::Skipping(left) => {
                    take(input, left);
                    if *left == 0 {
                        self.state = State::Head(BytesMut::new());
                    }
                }
                State::Gathering { kind, length, so_far } => {
                    let kind = *kind;
                    let mut missing = (*length - so_far.len()) as u64;
                    let part = take(input, &mut missing);
                    let whole = missing == 0;
                    if whole && so_far.is_empty() {
                        self.state = State::Head(BytesMut::new());
                        return Ok(Some(Piece::Frame(kind, part)));
                    }
                    so_far.extend_from_slice(&part);
                    if whole {
                        let frame = std::mem::take(so_far).freeze();
                        self.state = State::Head(BytesMut::new());
                        return Ok(Some(Piece::Frame(kind, frame)));
                    }
                }
            }
        }
        Ok(None)
    }

    /// A frame begins; one without a payload is whole.
    fn begin(&mut self, kind: u64, length: u64) -> Result<Option<Piece>, Fault> {
        let treatment = self.of.treatment(kind);
        if let (Use::Request { section }, HEADERS) = (&mut self.of, kind) {
            *section = MOST_OF_TRAILERS.min(*section);
        }
        self.state = match treatment {
            Treatment::Refuse => return Err(Fault::Connection(Code::FrameUnexpected)),
            Treatment::Gather(most) => match usize::try_from(length) {
                Ok(0) => {
                    self.state = State::Head(BytesMut::new());
                    return Ok(Some(Piece::Frame(kind, Bytes::new())));
                }
                Ok(length) if length <= most => State::Gathering { kind, length, so_far: BytesMut::new() },
                _ => return Err(Fault::TooLarge),
            },
            Treatment::Pass | Treatment::Skip if length == 0 => State::Head(BytesMut::new()),
            Treatment::Pass => State::Passing(length),
            Treatment::Skip => State::Skipping(length),
        };
        Ok(None)
    }
}

/// Up to `left` bytes.
fn take(input: &mut Bytes, left: &mut u64) -> Bytes {
    let count = usize::try_from(*left).unwrap_or(usize::MAX).min(input.len());
    *left -= count as u64;
    input.split_to(count)
}

/// Kind and length of the next frame, if they are there; what is there of them is kept.
fn take_head(head: &mut BytesMut, input: &mut Bytes) -> Option<(u64, u64)> {
    while !input.is_empty() {
        head.extend_from_slice(&input.split_to(1));
        let Some((kind, used)) = varint::read(head) else { continue };
        if let Some((length, _)) = varint::read(head.get(used..)?) {
            head.clear();
            return Some((kind, length));
        }
    }
    None
}

/// Writes what stands before a frame's payload.
pub(super) fn head(kind: u64, length: usize) -> Bytes {
    let mut out = BytesMut::with_capacity(10);
    varint::write(&mut out, kind);
    varint::write(&mut out, length as u64);
    out.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    const REQUEST: Use = Use::Request { section: 10 };

    fn frame(kind: u64, payload: &[u8]) -> Vec<u8> {
        [&head(kind, payload.len())[..], payload].concat()
    }

    /// What is found when so many bytes come at a time; data put together.
    fn found(of: Use, bytes: &[u8], at_a_time: usize) -> Result<(Vec<Piece>, bool), Fault> {
        let (mut frames, mut pieces) = (Frames::new(of), Vec::new());
        for part in bytes.chunks(at_a_time) {
            let mut part = Bytes::copy_from_slice(part);
            while let Some(piece) = frames.next(&mut part)? {
                match (pieces.last_mut(), piece) {
                    (Some(Piece::Data(before)), Piece::Data(more)) => *before = [&before[..], &more].concat().into(),
                    (_, piece) => pieces.push(piece),
                }
            }
            assert!(part.is_empty(), "all of it was taken");
        }
        Ok((pieces, frames.is_between()))
    }

    #[test]
    fn frames_are_found_in_whatever_pieces_they_come() {
        let bytes = [
            frame(0x21, b"grease"),
            frame(HEADERS, b"0123456789"),
            frame(DATA, b""),
            frame(DATA, &[7; 100]),
            frame(0x1f * 1000 + 0x21, &[0; 70]),
            frame(DATA, &[8; 70]),
            frame(HEADERS, b""),
        ]
        .concat();
        let data = [[7; 100].as_slice(), &[8; 70]].concat();
        let expected = vec![
            Piece::Frame(HEADERS, Bytes::from_static(b"0123456789")),
            Piece::Data(data.into()),
            Piece::Frame(HEADERS, Bytes::new()),
        ];
        for at_a_time in [1, 2, 3, 7, 64, 10_000] {
            assert_eq!(found(REQUEST, &bytes, at_a_time), Ok((expected.clone(), true)), "{at_a_time}");
        }
        for cut in [1, 2, 5, 30] {
            assert!(!found(REQUEST, &bytes[..cut], 1).unwrap().1, "cut short at {cut}");
        }
    }

    #[test]
    fn what_may_not_be_there_is_refused_and_what_is_too_large_not_gathered() {
        let unexpected = Err(Fault::Connection(Code::FrameUnexpected));
        for kind in [CANCEL_PUSH, SETTINGS, PUSH_PROMISE, GOAWAY, MAX_PUSH_ID, 0x2, 0x6, 0x8, 0x9] {
            assert_eq!(found(REQUEST, &frame(kind, b"x"), 1), unexpected, "{kind:x} on a request");
        }
        for kind in [DATA, HEADERS, PUSH_PROMISE, 0x2, 0x6, 0x8, 0x9] {
            assert_eq!(found(Use::Control, &frame(kind, b"x"), 1), unexpected, "{kind:x} on the control stream");
        }
        let settings = frame(SETTINGS, b"x");
        let whole = Piece::Frame(SETTINGS, Bytes::from_static(b"x"));
        assert_eq!(found(Use::Control, &settings, 1), Ok((vec![whole], true)));
        // By its length alone, before it comes.
        assert_eq!(found(REQUEST, &head(HEADERS, 11), 1), Err(Fault::TooLarge));
        assert_eq!(found(REQUEST, &head(HEADERS, usize::MAX), 1), Err(Fault::TooLarge));
        assert_eq!(found(Use::Control, &head(SETTINGS, MOST_OF_CONTROL + 1), 1), Err(Fault::TooLarge));
        // Trailers have less room than a head.
        let (large, of) = (vec![7; MOST_OF_TRAILERS + 1], Use::Request { section: 60_000 });
        assert_eq!(found(of, &frame(HEADERS, &large), 999).unwrap().0.len(), 1);
        let twice = [frame(HEADERS, &large), frame(HEADERS, &large)].concat();
        assert_eq!(found(of, &twice, 999), Err(Fault::TooLarge));
    }
}
