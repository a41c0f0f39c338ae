//! Watches and renewals over connections that break, against a scripted server on the loopback interface.

#![allow(clippy::unnecessary_wraps, reason = "answers stand beside errors in a script")]

use std::cell::RefCell;
use std::collections::VecDeque;
use std::net::TcpListener;
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use smol::stream;
use smol::{Async, LocalExecutor};
use tonic::{Request, Response, Status, Streaming};
use tower_service::Service as _;

use super::*;
use crate::cli::args::{Endpoint, Format};
use crate::cli::keep_alive::keep_alive;
use crate::runtime::io::HyperIo;
use crate::wire::etcdserverpb::lease_server::{Lease, LeaseServer};
use crate::wire::etcdserverpb::watch_server::{Watch, WatchServer};
use crate::wire::etcdserverpb::{
    LeaseGrantRequest, LeaseGrantResponse, LeaseKeepAliveRequest, LeaseKeepAliveResponse, LeaseLeasesRequest,
    LeaseLeasesResponse, LeaseRevokeRequest, LeaseRevokeResponse, LeaseTimeToLiveRequest,
    LeaseTimeToLiveResponse, ResponseHeader,
};
use crate::wire::mvccpb::KeyValue;

type Answers<T> = Vec<Result<T, Status>>;

/// What the server answers call by call; where the calls of watches asked to start.
#[derive(Clone, Default)]
struct Script {
    watches: Arc<Mutex<VecDeque<Answers<WatchResponse>>>>,
    renewals: Arc<Mutex<VecDeque<Result<i64, Status>>>>,
    starts: Arc<Mutex<Vec<i64>>>,
}

#[tonic::async_trait]
impl Watch for Script {
    type WatchStream = stream::Iter<std::vec::IntoIter<Result<WatchResponse, Status>>>;

    async fn watch(
        &self,
        request: Request<Streaming<WatchRequest>>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let first = request.into_inner().message().await?.unwrap();
        let Some(RequestUnion::CreateRequest(create)) = first.request_union else {
            panic!("a create comes first")
        };
        self.starts.lock().unwrap().push(create.start_revision);
        let answers = self.watches.lock().unwrap().pop_front().expect("the script has another watch");
        Ok(Response::new(stream::iter(answers)))
    }
}

#[tonic::async_trait]
impl Lease for Script {
    type LeaseKeepAliveStream = stream::Once<Result<LeaseKeepAliveResponse, Status>>;

    async fn lease_keep_alive(
        &self,
        request: Request<Streaming<LeaseKeepAliveRequest>>,
    ) -> Result<Response<Self::LeaseKeepAliveStream>, Status> {
        let id = request.into_inner().message().await?.unwrap().id;
        let ttl = self.renewals.lock().unwrap().pop_front().expect("the script has another renewal")?;
        Ok(Response::new(stream::once(Ok(LeaseKeepAliveResponse { header: None, id, ttl }))))
    }

    async fn lease_grant(
        &self,
        _: Request<LeaseGrantRequest>,
    ) -> Result<Response<LeaseGrantResponse>, Status> {
        Err(Status::unimplemented("not here"))
    }

    async fn lease_revoke(
        &self,
        _: Request<LeaseRevokeRequest>,
    ) -> Result<Response<LeaseRevokeResponse>, Status> {
        Err(Status::unimplemented("not here"))
    }

    async fn lease_time_to_live(
        &self,
        _: Request<LeaseTimeToLiveRequest>,
    ) -> Result<Response<LeaseTimeToLiveResponse>, Status> {
        Err(Status::unimplemented("not here"))
    }

    async fn lease_leases(
        &self,
        _: Request<LeaseLeasesRequest>,
    ) -> Result<Response<LeaseLeasesResponse>, Status> {
        Err(Status::unimplemented("not here"))
    }
}

#[derive(Clone)]
struct Spawner(Rc<LocalExecutor<'static>>);

impl<F: Future<Output = ()> + 'static> hyper::rt::Executor<F> for Spawner {
    fn execute(&self, future: F) {
        self.0.spawn(future).detach();
    }
}

/// Serves the script and runs what `work` makes of the settings; how it ended, and what it printed.
fn play(
    script: &Script,
    work: impl for<'a> FnOnce(&'a ClientSettings, Rc<RefCell<Vec<Reply>>>) -> Work<'a>,
) -> (Result<(), LastingError>, Vec<Reply>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let executor = Rc::new(LocalExecutor::new());
    let (script, spawner) = (script.clone(), Spawner(Rc::clone(&executor)));
    let serving = async move {
        let listener = Async::new(listener).unwrap();
        loop {
            let (socket, _) = listener.accept().await.unwrap();
            let (watches, leases) = (WatchServer::new(script.clone()), LeaseServer::new(script.clone()));
            let service = service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
                let (mut watches, mut leases) = (watches.clone(), leases.clone());
                async move {
                    if request.uri().path().contains("Watch") {
                        watches.call(request).await
                    } else {
                        leases.call(request).await
                    }
                }
            });
            let serve = http2::Builder::new(spawner.clone()).serve_connection(HyperIo::new(socket), service);
            spawner.0.spawn(async { drop(serve.await) }).detach();
        }
    };
    executor.spawn(serving).detach();
    let endpoint = Endpoint { text: "it".into(), tls: false, host: "127.0.0.1".into(), port };
    let settings = ClientSettings {
        endpoints: vec![endpoint],
        searches: false,
        cacert: None,
        identity: None,
        trusts_anyone: false,
        credentials: None,
        keep_alive: (Duration::from_secs(2), Duration::from_secs(6)),
        dial_timeout: Duration::from_secs(5),
        command_timeout: Duration::from_secs(5),
        format: Format::Simple,
    };
    let printed = Rc::new(RefCell::new(Vec::new()));
    let work = work(&settings, Rc::clone(&printed));
    let ended = smol::block_on(executor.run(work(Rc::clone(&executor))));
    (ended, printed.take())
}

