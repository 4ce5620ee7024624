//! World, namespace, demo and benchmark harnesses.
