//! What a pod's containers declare for the kubelet -> [`Probe`].

use std::fmt::Write as _;
use std::net::IpAddr;

use k8s_openapi::api::core::v1 as k8s;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use weft_core::ids::Port;
use weft_core::workload::{Probe, ProbeCall};

/// Every call over the network that the kubelet makes to the pod, sorted: of its containers and sidecars the liveness,
/// readiness and startup probes, and the hooks of their lifecycle. What runs inside the container (`exec`) needs no
/// network, and a call to another `host` isn't one to the pod. A port that can't be resolved is left out: the kubelet
/// can't either.
pub fn probes(spec: &k8s::PodSpec, addresses: &[IpAddr]) -> Vec<Probe> {
    let sidecars = spec.init_containers.iter().flatten().filter(|c| c.restart_policy.as_deref() == Some("Always"));
    let mut found: Vec<_> = spec.containers.iter().chain(sidecars).flat_map(|c| of_container(c, addresses)).collect();
    found.sort_unstable();
    found.dedup();
    found
}

fn of_container(container: &k8s::Container, addresses: &[IpAddr]) -> Vec<Probe> {
    let to_pod = |host: Option<&str>| match host {
        None | Some("") => true,
        Some(host) => host.parse().is_ok_and(|ip: IpAddr| addresses.contains(&ip)),
    };
    let http = |action: &k8s::HTTPGetAction| {
        let port = resolve(container, &action.port).filter(|_| to_pod(action.host.as_deref()))?;
        let call = match action.scheme.as_deref() {
            Some("HTTPS") => ProbeCall::Https,
            _ => ProbeCall::Http { target: request_target(action.path.as_deref().unwrap_or_default()) },
        };
        Some(Probe { port, call })
    };
    let tcp = |action: &k8s::TCPSocketAction| {
        let port = resolve(container, &action.port).filter(|_| to_pod(action.host.as_deref()))?;
        Some(Probe { port, call: ProbeCall::Tcp })
    };
    let grpc = |action: &k8s::GRPCAction| {
        let port = number(action.port)?;
        Some(Probe { port, call: ProbeCall::Grpc { service: action.service.clone().unwrap_or_default() } })
    };
    let probes = [&container.liveness_probe, &container.readiness_probe, &container.startup_probe];
    let probes = probes.into_iter().flatten().filter_map(|probe| {
        let http = probe.http_get.as_ref().and_then(http);
        http.or_else(|| probe.tcp_socket.as_ref().and_then(tcp)).or_else(|| probe.grpc.as_ref().and_then(grpc))
    });
    let hooks = container.lifecycle.iter().flat_map(|it| [&it.post_start, &it.pre_stop]).flatten();
    probes.chain(hooks.filter_map(|hook| hook.http_get.as_ref().and_then(http))).collect()
}

/// A port by number or, as the kubelet does it, by the name that the same container gives it.
fn resolve(container: &k8s::Container, port: &IntOrString) -> Option<Port> {
    let name = match port {
        IntOrString::Int(port) => return number(*port),
        IntOrString::String(name) => name,
    };
    let named = container.ports.iter().flatten().find(|port| port.name.as_ref() == Some(name));
    named.map(|port| port.container_port).or_else(|| name.parse().ok()).and_then(number)
}

fn number(port: i32) -> Option<Port> {
    u16::try_from(port).ok().and_then(Port::new)
}

/// What the kubelet writes in the request for a `path` of a probe: that of Go's `net/url`, which escapes the path as a
/// whole if one character in it needs it, and takes a path that it can't parse for one without a query.
fn request_target(path: &str) -> String {
    let whole = path.split_once('#').map_or(path, |(before, _)| before);
    let (raw, query) = whole.split_once('?').map_or((whole, None), |(raw, query)| (raw, Some(query)));
    let mut target = match unescape(raw).filter(|_| !path.bytes().any(|byte| byte.is_ascii_control())) {
        None => return absolute(escape(path.as_bytes())),
        Some(_) if raw.bytes().all(|byte| is_plain(byte) || b"!'()*[]%".contains(&byte)) => absolute(raw.to_owned()),
        Some(bytes) => absolute(escape(&bytes)),
    };
    if let Some(query) = query {
        target.push('?');
        target.push_str(query);
    }
    target
}

fn absolute(path: String) -> String {
    if path.starts_with('/') { path } else { format!("/{path}") }
}

