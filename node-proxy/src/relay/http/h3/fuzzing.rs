//! See [`crate::fuzzing`].

use bytes::Bytes;
use http::Request;

use super::control::{Reading, Seen, Wanted};
use super::frames::{Frames, Piece, Use};
use super::qpack::{Encoder, Most};
use super::{head, huffman, qpack};

/// The most bytes and fields of a section that are taken here.
const MOST: Most = Most { bytes: 16 << 10, fields: 100 };

/// A field section.
#[derive(Debug)]
pub struct H3Section {
    /// Names and values.
    pub fields: Vec<(Vec<u8>, Vec<u8>)>,
    /// The same, written again.
    pub again: Vec<u8>,
    /// The request that they are, with the length of its body, if they are one.
    pub request: Option<(Request<()>, Option<u64>)>,
}

/// Reads a field section; `None`: it is malformed or too large.
pub fn h3_section(bytes: &[u8]) -> Option<H3Section> {
    let read = qpack::decode(bytes, MOST).ok()?;
    let fields: Vec<_> = read.iter().map(|field| (field.name.to_vec(), field.value.to_vec())).collect();
    let mut encoder = Encoder::new();
    for field in &read {
        encoder.field(&String::from_utf8_lossy(&field.name), &field.value, false);
    }
    Some(H3Section { fields, again: encoder.finish().to_vec(), request: head::request(read).ok() })
}

/// The frames on the stream of a request whose bytes come in pieces of this size: kinds, with what was gathered or passed.
/// `None`: the stream can't be read on.
pub fn h3_frames(bytes: &[u8], piece: usize) -> Option<Vec<(u64, Vec<u8>)>> {
    let mut frames = Frames::new(Use::Request { section: MOST.bytes });
    let mut found: Vec<(u64, Vec<u8>)> = Vec::new();
    for piece in bytes.chunks(piece.max(1)) {
        let mut input = Bytes::copy_from_slice(piece);
        while let Some(piece) = frames.next(&mut input).ok()? {
            match (piece, found.last_mut()) {
                (Piece::Data(data), Some((0, so_far))) => so_far.extend_from_slice(&data),
                (Piece::Data(data), _) => found.push((0, data.to_vec())),
                (Piece::Frame(kind, payload), _) => found.push((kind, payload.to_vec())),
            }
        }
    }
    Some(found)
}

/// What a text in the Huffman code of HPACK and QPACK says, if it isn't longer than this; `None`: it is malformed, or longer.
pub fn h3_huffman(coded: &[u8], most: usize) -> Option<Vec<u8>> {
    huffman::decode(coded, most).ok().flatten()
}

/// What came of a stream of one direction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum H3Stream {
    /// More of it is read.
    Open {
        /// All that is known of it.
        state: String,
        /// It is the control stream, and no frame has begun.
        between: bool,
    },
    /// Nothing of it is read.
    Unknown,
    /// The connection ends with this code.
    Refused(u32),
}

/// The first stream of one direction that a client opens, whose bytes come in pieces of this size; with how much of it was held
/// at most.
pub fn h3_stream(bytes: &[u8], piece: usize) -> (H3Stream, usize) {
    let (mut reading, seen, mut held) = (Reading::default(), Seen::default(), 0);
    for piece in bytes.chunks(piece.max(1)) {
        match reading.take(&seen, Bytes::copy_from_slice(piece)) {
            Ok(Wanted::More) => held = held.max(reading.held()),
            Ok(Wanted::Nothing) => return (H3Stream::Unknown, held),
            Err(code) => return (H3Stream::Refused(code as u32), held),
        }
    }
    (H3Stream::Open { state: format!("{reading:?}"), between: reading.is_between() }, held)
}
