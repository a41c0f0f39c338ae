//! The command line: what was typed, to what happens.
//!
//! Owns: the choice of the command, exit codes, help. Must never: run a server itself (its caller does, with what `config`
//! has read). Driven by `main`.

mod args;
mod calls;
mod client;
mod fields;
mod help;
mod json;
mod output;
mod quote;
mod reply;
mod requests;
mod simple;
mod snapshot;
mod spec;
mod txn;

use std::env;
use std::ffi::{OsStr, OsString};
use std::io::{self, Read as _, Write as _};
use std::process::ExitCode;

use lexopt::Parser;

use self::args::{ClientSettings, First, Format, Parsed, UsageError};
use self::calls::{Call, CallError};
use self::reply::ValuesOnly;
use self::spec::Command;
use self::txn::TxnError;
use crate::config::{self, ConfigError, Invocation, ServeConfig};

/// The exit code of a command that was understood and failed.
const EXIT_FAILED: u8 = 1;
/// The exit code of a command that was not understood.
const EXIT_USAGE: u8 = 2;

/// etcd's API that this server and this client speak.
const ETCD_API: &str = "3.6";

/// Why a command ends without success.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Usage(#[from] UsageError),
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Txn(#[from] TxnError),
    #[error(transparent)]
    Call(#[from] CallError),
    #[error(transparent)]
    Snapshot(#[from] snapshot::SnapshotError),
    #[error("cannot read standard input: {0}")]
    Input(io::Error),
    #[error("cannot write to standard output: {0}")]
    Output(io::Error),
}

/// Runs the command that the arguments, without the program's name, ask for. `serve` runs the server.
pub fn run(
    arguments: impl IntoIterator<Item = OsString>,
    serve: impl FnOnce(ServeConfig) -> ExitCode,
) -> ExitCode {
    match dispatch(arguments.into_iter().collect(), serve) {
        Ok(code) => code,
        Err(Failure::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => {
            output::EXIT_BROKEN_PIPE.into()
        }
        Err(failure) => {
            output::to_stderr(&format!("Error: {failure}"));
            match failure {
                Failure::Usage(_) | Failure::Config(_) => EXIT_USAGE.into(),
                _ => EXIT_FAILED.into(),
            }
        }
    }
}

fn dispatch(
    arguments: Vec<OsString>,
    serve: impl FnOnce(ServeConfig) -> ExitCode,
) -> Result<ExitCode, Failure> {
    let mut parser = Parser::from_args(arguments);
    let mut parsed = Parsed::default();
    let name = match parsed.until_command(&mut parser)? {
        First::Command(name) => name,
        First::Help => return show(&help::overview()),
        First::Version => return version(),
    };
    match name.to_str() {
        Some("help") => return help(&mut parser),
        Some("version") => return version(),
        _ => {}
    }
    let command = args::command(&name)?;
    if command.name == spec::SERVE.name {
        if !parsed.is_empty() {
            return Err(UsageError::Flags("flags of serve go behind its name").into());
        }
        let rest = parser.raw_args().map_err(UsageError::from)?;
        return match config::load(rest, env::vars_os())? {
            Invocation::Serve(config) => Ok(serve(*config)),
            Invocation::Help => show(&help::command(command)),
        };
    }
    parsed.rest(command, &mut parser)?;
    if parsed.help {
        return show(&help::command(command));
    }
    client_command(command, parsed)
}

fn client_command(command: &Command, parsed: Parsed) -> Result<ExitCode, Failure> {
    let (settings, parsed) = parsed.client_settings(|name| env::var_os(name))?;
    if command.name == spec::SNAPSHOT.name {
        let done = snapshot::perform(&settings, snapshot::job(&parsed, &settings)?)?;
        output::to_stdout(|out| snapshot::write(out, settings.format, &done)).map_err(Failure::Output)?;
        return Ok(ExitCode::SUCCESS);
    }
    let call = call(command, &parsed, &settings)?;
    let reply = calls::perform(&settings, call)?;
    output::to_stdout(|out| reply::write(out, settings.format, &reply)).map_err(Failure::Output)?;
    Ok(ExitCode::SUCCESS)
}

fn call(command: &Command, parsed: &Parsed, settings: &ClientSettings) -> Result<Call, Failure> {
    let none = |message| {
        if parsed.arguments.is_empty() { Ok(()) } else { Err(UsageError::Arguments(message)) }
    };
    Ok(match command.name {
        "get" => {
            let request = requests::range(parsed)?;
            let values_only = ValuesOnly(parsed.switch("print-value-only")?);
            check_format(&request, values_only, settings.format)?;
            Call::Range(request, values_only)
        }
        "put" => {
            let mut broken = None;
            let request = requests::put(parsed, || read_stdin().map_err(|error| broken = Some(error)).ok());
            match broken {
                Some(error) => return Err(Failure::Input(error)),
                None => Call::Put(request?),
            }
        }
        "del" => Call::Delete(requests::delete(parsed)?),
        "txn" => {
            none("txn command does not accept argument")?;
            let text = read_stdin().map_err(Failure::Input)?;
            let text = String::from_utf8(text).map_err(|error| Failure::Input(io::Error::other(error)))?;
            Call::Txn(txn::parse(&text)?)
        }
        "compact" => Call::Compact(requests::compact(parsed)?),
        _ => {
            none("status command does not accept argument")?;
            Call::Status
        }
    })
}

/// What etcdctl refuses, too: a count is nothing in the simple format, and values alone are nothing in the others.
fn check_format(
    request: &crate::wire::etcdserverpb::RangeRequest,
    values_only: ValuesOnly,
    format: Format,
) -> Result<(), UsageError> {
    if request.count_only && format == Format::Simple {
        return Err(UsageError::Flags("--count-only is only for --write-out=fields or json"));
    }
    if values_only.0 && format != Format::Simple {
        return Err(UsageError::Flags("--print-value-only is only for --write-out=simple"));
    }
    Ok(())
}

fn read_stdin() -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    io::stdin().lock().read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn help(parser: &mut Parser) -> Result<ExitCode, Failure> {
    let Some(lexopt::Arg::Value(topic)) = parser.next().map_err(UsageError::from)? else {
        return show(&help::overview());
    };
    if topic == OsStr::new("config") {
        return show(&config::example());
    }
    show(&help::command(args::command(&topic)?))
}

fn version() -> Result<ExitCode, Failure> {
    show(&format!("covey Version: {}\netcd API: {ETCD_API}\n", env!("CARGO_PKG_VERSION")))
}

fn show(text: &str) -> Result<ExitCode, Failure> {
    output::to_stdout(|out| out.write_all(text.as_bytes())).map_err(Failure::Output)?;
    Ok(ExitCode::SUCCESS)
}
