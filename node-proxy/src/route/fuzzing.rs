//! See [`crate::fuzzing`].

use super::client_hello::{Parsed, parse};
use crate::fuzzing::Read;

/// The server name of the ClientHello that bytes are.
pub fn server_name(bytes: &[u8]) -> Read<Option<String>> {
    match parse(bytes) {
        Parsed::Incomplete => Read::More,
        Parsed::Other => Read::No,
        Parsed::Name(name) => Read::Whole(name),
    }
}
