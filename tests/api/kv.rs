//! The KV service over the wire.

use covey::ids::Revision;
use covey::wire::etcdserverpb as pb;
use covey::wire::etcdserverpb::kv_client::KvClient;
use covey::wire::mvccpb::KeyValue;
use pb::compare::{CompareResult, CompareTarget, TargetUnion};
use pb::request_op::Request;
use pb::response_op::Response;
use smol::future::poll_once;
use tonic::Code;

use crate::harness::{Channel, Server, is, run};

async fn client(server: &Server) -> KvClient<Channel> {
    KvClient::new(server.channel().await).max_decoding_message_size(usize::MAX)
}

fn put(key: &str, value: &str) -> pb::PutRequest {
    pb::PutRequest { key: key.to_owned().into(), value: value.to_owned().into(), ..Default::default() }
}

fn range(key: &str, end: &str) -> pb::RangeRequest {
    pb::RangeRequest { key: key.to_owned().into(), range_end: end.to_owned().into(), ..Default::default() }
}

fn delete(key: &str, end: &str) -> pb::DeleteRangeRequest {
    pb::DeleteRangeRequest { key: key.to_owned().into(), range_end: end.to_owned().into(), prev_kv: true }
}

fn op(request: Request) -> pb::RequestOp {
    pb::RequestOp { request: Some(request) }
}

fn kv(key: &str, value: &str, create: i64, modified: i64, version: i64) -> KeyValue {
    KeyValue {
        key: key.to_owned().into(),
        value: value.to_owned().into(),
        create_revision: create,
        mod_revision: modified,
        version,
        lease: 0,
    }
}

#[test]
fn a_key_lives_from_put_to_delete() {
    run(async {
        let server = Server::start().await;
        let mut kvs = client(&server).await;
        let empty = kvs.range(range("k", "")).await.unwrap().into_inner();
        assert_eq!((empty.header.unwrap().revision, empty.count), (1, 0));
        let first = kvs.put(put("k", "v1")).await.unwrap().into_inner();
        let header = first.header.unwrap();
        let node = server.handle.status();
        assert_eq!((header.cluster_id, header.member_id), (node.cluster.0, node.member.0));
        assert_eq!((header.revision, header.raft_term, first.prev_kv), (2, node.term.0, None));
        let second = pb::PutRequest { prev_kv: true, ..put("k", "v2") };
        let second = kvs.put(second).await.unwrap().into_inner();
        assert_eq!(second.prev_kv, Some(kv("k", "v1", 2, 2, 1)));
        for serializable in [false, true] {
            let read =
                kvs.range(pb::RangeRequest { serializable, ..range("k", "") }).await.unwrap().into_inner();
            assert_eq!(read.kvs, [kv("k", "v2", 2, 3, 2)]);
            assert_eq!((read.header.unwrap().revision, read.count, read.more), (3, 1, false));
        }
        let old = kvs.range(pb::RangeRequest { revision: 2, ..range("k", "") }).await.unwrap().into_inner();
        assert_eq!(old.kvs, [kv("k", "v1", 2, 2, 1)]);
        assert_eq!(old.header.unwrap().revision, 3, "the current one, not the one asked for");
        let gone = kvs.delete_range(delete("k", "")).await.unwrap().into_inner();
        assert_eq!((gone.deleted, gone.header.unwrap().revision), (1, 4));
        assert_eq!(gone.prev_kvs, [kv("k", "v2", 2, 3, 2)]);
        let nothing = kvs.delete_range(delete("k", "")).await.unwrap().into_inner();
        assert_eq!((nothing.deleted, nothing.header.unwrap().revision), (0, 4));
        assert_eq!(kvs.range(range("k", "")).await.unwrap().into_inner().kvs, []);
    });
}

