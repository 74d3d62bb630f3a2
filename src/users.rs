//! `ringmain user …`: the command line of files of users.

use std::io::{BufRead, IsTerminal, Write};
use std::path::PathBuf;

use clap::{Args, Subcommand};
use ringmain_auth::commands::{self, Secrets};
use ringmain_auth::password::Scheme;
use ringmain_auth::sources::scram::Method;
use ringmain_auth::users::import::{Algorithm, Format, Options};
use ringmain_auth::users::{By, Record};

/// Longest password that MQTT can carry.
const PASSWORD_BYTES_MAX: u64 = 65_535;

/// `ringmain user …`.
#[derive(Debug, Subcommand)]
pub(crate) enum User {
    /// Add a user. The password is asked for; from a pipe, it is the first line
    Add {
        #[command(flatten)]
        who: Who,
        #[command(flatten)]
        secrets: SecretOptions,
        /// Access rules do not bind this user
        #[arg(long)]
        superuser: bool,
        /// Give an attribute, for access rules; repeatable
        #[arg(long, value_name = "NAME=VALUE", value_parser = attribute)]
        attribute: Vec<(String, String)>,
    },
    /// Change the password of a user, and leave the rest
    Passwd {
        #[command(flatten)]
        who: Who,
        #[command(flatten)]
        secrets: SecretOptions,
    },
    /// Delete a user
    Del {
        #[command(flatten)]
        who: Who,
    },
    /// List users, one a line: what they are known by, name, ways to log in, superuser or -, attributes
    List {
        #[command(flatten)]
        file: UsersFile,
    },
    /// Add the users of another broker: all of them, or none if anything is wrong
    Import(Import),
}

#[derive(Debug, Args)]
pub(crate) struct UsersFile {
    /// File of users
    #[arg(long, value_name = "FILE")]
    file: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct Who {
    #[command(flatten)]
    file: UsersFile,
    /// NAME is a client identifier, for `by = "client_id"`
    #[arg(long)]
    client_id: bool,
    /// User name
    #[arg(value_name = "NAME")]
    name: String,
}

#[derive(Debug, Args)]
pub(crate) struct SecretOptions {
    /// How the password is hashed: argon2id, bcrypt, pbkdf2-sha256, pbkdf2-sha512, or for random keys sha256. `none`:
    /// not at all, for users of SCRAM only [default: argon2id]
    #[arg(long, value_name = "HASH", value_parser = scheme)]
    hash: Option<Hashed>,
    /// Keys for enhanced authentication: SCRAM-SHA-256 or SCRAM-SHA-512; repeatable
    #[arg(long, value_name = "METHOD")]
    scram: Vec<Method>,
}

#[derive(Debug, Args)]
pub(crate) struct Import {
    #[command(flatten)]
    file: UsersFile,
    /// Who wrote FROM: mosquitto, emqx-csv or emqx-json
    #[arg(long)]
    format: Format,
    /// Users of FROM are client identifiers
    #[arg(long)]
    client_id: bool,
    /// How EMQX hashed passwords: md5, sha, sha256, sha512, bcrypt, or pbkdf2-sha256 and the like
    #[arg(long, value_name = "NAME", default_value = "sha256")]
    algorithm: String,
    /// Where EMQX put the salt: prefix, suffix or disable
    #[arg(long, value_name = "POSITION", default_value = "prefix", value_parser = ["prefix", "suffix", "disable"])]
    salt_position: String,
    /// How often pbkdf2 of EMQX hashed
    #[arg(long, value_name = "N", default_value_t = 4096)]
    iterations: u32,
    /// How passwords are hashed that are not
    #[arg(long, value_name = "HASH", default_value = "argon2id")]
    hash: Scheme,
    /// Overwrite users that are there already
    #[arg(long)]
    replace: bool,
    /// File to import
    #[arg(value_name = "FROM")]
    from: PathBuf,
}

/// How a password for CONNECT is kept.
#[derive(Clone, Copy, Debug)]
struct Hashed(Option<Scheme>);

fn scheme(name: &str) -> Result<Hashed, String> {
    if name == "none" { Ok(Hashed(None)) } else { name.parse().map(|s| Hashed(Some(s))) }
}

fn attribute(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("write NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

impl Who {
    fn by(&self) -> By {
        if self.client_id { By::ClientId } else { By::Username }
    }
}

impl SecretOptions {
    fn secrets(&self) -> Secrets {
        let Hashed(scheme) = self.hash.unwrap_or(Hashed(Some(Scheme::default())));
        Secrets { scheme, scram: self.scram.clone() }
    }
}

/// Does what the command line says.
///
/// # Errors
/// All that is wrong; the file is as it was.
pub(crate) fn run(command: &User) -> Result<(), Vec<String>> {
    perform(command, &mut std::io::stdout().lock())
}

fn perform(command: &User, out: &mut dyn Write) -> Result<(), Vec<String>> {
    let one = |error: String| vec![error];
    match command {
        User::Add { who, secrets, superuser, attribute } => {
            let mut record = Record::new(who.by(), &who.name);
            record.superuser = *superuser;
            let attributes = attribute.iter();
            record.attributes = attributes
                .map(|(name, value)| (name.as_str().into(), value.as_str().into()))
                .collect();
            let password = password(&who.name).map_err(one)?;
            commands::add(&who.file.file, record, &password, &secrets.secrets(), out).map_err(one)
        }
        User::Passwd { who, secrets } => {
            let password = password(&who.name).map_err(one)?;
            let whom = (who.by(), who.name.as_str());
            commands::passwd(&who.file.file, whom, &password, &secrets.secrets(), out).map_err(one)
        }
        User::Del { who } => commands::del(&who.file.file, (who.by(), &who.name), out).map_err(one),
        User::List { file } => commands::list(&file.file, out).map_err(one),
        User::Import(import) => import.perform(out),
    }
}

impl Import {
    fn perform(&self, out: &mut dyn Write) -> Result<(), Vec<String>> {
        let salt_first = self.salt_position != "suffix";
        let algorithm = Algorithm::named(&self.algorithm, salt_first, self.iterations);
        let options = Options {
            by: if self.client_id { By::ClientId } else { By::Username },
            algorithm: algorithm.map_err(|error| vec![error])?,
            scheme: self.hash,
        };
        let file = &self.file.file;
        commands::import(file, &self.from, self.format, &options, self.replace, out)
    }
}

/// The password: typed twice, unseen, or the first line of a pipe. Never an argument, which others could see.
fn password(name: &str) -> Result<Vec<u8>, String> {
    let failed = |error: std::io::Error| format!("cannot read the password: {error}");
    if std::io::stdin().is_terminal() {
        let first = rpassword::prompt_password(format!("Password of {name}: ")).map_err(failed)?;
        let second = rpassword::prompt_password("Once more: ").map_err(failed)?;
        if first != second {
            return Err("the two are not the same: nothing was changed".to_owned());
        }
        return Ok(first.into_bytes());
    }
    let mut line = Vec::new();
    let stdin = std::io::stdin().lock();
    let mut stdin = std::io::Read::take(stdin, PASSWORD_BYTES_MAX + 2);
    stdin.read_until(b'\n', &mut line).map_err(failed)?;
    if line.last() == Some(&b'\n') {
        line.pop();
    }
    if line.len() as u64 > PASSWORD_BYTES_MAX {
        return Err(format!("the password is longer than {PASSWORD_BYTES_MAX} bytes"));
    }
    Ok(line)
}
