//! Field sections without a dynamic table (RFC 9204): we offer a client none, so that a header never waits for another stream
//! and a connection holds no memory for it.

use bytes::{BufMut, Bytes, BytesMut};

use super::huffman;
use super::table::{STATIC, find};

/// What a field costs beyond its name and value (RFC 9114, section 4.2.2).
const OVERHEAD: usize = 32;

/// A field, its name as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Field {
    pub(super) name: Bytes,
    pub(super) value: Bytes,
}

/// Why a section isn't read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unread {
    /// It can't be understood: the connection is over (QPACK_DECOMPRESSION_FAILED).
    Malformed,
    /// It is bigger than what we take.
    TooLarge,
}

impl From<huffman::Malformed> for Unread {
    fn from(_: huffman::Malformed) -> Self {
        Self::Malformed
    }
}

/// How much of a section is taken.
#[derive(Clone, Copy, Debug)]
pub(super) struct Most {
    /// Of names and values, with what each costs beside, in bytes.
    pub(super) bytes: usize,
    /// Of fields, without cookies: each may have a field of its own (RFC 9114, section 4.2.1).
    pub(super) fields: usize,
}

/// Reads the fields of a section (RFC 9204, section 4.5).
///
/// # Errors
/// It refers to a dynamic table, is malformed, or is too large.
pub(super) fn decode(section: &[u8], most: Most) -> Result<Vec<Field>, Unread> {
    let mut reader = Reader(section);
    // The prefix: what is required of the dynamic table is nothing, and the base doesn't matter.
    if reader.integer(8)? != 0 {
        return Err(Unread::Malformed);
    }
    reader.integer(7)?;
    let (mut fields, mut room, mut counted) = (Vec::new(), most.bytes, 0);
    while let Some(first) = reader.0.first().copied() {
        let field = reader.field(first, room)?;
        let size = field.name.len() + field.value.len() + OVERHEAD;
        room = room.checked_sub(size).ok_or(Unread::TooLarge)?;
        counted += usize::from(field.name != "cookie");
        if counted > most.fields {
            return Err(Unread::TooLarge);
        }
        fields.push(field);
    }
    Ok(fields)
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn byte(&mut self) -> Result<u8, Unread> {
        let (first, rest) = self.0.split_first().ok_or(Unread::Malformed)?;
        self.0 = rest;
        Ok(*first)
    }

    /// An integer in the low bits of the next byte, and in further bytes (RFC 7541, section 5.1).
    fn integer(&mut self, bits: u32) -> Result<usize, Unread> {
        let mask = (1_usize << bits) - 1;
        let mut value = usize::from(self.byte()?) & mask;
        if value < mask {
            return Ok(value);
        }
        // Four bytes are 28 bits: nothing here is as long as that.
        for shift in [0, 7, 14, 21] {
            let byte = self.byte()?;
            value += usize::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(Unread::Malformed)
    }

    /// A text whose length is in the low bits of the next byte, behind the bit that says how it is written.
    fn text(&mut self, bits: u32, room: usize) -> Result<Bytes, Unread> {
        let first = *self.0.first().ok_or(Unread::Malformed)?;
        let length = self.integer(bits)?;
        let (text, rest) = self.0.split_at_checked(length).ok_or(Unread::Malformed)?;
        self.0 = rest;
        if first >> bits & 1 == 1 {
            return Ok(huffman::decode(text, room)?.ok_or(Unread::TooLarge)?.into());
        }
        if text.len() > room { Err(Unread::TooLarge) } else { Ok(Bytes::copy_from_slice(text)) }
    }

    fn field(&mut self, first: u8, room: usize) -> Result<Field, Unread> {
        let of_table = |index: usize| STATIC.get(index).copied().ok_or(Unread::Malformed);
        match first {
            // Indexed, of the static table.
            0xc0.. => {
                let (name, value) = of_table(self.integer(6)?)?;
                Ok(Field { name: Bytes::from_static(name.as_bytes()), value: Bytes::from_static(value.as_bytes()) })
            }
            // Literal with the name of the static table. Whether it may be indexed again is of no use to us.
            0x50..=0x5f | 0x70..=0x7f => {
                let (name, _) = of_table(self.integer(4)?)?;
                Ok(Field { name: Bytes::from_static(name.as_bytes()), value: self.text(7, room)? })
            }
            // Literal with a name of its own.
            0x20..=0x3f => Ok(Field { name: self.text(3, room)?, value: self.text(7, room)? }),
            // Of the dynamic table.
            _ => Err(Unread::Malformed),
        }
    }
}

/// Writes a section, field by field.
#[derive(Debug)]
pub(super) struct Encoder(BytesMut);

impl Encoder {
    pub(super) fn new() -> Self {
        let mut out = BytesMut::with_capacity(256);
        out.put_slice(&[0, 0]);
        Self(out)
    }

    /// Adds a field; its name is in lower case. A sensitive one must not be put into tables further on (N, RFC 9204, section
    /// 7.1.3).
    pub(super) fn field(&mut self, name: &str, value: &[u8], sensitive: bool) {
        match find(name, value) {
            Some((index, true)) if !sensitive => integer(&mut self.0, 0xc0, 6, index),
            Some((index, _)) => {
                integer(&mut self.0, if sensitive { 0x70 } else { 0x50 }, 4, index);
                text(&mut self.0, 0, 7, value);
            }
            None => {
                text(&mut self.0, if sensitive { 0x30 } else { 0x20 }, 3, name.as_bytes());
                text(&mut self.0, 0, 7, value);
            }
        }
    }

    pub(super) fn finish(self) -> Bytes {
        self.0.freeze()
    }
}

fn text(out: &mut BytesMut, flags: u8, bits: u32, text: &[u8]) {
    integer(out, flags, bits, text.len());
    out.put_slice(text);
}

fn integer(out: &mut BytesMut, flags: u8, bits: u32, value: usize) {
    let mask = (1_usize << bits) - 1;
    if value < mask {
        return out.put_u8(flags | value as u8);
    }
    out.put_u8(flags | mask as u8);
    let mut rest = value - mask;
    while rest >= 0x80 {
        out.put_u8(0x80 | (rest & 0x7f) as u8);
        rest >>= 7;
    }
    out.put_u8(rest as u8);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MOST: Most = Most { bytes: 1000, fields: 10 };

    fn field(name: &str, value: &str) -> Field {
        Field { name: Bytes::copy_from_slice(name.as_bytes()), value: Bytes::copy_from_slice(value.as_bytes()) }
    }

    #[test]
    fn sections_of_others_are_read() {
        // RFC 9204, appendix B.1: a literal with a name of the static table.
        let section = [&[0, 0, 0x51, 0x0b][..], b"/index.html"].concat();
        assert_eq!(decode(&section, MOST), Ok(vec![field(":path", "/index.html")]));
        // Indexed, and a literal in Huffman's code with a name of its own.
        let section =
            [&[0, 0, 0xd1, 0x2f, 0x01][..], &[0x25, 0xa8, 0x49, 0xe9, 0x5b, 0xa9, 0x7d, 0x7f], b"\x01x"].concat();
        assert_eq!(decode(&section, MOST), Ok(vec![field(":method", "GET"), field("custom-key", "x")]));
    }

    #[test]
    fn what_refers_to_a_dynamic_table_or_is_cut_short_is_malformed() {
        for wrong in [
            &[][..],
            &[0],
            // Something is required of the table; an index of it, by base and behind it; a name of it.
            &[1, 0, 0x80],
            &[0, 0, 0x80],
            &[0, 0, 0x10],
            &[0, 0, 0x40, 0],
            &[0, 0, 0x00, 0],
            // No such entry, an integer without an end, a text that isn't there.
            &[0, 0, 0xff, 0x40],
            &[0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
            &[0, 0, 0x51, 0x05, b'a'],
            &[0, 0, 0x51, 0x81, 0x00],
        ] {
            assert_eq!(decode(wrong, MOST), Err(Unread::Malformed), "{wrong:x?}");
        }
    }

    #[test]
    fn a_section_is_read_up_to_its_limits() {
        let with = |count: usize, value: &str| {
            let mut encoder = Encoder::new();
            (0..count).for_each(|_| encoder.field("a", value.as_bytes(), false));
            encoder.finish()
        };
        assert_eq!(decode(&with(10, "x"), MOST).map(|fields| fields.len()), Ok(10));
        assert_eq!(decode(&with(11, "x"), MOST), Err(Unread::TooLarge));
        let cookies = |count: usize| {
            let mut encoder = Encoder::new();
            (0..count).for_each(|_| encoder.field("cookie", b"a=1", false));
            encoder.finish()
        };
        assert_eq!(decode(&cookies(20), MOST).map(|fields| fields.len()), Ok(20), "by their bytes only");
        assert_eq!(decode(&cookies(30), MOST), Err(Unread::TooLarge));
        let just = "x".repeat(1000 - 33);
        assert!(decode(&with(1, &just), MOST).is_ok());
        assert_eq!(decode(&with(1, &(just + "x")), MOST), Err(Unread::TooLarge));
        // What is small on the wire and big in memory: Huffman's code for '0' has five bits.
        let coded = [&[0, 0, 0x51, 0xff, 0x81, 0x06][..], &[0; 896 + 127]].concat();
        assert_eq!(decode(&coded, MOST), Err(Unread::TooLarge));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(
            fields in prop::collection::vec((
                prop_oneof!["[a-z-]{1,20}", Just(":status".to_owned()), Just("content-type".to_owned())],
                prop_oneof!["[ -~]{0,200}", Just("200".to_owned())], any::<bool>(),
            ), 0..10)
        ) {
            let mut encoder = Encoder::new();
            fields.iter().for_each(|(name, value, sensitive)| encoder.field(name, value.as_bytes(), *sensitive));
            let expected: Vec<_> = fields.iter().map(|(name, value, _)| field(name, value)).collect();
            prop_assert_eq!(decode(&encoder.finish(), Most { bytes: 10_000, fields: 10 }), Ok(expected));
        }

        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode(&bytes, MOST);
        }
    }
}
