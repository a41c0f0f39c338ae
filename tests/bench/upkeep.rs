//! How long a put takes while a server tidies up: writes its state down, or removes what was compacted.
//!
//! Owns: what makes servers do that. Must never: ask a server what it does just now: what both are asked for is the same, and each does what it
//! has to. Driven by `cases`.

use std::io;
use std::slice;
use std::time::{Duration, Instant};

use covey::wire::etcdserverpb as pb;
use prost::Message as _;

use crate::cases::{KEYS, PUT, Pace, RANGE, call, fill, millis, put_load, put_message_of, range_load};
use crate::load::{Load, Outcome, Target, run_beside};
use crate::report::Row;
use crate::server::{Kind, Programs, Server, Setup};

const COMPACT: &str = "/etcdserverpb.KV/Compact";

/// 100 puts a second, whose times count.
const CLIENTS: usize = 10;
const EACH: Duration = Duration::from_millis(100);

/// What makes a server write its state down: two megabytes a second, of which covey folds four at a time.
const BULK_BYTES: usize = 64 * 1024;
const BULK_KEYS: u64 = 64;
const BULK_EACH: Duration = Duration::from_millis(32);

/// Revisions that a compaction removes.
const REMOVED: u64 = 100_000;
/// No compaction of so many takes longer.
const PATIENCE: Duration = Duration::from_secs(60);

/// What comes of the puts beside something else.
type Beside = fn(&Server, Duration) -> io::Result<Outcome>;

/// The p99 of 100 puts a second, during checkpoints and during physical compaction.
pub fn stalls(programs: &Programs, pace: Pace) -> io::Result<Vec<Row>> {
    let mut rows = Vec::new();
    let checkpoints: Beside = beside_checkpoints;
    for (what, beside) in [("checkpoints", checkpoints), ("physical compaction", beside_compaction)] {
        let one = |kind| -> io::Result<Outcome> {
            let server = Server::start(programs, kind, Setup::default())?;
            fill(&server.target, KEYS)?;
            beside(&server, pace.load * 2)
        };
        let (covey, etcd) = (one(Kind::Covey)?, one(Kind::Etcd)?);
        for (share, name, ratio) in [(0.5, "p50", None), (0.99, "p99", Some(1.0))] {
            let (covey, etcd) = (millis(covey.percentile(share)), millis(etcd.percentile(share)));
            rows.push(Row::at_most(format!("100 puts/s during {what}: {name}"), "ms", covey, etcd, ratio));
        }
    }
    Ok(rows)
}

fn steady(duration: Duration) -> Load {
    Load { pace: Some(EACH), duration, ..put_load(CLIENTS, Pace { load: duration }) }
}

fn beside_checkpoints(server: &Server, duration: Duration) -> io::Result<Outcome> {
    let bulk = async {
        let mut connection = server.target.connect().await?;
        let mut due = Instant::now();
        let end = due + duration;
        for number in 0.. {
            smol::Timer::at(due).await;
            due += BULK_EACH;
            if due > end {
                break;
            }
            call(&mut connection, PUT, &put_message_of(number, BULK_KEYS, BULK_BYTES)).await?;
        }
        Ok(())
    };
    run_beside(slice::from_ref(&server.target), &steady(duration), bulk)
}

/// Compactions one after another, of which only the time counts that they take.
fn beside_compaction(server: &Server, duration: Duration) -> io::Result<Outcome> {
    let mut outcome = Outcome::default();
    while outcome.elapsed < duration {
        for _ in 0..REMOVED / KEYS {
            fill(&server.target, KEYS)?;
        }
        let compact = compact(&server.target);
        outcome.merge(run_beside(slice::from_ref(&server.target), &steady(PATIENCE), compact)?);
    }
    Ok(outcome)
}

/// Compacts all that there is now, and waits until what is superseded is gone from the disk.
pub async fn compact(target: &Target) -> io::Result<()> {
    let mut connection = target.connect().await?;
    let answer = call(&mut connection, RANGE, &(range_load(1, false, 1).message)(0)).await?;
    let answer = pb::RangeResponse::decode(&answer[..]).map_err(io::Error::other)?;
    let revision = answer.header.map(|header| header.revision).unwrap_or_default();
    let request = pb::CompactionRequest { revision, physical: true };
    call(&mut connection, COMPACT, &request.encode_to_vec()).await?;
    Ok(())
}
