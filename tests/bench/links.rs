//! A network of namespaces between whose boxes every frame is late, and some are lost (`tests/harness/links.py`).
//!
//! Owns: that network, and connections to what listens within it. Must never: leave a namespace behind. Driven by `three`.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsFd as _;
use std::process::{Child, Command, Stdio};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

const PROGRAM: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/harness/links.py");

/// The boxes, until it is dropped.
pub struct Links {
    switch: Child,
    prefix: String,
}

impl Links {
    /// So many boxes whose frames are each late by `delay_ms`, and lost at a rate of `loss`.
    pub fn new(boxes: usize, delay_ms: u32, loss: f64) -> io::Result<Self> {
        let prefix = format!("cb{}", std::process::id());
        let mut switch = Command::new("python3")
            .args([PROGRAM, &prefix, &boxes.to_string(), &delay_ms.to_string(), &loss.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut said = String::new();
        if let Some(output) = switch.stdout.take() {
            BufReader::new(output).read_line(&mut said)?;
        }
        let links = Self { switch, prefix };
        if said == "ready\n" {
            Ok(links)
        } else {
            Err(io::Error::other("no network of bad links can be made here"))
        }
    }

    /// The namespace of a box.
    pub fn namespace(&self, n: usize) -> String {
        format!("{}-{n}", self.prefix)
    }

    /// Where members reach a box.
    pub fn address(n: usize) -> String {
        format!("198.19.0.{}", n + 1)
    }
}

impl Drop for Links {
    fn drop(&mut self) {
        drop(self.switch.stdin.take());
        self.switch.wait().ok();
    }
}

/// Connects to what listens in another namespace: a socket stays where it was made, so that only the thread which makes it has to go there.
pub fn connect_within(namespace: &str, address: SocketAddr) -> io::Result<TcpStream> {
    let place = File::open(format!("/run/netns/{namespace}"))?;
    let there = std::thread::spawn(move || {
        move_into_link_name_space(place.as_fd(), Some(LinkNameSpaceType::Network))?;
        TcpStream::connect(address)
    });
    there.join().map_err(|_| io::Error::other("the thread that connects has ended"))?
}
