//! Whose word a Gateway takes for who its clients are.

use weft_core::gateway::{ClientAddress, GatewayConfig, ProxyProtocol};

use super::*;

fn parameters(spec: &str) -> String {
    format!(
        "\n---\napiVersion: weftmesh.io/v1alpha1\nkind: GatewayParameters\nmetadata: {{name: p, namespace: edge}}\nspec: {{{spec}}}\n"
    )
}

fn with_parameters() -> String {
    gateway_of(
        "gw",
        &format!(
            "infrastructure: {{parametersRef: {{group: weftmesh.io, kind: GatewayParameters, name: p}}}}, listeners: [{HTTP}]"
        ),
    )
}

fn config(index: &Index) -> Option<GatewayConfig> {
    index.resources().find_map(|resource| match resource {
        Resource::GatewayConfig(config) => Some((**config).clone()),
        _ => None,
    })
}

const REQUIRED: &str = "clientAddress: {proxyProtocol: {mode: Required, trustedCIDRs: [10.0.0.0/8]}, trustedHops: 1}, \
     requestId: {inResponses: true}";

#[test]
fn the_data_plane_gets_what_the_parameters_say() {
    let (index, _) = serve(&(with_parameters() + &parameters(REQUIRED)));
    let config = config(&index).unwrap();
    let from = vec!["10.0.0.0/8".parse().unwrap()];
    let want = ClientAddress {
        proxy_protocol: ProxyProtocol::Required(from),
        trusted_hops: Some(1),
        ..ClientAddress::default()
    };
    assert_eq!((config.client_address, config.answers_request_id, config.client_certificate), (want, true, None));
    let (index, _) = serve(&(with_parameters() + &parameters("replicas: 1")));
    assert_eq!(self::config(&index), None, "nothing to say");
}

#[test]
fn what_is_wrong_is_said_of_the_gateway_and_it_is_not_served_with_less() {
    let wrong_spec = "clientAddress: {trustedCIDRs: [lan]}";
    let (index, _) = serve(&(with_parameters() + &parameters(wrong_spec)));
    let status = status_of(&index, "gw");
    let accepted = status.conditions.iter().find(|c| c.kind == ConditionType::Accepted).unwrap();
    assert_eq!((accepted.status, accepted.reason.as_str()), (false, "InvalidParameters"));
    let message = &accepted.message;
    assert!(
        message.contains("spec.clientAddress.trustedCIDRs[0] \"lan\"") && message.contains("10.0.0.0/8"),
        "{message}"
    );
    assert_eq!((config(&index), served(&index).len()), (None, 0));
}

#[test]
fn on_a_machine_parameters_that_become_wrong_end_no_traffic() {
    let (mut index, _) = serve(&(with_parameters() + &parameters(REQUIRED)));
    let before = config(&index).unwrap();
    objects(&parameters("clientAddress: {trustedCIDRs: [lan]}")).into_iter().for_each(|object| index.apply(object));
    index.commit();
    let status = status_of(&index, "gw");
    assert_eq!(wrong(&status.conditions), ["Accepted/InvalidParameters"]);
    assert_eq!((config(&index), served(&index).len()), (Some(before.clone()), 1));
    index.delete(&ObjectRef::new(Kind::GatewayParameters, "edge", "p"));
    index.commit();
    assert_eq!((config(&index), served(&index).len()), (Some(before), 1));
    objects(&parameters("replicas: 1")).into_iter().for_each(|object| index.apply(object));
    index.commit();
    assert!(config(&index).is_none() && wrong(&status_of(&index, "gw").conditions).is_empty());
}

/// A cluster with a class of ours that has parameters `of_class`.
fn in_cluster_of(of_class: &str, text: &str) -> Index {
    let class = "apiVersion: gateway.networking.k8s.io/v1\nkind: GatewayClass\nmetadata: {name: weft}\n\
                 spec: {controllerName: weftmesh.io/gateway-controller, \
                 parametersRef: {group: weftmesh.io, kind: GatewayParameters, namespace: mesh, name: p}}\n";
    let mut config_of = serving();
    config_of.gateways.as_mut().unwrap().place = Place::Cluster;
    let mut index = Index::new(config_of);
    let of_class = parameters(of_class).replace("namespace: edge", "namespace: mesh");
    apply(&mut index, &(class.to_owned() + &of_class + text));
    index
}

fn in_cluster(text: &str) -> Index {
    in_cluster_of("replicas: 2", text)
}

fn apply(index: &mut Index, text: &str) {
    objects(text).into_iter().for_each(|object| index.apply(object));
    index.commit();
}

#[test]
fn in_a_cluster_a_gateway_knows_its_clients_as_before_while_its_parameters_are_wrong() {
    let mut index = in_cluster(&(with_parameters() + &parameters(REQUIRED)));
    let before = config(&index).unwrap();
    for broken in ["clientAddress: {proxyProtocol: {mode: Required}}", "clientAddress: {trustedHops: 300}"] {
        objects(&parameters(broken)).into_iter().for_each(|object| index.apply(object));
        index.commit();
        assert_eq!(config(&index).as_ref(), Some(&before), "{broken}");
        assert_eq!(served(&index).len(), 1);
    }
    index.delete(&ObjectRef::new(Kind::GatewayParameters, "edge", "p"));
    index.commit();
    assert_eq!(config(&index).as_ref(), Some(&before), "gone is wrong, too");
    objects(&parameters("replicas: 1")).into_iter().for_each(|object| index.apply(object));
    index.commit();
    assert_eq!(config(&index), None);
}

