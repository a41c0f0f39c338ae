//! The Watch service over the wire (API reference, section 2).

use covey::wire::etcdserverpb as pb;
use covey::wire::etcdserverpb::kv_client::KvClient;

use crate::harness::{Channel, Server, run};
use crate::watcher::{Watcher, briefs, create};

type Kv = KvClient<Channel>;

async fn client(server: &Server) -> Kv {
    KvClient::new(server.channel().await)
}

async fn put(kv: &mut Kv, key: &str, value: &str) -> i64 {
    let put =
        pb::PutRequest { key: key.to_owned().into(), value: value.to_owned().into(), ..Default::default() };
    kv.put(put).await.unwrap().into_inner().header.unwrap().revision
}

async fn delete(kv: &mut Kv, key: &str, end: &str) -> i64 {
    let delete = pb::DeleteRangeRequest {
        key: key.to_owned().into(),
        range_end: end.to_owned().into(),
        ..Default::default()
    };
    kv.delete_range(delete).await.unwrap().into_inner().header.unwrap().revision
}

#[test]
fn a_watcher_is_created_told_and_cancelled() {
    run(async {
        let server = Server::start().await;
        let mut kv = client(&server).await;
        assert_eq!(put(&mut kv, "k", "before").await, 2);
        let mut stream = Watcher::start(&server).await;
        let created = stream.ask(create("k", "")).await;
        assert!(created.created && !created.canceled && created.events.is_empty());
        assert_eq!((created.watch_id, created.header.unwrap().revision), (0, 2));
        put(&mut kv, "other", "x").await;
        put(&mut kv, "k", "v").await;
        delete(&mut kv, "k", "").await;
        let events = stream.events(0, 2).await;
        assert_eq!(briefs(&events), ["4 k=v", "5 -k"]);
        let kv0 = events[0].kv.as_ref().unwrap();
        assert_eq!((kv0.create_revision, kv0.version), (2, 2));
        stream.progress();
        let progress = stream.next().await;
        assert_eq!((progress.watch_id, progress.header.unwrap().revision), (-1, 5));
        assert!(progress.events.is_empty() && !progress.created && !progress.canceled);
        stream.cancel(0);
        let canceled = stream.next().await;
        assert!(canceled.canceled && canceled.watch_id == 0 && canceled.cancel_reason.is_empty());
        assert_eq!(canceled.compact_revision, 0);
        put(&mut kv, "k", "after").await;
        stream.cancel(0);
        stream.progress();
        stream.quiet().await;
    });
}
