//! What a mesh is started with, and what other nodes need to join it.

/// How a mesh differs from the usual one.
#[derive(Clone, Copy, Debug, Default)]
pub struct Setup<'a> {
    /// More options of every node's proxy.
    pub proxy: &'a [&'a str],
    /// More options of the primary.
    pub primary: &'a [&'a str],
    /// Machines on the same wire that run nothing of ours; pods of the manifests that are for them aren't started.
    pub machines: &'a [&'a str],
}

/// What lets a node join.
#[derive(Clone, Debug)]
pub struct Invitation {
    /// Where the primary listens, `host:port`.
    pub primary: String,
    /// The one-time token.
    pub token: String,
    /// The mesh's root, as `--root-hash` takes it.
    pub root_hash: String,
}
