//! The command line. Exit codes: 0 done, 1 the broker failed, 2 the command line or the
//! configuration is wrong.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use ringmain_control::client::Client;

use crate::config::{Config, ConfigErrors, Sources, effective};
use crate::doctor::{self, Doctor};
use crate::{bans, boot, explain, logging, observe, plane, users};

/// Exit code for a wrong command line or configuration; clap uses the same.
const EXIT_USAGE: u8 = 2;

/// An MQTT broker for bare metal: io_uring, one shard per core.
#[derive(Debug, Parser)]
#[command(name = "ringmain", version, about, disable_help_subcommand = true)]
pub struct Cli {
    #[command(flatten)]
    options: Options,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the broker (the default)
    Serve(Options),
    /// Print the effective configuration as TOML, or all that is wrong with it
    CheckConfig {
        /// Configuration file; the same as --config
        #[arg(value_name = "FILE", conflicts_with = "config")]
        file: Option<PathBuf>,
        #[command(flatten)]
        options: Options,
    },
    /// Say what this host needs for so many connections, which limit stops them first, and what on it is
    /// dangerous; change it, and change it back
    Doctor(Box<Doctor>),
    /// Show what the shards of a running broker do: load, rates, times by stage, drops, slow clients, memory
    Top(Box<Observing<observe::Top>>),
    /// Say where the time of the slowest messages of a running broker went, and what to look at next
    ExplainSlow(Box<Observing<observe::ExplainSlow>>),
    /// Check that a running broker accounts for each copy of a message. Ends with 0 if it does, 1 if not, 3 if that
    /// cannot be told
    Audit(Box<Observing<observe::Audit>>),
    /// Say what would come of a packet by this configuration, and by which rule of which file: a dry run, in which
    /// no broker is asked. Ends with 0 if it would be accepted, 1 if not
    Explain {
        #[command(subcommand)]
        what: Explain,
    },
    /// Draw a flame graph of a running broker
    Profile(Box<Observing<observe::Profile>>),
    /// Add, change, delete, list and import users of a file that `type = "users"` and `type = "scram"` of
    /// [[authentication]] read. A broker that runs sees changes within seconds
    #[command(subcommand)]
    User(users::User),
    /// Ban clients, end bans, list and import them. A broker that runs sees changes within seconds
    Ban {
        #[command(flatten)]
        options: Options,
        #[command(subcommand)]
        what: bans::Command,
    },
    /// Print the home shard of client identifiers, one line each: the identifier, a space, the shard
    Home {
        #[command(flatten)]
        options: Options,
        /// Client identifiers
        #[arg(required = true, value_name = "CLIENT_ID")]
        client_ids: Vec<String>,
    },
}

/// A packet to explain.
#[derive(Debug, Subcommand)]
enum Explain {
    /// A client connects
    Connect(Box<Explaining<explain::Connect>>),
    /// A client publishes
    Publish(Box<Explaining<explain::Publish>>),
    /// A client subscribes
    Subscribe(Box<Explaining<explain::Subscribe>>),
}

/// A command about the configuration.
#[derive(Debug, Args)]
struct Explaining<T: Args> {
    #[command(flatten)]
    what: T,
    #[command(flatten)]
    options: Options,
}

#[derive(Debug, Default, Args)]
struct Options {
    /// Configuration file (TOML); every key is explained in config/ringmain.example.toml
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Set one key of the configuration; repeatable
    #[arg(long, value_name = "SECTION.KEY=VALUE")]
    set: Vec<String>,
    /// Listen here instead of where the configuration says, e.g. tcp://0.0.0.0:1883; repeatable
    #[arg(long, value_name = "URL")]
    listen: Vec<String>,
    /// Number of shards; 0: one for each core that the process may use
    #[arg(long, value_name = "N")]
    shards: Option<String>,
    /// Directory for everything the broker keeps
    #[arg(long, value_name = "DIR")]
    data_dir: Option<String>,
    /// What is logged: off, error, warn, info, debug, trace or a list of target=level
    #[arg(long, value_name = "LEVEL")]
    log: Option<String>,
}

/// A command that asks a running broker.
#[derive(Debug, Args)]
struct Observing<T: Args> {
    /// Admin socket of the broker, instead of the one that the configuration names
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
    #[command(flatten)]
    what: T,
    #[command(flatten)]
    options: Options,
}

impl Options {
    /// These options followed by `later` ones, which win.
    fn then(self, later: Options) -> Options {
        Options {
            config: later.config.or(self.config),
            set: [self.set, later.set].concat(),
            listen: [self.listen, later.listen].concat(),
            shards: later.shards.or(self.shards),
            data_dir: later.data_dir.or(self.data_dir),
            log: later.log.or(self.log),
        }
    }

    fn sources(self) -> Sources {
        let text = |value: std::ffi::OsString| value.to_string_lossy().into_owned();
        Sources {
            file: self.config,
            env: std::env::vars_os().map(|(name, value)| (text(name), text(value))).collect(),
            set: self.set,
            listen: self.listen,
            shards: self.shards,
            data_dir: self.data_dir,
            log: self.log,
        }
    }
}

