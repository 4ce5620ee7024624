//! SPIFFE X.509 authority: issue, rotate, publish the trust bundle.
