//! The configuration: layers, checks, and what may change while the broker runs.
//!
//! Later layers win: defaults, then the file (TOML), then the environment
//! (`RINGMAIN__SECTION__KEY`), then `--set section.key=value`, then `--listen`, `--shards`,
//! `--data-dir` and `--log`. A [`Config`] can only be had whole and valid; everything that is wrong
//! with the layers is reported at once, each with the place it was written.

mod authentication;
mod authorization;
mod duration;
mod error;
mod field;
mod live;
mod load;
mod rate;
mod raw;
mod relations;
mod schema;
mod section;
mod show;

pub use authentication::Authentication;
pub use authorization::RuleFiles;
pub(crate) use duration::duration_ms;
pub use error::{ConfigError, ConfigErrors, Origin};
pub use field::{Bounds, Field, Kind, Problem};
pub use live::{KeyChange, KeyNeedsRestart, LiveChanges};
pub use load::Sources;
pub(crate) use load::nearest_of;
pub use raw::{Raw, RawEntry, RawValue};
pub use schema::*;
pub use section::{KeyInfo, Reload, Section, SectionInfo};
pub use show::{effective, example};

macro_rules! sections {
    ($( $(#[doc = $doc:literal])* $name:ident : $ty:ident, )*) => {
        /// A whole, valid configuration.
        #[derive(Debug, Clone, PartialEq)]
        pub struct Config {
            $( $(#[doc = $doc])* pub $name: $ty, )*
            /// `[auth]`, `[[authentication]]`, and what listeners say of it.
            pub authentication: Authentication,
            /// `[[listeners]]`, at least one; each with its own effective `[mqtt]`.
            pub listeners: Vec<Listener>,
        }

        impl Default for Config {
            fn default() -> Self {
                Config {
                    $( $name: $ty::default(), )*
                    authentication: Authentication::default(),
                    listeners: Listener::loopback(),
                }
            }
        }

        impl Config {
            /// The sections with a name of their own: all but `[[listeners]]`.
            pub const SECTIONS: &'static [(&'static str, &'static SectionInfo)] =
                &[$( (stringify!($name), const { &$ty::INFO }) ),*];

            /// The section of this name.
            pub fn section(&self, name: &str) -> Option<&dyn Section> {
                match name { $( stringify!($name) => Some(&self.$name), )* _ => None }
            }

            fn section_mut(&mut self, name: &str) -> Option<&mut dyn Section> {
                match name { $( stringify!($name) => Some(&mut self.$name), )* _ => None }
            }
        }
    };
}

sections! {
    /// `[node]`.
    node: Node,
    /// `[log]`.
    log: Log,
    /// `[mqtt]`: what listeners without `[listeners.mqtt]` use.
    mqtt: Mqtt,
    /// `[authorization]`.
    authorization: Authorization,
    /// `[bans]`.
    bans: Bans,
    /// `[shared]`.
    shared: Shared,
    /// `[retained]`.
    retained: Retained,
    /// `[limits]`.
    limits: Limits,
    /// `[overload]`.
    overload: Overload,
    /// `[reactor]`.
    reactor: Reactor,
    /// `[sys]`.
    sys: Sys,
    /// `[admin]`.
    admin: Admin,
    /// `[observe]`.
    observe: Observe,
}

impl Config {
    /// Whether only this host can reach the listeners.
    pub fn is_loopback_only(&self) -> bool {
        self.listeners.iter().all(|listener| listener.url.is_local())
    }

    /// What must change to get from `old` to `new`, if it can be done while the broker runs.
    ///
    /// # Errors
    /// The keys that differ and take effect only when the broker starts. Then nothing may change.
    pub fn diff_live(old: &Config, new: &Config) -> Result<LiveChanges, Vec<KeyNeedsRestart>> {
        live::diff(old, new)
    }
}
