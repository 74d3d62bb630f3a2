//! Scenario files.

mod toml;
