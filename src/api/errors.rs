//! From our errors to the codes and texts of API reference, section 9.
//!
//! Owns: all of that mapping. Must never: invent a text where the reference has one: clients recognise errors by it, letter for
//! letter. Driven by every service.

use tonic::{Code, Status};

use super::turned_away::Reason;
use crate::auth::Excess;
use crate::command::Rejection;
use crate::limits::AUTH_NAME_BYTES_MAX;
use crate::mvcc::{InvalidRequest, ReadError};
use crate::runtime::{HoldError, ServeError};
use crate::snapshot::WriteError;
use crate::store::StoreError;
use crate::watch::Refusal;

/// How the refusal of a message begins that is longer than any may be; gRPC's words.
const TOO_LARGE: &str = "grpc: received message larger than max";
const JSON_TOO_LARGE: &str = "covey: the JSON of a request has more than";
const TOO_MUCH_ARRIVING: &str = "covey: too many large requests are arriving at once";

/// What is wrong with a request before anything is asked of the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadRequest {
    /// An empty key.
    #[error("key is not provided")]
    KeyNotProvided,
    /// `ignore_value` and a value.
    #[error("value is provided")]
    ValueProvided,
    /// `ignore_lease` and a lease.
    #[error("lease is provided")]
    LeaseProvided,
    /// A sort order or target that the API does not define.
    #[error("invalid sort option")]
    InvalidSortOption,
    /// An operation of a transaction that asks for nothing; etcd's text.
    #[error("key not found")]
    EmptyOperation,
    /// A time to live above the bound.
    #[error("too large lease TTL")]
    LeaseTtlTooLarge,
    /// What `mvcc` finds wrong with the request's shape.
    #[error(transparent)]
    Shape(#[from] InvalidRequest),
}

/// A status with etcd's prefix.
fn etcd(code: Code, text: &str) -> Status {
    Status::new(code, format!("etcdserver: {text}"))
}

impl From<BadRequest> for Status {
    fn from(error: BadRequest) -> Self {
        match error {
            BadRequest::Shape(error @ (InvalidRequest::StreamOrder | InvalidRequest::StreamFilter)) => {
                Status::unimplemented(error.to_string())
            }
            BadRequest::LeaseTtlTooLarge => etcd(Code::OutOfRange, &error.to_string()),
            BadRequest::KeyNotProvided
            | BadRequest::ValueProvided
            | BadRequest::LeaseProvided
            | BadRequest::InvalidSortOption
            | BadRequest::EmptyOperation
            | BadRequest::Shape(InvalidRequest::TooManyOperations | InvalidRequest::DuplicateKey) => {
                etcd(Code::InvalidArgument, &error.to_string())
            }
        }
    }
}

impl From<Rejection> for Status {
    fn from(error: Rejection) -> Self {
        match error {
            Rejection::KeyNotFound => etcd(Code::InvalidArgument, "key not found"),
            Rejection::LeaseNotFound => etcd(Code::NotFound, "requested lease not found"),
            Rejection::LeaseExists => etcd(Code::FailedPrecondition, "lease already exists"),
            Rejection::Compacted => etcd(Code::OutOfRange, "mvcc: required revision has been compacted"),
            Rejection::FutureRevision => {
                etcd(Code::OutOfRange, "mvcc: required revision is a future revision")
            }
            Rejection::NoSpace => etcd(Code::ResourceExhausted, "mvcc: database space exceeded"),
            Rejection::Corrupt => etcd(Code::DataLoss, "corrupt cluster"),
            Rejection::MemberNotFound => etcd(Code::NotFound, "member not found"),
            Rejection::PeerUrlExists => etcd(Code::FailedPrecondition, "Peer URLs already exists"),
            Rejection::TooManyLearners => {
                etcd(Code::FailedPrecondition, "too many learner members in cluster")
            }
            // etcd declares another code for this one, and sends Unknown.
            Rejection::NotEnoughStarted => {
                etcd(Code::Unknown, "re-configuration failed due to not enough started members")
            }
            Rejection::NotCapable => etcd(Code::FailedPrecondition, "not capable"),
            Rejection::NotLearner => etcd(Code::FailedPrecondition, "can only promote a learner member"),
            Rejection::UserExists
            | Rejection::UserNotFound
            | Rejection::RoleExists
            | Rejection::RoleNotFound
            | Rejection::RootUserMissing
            | Rejection::RootRoleMissing
            | Rejection::RoleNotGranted
            | Rejection::PermissionNotGranted => etcd(Code::FailedPrecondition, &error.to_string()),
            Rejection::UserNameEmpty
            | Rejection::RoleNameEmpty
            | Rejection::InvalidAuthManagement
            | Rejection::AuthRevisionOld => etcd(Code::InvalidArgument, &error.to_string()),
            Rejection::PermissionDenied => etcd(Code::PermissionDenied, &error.to_string()),
            // Only nodes that join can bring this about, and they are told by their own protocol.
            Rejection::PlaceTaken => Status::failed_precondition(format!("covey: {error}")),
            // etcd knows nothing of these.
            Rejection::Dissolved
            | Rejection::Committed
            | Rejection::Entangled
            | Rejection::NotAutomatic => {
                Status::failed_precondition(format!("covey: {error}"))
            }
            Rejection::Sealed | Rejection::NodeRemoved | Rejection::NotApproved | Rejection::TokenUsed => {
                Status::permission_denied(format!("covey: {error}"))
            }
            Rejection::TokenNotFound | Rejection::ClientNotFound => {
                Status::not_found(format!("covey: {error}"))
            }
            Rejection::TokenExists | Rejection::ClientExists | Rejection::AuthorityExists => {
                Status::already_exists(format!("covey: {error}"))
            }
            Rejection::TooLong | Rejection::TimeOutOfRange => {
                Status::invalid_argument(format!("covey: {error}"))
            }
            Rejection::TooManyTokens
            | Rejection::TooManyApprovals
            | Rejection::TooManyMembers
            | Rejection::TooManyClients
            // etcd keeps any number of these.
            | Rejection::AuthTooLarge
            | Rejection::TooManyAlarms => Status::resource_exhausted(format!("covey: {error}")),
        }
    }
}

