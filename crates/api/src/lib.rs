//! Wire messages of Weft: delta discovery, resources, CA, node agent. No logic.
