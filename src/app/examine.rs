//! What `covey doctor` looks at on this box.
//!
//! Owns: the looking. Must never: judge what it finds (`cli` does), change anything beyond a temporary file, or need a server. Driven by the command line.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::time::Duration;

use rustix::fs::statvfs;
use rustix::net::sockopt::set_ip_multicast_if;
use rustix::time::{ClockId, clock_gettime};

use crate::discovery::{InterfaceRules, Surveyed, survey};
use crate::runtime::clock::{Clock, random_u64};

/// How often the disk is asked, and with how much each time: a small batch of the log.
const SYNCS: usize = 20;
const SYNC_BYTES: usize = 4096;
/// The group that mDNS uses. What is sent here goes to a port that nobody has, so that no daemon hears it.
const GROUP: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 251);
/// How long a packet may take from this box to itself.
const ECHO_MAX: Duration = Duration::from_millis(500);
/// What is sent.
const ECHO_BYTES: usize = 16;
/// Where the kernel lists UDP sockets.
const UDP_TABLES: [&str; 2] = ["/proc/net/udp", "/proc/net/udp6"];

/// What was found.
#[derive(Debug)]
pub struct Findings {
    /// Of the data directory; none where there is no such directory.
    pub data_dir: Option<DataDirFindings>,
    /// Interfaces, those that count and the others.
    pub interfaces: Vec<Surveyed>,
    /// By interface that counts and has an IPv4 address: whether a packet to a group came back.
    pub multicast: Vec<(String, Result<(), String>)>,
    /// Whether somebody has the UDP port of the members.
    pub peer_port_is_bound: bool,
    /// Seconds since 1970 by the box's clock.
    pub unix_seconds: i64,
}

/// Of a data directory.
#[derive(Debug)]
pub struct DataDirFindings {
    /// The permission bits.
    pub mode: u32,
    /// It is of whoever asks.
    pub is_own: bool,
    /// Bytes that may still be written on its filesystem.
    pub free_bytes: u64,
    /// What a synced write takes, half of the time.
    pub sync: Result<Duration, String>,
}

/// Looks at everything.
pub fn examine(data_dir: &Path, rules: &InterfaceRules, peer_port: u16) -> Findings {
    let clock = Clock::start();
    let interfaces = survey(rules).unwrap_or_default();
    let count = interfaces.iter().filter(|interface| interface.why_not.is_none());
    let multicast = count.filter_map(|interface| {
        let address = interface.addresses.iter().find_map(|address| match address {
            IpAddr::V4(address) => Some(*address),
            IpAddr::V6(_) => None,
        })?;
        Some((interface.name.clone(), echo(address).map_err(|error| error.to_string())))
    });
    Findings {
        data_dir: examine_data_dir(data_dir, clock),
        multicast: multicast.collect(),
        interfaces,
        peer_port_is_bound: UDP_TABLES
            .iter()
            .any(|table| fs::read_to_string(table).is_ok_and(|table| has_port(&table, peer_port))),
        unix_seconds: clock_gettime(ClockId::Realtime).tv_sec,
    }
}

fn examine_data_dir(path: &Path, clock: Clock) -> Option<DataDirFindings> {
    let metadata = fs::metadata(path).ok().filter(fs::Metadata::is_dir)?;
    let free = statvfs(path).map_or(0, |fs| fs.f_bavail.saturating_mul(fs.f_frsize));
    Some(DataDirFindings {
        mode: metadata.mode() & 0o777,
        is_own: metadata.uid() == rustix::process::geteuid().as_raw(),
        free_bytes: free,
        sync: time_syncs(path, clock).map_err(|error| error.to_string()),
    })
}

/// The median of a few synced writes to a file that is gone afterwards.
fn time_syncs(path: &Path, clock: Clock) -> io::Result<Duration> {
    let name = path.join(format!("doctor.{:016x}.tmp", random_u64()?));
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&name)?;
    let timed = time_syncs_of(&file, clock);
    fs::remove_file(&name)?;
    timed
}

fn time_syncs_of(mut file: &File, clock: Clock) -> io::Result<Duration> {
    let block = [0x5a; SYNC_BYTES];
    file.write_all(&block)?;
    file.sync_all()?;
    let mut times = Vec::with_capacity(SYNCS);
    for _ in 0..SYNCS {
        let began = clock.now();
        // In place: what is measured is the disk, and not the filesystem's making of new blocks.
        file.write_all_at(&block, 0)?;
        file.sync_data()?;
        times.push(clock.now().since(began));
    }
    times.sort_unstable();
    Ok(times[SYNCS / 2])
}

/// Sends a packet to a group through the interface with this address, and waits for it to come back.
fn echo(interface: Ipv4Addr) -> io::Result<()> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    socket.join_multicast_v4(&GROUP, &interface)?;
    socket.set_multicast_loop_v4(true)?;
    socket.set_multicast_ttl_v4(1)?;
    set_ip_multicast_if(&socket, &interface)?;
    socket.set_read_timeout(Some(ECHO_MAX))?;
    let mut sent = [0; ECHO_BYTES];
    sent[..8].copy_from_slice(&random_u64()?.to_le_bytes());
    socket.send_to(&sent, SocketAddr::from((GROUP, socket.local_addr()?.port())))?;
    let mut came = [0; ECHO_BYTES];
    let (count, _) = socket.recv_from(&mut came)?;
    if came[..count] == sent { Ok(()) } else { Err(io::Error::other("another packet came")) }
}

/// Whether a table of the kernel's has a socket on this port: lines of number, local address in hexadecimal, and more.
fn has_port(table: &str, port: u16) -> bool {
    let local = |line: &str| {
        let (_, port) = line.split_ascii_whitespace().nth(1)?.rsplit_once(':')?;
        u16::from_str_radix(port, 16).ok()
    };
    table.lines().any(|line| local(line) == Some(port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_found_in_the_kernels_table() {
        let table = "  sl  local_address rem_address   st tx_queue\n  \
            12: 00000000:094C 00000000:0000 07 00000000:00000000 00:00000000\n  \
            13: 0100007F:0035 00000000:0000 07 00000000:00000000 00:00000000\n";
        assert!(has_port(table, 2380) && has_port(table, 53));
        assert!(!has_port(table, 2379) && !has_port("", 2380));
    }

    #[test]
    fn a_directory_is_measured_and_left_as_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let found = examine_data_dir(dir.path(), Clock::start()).unwrap();
        assert!(found.sync.is_ok() && found.free_bytes > 0 && found.is_own);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        assert!(examine_data_dir(&dir.path().join("missing"), Clock::start()).is_none());
    }
}
