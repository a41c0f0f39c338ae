//! From messages on the wire to commands, with the checks that need no state.
//!
//! Owns: what a field means, and the order of the checks, which clients see when a request breaks two rules (API reference, sections
//! 1.2 to 1.7). Must never: look at the state, or let a protobuf type pass. Driven by the services.

use bytes::Bytes;
use tonic::Status;

use crate::command::{
    Alarm, AlarmKind, Compare, CompareResult, CompareTarget, DeleteRange, KeyRange, LeaseChange, Op,
    Permission, PermissionKind, Put, Range, Rejection, Sort, SortOrder, SortTarget, Txn,
};
use crate::ids::{LeaseId, MemberId};
use crate::limits::{AUTH_NAME_BYTES_MAX, PEER_URL_BYTES_MAX, TXN_DEPTH_MAX};
use crate::mvcc::{InvalidRequest, check};
use crate::watch;
use crate::wire::{authpb, etcdserverpb as pb};
use pb::compare::TargetUnion;
use pb::request_op::Request;
use pb::watch_create_request::FilterType;
use pb::watch_request::RequestUnion;

use super::errors::{self, BadRequest};

/// A range; whether it is serializable is the caller's business.
pub fn range(request: pb::RangeRequest) -> Result<Range, BadRequest> {
    if request.key.is_empty() {
        return Err(BadRequest::KeyNotProvided);
    }
    Ok(Range {
        range: KeyRange::from_wire(request.key, request.range_end),
        limit: request.limit,
        revision: request.revision,
        sort: sort(request.sort_order, request.sort_target)?,
        keys_only: request.keys_only,
        count_only: request.count_only,
        min_mod_revision: request.min_mod_revision,
        max_mod_revision: request.max_mod_revision,
        min_create_revision: request.min_create_revision,
        max_create_revision: request.max_create_revision,
    })
}

/// A range that is to be streamed, which fewer orders and no filters are for.
pub fn range_stream(request: pb::RangeRequest) -> Result<Range, BadRequest> {
    let range = range(request)?;
    check::range_stream(&range)?;
    Ok(range)
}

fn sort(order: i32, target: i32) -> Result<Sort, BadRequest> {
    let order = match pb::range_request::SortOrder::try_from(order) {
        Ok(pb::range_request::SortOrder::None) => SortOrder::None,
        Ok(pb::range_request::SortOrder::Ascend) => SortOrder::Ascend,
        Ok(pb::range_request::SortOrder::Descend) => SortOrder::Descend,
        Err(_) => return Err(BadRequest::InvalidSortOption),
    };
    let target = match pb::range_request::SortTarget::try_from(target) {
        Ok(pb::range_request::SortTarget::Key) => SortTarget::Key,
        Ok(pb::range_request::SortTarget::Version) => SortTarget::Version,
        Ok(pb::range_request::SortTarget::Create) => SortTarget::Create,
        Ok(pb::range_request::SortTarget::Mod) => SortTarget::Mod,
        Ok(pb::range_request::SortTarget::Value) => SortTarget::Value,
        Err(_) => return Err(BadRequest::InvalidSortOption),
    };
    Ok(Sort { target, order })
}

/// What a client asks of its stream of watchers; `None` when it is nothing.
pub fn watch_request(request: pb::WatchRequest) -> Option<watch::Request> {
    Some(match request.request_union? {
        RequestUnion::CreateRequest(request) => watch::Request::Create(watch_create(request)),
        RequestUnion::CancelRequest(request) => watch::Request::Cancel { watch_id: request.watch_id },
        RequestUnion::ProgressRequest(_) => watch::Request::Progress,
    })
}

/// No key is empty, so an empty one stands for the lowest. Filters that nobody has defined are ignored.
fn watch_create(request: pb::WatchCreateRequest) -> watch::CreateRequest {
    let key = if request.key.is_empty() { Bytes::from_static(&[0]) } else { request.key };
    let has = |filter: FilterType| request.filters.contains(&filter.into());
    watch::CreateRequest {
        range: KeyRange::from_wire(key, request.range_end),
        start: request.start_revision,
        watch_id: request.watch_id,
        filters: watch::Filters { no_put: has(FilterType::Noput), no_delete: has(FilterType::Nodelete) },
        prev_kv: request.prev_kv,
        fragment: request.fragment,
        progress_notify: request.progress_notify,
    }
}

/// The name of a new user or role. That it is empty the state says.
pub fn new_name(name: String) -> Result<String, Status> {
    if name.len() <= AUTH_NAME_BYTES_MAX { Ok(name) } else { Err(errors::auth_name_too_long()) }
}

