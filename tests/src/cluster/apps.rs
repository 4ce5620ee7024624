//! Workloads for tests: the echo server and client of the conformance suite, in one image.

/// The image of the echo server and client.
pub const ECHO_IMAGE: &str = "localhost/echo:1";

/// The image of what makes load, and answers it.
pub const LOAD_IMAGE: &str = "localhost/load:1";

/// A MeshPolicy that refuses plaintext in its namespace.
pub const STRICT: &str = r#"{"apiVersion": "weftmesh.io/v1alpha1", "kind": "MeshPolicy", "metadata": {"name": "strict", "namespace": "@NS@"}, "spec": {"mode": "Strict"}}"#;

/// An echo workload: a Deployment with a ServiceAccount of the same name.
#[derive(Clone, Debug)]
pub struct Echo<'a> {
    /// Its name, also its label `app`.
    pub name: &'a str,
    /// The Service that selects it by the label `service`; its own name if left out.
    pub service: Option<&'a str>,
    /// How many pods.
    pub replicas: u32,
    /// The node its pods have to be on.
    pub node: Option<&'a str>,
    /// More fields of the container, as JSON without braces.
    pub container: &'a str,
    /// More fields of the pod, as JSON without braces.
    pub spec: &'a str,
    /// More labels of the pod, as JSON without braces.
    pub labels: &'a str,
}

impl<'a> Echo<'a> {
    /// One pod, anywhere.
    pub const fn new(name: &'a str) -> Self {
        Self { name, service: None, replicas: 1, node: None, container: "", spec: "", labels: "" }
    }

    /// The same on one node.
    #[must_use]
    pub const fn on(mut self, node: &'a str) -> Self {
        self.node = Some(node);
        self
    }

    /// The same behind a Service that has other workloads, too.
    #[must_use]
    pub const fn behind(mut self, service: &'a str) -> Self {
        self.service = Some(service);
        self
    }

    /// Its objects, for `TestNamespace::apply`.
    pub fn manifest(&self) -> String {
        let Self { name, replicas, .. } = self;
        let service = self.service.unwrap_or(name);
        let comma = |text: &str| if text.is_empty() { String::new() } else { format!(", {text}") };
        let node = self.node.map(|n| format!(r#""nodeSelector": {{"kubernetes.io/hostname": "{n}"}}"#));
        let (node, container) = (comma(&node.unwrap_or_default()), comma(self.container));
        let at_once = if self.spec.contains("terminationGracePeriodSeconds") {
            ""
        } else {
            ", \"terminationGracePeriodSeconds\": 0"
        };
        let (spec, labels) = (comma(self.spec) + at_once, comma(self.labels));
        format!(
            r#"
apiVersion: v1
kind: ServiceAccount
metadata: {{ name: {name}, namespace: "@NS@" }}
---
apiVersion: apps/v1
kind: Deployment
metadata: {{ name: {name}, namespace: "@NS@" }}
spec:
  replicas: {replicas}
  selector: {{ matchLabels: {{ app: {name} }} }}
  template:
    metadata: {{"labels": {{"app": "{name}", "service": "{service}"{labels}}}}}
    spec: {{"serviceAccountName": "{name}", "containers": [{{
      "name": "echo", "image": "{ECHO_IMAGE}", "args": ["--port=8080", "--grpc=7070", "--tcp=9090", "--version={name}"],
      "readinessProbe": {{"tcpSocket": {{"port": 8080}}, "periodSeconds": 1}}{container}}}]{node}{spec}}}
"#
        )
    }
}

/// A Service for pods with the label `service`, with every port of the echo server.
pub fn echo_service(name: &str) -> String {
    format!(
        r#"
apiVersion: v1
kind: Service
metadata: {{ name: {name}, namespace: "@NS@" }}
spec:
  selector: {{ service: {name} }}
  ports:
  - {{ name: http, port: 80, targetPort: 8080, appProtocol: http }}
  - {{ name: grpc, port: 7070, appProtocol: grpc }}
  - {{ name: tcp, port: 9090, appProtocol: tcp }}
"#
    )
}

/// A workload that answers a [`Mix`](super::Mix), and goes as applications should: it serves on for a moment when it is told
/// to end. `more` are more fields of the pod, as JSON without braces.
pub fn served(name: &str, replicas: usize, node: Option<&str>, more: &str) -> String {
    let node = node.map(|n| format!(r#", "nodeSelector": {{"kubernetes.io/hostname": "{n}"}}"#)).unwrap_or_default();
    let more = if more.is_empty() { String::new() } else { format!(", {more}") };
    format!(
        r#"
apiVersion: v1
kind: ServiceAccount
metadata: {{ name: {name}, namespace: "@NS@" }}
---
apiVersion: v1
kind: Service
metadata: {{ name: {name}, namespace: "@NS@" }}
spec:
  selector: {{ app: {name} }}
  ports:
  - {{ name: http, port: 80, targetPort: 8080, appProtocol: http }}
  - {{ name: grpc, port: 7070, targetPort: 8080, appProtocol: grpc }}
  - {{ name: tcp, port: 9090, targetPort: 9090, appProtocol: tcp }}
---
apiVersion: apps/v1
kind: Deployment
metadata: {{ name: {name}, namespace: "@NS@" }}
spec:
  replicas: {replicas}
  selector: {{ matchLabels: {{ app: {name} }} }}
  template:
    metadata: {{ labels: {{ app: {name} }} }}
    spec: {{"serviceAccountName": "{name}", "terminationGracePeriodSeconds": 20, "containers": [{{
      "name": "app", "image": "{LOAD_IMAGE}", "args": ["-serve"],
      "lifecycle": {{"preStop": {{"sleep": {{"seconds": 3}}}}}},
      "readinessProbe": {{"tcpSocket": {{"port": 8080}}, "periodSeconds": 1}}}}]{node}{more}}}
"#
    )
}
