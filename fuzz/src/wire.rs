//! Configuration, as it comes over delta xDS and out of a saved file.

use weft_core::wire::{TYPE_URLS, decode, encode, name, type_url};

use crate::choice;

/// A resource that is taken is sent on as it is understood: its type, a line with its name, its message.
pub(crate) fn resource(data: &[u8]) {
    let (kind, data) = choice(data);
    let end = data.iter().position(|byte| *byte == b'\n').unwrap_or(data.len());
    let (called, body) = data.split_at(end);
    let (Some(kind), Ok(called)) = (TYPE_URLS.get(kind % TYPE_URLS.len()), std::str::from_utf8(called)) else { return };
    let Ok(resource) = decode(kind, called, body.get(1..).unwrap_or_default()) else { return };
    let key = resource.key();
    assert_eq!((type_url(&key), name(&key).as_str()), (*kind, called));
    let written = encode(&resource);
    assert_eq!(decode(kind, called, &written).as_ref(), Ok(&resource));
    assert_eq!(encode(&resource), written);
}
