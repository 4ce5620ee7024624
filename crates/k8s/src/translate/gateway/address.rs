//! `spec.addresses` of a Gateway.

use std::net::IpAddr;

use super::Place;
use crate::object::Gateway;
use crate::translate::{Problem, Reason};

/// The addresses asked for. An entry without a value leaves the choice to us.
pub(super) fn requested(gateway: &Gateway, place: &Place) -> (Vec<IpAddr>, Option<Problem>) {
    let mut requested = Vec::new();
    for (i, address) in gateway.spec.addresses.iter().flatten().enumerate() {
        let field = format!("spec.addresses[{i}]");
        let wrong = |part: &str, message: String| {
            let remedy = match place {
                Place::Machine { .. } => {
                    "ask for an IPAddress that this machine has, or for none: then all of them are listened on"
                }
                Place::Cluster => "ask for an IPAddress that the cluster's load balancers can give, or for none",
            };
            Problem::new(format!("{field}{part}"), Reason::UnsupportedAddress, message, remedy)
        };
        let kind = address.r#type.as_deref().unwrap_or("IPAddress");
        if kind != "IPAddress" {
            return (Vec::new(), Some(wrong(".type", format!("{kind:?} is not a type of address that can be given"))));
        }
        match address.value.as_deref().filter(|value| !value.is_empty()).map(str::parse::<IpAddr>) {
            Some(Ok(ip)) if !requested.contains(&ip) => requested.push(ip),
            Some(Ok(_)) | None => {}
            Some(Err(_)) => {
                let value = address.value.as_deref().unwrap_or_default();
                return (Vec::new(), Some(wrong(".value", format!("{value:?} is not an address"))));
            }
        }
    }
    (requested, None)
}
