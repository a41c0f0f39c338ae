//! Arguments to commands, by the table in `spec`.
//!
//! Owns: the command line's syntax and the settings of the client. Must never: do what was asked for. Driven by `run`.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::unix::ffi::OsStringExt as _;
use std::path::PathBuf;
use std::time::Duration;

use lexopt::{Arg, Parser};

use super::bundle::{BundleError, CA_FILE, CERTIFICATE_FILE, KEY_FILE, read_endpoints};
use super::spec::{COMMANDS, Command, DATA_DIR, Flag, GLOBAL, GROUPS, PLACE};
use crate::config::{
    self, ConfigError, EXIT_CONFIG, Hint, ValueError, boolean, duration, nearest, split_host_port,
};

/// What was wrong with the arguments.
#[derive(Debug, thiserror::Error)]
pub enum UsageError {
    /// A flag that does not exist.
    #[error("unknown flag: {flag}{hint}")]
    UnknownFlag {
        /// With its dashes.
        flag: String,
        /// The nearest that does.
        hint: Hint,
    },
    /// A command that does not exist.
    #[error("unknown command \"{name}\" for \"covey\"{hint}")]
    UnknownCommand {
        /// What was asked for.
        name: String,
        /// The nearest that does.
        hint: Hint,
    },
    /// A flag without its value, or arguments that are no text.
    #[error(transparent)]
    Syntax(#[from] lexopt::Error),
    /// A flag whose value is not what it should be.
    #[error("invalid argument \"{value}\" for \"--{flag}\": {reason}")]
    Value {
        /// Without dashes.
        flag: &'static str,
        /// What was given.
        value: String,
        /// Why not.
        reason: ValueError,
    },
    /// A flag whose value is not one of a few words.
    #[error("invalid argument \"{value}\" for \"--{flag}\": expected {expected}")]
    Word {
        /// Without dashes.
        flag: &'static str,
        /// What was given.
        value: String,
        /// The words.
        expected: &'static str,
    },
    /// Too many or too few arguments.
    #[error("{0}")]
    Arguments(&'static str),
    /// Flags that exclude each other, or a flag that needs another.
    #[error("{0}")]
    Flags(&'static str),
    /// A format that a command has nothing for. etcdctl's words.
    #[error("{0} not supported as output format")]
    Format(&'static str),
    /// An endpoint that is no host and port.
    #[error("invalid endpoint \"{0}\": expected host:port, http://host:port or https://host:port")]
    Endpoint(String),
    /// A bundle that cannot be read.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// The settings of the server whose data directory is meant.
    #[error(transparent)]
    Settings(#[from] Box<ConfigError>),
}

/// etcdctl's exit codes: of a line that it cannot read, of a word that a flag does not know, and of wrong arguments.
const EXIT_UNREADABLE: u8 = 1;
const EXIT_BAD_FEATURE: u8 = 4;
pub const EXIT_BAD_ARGUMENTS: u8 = 128;

impl UsageError {
    /// The exit code, which is etcdctl's where etcdctl has one.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Arguments(_) | Self::Flags(_) | Self::Endpoint(_) => EXIT_BAD_ARGUMENTS,
            Self::Word { .. } | Self::Format(_) => EXIT_BAD_FEATURE,
            Self::Settings(_) => EXIT_CONFIG,
            Self::UnknownFlag { .. }
            | Self::UnknownCommand { .. }
            | Self::Syntax(_)
            | Self::Value { .. }
            | Self::Bundle(_) => EXIT_UNREADABLE,
        }
    }
}

/// Where settings of the client are in the environment, the ones before the others.
const VARIABLES: [&str; 2] = ["COVEY_", "ETCDCTL_"];

/// How results are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// etcdctl's default: keys and values on lines of their own.
    Simple,
    /// The same with keys and values in hexadecimal.
    Hex,
    /// One JSON object.
    Json,
    /// A field a line.
    Fields,
    /// A drawn table, of what is one.
    Table,
}

impl Format {
    /// Whether it is the one for people and shells.
    pub fn is_simple(self) -> bool {
        matches!(self, Self::Simple | Self::Hex)
    }
}

/// A secret, which no message shows.
#[derive(Clone, PartialEq, Eq)]
pub struct Password(pub String);

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password")
    }
}

