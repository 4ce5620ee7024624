//! Just enough WebSocket (RFC 6455) to tell whether an upgraded connection carries bytes both ways.
//!
//! No fragmentation, no extensions, payloads below 64 KiB.

use anyhow::{Result, bail, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha1::{Digest as _, Sha1};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

/// RFC 6455 section 1.3.
const GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// What a frame says (RFC 6455 section 5.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opcode {
    /// UTF-8.
    Text = 1,
    /// Bytes.
    Binary = 2,
    /// The end.
    Close = 8,
    /// A question.
    Ping = 9,
    /// Its answer.
    Pong = 10,
}

/// Who sends: a client masks its payloads, a server must not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Masks.
    Client,
    /// Doesn't.
    Server,
}

/// `Sec-WebSocket-Accept` for a `Sec-WebSocket-Key`.
pub fn accept_key(key: &str) -> String {
    STANDARD.encode(Sha1::digest(format!("{key}{GUID}")))
}

/// Writes one whole frame.
///
/// # Errors
/// When the stream fails or the payload is 64 KiB or more.
pub async fn write(io: &mut (impl AsyncWrite + Unpin), role: Role, opcode: Opcode, payload: &[u8]) -> Result<()> {
    let masked: u8 = if role == Role::Client { 0x80 } else { 0 };
    let mut frame = vec![0x80 | opcode as u8];
    match u8::try_from(payload.len()) {
        Ok(len) if len < 126 => frame.push(masked | len),
        _ => {
            frame.push(masked | 126);
            frame.extend_from_slice(&u16::try_from(payload.len())?.to_be_bytes());
        }
    }
    let mask = if role == Role::Client { fastrand::u32(..).to_be_bytes() } else { [0; 4] };
    if role == Role::Client {
        frame.extend_from_slice(&mask);
    }
    frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(b, m)| b ^ m));
    io.write_all(&frame).await?;
    Ok(io.flush().await?)
}

/// Reads one whole frame.
///
/// # Errors
/// When the stream ends or fails, or the frame isn't what this module knows.
pub async fn read(io: &mut (impl AsyncRead + Unpin)) -> Result<(Opcode, Vec<u8>)> {
    let (first, second) = (io.read_u8().await?, io.read_u8().await?);
    ensure!(first & 0x80 != 0, "a fragment");
    let opcode = match first & 0x7f {
        1 => Opcode::Text,
        2 => Opcode::Binary,
        8 => Opcode::Close,
        9 => Opcode::Ping,
        10 => Opcode::Pong,
        other => bail!("opcode {other}"),
    };
    let len = match second & 0x7f {
        126 => io.read_u16().await?,
        127 => bail!("a frame of 64 KiB or more"),
        len => len.into(),
    };
    let mut mask = [0; 4];
    if second & 0x80 != 0 {
        io.read_exact(&mut mask).await?;
    }
    let mut payload = vec![0; len.into()];
    io.read_exact(&mut payload).await?;
    payload.iter_mut().zip(mask.iter().cycle()).for_each(|(b, m)| *b ^= m);
    Ok((opcode, payload))
}

/// Answers every frame with its own payload until the other side closes.
///
/// # Errors
/// When the stream fails.
pub async fn echo(io: &mut (impl AsyncRead + AsyncWrite + Unpin)) -> Result<()> {
    loop {
        let (opcode, payload) = read(io).await?;
        let answer = if opcode == Opcode::Ping { Opcode::Pong } else { opcode };
        write(io, Role::Server, answer, &payload).await?;
        if opcode == Opcode::Close {
            return Ok(io.shutdown().await?);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of RFC 6455 section 1.3.
    #[test]
    fn accept_key_of_the_rfc() {
        assert_eq!(accept_key("dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[tokio::test]
    async fn frames_of_both_sizes_come_back() {
        let (mut client, mut server) = tokio::io::duplex(1 << 20);
        for len in [0, 1, 125, 126, 65_535] {
            let payload = vec![b'x'; len];
            write(&mut client, Role::Client, Opcode::Binary, &payload).await.unwrap();
            assert_eq!(read(&mut server).await.unwrap(), (Opcode::Binary, payload));
        }
    }
}
