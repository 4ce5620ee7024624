//! The node agent's.

use super::catalogue;
use crate::family::Component;

catalogue! { &[Component::Agent];
    READY = Gauge None "weft_agent_ready" [], "1 when the node can take pods of the mesh.";
    PODS = Gauge None "weft_agent_pods" [&["protection"]], "Pods of this node by protection: protected, outside, closed (no traffic), unprotected (in the clear although enrolled; alert on it).";
    POD = Gauge None "weft_agent_pod" [&["namespace", "pod", "state", "why"]], "1 for each pod of this node, with how it stands (protected, outside, closed, unprotected) and why; 0 once that has changed.";
    BYPASS = Gauge None "weft_agent_bypass" [&["strict"]], "1 while root has opened this node's pods by `weft node bypass`, strict: true if Strict ones too; alert on it.";
    PROXIES = Gauge None "weft_agent_proxies" [], "Node proxies that are connected to the agent.";
    INSTALLS = Counter None "weft_agent_installs_total" [&["result"]], "How often the CNI plugin was installed, repaired after somebody changed it, or couldn't be.";
    ADOPTED = Counter None "weft_agent_adopted_pods_total" [], "Running pods that were taken over without the plugin.";
    PROBES = Counter None "weft_agent_probes_total" [&["result"]], "Probes through the data plane by result.";
    API_ERRORS = Counter None "weft_agent_api_errors_total" [&["call"]], "Failed calls of the API server, but for watches, by call.";
    CNI_CALLS = Counter None "weft_agent_cni_calls_total" [&["verb", "result"]], "Calls of the CNI plugin, by verb and result: enrolled, passed (nothing to redirect) or failed.";
    CNI_CALL_DURATION = Histogram Seconds "weft_agent_cni_call_seconds" [&["verb"]], "Time that the plugin, and so the start of a pod, waited for the agent.";
}
