//! Which server a command talks to: the first of the given ones that answers, or one that is found on the LAN.
//!
//! Owns: the order, and how long is looked. Must never: believe what is said on the LAN: whoever has no certificate of the bundle's authority is not talked to.
//! Used by everything that connects.

use std::fmt;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use smol::channel::{Receiver, Sender, unbounded};
use smol::future::or;
use smol::{LocalExecutor, Task, Timer};

use super::args::{ClientSettings, Endpoint};
use super::client::{Channel, ConnectError, connect};
use crate::discovery::{InterfaceRules, Search};

/// How long is listened to the LAN: a question that is lost is asked again after one second, and after two more.
const LISTENS: Duration = Duration::from_secs(4);
/// Failures of one kind that a message tells of.
const TOLD_MAX: usize = 4;

/// Nobody was reached: what was tried, and what came of it.
#[derive(Debug, Default)]
pub struct Nobody {
    given: Vec<ConnectError>,
    heard: Vec<ConnectError>,
    /// Why the LAN was not listened to.
    deaf: Option<String>,
}

impl fmt::Display for Nobody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no server was reached that the bundle's authority vouches for")?;
        match &self.given[..] {
            [] => f.write_str("; the bundle names none")?,
            given => list(f, "as the bundle has it", given)?,
        }
        match (&self.heard[..], &self.deaf) {
            ([], Some(why)) => write!(f, "; not looked for on the LAN: {why}"),
            ([], None) => write!(f, "; none was heard on the LAN by mDNS within {LISTENS:?}"),
            (heard, _) => list(f, "heard on the LAN by mDNS", heard),
        }
    }
}

fn list(f: &mut fmt::Formatter<'_>, how: &str, failures: &[ConnectError]) -> fmt::Result {
    for failure in failures.iter().take(TOLD_MAX) {
        write!(f, "; {how}: {failure}")?;
    }
    match failures.len().saturating_sub(TOLD_MAX) {
        0 => Ok(()),
        more => write!(f, "; and {more} more"),
    }
}

/// Connects to the first endpoint that lets us.
pub async fn first_reachable(
    executor: &Rc<LocalExecutor<'static>>,
    settings: &ClientSettings,
) -> Result<(Channel, Endpoint), ConnectError> {
    let mut given = Vec::new();
    for endpoint in &settings.endpoints {
        match connect(executor, settings, endpoint).await {
            Ok(channel) => return Ok((channel, endpoint.clone())),
            // All of them would say so.
            Err(error @ ConnectError::Refused(_)) => return Err(error),
            Err(error) => given.push(error),
        }
    }
    if settings.searches {
        return match search(executor, settings).await {
            Ok(found) => Ok(found),
            Err(nobody) => Err(ConnectError::Nobody(Box::new(Nobody { given, ..nobody }))),
        };
    }
    Err(given.pop().unwrap_or_else(|| ConnectError::Nobody(Box::new(deaf("nothing says whom to trust")))))
}

/// The endpoints for a command that asks each: the given ones, or if all of them are gone the one that is found.
pub async fn endpoints(
    executor: &Rc<LocalExecutor<'static>>,
    settings: &ClientSettings,
) -> Result<Vec<Endpoint>, ConnectError> {
    if settings.searches {
        let (_, first) = first_reachable(executor, settings).await?;
        if !settings.endpoints.contains(&first) {
            return Ok(vec![first]);
        }
    }
    Ok(settings.endpoints.clone())
}

fn deaf(why: impl ToString) -> Nobody {
    Nobody { deaf: Some(why.to_string()), ..Nobody::default() }
}

/// What happens while the LAN is listened to.
enum Event {
    Heard(SocketAddr),
    Tried(Result<(Channel, Endpoint), ConnectError>),
    /// Nothing more is listened to.
    Enough,
}

