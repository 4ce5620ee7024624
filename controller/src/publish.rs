//! Changes of the configuration as what is served over delta xDS.

use weft_core::change::Change;
use weft_core::wire;
use weft_xds::{Encoded, ResourceName, TypeUrl, Update};

/// A change as the wire has it.
pub(crate) fn encode(change: &Change) -> Update {
    let name = |key| ResourceName::new(TypeUrl::new(wire::type_url(key)), wire::name(key));
    match change {
        Change::Upsert(resource) => {
            Update::Set(Encoded { name: name(&resource.key()), body: wire::encode(resource).into() })
        }
        Change::Remove(key) => Update::Remove(name(key)),
    }
}