const WRONG: &str = "clientAddress: {trustedHops: 300}";

#[test]
fn a_controller_that_starts_while_parameters_are_wrong_knows_what_the_one_before_it_knew() {
    let good = in_cluster(&(with_parameters() + &parameters(REQUIRED)));
    let before = config(&good);
    assert!(before.is_some());
    let remembered = good.gateway_plans().next().unwrap().remembered.unwrap();
    let account = |uid: &str, remembered: &str| {
        format!(
            "\n---\napiVersion: v1\nkind: ServiceAccount\nmetadata: {{name: gw-weft, namespace: edge, \
             annotations: {{weftmesh.io/parameters-in-force: '{remembered}'}}, \
             ownerReferences: [{{apiVersion: gateway.networking.k8s.io/v1, kind: Gateway, name: gw, uid: '{uid}'}}]}}\n"
        )
    };
    for broken in [with_parameters() + &parameters(WRONG), with_parameters()] {
        let mut index = in_cluster(&broken);
        assert_eq!(config(&index), None, "nobody knows: nobody is believed");
        apply(&mut index, &account("another", &remembered));
        assert_eq!(config(&index), None, "somebody else's");
        apply(&mut index, &account("", "{"));
        assert_eq!(config(&index), None, "unreadable");
        apply(&mut index, &account("", &remembered));
        assert_eq!(config(&index), before);
        let status = status_of(&index, "gw");
        assert!(wrong(&status.conditions).contains(&"Accepted/InvalidParameters".to_owned()), "{status:?}");
        assert_eq!(config(&in_cluster(&(broken.clone() + &account("", &remembered)))), before);
        // Not what its class doesn't let it say.
        let limited = in_cluster_of("limits: {fields: [replicas]}", &(broken + &account("", &remembered)));
        assert_eq!(config(&limited), None);
        // Once they are good, they count alone.
        apply(&mut index, &parameters("replicas: 1"));
        assert_eq!((config(&index), index.gateway_plans().next().unwrap().remembered), (None, None));
    }
}

#[test]
fn limits_that_come_later_are_in_force_at_once() {
    let mut index = in_cluster(&(with_parameters() + &parameters(REQUIRED)));
    let before = config(&index).unwrap();
    let of_class = |spec: &str| parameters(spec).replace("namespace: edge", "namespace: mesh");
    // What goes further is something else: who clients are stays.
    apply(&mut index, &(parameters(&format!("{REQUIRED}, replicas: 9")) + &of_class("limits: {maxReplicas: 2}")));
    assert_eq!(wrong(&status_of(&index, "gw").conditions)[0], "Accepted/InvalidParameters");
    assert_eq!(config(&index), Some(before.clone()));
    apply(&mut index, &of_class("limits: {fields: [replicas, requestId]}"));
    let left = config(&index).unwrap();
    assert_eq!((left.client_address, left.answers_request_id), (ClientAddress::default(), true));
    apply(&mut index, &of_class("limits: {fields: [replicas]}, clientAddress: {trustedHops: 3}"));
    let left = config(&index).unwrap();
    assert_eq!((left.client_address.trusted_hops, left.answers_request_id), (Some(3), false));
    index.delete(&ObjectRef::new(Kind::GatewayClass, "", "weft"));
    index.commit();
    assert_eq!(config(&index), Some(left), "as it is, not as it was before that");
}

#[test]
fn an_address_that_is_wrong_has_nothing_to_do_with_who_clients_are() {
    let mut index = in_cluster(&(with_parameters() + &parameters("replicas: 1")));
    let asked = with_parameters().replace("infrastructure:", "addresses: [{type: Odd, value: x}], infrastructure:");
    apply(&mut index, &(asked + &parameters(REQUIRED)));
    assert_eq!(wrong(&status_of(&index, "gw").conditions)[0], "Accepted/UnsupportedAddress");
    assert_eq!(config(&index).unwrap().client_address.trusted_hops, Some(1));
}

#[test]
fn a_service_says_which_proxy_protocol_its_endpoints_take() {
    use weft_core::service::ProxyVersion;
    let service = |value: &str| {
        format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: s, namespace: edge, annotations: {{weftmesh.io/proxy-protocol: '{value}'}}}}\nspec: {{ports: [{{port: 80}}]}}\n"
        )
    };
    for (value, want, problems) in
        [("v1", Some(ProxyVersion::V1), 0), ("v2", Some(ProxyVersion::V2), 0), ("2", None, 1)]
    {
        let (index, _) = serve(&service(value));
        let found = index.resources().find_map(|resource| match resource {
            Resource::Service(service) => Some(service.proxy_protocol),
            _ => None,
        });
        assert_eq!(found, Some(want), "{value}");
        let told: Vec<_> = index.all_problems().map(|(_, problem)| problem.to_string()).collect();
        assert_eq!(told.len(), problems, "{told:?}");
        assert!(
            told.iter()
                .all(|it| it.contains("metadata.annotations[weftmesh.io/proxy-protocol]") && it.contains("v1 or v2"))
        );
    }
}