/// What a role is to be granted. What is wrong with the interval the state says.
pub fn permission(permission: Option<authpb::Permission>) -> Result<Permission, Status> {
    let authpb::Permission { perm_type, key, range_end } =
        permission.ok_or_else(errors::permission_not_given)?;
    let kind = match authpb::permission::Type::try_from(perm_type) {
        Ok(authpb::permission::Type::Read) => PermissionKind::Read,
        Ok(authpb::permission::Type::Write) => PermissionKind::Write,
        Ok(authpb::permission::Type::Readwrite) => PermissionKind::ReadWrite,
        Err(_) => return Err(Rejection::InvalidAuthManagement.into()),
    };
    Ok(Permission { kind, range: KeyRange::from_wire(key, range_end) })
}

/// A put.
pub fn put(request: pb::PutRequest) -> Result<Put, BadRequest> {
    if request.key.is_empty() {
        return Err(BadRequest::KeyNotProvided);
    }
    if request.ignore_value && !request.value.is_empty() {
        return Err(BadRequest::ValueProvided);
    }
    if request.ignore_lease && request.lease != 0 {
        return Err(BadRequest::LeaseProvided);
    }
    Ok(Put {
        key: request.key,
        value: (!request.ignore_value).then_some(request.value),
        lease: if request.ignore_lease {
            LeaseChange::Keep
        } else {
            LeaseChange::Set(LeaseId(request.lease))
        },
        prev_kv: request.prev_kv,
    })
}

/// A deletion.
pub fn delete_range(request: pb::DeleteRangeRequest) -> Result<DeleteRange, BadRequest> {
    if request.key.is_empty() {
        return Err(BadRequest::KeyNotProvided);
    }
    Ok(DeleteRange { range: KeyRange::from_wire(request.key, request.range_end), prev_kv: request.prev_kv })
}

/// A transaction, and how its reads are to be served if it cannot write.
#[derive(Debug)]
pub struct ParsedTxn {
    /// What to do.
    pub txn: Txn,
    /// Every operation is a range that asks to be serializable, and there is one: if the transaction cannot write, its view need not be
    /// newer than the answers given elsewhere. etcd takes a transaction of compares alone for serializable too; that reads
    /// stale compares, and nobody asked for it.
    pub serializable: bool,
}

/// A transaction with at most `operations_max` operations a level.
pub fn txn(request: pb::TxnRequest, operations_max: usize) -> Result<ParsedTxn, BadRequest> {
    let serializable = {
        let mut ops = request.success.iter().chain(&request.failure).peekable();
        ops.peek().is_some()
            && ops.all(|op| matches!(&op.request, Some(Request::RequestRange(range)) if range.serializable))
    };
    let txn = txn_level(request, operations_max, 1)?;
    check::txn(&txn, operations_max)?;
    Ok(ParsedTxn { txn, serializable })
}

/// One level: its size, then its compares, then its operations in order, as etcd goes through them. `check::txn` counts again, but
/// after all that.
fn txn_level(request: pb::TxnRequest, budget: usize, depth: usize) -> Result<Txn, BadRequest> {
    let largest = request.compare.len().max(request.success.len()).max(request.failure.len());
    let left = budget.checked_sub(largest).ok_or(InvalidRequest::TooManyOperations)?;
    if depth > TXN_DEPTH_MAX {
        return Err(InvalidRequest::TooManyOperations.into());
    }
    if request.compare.iter().any(|compare| compare.key.is_empty()) {
        return Err(BadRequest::KeyNotProvided);
    }
    let branch = |ops: Vec<pb::RequestOp>| -> Result<Vec<Op>, BadRequest> {
        ops.into_iter().map(|op| operation(op, left, depth)).collect()
    };
    Ok(Txn {
        compare: request.compare.into_iter().map(compare).collect(),
        success: branch(request.success)?,
        failure: branch(request.failure)?,
    })
}

fn operation(op: pb::RequestOp, budget: usize, depth: usize) -> Result<Op, BadRequest> {
    Ok(match op.request.ok_or(BadRequest::EmptyOperation)? {
        Request::RequestRange(request) => Op::Range(range(request)?),
        Request::RequestPut(request) => Op::Put(put(request)?),
        Request::RequestDeleteRange(request) => Op::DeleteRange(delete_range(request)?),
        Request::RequestTxn(request) => Op::Txn(txn_level(request, budget, depth + 1)?),
    })
}

