//! Who somebody says to be.

use weft_core::identity::SpiffeId;

/// A name is read as it is written.
pub(crate) fn spiffe_id(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(id) = text.parse::<SpiffeId>() {
        assert_eq!(id.to_string(), text, "two texts would be one identity");
    }
}

/// An identity that a certificate names is in it, byte by byte.
pub(crate) fn certificate(data: &[u8]) {
    if let Ok(id) = weft_tls::identity_of_leaf(data) {
        let text = id.to_string();
        assert!(data.windows(text.len()).any(|at| at == text.as_bytes()), "{text}");
    }
}

/// A request names nobody, or whom it is for.
pub(crate) fn csr(data: &[u8]) {
    let (named, other) = ("spiffe://cluster.local/ns/shop/sa/web", "spiffe://cluster.local/ns/shop/sa/cart");
    let is_for = |text: &str| text.parse().is_ok_and(|id| weft_ca::is_request_for(data, &id));
    let says = |text: &str| data.windows(text.len()).any(|at| at == text.as_bytes());
    for (asked, another) in [(named, other), (other, named)] {
        assert!(!is_for(asked) || !says(another) || says(asked), "{another} got the certificate of {asked}");
    }
}
