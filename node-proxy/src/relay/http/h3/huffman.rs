//! The Huffman code of HPACK and QPACK (RFC 7541, section 5.2 and appendix B), read only: what we write goes without, since
//! that costs a client nothing and us less.

use std::sync::LazyLock;

/// The bits of each byte's code. The code is canonical: codes of one length follow each other in the order of their bytes.
const LENGTHS: [u8; 256] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28,
    28, 28, 28, 6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12,
    10, 13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6, 15, 5, 6,
    5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, 6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28, 20, 22, 20, 20, 22, 22,
    22, 23, 22, 23, 23, 23, 23, 23, 24, 23, 24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24, 22, 21, 20,
    22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
    26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, 19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28,
    27, 27, 27, 20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23, 26, 27, 26, 26, 27, 27, 27, 27, 27, 28,
    27, 27, 27, 27, 27, 26,
];
/// The longest code.
const LONGEST: usize = 30;
/// Padding is of fewer bits than a byte has (RFC 7541, section 5.2).
const MOST_PADDING: u8 = 7;

/// Codes by their length.
struct Codes {
    /// For each length: the first code, how many there are, and where their bytes begin.
    lengths: [(u32, u32, usize); LONGEST + 1],
    /// The bytes in the order of their codes.
    bytes: Vec<u8>,
}

static CODES: LazyLock<Codes> = LazyLock::new(|| {
    let mut codes = Codes { lengths: [(0, 0, 0); LONGEST + 1], bytes: Vec::with_capacity(LENGTHS.len()) };
    let mut next = 0;
    for (length, entry) in codes.lengths.iter_mut().enumerate() {
        next <<= 1;
        let start = codes.bytes.len();
        let of_length = (0..=u8::MAX).zip(LENGTHS).filter(|(_, bits)| usize::from(*bits) == length);
        codes.bytes.extend(of_length.map(|(byte, _)| byte));
        let count = u32::try_from(codes.bytes.len() - start).unwrap_or(0);
        *entry = (next, count, start);
        next += count;
    }
    codes
});

impl Codes {
    fn find(&self, code: u32, length: usize) -> Option<u8> {
        let (first, count, start) = *self.lengths.get(length)?;
        let place = code.checked_sub(first).filter(|place| *place < count)?;
        self.bytes.get(start + place as usize).copied()
    }
}

/// Why a text can't be read: a code that there isn't, or padding that is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Malformed;

/// Reads a text. Longer than `most` bytes it isn't read: `Ok(None)`.
///
/// # Errors
/// It is malformed.
pub(super) fn decode(coded: &[u8], most: usize) -> Result<Option<Vec<u8>>, Malformed> {
    let codes = &*CODES;
    let mut text = Vec::with_capacity((coded.len() * 8 / 5).min(most));
    let (mut code, mut length) = (0_u32, 0_usize);
    for byte in coded {
        for bit in (0..8).rev() {
            code = code << 1 | u32::from(byte >> bit & 1);
            length += 1;
            if let Some(found) = codes.find(code, length) {
                if text.len() == most {
                    return Ok(None);
                }
                text.push(found);
                (code, length) = (0, 0);
            } else if length >= LONGEST {
                // The end of the string as a symbol of its own is an error, too.
                return Err(Malformed);
            }
        }
    }
    // Padding is the beginning of that symbol: ones.
    let is_padding = length <= usize::from(MOST_PADDING) && code == (1 << length) - 1;
    if is_padding { Ok(Some(text)) } else { Err(Malformed) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(hex: &str) -> Vec<u8> {
        (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
    }

    #[test]
    fn the_examples_of_the_rfc_are_read() {
        // RFC 7541, appendices C.4 and C.6.
        for (coded, text) in [
            ("f1e3c2e5f23a6ba0ab90f4ff", "www.example.com"),
            ("a8eb10649cbf", "no-cache"),
            ("25a849e95ba97d7f", "custom-key"),
            ("25a849e95bb8e8b4bf", "custom-value"),
            ("6402", "302"),
            ("d07abe941054d444a8200595040b8166e082a62d1bff", "Mon, 21 Oct 2013 20:13:21 GMT"),
            ("", ""),
        ] {
            assert_eq!(decode(&bytes(coded), 100), Ok(Some(text.as_bytes().to_vec())), "{text}");
        }
    }

    #[test]
    fn every_byte_has_its_code_and_the_code_is_complete() {
        let total: u64 = LENGTHS.iter().map(|bits| 1_u64 << (LONGEST - usize::from(*bits))).sum();
        // The end of the string has one code of the longest.
        assert_eq!(total + 1, 1 << LONGEST);
        assert_eq!(CODES.bytes.len(), 256);
    }

    #[test]
    fn what_is_no_code_and_no_padding_is_refused() {
        // The end of the string, padding of zeros, padding of a whole byte.
        for wrong in ["ffffffff", "00", "a8eb10649cbfff"] {
            assert_eq!(decode(&bytes(wrong), 100), Err(Malformed), "{wrong}");
        }
        assert_eq!(decode(&bytes("f1e3c2e5f23a6ba0ab90f4ff"), 14), Ok(None), "longer than it may be");
    }
}
