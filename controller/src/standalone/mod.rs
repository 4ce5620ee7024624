//! The primary of a standalone mesh: does for a directory of manifests what a cluster otherwise would.

mod command;
mod nodes;
mod tokens;

pub use command::{Attachment, Command, EnrolmentView, PrimaryHandle, Verdict};
pub use nodes::{NodeService, Roots};
pub use tokens::{JoinRefused, Tokens, bearer};
