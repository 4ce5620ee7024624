//! The data plane of Weft: node and gateway fronts.
