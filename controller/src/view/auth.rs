//! Who asks, and whether they may: as kube-rbac-proxy does it, by the API server's word.

use http::StatusCode;
use weft_k8s::object::WEFT_GROUP;
use weft_kube::kube::Client;
use weft_kube::{People, ReviewError, Right, User};

/// The audience of tokens that are made for this server; those for the API server are taken as well.
pub const AUDIENCE: &str = "weftmesh.io";

/// What a right is about: resources of group `weftmesh.io` that exist in roles only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resource {
    /// Requests as they pass.
    Taps,
    /// What the mesh is like: who calls whom, routes, certificates, problems.
    Views,
}

impl Resource {
    /// As roles name it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Taps => "taps",
            Self::Views => "views",
        }
    }

    /// The chart's ClusterRole that gives it.
    pub const fn role(self) -> &'static str {
        match self {
            Self::Taps => "weft-tap",
            Self::Views => "weft-view",
        }
    }
}

/// Why there is no answer, in a sentence for whoever asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{why}")]
pub struct Refused {
    /// 401 for who isn't known, 403 for who may not, 400, 404, 413, 429 for what can't be had, 503 for what can't be had now.
    pub status: StatusCode,
    /// The sentence.
    pub why: String,
}

impl Refused {
    /// With a status and a sentence.
    pub fn new(status: StatusCode, why: impl Into<String>) -> Self {
        Self { status, why: why.into() }
    }
}

/// Lets people in. A cheap question: the API server's answers are remembered for some seconds.
#[derive(Debug)]
pub struct Guard {
    people: People,
}

impl Guard {
    /// Asks this API server.
    pub fn new(client: Client) -> Self {
        Self { people: People::new(client, AUDIENCE) }
    }

    /// Who shows this token, if they may `get` the resource in a namespace; an empty one stands for all of them.
    ///
    /// # Errors
    /// 401 without a token that is good, 403 without the right, 503 if the API server can't say. 403 says how the right is given.
    pub async fn authorize(&self, token: Option<&str>, namespace: &str, what: Resource) -> Result<User, Refused> {
        let token = token.ok_or_else(|| Refused::new(StatusCode::UNAUTHORIZED, NO_TOKEN))?;
        let user = self.people.user(token).await.map_err(|error| match error {
            ReviewError::Invalid(why) => Refused::new(StatusCode::UNAUTHORIZED, format!("{why}; {OTHER_TOKEN}")),
            error @ ReviewError::Unavailable(_) => unavailable(&error),
        })?;
        let right = Right { verb: "get", group: WEFT_GROUP, resource: what.as_str(), namespace };
        match self.people.may(&user, right).await.map_err(|error| unavailable(&error))? {
            Ok(()) => Ok(user),
            Err(why) => Err(Refused::new(StatusCode::FORBIDDEN, lacks(&user, namespace, what, &why))),
        }
    }
}

const NO_TOKEN: &str = "a bearer token is needed: that of a kubeconfig, or one of a ServiceAccount for audience weftmesh.io \
                        (kubectl create token NAME --audience weftmesh.io)";
const OTHER_TOKEN: &str = "log in again, or show a token for audience weftmesh.io (kubectl create token NAME --audience \
                           weftmesh.io)";

fn unavailable(error: &ReviewError) -> Refused {
    Refused::new(StatusCode::SERVICE_UNAVAILABLE, format!("{error}; try again"))
}

/// Which right somebody lacks, and a command that gives it.
fn lacks(user: &User, namespace: &str, what: Resource, why: &str) -> String {
    let (name, resource, role) = (user.name(), what.as_str(), what.role());
    let account = name.strip_prefix("system:serviceaccount:").and_then(|rest| rest.split_once(':'));
    let subject = match account {
        Some((of, account)) => format!("--serviceaccount={of}:{account}"),
        None => format!("--user={name}"),
    };
    let (place, command) = match namespace {
        "" => ("all namespaces".to_owned(), "kubectl create clusterrolebinding".to_owned()),
        namespace => (format!("namespace {namespace}"), format!("kubectl -n {namespace} create rolebinding")),
    };
    let said = if why.is_empty() { String::new() } else { format!(" ({why})") };
    format!(
        "{name} may not get {resource}.{WEFT_GROUP} in {place}{said}; whoever may give rights there can: {command} \
         NAME --clusterrole={role} {subject}"
    )
}

#[cfg(test)]
#[path = "tests/auth.rs"]
pub(super) mod tests;
