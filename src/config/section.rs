//! A section of the configuration: a struct whose keys are declared once, with everything that
//! the loader, the example file, `check-config` and a reload need to know about them.

use super::field::{Bounds, Kind, Problem};
use super::raw::Raw;

/// When a changed value takes effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reload {
    /// On SIGHUP. Values that a connection or session fixes when it starts apply to new ones.
    Live,
    /// Only when the broker starts.
    Restart,
}

/// All there is to know about a key.
#[derive(Debug)]
pub struct KeyInfo {
    /// Its name inside the section.
    pub name: &'static str,
    /// Its type.
    pub kind: Kind,
    /// Allowed values of a number, each number of a list or table, or lengths of a text.
    pub bounds: Option<Bounds>,
    /// When a change takes effect.
    pub reload: Reload,
    /// Its documentation, a line each.
    pub doc: &'static [&'static str],
}

/// All there is to know about a section.
#[derive(Debug)]
pub struct SectionInfo {
    /// Its documentation, a line each.
    pub doc: &'static [&'static str],
    /// Its keys in the order of the example file.
    pub keys: &'static [KeyInfo],
}

impl SectionInfo {
    /// The key of this name.
    pub fn key(&self, name: &str) -> Option<&'static KeyInfo> {
        self.keys.iter().find(|key| key.name == name)
    }
}

/// A section, seen by the loader.
pub trait Section {
    /// Its keys.
    fn info(&self) -> &'static SectionInfo;

    /// Sets `key`, or with `entry` one entry of the table that `key` holds.
    /// The caller has looked the key up in `info`.
    ///
    /// # Errors
    /// All that is wrong with the value.
    fn assign(&mut self, key: &str, entry: Option<&str>, raw: &Raw) -> Result<(), Vec<Problem>>;

    /// The value of `key` as TOML; empty for a key that is not in `info`.
    fn toml(&self, key: &str) -> String;
}

/// Declares a section: `key: Type = default, Live;` or `key: Type = default, [low..=high], Restart;`.
macro_rules! section {
    (
        $(#[doc = $sdoc:literal])*
        pub struct $name:ident {
            $(
                $(#[doc = $doc:literal])*
                $field:ident : $ty:ty = $default:expr, $([$lo:literal ..= $hi:literal],)? $reload:ident;
            )*
        }
        $( and { $( $(#[doc = $xdoc:literal])* $extra:ident : $xty:ty, )* } )?
    ) => {
        $(#[doc = $sdoc])*
        #[derive(Debug, Clone, PartialEq)]
        pub struct $name {
            $( $(#[doc = $doc])* pub $field: $ty, )*
            $( $( $(#[doc = $xdoc])* pub $extra: $xty, )* )?
        }

        impl Default for $name {
            fn default() -> Self {
                $name { $( $field: $default, )* $( $( $extra: Default::default(), )* )? }
            }
        }

        impl $name {
            /// The keys of this section.
            pub const INFO: $crate::config::section::SectionInfo =
                $crate::config::section::SectionInfo {
                    doc: &[$($sdoc),*],
                    keys: &[$( $crate::config::section::KeyInfo {
                        name: stringify!($field),
                        kind: <$ty as $crate::config::field::Field>::KIND,
                        bounds: $crate::config::section::bounds!($($lo, $hi)?),
                        reload: $crate::config::section::Reload::$reload,
                        doc: &[$($doc),*],
                    } ),*],
                };
        }

        impl $crate::config::section::Section for $name {
            fn info(&self) -> &'static $crate::config::section::SectionInfo {
                const { &$name::INFO }
            }

            fn assign(
                &mut self,
                key: &str,
                entry: Option<&str>,
                raw: &$crate::config::raw::Raw,
            ) -> Result<(), Vec<$crate::config::field::Problem>> {
                use $crate::config::field::Field;
                match key {
                    $( stringify!($field) => {
                        let bounds = $crate::config::section::bounds!($($lo, $hi)?);
                        match entry {
                            Some(entry) => self.$field.read_entry(entry, raw, bounds)?,
                            None => {
                                let raw = raw.settle(<$ty as Field>::KIND.is_text());
                                self.$field = <$ty as Field>::read(&raw, bounds)?;
                            }
                        }
                    } )*
                    _ => debug_assert!(false, "{key} was looked up before"),
                }
                Ok(())
            }

            fn toml(&self, key: &str) -> String {
                use $crate::config::field::Field;
                match key {
                    $( stringify!($field) => self.$field.toml(), )*
                    _ => String::new(),
                }
            }
        }
    };
}
pub(crate) use section;

macro_rules! bounds {
    () => {
        None
    };
    ($lo:literal, $hi:literal) => {
        Some($crate::config::field::Bounds { min: $lo as i64 as f64, max: $hi as i64 as f64 })
    };
}
pub(crate) use bounds;
