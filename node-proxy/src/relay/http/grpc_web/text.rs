//! The text form of gRPC-Web: base64 (RFC 4648, section 4), cut wherever the network likes, and padded wherever a part of it
//! was complete.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;

/// Not base64.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NotBase64;

/// Reads text; holds up to three bytes of it back, until the next piece comes.
#[derive(Debug, Default)]
pub(crate) struct TextDecoder {
    held: Vec<u8>,
}

impl TextDecoder {
    /// The bytes that a further piece of text completes.
    ///
    /// # Errors
    /// It isn't base64.
    pub(crate) fn feed(&mut self, piece: &[u8]) -> Result<Bytes, NotBase64> {
        let mut text = std::mem::take(&mut self.held);
        text.extend_from_slice(piece);
        self.held = text.split_off(text.len() / 4 * 4);
        let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
        let mut rest = text.as_slice();
        while !rest.is_empty() {
            // A part ends with the first padded group.
            let padded = rest.chunks_exact(4).position(|group| group.contains(&b'='));
            let (part, tail) = rest.split_at(padded.map_or(rest.len(), |at| (at + 1) * 4));
            STANDARD.decode_vec(part, &mut bytes).map_err(|_| NotBase64)?;
            rest = tail;
        }
        Ok(bytes.into())
    }

    /// Whether nothing is held back: the text may end here.
    pub(crate) fn is_whole(&self) -> bool {
        self.held.is_empty()
    }
}

/// Bytes as text that is complete by itself, so that a message never waits for the next one.
pub(super) fn encode(bytes: &[u8]) -> Bytes {
    STANDARD.encode(bytes).into()
}