#[test]
fn ranges_are_limited_sorted_and_counted() {
    run(async {
        let server = Server::start().await;
        let mut kvs = client(&server).await;
        for (key, value) in [("a", "3"), ("b", "1"), ("c", "2")] {
            kvs.put(put(key, value)).await.unwrap();
        }
        let page = kvs.range(pb::RangeRequest { limit: 2, ..range("a", "\0") }).await.unwrap().into_inner();
        assert_eq!((page.kvs.len(), page.more, page.count), (2, true, 3));
        let by_value = pb::RangeRequest {
            sort_target: pb::range_request::SortTarget::Value.into(),
            sort_order: pb::range_request::SortOrder::Descend.into(),
            keys_only: true,
            ..range("a", "z")
        };
        let sorted = kvs.range(by_value).await.unwrap().into_inner();
        let keys: Vec<_> = sorted.kvs.iter().map(|kv| (kv.key.as_ref(), kv.value.len())).collect();
        assert_eq!(keys, [(&b"a"[..], 0), (b"c", 0), (b"b", 0)]);
        let count = kvs.range(pb::RangeRequest { count_only: true, ..range("b", "\0") }).await.unwrap();
        assert_eq!((count.get_ref().kvs.len(), count.get_ref().count), (0, 2));
        let unknown = pb::RangeRequest { sort_target: 9, ..range("a", "") };
        let refusal = kvs.range(unknown).await.unwrap_err();
        is(&refusal, Code::InvalidArgument, "etcdserver: invalid sort option");
    });
}

#[test]
fn refusals_have_etcds_code_and_text() {
    run(async {
        let server = Server::start().await;
        let mut kvs = client(&server).await;
        let invalid = |text: &str| (Code::InvalidArgument, format!("etcdserver: {text}"));
        let cases = [
            (put("", "v"), invalid("key is not provided")),
            (pb::PutRequest { ignore_value: true, ..put("k", "v") }, invalid("value is provided")),
            (pb::PutRequest { ignore_lease: true, lease: 1, ..put("k", "") }, invalid("lease is provided")),
            (pb::PutRequest { ignore_value: true, ..put("k", "") }, invalid("key not found")),
            (
                pb::PutRequest { lease: 77, ..put("k", "") },
                (Code::NotFound, "etcdserver: requested lease not found".into()),
            ),
        ];
        for (request, (code, text)) in cases {
            is(&kvs.put(request).await.unwrap_err(), code, &text);
        }
        is(
            &kvs.range(range("", "z")).await.unwrap_err(),
            Code::InvalidArgument,
            "etcdserver: key is not provided",
        );
        let future = kvs.range(pb::RangeRequest { revision: 9, ..range("k", "") }).await.unwrap_err();
        is(&future, Code::OutOfRange, "etcdserver: mvcc: required revision is a future revision");
        assert_eq!(kvs.range(range("k", "")).await.unwrap().into_inner().header.unwrap().revision, 1);
    });
}

#[test]
fn transactions_branch_read_their_writes_and_nest() {
    run(async {
        let server = Server::start().await;
        let mut kvs = client(&server).await;
        kvs.put(put("a", "1")).await.unwrap();
        let compare = |value: &str| pb::Compare {
            key: "a".into(),
            target: CompareTarget::Value.into(),
            result: CompareResult::Equal.into(),
            target_union: Some(TargetUnion::Value(value.to_owned().into())),
            ..Default::default()
        };
        let nested = pb::TxnRequest {
            compare: vec![compare("1")],
            success: vec![op(Request::RequestRange(range("a", "")))],
            ..Default::default()
        };
        let request = pb::TxnRequest {
            compare: vec![compare("1")],
            success: vec![
                op(Request::RequestRange(range("a", ""))),
                op(Request::RequestPut(pb::PutRequest { prev_kv: true, ..put("a", "2") })),
                op(Request::RequestTxn(nested)),
                op(Request::RequestDeleteRange(delete("b", "\0"))),
            ],
            failure: vec![op(Request::RequestRange(range("z", "")))],
        };
        let answer = kvs.txn(request.clone()).await.unwrap().into_inner();
        assert!(answer.succeeded);
        assert_eq!(answer.header.unwrap().revision, 3);
        let responses: Vec<_> = answer.responses.into_iter().map(|op| op.response.unwrap()).collect();
        let [
            Response::ResponseRange(before),
            Response::ResponsePut(put),
            Response::ResponseTxn(inner),
            Response::ResponseDeleteRange(deleted),
        ] = &responses[..]
        else {
            panic!("{responses:?}")
        };
        let only = |revision| Some(pb::ResponseHeader { revision, ..Default::default() });
        assert_eq!((before.header, &before.kvs[..]), (only(2), &[kv("a", "1", 2, 2, 1)][..]));
        assert_eq!((put.header, put.prev_kv.clone()), (only(3), Some(kv("a", "1", 2, 2, 1))));
        assert_eq!((inner.header, inner.succeeded), (only(0), true), "its compare saw the state before");
        let Some(Response::ResponseRange(read)) = &inner.responses[0].response else { panic!("{inner:?}") };
        assert_eq!((read.header, &read.kvs[..]), (only(3), &[kv("a", "2", 2, 3, 2)][..]));
        assert_eq!(deleted.deleted, 0);
        let answer = kvs.txn(request).await.unwrap().into_inner();
        assert!(!answer.succeeded, "the value has changed");
        assert_eq!((answer.responses.len(), answer.header.unwrap().revision), (1, 3));
    });
}

