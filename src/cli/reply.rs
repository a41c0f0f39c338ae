//! What a command got from the server, and the ways to print it.
//!
//! Owns: the choice among the formats. Must never: print anything but what came back. Driven by `run`.

use std::io::{self, Write};
use std::time::Duration;

use super::access;
use super::args::Format;
use super::simple::Bytes;
use super::{fields, json, simple, table};
use crate::wire::etcdserverpb::{
    AlarmResponse, DeleteRangeResponse, HashKvResponse, LeaseGrantResponse, LeaseKeepAliveResponse,
    LeaseLeasesResponse, LeaseRevokeResponse, LeaseTimeToLiveResponse, MemberAddResponse, MemberListResponse,
    MemberPromoteResponse, MemberRemoveResponse, MemberUpdateResponse, MoveLeaderResponse, PutResponse,
    RangeResponse, StatusResponse, TxnResponse, WatchResponse,
};

/// What came back.
#[derive(Debug)]
pub enum Reply {
    /// From `get`; whether only values are wanted.
    Range(RangeResponse, ValuesOnly),
    /// From `put`.
    Put(PutResponse),
    /// From `del`.
    Delete(DeleteRangeResponse),
    /// From `txn`.
    Txn(TxnResponse),
    /// From `compact`: the revision that was asked for.
    Compacted(i64),
    /// From `lease grant`.
    LeaseGranted(LeaseGrantResponse),
    /// From `lease revoke`, with the lease.
    LeaseRevoked(i64, LeaseRevokeResponse),
    /// From `lease timetolive`; whether the keys were asked for.
    LeaseTimeToLive(LeaseTimeToLiveResponse, bool),
    /// From `lease list`.
    Leases(LeaseLeasesResponse),
    /// From `lease keep-alive`, once for each renewal.
    LeaseKeptAlive(LeaseKeepAliveResponse),
    /// From `watch`, once for each message with changes, progress or an end.
    Watch(WatchResponse),
    /// From `endpoint status`: each endpoint with its answer.
    Status(Vec<(String, StatusResponse)>),
    /// From `endpoint health`.
    Health(Vec<Health>),
    /// From `endpoint hashkv`: each endpoint with its answer.
    Hashes(Vec<(String, HashKvResponse)>),
    /// From `alarm list` and `alarm disarm`.
    Alarms(AlarmResponse),
    /// From `auth`, `user` and `role`.
    Access(access::Answer),
    /// From `member list`.
    Members(MemberListResponse),
    /// From `member add`, with the name that the node will have.
    MemberAdded(String, MemberAddResponse),
    /// From `member remove`, with the member.
    MemberRemoved(u64, MemberRemoveResponse),
    /// From `member update`, with the member.
    MemberUpdated(u64, MemberUpdateResponse),
    /// From `member promote`, with the member.
    MemberPromoted(u64, MemberPromoteResponse),
    /// From `move-leader`.
    LeaderMoved {
        /// Who led.
        from: u64,
        /// Who leads now.
        to: u64,
        /// The answer.
        response: MoveLeaderResponse,
    },
}

/// How an endpoint is.
#[derive(Clone, Debug)]
pub struct Health {
    /// As it was given.
    pub endpoint: String,
    /// How long it took to find out.
    pub took: Duration,
    /// What is wrong with it.
    pub error: Option<String>,
}

/// Whether the simple format leaves keys out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ValuesOnly(pub bool);

/// Prints a reply.
pub fn write(out: &mut impl Write, format: Format, reply: &Reply) -> io::Result<()> {
    match format {
        Format::Simple => simple::write(out, reply, Bytes::Plain),
        Format::Hex => simple::write(out, reply, Bytes::Hex),
        Format::Json => json::write(out, reply),
        Format::Fields => fields::write(out, reply),
        Format::Table => table::write(out, reply),
    }
}

#[cfg(test)]
#[path = "reply_test.rs"]
mod tests;
