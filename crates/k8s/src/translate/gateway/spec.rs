//! Parts of the API that say the same in types of their own: brought to one.

use gateway_api::experimental::gateways::{
    GatewayAllowedListenersNamespacesSelector, GatewayListeners, GatewayListenersAllowedRoutes,
    GatewayListenersAllowedRoutesKinds, GatewayListenersAllowedRoutesNamespaces,
    GatewayListenersAllowedRoutesNamespacesFrom as From, GatewayListenersAllowedRoutesNamespacesSelector,
    GatewayListenersAllowedRoutesNamespacesSelectorMatchExpressions as Expression, GatewayListenersTls,
    GatewayListenersTlsCertificateRefs, GatewayListenersTlsMode as Mode,
};
use gateway_api::experimental::listenersets::{
    ListenerSetListeners, ListenerSetListenersAllowedRoutes, ListenerSetListenersAllowedRoutesNamespaces,
    ListenerSetListenersAllowedRoutesNamespacesFrom as SetFrom, ListenerSetListenersTls,
    ListenerSetListenersTlsMode as SetMode,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};

/// A listener of a ListenerSet as one of a Gateway: they have the same fields (GEP-1713).
pub(super) fn listener(entry: &ListenerSetListeners) -> GatewayListeners {
    GatewayListeners {
        allowed_routes: entry.allowed_routes.as_ref().map(allowed_routes),
        hostname: entry.hostname.clone(),
        name: entry.name.clone(),
        port: entry.port,
        protocol: entry.protocol.clone(),
        tls: entry.tls.as_ref().map(tls),
    }
}

fn allowed_routes(it: &ListenerSetListenersAllowedRoutes) -> GatewayListenersAllowedRoutes {
    let kind = |it: &gateway_api::experimental::listenersets::ListenerSetListenersAllowedRoutesKinds| {
        GatewayListenersAllowedRoutesKinds { group: it.group.clone(), kind: it.kind.clone() }
    };
    GatewayListenersAllowedRoutes {
        kinds: it.kinds.as_ref().map(|kinds| kinds.iter().map(kind).collect()),
        namespaces: it.namespaces.as_ref().map(namespaces),
    }
}

fn namespaces(it: &ListenerSetListenersAllowedRoutesNamespaces) -> GatewayListenersAllowedRoutesNamespaces {
    let from = it.from.as_ref().map(|from| match from {
        SetFrom::All => From::All,
        SetFrom::Selector => From::Selector,
        SetFrom::Same => From::Same,
    });
    let selector = it.selector.as_ref().map(|it| GatewayListenersAllowedRoutesNamespacesSelector {
        match_expressions: it.match_expressions.as_ref().map(|all| {
            let each = all.iter();
            let each = each.map(|it| Expression {
                key: it.key.clone(),
                operator: it.operator.clone(),
                values: it.values.clone(),
            });
            each.collect()
        }),
        match_labels: it.match_labels.clone(),
    });
    GatewayListenersAllowedRoutesNamespaces { from, selector }
}

fn tls(it: &ListenerSetListenersTls) -> GatewayListenersTls {
    let references = it.certificate_refs.as_ref().map(|references| {
        let each = references.iter().map(|it| GatewayListenersTlsCertificateRefs {
            group: it.group.clone(),
            kind: it.kind.clone(),
            name: it.name.clone(),
            namespace: it.namespace.clone(),
        });
        each.collect()
    });
    let mode = it.mode.as_ref().map(|mode| match mode {
        SetMode::Terminate => Mode::Terminate,
        SetMode::Passthrough => Mode::Passthrough,
    });
    GatewayListenersTls { certificate_refs: references, mode, options: it.options.clone() }
}

/// `allowedRoutes.namespaces.selector`
pub(super) fn selector_of_routes(it: &GatewayListenersAllowedRoutesNamespacesSelector) -> LabelSelector {
    let requirement = |it: &Expression| requirement(&it.key, &it.operator, it.values.as_ref());
    let expressions = it.match_expressions.as_ref().map(|all| all.iter().map(requirement).collect());
    LabelSelector { match_labels: it.match_labels.clone(), match_expressions: expressions }
}

/// `allowedListeners.namespaces.selector`
pub(super) fn selector_of_sets(it: &GatewayAllowedListenersNamespacesSelector) -> LabelSelector {
    let expressions = it.match_expressions.as_ref().map(|all| {
        let each = all.iter().map(|it| requirement(&it.key, &it.operator, it.values.as_ref()));
        each.collect()
    });
    LabelSelector { match_labels: it.match_labels.clone(), match_expressions: expressions }
}

fn requirement(key: &str, operator: &str, values: Option<&Vec<String>>) -> LabelSelectorRequirement {
    LabelSelectorRequirement { key: key.to_owned(), operator: operator.to_owned(), values: values.cloned() }
}
