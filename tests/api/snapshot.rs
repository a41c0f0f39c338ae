//! The snapshot stream: its shape on the wire, and what is in it while everything else goes on.

use std::sync::Arc;
use std::time::Duration;

use covey::ids::{Revision, VersionId};
use covey::mvcc::View;
use covey::runtime::files::RealDirectory;
use covey::snapshot::{ImageReader, Record};
use covey::store::{Change, FoldBatch, Meta, Store, StoreOptions};
use covey::wire::etcdserverpb as pb;
use covey::wire::etcdserverpb::kv_client::KvClient;
use covey::wire::etcdserverpb::maintenance_client::MaintenanceClient;
use ring::digest::{SHA256, digest};
use smol::Timer;
use tempfile::TempDir;
use tonic::Streaming;

use crate::harness::{Channel, Server, Setup, run, until};

async fn put(channel: &Channel, key: &str, value: Vec<u8>) -> i64 {
    let request = pb::PutRequest { key: key.to_owned().into(), value: value.into(), ..Default::default() };
    KvClient::new(channel.clone()).put(request).await.unwrap().into_inner().header.unwrap().revision
}

async fn compact(channel: &Channel, revision: i64, physical: bool) {
    let request = pb::CompactionRequest { revision, physical };
    KvClient::new(channel.clone()).compact(request).await.unwrap();
}

async fn open(channel: &Channel) -> Streaming<pb::SnapshotResponse> {
    MaintenanceClient::new(channel.clone()).snapshot(pb::SnapshotRequest {}).await.unwrap().into_inner()
}

/// Takes what is left of a stream, and checks every message. The image, without the hash.
async fn receive(stream: &mut Streaming<pb::SnapshotResponse>, mut image: Vec<u8>) -> Vec<u8> {
    let mut remaining: Option<u64> = None;
    loop {
        let message = stream.message().await.unwrap().expect("the hash comes last");
        assert!(message.header.is_none(), "etcd sends none");
        assert_eq!(message.version, "3.6.0");
        if remaining == Some(0) {
            assert_eq!(message.blob, digest(&SHA256, &image).as_ref());
            assert_eq!(message.remaining_bytes, 0);
            assert!(stream.message().await.unwrap().is_none());
            assert!(image.len().is_multiple_of(512));
            return image;
        }
        let length = message.blob.len() as u64;
        assert!(length > 0 && length <= 32 * 1024);
        assert!(remaining.is_none_or(|before| before == message.remaining_bytes + length));
        assert!(length == 32 * 1024 || message.remaining_bytes == 0, "short blobs come last");
        remaining = Some(message.remaining_bytes);
        image.extend_from_slice(&message.blob);
    }
}

/// A store with what an image holds, and the facts in it.
fn restore(image: &[u8], dir: &TempDir) -> (Store, Meta) {
    let mut reader = ImageReader::default();
    let (mut facts, mut leases) = (None::<Meta>, Vec::new());
    let mut changes: Vec<(VersionId, Change)> = Vec::new();
    for piece in image.chunks(10_000) {
        reader.push(piece);
        while let Some(record) = reader.next_record().unwrap() {
            match record {
                Record::Facts(meta) => facts = Some(*meta),
                Record::Lease(id, lease) => leases.push((id, Some(lease))),
                Record::Change(id, change) => changes.push((id, change)),
                Record::End { changes: count, .. } => assert_eq!(count, changes.len() as u64),
            }
        }
    }
    assert_eq!(reader.finish().unwrap(), image.len() as u64);
    let meta = facts.unwrap();
    let mut store =
        Store::open_in(&RealDirectory::open(dir.path()).unwrap(), "store", StoreOptions::default()).unwrap();
    store.initialise(&Meta { revision: Revision(1), ..Meta::default() }).unwrap();
    store
        .fold(&FoldBatch { changes: changes.into_iter().collect(), leases, sweep: None, meta: meta.clone() })
        .unwrap();
    (store, meta)
}

fn view_of(store: &Store) -> View {
    View::of_base(Arc::new(store.base().unwrap())).unwrap()
}

