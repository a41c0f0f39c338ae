//! What one deletion of very many keys costs a whole process in memory: RSS, not what the server counts itself.
//!
//! With more keys, and of another build of the program:
//! `COVEY=PATH KEYS=1000000 cargo test --test api delete_memory -- --nocapture`.

use covey::wire::etcdserverpb as pb;

use crate::watch::Kv;
use crate::watch_memory::{MB, Process, run};

/// Operations of a transaction.
const BATCH: usize = 128;
/// What the overlay, the store's cache and the allocator take in any case, and not for each key.
const GROWTH_MAX: usize = 8 * MB;

async fn put_batch(mut kv: Kv, keys: std::ops::Range<usize>) {
    let put = |key: usize| {
        let key = format!("/registry/a/key/of/usual/length/{key:08}").into();
        let put = pb::PutRequest { key, value: "value".into(), ..Default::default() };
        pb::RequestOp { request: Some(pb::request_op::Request::RequestPut(put)) }
    };
    let txn = pb::TxnRequest { success: keys.map(put).collect(), ..Default::default() };
    assert!(kv.txn(txn).await.unwrap().into_inner().succeeded);
}

#[test]
fn a_deletion_of_all_keys_takes_no_memory_for_each() {
    let keys = std::env::var("KEYS").map_or(100_000, |keys| keys.parse().unwrap());
    run(async {
        let process = Process::start().await;
        let mut kv = process.kv().await;
        for first in (0..keys).step_by(8 * BATCH) {
            let batches = (first..keys.min(first + 8 * BATCH)).step_by(BATCH);
            let puts: Vec<_> = batches
                .map(|first| smol::spawn(put_batch(kv.clone(), first..keys.min(first + BATCH))))
                .collect();
            for put in puts {
                put.await;
            }
        }
        let before = process.peak();
        let all = pb::DeleteRangeRequest { key: "\0".into(), range_end: "\0".into(), prev_kv: false };
        let deleted = kv.delete_range(all).await.unwrap().into_inner().deleted;
        assert_eq!(usize::try_from(deleted).unwrap(), keys);
        let growth = process.peak() - before;
        println!("{keys} keys: {} kB before, {} kB more", before / 1024, growth / 1024);
        assert!(growth < GROWTH_MAX, "{} MB", growth / MB);
    });
}