#[test]
fn transactions_that_only_read_make_no_revision() {
    run(async {
        let server = Server::start().await;
        let mut kvs = client(&server).await;
        kvs.put(put("a", "1")).await.unwrap();
        let applied = server.handle.view().applied();
        for serializable in [false, true] {
            let read = pb::RangeRequest { serializable, ..range("a", "z") };
            let request =
                pb::TxnRequest { success: vec![op(Request::RequestRange(read))], ..Default::default() };
            let answer = kvs.txn(request).await.unwrap().into_inner();
            let Some(Response::ResponseRange(read)) = &answer.responses[0].response else {
                panic!("{answer:?}")
            };
            assert_eq!(read.kvs, [kv("a", "1", 2, 2, 1)]);
            assert_eq!(answer.header.unwrap().revision, 2);
        }
        assert!(kvs.txn(pb::TxnRequest::default()).await.unwrap().into_inner().succeeded);
        assert_eq!(server.handle.view().applied(), applied, "nothing went through the log");
    });
}

#[test]
fn malformed_transactions_are_refused_whole() {
    run(async {
        let server = Server::start().await;
        let mut kvs = client(&server).await;
        let of = |success: Vec<pb::RequestOp>| pb::TxnRequest { success, ..Default::default() };
        let puts = |count: usize| {
            (0..count).map(|n| op(Request::RequestPut(put(&format!("k{n}"), "")))).collect::<Vec<_>>()
        };
        let twice = [puts(1), puts(1)].concat();
        let deleted_too = [puts(1), vec![op(Request::RequestDeleteRange(delete("k", "l")))]].concat();
        for (request, text) in [
            (of(puts(129)), "too many operations in txn request"),
            (of(twice), "duplicate key given in txn request"),
            (of(deleted_too), "duplicate key given in txn request"),
            (of(vec![pb::RequestOp { request: None }]), "key not found"),
            (of(vec![op(Request::RequestPut(put("", "")))]), "key is not provided"),
            (
                pb::TxnRequest { compare: vec![pb::Compare::default()], ..Default::default() },
                "key is not provided",
            ),
        ] {
            let refusal = kvs.txn(request).await.unwrap_err();
            is(&refusal, Code::InvalidArgument, &format!("etcdserver: {text}"));
        }
        kvs.txn(of(puts(128))).await.expect("as many as are allowed");
    });
}

#[test]
fn compaction_hides_what_is_older() {
    run(async {
        let server = Server::start().await;
        let mut kvs = client(&server).await;
        for value in ["1", "2", "3"] {
            kvs.put(put("k", value)).await.unwrap();
        }
        let compact = |revision, physical| pb::CompactionRequest { revision, physical };
        let future = kvs.compact(compact(9, false)).await.unwrap_err();
        is(&future, Code::OutOfRange, "etcdserver: mvcc: required revision is a future revision");
        let done = kvs.compact(compact(3, true)).await.unwrap().into_inner();
        assert_eq!(done.header.unwrap().revision, 4);
        let finished = server.handle.compaction_finished(Revision(3));
        assert_eq!(poll_once(finished).await, Some(Ok(())), "the answer came after the removal");
        let again = kvs.compact(compact(3, false)).await.unwrap_err();
        is(&again, Code::OutOfRange, "etcdserver: mvcc: required revision has been compacted");
        let at = |revision| pb::RangeRequest { revision, ..range("k", "") };
        let hidden = kvs.range(at(2)).await.unwrap_err();
        is(&hidden, Code::OutOfRange, "etcdserver: mvcc: required revision has been compacted");
        assert_eq!(kvs.range(at(3)).await.unwrap().into_inner().kvs, [kv("k", "2", 2, 3, 2)]);
    });
}