/// What a path may hold as it is.
fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-_.~$&+,/:;=@".contains(&byte)
}

fn escape(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len()), |mut text, byte| {
        // Writing to a String doesn't fail.
        let _ = if is_plain(*byte) { write!(text, "{}", char::from(*byte)) } else { write!(text, "%{byte:02X}") };
        text
    })
}

/// `None` if a `%` isn't followed by two digits.
fn unescape(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let (digits, after) = rest.split_first_chunk::<2>()?;
        let digits = std::str::from_utf8(digits).ok().filter(|it| it.bytes().all(|byte| byte.is_ascii_hexdigit()))?;
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
        rest = after;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(spec: &str) -> Vec<String> {
        let spec: k8s::PodSpec = serde_norway::from_str(spec).unwrap();
        let found = probes(&spec, &["10.0.0.9".parse().unwrap()]);
        let text = |probe: &Probe| match &probe.call {
            ProbeCall::Http { target } => format!("{} GET {target}", probe.port),
            ProbeCall::Https => format!("{} https", probe.port),
            ProbeCall::Tcp => format!("{} tcp", probe.port),
            ProbeCall::Grpc { service } => format!("{} grpc {service:?}", probe.port),
        };
        found.iter().map(text).collect()
    }

    #[test]
    fn every_call_of_the_kubelet_is_found_once() {
        let spec = "
containers:
- name: app
  ports: [{name: web, containerPort: 8080}, {name: health, containerPort: 9000}]
  livenessProbe: {httpGet: {port: web, path: '/live?full=1'}}
  readinessProbe: {httpGet: {port: 8080, path: '/live?full=1', scheme: HTTP}}
  startupProbe: {tcpSocket: {port: health}}
  lifecycle:
    postStart: {httpGet: {port: web, path: /started}}
    preStop: {exec: {command: [sleep, '5']}}
- name: other
  livenessProbe: {exec: {command: ['true']}}
  readinessProbe: {grpc: {port: 7000}}
  startupProbe: {grpc: {port: 7000, service: shop.Cart}}
  lifecycle: {preStop: {httpGet: {port: '8443', scheme: HTTPS}}}
initContainers:
- name: sidecar
  restartPolicy: Always
  readinessProbe: {httpGet: {port: 8001, path: ''}}
- name: once
  readinessProbe: {httpGet: {port: 8002}}
";
        let want = [
            "7000 grpc \"\"",
            "7000 grpc \"shop.Cart\"",
            "8001 GET /",
            "8080 GET /live?full=1",
            "8080 GET /started",
            "8443 https",
            "9000 tcp",
        ];
        assert_eq!(found(spec), want);
    }

    #[test]
    fn what_does_not_go_to_the_pod_is_left_out() {
        let app = |probe: &str| format!("containers: [{{name: app, livenessProbe: {{{probe}}}}}]");
        for (probe, want) in [
            ("httpGet: {port: 80, host: 127.0.0.1}", 0),
            ("tcpSocket: {port: 80, host: db.example}", 0),
            ("tcpSocket: {port: 80, host: 10.0.0.9}", 1),
            ("httpGet: {port: 80, host: ''}", 1),
            ("httpGet: {port: nobody}", 0),
            ("httpGet: {port: 0}", 0),
            ("tcpSocket: {port: 70000}", 0),
        ] {
            assert_eq!(found(&app(probe)).len(), want, "{probe}");
        }
    }

    /// Compared with what Go's `http.NewRequest` makes of the kubelet's URL.
    #[test]
    fn a_path_becomes_the_target_that_the_kubelet_sends() {
        for (path, want) in [
            ("", "/"),
            ("/", "/"),
            ("healthz", "/healthz"),
            ("/healthz?verbose&a=b%20c", "/healthz?verbose&a=b%20c"),
            ("/health check", "/health%20check"),
            ("/a%2Fb", "/a%2Fb"),
            ("/a%2Fb c", "/a/b%20c"),
            ("/(a)!", "/(a)!"),
            ("/ü", "/%C3%BC"),
            ("/a#b", "/a"),
            ("/100%?x", "/100%25%3Fx"),
            ("/x?", "/x?"),
            ("/[a]", "/[a]"),
            ("/[a]|", "/%5Ba%5D%7C"),
        ] {
            assert_eq!(request_target(path), want, "{path:?}");
        }
    }
}
