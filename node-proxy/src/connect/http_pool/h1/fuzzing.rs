//! See [`crate::fuzzing`].

use bytes::{Bytes, BytesMut};
use http::Method;

use super::decode::Decoder;
use super::head;

/// The answer that bytes are, which come in pieces of this size, to a request of a method: its status, the body, and how much is
/// left behind it. `None`: it isn't whole, or is refused.
pub fn answer(bytes: &[u8], piece: usize, method: &Method) -> Option<(u16, Vec<u8>, usize)> {
    let (mut received, mut pieces) = (BytesMut::new(), bytes.chunks(piece.max(1)));
    let (head, mut rest) = loop {
        let mut so_far = received.clone().freeze();
        if let Some(head) = head::read(&mut so_far, method).ok()? {
            break (head, so_far);
        }
        received.extend_from_slice(pieces.next()?);
    };
    let (mut decoder, mut body) = (Decoder::new(head.framing), Vec::new());
    loop {
        while let Some(frame) = decoder.next(&mut rest).ok()? {
            body.extend_from_slice(frame.data_ref().map(Bytes::as_ref).unwrap_or_default());
        }
        if decoder == Decoder::Done {
            break;
        }
        match pieces.next() {
            Some(more) => rest = [&rest, more].concat().into(),
            None if decoder == Decoder::Close => break,
            None => return None,
        }
    }
    let left = rest.len() + pieces.map(<[u8]>::len).sum::<usize>();
    Some((head.response.status().as_u16(), body, left))
}
