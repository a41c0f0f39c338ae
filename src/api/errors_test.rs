//! Codes and texts of errors against the API reference.

use super::*;

fn is(status: impl Into<Status>, code: Code, text: &str) {
    let status = status.into();
    assert_eq!((status.code(), status.message()), (code, text));
}

/// API reference, section 9: the rows that this server can answer with.
#[test]
fn codes_and_texts_are_the_references() {
    use Code::{
        AlreadyExists, DataLoss, FailedPrecondition, InvalidArgument, NotFound, OutOfRange, PermissionDenied,
        ResourceExhausted, Unavailable, Unknown,
    };
    is(BadRequest::KeyNotProvided, InvalidArgument, "etcdserver: key is not provided");
    is(BadRequest::ValueProvided, InvalidArgument, "etcdserver: value is provided");
    is(BadRequest::LeaseProvided, InvalidArgument, "etcdserver: lease is provided");
    is(BadRequest::InvalidSortOption, InvalidArgument, "etcdserver: invalid sort option");
    is(BadRequest::EmptyOperation, InvalidArgument, "etcdserver: key not found");
    is(
        BadRequest::Shape(InvalidRequest::TooManyOperations),
        InvalidArgument,
        "etcdserver: too many operations in txn request",
    );
    is(
        BadRequest::Shape(InvalidRequest::DuplicateKey),
        InvalidArgument,
        "etcdserver: duplicate key given in txn request",
    );
    is(Rejection::KeyNotFound, InvalidArgument, "etcdserver: key not found");
    is(Rejection::LeaseNotFound, NotFound, "etcdserver: requested lease not found");
    is(Rejection::Compacted, OutOfRange, "etcdserver: mvcc: required revision has been compacted");
    is(Rejection::FutureRevision, OutOfRange, "etcdserver: mvcc: required revision is a future revision");
    is(Rejection::NoSpace, ResourceExhausted, "etcdserver: mvcc: database space exceeded");
    is(Rejection::Corrupt, DataLoss, "etcdserver: corrupt cluster");
    is(Rejection::Dissolved, FailedPrecondition, "covey: the cluster has dissolved into another one");
    is(
        Rejection::Sealed,
        PermissionDenied,
        "covey: the cluster is sealed: nodes come in by a token or an approval",
    );
    is(Rejection::TokenNotFound, NotFound, "covey: there is no such token, or it has expired");
    is(Rejection::ClientExists, AlreadyExists, "covey: the key belongs to another client");
    is(Rejection::TimeOutOfRange, InvalidArgument, "covey: the time is too short or too long");
    is(Rejection::TooManyTokens, ResourceExhausted, "covey: there are too many tokens");
    is(ServeError::TooManyRequests, Unknown, "etcdserver: too many requests");
    is(ServeError::RequestTooLarge, InvalidArgument, "etcdserver: request is too large");
    is(ServeError::NoSpace, ResourceExhausted, "etcdserver: mvcc: database space exceeded");
    is(ServeError::NoLeader, Unavailable, "etcdserver: no leader");
    is(ServeError::LeaderChanged, Unavailable, "etcdserver: leader changed");
    is(ServeError::TimedOut, Unavailable, "etcdserver: request timed out");
    is(ServeError::Stopped, Unavailable, "etcdserver: server stopped");
    is(not_for_learners(), Code::FailedPrecondition, "etcdserver: rpc not supported for learner");
    is(invalid_client_version(), InvalidArgument, "etcdserver: invalid client api version");
}

#[test]
fn a_store_that_cannot_answer_is_no_answer() {
    let error = ReadError::Store(StoreError::Io(std::io::Error::other("bad sector")));
    let status = Status::from(error);
    assert_eq!(status.code(), Code::DataLoss);
    assert!(status.message().contains("bad sector"), "{}", status.message());
    // Only the texts of the reference carry etcd's prefix: clients look at it.
    assert!(!status.message().starts_with("etcdserver: "));
}

#[test]
fn only_tonics_own_refusals_are_translated() {
    let translated = |status| translate(&status, "pkg.Service", "Method");
    let large = "Error, decoded message length too large: found 3000000 bytes, the limit is: 2097152 bytes";
    is(
        translated(Status::out_of_range(large)).unwrap(),
        Code::ResourceExhausted,
        "grpc: received message larger than max (3000000 vs. 2097152)",
    );
    is(
        translated(Status::unimplemented("")).unwrap(),
        Code::Unimplemented,
        "unknown method Method for service pkg.Service",
    );
    assert!(translated(Rejection::Compacted.into()).is_none());
    assert!(translated(unknown_service("other")).is_none());
    assert!(translated(Status::internal(large)).is_none());
}
