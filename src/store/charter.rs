//! The charter of a cluster: how it came to be, who may come in, which clients it knows.
//!
//! Owns: its shape, what follows from it at a look, and its bytes. Must never: show a secret, or change the meaning of a byte that was written (it is part of
//! the row of `facts`, which has the version). Changed by `machine` alone.
//!
//! ```text
//! charter  = automatic:u8  committed:u8  elapsed  opened  closes  grows:u8  tokens:list  approved:list of 32 bytes
//!            authority:there:u8 [certificate:bytes  key:bytes]  edition  bridges:list  exposed:there:u8 [at]  clients:list
//!            dissolved:u8 (0 not, 1 by itself, 2 on an operator's order) [winner:u64 LE  at]  buried:list of 120 bytes, see `Tombstone`
//!            awaited:list  forgot
//!            numbers are varints
//! token    = id:8 bytes  key:32 bytes  expires  used_by:there:u8 [32 bytes]
//! bridge   = certificate:bytes  ends
//! client   = key:32 bytes  name:text  issued  edition
//! awaited  = member:u64 LE  ends  of:there:u8 [u64 LE]
//! ```

use bytes::Bytes;

use super::encoding::{Reader, put_bytes};
use super::facts::{flag, put_key, put_list, read_key};
use crate::command::varint::put_varint;
use crate::command::{Authority, ClientKey, TokenId, TokenKey, Tombstone};
use crate::ids::{ClusterId, LogIndex, MemberId, PublicKey};
use crate::limits::{
    AUTHORITY_BRIDGES_MAX, ELAPSED_INTERVAL_SECONDS, FOUNDING_WINDOW_SECONDS, OVERLAP_INTERVAL_SECONDS,
};

/// The cluster has given itself up by itself, ...
const DISSOLVED: u8 = 1;
/// ... or on an operator's order.
const YIELDED: u8 = 2;

/// What a cluster has agreed on about itself. All times are seconds of its running time, as its leaders have counted it: no clock on a wall has a say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Charter {
    /// It formed by itself, and policy decides who votes; not so one that was founded solo or for members that were named.
    pub automatic: bool,
    /// What a user, or an operator, has asked for took effect: from then on, and for good, it does not dissolve.
    pub committed: bool,
    /// How long it has run, counted while that makes a difference.
    pub elapsed: u64,
    /// When whoever is on the LAN may come in.
    pub window: Window,
    /// What lets single nodes in, oldest first. Those whose time is over are gone, but for what the node needs that has used it, and has not come yet.
    pub tokens: Vec<Token>,
    /// The fingerprints that an operator lets in.
    pub approved: Vec<[u8; 32]>,
    /// Who signs certificates for clients.
    pub authority: Option<Authority>,
    /// How many authorities there were before it.
    pub edition: u64,
    /// What leads those to it who trust one of the last of these, oldest first. Each leads to the next, the newest to the authority.
    pub bridges: Vec<Bridge>,
    /// The entry that has removed a member last, if that member may know the authority's key: there is to be another one.
    pub exposed: Option<LogIndex>,
    /// The clients whose certificates are accepted, by key.
    pub clients: Vec<Client>,
    /// It has given itself up for another cluster.
    pub dissolved: Option<Dissolution>,
    /// What became of other clusters whose members are in this one, oldest first: for those of them that were away.
    pub buried: Vec<Tombstone>,
    /// The members that were let in by nobody's word and have not come yet, in the order in which they were: whoever never does is forgotten.
    pub awaited: Vec<Awaited>,
    /// The entry that has forgotten one last; 0: none.
    pub forgot: LogIndex,
}

/// A member that was let in, and that has not come yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Awaited {
    /// Which.
    pub member: MemberId,
    /// It may be forgotten from then on.
    pub ends: u64,
    /// The cluster that it is to leave for this one. Once that has, it comes whenever it can.
    pub of: Option<ClusterId>,
}

/// A time in which nodes are let in that prove nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Window {
    /// When it was opened.
    pub opened: u64,
    /// It is open before this.
    pub closes: u64,
    /// Who comes in keeps it open longer, within bounds.
    pub grows: bool,
}

