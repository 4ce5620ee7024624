//! Tables of rules. This first form only holds them; the routing engineer's module replaces this file whole.

use std::sync::Arc;

use crate::route::RouteRule;

/// HTTP and gRPC rules of one frontend.
#[derive(Debug)]
pub struct HttpTable {
    rules: Vec<Arc<RouteRule>>,
}

impl HttpTable {
    /// Holds the rules.
    pub fn new(rules: Vec<Arc<RouteRule>>) -> Self {
        Self { rules }
    }

    /// The rules.
    pub fn rules(&self) -> &[Arc<RouteRule>] {
        &self.rules
    }
}

/// TLS, TCP or UDP rules of one frontend.
#[derive(Debug)]
pub struct L4Table {
    rules: Vec<Arc<RouteRule>>,
}

impl L4Table {
    /// Holds the rules.
    pub fn new(rules: Vec<Arc<RouteRule>>) -> Self {
        Self { rules }
    }

    /// The rules.
    pub fn rules(&self) -> &[Arc<RouteRule>] {
        &self.rules
    }
}
