//! The CNI plugin and the node agent that sets redirection in pods' network namespaces.