/// What lets one node in, once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Token {
    /// What it is known by.
    pub id: TokenId,
    /// What proofs with it are made with.
    pub key: TokenKey,
    /// It is good before this.
    pub expires: u64,
    /// Who came in with it: it is good for nobody any more, and kept so that this node can be answered again.
    pub used_by: Option<PublicKey>,
}

/// What an authority has left to those who trust it: its word for its successor. Its own key is gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bridge {
    /// The successor's certificate, signed by the authority.
    pub certificate: Bytes,
    /// It is shown before this.
    pub ends: u64,
}

/// A client whose certificate is accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Client {
    /// Its key.
    pub key: ClientKey,
    /// What it is called.
    pub name: String,
    /// When that was decided.
    pub issued: u64,
    /// The edition of the authority that it was given last, by which it knows servers.
    pub edition: u64,
}

/// The end of a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dissolution {
    /// The cluster that its members join.
    pub winner: ClusterId,
    /// The entry that says so. None after it takes effect.
    pub at: LogIndex,
    /// An operator has ordered it, whatever users had written.
    pub ordered: bool,
}

impl Default for Charter {
    /// That of a cluster that somebody founded: it never dissolves, and nobody comes in by itself.
    fn default() -> Self {
        Self {
            automatic: false,
            committed: true,
            elapsed: 0,
            window: Window::default(),
            tokens: Vec::new(),
            approved: Vec::new(),
            authority: None,
            edition: 0,
            bridges: Vec::new(),
            exposed: None,
            clients: Vec::new(),
            dissolved: None,
            buried: Vec::new(),
            awaited: Vec::new(),
            forgot: LogIndex(0),
        }
    }
}

impl Charter {
    /// That of a cluster that has just formed by itself.
    pub fn automatic() -> Self {
        let window = Window { opened: 0, closes: FOUNDING_WINDOW_SECONDS, grows: true };
        Self { automatic: true, committed: false, window, ..Self::default() }
    }

    /// Whether whoever is on the LAN may come in.
    pub fn is_open(&self) -> bool {
        self.elapsed < self.window.closes
    }

    /// A token that is good, or was used.
    pub fn token(&self, id: TokenId) -> Option<&Token> {
        self.tokens.iter().find(|token| token.id == id)
    }

    /// Whether a member that has not come has had its time.
    pub fn is_overdue(&self, member: MemberId) -> bool {
        self.awaited.iter().any(|awaited| awaited.member == member && awaited.ends <= self.elapsed)
    }

    /// A client that is accepted.
    pub fn client(&self, key: ClientKey) -> Option<&Client> {
        let place = self.clients.binary_search_by_key(&key, |client| client.key).ok()?;
        self.clients.get(place)
    }

    /// The removal for which the authority is to be replaced now. Where too many are on their way out already that waits: nobody's trust ends early for it.
    pub fn authority_is_due(&self) -> Option<LogIndex> {
        let can_be = self.authority.is_some() && self.dissolved.is_none();
        self.exposed.filter(|_| can_be && self.bridges.len() < AUTHORITY_BRIDGES_MAX)
    }

    /// For how long a client still knows servers by what it was given; `None` where nothing ends that.
    pub fn trust_left(&self, client: &Client) -> Option<u64> {
        let behind = self.edition.checked_sub(client.edition).filter(|behind| *behind > 0)?;
        let place = usize::try_from(behind).ok().and_then(|behind| self.bridges.len().checked_sub(behind));
        let bridge = place.and_then(|place| self.bridges.get(place));
        Some(bridge.map_or(0, |bridge| bridge.ends.saturating_sub(self.elapsed)))
    }

    /// The clients that know servers by an authority from before, each with for how long they still do.
    pub fn outdated(&self) -> impl Iterator<Item = (&Client, u64)> {
        self.clients.iter().filter_map(|client| Some((client, self.trust_left(client)?)))
    }

    /// The running time at which something ends next; `None` where nothing does, and time need not be counted.
    pub fn next_deadline(&self) -> Option<u64> {
        let counts = self.dissolved.is_none();
        let bridges = self.bridges.iter().map(|bridge| bridge.ends);
        // Who is overdue has a connection, perhaps, and stays so until it comes or goes.
        let waits = self.awaited.iter().map(|awaited| awaited.ends).filter(|ends| *ends > self.elapsed);
        self.admission_ends().chain(bridges).chain(waits).filter(|_| counts).min()
    }

