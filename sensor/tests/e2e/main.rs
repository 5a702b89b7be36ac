//! End-to-end tests on real servers, clients and libraries. They need root.

#[path = "../lab/lab.rs"]
mod lab;

mod baseline;
mod blame;
mod clean;
mod comings;
mod crash;
mod decisions;
mod disturbances;
mod elevation;
mod fixture;
mod flood;
mod helpers;
mod incident;
mod learned;
mod linker;
mod logins;
mod metrics;
mod patrol;
mod proof;
mod refusal;
mod release;
mod replay;
mod robust;
mod running;
mod transient;
mod victim;
