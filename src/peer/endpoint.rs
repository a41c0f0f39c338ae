//! The UDP socket and quinn on it, for both directions.
//!
//! Owns: quinn's configuration. Must never: give one stream
//! the memory that another one needs. Driven by `Transport::start`.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{
    ClientConfig, ConnectionId, ConnectionIdGenerator, Endpoint, EndpointConfig, IdleTimeout, Incoming,
    ServerConfig, TransportConfig, VarInt,
};
use ring::{digest, hmac};
use smol::Executor;

use super::congestion::FlooredConfig;
use super::reactor::Reactor;
use super::socket::{Host, Socket};
use super::trust::Credentials;
use crate::formation::NodeKey;
use crate::ids::PublicKey;
use crate::limits::{PEER_PARCELS_MAX, PEER_STREAM_WINDOW};
use crate::runtime::clock::entropy;
use crate::runtime::listening::UdpPort;

/// A connection on which nothing was heard for this long is over. Who has nothing to say (two followers) is pinged well before.
const IDLE_TIMEOUT: Duration = Duration::from_secs(10);
/// Heartbeats are more frequent, and then no ping is ever sent.
const KEEP_ALIVE: Duration = Duration::from_secs(4);
/// What the first retransmission is timed by, until there is a measurement: members are near each other.
const INITIAL_RTT: Duration = Duration::from_millis(50);
/// The control stream, the append stream and the parcels.
const STREAMS: u32 = 2 + PEER_PARCELS_MAX;
/// Handshakes that may wait to be looked at, and the bytes that may come for them meanwhile.
const INCOMING_MAX: usize = 64;
const INCOMING_BYTES_MAX: u64 = 8 * 1024;
const INCOMING_BYTES_TOTAL_MAX: u64 = 64 * 1024;
const CONNECTION_ID_BYTES: usize = 8;

/// Why the transport cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The address cannot be listened on.
    #[error("cannot listen for members on UDP {port}: {error}")]
    Listen {
        /// Which.
        port: UdpPort,
        /// Why not.
        error: io::Error,
    },
    /// The node's key is of no use for TLS.
    #[error("the node's key cannot be used for TLS: {0}")]
    Key(#[from] rustls::Error),
    /// TLS without the cipher that QUIC begins with.
    #[error("TLS cannot be used for QUIC: {0}")]
    Quic(#[from] quinn::crypto::rustls::NoInitialCipherSuite),
    /// No thread can be started.
    #[error("cannot start the thread for members: {0}")]
    Thread(io::Error),
}

/// Connection ids that say nothing and that every start of the node takes for its own, so that it answers packets of an earlier
/// one with a reset and the other end need not wait for a timeout.
#[derive(Debug)]
struct RandomIds;

impl ConnectionIdGenerator for RandomIds {
    fn generate_cid(&mut self) -> ConnectionId {
        let mut bytes = [0; CONNECTION_ID_BYTES];
        // Without randomness two ids could be equal, which quinn looks for; a node without it does not get this far.
        let _ = entropy(&mut bytes);
        ConnectionId::new(&bytes)
    }

    fn cid_len(&self) -> usize {
        CONNECTION_ID_BYTES
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}

/// The endpoint with what drives it.
pub(super) struct Opened {
    pub(super) endpoint: Endpoint,
    pub(super) reactor: Arc<Reactor>,
    pub(super) host: Host,
}

/// Binds the socket and accepts, once `executor` runs, whom `crypto` lets in.
pub(super) fn open(
    listen: &UdpPort,
    key: &NodeKey,
    crypto: rustls::ServerConfig,
    executor: &Arc<Executor<'static>>,
) -> Result<Opened, StartError> {
    let crypto = QuicServerConfig::try_from(crypto)?;
    let mut server = ServerConfig::with_crypto(Arc::new(crypto));
    server
        .transport_config(Arc::new(transport()))
        .max_incoming(INCOMING_MAX)
        .incoming_buffer_size(INCOMING_BYTES_MAX)
        .incoming_buffer_size_total(INCOMING_BYTES_TOTAL_MAX);
    let mut config = EndpointConfig::new(Arc::new(reset_key(key)));
    config.cid_generator(|| Box::new(RandomIds));
    let failed = |error| StartError::Listen { port: listen.clone(), error };
    let socket = Arc::new(listen.listen().map_err(failed)?);
    let reactor = Reactor::new(Arc::clone(&socket)).map_err(failed)?;
    let host = Host::new(executor, Arc::clone(&reactor));
    let socket = Arc::new(Socket::new(socket, Arc::clone(&reactor)).map_err(failed)?);
    let endpoint = Endpoint::new_with_abstract_socket(config, Some(server), socket, Arc::new(host.clone()))
        .map_err(failed)?;
    Ok(Opened { endpoint, reactor, host })
}

/// The next stranger, at an address that is listened on; `None` once the endpoint is closed. Who answers a dial of this node's is heard wherever the
/// kernel has sent it from.
pub(super) async fn accept(endpoint: &Endpoint, listen: &UdpPort) -> Option<Incoming> {
    loop {
        let incoming = endpoint.accept().await?;
        if listen.takes(incoming.local_ip()) {
            return Some(incoming);
        }
        incoming.ignore();
    }
}

/// How to dial the holder of `key`.
pub(super) fn client(credentials: &Credentials, key: PublicKey) -> Result<ClientConfig, StartError> {
    client_of(credentials.client(key)?)
}

/// How to dial whom `crypto` takes for the right one.
pub(super) fn client_of(crypto: rustls::ClientConfig) -> Result<ClientConfig, StartError> {
    let crypto = QuicClientConfig::try_from(crypto)?;
    let mut client = ClientConfig::new(Arc::new(crypto));
    client.transport_config(Arc::new(transport()));
    Ok(client)
}

fn transport() -> TransportConfig {
    let window = VarInt::from_u32(PEER_STREAM_WINDOW);
    let all = PEER_STREAM_WINDOW * STREAMS;
    let mut config = TransportConfig::default();
    config
        .max_concurrent_bidi_streams(VarInt::from_u32(1))
        .max_concurrent_uni_streams(VarInt::from_u32(STREAMS - 1))
        // Each stream can fill its own window and no more, so that appends that nobody reads leave room for control.
        .stream_receive_window(window)
        .receive_window(VarInt::from_u32(all))
        .send_window(u64::from(all))
        .max_idle_timeout(IdleTimeout::try_from(IDLE_TIMEOUT).ok())
        .keep_alive_interval(Some(KEEP_ALIVE))
        .initial_rtt(INITIAL_RTT)
        .congestion_controller_factory(Arc::new(FlooredConfig))
        .datagram_receive_buffer_size(None);
    config
}

/// The key of stateless resets: the same for every start of a node, and known to nobody else.
fn reset_key(key: &NodeKey) -> hmac::Key {
    let mut context = digest::Context::new(&digest::SHA256);
    context.update(b"covey quic reset key 1");
    context.update(key.pkcs8());
    hmac::Key::new(hmac::HMAC_SHA256, context.finish().as_ref())
}

/// An address in the form that it was written in: a socket for both families shows IPv4 inside IPv6.
pub(super) fn canonical(address: SocketAddr) -> SocketAddr {
    match address.ip().to_canonical() {
        IpAddr::V4(v4) => SocketAddr::from((v4, address.port())),
        IpAddr::V6(_) => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_local_address_keeps_its_zone() {
        let address: SocketAddr = "[fe80::1%3]:2380".parse().unwrap();
        assert_eq!(canonical(address), address);
    }
}
