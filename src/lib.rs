//! The broker: command line, configuration, boot and shutdown around the data plane.

pub mod boot;
pub mod cli;
pub mod config;
pub mod logging;
pub mod plane;
pub mod signals;
