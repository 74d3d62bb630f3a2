//! The seam between the chain and what knows about clients.

use std::collections::HashMap;
use std::fmt::Debug;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use crate::hashers::Hashers;
use crate::sources::scram::Exchange;
use crate::users::Database;
use crate::{Denial, Identity, Request};

/// An answer that may take a while.
pub type Pending<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Something that knows about clients: a file, a key set, a database, a server.
///
/// It neither limits its time nor remembers results: its stage of the chain does.
pub trait Source: Debug + Send + Sync {
    /// What it wants to see of a client.
    fn takes(&self) -> Takes;

    /// What its decision depends on; [`Inputs::NONE`] if asking it is as cheap as remembering.
    fn inputs(&self) -> Inputs {
        Inputs::NONE
    }

    /// Changes with what it knows: results of earlier generations are forgotten.
    fn generation(&self) -> u64 {
        0
    }

    /// Decides about a client.
    fn decide<'a>(&'a self, ask: Ask<'a>) -> Pending<'a, Decision>;

    /// Seconds between two calls of [`Self::upkeep`], the first of which comes at the start; `None`: never.
    fn upkeep_every_s(&self) -> Option<u64> {
        None
    }

    /// Reads what it knows anew, and keeps what it had if that fails.
    ///
    /// # Errors
    /// A sentence for the operator.
    fn upkeep(&self, _now_s: u64) -> Pending<'_, Result<(), String>> {
        Box::pin(async { Ok(()) })
    }
}

/// What a source wants to see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Takes {
    /// User name or client identifier, and password: not asked about clients that name a method.
    Password,
    /// Facts about the connection. With a method it can refuse and add, but not admit.
    Facts,
    /// Enhanced authentication by this method [4.12]: asked about no other clients.
    Method(&'static str),
}

/// What a decision depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inputs(u8);

impl Inputs {
    /// Nothing: the decision is not remembered.
    pub const NONE: Self = Self(0);
    /// The client identifier.
    pub const CLIENT_ID: Self = Self(1);
    /// The user name.
    pub const USERNAME: Self = Self(2);
    /// The password.
    pub const PASSWORD: Self = Self(4);
    /// The address of the client.
    pub const PEER: Self = Self(8);
    /// The certificate of the client.
    pub const CERTIFICATE: Self = Self(16);
    /// Attributes that earlier authenticators set.
    pub const ATTRIBUTES: Self = Self(32);
    /// All of these.
    pub const ALL: Self = Self(63);

    /// Both.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether the other is part of this.
    #[must_use]
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

/// A client as a source sees it.
#[derive(Clone, Copy, Debug)]
pub struct Ask<'a> {
    /// What the client sent.
    pub request: &'a Request,
    /// What earlier authenticators said of it.
    pub so_far: &'a Identity,
    /// Unix seconds.
    pub now_s: u64,
}

impl<'a> Ask<'a> {
    /// The user name as it stands.
    #[must_use]
    pub fn username(&self) -> Option<&'a str> {
        self.so_far.username.as_deref().or(self.request.username.as_deref())
    }

    /// The client identifier as it stands.
    #[must_use]
    pub fn client_id(&self) -> &'a str {
        self.so_far.client_id.as_deref().unwrap_or(&self.request.client_id)
    }
}

/// What a source says. An identity in it is what it adds: the chain merges them.
#[derive(Clone, Debug)]
pub enum Decision {
    /// Welcome; nobody else is asked.
    Allow(Box<Identity>),
    /// Refused; nobody else is asked.
    Deny(Denial),
    /// Not for this source to say.
    Ignore,
    /// Not for this source to say, but this is so.
    Add(Box<Identity>),
    /// The client is asked something.
    Challenge {
        /// Authentication Data.
        data: Box<[u8]>,
        /// Its state.
        exchange: Box<Exchange>,
    },
    /// It could not find out, for a reason that the operator should know.
    Failed(String),
    /// It has too much to do.
    Busy,
}

/// What sources share, given when they are made.
#[derive(Clone, Debug)]
pub struct Context {
    pub(crate) hashers: Arc<Hashers>,
    databases: Databases,
}

/// A file of users is in memory once, for however many sources.
type Databases = Arc<Mutex<HashMap<PathBuf, Weak<Database>>>>;

impl Context {
    pub(crate) fn new(hashers: Arc<Hashers>) -> Self {
        Self { hashers, databases: Databases::default() }
    }

    /// The users of a file.
    ///
    /// # Errors
    /// A sentence for the operator.
    pub(crate) fn database(&self, file: &Path) -> Result<Arc<Database>, String> {
        let mut known = self.databases.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(database) = known.get(file).and_then(Weak::upgrade) {
            return Ok(database);
        }
        let database = Arc::new(Database::open(file)?);
        known.insert(file.to_owned(), Arc::downgrade(&database));
        Ok(database)
    }
}
