//! What one command that deletes very many keys costs a whole process in memory: RSS, not what the server counts itself.
//!
//! With more keys, and of another build of the program:
//! `COVEY=PATH KEYS=1000000 cargo test --test api delete_memory -- --nocapture`.

use covey::wire::etcdserverpb as pb;
use pb::request_op::Request;
use pb::response_op::Response;

use crate::watch::Kv;
use crate::watch_memory::{MB, Process, run};

/// Operations of a transaction.
const BATCH: usize = 128;
/// What the overlay, the store's cache and the allocator take in any case, and not for each key.
const GROWTH_MAX: usize = 8 * MB;
const LEASE: i64 = 7;

async fn put_batch(mut kv: Kv, keys: std::ops::Range<usize>, lease: i64) {
    let put = |key: usize| {
        let key = format!("/registry/a/key/of/usual/length/{key:08}");
        operation(Request::RequestPut(pb::PutRequest { lease, ..put(key) }))
    };
    let txn = pb::TxnRequest { success: keys.map(put).collect(), ..Default::default() };
    assert!(kv.txn(txn).await.unwrap().into_inner().succeeded);
}

fn put(key: impl Into<Vec<u8>>) -> pb::PutRequest {
    pb::PutRequest { key: key.into().into(), value: "value".into(), ..Default::default() }
}

fn operation(request: Request) -> pb::RequestOp {
    pb::RequestOp { request: Some(request) }
}

fn count_of_all() -> pb::RangeRequest {
    pb::RangeRequest { key: "\0".into(), range_end: "\0".into(), count_only: true, ..Default::default() }
}

fn keys() -> usize {
    std::env::var("KEYS").map_or(100_000, |keys| keys.parse().unwrap())
}

/// Puts the keys, and measures what `command` takes beyond what that took.
#[expect(clippy::print_stdout, reason = "the figures are what it is run for")]
fn check(lease: i64, command: impl AsyncFnOnce(&Process, &mut Kv)) {
    run(async {
        let process = Process::start().await;
        let mut kv = process.kv().await;
        if lease != 0 {
            let grant = pb::LeaseGrantRequest { id: lease, ttl: 3600 };
            process.lease().await.lease_grant(grant).await.unwrap();
        }
        let keys = keys();
        for first in (0..keys).step_by(8 * BATCH) {
            let batches = (first..keys.min(first + 8 * BATCH)).step_by(BATCH);
            let puts: Vec<_> = batches
                .map(|first| smol::spawn(put_batch(kv.clone(), first..keys.min(first + BATCH), lease)))
                .collect();
            for put in puts {
                put.await;
            }
        }
        let before = process.peak();
        command(&process, &mut kv).await;
        let growth = process.peak() - before;
        println!("{keys} keys: {} kB before, {} kB more", before / 1024, growth / 1024);
        assert!(growth < GROWTH_MAX, "{} MB", growth / MB);
    });
}

#[test]
fn a_deletion_of_all_keys_takes_no_memory_for_each() {
    check(0, async |_, kv| {
        let all = pb::DeleteRangeRequest { key: "\0".into(), range_end: "\0".into(), prev_kv: false };
        let deleted = kv.delete_range(all).await.unwrap().into_inner().deleted;
        assert_eq!(usize::try_from(deleted).unwrap(), keys());
    });
}

/// In a nested transaction, among puts, with a count of what is left before and after.
#[test]
fn a_transaction_that_deletes_all_keys_takes_no_memory_for_each() {
    check(0, async |_, kv| {
        let delete = |key: &'static str, end: &'static str| {
            let delete = pb::DeleteRangeRequest { key: key.into(), range_end: end.into(), prev_kv: false };
            operation(Request::RequestDeleteRange(delete))
        };
        let nested =
            vec![delete("/registry/a", "/registry/a/key/of/usual/length/00050000"), delete("/", "0")];
        let nested = pb::TxnRequest { success: nested, ..Default::default() };
        let success = vec![
            operation(Request::RequestPut(put("before"))),
            operation(Request::RequestRange(count_of_all())),
            operation(Request::RequestTxn(nested)),
            operation(Request::RequestRange(count_of_all())),
            operation(Request::RequestPut(put("after"))),
        ];
        let txn = pb::TxnRequest { success, ..Default::default() };
        let answer = kv.txn(txn).await.unwrap().into_inner();
        let counted = answer.responses.iter().filter_map(|response| match &response.response {
            Some(Response::ResponseRange(range)) => usize::try_from(range.count).ok(),
            _ => None,
        });
        assert_eq!(counted.collect::<Vec<_>>(), [keys() + 1, 1]);
        assert_eq!(kv.range(count_of_all()).await.unwrap().into_inner().count, 2);
    });
}

#[test]
fn the_end_of_a_lease_with_all_keys_takes_no_memory_for_each() {
    check(LEASE, async |process, kv| {
        let revoke = pb::LeaseRevokeRequest { id: LEASE };
        process.lease().await.lease_revoke(revoke).await.unwrap();
        assert_eq!(kv.range(count_of_all()).await.unwrap().into_inner().count, 0);
    });
}
