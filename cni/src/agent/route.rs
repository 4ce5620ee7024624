//! Which address of the node its own traffic to a pod has, as `ip route get` tells.

use std::io;
use std::net::IpAddr;

use futures::TryStreamExt as _;
use rtnetlink::packet_route::route::{RouteAddress, RouteAttribute, RouteMessage};
use rtnetlink::{Handle, RouteMessageBuilder};
use weft_sys::Netns;

/// The source addresses that the routes of `home` choose towards these addresses, each once. An address of a family
/// that the node has no route for adds none.
///
/// # Errors
/// When the kernel can't be asked, or knows no way to any of the addresses.
pub async fn sources_towards(home: &Netns, ips: &[IpAddr]) -> io::Result<Vec<IpAddr>> {
    let (connection, handle, _) = home.run(rtnetlink::new_connection)??;
    let connection = tokio::spawn(connection);
    let mut sources = Vec::new();
    let mut refusal = None;
    for ip in ips {
        match source_towards(&handle, *ip).await {
            Ok(source) => sources.extend(source.filter(|source| !sources.contains(source))),
            Err(error) => refusal = Some(format!("{ip}: {error}")),
        }
    }
    connection.abort();
    match refusal {
        Some(why) if sources.is_empty() => Err(io::Error::other(format!("look up the node's route to {why}"))),
        _ => Ok(sources),
    }
}

async fn source_towards(handle: &Handle, ip: IpAddr) -> Result<Option<IpAddr>, String> {
    let length = if ip.is_ipv4() { 32 } else { 128 };
    let question = RouteMessageBuilder::<IpAddr>::new().destination_prefix(ip, length).map_err(|e| e.to_string())?;
    let mut answers = std::pin::pin!(handle.route().get(question.build()).execute());
    let answer = answers.try_next().await.map_err(|e| e.to_string())?;
    Ok(answer.as_ref().and_then(source))
}

fn source(route: &RouteMessage) -> Option<IpAddr> {
    route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::PrefSource(RouteAddress::Inet(address)) => Some((*address).into()),
        RouteAttribute::PrefSource(RouteAddress::Inet6(address)) => Some((*address).into()),
        _ => None,
    })
}