impl From<Excess> for Status {
    /// etcd has no such bounds.
    fn from(error: Excess) -> Self {
        Status::invalid_argument(format!("covey: {error}"))
    }
}

impl From<ServeError> for Status {
    fn from(error: ServeError) -> Self {
        match error {
            // etcd declares another code for this one, and sends Unknown.
            ServeError::TooManyRequests => etcd(Code::Unknown, "too many requests"),
            ServeError::RequestTooLarge => etcd(Code::InvalidArgument, "request is too large"),
            ServeError::NoSpace => Rejection::NoSpace.into(),
            ServeError::NoLeader => no_leader(),
            ServeError::LeaderChanged => etcd(Code::Unavailable, "leader changed"),
            ServeError::TimedOut => etcd(Code::Unavailable, "request timed out"),
            ServeError::Stopped => stopped(),
        }
    }
}

impl From<StoreError> for Status {
    fn from(error: StoreError) -> Self {
        store_damaged(error)
    }
}

impl From<HoldError> for Status {
    fn from(error: HoldError) -> Self {
        match error {
            HoldError::Serve(error) => error.into(),
            HoldError::Lost => {
                Status::unavailable(format!("covey: {error}: compaction could not wait longer"))
            }
        }
    }
}

impl From<ReadError> for Status {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Rejected(error) => error.into(),
            ReadError::Store(error) => store_damaged(error),
        }
    }
}

/// A read that the store could not answer. Another member may be able to, but a client must not take it for an answer.
#[expect(clippy::needless_pass_by_value, reason = "for `map_err`")]
pub fn store_damaged(error: StoreError) -> Status {
    tracing::error!(%error, "the store could not answer a read");
    Status::data_loss(format!("the store of this member could not answer: {error}"))
}

/// The state is not what it says of itself.
pub fn image_incomplete(error: &WriteError) -> Status {
    tracing::error!(%error, "a snapshot could not be completed");
    Status::data_loss(format!("the store of this member could not answer: {error}"))
}

/// Why a watcher is not created, as its `cancel_reason` says it.
pub fn watch_refused(refusal: Refusal) -> String {
    let reason = match refusal {
        Refusal::DuplicateId => "mvcc: duplicate watch ID provided on the WatchStream",
        Refusal::EmptyRange => "mvcc: watcher range is empty",
        Refusal::NegativeStart => "etcdserver: mvcc: required revision has been compacted",
        Refusal::TooManyWatchers => "covey: too many watchers",
        Refusal::KeysTooLarge => "covey: the keys of all watchers are too large",
        Refusal::TooManyRequests => "etcdserver: too many requests",
        // As Go prints a status: clients look for these words.
        Refusal::NobodyAsks => "rpc error: code = InvalidArgument desc = etcdserver: user name is empty",
        Refusal::BadToken => "rpc error: code = Unauthenticated desc = etcdserver: invalid auth token",
        Refusal::OldRevision => {
            "rpc error: code = InvalidArgument desc = etcdserver: revision of auth store is old"
        }
        Refusal::NotPermitted => "rpc error: code = PermissionDenied desc = etcdserver: permission denied",
    };
    reason.to_owned()
}

