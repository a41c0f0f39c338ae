//! Clients that write and read until they are told to stop, and remember what they saw.
//!
//! Owns: the requests and the clock of a history. Must never: retry: what failed may have happened.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use covey::prng::Prng;
use covey::wire::etcdserverpb as pb;
use pb::compare::{CompareResult, CompareTarget, TargetUnion};
use pb::kv_client::KvClient;
use pb::request_op::Request;
use pb::response_op::Response;
use tonic::Status;

use crate::channel::Channel;
use crate::client::{channel_to, in_time};
use crate::linear::{Answer, Call, Ending, Operation, Value};
use crate::process::now;

/// Clients in all, on all members in turn.
const CLIENTS: u64 = 6;

/// A client that has not heard by then asks another member. Its request may have happened.
const TIMEOUT: Duration = Duration::from_secs(2);

/// So many requests go to the same few keys, and the next ones to others: what has to be searched stays small.
const EPOCH: u64 = 120;
const KEYS: u64 = 3;

/// A rest after a failure and between two requests.
const REST: Duration = Duration::from_millis(3);

/// What the clients share.
pub struct Load {
    endpoints: Vec<String>,
    origin: Instant,
    stop: AtomicBool,
    asked: AtomicU64,
    answered: AtomicU64,
}

impl Load {
    /// Of these members.
    pub fn new(endpoints: impl IntoIterator<Item = String>) -> Self {
        Self {
            endpoints: endpoints.into_iter().collect(),
            origin: now(),
            stop: AtomicBool::new(false),
            asked: AtomicU64::new(0),
            answered: AtomicU64::new(0),
        }
    }

    /// Runs clients while `trouble` lasts; what they saw. Afterwards every member is asked for every key.
    pub fn during(&self, trouble: impl FnOnce()) -> Vec<Operation> {
        let mut history = thread::scope(|scope| {
            let start = |number| scope.spawn(move || smol::block_on(self.work(number)));
            let clients: Vec<_> = (0..CLIENTS).map(start).collect();
            let stops = Stops(&self.stop);
            trouble();
            drop(stops);
            clients.into_iter().flat_map(|client| client.join().unwrap()).collect::<Vec<_>>()
        });
        let keys = (self.asked.load(Ordering::Relaxed) / EPOCH + 1) * KEYS;
        for endpoint in &self.endpoints {
            history.extend(smol::block_on(self.read_all(endpoint, keys)));
        }
        history
    }

    /// How many requests were answered until now.
    pub fn answered(&self) -> u64 {
        self.answered.load(Ordering::Relaxed)
    }

    async fn work(&self, number: u64) -> Vec<Operation> {
        let mut prng = Prng::new(number);
        let mut member = usize::try_from(number).unwrap();
        let (mut connection, mut history) = (None, Vec::new());
        let mut known: HashMap<u64, Value> = HashMap::new();
        let mut value = number;
        while !self.stop.load(Ordering::Relaxed) {
            let Some(client) = &mut connection else {
                member = (member + 1) % self.endpoints.len();
                connection = connect(&self.endpoints[member]).await;
                smol::Timer::after(REST).await;
                continue;
            };
            let asked = self.asked.fetch_add(1, Ordering::Relaxed);
            let key = asked / EPOCH * KEYS + prng.range(0, KEYS);
            // No other client has this one.
            value += CLIENTS;
            let call = match prng.range(0, 10) {
                0..4 => Call::Get,
                4..7 => Call::Put(value),
                7..9 => Call::Swap { expected: known.get(&key).copied().flatten(), new: value },
                _ => Call::Delete,
            };
            let operation = self.request(client, key, call).await;
            match operation.ending {
                Some(ending) => {
                    self.answered.fetch_add(1, Ordering::Relaxed);
                    if let Answer::Got(seen) | Answer::NotSwapped(seen) = ending.answer {
                        known.insert(key, seen);
                    }
                }
                None => connection = None,
            }
            history.push(operation);
            smol::Timer::after(REST).await;
        }
        history
    }

    /// One request, with a limit of time.
    async fn request(&self, client: &mut KvClient<Channel>, key: u64, call: Call) -> Operation {
        let began = self.origin.elapsed();
        let ending = in_time(TIMEOUT, ask(client, key, call)).await.and_then(Result::ok);
        let at = self.origin.elapsed();
        let ending = ending.map(|(answer, revision)| Ending { at, answer, revision });
        Operation { key, call, began, ending }
    }

    async fn read_all(&self, endpoint: &str, keys: u64) -> Vec<Operation> {
        let mut client = connect(endpoint).await.expect("it serves again");
        let mut history = Vec::new();
        for key in 0..keys {
            let read = self.request(&mut client, key, Call::Get).await;
            assert!(read.ending.is_some(), "{endpoint} does not answer");
            history.push(read);
        }
        history
    }
}

/// Ends the clients also where the trouble has panicked, which would wait for them for ever.
struct Stops<'a>(&'a AtomicBool);

impl Drop for Stops<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A host that is cut off may never answer.
async fn connect(endpoint: &str) -> Option<KvClient<Channel>> {
    let channel = in_time(TIMEOUT, channel_to(endpoint)).await?.ok()?;
    Some(KvClient::new(channel))
}

async fn ask(client: &mut KvClient<Channel>, key: u64, call: Call) -> Result<(Answer, i64), Status> {
    let name = bytes::Bytes::from(format!("key{key}"));
    let get = pb::RangeRequest { key: name.clone(), ..Default::default() };
    let put = |value: u64| pb::PutRequest {
        key: name.clone(),
        value: value.to_string().into(),
        ..Default::default()
    };
    Ok(match call {
        Call::Get => {
            let found = client.range(get).await?.into_inner();
            (Answer::Got(value_of(&found)), revision_of(found.header))
        }
        Call::Put(value) => {
            let done = client.put(put(value)).await?.into_inner();
            (Answer::Done, revision_of(done.header))
        }
        Call::Delete => {
            let delete = pb::DeleteRangeRequest { key: name.clone(), ..Default::default() };
            let done = client.delete_range(delete).await?.into_inner();
            (Answer::Deleted(done.deleted == 1), revision_of(done.header))
        }
        Call::Swap { expected, new } => {
            let (target, target_union) = match expected {
                Some(value) => (CompareTarget::Value, TargetUnion::Value(value.to_string().into())),
                None => (CompareTarget::Version, TargetUnion::Version(0)),
            };
            let compare = pb::Compare {
                key: name.clone(),
                result: CompareResult::Equal.into(),
                target: target.into(),
                target_union: Some(target_union),
                ..Default::default()
            };
            let op = |request| vec![pb::RequestOp { request: Some(request) }];
            let txn = pb::TxnRequest {
                compare: vec![compare],
                success: op(Request::RequestPut(put(new))),
                failure: op(Request::RequestRange(get)),
            };
            let done = client.txn(txn).await?.into_inner();
            let revision = revision_of(done.header);
            match done.responses.into_iter().next().and_then(|one| one.response) {
                Some(Response::ResponseRange(found)) => (Answer::NotSwapped(value_of(&found)), revision),
                _ => (Answer::Swapped, revision),
            }
        }
    })
}

fn value_of(found: &pb::RangeResponse) -> Value {
    let value = &found.kvs.first()?.value;
    Some(std::str::from_utf8(value).unwrap().parse().unwrap())
}

fn revision_of(header: Option<pb::ResponseHeader>) -> i64 {
    header.expect("every answer has one").revision
}
