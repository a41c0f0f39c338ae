//! Commands that run until they are interrupted: connections that come back, and the interrupt.
//!
//! Owns: when to try again and how often, and what ends such a command. Must never: repeat a request by itself (the command knows
//! where it stood). Used by `watch` and `keep_alive`.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;

use async_signal::{Signal, Signals};
use smol::stream::StreamExt as _;
use smol::{LocalExecutor, Timer};
use tonic::{Code, Status};

use super::args::{ClientSettings, Endpoint};
use super::calls::is_token_stale;
use super::client::{Channel, ConnectError};
use super::output;
use super::reach::first_reachable;

/// The first pause before another try to connect; it doubles up to the longest.
const PAUSE_FIRST: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(3);

/// Why a command ended that should have gone on.
#[derive(Debug, thiserror::Error)]
pub enum LastingError {
    /// There was never a connection.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The server said no, in its words.
    #[error("{}", .0.message())]
    Refused(Box<Status>),
    /// The server ended the watch.
    #[error("watch was canceled ({0})")]
    Canceled(String),
    /// Nobody reads what is printed, or nobody can.
    #[error("cannot write to standard output: {0}")]
    Output(io::Error),
    /// The command for each change could not be run.
    #[error("cannot run {command}: {source}")]
    Run {
        /// Its name.
        command: String,
        /// What the system says.
        source: io::Error,
    },
    /// The command for each change failed.
    #[error("{command} failed ({status})")]
    Failed {
        /// Its name.
        command: String,
        /// What it said.
        status: std::process::ExitStatus,
    },
    /// The system does not tell of interrupts.
    #[error("cannot watch for signals: {0}")]
    Signals(io::Error),
}

/// What a lasting command does, given the executor that its connections run on.
pub type Work<'a> = Box<
    dyn FnOnce(Rc<LocalExecutor<'static>>) -> Pin<Box<dyn Future<Output = Result<(), LastingError>> + 'a>>
        + 'a,
>;

/// Runs `work` until it ends or the process is told to: both are success.
pub fn run(work: Work<'_>) -> Result<(), LastingError> {
    let executor = Rc::new(LocalExecutor::new());
    let mut signals = Signals::new([Signal::Int, Signal::Term]).map_err(LastingError::Signals)?;
    let interrupted = async {
        signals.next().await;
        Ok(())
    };
    let work = work(Rc::clone(&executor));
    smol::block_on(executor.run(smol::future::or(interrupted, work)))
}

/// A connection that is made anew when it breaks.
pub struct Line<'a> {
    executor: Rc<LocalExecutor<'static>>,
    settings: &'a ClientSettings,
    pause: Duration,
    /// Whether there was a connection once. Before that, a wrong address is more likely than a server that is away.
    worked: bool,
}

impl<'a> Line<'a> {
    /// To the endpoints of `settings`.
    pub fn new(executor: Rc<LocalExecutor<'static>>, settings: &'a ClientSettings) -> Self {
        Self { executor, settings, pause: PAUSE_FIRST, worked: false }
    }

    /// The next connection.
    pub async fn connect(&mut self) -> Result<(Channel, Endpoint), LastingError> {
        loop {
            match first_reachable(&self.executor, self.settings).await {
                Ok(connected) => {
                    self.worked = true;
                    return Ok(connected);
                }
                Err(error @ ConnectError::Refused(_)) => return Err(error.into()),
                Err(error) if !self.worked => return Err(error.into()),
                Err(_) => self.wait().await,
            }
        }
    }

    /// Something came through: the next break is a new one.
    pub fn note_success(&mut self) {
        self.pause = PAUSE_FIRST;
    }

    /// Waits before another try, where one may help: a new connection comes with a new token.
    pub async fn broken(&mut self, status: Status) -> Result<(), LastingError> {
        let is_stale = self.settings.credentials.is_some() && is_token_stale(&status);
        if !is_temporary(&status) && !is_stale {
            return Err(LastingError::Refused(Box::new(status)));
        }
        if self.pause == PAUSE_FIRST {
            output::to_stderr(&format!("Warning: {}; trying again", status.message()));
        }
        self.wait().await;
        Ok(())
    }

    async fn wait(&mut self) {
        Timer::after(self.pause).await;
        self.pause = (self.pause * 2).min(PAUSE_MAX);
    }
}

/// A server that stops, a leader that moves, a connection that breaks: tonic calls the last one unknown or internal.
fn is_temporary(status: &Status) -> bool {
    let broken = std::error::Error::source(status).is_some();
    broken || matches!(status.code(), Code::Unavailable | Code::Internal)
}
