//! Handshakes in memory between real stores; certificates made by rcgen, some of them broken on purpose.

mod backend;
mod chains;
mod clients;
mod control;
mod gateway;
mod handshakes;
mod pki;
mod renewal;
mod resumption;
mod serve;
mod trust;
