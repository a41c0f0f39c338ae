//! What Kubernetes' API server does to its etcd: guarded creates, updates and deletes, paged lists at one revision, and the
//! compactor (API reference, section 16).

use std::collections::BTreeMap;

use covey::wire::etcdserverpb as pb;
use covey::wire::etcdserverpb::kv_client::KvClient;
use covey::wire::mvccpb::KeyValue;
use pb::compare::{CompareResult, CompareTarget, TargetUnion};
use pb::request_op::Request;
use pb::response_op::Response;
use tonic::Code;

use crate::harness::{Channel, Server, run};

/// Objects in the registry while the workload runs.
const PODS: usize = 60;
/// Objects on a page of a list.
const PAGE: i64 = 25;
/// Rounds of updates; after each of them the compactor runs.
const ROUNDS: usize = 4;

type Client = KvClient<Channel>;

fn pod(number: usize) -> String {
    format!("/registry/pods/default/pod-{number:04}")
}

fn op(request: Request) -> pb::RequestOp {
    pb::RequestOp { request: Some(request) }
}

fn get(key: &str) -> pb::RangeRequest {
    pb::RangeRequest { key: key.to_owned().into(), ..Default::default() }
}

/// `mod_revision(key) == revision`, which holds for revision 0 when there is no such key.
fn unchanged_since(key: &str, revision: i64) -> pb::Compare {
    pb::Compare {
        result: CompareResult::Equal as i32,
        target: CompareTarget::Mod as i32,
        key: key.to_owned().into(),
        target_union: Some(TargetUnion::ModRevision(revision)),
        ..Default::default()
    }
}

/// Writes if nobody else has since `revision`: the new revision, or what is there instead.
async fn write(client: &mut Client, key: &str, revision: i64, value: &str) -> Result<i64, Option<KeyValue>> {
    let put =
        pb::PutRequest { key: key.to_owned().into(), value: value.to_owned().into(), ..Default::default() };
    guarded(client, key, revision, Request::RequestPut(put)).await
}

async fn delete(client: &mut Client, key: &str, revision: i64) -> Result<i64, Option<KeyValue>> {
    let delete = pb::DeleteRangeRequest { key: key.to_owned().into(), ..Default::default() };
    guarded(client, key, revision, Request::RequestDeleteRange(delete)).await
}

async fn guarded(
    client: &mut Client,
    key: &str,
    revision: i64,
    change: Request,
) -> Result<i64, Option<KeyValue>> {
    let txn = pb::TxnRequest {
        compare: vec![unchanged_since(key, revision)],
        success: vec![op(change)],
        failure: vec![op(Request::RequestRange(get(key)))],
    };
    let mut answer = client.txn(txn).await.unwrap().into_inner();
    if answer.succeeded {
        return Ok(answer.header.unwrap().revision);
    }
    match answer.responses.remove(0).response {
        Some(Response::ResponseRange(mut found)) => Err(found.kvs.pop()),
        other => panic!("the branch was a get: {other:?}"),
    }
}

/// A list in pages, all at the revision of the first one. Between pages `disturb` changes the registry.
async fn list(client: &mut Client, disturb: &mut Client) -> (i64, Vec<KeyValue>) {
    let (mut from, mut revision, mut all) = ("/registry/pods/".to_owned(), 0, Vec::new());
    loop {
        let page = pb::RangeRequest {
            key: from.clone().into(),
            range_end: "/registry/pods0".into(),
            limit: PAGE,
            revision,
            ..Default::default()
        };
        let page = client.range(page).await.unwrap().into_inner();
        if revision == 0 {
            revision = page.header.unwrap().revision;
        }
        let rest = usize::try_from(page.count).unwrap();
        assert_eq!(rest, PODS - all.len(), "the count is what is left from the page's first key on");
        assert_eq!(page.more, rest > page.kvs.len());
        all.extend(page.kvs);
        if !page.more {
            return (revision, all);
        }
        from = format!("{}\0", String::from_utf8(all.last().unwrap().key.to_vec()).unwrap());
        let extra = format!("/registry/pods/default/pod-{:04}-extra", all.len());
        let made = write(disturb, &extra, 0, "x").await.unwrap();
        delete(disturb, &extra, made).await.unwrap();
    }
}

