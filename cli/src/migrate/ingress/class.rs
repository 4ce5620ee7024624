//! Whose an Ingress is: its class, and which controller serves that.

use std::collections::BTreeMap;

use k8s_openapi::api::networking::v1::{Ingress, IngressClass};

use super::input::Inputs;

/// The annotation that named the class before there was a field for it.
pub const CLASS_ANNOTATION: &str = "kubernetes.io/ingress.class";
/// What marks the class of Ingresses that name none.
const DEFAULT_CLASS: &str = "ingressclass.kubernetes.io/is-default-class";

/// A controller of Ingresses, as far as its defaults and its annotations matter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Controller {
    /// ingress-nginx of the Kubernetes project.
    Nginx,
    /// Traefik.
    Traefik,
    /// The Kubernetes Ingress Controller of HAProxy Technologies.
    HaproxyTech,
    /// HAProxy Ingress of the community.
    HaproxyIngress,
    /// The AWS Load Balancer Controller.
    Alb,
    /// Any other: only what the Ingress itself says is known.
    Other,
}

impl Controller {
    /// Those with annotations that are known here, with their prefixes.
    pub const PREFIXES: [(Self, &'static str); 6] = [
        (Self::Nginx, "nginx.ingress.kubernetes.io/"),
        (Self::Traefik, "traefik.ingress.kubernetes.io/"),
        (Self::HaproxyTech, "haproxy.org/"),
        (Self::HaproxyTech, "haproxy.com/"),
        (Self::HaproxyIngress, "haproxy-ingress.github.io/"),
        (Self::Alb, "alb.ingress.kubernetes.io/"),
    ];

    /// The name of the program.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Nginx => "ingress-nginx",
            Self::Traefik => "Traefik",
            Self::HaproxyTech => "HAProxy's controller",
            Self::HaproxyIngress => "HAProxy Ingress",
            Self::Alb => "the AWS Load Balancer Controller",
            Self::Other => "another controller",
        }
    }

    /// Whether it sends plaintext requests for a host with a certificate to HTTPS if nobody says otherwise.
    pub const fn redirects_to_tls(self) -> bool {
        matches!(self, Self::Nginx | Self::HaproxyTech | Self::HaproxyIngress)
    }

    /// By `spec.controller` of an IngressClass.
    fn of_class(class: &IngressClass) -> Self {
        let name = class.spec.as_ref().and_then(|spec| spec.controller.as_deref()).unwrap_or_default();
        match name {
            "k8s.io/ingress-nginx" => Self::Nginx,
            "traefik.io/ingress-controller" => Self::Traefik,
            "haproxy-ingress.github.io/controller" => Self::HaproxyIngress,
            "ingress.k8s.aws/alb" => Self::Alb,
            name if name.starts_with("haproxy.org/ingress-controller") => Self::HaproxyTech,
            _ => Self::Other,
        }
    }

    /// Of a class that nobody described: by the annotations that somebody wrote on its Ingresses, then by its name.
    fn guess(name: &str, ingresses: &[&Ingress]) -> Self {
        let keys = || ingresses.iter().flat_map(|it| it.metadata.annotations.iter().flatten()).map(|(key, _)| key);
        let used = |prefix: &str| keys().filter(|key| key.starts_with(prefix)).count();
        let most = Self::PREFIXES.into_iter().rev().max_by_key(|(_, prefix)| used(prefix));
        if let Some((controller, _)) = most.filter(|(_, prefix)| used(prefix) > 0) {
            return controller;
        }
        let by_name = [("nginx", Self::Nginx), ("traefik", Self::Traefik), ("alb", Self::Alb)];
        let found = by_name.into_iter().find(|(part, _)| name.contains(part));
        found.map_or(Self::Other, |(_, controller)| controller)
    }
}

/// A class and who serves it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Class {
    /// Its name; `ingress` if there is none.
    pub name: String,
    pub controller: Controller,
    /// Whether an IngressClass of a controller that is known says so; else it is a guess.
    pub is_described: bool,
}

/// The classes of all Ingresses.
#[derive(Debug)]
pub struct Classes<'a> {
    inputs: &'a Inputs,
    by_name: BTreeMap<String, Class>,
}

impl<'a> Classes<'a> {
    /// Those of what was read.
    pub fn of(inputs: &'a Inputs) -> Self {
        let mut members: BTreeMap<String, Vec<&Ingress>> = BTreeMap::new();
        for ingress in &inputs.ingresses {
            members.entry(name_of(ingress, inputs)).or_default().push(ingress);
        }
        let by_name = members.into_iter().map(|(name, ingresses)| {
            let class = class(&name, &ingresses, inputs);
            (name, class)
        });
        Self { inputs, by_name: by_name.collect() }
    }

    /// That of an Ingress among them.
    pub fn of_ingress(&self, ingress: &Ingress) -> Class {
        let name = name_of(ingress, self.inputs);
        self.by_name.get(&name).cloned().unwrap_or_else(|| class(&name, &[ingress], self.inputs))
    }
}

fn class(name: &str, ingresses: &[&Ingress], inputs: &Inputs) -> Class {
    let described = inputs.classes.iter().find(|class| class.metadata.name.as_deref() == Some(name));
    let controller = described.map_or(Controller::Other, Controller::of_class);
    // One that nobody here knows says nothing of who reads the annotations.
    let is_described = controller != Controller::Other;
    let controller = if controller == Controller::Other { Controller::guess(name, ingresses) } else { controller };
    let name = if name.is_empty() { "ingress".to_owned() } else { name.to_owned() };
    Class { name, controller, is_described }
}

/// The name of an Ingress's class: the field, the old annotation, or the default of the cluster; empty if there is none.
fn name_of(ingress: &Ingress, inputs: &Inputs) -> String {
    let field = ingress.spec.as_ref().and_then(|spec| spec.ingress_class_name.clone());
    let annotation = || ingress.metadata.annotations.as_ref().and_then(|all| all.get(CLASS_ANNOTATION)).cloned();
    let is_default = |class: &&IngressClass| {
        let annotations = class.metadata.annotations.as_ref();
        annotations.and_then(|all| all.get(DEFAULT_CLASS)).is_some_and(|value| value == "true")
    };
    let default = || inputs.classes.iter().find(is_default).and_then(|class| class.metadata.name.clone());
    field.or_else(annotation).or_else(default).unwrap_or_default()
}