/// Does what the command line says.
pub fn run(cli: Cli) -> ExitCode {
    match cli.command {
        None => serve(cli.options.sources()),
        Some(Command::Serve(options)) => serve(cli.options.then(options).sources()),
        Some(Command::CheckConfig { file, options }) => {
            let file = Options { config: file, ..Options::default() };
            check_config(&cli.options.then(options).then(file).sources())
        }
        Some(Command::Doctor(options)) => doctor::run(&options),
        Some(Command::Top(o)) => observe(cli.options, *o, observe::top),
        Some(Command::ExplainSlow(o)) => observe(cli.options, *o, observe::explain_slow),
        Some(Command::Audit(o)) => observe(cli.options, *o, observe::audit),
        Some(Command::Explain { what: Explain::Connect(e) }) => explain(cli.options, *e),
        Some(Command::Explain { what: Explain::Publish(e) }) => explain(cli.options, *e),
        Some(Command::Explain { what: Explain::Subscribe(e) }) => explain(cli.options, *e),
        Some(Command::Profile(o)) => observe(cli.options, *o, observe::profile),
        Some(Command::User(user)) => ended(users::run(&user)),
        Some(Command::Ban { options, what }) => match cli.options.then(options).sources().load() {
            Ok(config) => ended(bans::run(&config, &what)),
            Err(errors) => wrong(&errors),
        },
        Some(Command::Home { options, client_ids }) => {
            home(&cli.options.then(options).sources(), &client_ids)
        }
    }
}

/// Runs a command that asks a running broker, at its socket.
fn observe<T: Args>(before: Options, o: Observing<T>, run: observe::Run<T>) -> ExitCode {
    let configured = || before.then(o.options).sources().load().map(|c| observe::socket(&c));
    let socket = match o.socket.map_or_else(configured, |path| Ok(Some(path))) {
        Ok(Some(socket)) => socket,
        Ok(None) => {
            eprintln!("the configuration has no admin socket: set admin.socket, or give --socket");
            return ExitCode::from(EXIT_USAGE);
        }
        Err(errors) => return wrong(&errors),
    };
    run(&Client::new(&socket), &o.what)
}

/// Runs a dry run on the configuration.
fn explain<T: Args + explain::Ask>(before: Options, e: Explaining<T>) -> ExitCode {
    match before.then(e.options).sources().load() {
        Ok(config) => explain::run(&config, &e.what).unwrap_or_else(|why| {
            eprintln!("explain: {why}");
            ExitCode::from(EXIT_USAGE)
        }),
        Err(errors) => wrong(&errors),
    }
}

fn check_config(sources: &Sources) -> ExitCode {
    match sources.load() {
        Ok(config) => {
            if let Err(errors) = plane::check_files(&config) {
                tell(&errors);
                return ExitCode::from(EXIT_USAGE);
            }
            // A reader that has seen enough is no failure.
            let _ = std::io::stdout().write_all(effective(&config).as_bytes());
            ExitCode::SUCCESS
        }
        Err(errors) => wrong(&errors),
    }
}

/// Where clients would live. Only says something when `node.hash_seed` and the number of shards are
/// those of the broker.
fn home(sources: &Sources, client_ids: &[String]) -> ExitCode {
    let config = match sources.load() {
        Ok(config) => config,
        Err(errors) => return wrong(&errors),
    };
    if config.node.hash_seed == 0 || config.node.shards == 0 {
        eprintln!("home: set node.hash_seed and --shards to the values that the broker runs with");
        return ExitCode::from(EXIT_USAGE);
    }
    let mut lines = String::new();
    for id in client_ids {
        let shard = plane::home(&config, id);
        lines.push_str(&format!("{id} {shard}\n"));
    }
    let _ = std::io::stdout().write_all(lines.as_bytes());
    ExitCode::SUCCESS
}

fn serve(sources: Sources) -> ExitCode {
    let config: Config = match sources.load() {
        Ok(config) => config,
        Err(errors) => return wrong(&errors),
    };
    let logging = logging::init(&config.log);
    match boot::run(config, &sources, &logging, plane::start) {
        Ok(code) => code,
        Err(error) => {
            tracing::error!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// The end of a command that changes a file.
fn ended(result: Result<(), Vec<String>>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(errors) => {
            tell(&errors);
            ExitCode::FAILURE
        }
    }
}

fn tell(errors: &[String]) {
    errors.iter().for_each(|error| eprintln!("error: {error}"));
}

fn wrong(errors: &ConfigErrors) -> ExitCode {
    eprintln!("{errors}");
    ExitCode::from(EXIT_USAGE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }

    #[test]
    fn options_count_before_and_after_the_command() {
        let line = ["ringmain", "--set", "a.b=1", "--shards", "1", "serve", "--set", "c.d=2"];
        let cli = Cli::try_parse_from(line.iter().chain(&["--shards", "2"])).expect("parses");
        let Some(Command::Serve(options)) = cli.command else { panic!("serve was given") };
        let sources = cli.options.then(options).sources();
        assert_eq!(sources.set, ["a.b=1", "c.d=2"]);
        assert_eq!(sources.shards.as_deref(), Some("2"));
    }
}
