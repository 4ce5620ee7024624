//! mesh policy
