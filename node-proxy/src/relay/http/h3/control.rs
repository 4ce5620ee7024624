//! Streams of one direction: the client's control stream and QPACK's, and our own control stream (RFC 9114, section 6.2).

use std::cell::Cell;
use std::collections::BTreeSet;
use std::rc::Rc;

use bytes::{Bytes, BytesMut};
use quinn::{RecvStream, SendStream};

use super::code::Code;
use super::connection::Shared;
use super::frames::{self, CANCEL_PUSH, Fault, Frames, GOAWAY, MAX_PUSH_ID, Piece, SETTINGS, Use};
use super::varint;

/// Types of streams.
const CONTROL: u64 = 0x0;
const PUSH: u64 = 0x1;
const ENCODER: u64 = 0x2;
const DECODER: u64 = 0x3;
/// The largest section of fields that we take.
const MAX_FIELD_SECTION_SIZE: u64 = 0x6;
/// Settings of HTTP/2, which must not be sent (RFC 9114, section 7.2.4.1).
const RESERVED_SETTINGS: [u64; 4] = [0x2, 0x3, 0x4, 0x5];
/// The one instruction that an encoder may give without a table: that its capacity is nothing (RFC 9204, section 4.3.1).
const NO_CAPACITY: u8 = 0x20;
/// Bytes that are read at once.
const CHUNK: usize = 4096;

/// Which of the client's streams that there is one of were seen.
#[derive(Debug, Default)]
pub(super) struct Seen {
    control: Cell<bool>,
    encoder: Cell<bool>,
    decoder: Cell<bool>,
}

/// What begins our control stream: its type, and our settings. No table for QPACK, no extended CONNECT, no datagrams.
pub(super) fn hello(max_section: usize) -> Bytes {
    let (mut settings, mut out) = (BytesMut::new(), BytesMut::new());
    varint::write(&mut settings, MAX_FIELD_SECTION_SIZE);
    varint::write(&mut settings, max_section as u64);
    varint::write(&mut out, CONTROL);
    out.extend_from_slice(&frames::head(SETTINGS, settings.len()));
    out.extend_from_slice(&settings);
    out.freeze()
}

/// Says that no stream from `id` on will be served (RFC 9114, section 5.2). Fails only with the connection.
pub(super) async fn go_away(control: &mut SendStream, id: u64) {
    let (mut number, mut out) = (BytesMut::new(), BytesMut::new());
    varint::write(&mut number, id);
    out.extend_from_slice(&frames::head(GOAWAY, number.len()));
    out.extend_from_slice(&number);
    drop(control.write_all(&out).await);
}

/// Reads a stream of the client's to its end; what is wrong on it ends the connection.
pub(super) async fn read(shared: Rc<Shared>, mut stream: RecvStream) {
    let mut reading = Reading::default();
    loop {
        let bytes = match next(&mut stream).await {
            Ok(Some(bytes)) => bytes,
            Ok(None) | Err(Lost) if reading.may_end() => return,
            Ok(None) | Err(Lost) => return shared.close(Code::ClosedCriticalStream),
        };
        match reading.take(&shared.seen, bytes) {
            Ok(Wanted::More) => {}
            Ok(Wanted::Nothing) => return drop(stream.stop(Code::StreamCreationError.into())),
            Err(code) => return shared.close(code),
        }
    }
}

/// A stream of the client's, as far as it came.
#[derive(Debug)]
pub(super) enum Reading {
    /// Its type, as far as that came.
    Type(BytesMut),
    Control(Frames, Commands),
    Encoder,
    /// Without a table nothing matters that a decoder says.
    Decoder,
}

/// Whether the rest of a stream is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    More,
    /// It is of an extension that we don't know.
    Nothing,
}

impl Default for Reading {
    fn default() -> Self {
        Self::Type(BytesMut::new())
    }
}

impl Reading {
    /// Takes what comes next, in whatever pieces. Of some streams there is one among those of a connection that were `seen`.
    ///
    /// # Errors
    /// What the connection ends with.
    pub(super) fn take(&mut self, seen: &Seen, mut bytes: Bytes) -> Result<Wanted, Code> {
        if let Self::Type(start) = self {
            start.extend_from_slice(&bytes);
            let Some((kind, used)) = varint::read(start) else { return Ok(Wanted::More) };
            bytes = std::mem::take(start).freeze().slice(used..);
            let Some(known) = Self::of(kind, seen)? else { return Ok(Wanted::Nothing) };
            *self = known;
        }
        match self {
            Self::Control(frames, commands) => commands.take(frames, bytes)?,
            Self::Encoder if bytes.iter().any(|byte| *byte != NO_CAPACITY) => {
                return Err(Code::QpackEncoderStreamError);
            }
            Self::Type(_) | Self::Encoder | Self::Decoder => {}
        }
        Ok(Wanted::More)
    }

    /// A stream of a type that begins; none if we don't know the type.
    fn of(kind: u64, seen: &Seen) -> Result<Option<Self>, Code> {
        let (seen, begun) = match kind {
            CONTROL => (&seen.control, Self::Control(Frames::new(Use::Control), Commands::default())),
            ENCODER => (&seen.encoder, Self::Encoder),
            DECODER => (&seen.decoder, Self::Decoder),
            PUSH => return Err(Code::StreamCreationError),
            _ => return Ok(None),
        };
        if seen.replace(true) { Err(Code::StreamCreationError) } else { Ok(Some(begun)) }
    }

    /// Whether it may end here: before it has a type. The others last as long as their connection.
    pub(super) fn may_end(&self) -> bool {
        matches!(self, Self::Type(_))
    }

    /// Whether it is a control stream, and no frame has begun.
    pub(super) fn is_between(&self) -> bool {
        matches!(self, Self::Control(frames, _) if frames.is_between())
    }

