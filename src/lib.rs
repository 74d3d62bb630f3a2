//! The broker: command line, configuration, boot and shutdown around the data plane.

mod admin;
mod authorization;
mod bans;
pub mod boot;
pub mod cli;
pub mod config;
mod doctor;
mod explain;
pub mod logging;
pub mod notify;
mod observe;
pub mod plane;
pub mod signals;
mod symbols;
mod users;