    /// How often the running time is noted until then.
    pub fn elapsed_interval(&self) -> u64 {
        if self.admission_ends().next().is_some() {
            ELAPSED_INTERVAL_SECONDS
        } else {
            OVERLAP_INTERVAL_SECONDS
        }
    }

    /// When that ends which still lets somebody in.
    fn admission_ends(&self) -> impl Iterator<Item = u64> {
        let window = self.is_open().then_some(self.window.closes);
        let unused = self.tokens.iter().filter(|token| token.used_by.is_none());
        unused.map(|token| token.expires).chain(window)
    }
}

/// Appends the charter's bytes: equal ones for equal charters.
pub fn put_charter(out: &mut Vec<u8>, charter: &Charter) {
    let Charter {
        automatic,
        committed,
        elapsed,
        window: Window { opened, closes, grows },
        tokens,
        approved,
        authority,
        edition,
        bridges,
        exposed,
        clients,
        dissolved,
        buried,
        awaited,
        forgot,
    } = charter;
    out.extend_from_slice(&[u8::from(*automatic), u8::from(*committed)]);
    for time in [elapsed, opened, closes] {
        put_varint(out, *time);
    }
    out.push(u8::from(*grows));
    put_list(out, tokens, |out, token| {
        out.extend_from_slice(&token.id.0);
        out.extend_from_slice(&token.key.0);
        put_varint(out, token.expires);
        put_key(out, token.used_by);
    });
    put_list(out, approved, |out, fingerprint| out.extend_from_slice(fingerprint));
    out.push(u8::from(authority.is_some()));
    if let Some(Authority { certificate, key }) = authority {
        put_bytes(out, certificate);
        put_bytes(out, key);
    }
    put_varint(out, *edition);
    put_list(out, bridges, |out, bridge| {
        put_bytes(out, &bridge.certificate);
        put_varint(out, bridge.ends);
    });
    out.push(u8::from(exposed.is_some()));
    if let Some(at) = exposed {
        put_varint(out, at.0);
    }
    put_list(out, clients, |out, client| {
        out.extend_from_slice(&client.key.0);
        put_bytes(out, client.name.as_bytes());
        put_varint(out, client.issued);
        put_varint(out, client.edition);
    });
    out.push(match dissolved {
        None => 0,
        Some(Dissolution { ordered: false, .. }) => DISSOLVED,
        Some(Dissolution { ordered: true, .. }) => YIELDED,
    });
    if let Some(Dissolution { winner, at, .. }) = dissolved {
        out.extend_from_slice(&winner.0.to_le_bytes());
        put_varint(out, at.0);
    }
    put_list(out, buried, |out, tombstone| out.extend_from_slice(&tombstone.to_bytes()));
    put_list(out, awaited, |out, awaited| {
        out.extend_from_slice(&awaited.member.0.to_le_bytes());
        put_varint(out, awaited.ends);
        out.push(u8::from(awaited.of.is_some()));
        out.extend(awaited.of.iter().flat_map(|of| of.0.to_le_bytes()));
    });
    put_varint(out, forgot.0);
}

/// Reads them back.
pub(super) fn charter(reader: &mut Reader<'_>) -> Option<Charter> {
    Some(Charter {
        automatic: flag(reader.u8()?)?,
        committed: flag(reader.u8()?)?,
        elapsed: reader.varint()?,
        window: Window { opened: reader.varint()?, closes: reader.varint()?, grows: flag(reader.u8()?)? },
        tokens: reader.list(token)?,
        approved: reader.list(Reader::array)?,
        authority: if flag(reader.u8()?)? { Some(authority(reader)?) } else { None },
        edition: reader.varint()?,
        bridges: reader.list(bridge)?,
        exposed: if flag(reader.u8()?)? { Some(LogIndex(reader.varint()?)) } else { None },
        clients: reader.list(client)?,
        dissolved: match reader.u8()? {
            0 => None,
            DISSOLVED => Some(dissolution(reader, false)?),
            YIELDED => Some(dissolution(reader, true)?),
            _ => return None,
        },
        buried: reader.list(|reader| Some(Tombstone::from_bytes(&reader.array()?)))?,
        awaited: reader.list(awaited)?,
        forgot: LogIndex(reader.varint()?),
    })
}

