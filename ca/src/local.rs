//! The authority as a source of certificates for its own process (standalone mode).

use std::sync::Arc;

use weft_tls::{FetchError, FetchFuture, SvidRequest, SvidSource};

use crate::authority::Authority;

/// Issues without a network between. Only for identities that the process itself decides on.
#[derive(Clone, Debug)]
pub struct LocalSource(pub Arc<Authority>);

impl SvidSource for LocalSource {
    fn fetch(&self, request: SvidRequest) -> FetchFuture<'_> {
        Box::pin(async move {
            match self.0.issue(&request.csr, &request.identity, None) {
                Ok(issued) => Ok(issued.chain),
                Err(error) if error.is_ours() => Err(FetchError::Unavailable(error.to_string())),
                Err(error) => Err(FetchError::Refused(error.to_string())),
            }
        })
    }
}
