//! Where members are: the addresses in their peer URLs, or those that the names in them had when they last resolved.
//!
//! Owns: what is known of names, and when the resolver is asked. Must never: forget an address because the resolver fails, or let anything
//! wait for it. Driven by `peers`.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs as _};
use std::pin::Pin;
use std::time::Duration;

use smol::Timer;

use crate::config::Url;
use crate::runtime::Handle;

/// How often names in peer URLs are looked up again: their addresses may change, and a name may not resolve yet.
const LOOK_UP_AGAIN: Duration = Duration::from_secs(10);

/// What the resolver says of each URL.
type Answers = Vec<(String, io::Result<Vec<SocketAddr>>)>;
type LookUp = Pin<Box<dyn Future<Output = Answers>>>;

/// See the module.
pub(super) struct Addresses {
    resolver: Box<dyn Fn(BTreeSet<String>) -> LookUp>,
    found: BTreeMap<String, Vec<SocketAddr>>,
    /// What the resolver was asked for last.
    asked: BTreeSet<String>,
    /// One at a time, and never given up, since a resolver without its servers holds a thread for long.
    under_way: Option<LookUp>,
    again: Timer,
}

impl Addresses {
    /// Asks the system's resolver, on threads where others may wait meanwhile.
    pub(super) fn new(handle: Handle) -> Self {
        Self::with(move |urls| look_up(handle.clone(), urls))
    }

    fn with(resolver: impl Fn(BTreeSet<String>) -> LookUp + 'static) -> Self {
        Self {
            resolver: Box::new(resolver),
            found: BTreeMap::new(),
            asked: BTreeSet::new(),
            under_way: None,
            again: Timer::never(),
        }
    }

    /// Where a URL leads, as far as that is known now.
    pub(super) fn of(&self, url: &str) -> Vec<SocketAddr> {
        match literal(url) {
            Some(address) => vec![address],
            None => self.found.get(url).cloned().unwrap_or_default(),
        }
    }

    /// Waits until one of these URLs leads elsewhere. Nothing is lost if that is given up.
    pub(super) async fn news(&mut self, urls: BTreeSet<String>) {
        let names: BTreeSet<String> = urls.into_iter().filter(|url| literal(url).is_none()).collect();
        if names.is_empty() {
            return std::future::pending().await;
        }
        loop {
            if let Some(under_way) = &mut self.under_way {
                let answers = under_way.await;
                self.under_way = None;
                self.again = Timer::after(LOOK_UP_AGAIN);
                if self.learn(answers) {
                    return;
                }
            }
            if names.is_subset(&self.asked) {
                (&mut self.again).await;
            }
            self.asked.clone_from(&names);
            self.under_way = Some((self.resolver)(names.clone()));
        }
    }

    /// Whether anything is news. A name that does not resolve now is where it was before, and may resolve later.
    fn learn(&mut self, answers: Answers) -> bool {
        let before = self.found.clone();
        self.found.retain(|url, _| self.asked.contains(url));
        for (url, answer) in answers {
            match answer {
                Ok(addresses) => drop(self.found.insert(url, addresses)),
                Err(error) => tracing::debug!(url, %error, "a member's peer URL does not resolve now"),
            }
        }
        self.found != before
    }
}

fn look_up(handle: Handle, urls: BTreeSet<String>) -> LookUp {
    let (mut urls, mut answers) = (urls.into_iter(), Vec::new());
    let slice = move || {
        let Some(url) = urls.next() else { return Some(std::mem::take(&mut answers)) };
        let answer = resolve(&url);
        answers.push((url, answer));
        None
    };
    Box::pin(async move { handle.in_slices(slice).await })
}

fn resolve(url: &str) -> io::Result<Vec<SocketAddr>> {
    let url = Url::parse(url).map_err(io::Error::other)?;
    Ok((url.host.as_str(), url.port).to_socket_addrs()?.collect())
}

