//! What the pods of all Gateways have in common.

use std::path::PathBuf;

use super::super::settings::Account;

/// What the pods of all Gateways have in common.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodSettings {
    /// The image of the node proxy, whose other front a Gateway is.
    pub image: String,
    /// `imagePullPolicy`; empty for what the cluster does by itself.
    pub pull_policy: String,
    /// Secrets for pulling it, which have to be in the Gateway's namespace.
    pub pull_secrets: Vec<String>,
    /// Where the configuration comes from, `host:port`.
    pub control: String,
    /// Who that must be.
    pub control_account: Account,
    /// Where certificates come from, `host:port`.
    pub ca: String,
    /// Who that must be.
    pub ca_account: Account,
    /// The mesh's trust domain.
    pub trust_domain: String,
    /// Its other names.
    pub trust_domain_aliases: Vec<String>,
    /// The audience of tokens.
    pub token_audience: String,
    /// Filter of the log.
    pub log: String,
    /// More arguments for the process.
    pub arguments: Vec<String>,
    /// The file with the mesh's roots, a copy of which each Gateway gets.
    pub roots: PathBuf,
}
