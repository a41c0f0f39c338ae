//! gRPC's reflection service, as its clients know it.

use std::sync::Arc;

use bytes::{Buf as _, Bytes};
use covey::api::methods;
use covey::telemetry::metrics::Metrics;
use covey::wire::FILE_DESCRIPTOR_SET;
use http_body_util::{BodyExt as _, Full};
use prost::Message as _;
use tonic::{Code, Status};

use crate::auth::Land;
use crate::harness::{Channel, Server, Setup, run};

const SERVICES: [&str; 2] =
    ["grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection"];

/// What can be asked for, by the numbers in gRPC's `reflection.proto`.
const FILE_BY_NAME: u8 = 3;
const FILE_OF_SYMBOL: u8 = 4;
const FILE_OF_EXTENSION: u8 = 5;
const EXTENSIONS_OF: u8 = 6;
const LIST_SERVICES: u8 = 7;

#[derive(Clone, PartialEq, prost::Message)]
struct Answer {
    #[prost(string, tag = "1")]
    host: String,
    /// The question.
    #[prost(bytes = "bytes", tag = "2")]
    question: Bytes,
    #[prost(message, optional, tag = "4")]
    files: Option<Files>,
    #[prost(message, optional, tag = "5")]
    extensions: Option<Extensions>,
    #[prost(message, optional, tag = "6")]
    services: Option<Services>,
    #[prost(message, optional, tag = "7")]
    error: Option<Refusal>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Files {
    #[prost(bytes = "bytes", repeated, tag = "1")]
    descriptors: Vec<Bytes>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Extensions {
    #[prost(string, tag = "1")]
    of: String,
    #[prost(int32, repeated, tag = "2")]
    numbers: Vec<i32>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Services {
    #[prost(message, repeated, tag = "1")]
    services: Vec<Service>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Service {
    #[prost(string, tag = "1")]
    name: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Refusal {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
}

fn question(number: u8, text: &str) -> Vec<u8> {
    let length = u8::try_from(text.len()).unwrap();
    [&b"\x0a\x04here"[..], &[(number << 3) | 2, length], text.as_bytes()].concat()
}

/// Asks all of these on one stream: the answers, and how it ended.
async fn ask(channel: &Channel, service: &str, questions: &[Vec<u8>]) -> (Vec<Answer>, Code) {
    let framed = questions.iter().map(|question| {
        let length = u32::try_from(question.len()).unwrap().to_be_bytes();
        [&[0][..], &length, question].concat()
    });
    let body = tonic::body::Body::new(Full::from(framed.collect::<Vec<_>>().concat()));
    let uri = format!("http://localhost/{service}/ServerReflectionInfo");
    let request = http::Request::post(uri).header("content-type", "application/grpc").body(body).unwrap();
    let response = channel.send(request).await.unwrap();
    let in_front = Status::from_header_map(response.headers());
    let body = response.into_body().collect().await.unwrap();
    let status = in_front.or_else(|| Status::from_header_map(body.trailers()?)).unwrap();
    let (mut rest, mut answers) = (body.to_bytes(), Vec::new());
    while !rest.is_empty() {
        assert_eq!(rest.get_u8(), 0);
        let length = rest.get_u32() as usize;
        answers.push(Answer::decode(rest.split_to(length)).unwrap());
    }
    (answers, status.code())
}

fn offering() -> Setup {
    Setup { metrics: Arc::new(Metrics::new(methods(true))), ..Setup::default() }
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

#[test]
fn services_and_files_are_told_in_both_versions() {
    run(async {
        // By a member without a state, too, and by one that learns.
        for setup in [Setup { joins: true, ..offering() }, Setup { learns: true, ..offering() }] {
            let server = Server::with(setup).await;
            let channel = server.channel().await;
            for service in SERVICES {
                let questions = [
                    question(LIST_SERVICES, ""),
                    question(FILE_OF_SYMBOL, "etcdserverpb.KV.Put"),
                    question(FILE_BY_NAME, "etcd/kv.proto"),
                    question(EXTENSIONS_OF, "etcdserverpb.PutRequest"),
                ];
                let (answers, code) = ask(&channel, service, &questions).await;
                assert_eq!(code, Code::Ok);
                let [list, by_symbol, by_name, extensions] = answers.try_into().unwrap();
                let names = list.services.unwrap().services;
                let names: Vec<_> = names.iter().map(|service| service.name.as_str()).collect();
                let expected = "covey.v1.Admin etcdserverpb.Auth etcdserverpb.Cluster etcdserverpb.KV \
                                etcdserverpb.Lease etcdserverpb.Maintenance etcdserverpb.Watch \
                                grpc.health.v1.Health v3electionpb.Election v3lockpb.Lock";
                assert_eq!(names.join(" "), expected);
                assert_eq!(by_symbol.host, "here");
                assert_eq!(by_symbol.question, question(FILE_OF_SYMBOL, "etcdserverpb.KV.Put"));
                let [file] = by_symbol.files.unwrap().descriptors.try_into().unwrap();
                assert!(contains(&file, b"ignore_value"));
                assert!(contains(FILE_DESCRIPTOR_SET, &file), "it is passed on as it is");
                assert_eq!(by_name.files.unwrap().descriptors, [file]);
                let none = Extensions { of: "etcdserverpb.PutRequest".into(), numbers: Vec::new() };
                assert_eq!(extensions.extensions, Some(none));
            }
        }
    });
}

/// The stream goes on after each of them.
#[test]
fn what_is_not_there_is_told_in_an_answer() {
    run(async {
        let server = Server::with(offering()).await;
        let channel = server.channel().await;
        let cases = [
            (question(FILE_BY_NAME, "nothing.proto"), Code::NotFound, "no such file"),
            (question(FILE_OF_SYMBOL, "etcdserverpb.Nothing"), Code::NotFound, "no such symbol"),
            (question(FILE_OF_SYMBOL, SERVICES[0]), Code::NotFound, "no such symbol"),
            (question(FILE_OF_EXTENSION, "\x0a\x01x"), Code::NotFound, "no such extension"),
            (question(EXTENSIONS_OF, "etcdserverpb.Nothing"), Code::NotFound, "no such type"),
            (Vec::new(), Code::InvalidArgument, "nothing is asked for"),
        ];
        let questions = cases.clone().map(|(question, ..)| question);
        let (answers, code) = ask(&channel, SERVICES[0], &questions).await;
        assert_eq!((answers.len(), code), (cases.len(), Code::Ok));
        for (answer, (_, code, text)) in answers.into_iter().zip(cases) {
            assert_eq!(answer.error, Some(Refusal { code: code as i32, message: text.into() }));
        }
        let long = [question(LIST_SERVICES, "").as_slice(), &[0x1a, 0x80, 0x20], &[b'n'; 4096]].concat();
        let (answers, code) = ask(&channel, SERVICES[0], &[question(LIST_SERVICES, ""), long]).await;
        assert_eq!((answers.len(), code), (1, Code::ResourceExhausted));
    });
}

/// It tells nothing that a user has made, and nobody has to be one to ask.
#[test]
fn nobody_has_to_log_in_to_ask() {
    run(async {
        let mut setup = offering();
        setup.options.logins.bcrypt_cost = 4;
        let land = Land::with(setup).await;
        let (answers, code) =
            ask(&land.server.channel().await, SERVICES[0], &[question(LIST_SERVICES, "")]).await;
        assert_eq!((answers.len(), code), (1, Code::Ok));
    });
}

#[test]
fn without_the_setting_there_is_no_such_service() {
    run(async {
        let server = Server::start().await;
        let channel = server.channel().await;
        for service in SERVICES {
            let (answers, code) = ask(&channel, service, &[question(LIST_SERVICES, "")]).await;
            assert_eq!((answers, code), (Vec::new(), Code::Unimplemented));
        }
    });
}

/// Streams end with the server, and do not keep it.
#[test]
fn a_stream_ends_with_the_server() {
    run(async {
        let server = Server::with(offering()).await;
        let channel = server.channel().await;
        let endless = crate::harness::Endless(Some(Bytes::from_static(&[0, 0, 0, 0, 2, 0x3a, 0])));
        let uri = format!("http://localhost/{}/ServerReflectionInfo", SERVICES[0]);
        let request = http::Request::post(uri).header("content-type", "application/grpc");
        let request = request.body(tonic::body::Body::new(endless)).unwrap();
        let mut body = channel.send(request).await.unwrap().into_body();
        assert!(body.frame().await.unwrap().unwrap().is_data());
        server.stop.announce();
        let end = body.frame().await.unwrap().unwrap().into_trailers().unwrap();
        let status = Status::from_header_map(&end).unwrap();
        assert_eq!((status.code(), status.message()), (Code::Unavailable, "etcdserver: server stopped"));
        server.idle().await;
    });
}
