//! `spec.clientAddress` of GatewayParameters -> [`ClientAddress`].

use ipnet::IpNet;
use weft_core::gateway::{ClientAddress, ForwardedHeader, ProxyProtocol};

use crate::object::{
    GatewayForwardedHeader, GatewayParametersSpec, GatewayProxyProtocol, GatewayProxyProtocolMode as Mode,
};
use crate::translate::{Problem, Reason};

/// Where what is wrong is told: at the Gateway, which refers to the parameters.
const FIELD: &str = "spec.infrastructure.parametersRef";

/// Reads it; with what is wrong, in which case nobody vouches for anything.
pub(super) fn of(parameters: &GatewayParametersSpec) -> (ClientAddress, Option<Problem>) {
    match read(parameters) {
        Ok(read) => (read, None),
        Err(problem) => (ClientAddress::default(), Some(problem)),
    }
}

fn read(parameters: &GatewayParametersSpec) -> Result<ClientAddress, Problem> {
    let Some(spec) = &parameters.client_address else { return Ok(ClientAddress::default()) };
    let trusted_hops = spec.trusted_hops.map(|hops| {
        let remedy = "use 0 to 255";
        u8::try_from(hops)
            .map_err(|_| wrong("spec.clientAddress.trustedHops", format!("{hops} is out of range"), remedy))
    });
    Ok(ClientAddress {
        proxy_protocol: spec.proxy_protocol.as_ref().map(proxy_protocol).transpose()?.unwrap_or_default(),
        header: match spec.header.unwrap_or_default() {
            GatewayForwardedHeader::XForwardedFor => ForwardedHeader::XForwardedFor,
            GatewayForwardedHeader::Forwarded => ForwardedHeader::Forwarded,
        },
        trusted_hops: trusted_hops.transpose()?,
        trusted: networks("spec.clientAddress.trustedCIDRs", spec.trusted_cidrs.as_deref())?,
    })
}

fn proxy_protocol(spec: &GatewayProxyProtocol) -> Result<ProxyProtocol, Problem> {
    let field = "spec.clientAddress.proxyProtocol.trustedCIDRs";
    let from = networks(field, spec.trusted_cidrs.as_deref())?;
    if spec.mode != Mode::Disabled && from.is_empty() {
        let message =
            format!("is missing with mode {:?}: whoever may send such a header says who clients are", spec.mode);
        return Err(wrong(field, message, "give the addresses of the load balancers in front"));
    }
    Ok(match spec.mode {
        Mode::Disabled => ProxyProtocol::Disabled,
        Mode::Optional => ProxyProtocol::Optional(from),
        Mode::Required => ProxyProtocol::Required(from),
    })
}

fn networks(field: &str, list: Option<&[String]>) -> Result<Vec<IpNet>, Problem> {
    let Some(list) = list else { return Ok(Vec::new()) };
    if list.is_empty() {
        let message = "is empty: it is not clear whether that means nobody or everybody".to_owned();
        return Err(wrong(field, message, "remove it to mean nobody"));
    }
    let each = list.iter().enumerate().map(|(i, text)| {
        let read = text.parse::<IpNet>().ok().or_else(|| text.parse::<std::net::IpAddr>().ok().map(IpNet::from));
        let message = || format!("{text:?} is neither an address nor a range");
        read.map(|net| net.trunc())
            .ok_or_else(|| wrong(&format!("{field}[{i}]"), message(), "write 10.0.0.0/8 or fd00::/8"))
    });
    each.collect()
}

fn wrong(field: &str, message: String, remedy: &str) -> Problem {
    let message = format!("of the Gateway's parameters, or its class's, {field} {message}");
    Problem::new(FIELD, Reason::InvalidParameters, message, remedy)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn of_json(spec: serde_json::Value) -> (ClientAddress, Option<Problem>) {
        of(&serde_json::from_value(json!({ "clientAddress": spec })).unwrap())
    }

    #[test]
    fn what_is_written_is_read() {
        assert_eq!(of(&GatewayParametersSpec::default()), (ClientAddress::default(), None));
        let (read, problem) = of_json(json!({
            "proxyProtocol": { "mode": "Required", "trustedCIDRs": ["10.1.2.3/8", "fd00::1"] },
            "header": "Forwarded", "trustedHops": 2, "trustedCIDRs": ["192.0.2.0/24"]
        }));
        let nets = |list: &[&str]| list.iter().map(|it| it.parse().unwrap()).collect::<Vec<IpNet>>();
        let want = ClientAddress {
            proxy_protocol: ProxyProtocol::Required(nets(&["10.0.0.0/8", "fd00::1/128"])),
            header: ForwardedHeader::Forwarded,
            trusted_hops: Some(2),
            trusted: nets(&["192.0.2.0/24"]),
        };
        assert_eq!((read, problem), (want, None));
    }

    #[test]
    fn what_is_wrong_is_named_and_nobody_is_believed() {
        for (spec, words) in [
            (json!({ "proxyProtocol": { "mode": "Required" } }), "proxyProtocol.trustedCIDRs is missing"),
            (json!({ "proxyProtocol": { "mode": "Optional" } }), "proxyProtocol.trustedCIDRs is missing"),
            (json!({ "proxyProtocol": { "mode": "Optional", "trustedCIDRs": [] } }), "trustedCIDRs is empty"),
            (json!({ "trustedCIDRs": ["10.0.0.0/8", "lan"] }), "trustedCIDRs[1] \"lan\" is neither"),
            (json!({ "trustedCIDRs": [] }), "clientAddress.trustedCIDRs is empty"),
            (json!({ "trustedHops": -1 }), "trustedHops -1 is out of range"),
            (json!({ "trustedHops": 256, "trustedCIDRs": ["10.0.0.0/8"] }), "trustedHops 256"),
        ] {
            let (read, problem) = of_json(spec.clone());
            let problem = problem.unwrap_or_else(|| panic!("{spec}"));
            assert_eq!((read, problem.reason), (ClientAddress::default(), Reason::InvalidParameters), "{spec}");
            assert!(problem.to_string().contains(words), "{problem}");
        }
    }
}