fn header(revision: i64) -> Option<ResponseHeader> {
    Some(ResponseHeader { revision, ..ResponseHeader::default() })
}

fn created(revision: i64) -> Result<WatchResponse, Status> {
    Ok(WatchResponse { header: header(revision), created: true, ..WatchResponse::default() })
}

fn changed(revision: i64) -> Result<WatchResponse, Status> {
    let key = Bytes::from_static(b"k");
    let kv = Some(KeyValue { key, mod_revision: revision, ..KeyValue::default() });
    let events = vec![Event { kv, ..Event::default() }];
    // The store may be further than the change.
    Ok(WatchResponse { header: header(revision + 5), events, ..WatchResponse::default() })
}

fn progress(revision: i64) -> Result<WatchResponse, Status> {
    Ok(WatchResponse { header: header(revision), ..WatchResponse::default() })
}

fn away<T>() -> Result<T, Status> {
    Err(Status::unavailable("etcdserver: server stopped"))
}

fn watched(script: &Script, to_run: &[&str]) -> (Result<(), LastingError>, Vec<i64>) {
    let to_run = to_run.iter().map(OsString::from).collect();
    let (ended, printed) = play(script, |settings, printed| {
        let request = WatchCreateRequest { key: Bytes::from_static(b"k"), ..WatchCreateRequest::default() };
        watch(settings, request, to_run, move |reply| {
            let Reply::Watch(response) = reply else { panic!("not of a watch") };
            printed.borrow_mut().push(Reply::Watch(response.clone()));
            Ok(())
        })
    });
    let revisions = printed.iter().flat_map(|reply| match reply {
        Reply::Watch(response) => {
            response.events.iter().filter_map(|event| Some(event.kv.as_ref()?.mod_revision))
        }
        _ => panic!("not of a watch"),
    });
    (ended, revisions.collect())
}

#[test]
fn a_watch_goes_on_behind_what_it_has_seen() {
    let script = Script::default();
    let compacted = WatchResponse { canceled: true, compact_revision: 30, ..WatchResponse::default() };
    script.watches.lock().unwrap().extend([
        vec![created(10), away()],
        vec![created(13), changed(12), changed(15), away()],
        vec![created(20), progress(22)],
        vec![created(22), Ok(compacted)],
    ]);
    let (ended, revisions) = watched(&script, &[]);
    assert_eq!(
        ended.unwrap_err().to_string(),
        "watch was canceled (etcdserver: mvcc: required revision has been compacted)"
    );
    assert_eq!(revisions, [12, 15]);
    assert_eq!(*script.starts.lock().unwrap(), [0, 11, 16, 23]);
}

#[test]
fn a_watch_that_the_server_does_not_want_ends() {
    let script = Script::default();
    let reason = "mvcc: watcher range is empty";
    let refused = WatchResponse {
        created: true,
        canceled: true,
        watch_id: -1,
        cancel_reason: reason.into(),
        ..WatchResponse::default()
    };
    let denied = Err(Status::permission_denied("etcdserver: permission denied"));
    script.watches.lock().unwrap().extend([vec![Ok(refused)], vec![denied]]);
    let (ended, _) = watched(&script, &[]);
    assert_eq!(ended.unwrap_err().to_string(), format!("watch was canceled ({reason})"));
    let (ended, _) = watched(&script, &[]);
    assert_eq!(ended.unwrap_err().to_string(), "etcdserver: permission denied");
}

#[test]
fn the_command_is_run_for_each_change_until_it_fails() {
    let script = Script::default();
    script.watches.lock().unwrap().extend([vec![created(10), changed(12), changed(13), changed(14)]]);
    let test = r#"test "$ETCD_WATCH_REVISION $ETCD_WATCH_KEY $ETCD_WATCH_EVENT_TYPE" != '18 "k" "PUT"'"#;
    let (ended, revisions) = watched(&script, &["sh", "-c", test]);
    assert!(matches!(&ended, Err(LastingError::Failed { command, .. }) if command == "sh"), "{ended:?}");
    assert_eq!(revisions, [12, 13]);
    script.watches.lock().unwrap().extend([vec![created(10), changed(12)]]);
    let (ended, _) = watched(&script, &["/no/such/command"]);
    assert!(matches!(&ended, Err(LastingError::Run { .. })), "{ended:?}");
}

#[test]
fn a_lease_is_renewed_until_it_has_ended() {
    let script = Script::default();
    script.renewals.lock().unwrap().extend([Ok(1), away(), Ok(1), Ok(0)]);
    let (ended, printed) = play(&script, |settings, printed| {
        keep_alive(settings, 0x2a, move |reply| {
            let Reply::LeaseKeptAlive(answer) = reply else { panic!("not of a lease") };
            printed.borrow_mut().push(Reply::LeaseKeptAlive(*answer));
            Ok(())
        })
    });
    ended.unwrap();
    let ids = printed.iter().map(|reply| match reply {
        Reply::LeaseKeptAlive(answer) => (answer.id, answer.ttl),
        _ => panic!("not of a lease"),
    });
    assert_eq!(ids.collect::<Vec<_>>(), [(0x2a, 1), (0x2a, 1)]);
}