    /// Bytes that it holds until more of them come.
    pub(super) fn held(&self) -> usize {
        match self {
            Self::Type(start) => start.len(),
            Self::Control(frames, _) => frames.held(),
            Self::Encoder | Self::Decoder => 0,
        }
    }
}

/// The client reset the stream, or the connection is over.
struct Lost;

async fn next(stream: &mut RecvStream) -> Result<Option<Bytes>, Lost> {
    stream.read_chunk(CHUNK, true).await.map(|chunk| chunk.map(|chunk| chunk.bytes)).map_err(|_| Lost)
}

/// What came on the client's control stream.
#[derive(Debug, Default)]
pub(super) struct Commands {
    settled: bool,
    going: Option<u64>,
    pushes: Option<u64>,
}

impl Commands {
    fn take(&mut self, frames: &mut Frames, mut bytes: Bytes) -> Result<(), Code> {
        loop {
            match frames.next(&mut bytes) {
                Ok(None) => return Ok(()),
                Ok(Some(Piece::Frame(kind, payload))) => self.frame(kind, &payload)?,
                Ok(Some(Piece::Data(_))) => return Err(Code::FrameUnexpected),
                // What may not be there is no settings either.
                Err(Fault::Connection(_)) if !self.settled => return Err(Code::MissingSettings),
                Err(Fault::Connection(code)) => return Err(code),
                Err(Fault::TooLarge) => return Err(Code::ExcessiveLoad),
            }
        }
    }

    fn frame(&mut self, kind: u64, payload: &[u8]) -> Result<(), Code> {
        match (kind, self.settled) {
            (SETTINGS, false) => {
                self.settled = true;
                check_settings(payload)
            }
            (SETTINGS, true) => Err(Code::FrameUnexpected),
            (_, false) => Err(Code::MissingSettings),
            // Neither may come back to what it was (sections 5.2 and 7.2.7).
            (GOAWAY, true) => {
                let id = number(payload)?;
                let before = self.going.replace(id);
                if before.is_some_and(|before| id > before) { Err(Code::IdError) } else { Ok(()) }
            }
            (MAX_PUSH_ID, true) => {
                let id = number(payload)?;
                let before = self.pushes.replace(id);
                if before.is_some_and(|before| id < before) { Err(Code::IdError) } else { Ok(()) }
            }
            // Nothing was ever promised.
            (CANCEL_PUSH, true) => number(payload).and(Err(Code::IdError)),
            _ => Ok(()),
        }
    }
}

/// The one number that a frame consists of.
fn number(payload: &[u8]) -> Result<u64, Code> {
    match varint::read(payload) {
        Some((number, used)) if used == payload.len() => Ok(number),
        _ => Err(Code::FrameError),
    }
}

/// None of them matters to us, but all have to be settings (RFC 9114, section 7.2.4).
fn check_settings(mut payload: &[u8]) -> Result<(), Code> {
    let mut seen = BTreeSet::new();
    while !payload.is_empty() {
        let (setting, used) = varint::read(payload).ok_or(Code::FrameError)?;
        let rest = payload.get(used..).unwrap_or_default();
        let (_value, used) = varint::read(rest).ok_or(Code::FrameError)?;
        payload = rest.get(used..).unwrap_or_default();
        if RESERVED_SETTINGS.contains(&setting) || !seen.insert(setting) {
            return Err(Code::SettingsError);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u64, payload: &[u8]) -> Vec<u8> {
        [&frames::head(kind, payload.len())[..], payload].concat()
    }

    fn taken(frames: &[Vec<u8>]) -> Result<(), Code> {
        Commands::default().take(&mut Frames::new(Use::Control), frames.concat().into())
    }

    #[test]
    fn a_control_stream_begins_with_settings_and_keeps_to_what_it_said() {
        let settings = || frame(SETTINGS, &[6, 0x40, 100, 0x21, 0]);
        let unknown = || frame(0x21, b"grease");
        assert_eq!(taken(&[unknown(), settings(), unknown(), frame(GOAWAY, &[8]), frame(GOAWAY, &[4])]), Ok(()));
        assert_eq!(taken(&[settings(), frame(MAX_PUSH_ID, &[4]), frame(MAX_PUSH_ID, &[8])]), Ok(()));
        for (frames, code) in [
            (vec![frame(GOAWAY, &[0])], Code::MissingSettings),
            (vec![frame(frames::DATA, b"x")], Code::MissingSettings),
            (vec![settings(), settings()], Code::FrameUnexpected),
            (vec![settings(), frame(frames::HEADERS, b"x")], Code::FrameUnexpected),
            (vec![settings(), frame(GOAWAY, &[4]), frame(GOAWAY, &[8])], Code::IdError),
            (vec![settings(), frame(MAX_PUSH_ID, &[8]), frame(MAX_PUSH_ID, &[4])], Code::IdError),
            (vec![settings(), frame(CANCEL_PUSH, &[0])], Code::IdError),
            (vec![settings(), frame(GOAWAY, &[0, 0])], Code::FrameError),
            (vec![frame(SETTINGS, &[6])], Code::FrameError),
            (vec![frame(SETTINGS, &[0x2, 0])], Code::SettingsError),
            (vec![frame(SETTINGS, &[6, 1, 6, 1])], Code::SettingsError),
            (vec![frames::head(SETTINGS, 5000).to_vec()], Code::ExcessiveLoad),
        ] {
            assert_eq!(taken(&frames), Err(code), "{frames:x?}");
        }
    }

    #[test]
    fn our_own_begins_with_settings() {
        let hello = hello(60 * 1024);
        assert_eq!(&hello[..], &[0, 4, 5, 6, 0x80, 0, 0xf0, 0]);
    }
}