#[test]
fn a_streamed_range_is_the_unary_one_in_pieces() {
    run(async {
        let server = Server::start().await;
        let mut kvs = client(&server).await;
        for chunk in 0..3 {
            let puts = (0..100).map(|n| {
                let key = format!("k{:03}", chunk * 100 + n);
                op(Request::RequestPut(put(&key, &"v".repeat(100 * n % 1700))))
            });
            kvs.txn(pb::TxnRequest { success: puts.collect(), ..Default::default() }).await.unwrap();
        }
        let pinned = kvs.range(range("k", "l")).await.unwrap().into_inner();
        for (limit, revision) in [(0, 0), (0, 4), (25, 0), (300, 0), (299, 0)] {
            let request = pb::RangeRequest { limit, revision, ..range("k", "l") };
            let whole = kvs.range(request.clone()).await.unwrap().into_inner();
            let mut stream = kvs.range_stream(request).await.unwrap().into_inner();
            let mut chunks = Vec::new();
            while let Some(chunk) = stream.message().await.unwrap() {
                chunks.push(chunk.range_response.unwrap());
            }
            let (last, before) = chunks.split_last().unwrap();
            assert!(!before.is_empty(), "more than one chunk");
            assert!(before[0].kvs.len() <= 10);
            assert!(before.iter().all(|chunk| chunk.header.is_none() && chunk.count == 0 && !chunk.more));
            assert_eq!((last.header, last.count, last.more), (pinned.header, whole.count, whole.more));
            let streamed: Vec<_> = chunks.into_iter().flat_map(|chunk| chunk.kvs).collect();
            assert_eq!(streamed, whole.kvs);
        }
        let single = async |request| {
            let mut stream = client(&server).await.range_stream(request).await.unwrap().into_inner();
            let message = stream.message().await.unwrap().unwrap().range_response.unwrap();
            assert!(stream.message().await.unwrap().is_none());
            message
        };
        let count = single(pb::RangeRequest { count_only: true, ..range("k", "l") }).await;
        assert_eq!((count.count, count.kvs.len()), (300, 0));
        let nothing = single(range("x", "y")).await;
        assert!(nothing.header.is_some() && nothing.count == 0);
        let custom = pb::RangeRequest { sort_order: 2, ..range("k", "l") };
        let refusal = kvs.range_stream(custom).await.unwrap_err();
        is(&refusal, Code::Unimplemented, "RangeStream does not support custom sort orders");
        let filtered = pb::RangeRequest { min_mod_revision: 1, ..range("k", "l") };
        let refusal = kvs.range_stream(filtered).await.unwrap_err();
        is(&refusal, Code::Unimplemented, "RangeStream does not support revision filters");
    });
}

#[test]
fn a_streamed_range_keeps_its_revision_until_compaction_overtakes_it() {
    run(async {
        let server = Server::start().await;
        let mut kvs = client(&server).await;
        // Values large enough that chunks wait for the client: it has a window of 16 MiB.
        let value = "v".repeat(1_000_000);
        for n in 0..40 {
            kvs.put(put(&format!("k{n:02}"), &value)).await.unwrap();
        }
        let mut stream = kvs.range_stream(range("k", "l")).await.unwrap().into_inner();
        let first = stream.message().await.unwrap().unwrap().range_response.unwrap();
        assert_eq!(first.kvs.len(), 1, "larger than a chunk together, so each goes alone");
        kvs.put(put("k39", "new")).await.unwrap();
        kvs.compact(pb::CompactionRequest { revision: 42, physical: false }).await.unwrap();
        let mut received = 1;
        let end = loop {
            match stream.message().await {
                Ok(Some(chunk)) => received += chunk.range_response.unwrap().kvs.len(),
                Ok(None) => panic!("all {received} keys came: the window has grown"),
                Err(status) => break status,
            }
        };
        is(&end, Code::OutOfRange, "etcdserver: mvcc: required revision has been compacted");
        assert!((2..40).contains(&received), "{received}");
    });
}

#[test]
fn many_calls_at_once_on_one_connection_all_answer() {
    run(async {
        let server = Server::start().await;
        let kvs = client(&server).await;
        let tasks: Vec<_> = (0..500)
            .map(|n| {
                let mut kvs = kvs.clone();
                smol::spawn(async move {
                    kvs.put(put(&format!("k{n}"), "v")).await.unwrap();
                    kvs.range(range(&format!("k{n}"), "")).await.unwrap().into_inner().count
                })
            })
            .collect();
        let mut found = 0;
        for task in tasks {
            found += task.await;
        }
        assert_eq!(found, 500);
        assert_eq!(server.api.counters().connections(), 1);
        drop(kvs);
        server.idle().await;
    });
}
