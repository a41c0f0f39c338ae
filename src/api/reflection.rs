//! gRPC's reflection service: a client that knows nothing of the API asks what there is to call.
//!
//! Owns: its answers, from the descriptors that the build has made. Must never: tell of anything else, since nobody has to be somebody to ask: the node is
//! not looked at. Driven by `dispatch`, where `--enable-grpc-reflection` is set.
//!
//! The version that came before has the same messages under another name, and is answered by the same code. Either tells of every service but itself.

use std::collections::{BTreeMap, BTreeSet};
use std::future::{Ready, ready};
use std::pin::Pin;
use std::sync::OnceLock;
use std::task::{Context, Poll};

use bytes::Bytes;
use prost::{DecodeError, Message as _};
use smol::stream::{self, Stream};
use tonic::server::Grpc;
use tonic::{Code, Request, Response, Status, Streaming};
use tonic_prost::ProstCodec;
use tower_service::Service;

use super::errors;
use super::record::{RequestBody, methods};
use super::schema::proto;
use super::stop::Stopping;
use crate::wire::FILE_DESCRIPTOR_SET;

/// What the service is called.
pub const V1: &str = "grpc.reflection.v1.ServerReflection";
/// What it was called before, and older clients ask for.
pub const V1ALPHA: &str = "grpc.reflection.v1alpha.ServerReflection";
/// Its only method.
pub const METHOD: &str = "ServerReflectionInfo";

/// The largest question that is read. The answer repeats it, and no name in the API is nearly as long.
const QUESTION_BYTES_MAX: usize = 4096;

/// Serves it. Cheap to clone.
#[derive(Clone)]
pub struct ReflectionService {
    stopping: Stopping,
}

type Answers = Pin<Box<dyn Stream<Item = Result<pb::Response, Status>> + Send>>;

impl ReflectionService {
    /// Its streams end when the end is announced.
    pub fn new(stopping: Stopping) -> Self {
        Self { stopping }
    }

    /// Answers a call of its method.
    pub async fn answer(self, request: http::Request<RequestBody>) -> http::Response<tonic::body::Body> {
        let codec = ProstCodec::<pb::Response, pb::Request>::default();
        Grpc::new(codec).max_decoding_message_size(QUESTION_BYTES_MAX).streaming(self, request).await
    }
}

impl Service<Request<Streaming<pb::Request>>> for ReflectionService {
    type Response = Response<Answers>;
    type Error = Status;
    type Future = Ready<Result<Self::Response, Status>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Status>> {
        Poll::Ready(Ok(()))
    }

    /// One question after the other, each when its answer is asked for.
    fn call(&mut self, request: Request<Streaming<pb::Request>>) -> Self::Future {
        let state = (request.into_inner(), self.stopping.clone());
        let answers: Answers = Box::pin(stream::try_unfold(state, |(mut requests, stopping)| async move {
            let stopped = async {
                stopping.announced().await;
                Err(errors::stopped())
            };
            let request = smol::future::or(requests.message(), stopped).await;
            // Of a question that is too large gRPC has words of its own.
            let request =
                request.map_err(|status| errors::translate(&status, V1, METHOD).unwrap_or(status))?;
            Ok(request.map(|request| (answer(request), (requests, stopping))))
        }));
        ready(Ok(Response::new(answers)))
    }
}

/// What cannot be answered is said in an answer: the stream goes on.
fn answer(request: pb::Request) -> pb::Response {
    let found = match &request.question {
        None => Err((Code::InvalidArgument, "nothing is asked for")),
        Some(pb::Question::ListServices(_)) => Ok(services()),
        Some(pb::Question::FileByName(name)) => file(files().named(name), "no such file"),
        Some(pb::Question::FileOfSymbol(symbol)) => file(files().defining(symbol), "no such symbol"),
        Some(pb::Question::FileOfExtension(_)) => Err((Code::NotFound, "no such extension")),
        Some(pb::Question::ExtensionsOf(name)) => match files().defining(name) {
            // It is known, and nothing extends it.
            Some(_) => Ok(pb::Answer::Extensions(pb::Extensions { of: name.clone(), numbers: Vec::new() })),
            None => Err((Code::NotFound, "no such type")),
        },
    };
    let found = found.unwrap_or_else(|(code, text)| {
        pb::Answer::Error(pb::ErrorResponse { code: code as i32, message: text.to_owned() })
    });
    pb::Response { valid_host: request.host.clone(), original_request: Some(request), answer: Some(found) }
}

