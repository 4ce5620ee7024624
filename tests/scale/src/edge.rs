//! What the measures of Gateways have: Gateways and their processes, routes with a Service, an EndpointSlice and a pod each,
//! a hundred in a namespace, and ListenerSets with routes of their own.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::{Value, json};

use crate::api::{Api, Kind};
use crate::objects::{
    GATEWAY, GATEWAY_CLASS, LISTENER_SET, NAMESPACE, POD, ROUTE, SERVICE, SERVICE_ACCOUNT, SLICE, node_name,
};
use crate::store;

/// Routes in a namespace, and ListenerSets in one.
const ROUTES: usize = 100;
const SETS: usize = 50;
/// Where Gateways and the routes that are measured are.
pub const EDGE: &str = "edge";
/// The class of all Gateways.
const CLASS: &str = "weft";

/// A Gateway.
#[derive(Clone, Copy, Debug)]
pub struct Gateway {
    pub namespace: &'static str,
    pub name: &'static str,
    /// The port of its listener.
    pub port: u16,
}

/// The one that serves.
pub const WEB: Gateway = Gateway { namespace: EDGE, name: "web", port: 80 };
/// One that only has routes attached to it.
pub const MANY: Gateway = Gateway { namespace: EDGE, name: "many", port: 8000 };

impl Gateway {
    pub fn key(self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }

    /// The ServiceAccount of its pods (GEP-1762).
    pub fn account(self) -> String {
        format!("{}-{CLASS}", self.name)
    }

    pub fn pod(self) -> String {
        format!("{}-0", self.account())
    }

    fn object(self) -> Value {
        let all = json!({ "namespaces": { "from": "All" } });
        json!({
            "metadata": { "name": self.name, "namespace": self.namespace },
            "spec": { "gatewayClassName": CLASS, "allowedListeners": all,
                "listeners": [{ "name": "http", "port": self.port, "protocol": "HTTP", "allowedRoutes": all }] },
        })
    }

    /// Makes it, with its class and namespace.
    pub async fn make(self, api: &Api) -> anyhow::Result<()> {
        api.create(NAMESPACE, json!({ "metadata": { "name": self.namespace } })).await?;
        let class =
            json!({ "metadata": { "name": CLASS }, "spec": { "controllerName": "weftmesh.io/gateway-controller" } });
        api.create(GATEWAY_CLASS, class).await?;
        api.create(GATEWAY, self.object()).await
    }

