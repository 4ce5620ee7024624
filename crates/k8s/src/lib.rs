//! Typed Kubernetes objects, their index, translation to core and the directory source.