/// Those that are offered.
fn services() -> pb::Answer {
    let names: BTreeSet<_> = methods(false).map(|method| method.service).collect();
    let services = names.into_iter().map(|name| pb::NamedService { name: name.to_owned() }).collect();
    pb::Answer::Services(pb::Services { services })
}

/// A file alone: clients ask for those that it imports.
fn file(found: Option<&Bytes>, otherwise: &'static str) -> Result<pb::Answer, (Code, &'static str)> {
    let descriptor = found.ok_or((Code::NotFound, otherwise))?;
    Ok(pb::Answer::Files(pb::Files { descriptors: vec![descriptor.clone()] }))
}

/// All files of the API, and where each name is defined.
#[derive(Default)]
struct Files {
    /// Each an encoded `FileDescriptorProto`.
    descriptors: Vec<Bytes>,
    by_name: BTreeMap<String, usize>,
    by_symbol: BTreeMap<String, usize>,
}

/// Made when it is asked for first.
fn files() -> &'static Files {
    static FILES: OnceLock<Files> = OnceLock::new();
    FILES.get_or_init(|| {
        let made = Files::of(Bytes::from_static(FILE_DESCRIPTOR_SET));
        made.expect("descriptors that the build has made, and that a test has read")
    })
}

impl Files {
    fn of(set: Bytes) -> Result<Self, DecodeError> {
        let mut files = Self::default();
        for (place, descriptor) in proto::Set::decode(set)?.files.into_iter().enumerate() {
            let proto::File { name, package, messages, enums, services } =
                proto::File::decode(descriptor.clone())?;
            files.descriptors.push(descriptor);
            files.by_name.insert(name, place);
            files.messages(place, &package, &messages);
            files.enums(place, &package, &enums);
            for service in services {
                let full = files.define(place, &package, &service.name);
                for method in service.methods {
                    files.define(place, &full, &method.name);
                }
            }
        }
        Ok(files)
    }

    fn messages(&mut self, place: usize, scope: &str, messages: &[proto::Message]) {
        for message in messages {
            let full = self.define(place, scope, &message.name);
            for field in &message.fields {
                self.define(place, &full, &field.name);
            }
            self.enums(place, &full, &message.enums);
            self.messages(place, &full, &message.messages);
        }
    }

    fn enums(&mut self, place: usize, scope: &str, enums: &[proto::Enum]) {
        for each in enums {
            self.define(place, scope, &each.name);
            // Values stand beside their enum, as in C.
            for value in &each.values {
                self.define(place, scope, &value.name);
            }
        }
    }

    /// Notes where something is defined; its full name.
    fn define(&mut self, place: usize, scope: &str, name: &str) -> String {
        let full = format!("{scope}.{name}");
        self.by_symbol.insert(full.clone(), place);
        full
    }

    fn named(&self, name: &str) -> Option<&Bytes> {
        self.by_name.get(name).map(|place| &self.descriptors[*place])
    }

    /// The file that defines a service, a method, a message, a field, an enum or a value, by its full name.
    fn defining(&self, symbol: &str) -> Option<&Bytes> {
        self.by_symbol.get(symbol).map(|place| &self.descriptors[*place])
    }
}

/// The messages, with the numbers of gRPC's `reflection.proto`.
mod pb {
    use bytes::Bytes;

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Request {
        #[prost(string, tag = "1")]
        pub host: String,
        #[prost(oneof = "Question", tags = "3, 4, 5, 6, 7")]
        pub question: Option<Question>,
    }

