//! How cost grows: with the number of keys, the size of values and the number of members.
//!
//! Owns: what grows, and how far. Must never: let two things grow at once. Driven by `cases`.

use std::io;
use std::rc::Rc;

use covey::wire::etcdserverpb as pb;
use prost::Message as _;

use crate::cases::{
    Pace, RANGE, directory_bytes, fill, fill_with, megabytes, millis, put_load, put_message_of,
};
use crate::load::Load;
use crate::report::Row;
use crate::server::{Kind, Programs, Server, Setup};
use crate::three::Cluster;
use crate::turns::{Contender, Servers, contest, contest_of};

const KEYS: [u64; 3] = [10_000, 100_000, 1_000_000];
const KILOBYTES: [usize; 3] = [1, 10, 100];
const NODES: [usize; 3] = [1, 3, 5];

/// Of what does not grow.
const VALUE_BYTES: usize = 256;
const CLIENTS: usize = 100;
/// Large values: so few that neither server's quota is reached.
const LARGE_KEYS: u64 = 100;
const LARGE_CLIENTS: usize = 10;

/// One point of one curve.
type Point = (&'static str, &'static str, f64, f64);

/// Everything that grows.
pub fn grow(programs: &Programs, pace: Pace) -> io::Result<Vec<Row>> {
    let mut rows = Vec::new();
    let mut add = |along, at: f64, points: Vec<Point>| {
        rows.extend(points.into_iter().map(|(what, unit, covey, etcd)| {
            let mut row = Row::at_most(format!("{at} {along}: {what}"), unit, covey, etcd, None);
            row.along = Some((along, at));
            row
        }));
    };
    for keys in KEYS {
        add("keys", keys as f64, with_keys(programs, pace, keys)?);
    }
    for kilobytes in KILOBYTES {
        add("KB values", kilobytes as f64, with_values(programs, pace, kilobytes * 1000)?);
    }
    for nodes in NODES {
        add("nodes", nodes as f64, with_nodes(programs, pace, nodes)?);
    }
    Ok(rows)
}

fn with_keys(programs: &Programs, pace: Pace, keys: u64) -> io::Result<Vec<Point>> {
    let start = |kind| {
        let server = Server::start(programs, kind, Setup::default())?;
        fill(&server.target, keys)?;
        Ok(server)
    };
    let (covey, etcd) = contest(&puts(pace, CLIENTS, keys, VALUE_BYTES), start, || Ok(()))?;
    let mut points = vec![cpu("CPU per put, 100 clients", &covey, &etcd)];
    let reads = reads(pace, CLIENTS, keys);
    let (covey, etcd) = contest_of(&reads, covey.servers, etcd.servers, || Ok(()))?;
    points.push(cpu("CPU per read, 100 clients", &covey, &etcd));
    let both = |what, of: fn(&Server) -> io::Result<u64>| -> io::Result<Point> {
        Ok((what, "MB", megabytes(of(&covey.servers)?), megabytes(of(&etcd.servers)?)))
    };
    points.push(both("RSS", |server| Ok(server.process().resident()))?);
    points.push(both("data directory", |server| directory_bytes(&server.data()))?);
    let (mut covey, mut etcd) = (covey.servers, etcd.servers);
    let restarts = (millis(covey.restart(true)?), millis(etcd.restart(true)?));
    points.push(("restart after kill -9", "ms", restarts.0, restarts.1));
    Ok(points)
}

fn with_values(programs: &Programs, pace: Pace, bytes: usize) -> io::Result<Vec<Point>> {
    let start = |kind| {
        let server = Server::start(programs, kind, Setup::default())?;
        fill_with(&server.target, LARGE_KEYS, bytes)?;
        Ok(server)
    };
    let (covey, etcd) = contest(&puts(pace, LARGE_CLIENTS, LARGE_KEYS, bytes), start, || Ok(()))?;
    let mut points =
        vec![cpu("CPU per put, 10 clients", &covey, &etcd), p50("put p50, 10 clients", &covey, &etcd)];
    let reads = reads(pace, LARGE_CLIENTS, LARGE_KEYS);
    let (covey, etcd) = contest_of(&reads, covey.servers, etcd.servers, || Ok(()))?;
    points.push(cpu("CPU per read, 10 clients", &covey, &etcd));
    Ok(points)
}

fn with_nodes(programs: &Programs, pace: Pace, nodes: usize) -> io::Result<Vec<Point>> {
    let start = |kind: Kind| Cluster::start_many(programs, kind, &[], nodes);
    let (covey, etcd) = contest(&put_load(CLIENTS, pace), start, || Ok(()))?;
    let name = "CPU per put on all nodes, 100 clients";
    Ok(vec![cpu(name, &covey, &etcd), p50("put p50, 100 clients", &covey, &etcd)])
}

fn cpu<S: Servers>(what: &'static str, covey: &Contender<S>, etcd: &Contender<S>) -> Point {
    (what, "µs", covey.cpu_per_call(), etcd.cpu_per_call())
}

fn p50<S>(what: &'static str, covey: &Contender<S>, etcd: &Contender<S>) -> Point {
    (what, "ms", millis(covey.outcome.percentile(0.5)), millis(etcd.outcome.percentile(0.5)))
}

fn puts(pace: Pace, clients: usize, keys: u64, bytes: usize) -> Load {
    Load { message: Rc::new(move |number| put_message_of(number, keys, bytes)), ..put_load(clients, pace) }
}

/// Linearizable ones of single keys.
fn reads(pace: Pace, clients: usize, keys: u64) -> Load {
    let message = Rc::new(move |number: u64| {
        let key = format!("/bench/{:016x}", number.wrapping_mul(7919) % keys);
        pb::RangeRequest { key: key.into(), ..Default::default() }.encode_to_vec()
    });
    Load { path: RANGE, message, ..put_load(clients, pace) }
}