fn token(reader: &mut Reader<'_>) -> Option<Token> {
    let (id, key) = (TokenId(reader.array()?), TokenKey(reader.array()?));
    let (expires, mut used_by) = (reader.varint()?, None);
    read_key(reader, &mut used_by)?;
    Some(Token { id, key, expires, used_by })
}

fn authority(reader: &mut Reader<'_>) -> Option<Authority> {
    let mut bytes = || reader.bytes().map(Bytes::copy_from_slice);
    Some(Authority { certificate: bytes()?, key: bytes()? })
}

fn bridge(reader: &mut Reader<'_>) -> Option<Bridge> {
    Some(Bridge { certificate: Bytes::copy_from_slice(reader.bytes()?), ends: reader.varint()? })
}

fn client(reader: &mut Reader<'_>) -> Option<Client> {
    let (key, name) = (ClientKey(reader.array()?), reader.text()?);
    Some(Client { key, name, issued: reader.varint()?, edition: reader.varint()? })
}

fn awaited(reader: &mut Reader<'_>) -> Option<Awaited> {
    let (member, ends) = (MemberId(u64::from_le_bytes(reader.array()?)), reader.varint()?);
    let of = if flag(reader.u8()?)? { Some(ClusterId(u64::from_le_bytes(reader.array()?))) } else { None };
    Some(Awaited { member, ends, of })
}

fn dissolution(reader: &mut Reader<'_>, ordered: bool) -> Option<Dissolution> {
    let winner = ClusterId(u64::from_le_bytes(reader.array()?));
    Some(Dissolution { winner, at: LogIndex(reader.varint()?), ordered })
}

