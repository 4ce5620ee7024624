//! Whether the pods that are to be in the mesh are.

use crate::cluster::facts::Facts;
use crate::cluster::finding::{Check, Finding, Severity};
use crate::cluster::pods::{PodView, Standing, labelled};

/// What to do about a pod that isn't protected.
fn finding(pod: &PodView, mesh: &str) -> Option<Finding> {
    let object = format!("Pod {}/{}", pod.namespace, pod.name);
    let logs = format!(
        "kubectl -n {mesh} logs daemonset/weft-agent says more; the agent of node {} tries again by itself",
        pod.node
    );
    Some(match &pod.standing {
        Standing::Protected => return None,
        Standing::Closed(why) => {
            Finding::new(Severity::Error, object, format!("it has no traffic: {why}")).remedy(logs)
        }
        Standing::Unprotected(why) => {
            Finding::new(Severity::Error, object, format!("its traffic is in the clear: {why}")).remedy(logs)
        }
        Standing::Never(why) => Finding::new(Severity::Note, object, format!("it isn't in the mesh: {why}"))
            .remedy("label it weftmesh.io/mesh=disabled if that is as it should be"),
        Standing::Unknown(why) => {
            Finding::new(Severity::Unknown, object, why.clone()).remedy(format!("kubectl -n {mesh} get pods -o wide"))
        }
    })
}

/// Pods that are enrolled and not protected.
pub fn pods(facts: &Facts) -> Check {
    let pods = match labelled(facts) {
        Ok(pods) => pods,
        Err(why) => return Check::unknown("enrolled pods", &why),
    };
    let protected = pods.iter().filter(|pod| pod.standing == Standing::Protected).count();
    let findings = pods.iter().filter_map(|pod| finding(pod, &facts.mesh)).collect();
    Check::new("enrolled pods", format!("{protected} of {} protected", pods.len()), findings)
}