/// The same, where it is not permitted.
pub fn watch_refusal(status: &Status) -> Refusal {
    match status.code() {
        Code::Unauthenticated => Refusal::BadToken,
        Code::InvalidArgument if status.message() == Status::from(Rejection::UserNameEmpty).message() => {
            Refusal::NobodyAsks
        }
        Code::InvalidArgument => Refusal::OldRevision,
        _ => Refusal::NotPermitted,
    }
}

/// This member knows no leader.
pub fn no_leader() -> Status {
    etcd(Code::Unavailable, "no leader")
}

/// What clients are sending all at once would not fit into memory.
pub fn too_much_arriving() -> Status {
    Status::resource_exhausted(TOO_MUCH_ARRIVING)
}

/// Whether a refusal means that what a client sends is too much, whatever it asks for.
pub fn turns_away(refusal: &Status) -> Option<Reason> {
    match (refusal.code(), refusal.message()) {
        (Code::ResourceExhausted, TOO_MUCH_ARRIVING) => Some(Reason::Unfinished),
        (Code::ResourceExhausted, text)
            if text.starts_with(TOO_LARGE) || text.starts_with(JSON_TOO_LARGE) =>
        {
            Some(Reason::TooLarge)
        }
        _ => None,
    }
}

/// This member waits for the state of its cluster, or for another one in the place of its own. Others may answer.
pub fn no_state() -> Status {
    Status::unavailable("covey: this member waits for its cluster's state")
}

/// A hand-over of leadership was asked of a member that does not lead.
pub fn not_leader() -> Status {
    etcd(Code::FailedPrecondition, "not leader")
}

/// Leadership cannot be handed to that member.
pub fn bad_leader_transferee() -> Status {
    etcd(Code::FailedPrecondition, "bad leader transferee")
}

/// The URLs of a member are none.
pub fn bad_member_urls() -> Status {
    etcd(Code::InvalidArgument, "given member URLs are invalid")
}

/// A change of the members could leave no majority of those who are reached.
pub fn unhealthy_cluster() -> Status {
    etcd(Code::Unavailable, "unhealthy cluster")
}

/// A learner lacks too much of the log to vote.
pub fn learner_not_in_sync() -> Status {
    etcd(Code::FailedPrecondition, "can only promote a learner member which is in sync with leader")
}

/// The other member has not taken over in time.
pub fn leader_transfer_timed_out() -> Status {
    etcd(Code::Unknown, "request timed out, leader transfer took too long")
}

/// An action that the method does not have.
pub fn unknown_action() -> Status {
    etcd(Code::Unknown, "unknown method")
}

/// The target of a downgrade is no version.
pub fn wrong_downgrade_format() -> Status {
    etcd(Code::InvalidArgument, "wrong downgrade target version format")
}

/// The target of a downgrade is not one that the cluster can be downgraded to.
pub fn invalid_downgrade_target() -> Status {
    etcd(Code::InvalidArgument, "invalid downgrade target version")
}

/// There is no downgrade to cancel.
pub fn no_inflight_downgrade() -> Status {
    etcd(Code::FailedPrecondition, "no inflight downgrade job")
}

/// A token that is none, or has ended.
pub fn invalid_auth_token() -> Status {
    etcd(Code::Unauthenticated, "invalid auth token")
}

/// There is no such user, or the password is another one.
pub fn auth_failed() -> Status {
    etcd(Code::InvalidArgument, "authentication failed, invalid user ID or password")
}

/// Nobody has to log in.
pub fn auth_not_enabled() -> Status {
    etcd(Code::FailedPrecondition, "authentication is not enabled")
}

/// The user has no password to log in with. etcd sends its inner text.
pub fn no_password_user() -> Status {
    Status::unknown("auth: authentication failed, password was given for no password user")
}

/// This member has no key to sign tokens with. etcd sends its inner text.
pub fn verify_only() -> Status {
    Status::unknown("auth: token signing attempted with verify-only key")
}

/// A password that is longer than bcrypt looks at. The text is that of Go's bcrypt, as etcd sends it.
pub fn password_too_long() -> Status {
    Status::unknown("bcrypt: password length exceeds 72 bytes")
}

/// The name of a user or a role is longer than is kept with everything that they ask for.
pub fn auth_name_too_long() -> Status {
    Status::invalid_argument(format!(
        "covey: the name of a user or a role must not be longer than {AUTH_NAME_BYTES_MAX} bytes"
    ))
}

/// What should be made of a password is not, or would take minutes to try.
pub fn no_password_hash() -> Status {
    Status::invalid_argument("covey: hashedPassword is no bcrypt hash in base64, or of too high a cost")
}

/// A permission is to be granted, and none is named.
pub fn permission_not_given() -> Status {
    etcd(Code::InvalidArgument, "permission not given")
}

/// The lease of whoever waited for a lock has ended, and its place with it.
pub fn session_expired() -> Status {
    Status::unknown("mutex: session is expired")
}

