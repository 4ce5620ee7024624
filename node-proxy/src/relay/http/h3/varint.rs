//! Integers of variable length (RFC 9000, section 16).

use bytes::{BufMut, BytesMut};

/// The greatest that can be written.
pub(super) const MAX: u64 = (1 << 62) - 1;

/// Reads one from the start of some bytes; with the bytes that it took. `None`: more are needed.
pub(super) fn read(bytes: &[u8]) -> Option<(u64, usize)> {
    let first = *bytes.first()?;
    let length = 1_usize << (first >> 6);
    let rest = bytes.get(1..length)?;
    let start = u64::from(first & 0x3f);
    Some((rest.iter().fold(start, |value, byte| value << 8 | u64::from(*byte)), length))
}

/// Writes one in as few bytes as it takes; what is too great is written as the greatest.
pub(super) fn write(out: &mut BytesMut, value: u64) {
    let value = value.min(MAX);
    match value {
        0..=0x3f => out.put_u8(value as u8),
        0x40..=0x3fff => out.put_u16(value as u16 | 0x4000),
        0x4000..=0x3fff_ffff => out.put_u32(value as u32 | 0x8000_0000),
        _ => out.put_u64(value | 0xc000_0000_0000_0000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_come_back_and_those_of_the_rfc_are_read() {
        for value in [0, 0x3f, 0x40, 0x3fff, 0x4000, 0x3fff_ffff, 0x4000_0000, MAX] {
            let mut out = BytesMut::new();
            write(&mut out, value);
            assert_eq!(read(&out), Some((value, out.len())));
            assert_eq!(read(&out[..out.len() - 1]), None, "{value} is cut short");
        }
        // RFC 9000, appendix A.1.
        for (bytes, value) in [
            (&[0xc2, 0x19, 0x7c, 0x5e, 0xff, 0x14, 0xe8, 0x8c][..], 151_288_809_941_952_652),
            (&[0x9d, 0x7f, 0x3e, 0x7d], 494_878_333),
            (&[0x7b, 0xbd], 15_293),
            (&[0x25], 37),
            (&[0x40, 0x25], 37),
        ] {
            assert_eq!(read(bytes), Some((value, bytes.len())));
        }
    }
}
