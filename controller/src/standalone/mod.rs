//! The primary of a standalone mesh: does for a directory of manifests what a cluster otherwise would.

mod command;
mod listening;
mod nodes;
mod primary;
mod tokens;
mod world;

pub use command::{Attachment, Command, EnrolmentView, PrimaryHandle, Verdict};
pub use listening::{Bound, Listening, Streams};
pub use nodes::{NodeService, Roots};
pub use primary::{Manifests, Primary, PrimarySettings};
pub use tokens::{JoinRefused, Tokens, bearer};
pub use world::{Saved, World};
