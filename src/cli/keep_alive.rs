//! `lease keep-alive`: a lease renewed over and over.
//!
//! Owns: when the next renewal is due. Must never: give up while the lease may still live. Driven by `run`.

use std::io;
use std::time::Duration;

use smol::Timer;

use super::args::ClientSettings;
use super::calls::{origin, renew};
use super::lasting::{LastingError, Line, Work};
use super::output;
use super::reply::Reply;
use super::simple::lease_id;
use crate::wire::etcdserverpb::lease_client::LeaseClient;

/// A lease is renewed when one part in so many of its time is over, as Go's client does.
const RENEWALS_PER_TTL: u32 = 3;

/// Renews the lease until it has ended, and prints each answer with `print`.
pub fn keep_alive<'a>(
    settings: &'a ClientSettings,
    id: i64,
    print: impl Fn(&Reply) -> io::Result<()> + 'a,
) -> Work<'a> {
    Box::new(move |executor| {
        Box::pin(async move {
            let mut line = Line::new(executor, settings);
            loop {
                let (channel, endpoint) = line.connect().await?;
                let mut client = LeaseClient::with_origin(channel, origin(&endpoint));
                let broken = loop {
                    let answer = match renew(&mut client, settings, id).await {
                        Ok(answer) => answer,
                        Err(status) => break status,
                    };
                    line.note_success();
                    let Ok(ttl @ 1..) = u64::try_from(answer.ttl) else {
                        let end = format!("lease {} expired or revoked.\n", lease_id(id));
                        return output::to_stdout(|out| io::Write::write_all(out, end.as_bytes()))
                            .map_err(LastingError::Output);
                    };
                    print(&Reply::LeaseKeptAlive(answer)).map_err(LastingError::Output)?;
                    Timer::after(Duration::from_secs(ttl) / RENEWALS_PER_TTL).await;
                };
                line.broken(broken).await?;
            }
        })
    })
}
