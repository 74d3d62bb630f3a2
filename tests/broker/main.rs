//! The binary as a process, with clients, operators and supervisors around it. Ports are chosen by the kernel.

mod admin;
mod authenticate;
mod authorize;
mod bans;
mod notify;
mod observe;
mod serve;
mod support;
mod transports;