/// The name of a lock or an election is longer than is kept for whoever waits.
pub fn name_too_long() -> Status {
    Status::invalid_argument("covey: the name is too long")
}

/// Whoever speaks for an election has not won it, or has lost it again.
pub fn not_elected() -> Status {
    Status::unknown("election: not leader")
}

/// Nobody leads.
pub fn nobody_elected() -> Status {
    Status::unknown("election: no leader")
}

/// A request that has to name the leader that it speaks for does not.
pub fn leader_missing() -> Status {
    Status::unknown("\"leader\" field must be provided")
}

/// This member is shutting down.
pub fn stopped() -> Status {
    etcd(Code::Unavailable, "server stopped")
}

/// A write has taken effect, and what it returns is more than this member answers.
pub fn answer_too_large() -> Status {
    Status::resource_exhausted(
        "covey: the write took effect, but what it returns is too large to be answered",
    )
}

/// A request in an encoding that was never offered. gRPC's own text.
pub fn compressed(encoding: &http::HeaderValue) -> Status {
    let encoding = String::from_utf8_lossy(encoding.as_bytes());
    Status::unimplemented(format!("Content is compressed with `{encoding}` which isn't supported"))
}

/// The call's time is over. gRPC's own text: etcd's is never seen.
pub fn deadline_exceeded() -> Status {
    Status::deadline_exceeded("context deadline exceeded")
}

/// Learners answer next to nothing.
pub fn not_for_learners() -> Status {
    etcd(Code::FailedPrecondition, "rpc not supported for learner")
}

/// The client's `client-api-version` is no text.
pub fn invalid_client_version() -> Status {
    etcd(Code::InvalidArgument, "invalid client api version")
}

/// A `grpc-timeout` that is none. The code is the one that gRPC's Go server sends.
pub fn malformed_timeout() -> Status {
    Status::internal("malformed grpc-timeout")
}

/// A path that is not of the form `/service/method`.
pub fn malformed_method(path: &str) -> Status {
    Status::unimplemented(format!("malformed method name: {path:?}"))
}

/// What a client sent as JSON is none, or not what the method takes.
pub fn bad_json(why: &str) -> Status {
    Status::invalid_argument(format!("json: {why}"))
}

/// A gateway's caller has a certificate that names a user: it could be anybody's behind a proxy. etcd's words.
pub fn common_name_ignored() -> Status {
    Status::invalid_argument(
        "CommonName of client sending a request against gateway will be ignored and not used as expected",
    )
}

/// The JSON of one message is too large, or what it stands for is.
pub fn json_too_large(bytes_max: usize) -> Status {
    Status::resource_exhausted(format!("{JSON_TOO_LARGE} {bytes_max} bytes, or stands for more"))
}

/// A path that the JSON gateway does not have. Its own text, as is the next.
pub fn no_such_path() -> Status {
    Status::not_found("Not Found")
}

/// A path of the JSON gateway, asked for by another method than `POST`.
pub fn method_not_allowed() -> Status {
    Status::unimplemented("Method Not Allowed")
}

/// A `grpc-timeout` that is none, as the JSON gateway says it.
pub fn invalid_timeout(timeout: &http::HeaderValue) -> Status {
    Status::invalid_argument(format!("invalid grpc-timeout: {}", String::from_utf8_lossy(timeout.as_bytes())))
}

/// A service that is not offered.
pub fn unknown_service(service: &str) -> Status {
    Status::unimplemented(format!("unknown service {service}"))
}

/// A method that its service does not have.
///
/// The one answer of every RPC that the API defines and this server does not offer: exactly what a server that has never heard of
/// it says, so that clients fall back as they do with an old server.
pub fn unknown_method(service: &str, method: &str) -> Status {
    Status::unimplemented(format!("unknown method {method} for service {service}"))
}

/// Says what etcd says where tonic or hyper has refused a call by itself.
///
/// | what | theirs | etcd's |
/// | --- | --- | --- |
/// | a message above the limit | OutOfRange and a text of tonic's | ResourceExhausted, with Go's text |
/// | a method that a service does not have | Unimplemented without text | with [`unknown_method`]'s |
pub fn translate(status: &Status, service: &str, method: &str) -> Option<Status> {
    match status.code() {
        Code::Unimplemented if status.message().is_empty() => Some(unknown_method(service, method)),
        Code::OutOfRange => {
            let numbers = status.message().strip_prefix("Error, decoded message length too large: found ")?;
            let (found, limit) = numbers.split_once(" bytes, the limit is: ")?;
            let limit = limit.strip_suffix(" bytes")?;
            Some(Status::resource_exhausted(format!("{TOO_LARGE} ({found} vs. {limit})")))
        }
        _ => None,
    }
}

#[cfg(test)]
#[path = "errors_test.rs"]
mod tests;