    #[derive(Clone, PartialEq, prost::Oneof)]
    pub enum Question {
        #[prost(string, tag = "3")]
        FileByName(String),
        #[prost(string, tag = "4")]
        FileOfSymbol(String),
        #[prost(message, tag = "5")]
        FileOfExtension(Extension),
        #[prost(string, tag = "6")]
        ExtensionsOf(String),
        #[prost(string, tag = "7")]
        ListServices(String),
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Extension {
        #[prost(string, tag = "1")]
        pub of: String,
        #[prost(int32, tag = "2")]
        pub number: i32,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Response {
        #[prost(string, tag = "1")]
        pub valid_host: String,
        #[prost(message, optional, tag = "2")]
        pub original_request: Option<Request>,
        #[prost(oneof = "Answer", tags = "4, 5, 6, 7")]
        pub answer: Option<Answer>,
    }

    #[derive(Clone, PartialEq, prost::Oneof)]
    pub enum Answer {
        #[prost(message, tag = "4")]
        Files(Files),
        #[prost(message, tag = "5")]
        Extensions(Extensions),
        #[prost(message, tag = "6")]
        Services(Services),
        #[prost(message, tag = "7")]
        Error(ErrorResponse),
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Files {
        #[prost(bytes = "bytes", repeated, tag = "1")]
        pub descriptors: Vec<Bytes>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Extensions {
        #[prost(string, tag = "1")]
        pub of: String,
        #[prost(int32, repeated, tag = "2")]
        pub numbers: Vec<i32>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Services {
        #[prost(message, repeated, tag = "1")]
        pub services: Vec<NamedService>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct NamedService {
        #[prost(string, tag = "1")]
        pub name: String,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct ErrorResponse {
        #[prost(int32, tag = "1")]
        pub code: i32,
        #[prost(string, tag = "2")]
        pub message: String,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name_of(descriptor: Option<&Bytes>) -> Option<String> {
        descriptor.map(|descriptor| proto::File::decode(descriptor.clone()).unwrap().name)
    }

    /// What a service lists it has to describe.
    #[test]
    fn every_method_that_is_offered_is_described() {
        for method in methods(false) {
            let full = format!("{}.{}", method.service, method.method);
            let file = name_of(files().defining(&full));
            assert!(file.is_some() && file == name_of(files().defining(method.service)), "{full}");
        }
    }

    #[test]
    fn each_kind_of_symbol_is_found_where_it_is_defined() {
        for (symbol, file) in [
            ("etcdserverpb.KV", "etcd/kv.proto"),
            ("etcdserverpb.KV.Put", "etcd/kv.proto"),
            ("etcdserverpb.RangeRequest", "etcd/kv.proto"),
            ("etcdserverpb.RangeRequest.sort_order", "etcd/kv.proto"),
            ("etcdserverpb.RangeRequest.SortOrder", "etcd/kv.proto"),
            ("etcdserverpb.RangeRequest.DESCEND", "etcd/kv.proto"),
            ("etcdserverpb.AlarmType", "etcd/maintenance.proto"),
            ("etcdserverpb.NOSPACE", "etcd/maintenance.proto"),
            ("mvccpb.Event.EventType", "etcd/mvccpb.proto"),
        ] {
            assert_eq!(name_of(files().defining(symbol)).as_deref(), Some(file), "{symbol}");
        }
        for symbol in ["", "etcdserverpb", "etcdserverpb.", ".etcdserverpb.KV", "etcdserverpb.KV.Frob"] {
            assert_eq!(files().defining(symbol), None, "{symbol}");
        }
        assert_eq!(name_of(files().named("etcd/kv.proto")).as_deref(), Some("etcd/kv.proto"));
        assert_eq!(files().named("kv.proto"), None);
    }
}
