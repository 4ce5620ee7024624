//! Every number a peer or a load can push against, in one place, with the reason for its default.
//!
//! Limits that the `h2` crate holds by itself and that we rely on: at most 100 empty DATA frames without END_STREAM per
//! connection; one PING and one SETTINGS answered at a time, with back-pressure on reading while the answer can't be written
//! (ping and settings floods, CVE-2019-9512, CVE-2019-9515); a number of CONTINUATION frames derived from
//! `max_header_list_bytes` (CONTINUATION flood, CVE-2024-28182 and kin).

use std::time::Duration;

/// One TLS 1.3 record carries at most 2^14 bytes of plaintext (RFC 8446 section 5.1).
pub const TLS_RECORD: usize = 16_384;

/// The header of an HTTP/2 frame (RFC 9113 section 4.1).
pub const FRAME_HEADER: usize = 9;

/// The DATA payload we like best: with its frame header it fills four TLS records exactly, so that a bulk transfer never sends a
/// 9-byte record after a full one. Also the SETTINGS_MAX_FRAME_SIZE that we advertise. A bigger frame would gain nothing (the TLS
/// layer hands at most 64 KiB to one `writev`) and delay the other streams of its tunnel for longer: 64 KiB are 0.1 ms of a core.
pub const BULK_FRAME: usize = 4 * TLS_RECORD - FRAME_HEADER;

/// Windows and buffers of a tunnel, the same for both ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TunnelLimits {
    /// Bytes a peer may send on one stream before its reader takes them. 512 KiB fill 4 Gbit/s at 1 ms of round trip.
    pub stream_window: u32,
    /// Bytes a peer may send on all streams of a tunnel together. With [`Self::streams_per_tunnel`] stalled readers there is
    /// still window left, so that slow streams can't stall their tunnel.
    pub connection_window: u32,
    /// Bytes of one stream that wait for the tunnel's writer: one bulk frame. 128 and 256 KiB gained nothing measurable, and a
    /// stalled peer can make us hold this much per stream.
    pub send_buffer: usize,
    /// Decoded size of a header list, in bytes as RFC 9113 section 6.5.2 counts.
    pub max_header_list_bytes: u32,
    /// How many streams a client puts on one tunnel before it dials another. The peer's SETTINGS_MAX_CONCURRENT_STREAMS lowers it.
    pub streams_per_tunnel: usize,
    /// A tunnel without streams is closed after this long.
    pub idle: Duration,
    /// Pause between keepalive PINGs. A path that swallows packets silently is noticed after this plus `ping_timeout`.
    pub ping_interval: Duration,
    /// How long a PING may stay unanswered before the tunnel is broken.
    pub ping_timeout: Duration,
    /// How long dialling and the handshake of the transport may take.
    pub dial_timeout: Duration,
    /// How long the peer may take to answer a CONNECT; it connects to the application in that time.
    pub open_timeout: Duration,
}

impl TunnelLimits {
    /// The defaults, as a constant so that relations between them are checked at compile time.
    pub const DEFAULT: Self = Self {
        stream_window: 512 << 10,
        connection_window: 64 << 20,
        send_buffer: 64 << 10,
        max_header_list_bytes: 16 << 10,
        streams_per_tunnel: 100,
        idle: Duration::from_secs(90),
        ping_interval: Duration::from_secs(30),
        ping_timeout: Duration::from_secs(20),
        dial_timeout: Duration::from_secs(10),
        open_timeout: Duration::from_secs(10),
    };
}

impl Default for TunnelLimits {
    fn default() -> Self {
        Self::DEFAULT
    }
}

// A tunnel full of stalled readers leaves window for one more stream.
const _: () = assert!(
    TunnelLimits::DEFAULT.stream_window as usize * TunnelLimits::DEFAULT.streams_per_tunnel
        < TunnelLimits::DEFAULT.connection_window as usize
);

/// Limits of the accepting side. All hold per connection; how many connections there may be is the caller's business.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServerLimits {
    /// Windows, buffers and keepalive. `idle`, `dial_timeout`, `open_timeout` and `streams_per_tunnel` don't apply here.
    pub tunnel: TunnelLimits,
    /// SETTINGS_MAX_CONCURRENT_STREAMS that we advertise; more are refused with REFUSED_STREAM, which a client may retry.
    pub max_concurrent_streams: u32,
    /// How long the preface and the first SETTINGS may take after the transport is up (slow-loris).
    pub handshake_timeout: Duration,
    /// Streams that the peer resets before the codec hands them to us (rapid reset, CVE-2023-44487).
    pub max_pending_reset_streams: usize,
    /// Streams that the codec itself has to reset for the peer's protocol errors (MadeYouReset, CVE-2025-8671).
    pub max_error_reset_streams: usize,
    /// Streams whose reset by us is remembered, so that late frames for them are not errors.
    pub max_remembered_resets: usize,
    /// Streams that the peer resets before we answered: a burst of this many is allowed, refilled by `early_resets_per_second`.
    /// It covers a rapid reset slow enough for every stream to be handed out, which the codec doesn't count.
    pub early_reset_burst: u32,
    /// See `early_reset_burst`. Clients that give up connecting reset early too, so this is not zero.
    pub early_resets_per_second: u32,
    /// After the drain signal, how long open streams may go on before the connection is closed under them.
    pub drain_deadline: Duration,
}

impl Default for ServerLimits {
    fn default() -> Self {
        Self {
            tunnel: TunnelLimits::DEFAULT,
            max_concurrent_streams: 1000,
            handshake_timeout: Duration::from_secs(10),
            max_pending_reset_streams: 20,
            max_error_reset_streams: 1024,
            max_remembered_resets: 50,
            early_reset_burst: 200,
            early_resets_per_second: 50,
            drain_deadline: Duration::from_secs(30),
        }
    }
}
