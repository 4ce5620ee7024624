//! HTTP/2 CONNECT tunnels and their pool.
