//! Who may join and who has joined. Only hashes of tokens are kept, in files of mode 0600.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use parking_lot::RwLock;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use weft_core::ids::NodeName;

/// Bytes of randomness in a token.
const TOKEN_BYTES: usize = 32;

/// Why a node can't join.
#[derive(Debug, thiserror::Error)]
pub enum JoinRefused {
    /// The token was never made, was used, or is too old.
    #[error("the join token is not valid (any more): make a new one with `weft token` on the primary")]
    BadToken,
    /// The node's name is not a DNS label.
    #[error("{0:?} is not a node name: 1 to 63 characters of a-z, 0-9 and '-'")]
    BadName(String),
    /// The state can't be written.
    #[error("cannot write the node's token")]
    State(#[from] io::Error),
}

/// A file of the state directory.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Nodes {
    /// Node name to SHA-256 of its token, URL-safe base64.
    nodes: BTreeMap<String, String>,
}

/// The tokens of a standalone mesh.
#[derive(Debug)]
pub struct Tokens {
    dir: PathBuf,
    nodes: RwLock<Nodes>,
}

impl Tokens {
    /// Opens (or makes) the tokens below a state directory.
    ///
    /// # Errors
    /// If the directory can't be made or a file can't be read.
    pub fn open(state: &Path) -> io::Result<Self> {
        let dir = state.join("tokens");
        fs::DirBuilder::new().recursive(true).mode(0o700).create(dir.join("join"))?;
        let nodes = match fs::read(dir.join("nodes.json")) {
            Ok(bytes) => serde_json::from_slice(&bytes)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Nodes::default(),
            Err(error) => return Err(error),
        };
        Ok(Self { dir, nodes: RwLock::new(nodes) })
    }

    /// Makes a token that lets one node join within `life`. Works beside a running primary: a token is a file.
    ///
    /// # Errors
    /// If the file can't be written.
    pub fn make_join_token(&self, life: Duration) -> io::Result<String> {
        let token = random_token();
        let until = seconds(SystemTime::now() + life);
        write_private(&self.join_file(&token), until.to_string().as_bytes())?;
        Ok(token)
    }

    /// Lets a node in: uses its join token up and gives it a token of its own.
    ///
    /// # Errors
    /// See [`JoinRefused`].
    pub fn join(&self, join_token: &str, node: &NodeName) -> Result<String, JoinRefused> {
        if !is_node_name(node.as_str()) {
            return Err(JoinRefused::BadName(node.to_string()));
        }
        let file = self.join_file(join_token);
        let until = fs::read_to_string(&file).ok().and_then(|text| text.parse::<u64>().ok());
        // Whoever removes the file has used the token.
        fs::remove_file(&file).map_err(|_| JoinRefused::BadToken)?;
        if until.is_none_or(|until| until < seconds(SystemTime::now())) {
            return Err(JoinRefused::BadToken);
        }
        Ok(self.issue(node)?)
    }

    /// A new token for a node; the one before no longer counts.
    ///
    /// # Errors
    /// If the file can't be written.
    pub fn issue(&self, node: &NodeName) -> io::Result<String> {
        let token = random_token();
        let mut nodes = self.nodes.write();
        nodes.nodes.insert(node.to_string(), hash(&token));
        let bytes = serde_json::to_vec_pretty(&*nodes)?;
        write_private(&self.dir.join("nodes.json"), &bytes)?;
        Ok(token)
    }

    /// The node that a token belongs to. Tokens are compared by hash, so that time tells nothing of them.
    pub fn node_of(&self, token: &str) -> Option<NodeName> {
        let wanted = hash(token);
        let nodes = self.nodes.read();
        nodes.nodes.iter().find(|(_, hash)| **hash == wanted).map(|(node, _)| NodeName::new(node))
    }

    fn join_file(&self, token: &str) -> PathBuf {
        self.dir.join("join").join(hash(token))
    }
}

/// The token of an `authorization: Bearer` header.
pub fn bearer(metadata: &tonic::metadata::MetadataMap) -> Option<&str> {
    metadata.get("authorization")?.to_str().ok()?.strip_prefix("Bearer ")
}

/// Begins with a name: without one, a token in 64 would begin with `-` and be taken for an option; and whoever looks for
/// secrets in a text can find it.
fn random_token() -> String {
    format!("weft_{}", URL_SAFE_NO_PAD.encode(rand::random::<[u8; TOKEN_BYTES]>()))
}

fn hash(token: &str) -> String {
    URL_SAFE_NO_PAD.encode(Sha256::digest(token.as_bytes()))
}

fn seconds(at: SystemTime) -> u64 {
    at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

fn is_node_name(text: &str) -> bool {
    let legal = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    (1..=63).contains(&text.len()) && text.bytes().all(legal)
}

/// Writes a file that only its owner reads, whole or not at all.
pub(crate) fn write_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let temporary = path.with_extension(format!("{}.new", std::process::id()));
    let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&temporary, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_join_token_works_once_and_a_node_token_until_the_next() {
        let state = tempfile::tempdir().unwrap();
        let tokens = Tokens::open(state.path()).unwrap();
        let join = tokens.make_join_token(Duration::from_secs(60)).unwrap();
        assert!(join.starts_with("weft_"), "{join}");
        let node = NodeName::new("b");
        let first = tokens.join(&join, &node).unwrap();
        assert!(matches!(tokens.join(&join, &node), Err(JoinRefused::BadToken)), "used up");
        assert_eq!(tokens.node_of(&first), Some(node.clone()));
        let again = Tokens::open(state.path()).unwrap();
        assert_eq!(again.node_of(&first), Some(node.clone()), "survives a restart");
        let second = again.issue(&node).unwrap();
        assert_eq!((again.node_of(&first), again.node_of(&second)), (None, Some(node)));
        let stored = fs::read_to_string(state.path().join("tokens/nodes.json")).unwrap();
        assert!(!stored.contains(&second), "only hashes are kept");
    }

    #[test]
    fn an_old_or_made_up_token_and_a_bad_name_are_refused() {
        let state = tempfile::tempdir().unwrap();
        let tokens = Tokens::open(state.path()).unwrap();
        let old = tokens.make_join_token(Duration::ZERO).unwrap();
        let file = tokens.join_file(&old);
        fs::write(&file, "1").unwrap();
        assert!(matches!(tokens.join(&old, &NodeName::new("b")), Err(JoinRefused::BadToken)));
        assert!(matches!(tokens.join("../../etc", &NodeName::new("b")), Err(JoinRefused::BadToken)));
        assert!(matches!(tokens.join("x", &NodeName::new("../b")), Err(JoinRefused::BadName(_))));
    }
}