    /// Makes the pod that a token of its process is bound to, as soon as the controller has made its ServiceAccount.
    pub async fn own_pod(self, api: &Api) -> anyhow::Result<()> {
        let began = std::time::Instant::now();
        while api.get(SERVICE_ACCOUNT, self.namespace, &self.account()).await?.is_none() {
            anyhow::ensure!(began.elapsed() < Duration::from_secs(60), "the controller made no {}", self.account());
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let pod = json!({
            "metadata": { "name": self.pod(), "namespace": self.namespace },
            "spec": { "serviceAccountName": self.account(), "nodeName": node_name(0),
                "containers": [{ "name": "weft-gateway", "image": "localhost/weft-node-proxy:0.1.0" }] },
            "status": { "phase": "Running" },
        });
        api.create(POD, pod).await
    }

    /// The routes that are attached to its listener, as its status says.
    pub async fn attached(self, api: &Api) -> anyhow::Result<u64> {
        let found = api.get(GATEWAY, self.namespace, self.name).await?.unwrap_or_default();
        Ok(found["status"]["listeners"][0]["attachedRoutes"].as_u64().unwrap_or_default())
    }
}

/// A Service of the edge, with one endpoint.
pub async fn live_service(api: &Api, name: &str, endpoint: SocketAddr) -> anyhow::Result<()> {
    let meta = |name: &str| json!({ "name": name, "namespace": EDGE });
    let ports = json!([{ "name": "http", "port": 80, "targetPort": endpoint.port(), "protocol": "TCP" }]);
    api.create(SERVICE, json!({ "metadata": meta(name), "spec": { "ports": ports } })).await?;
    let mut slice = json!({
        "metadata": meta(&format!("{name}-abcde")), "addressType": "IPv4",
        "ports": [{ "name": "http", "port": endpoint.port(), "protocol": "TCP" }],
        "endpoints": [{ "addresses": [endpoint.ip()], "conditions": { "ready": true } }],
    });
    slice["metadata"]["labels"] = json!({ "kubernetes.io/service-name": name });
    api.create(SLICE, slice).await
}

/// A route of the edge for one host.
pub fn live_route(gateway: Gateway, name: &str, host: &str, rule: &Value) -> Value {
    json!({
        "metadata": { "name": name, "namespace": EDGE },
        "spec": { "parentRefs": [{ "name": gateway.name }], "hostnames": [host], "rules": [rule] },
    })
}

/// A rule that sends everything to a Service of the edge and marks the answers.
pub fn marked(service: &str, mark: usize) -> Value {
    json!({
        "matches": [{ "path": { "type": "PathPrefix", "value": "/" } }],
        "filters": [{ "type": "ResponseHeaderModifier",
            "responseHeaderModifier": { "set": [{ "name": "x-edit", "value": mark.to_string() }] } }],
        "backendRefs": [{ "name": service, "port": 80 }],
    })
}

/// Rules that answer everything by themselves: nothing has to run behind them.
pub fn redirect() -> Value {
    json!([{
        "matches": [{ "path": { "type": "PathPrefix", "value": "/" } }],
        "filters": [{ "type": "RequestRedirect", "requestRedirect": { "statusCode": 302 } }],
    }])
}

/// The namespace and name of a route that is only there.
pub fn route_name(number: usize) -> (String, String) {
    (format!("team-{}", number / ROUTES), format!("app-{number}"))
}

/// The rules of such a route, which differ from one edit to the next.
pub fn rules(number: usize, edit: usize) -> Value {
    let (_, name) = route_name(number);
    json!([{
        "matches": [{ "path": { "type": "PathPrefix", "value": format!("/v{edit}") } }],
        "backendRefs": [{ "name": name, "port": 80 }],
    }])
}

/// Makes so many routes to the Gateway, each with a Service, a slice and a pod.
pub async fn routes(api: &Api, count: usize) -> anyhow::Result<()> {
    let namespaces = (0..count).step_by(ROUTES).map(|number| namespace(&route_name(number).0));
    store::put_all(namespaces).await?;
    store::put_all((0..count).flat_map(|n| application(&route_name(n), n))).await?;
    store::put_all((0..count).map(|n| (ROUTE, route(n)))).await?;
    let last = route_name(count.saturating_sub(1)).0;
    settled(api, &[(SLICE, &last), (ROUTE, &last)]).await
}

fn route(number: usize) -> Value {
    let (namespace, name) = route_name(number);
    let host = format!("{name}.example.com");
    json!({
        "metadata": { "name": name, "namespace": namespace },
        "spec": { "parentRefs": [{ "name": WEB.name, "namespace": WEB.namespace }], "hostnames": [host], "rules": rules(number, 0) },
    })
}

/// The namespace and name of a ListenerSet.
pub fn set_name(number: usize) -> (String, String) {
    (format!("tenant-{}", number / SETS), format!("set-{number}"))
}

/// The name of a route of a ListenerSet.
pub fn set_route_name(set: usize, number: usize) -> String {
    format!("route-{set}-{number}")
}

/// The rules of such a route.
pub fn set_rules(set: usize, number: usize, edit: usize) -> Value {
    let (_, name) = set_name(set);
    json!([{
        "matches": [{ "path": { "type": "PathPrefix", "value": format!("/r{number}/v{edit}") } }],
        "backendRefs": [{ "name": name, "port": 80 }],
    }])
}

/// Makes ListenerSets `from..to` of the Gateway, each with one host, an application and so many routes.
pub async fn sets(api: &Api, (from, to): (usize, usize), routes: usize) -> anyhow::Result<()> {
    // A namespace that is there already is written as it was.
    let namespaces = (from - from % SETS..to).step_by(SETS).map(|number| namespace(&set_name(number).0));
    store::put_all(namespaces).await?;
    store::put_all((from..to).flat_map(|set| application(&set_name(set), set))).await?;
    store::put_all((from..to).map(|set| (LISTENER_SET, listener_set(set)))).await?;
    store::put_all((from..to).flat_map(|set| (0..routes).map(move |n| (ROUTE, set_route(set, n))))).await?;
    let last = set_name(to.saturating_sub(1)).0;
    settled(api, &[(LISTENER_SET, &last), (ROUTE, &last)]).await
}

fn listener_set(number: usize) -> Value {
    let (namespace, name) = set_name(number);
    let host = format!("{name}.example.com");
    let parent = json!({ "group": GATEWAY.group, "kind": GATEWAY.kind, "name": WEB.name, "namespace": WEB.namespace });
    json!({
        "metadata": { "name": name, "namespace": namespace },
        "spec": { "parentRef": parent,
            "listeners": [{ "name": "http", "port": WEB.port, "protocol": "HTTP", "hostname": host }] },
    })
}

fn set_route(set: usize, number: usize) -> Value {
    let (namespace, name) = set_name(set);
    let parent = json!({ "group": LISTENER_SET.group, "kind": LISTENER_SET.kind, "name": name });
    json!({
        "metadata": { "name": set_route_name(set, number), "namespace": namespace },
        "spec": { "parentRefs": [parent], "hostnames": [format!("{name}.example.com")], "rules": set_rules(set, number, 0) },
    })
}

fn namespace(name: &str) -> (Kind, Value) {
    let meta = json!({ "name": name, "labels": { "kubernetes.io/metadata.name": name } });
    (NAMESPACE, json!({ "metadata": meta, "spec": { "finalizers": ["kubernetes"] }, "status": { "phase": "Active" } }))
}

/// A Service, its slice and its one pod, to which nobody sends anything.
fn application((namespace, name): &(String, String), number: usize) -> [(Kind, Value); 3] {
    let address = format!("10.{}.{}.{}", 64 + number / 62_500, number / 250 % 250, number % 250 + 2);
    let cluster_ip = format!("10.96.{}.{}", 20 + number / 250, number % 250 + 1);
    let (meta, labels) = (|name: &str| json!({ "name": name, "namespace": namespace }), json!({ "app": name }));
    let service = json!({ "metadata": meta(name), "spec": { "selector": labels, "type": "ClusterIP", "clusterIP": cluster_ip,
        "clusterIPs": [cluster_ip], "ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack", "sessionAffinity": "None",
        "ports": [{ "name": "http", "port": 80, "targetPort": 8080, "protocol": "TCP" }] } });
    let pod_name = format!("{name}-6d4cf56db6-00000");
    let mut pod = json!({ "metadata": meta(&pod_name),
        "spec": { "serviceAccountName": "default", "nodeName": node_name(0),
            "containers": [{ "name": "app", "image": "registry.example.com/shop/app:v1", "ports": [{ "containerPort": 8080 }] }] },
        "status": { "phase": "Running", "podIP": address, "podIPs": [{ "ip": address }], "hostIP": "172.16.0.1",
            "conditions": [{ "type": "Ready", "status": "True" }] } });
    pod["metadata"]["labels"] = labels;
    let mut slice = json!({ "metadata": meta(&format!("{name}-abcde")), "addressType": "IPv4",
        "ports": [{ "name": "http", "port": 8080, "protocol": "TCP" }],
        "endpoints": [{ "addresses": [address], "nodeName": node_name(0), "conditions": { "ready": true, "serving": true },
            "targetRef": { "kind": "Pod", "name": pod_name, "namespace": namespace } }] });
    slice["metadata"]["labels"] = json!({ "kubernetes.io/service-name": name });
    [(SERVICE, service), (POD, pod), (SLICE, slice)]
}

/// Waits until the API server shows what was put there last.
async fn settled(api: &Api, of: &[(Kind, &String)]) -> anyhow::Result<()> {
    for (kind, namespace) in of {
        while api.cached(*kind, namespace).await? == 0 {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
    Ok(())
}
