//! `spec.limits` of `GatewayParameters`: how far the Gateways of a class may go by themselves.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::GatewayServiceType;

/// How far the Gateways of a class may go with parameters of their own. What the class gives itself has no limits.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct GatewayLimits {
    /// Most pods that a Gateway may ask for, as `replicas` or by `autoscaling`; any number if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1000))]
    pub max_replicas: Option<i32>,
    /// Types of Service that it may ask for; all of them if left out, none if empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_types: Option<Vec<GatewayServiceType>>,
    /// What a Gateway may set at all; everything if left out, nothing if empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fields: Option<Vec<GatewayField>>,
}

/// A field of `GatewayParameters`, or of `spec.infrastructure` of a Gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum GatewayField {
    /// How many pods.
    Replicas,
    /// How the number of pods follows the load.
    Autoscaling,
    /// What a pod may use.
    Resources,
    /// All of `service`.
    Service,
    /// The type of the Service.
    #[serde(rename = "service.type")]
    ServiceType,
    /// Which load balancer serves it.
    #[serde(rename = "service.loadBalancerClass")]
    LoadBalancerClass,
    /// Whether nodes without a pod pass traffic on.
    #[serde(rename = "service.externalTrafficPolicy")]
    ExternalTrafficPolicy,
    /// Annotations of the Service.
    #[serde(rename = "service.annotations")]
    ServiceAnnotations,
    /// How long a pod goes on that is told to end.
    Shutdown,
    /// How long a new pod has to be ready before an old one ends.
    MinReadySeconds,
    /// All that is added to the pods.
    PodTemplate,
    /// Labels of the pods.
    #[serde(rename = "podTemplate.labels")]
    PodLabels,
    /// Annotations of the pods.
    #[serde(rename = "podTemplate.annotations")]
    PodAnnotations,
    /// Which nodes they may run on.
    #[serde(rename = "podTemplate.nodeSelector")]
    NodeSelector,
    /// Which taints they tolerate.
    #[serde(rename = "podTemplate.tolerations")]
    Tolerations,
    /// Which nodes and neighbours they prefer or need.
    #[serde(rename = "podTemplate.affinity")]
    Affinity,
    /// How they are spread.
    #[serde(rename = "podTemplate.topologySpreadConstraints")]
    TopologySpreadConstraints,
    /// Whom they go before where room is short.
    #[serde(rename = "podTemplate.priorityClassName")]
    PriorityClassName,
    /// Secrets for pulling their image.
    #[serde(rename = "podTemplate.imagePullSecrets")]
    ImagePullSecrets,
    /// Who may reach the pods.
    NetworkPolicy,
    /// Whether HTTP/3 is spoken.
    Http3,
    /// Whose word is taken for who clients are.
    ClientAddress,
    /// Ids of requests.
    RequestId,
    /// Labels of all objects (`spec.infrastructure.labels` of the Gateway).
    #[serde(rename = "infrastructure.labels")]
    Labels,
    /// Annotations of all objects, the Service's too (`spec.infrastructure.annotations` of the Gateway).
    #[serde(rename = "infrastructure.annotations")]
    Annotations,
}

impl GatewayField {
    /// As it is written: `service.type`.
    pub fn name(self) -> String {
        serde_json::to_value(self).ok().and_then(|name| name.as_str().map(str::to_owned)).unwrap_or_default()
    }

    /// Whether a field, as `service.type`, is this one or a part of it.
    pub fn covers(self, field: &str) -> bool {
        field.strip_prefix(&self.name()).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::object::GatewayParametersSpec;

    #[test]
    fn a_field_covers_itself_and_its_parts() {
        assert!(GatewayField::Service.covers("service") && GatewayField::Service.covers("service.type"));
        assert!(GatewayField::ServiceType.covers("service.type") && !GatewayField::ServiceType.covers("service"));
        assert!(!GatewayField::Service.covers("serviceOther") && !GatewayField::Replicas.covers("service"));
    }

    fn follow<'a>(root: &'a Value, schema: &'a Value) -> &'a Value {
        let of = |schema: &'a Value| schema["$ref"].as_str().map(|path| root.pointer(&path[1..]).unwrap());
        let any = || schema["anyOf"].as_array().and_then(|any| any.iter().find_map(of));
        of(schema).or_else(any).unwrap_or(schema)
    }

    /// Else a class that lists fields would refuse one that nobody could allow.
    #[test]
    fn every_parameter_can_be_allowed() {
        const ALL: [GatewayField; 25] = [
            GatewayField::Replicas,
            GatewayField::Autoscaling,
            GatewayField::Resources,
            GatewayField::Service,
            GatewayField::ServiceType,
            GatewayField::LoadBalancerClass,
            GatewayField::ExternalTrafficPolicy,
            GatewayField::ServiceAnnotations,
            GatewayField::Shutdown,
            GatewayField::MinReadySeconds,
            GatewayField::PodTemplate,
            GatewayField::PodLabels,
            GatewayField::PodAnnotations,
            GatewayField::NodeSelector,
            GatewayField::Tolerations,
            GatewayField::Affinity,
            GatewayField::TopologySpreadConstraints,
            GatewayField::PriorityClassName,
            GatewayField::ImagePullSecrets,
            GatewayField::NetworkPolicy,
            GatewayField::Http3,
            GatewayField::ClientAddress,
            GatewayField::RequestId,
            GatewayField::Labels,
            GatewayField::Annotations,
        ];
        let root = serde_json::to_value(schemars::schema_for!(GatewayParametersSpec)).unwrap();
        let mut fields = Vec::new();
        for (name, schema) in root["properties"].as_object().unwrap().iter().filter(|(name, _)| *name != "limits") {
            match follow(&root, schema)["properties"].as_object() {
                Some(parts) => fields.extend(parts.keys().map(|part| format!("{name}.{part}"))),
                None => fields.push(name.clone()),
            }
        }
        assert!(fields.len() > 12 && fields.contains(&"service.annotations".to_owned()), "{fields:?}");
        for field in fields {
            assert!(ALL.iter().any(|it| it.covers(&field)), "{field}");
        }
    }
}
