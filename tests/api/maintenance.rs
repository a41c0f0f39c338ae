//! Hashes, defragmentation, and what a lone member answers to those who would move or downgrade it.

use covey::wire::etcdserverpb as pb;
use covey::wire::etcdserverpb::kv_client::KvClient;
use covey::wire::etcdserverpb::maintenance_client::MaintenanceClient;
use pb::downgrade_request::DowngradeAction;
use tonic::{Code, Status};

use crate::harness::{Channel, MEMBER, Server, Setup, run};

async fn put(channel: &Channel, key: &str, value: &[u8]) -> i64 {
    let request =
        pb::PutRequest { key: key.to_owned().into(), value: value.to_vec().into(), ..Default::default() };
    KvClient::new(channel.clone()).put(request).await.unwrap().into_inner().header.unwrap().revision
}

async fn compact(channel: &Channel, revision: i64) {
    let request = pb::CompactionRequest { revision, physical: true };
    KvClient::new(channel.clone()).compact(request).await.unwrap();
}

async fn hash_kv(channel: &Channel, revision: i64) -> Result<pb::HashKvResponse, Status> {
    let request = pb::HashKvRequest { revision };
    MaintenanceClient::new(channel.clone()).hash_kv(request).await.map(tonic::Response::into_inner)
}

fn refusal(status: Status) -> (Code, String) {
    (status.code(), status.message().to_owned())
}

#[test]
fn hashes_are_of_a_revision_and_say_so() {
    run(async {
        let server = Server::start().await;
        let channel = server.channel().await;
        let mut hashes = Vec::new();
        for n in 0..50_u32 {
            let revision = put(&channel, &format!("key {}", n % 7), &n.to_be_bytes()).await;
            hashes.push(hash_kv(&channel, 0).await.unwrap());
            let hash = hashes.last().unwrap();
            assert_eq!((hash.hash_revision, hash.compact_revision), (revision, -1));
            assert_eq!(hash.header.unwrap().revision, revision);
        }
        let earlier = hash_kv(&channel, 30).await.unwrap();
        assert_eq!((earlier.hash, earlier.hash_revision), (hashes[28].hash, 30));
        assert_eq!(earlier.header.unwrap().revision, 51, "the current revision is in the header");
        compact(&channel, 40).await;
        let compacted = hash_kv(&channel, 0).await.unwrap();
        assert_eq!((compacted.hash_revision, compacted.compact_revision), (51, 40));
        assert_ne!(compacted.hash, hashes[49].hash, "what was compacted does not count any more");
        assert_eq!(hash_kv(&channel, 40).await.unwrap().hash_revision, 40);
        for (revision, text) in [
            (39, "etcdserver: mvcc: required revision has been compacted"),
            (52, "etcdserver: mvcc: required revision is a future revision"),
        ] {
            let error = hash_kv(&channel, revision).await.unwrap_err();
            assert_eq!(refusal(error), (Code::OutOfRange, text.to_owned()));
        }
        let nothing = hash_kv(&channel, -60).await.unwrap();
        assert_eq!((nothing.hash, nothing.compact_revision), (crc32c::crc32c(b"key"), 40));
        let mut maintenance = MaintenanceClient::new(channel.clone());
        let hash = maintenance.hash(pb::HashRequest {}).await.unwrap().into_inner();
        assert_eq!(hash.header.unwrap().revision, 51);
        let again = maintenance.hash(pb::HashRequest {}).await.unwrap().into_inner();
        assert_eq!(again.hash, hash.hash, "the same content, the same number");
        put(&channel, "one more", b"").await;
        assert_ne!(maintenance.hash(pb::HashRequest {}).await.unwrap().into_inner().hash, hash.hash);
    });
}

#[test]
fn hashes_of_many_slices_agree_while_everything_moves() {
    run(async {
        let server = Server::start().await;
        let channel = server.channel().await;
        let mut revision = 0;
        for n in 0..48_u32 {
            revision = put(&channel, &format!("key {}", n % 5), &vec![b'x'; 300_000]).await;
        }
        let whole = server.handle.view().hash_kv(revision).unwrap();
        for n in 0..20_u32 {
            let hash = hash_kv(&channel, revision).await.unwrap();
            assert_eq!((hash.hash, hash.hash_revision), (whole.hash, revision));
            put(&channel, "another", &n.to_be_bytes()).await;
        }
        compact(&channel, revision).await;
        let whole = server.handle.view().hash_kv(revision).unwrap();
        assert_eq!(hash_kv(&channel, revision).await.unwrap().hash, whole.hash);
    });
}

#[test]
fn defragmentation_answers_and_changes_nothing() {
    run(async {
        let server = Server::start().await;
        let channel = server.channel().await;
        for n in 0..20_u32 {
            put(&channel, "k", &n.to_be_bytes()).await;
        }
        KvClient::new(channel.clone())
            .compact(pb::CompactionRequest { revision: 15, physical: false })
            .await
            .unwrap();
        let before = hash_kv(&channel, 0).await.unwrap();
        let mut maintenance = MaintenanceClient::new(channel.clone());
        let answer = maintenance.defragment(pb::DefragmentRequest {}).await.unwrap().into_inner();
        assert!(answer.header.is_none(), "etcd sends none");
        assert_eq!(hash_kv(&channel, 0).await.unwrap().hash, before.hash);
    });
}

#[test]
fn leadership_stays_where_it_is() {
    run(async {
        let server = Server::start().await;
        let mut maintenance = MaintenanceClient::new(server.channel().await);
        let itself = pb::MoveLeaderRequest { target_id: MEMBER.0 };
        assert!(maintenance.move_leader(itself).await.unwrap().into_inner().header.is_none());
        for target_id in [0, 0xdead] {
            let error = maintenance.move_leader(pb::MoveLeaderRequest { target_id }).await.unwrap_err();
            let text = "etcdserver: bad leader transferee".to_owned();
            assert_eq!(refusal(error), (Code::FailedPrecondition, text));
        }
        let lonely = Server::with(Setup { lonely: true, ..Setup::default() }).await;
        let error = MaintenanceClient::new(lonely.channel().await).move_leader(itself).await.unwrap_err();
        assert_eq!(refusal(error), (Code::FailedPrecondition, "etcdserver: not leader".to_owned()));
    });
}

#[test]
fn nothing_can_be_downgraded() {
    run(async {
        let server = Server::start().await;
        let mut maintenance = MaintenanceClient::new(server.channel().await);
        let mut ask = async |action: i32, version: &str| {
            let request = pb::DowngradeRequest { action, version: version.to_owned() };
            refusal(maintenance.downgrade(request).await.unwrap_err())
        };
        let (validate, enable) = (DowngradeAction::Validate.into(), DowngradeAction::Enable.into());
        let wrong = "etcdserver: wrong downgrade target version format".to_owned();
        let invalid = "etcdserver: invalid downgrade target version".to_owned();
        for action in [validate, enable] {
            assert_eq!(ask(action, "").await, (Code::InvalidArgument, wrong.clone()));
            assert_eq!(ask(action, "three").await, (Code::InvalidArgument, wrong.clone()));
            assert_eq!(ask(action, "3.5").await, (Code::InvalidArgument, invalid.clone()));
            assert_eq!(ask(action, "3.5.0").await, (Code::InvalidArgument, invalid.clone()));
        }
        let none = "etcdserver: no inflight downgrade job".to_owned();
        assert_eq!(ask(DowngradeAction::Cancel.into(), "").await, (Code::FailedPrecondition, none));
        assert_eq!(ask(9, "3.5").await, (Code::Unknown, "etcdserver: unknown method".to_owned()));
    });
}
