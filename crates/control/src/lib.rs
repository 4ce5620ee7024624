//! The way to the control plane. For its clients: [`channel()`] whose server is known beforehand, the caller's token
//! ([`authorize`]), and the client of the certificate authority ([`IdentityClient`]). For its servers: [`bind()`] and [`control_incoming`].

mod authority;
mod bind;
mod channel;
mod dial;
mod serve;

pub use authority::{BundleError, IdentityClient};
pub use bind::bind;
pub use channel::{PROCESS_SINCE, TokenSource, authorize, channel, token_file};
pub use serve::{TlsIo, control_incoming};
