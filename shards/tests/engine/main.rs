//! The engine against what MQTT and the feature table say: whole nodes of 1, 2 and 5 shards, driven
//! packet by packet with a clock that stands still unless told otherwise.
#![allow(clippy::too_many_lines, reason = "a scenario reads best in one piece")]

mod access;
mod auth;
mod bans;
mod connect;
mod delivery;
mod limits;
mod publish;
mod rates;
mod reasons;
mod replay;
mod retained;
mod sessions;
mod shared;
mod smoke;
mod statements;
mod subscribe;
mod support;
mod sys;
mod turns;
mod wills;
mod wire;
