//! End-to-end tests on real servers, clients and libraries. They need root.

#[path = "../lab/lab.rs"]
mod lab;

mod fixture;
mod helpers;
