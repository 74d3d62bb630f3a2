//! The engine against what MQTT and the feature table say: whole nodes of 1, 2 and 5 shards, driven
//! packet by packet with a clock that stands still unless told otherwise.
#![allow(clippy::too_many_lines, reason = "a scenario reads best in one piece")]

mod smoke;
mod support;
