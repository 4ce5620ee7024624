//! The only user of rustls: SPIFFE verification, certificate store, rotation.