/// One that has some of everything.
#[cfg(test)]
pub(crate) fn test_charter() -> Charter {
    let token = |n, used_by| Token { id: TokenId([n; 8]), key: TokenKey([0xab; 32]), expires: 7000, used_by };
    let client = |n| Client { key: ClientKey([n; 32]), name: format!("client {n}"), issued: 40, edition: 2 };
    let bridge = |ends| Bridge { certificate: Bytes::from_static(b"bridge"), ends };
    Charter {
        automatic: true,
        committed: true,
        elapsed: 300,
        window: Window { opened: 20, closes: 1 << 40, grows: true },
        tokens: vec![token(1, None), token(2, Some(PublicKey([5; 32])))],
        approved: vec![[6; 32], [7; 32]],
        authority: Some(Authority {
            certificate: Bytes::from_static(b"certificate"),
            key: Bytes::from_static(&[0xab; 40]),
        }),
        edition: 3,
        bridges: vec![bridge(8000), bridge(9000)],
        exposed: Some(LogIndex(700)),
        clients: vec![client(8), client(9)],
        dissolved: Some(Dissolution { winner: ClusterId(u64::MAX), at: LogIndex(900), ordered: true }),
        buried: vec![Tombstone {
            cluster: ClusterId(3),
            winner: ClusterId(2),
            at: LogIndex(1 << 40),
            signer: PublicKey([10; 32]),
            signature: [11; 64],
        }],
        awaited: vec![
            Awaited { member: MemberId(12), ends: 3600, of: None },
            Awaited { member: MemberId(13), ends: 300, of: Some(ClusterId(14)) },
        ],
        forgot: LogIndex(600),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8]) -> Option<Charter> {
        let mut reader = Reader::new(bytes);
        let charter = charter(&mut reader)?;
        reader.end()?;
        Some(charter)
    }

    #[test]
    fn a_charter_comes_back_whole_or_not_at_all() {
        let by_itself = Dissolution { winner: ClusterId(1), at: LogIndex(1), ordered: false };
        let ended = Charter { dissolved: Some(by_itself), ..Charter::automatic() };
        for charter in [Charter::default(), Charter::automatic(), ended, test_charter()] {
            let mut bytes = Vec::new();
            put_charter(&mut bytes, &charter);
            assert_eq!(read(&bytes), Some(charter));
            for cut in 0..bytes.len() {
                assert_eq!(read(&bytes[..cut]), None, "cut at {cut}");
            }
        }
    }

    /// Rows of the field are made of these.
    #[test]
    fn the_bytes_are_pinned() {
        let short =
            Charter { clients: Vec::new(), tokens: test_charter().tokens[1..].to_vec(), ..test_charter() };
        let mut bytes = Vec::new();
        put_charter(&mut bytes, &short);
        let expected = [
            &[1, 1, 0xac, 2, 20, 0x80, 0x80, 0x80, 0x80, 0x80, 0x20, 1][..],
            &[1],
            &[2; 8],
            &[0xab; 32],
            &[0xd8, 0x36, 1],
            &[5; 32],
            &[2],
            &[6; 32],
            &[7; 32],
            &[1, 11],
            b"certificate",
            &[40],
            &[0xab; 40],
            &[3, 2, 6],
            b"bridge",
            &[0xc0, 0x3e, 6],
            b"bridge",
            &[0xa8, 0x46, 1, 0xbc, 5],
            &[0, 2],
            &[0xff; 8],
            &[0x84, 7],
            &[1, 3, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0],
            &[10; 32],
            &[11; 64],
            &[2, 12, 0, 0, 0, 0, 0, 0, 0, 0x90, 0x1c, 0],
            &[13, 0, 0, 0, 0, 0, 0, 0, 0xac, 2, 1, 14, 0, 0, 0, 0, 0, 0, 0],
            &[0xd8, 4],
        ];
        assert_eq!(bytes, expected.concat());
    }

    #[test]
    fn a_look_at_it_shows_no_secret() {
        let shown = format!("{:?}", test_charter());
        assert!(shown.contains("TokenId") && shown.contains("Authority"));
        // 0xab, of which all secrets in it consist, as a list and as hex.
        assert!(!shown.contains("171") && !shown.contains("ab, ab") && !shown.contains("abab"), "{shown}");
    }

    #[test]
    fn the_next_deadline_is_that_of_what_still_lets_somebody_in_or_is_shown() {
        assert_eq!(Charter::default().next_deadline(), None);
        let open = Charter::automatic();
        assert_eq!(
            (open.next_deadline(), open.elapsed_interval()),
            (Some(FOUNDING_WINDOW_SECONDS), ELAPSED_INTERVAL_SECONDS)
        );
        assert_eq!(test_charter().next_deadline(), None, "where the cluster has dissolved nobody comes in");
        let sealed = Charter { elapsed: 1 << 40, dissolved: None, ..test_charter() };
        assert_eq!(sealed.next_deadline(), Some(7000), "a window that has closed is none");
        let waits = Charter { elapsed: 300, tokens: Vec::new(), window: Window::default(), ..sealed.clone() };
        assert_eq!((waits.next_deadline(), waits.elapsed_interval()), (Some(3600), OVERLAP_INTERVAL_SECONDS));
        assert!(
            waits.is_overdue(MemberId(13))
                && !waits.is_overdue(MemberId(12))
                && !waits.is_overdue(MemberId(1))
        );
        let used = Charter { tokens: test_charter().tokens[1..].to_vec(), ..sealed };
        assert_eq!(used.next_deadline(), Some(8000), "nor is a token that was used");
        assert_eq!(used.elapsed_interval(), OVERLAP_INTERVAL_SECONDS);
        assert_eq!(Charter { bridges: Vec::new(), ..used }.next_deadline(), None);
    }

    #[test]
    fn who_was_given_an_authority_from_before_knows_servers_for_as_long_as_there_is_a_way_from_it() {
        let charter = Charter { elapsed: 7999, ..test_charter() };
        let left = |edition| charter.trust_left(&Client { edition, ..charter.clients[0].clone() });
        assert_eq!([0, 1, 2, 3].map(left), [Some(0), Some(1), Some(1001), None]);
        assert_eq!(left(4), None, "there is no such one, and no panic");
    }

    #[test]
    fn an_authority_is_due_once_it_was_exposed_and_while_there_is_room_for_one_more() {
        let charter = Charter { dissolved: None, ..test_charter() };
        assert_eq!(charter.authority_is_due(), Some(LogIndex(700)));
        let bridge = charter.bridges[0].clone();
        for not_due in [
            test_charter(),
            Charter { exposed: None, ..charter.clone() },
            Charter { authority: None, ..charter.clone() },
            Charter { bridges: vec![bridge; AUTHORITY_BRIDGES_MAX], ..charter },
        ] {
            assert_eq!(not_due.authority_is_due(), None);
        }
    }
}
