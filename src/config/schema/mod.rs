//! Every key of the configuration, each declared once: type, default, bounds, reload, text.
//!
//! `config/ringmain.example.toml` is written from these declarations.

mod admin;
mod authorization;
mod bans;
mod limits;
mod listener;
mod mqtt;
mod node;
mod observe;
mod transport;

pub use admin::{Admin, MetricsListen};
pub use authorization::{Authorization, ClientRules, Form, NoMatch, RulesPath};
pub use bans::Bans;
pub use limits::{Limits, Overload, Reactor, SlowConsumerPolicy};
pub use listener::{ConnectionRateMode, Listener};
pub use mqtt::{
    DenyAction, DropPolicy, KeepAliveV3Policy, Mqtt, Overlap, RateAction, Redispatch, Retained,
    ShareStrategy, Shared, StickyPick,
};
pub use node::{Log, LogFilter, LogFormat, Node, Sys, SysCompat};
pub use observe::{DelayStage, Observe};
pub use transport::{
    ClientVerification, CrlExpired, CrlUnknown, FileMode, ListenerUrl, Network, Scheme, TlsAlpn,
    TlsVersion, UnknownName,
};
