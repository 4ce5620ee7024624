//! What people may see of the live mesh, for `weft tap` and `weft dashboard`: HTTP/2 over TLS on a port of its own.
//!
//! ```text
//!  weft --port-forward, TLS (our certificate), a bearer token--> server -> route -> auth -> an endpoint
//! ```
//!
//! - `server`: connections and the table of endpoints. `auth`: who asks, and whether they may.
//! - [`tap`]: requests as they pass, of all proxies. `proxies`: which there are, and the way to them.
//! - `dashboard`: who calls whom, routes with their measured split, certificates, failures.
//!
//! Nothing is shown without a token that the API server knows, and without a right in the namespace asked for: `get` on
//! `taps.weftmesh.io` or `views.weftmesh.io`, as if those were kinds. Nothing can be changed here.

mod auth;
mod dashboard;
mod proxies;
mod server;
pub mod tap;

pub use self::auth::{AUDIENCE, Guard, Refused, Resource};
pub use self::dashboard::{Dashboard, Pages, page_of};
pub use self::proxies::{Dial, Io, OfGateway, Places, Proxies, Proxy, by_tls};
pub use self::server::{Answer, Asked, View, json};

/// The port, unless another one is given.
pub const PORT: u16 = 15016;
