//! What can say who a client is: a folder each, and one line of the registry.

pub mod certificate;
pub mod client_ids;
pub mod expression;
pub mod jwt;
pub(crate) mod registry;
pub mod scram;
pub mod users;
