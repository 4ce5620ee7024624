//! One DNS question.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use hickory_proto::op::{Message, Query, ResponseCode};
use hickory_proto::rr::{Name, RData, RecordType};
use weft_testkit::clients::udp_exchange;

/// The IPv4 addresses of a name.
///
/// # Errors
/// When there is no answer, or another one than success.
pub async fn resolve(resolver: SocketAddr, name: &str) -> Result<Vec<IpAddr>> {
    let mut query = Message::query();
    let mut name = Name::from_ascii(name).context("a name")?;
    name.set_fqdn(true);
    query.add_query(Query::query(name, RecordType::A));
    let reply = udp_exchange(resolver, &query.to_vec()?, Duration::from_secs(3)).await?;
    let reply = Message::from_vec(&reply)?;
    ensure!(reply.metadata.response_code == ResponseCode::NoError, "{:?}", reply.metadata.response_code);
    let address = |data: &RData| match data {
        RData::A(a) => Some(IpAddr::V4(a.0)),
        _ => None,
    };
    Ok(reply.answers.iter().filter_map(|record| address(&record.data)).collect())
}