/// Tries whoever is heard, all at once: a dead address keeps nobody from the next one, and who is first to say something need not be the right one.
async fn search(
    executor: &Rc<LocalExecutor<'static>>,
    settings: &ClientSettings,
) -> Result<(Channel, Endpoint), Nobody> {
    let started = Search::start(&InterfaceRules::default()).map_err(deaf)?;
    let mut listening = Some(started.ok_or_else(|| deaf("no interface leads to one"))?);
    let mut over = Timer::after(LISTENS);
    let (outcome, outcomes) = unbounded();
    // Those that are left when one has answered are dropped, and go no further.
    let mut tries: Vec<Task<()>> = Vec::new();
    let mut nobody = Nobody::default();
    while listening.is_some() || nobody.heard.len() < tries.len() {
        match next(listening.as_mut(), &mut over, &outcomes).await {
            Event::Heard(address) if !is_given(settings, address) => {
                tries.push(executor.spawn(attempt(
                    Rc::clone(executor),
                    settings.clone(),
                    address,
                    outcome.clone(),
                )));
            }
            Event::Heard(_) => {}
            Event::Tried(Ok(found)) => return Ok(found),
            Event::Tried(Err(error)) => nobody.heard.push(error),
            Event::Enough => listening = None,
        }
    }
    Err(nobody)
}

async fn next(
    listening: Option<&mut Search>,
    over: &mut Timer,
    outcomes: &Receiver<Result<(Channel, Endpoint), ConnectError>>,
) -> Event {
    // A channel whose other end is held here does not close.
    let tried = async { outcomes.recv().await.map_or(Event::Enough, Event::Tried) };
    let Some(search) = listening else { return tried.await };
    let heard = async { search.next().await.map_or(Event::Enough, Event::Heard) };
    let late = async {
        over.await;
        Event::Enough
    };
    or(tried, or(late, heard)).await
}

async fn attempt(
    executor: Rc<LocalExecutor<'static>>,
    settings: ClientSettings,
    address: SocketAddr,
    outcome: Sender<Result<(Channel, Endpoint), ConnectError>>,
) {
    let endpoint = heard(address);
    let connected = connect(&executor, &settings, &endpoint).await;
    // Nobody asks any more when another one was faster.
    let _ = outcome.send(connected.map(|channel| (channel, endpoint))).await;
}

fn heard(address: SocketAddr) -> Endpoint {
    let (host, port) = (address.ip().to_string(), address.port());
    Endpoint { text: format!("https://{address}"), tls: true, host, port }
}

/// That one has been tried.
fn is_given(settings: &ClientSettings, address: SocketAddr) -> bool {
    settings.endpoints.contains(&heard(address))
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    fn failed(endpoint: &str) -> ConnectError {
        ConnectError::Tcp { endpoint: endpoint.to_owned(), source: io::Error::other("no") }
    }

    #[test]
    fn who_reaches_nobody_says_what_was_tried() {
        let told = |nobody: &Nobody| {
            let text = nobody.to_string();
            text.strip_prefix("no server was reached that the bundle's authority vouches for; ")
                .map(str::to_owned)
        };
        let mut nobody = Nobody::default();
        assert_eq!(
            told(&nobody).unwrap(),
            "the bundle names none; none was heard on the LAN by mDNS within 4s"
        );
        nobody.deaf = Some("it is raining".to_owned());
        nobody.given.push(failed("a:1"));
        assert_eq!(
            told(&nobody).unwrap(),
            "as the bundle has it: cannot connect to a:1: no; not looked for on the LAN: it is raining"
        );
        nobody.deaf = None;
        nobody.heard.extend((0..TOLD_MAX + 2).map(|n| failed(&format!("b:{n}"))));
        let text = told(&nobody).unwrap();
        assert!(text.contains("; heard on the LAN by mDNS: cannot connect to b:0: no; "), "{text}");
        assert!(text.contains("b:3: no; and 2 more") && !text.contains("b:4"), "{text}");
    }

    #[test]
    fn what_is_heard_is_a_url() {
        for (address, text, host) in [
            ("10.0.0.1:2379", "https://10.0.0.1:2379", "10.0.0.1"),
            ("[fd00::1]:7", "https://[fd00::1]:7", "fd00::1"),
        ] {
            let found = heard(address.parse().unwrap());
            assert_eq!((found.text.as_str(), found.tls, found.host.as_str()), (text, true, host));
        }
    }
}