/// One turn of the compactor: it takes the key over by its version, notes the revision, and compacts to the one of the turn before.
async fn compact(client: &mut Client, turn: i64, to: i64) -> i64 {
    let key = "compact_rev_key";
    let txn = pb::TxnRequest {
        compare: vec![pb::Compare {
            result: CompareResult::Equal as i32,
            target: CompareTarget::Version as i32,
            key: key.into(),
            target_union: Some(TargetUnion::Version(turn)),
            ..Default::default()
        }],
        success: vec![op(Request::RequestPut(pb::PutRequest {
            key: key.into(),
            value: to.to_string().into(),
            ..Default::default()
        }))],
        failure: vec![op(Request::RequestRange(get(key)))],
    };
    let answer = client.txn(txn.clone()).await.unwrap().into_inner();
    assert!(answer.succeeded, "the only compactor has its turn");
    let second = client.txn(txn).await.unwrap().into_inner();
    assert!(!second.succeeded, "a compactor that comes second sees the turn taken");
    if to > 0 {
        client.compact(pb::CompactionRequest { revision: to, physical: false }).await.unwrap();
    }
    answer.header.unwrap().revision
}

#[test]
fn a_registry_is_created_updated_listed_and_compacted() {
    run(async {
        let server = Server::start().await;
        let mut client = KvClient::new(server.channel().await);
        let mut other = KvClient::new(server.channel().await);
        let mut known = BTreeMap::new();
        for number in 0..PODS {
            let made = write(&mut client, &pod(number), 0, "created").await.unwrap();
            known.insert(pod(number), made);
        }
        let again = write(&mut other, &pod(0), 0, "second").await.unwrap_err().unwrap();
        assert_eq!((again.value.as_ref(), again.mod_revision), (&b"created"[..], known[&pod(0)]));

        let mut compacted = 0;
        for round in 0..ROUNDS {
            for (number, (key, revision)) in known.iter_mut().enumerate() {
                let stale = *revision;
                *revision = write(&mut client, key, stale, &format!("round {round}")).await.unwrap();
                if number % 5 != 0 {
                    continue;
                }
                let conflict = write(&mut other, key, stale, "late").await.unwrap_err().unwrap();
                assert_eq!(conflict.mod_revision, *revision, "the loser learns what it lost to");
            }
            let (at, pods) = list(&mut client, &mut other).await;
            let listed = pods.iter().map(|kv| (String::from_utf8(kv.key.to_vec()).unwrap(), kv.mod_revision));
            assert_eq!(listed.collect::<BTreeMap<_, _>>(), known);
            assert!(pods.iter().all(|kv| kv.value == format!("round {round}") && kv.mod_revision <= at));
            let next = compact(&mut client, i64::try_from(round).unwrap(), compacted).await;
            if compacted > 0 {
                let old = pb::RangeRequest { revision: compacted - 1, ..get(&pod(0)) };
                let status = client.range(old).await.unwrap_err();
                assert_eq!(status.code(), Code::OutOfRange);
                assert_eq!(status.message(), "etcdserver: mvcc: required revision has been compacted");
            }
            compacted = next;
        }

        for (key, revision) in &known {
            delete(&mut client, key, *revision).await.unwrap();
            assert_eq!(delete(&mut other, key, *revision).await, Err(None), "it is gone");
        }
        let count = pb::RangeRequest {
            key: "/registry/".into(),
            range_end: "/registry0".into(),
            count_only: true,
            ..Default::default()
        };
        assert_eq!(client.range(count).await.unwrap().into_inner().count, 0);
    });
}