/// Who the client says it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credentials {
    /// The user.
    pub user: String,
    /// Absent as long as it was not asked for.
    pub password: Option<Password>,
}

/// One place to connect to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// As it was given, for messages.
    pub text: String,
    /// Whether to use TLS.
    pub tls: bool,
    /// A name or an address.
    pub host: String,
    /// The port.
    pub port: u16,
}

/// What all client commands need to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientSettings {
    /// Where to connect; only a bundle may name nothing.
    pub endpoints: Vec<Endpoint>,
    /// Whether one is looked for on the LAN when none of these answers: they are a bundle's, whose authority says who is one.
    pub searches: bool,
    /// Authorities of the server's certificate; `None` is the system's.
    pub cacert: Option<PathBuf>,
    /// Certificate and key to show to the server.
    pub identity: Option<(PathBuf, PathBuf)>,
    /// Whether any certificate of the server's will do.
    pub trusts_anyone: bool,
    /// Who to authenticate as.
    pub credentials: Option<Credentials>,
    /// How often a connection is tried that is silent while something is waited for, and how long that may take.
    pub keep_alive: (Duration, Duration),
    /// How long connecting may take.
    pub dial_timeout: Duration,
    /// How long a call may take.
    pub command_timeout: Duration,
    /// How results are printed.
    pub format: Format,
}

/// Flags and arguments of one command, by the table.
#[derive(Debug, Default)]
pub struct Parsed {
    flags: BTreeMap<&'static str, String>,
    /// What is no flag, in order, as bytes: keys and values may be any.
    pub arguments: Vec<Vec<u8>>,
    /// Help was asked for.
    pub help: bool,
}

/// The first argument that is no flag, and what stands before it.
pub enum First {
    /// A command's name.
    Command(OsString),
    /// No command: help was asked for, or nothing was.
    Help,
    /// The version was asked for.
    Version,
}

impl Parsed {
    /// Reads flags of all commands until a command's name.
    pub fn until_command(&mut self, parser: &mut Parser) -> Result<First, UsageError> {
        while let Some(arg) = parser.next()? {
            match arg {
                Arg::Value(name) => return Ok(First::Command(name)),
                Arg::Long("version") => return Ok(First::Version),
                Arg::Long("help") | Arg::Short('h') => return Ok(First::Help),
                Arg::Long(_) | Arg::Short(_) => {
                    let flag = find(&arg, &[])?;
                    self.take(flag, parser)?;
                }
            }
        }
        Ok(First::Help)
    }

    /// Reads the rest of a command's arguments; flags and others may be mixed, `--` ends the flags.
    pub fn rest(&mut self, command: &Command, parser: &mut Parser) -> Result<(), UsageError> {
        while let Some(arg) = parser.next()? {
            match arg {
                Arg::Value(value) => self.arguments.push(value.into_vec()),
                Arg::Long("help") | Arg::Short('h') => self.help = true,
                Arg::Long(_) | Arg::Short(_) => {
                    let flag = find(&arg, command.flags)?;
                    self.take(flag, parser)?;
                }
            }
        }
        Ok(())
    }

    /// Whether a flag was given before a command that takes none of these.
    pub fn is_empty(&self) -> bool {
        self.flags.is_empty()
    }

    fn take(&mut self, flag: &'static Flag, parser: &mut Parser) -> Result<(), UsageError> {
        let value = match flag.value {
            Some(_) => parser.value()?,
            None => parser.optional_value().unwrap_or_else(|| OsString::from("true")),
        };
        let value = value.into_string().map_err(lexopt::Error::NonUnicodeValue)?;
        self.flags.insert(flag.long, value);
        Ok(())
    }

    /// The value of a flag, when it was given.
    pub fn text(&self, flag: &'static str) -> Option<&str> {
        self.flags.get(flag).map(String::as_str)
    }