/// A compare. An operand of another kind than the target counts as 0 or empty, numbers that the API does not define have the meaning
/// that they have in etcd.
fn compare(compare: pb::Compare) -> Compare {
    use pb::compare::{CompareResult as WireResult, CompareTarget as WireTarget};

    let result = match WireResult::try_from(compare.result) {
        Ok(WireResult::Equal) => CompareResult::Equal,
        Ok(WireResult::Greater) => CompareResult::Greater,
        Ok(WireResult::Less) => CompareResult::Less,
        Ok(WireResult::NotEqual) => CompareResult::NotEqual,
        Err(_) => CompareResult::Unknown,
    };
    let target = match (WireTarget::try_from(compare.target), compare.target_union) {
        (Ok(WireTarget::Version), Some(TargetUnion::Version(version))) => CompareTarget::Version(version),
        (Ok(WireTarget::Version), _) => CompareTarget::Version(0),
        (Ok(WireTarget::Create), Some(TargetUnion::CreateRevision(rev))) => CompareTarget::Create(rev),
        (Ok(WireTarget::Create), _) => CompareTarget::Create(0),
        (Ok(WireTarget::Mod), Some(TargetUnion::ModRevision(rev))) => CompareTarget::Mod(rev),
        (Ok(WireTarget::Mod), _) => CompareTarget::Mod(0),
        (Ok(WireTarget::Value), Some(TargetUnion::Value(value))) => CompareTarget::Value(value),
        (Ok(WireTarget::Value), _) => CompareTarget::Value(bytes::Bytes::new()),
        (Ok(WireTarget::Lease), Some(TargetUnion::Lease(lease))) => CompareTarget::Lease(lease),
        (Ok(WireTarget::Lease), _) => CompareTarget::Lease(0),
        (Err(_), _) => CompareTarget::Unknown,
    };
    Compare { range: KeyRange::from_wire(compare.key, compare.range_end), result, target }
}

/// The alarm that a request names; `None` for no kind, and for kinds that the API does not define.
pub fn alarm(request: &pb::AlarmRequest) -> Option<Alarm> {
    let kind = match pb::AlarmType::try_from(request.alarm) {
        Ok(pb::AlarmType::Nospace) => AlarmKind::NoSpace,
        Ok(pb::AlarmType::Corrupt) => AlarmKind::Corrupt,
        Ok(pb::AlarmType::None) | Err(_) => return None,
    };
    Some(Alarm { member: MemberId(request.member_id), kind })
}

/// Whether a text is what etcd takes for a version: `major.minor` or `major.minor.patch`, the latter perhaps with `-` and
/// a pre-release or `+` and metadata behind it.
pub fn is_version(text: &str) -> bool {
    let (text, metadata) = text.split_once('+').map_or((text, None), |(text, rest)| (text, Some(rest)));
    let (numbers, release) = text.split_once('-').map_or((text, None), |(text, rest)| (text, Some(rest)));
    let plain = metadata.is_none() && release.is_none();
    let identifiers = [metadata, release].into_iter().flatten();
    let sound =
        |part: &str| part.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.'));
    let numbers: Vec<&str> = numbers.split('.').collect();
    identifiers.into_iter().all(sound)
        && (numbers.len() == 3 || (plain && numbers.len() == 2))
        && numbers.iter().all(|number| number.parse::<i64>().is_ok())
}

/// The peer URLs of a member: at least one, each once, in etcd's order.
pub fn peer_urls(mut urls: Vec<String>) -> Result<Vec<String>, Status> {
    urls.sort_unstable();
    let sound =
        !urls.is_empty() && urls.iter().all(|url| is_peer_url(url)) && urls.is_sorted_by(|a, b| a < b);
    if sound { Ok(urls) } else { Err(errors::bad_member_urls()) }
}

/// `scheme://host:port` and nothing more.
fn is_peer_url(url: &str) -> bool {
    let rest = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"));
    let Some((host, port)) = rest.and_then(|rest| rest.rsplit_once(':')) else { return false };
    let name = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let host_is_sound = match name {
        Some(address) => address.split('%').next().is_some_and(|ip| ip.parse::<std::net::Ipv6Addr>().is_ok()),
        None => !host.is_empty() && !host.contains([':', '/', '?', '#', '[', ']', '@', ' ']),
    };
    host_is_sound && url.len() <= PEER_URL_BYTES_MAX && port.parse::<u16>().is_ok_and(|port| port > 0)
}

#[cfg(test)]
#[path = "parse_test.rs"]
mod tests;