/// The address in a URL that names one.
fn literal(url: &str) -> Option<SocketAddr> {
    let url = Url::parse(url).ok()?;
    Some(SocketAddr::new(url.host.parse::<IpAddr>().ok()?, url.port))
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::rc::Rc;

    use smol::channel::{Receiver, Sender};
    use smol::future::{block_on, poll_once};

    use super::*;

    fn urls(urls: &[&str]) -> BTreeSet<String> {
        urls.iter().map(|url| (*url).to_owned()).collect()
    }

    fn address(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    type Asked = Rc<RefCell<Vec<BTreeSet<String>>>>;

    /// Addresses whose resolver says what is sent to it, and what it was asked for.
    fn rig() -> (Addresses, Sender<Answers>, Asked) {
        let (answer, answers): (_, Receiver<Answers>) = smol::channel::unbounded();
        let asked = Asked::default();
        let for_resolver = Rc::clone(&asked);
        let addresses = Addresses::with(move |urls| {
            for_resolver.borrow_mut().push(urls);
            let answers = answers.clone();
            Box::pin(async move { answers.recv().await.unwrap() })
        });
        (addresses, answer, asked)
    }

    fn has_news(addresses: &mut Addresses, of: &[&str]) -> bool {
        block_on(poll_once(addresses.news(urls(of)))).is_some()
    }

    const ONE: &str = "https://one.example:2380";
    const TWO: &str = "https://two.example:2380";

    #[test]
    fn addresses_in_urls_need_no_resolver() {
        let (mut addresses, _answer, asked) = rig();
        assert_eq!(addresses.of("https://[fd00::1]:2380"), [address("[fd00::1]:2380")]);
        assert_eq!(addresses.of("http://10.0.0.1:7"), [address("10.0.0.1:7")]);
        assert_eq!(addresses.of(ONE), []);
        assert_eq!(addresses.of("no url"), []);
        assert!(!has_news(&mut addresses, &["http://10.0.0.1:7"]));
        assert!(asked.borrow().is_empty());
    }

    /// Had the addresses been given up when the resolver was down, a member whose connection broke meanwhile would not have been dialled any more.
    #[test]
    fn a_name_that_fails_to_resolve_is_where_it_was() {
        let (mut addresses, answer, _asked) = rig();
        let (here, there) = (address("10.0.0.1:2380"), address("10.0.0.2:2380"));
        let down = || Err(io::Error::other("no server answers"));
        assert!(!has_news(&mut addresses, &[ONE, TWO]));
        answer.try_send(vec![(ONE.into(), Ok(vec![here])), (TWO.into(), down())]).unwrap();
        assert!(has_news(&mut addresses, &[ONE, TWO]));
        assert_eq!((addresses.of(ONE), addresses.of(TWO)), (vec![here], vec![]));
        addresses.again = Timer::after(Duration::ZERO);
        answer.try_send(vec![(ONE.into(), down()), (TWO.into(), Ok(vec![there]))]).unwrap();
        block_on(addresses.news(urls(&[ONE, TWO])));
        assert_eq!((addresses.of(ONE), addresses.of(TWO)), (vec![here], vec![there]));
        addresses.again = Timer::after(Duration::ZERO);
        answer.try_send(vec![(ONE.into(), Ok(vec![there])), (TWO.into(), down())]).unwrap();
        block_on(addresses.news(urls(&[ONE, TWO])));
        assert_eq!((addresses.of(ONE), addresses.of(TWO)), (vec![there], vec![there]));
    }

    /// Members change while the resolver is slow: it is not asked once more for each of them, and what is missing is asked for afterwards.
    #[test]
    fn the_resolver_is_asked_once_at_a_time_and_at_once_for_new_names() {
        let (mut addresses, answer, asked) = rig();
        for _ in 0..3 {
            assert!(!has_news(&mut addresses, &[ONE]));
        }
        assert!(!has_news(&mut addresses, &[ONE, TWO]));
        assert_eq!(*asked.borrow(), [urls(&[ONE])]);
        answer.try_send(vec![(ONE.into(), Ok(vec![address("10.0.0.1:2380")]))]).unwrap();
        assert!(has_news(&mut addresses, &[ONE, TWO]));
        assert!(!has_news(&mut addresses, &[ONE, TWO]));
        assert_eq!(*asked.borrow(), [urls(&[ONE]), urls(&[ONE, TWO])]);
        answer.try_send(vec![(ONE.into(), Ok(vec![address("10.0.0.1:2380")]))]).unwrap();
        assert!(!has_news(&mut addresses, &[ONE, TWO]), "nothing new");
        assert!(!has_news(&mut addresses, &[ONE]));
        assert_eq!(asked.borrow().len(), 2, "it waits before it asks again");
    }
}