#[test]
fn an_empty_store_has_a_snapshot() {
    run(async {
        let server = Server::start().await;
        // The leader's first entry may still be on its way.
        let before = server.handle.view().applied();
        let mut stream = open(&server.channel().await).await;
        let image = receive(&mut stream, Vec::new()).await;
        let dir = TempDir::new().unwrap();
        let (_, meta) = restore(&image, &dir);
        assert_eq!(meta.revision, Revision(1));
        assert!((before..=server.handle.view().applied()).contains(&meta.applied), "{}", meta.applied);
    });
}

#[test]
fn a_learner_and_a_member_without_a_leader_give_theirs() {
    run(async {
        for (learns, lonely) in [(true, false), (false, true)] {
            let server = Server::with(Setup { lonely, learns, ..Setup::default() }).await;
            let mut stream = open(&server.channel().await).await;
            receive(&mut stream, Vec::new()).await;
        }
    });
}

#[test]
fn a_snapshot_is_of_one_moment_whatever_happens_meanwhile() {
    run(async {
        let server = Server::start().await;
        let channel = server.channel().await;
        // More than what the connection's window takes, so that most is read after what follows.
        for n in 0..40_u8 {
            put(&channel, &format!("key {}", n % 4), vec![n; 800_000]).await;
        }
        compact(&channel, 10, true).await;
        let then = server.handle.view();
        let before = (then.meta(), then.hash_kv(0).unwrap());
        drop(then);
        let reader = server.channel().await;
        let mut stream = open(&reader).await;
        let first = stream.message().await.unwrap().unwrap();
        // Folds, and a compaction of everything that is being sent.
        for n in 0..40_u8 {
            put(&channel, &format!("key {}", n % 5), vec![n; 300_000]).await;
        }
        compact(&channel, 80, false).await;
        Timer::after(Duration::from_millis(500)).await;
        let rest = receive(&mut stream, first.blob.to_vec()).await;
        let dir = TempDir::new().unwrap();
        let (store, meta) = restore(&rest, &dir);
        assert_eq!((meta, view_of(&store).hash_kv(0).unwrap()), before);
        // Now that nobody reads any more, removal goes on.
        server.handle.compaction_finished(Revision(80)).await.unwrap();
        assert!(server.handle.view().bytes_in_use() < 4_000_000);
    });
}

#[test]
fn a_reader_that_takes_its_time_costs_a_slice_and_holds_removal_back_while_it_is_there() {
    run(async {
        let server = Server::start().await;
        let channel = server.channel().await;
        // More than what the connection's window takes.
        for n in 0..80_u8 {
            put(&channel, "k", vec![n; 400_000]).await;
        }
        let (other, mine) = (channel, server.channel().await);
        let mut stream = open(&mine).await;
        stream.message().await.unwrap().unwrap();
        compact(&other, 81, false).await;
        Timer::after(Duration::from_millis(500)).await;
        assert!(server.handle.view().bytes_in_use() > 30_000_000, "removal waits for the reader");
        // It vanishes in the middle.
        drop((stream, mine));
        server.handle.compaction_finished(Revision(81)).await.unwrap();
        until("the space is free", || server.handle.view().bytes_in_use() < 1_000_000).await;
    });
}

#[test]
fn so_many_clients_take_a_snapshot_at_a_time() {
    run(async {
        let server = Server::start().await;
        let channel = server.channel().await;
        for n in 0..40 {
            put(&channel, &format!("k{n}"), vec![b'v'; 100_000]).await;
        }
        // They take nothing, so that each goes on.
        let mut streams = Vec::new();
        for _ in 0..covey::limits::SNAPSHOTS_MAX {
            let narrow = Channel::narrow(server.connect().await, 65_535).await.unwrap();
            streams.push(open(&narrow).await);
        }
        let mut client = MaintenanceClient::new(server.channel().await);
        let refused = client.snapshot(pb::SnapshotRequest {}).await.map(|_| ()).unwrap_err();
        assert_eq!(refused.message(), "etcdserver: too many requests");
        streams.pop();
        // The end of a stream takes a moment to arrive.
        let mut looks = 0;
        while client.snapshot(pb::SnapshotRequest {}).await.is_err() {
            looks += 1;
            assert!(looks < 1000, "there is a place again");
            Timer::after(Duration::from_millis(20)).await;
        }
    });
}