    /// Whether a flag that is true or false is true.
    pub fn switch(&self, flag: &'static str) -> Result<bool, UsageError> {
        self.parse(flag, boolean).map(|on| on.unwrap_or(false))
    }

    /// The data directory that a command is about which works on one. A server that is told the same has the same: by these flags, by the variables that `env` has, by a
    /// file. Who names it needs no other setting, and none that is wrong is in the way.
    pub fn data_dir(
        &self,
        env: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Result<PathBuf, UsageError> {
        if let Some(named) = self.text(DATA_DIR.long) {
            return Ok(PathBuf::from(named));
        }
        let given = PLACE.iter().filter_map(|flag| Some((flag.long, self.text(flag.long)?.to_owned())));
        Ok(config::data_dir(given, env).map_err(Box::new)?)
    }

    /// The value of a flag, parsed.
    pub fn parse<T>(
        &self,
        flag: &'static str,
        parse: impl FnOnce(&str) -> Result<T, ValueError>,
    ) -> Result<Option<T>, UsageError> {
        let Some(value) = self.text(flag) else { return Ok(None) };
        let bad = |reason| UsageError::Value { flag, value: value.to_owned(), reason };
        parse(value).map(Some).map_err(bad)
    }

    /// The value of a flag that is one of these words, in any case of letters.
    pub fn word<T: Copy>(
        &self,
        flag: &'static str,
        words: &[(&str, T)],
        expected: &'static str,
    ) -> Result<Option<T>, UsageError> {
        let Some(value) = self.text(flag) else { return Ok(None) };
        let found = words.iter().find(|(word, _)| word.eq_ignore_ascii_case(value));
        let bad = || UsageError::Word { flag, value: value.to_owned(), expected };
        found.map(|(_, meaning)| Some(*meaning)).ok_or_else(bad)
    }

    /// The settings of the client: flags over variables over defaults. A bundle stands where it was named, and what is named there by itself
    /// wins over it.
    pub fn client_settings(
        mut self,
        env: impl Fn(&str) -> Option<OsString>,
    ) -> Result<(ClientSettings, Self), UsageError> {
        let mut by_bundle = self.open_bundle()?;
        let is_open = self.text("bundle").is_some();
        for flag in GLOBAL {
            for prefix in VARIABLES {
                let name = format!("{prefix}{}", flag.long.replace('-', "_").to_ascii_uppercase());
                if let Some(value) = env(&name).filter(|value| !value.is_empty()) {
                    let value = value.into_string().map_err(lexopt::Error::NonUnicodeValue)?;
                    self.flags.entry(flag.long).or_insert(value);
                }
            }
        }
        if !is_open {
            by_bundle = self.open_bundle()?;
        }
        let path = |flag| self.text(flag).filter(|text| !text.is_empty()).map(PathBuf::from);
        let cacert = path("cacert");
        let identity = match (path("cert"), path("key")) {
            (Some(cert), Some(key)) => Some((cert, key)),
            (None, None) => None,
            _ => return Err(UsageError::Flags("--cert and --key must be set together")),
        };
        let trusts_anyone = self.switch("insecure-skip-tls-verify")?;
        let wants_tls = self.parse("insecure-transport", boolean)? == Some(false);
        let tls = wants_tls || cacert.is_some() || identity.is_some();
        let endpoints = match self.text("endpoints").unwrap_or("127.0.0.1:2379") {
            "" if by_bundle => Vec::new(),
            list => list.split(',').map(|text| endpoint(text.trim(), tls)).collect::<Result<_, _>>()?,
        };
        let keep_alive = (
            self.parse("keepalive-time", duration)?.unwrap_or(Duration::from_secs(2)),
            self.parse("keepalive-timeout", duration)?.unwrap_or(Duration::from_secs(6)),
        );
        let settings = ClientSettings {
            endpoints,
            searches: by_bundle && cacert.is_some() && !trusts_anyone,
            cacert,
            identity,
            trusts_anyone,
            credentials: self.credentials(),
            keep_alive,
            dial_timeout: self.parse("dial-timeout", duration)?.unwrap_or(Duration::from_secs(2)),
            command_timeout: self.parse("command-timeout", duration)?.unwrap_or(Duration::from_secs(5)),
            format: self.format()?,
        };
        Ok((settings, self))
    }

    fn format(&self) -> Result<Format, UsageError> {
        let simple = if self.switch("hex")? { Format::Hex } else { Format::Simple };
        let formats = [
            ("simple", simple),
            ("json", Format::Json),
            ("fields", Format::Fields),
            ("table", Format::Table),
        ];
        Ok(self.word("write-out", &formats, "simple, json, fields or table")?.unwrap_or(simple))
    }

    /// As etcdctl reads them: the password may follow the name behind a colon, unless it was given by itself.
    fn credentials(&self) -> Option<Credentials> {
        let given = |flag| self.text(flag).filter(|text| !text.is_empty());
        let user = given("user")?;
        let (user, password) = match (given("password"), user.split_once(':')) {
            (Some(password), _) => (user, Some(password)),
            (None, Some((user, password))) => (user, Some(password)),
            (None, None) => (user, None),
        };
        let password = password.map(|password| Password(password.to_owned()));
        Some(Credentials { user: user.to_owned(), password })
    }

    /// Takes from a bundle, where one was named, what was not given otherwise; whether that is where to connect, too.
    fn open_bundle(&mut self) -> Result<bool, UsageError> {
        let Some(dir) = self.text("bundle").filter(|dir| !dir.is_empty()) else { return Ok(false) };
        let dir = PathBuf::from(dir);
        let file = |name| dir.join(name).to_string_lossy().into_owned();
        let by_bundle = !self.flags.contains_key("endpoints");
        if by_bundle {
            self.flags.insert("endpoints", read_endpoints(&dir)?);
        }
        self.flags.entry("cacert").or_insert_with(|| file(CA_FILE));
        if !self.flags.contains_key("cert") && !self.flags.contains_key("key") {
            self.flags.insert("cert", file(CERTIFICATE_FILE));
            self.flags.insert("key", file(KEY_FILE));
        }
        Ok(by_bundle)
    }
}

/// An endpoint without a scheme uses TLS where certificates were given.
pub fn endpoint(text: &str, tls: bool) -> Result<Endpoint, UsageError> {
    let (tls, rest) = match text.split_once("://") {
        Some(("http", rest)) => (false, rest),
        Some(("https", rest)) => (true, rest),
        Some(_) => return Err(UsageError::Endpoint(text.to_owned())),
        None => (tls, text),
    };
    let (host, port) = split_host_port(rest).ok_or_else(|| UsageError::Endpoint(text.to_owned()))?;
    Ok(Endpoint { text: text.to_owned(), tls, host: host.to_owned(), port })
}

fn find(arg: &Arg<'_>, own: &'static [Flag]) -> Result<&'static Flag, UsageError> {
    let mut known = own.iter().chain(GLOBAL);
    let (found, flag) = match arg {
        Arg::Long(long) => (known.find(|flag| flag.long == *long), format!("--{long}")),
        Arg::Short(short) => (known.find(|flag| flag.short == Some(*short)), format!("-{short}")),
        Arg::Value(value) => (None, value.to_string_lossy().into_owned()),
    };
    found.ok_or_else(|| {
        let names = own.iter().chain(GLOBAL).map(|flag| flag.long);
        let hint = flag.strip_prefix("--").and_then(|long| nearest(long, names));
        UsageError::UnknownFlag { hint: Hint(hint.map(|long| format!("--{long}"))), flag }
    })
}

/// The command of this name or alias.
pub fn command(name: &OsStr) -> Result<&'static Command, UsageError> {
    let name = name.to_string_lossy();
    let found = COMMANDS.iter().find(|command| command.name == name || command.alias == Some(&*name));
    found.copied().ok_or_else(|| {
        let names = COMMANDS.iter().map(|command| command.name).chain(["help", "version"]);
        let names = names.chain(GROUPS.iter().copied());
        let hint = Hint(nearest(&name, names).map(str::to_owned));
        UsageError::UnknownCommand { hint, name: name.into_owned() }
    })
}

#[cfg(test)]
#[path = "args_test.rs"]
mod tests;
