//! The client API: gRPC and a little HTTP, on one port.
//!
//! Owns: everything between a client's bytes and the node's `Handle`. Must never: let a protobuf type further in, decide what the node
//! must decide, or import `tls` or `peer`. Built and driven by `app`.
//!
//! ```text
//! server      accept, bound, greet: TLS or not, HTTP/2 or not
//!  io pings   the socket        calls      the streams of a connection and their deadlines
//!  windows    what may be sent unread          turned_away  what the log says of clients that are too many or too much
//! dispatch    origin, metadata, deadline, path
//!  http       /version /metrics                browser    which web pages may call
//!   probes    /health /livez /readyz
//!  page       the status page
//!  gateway    JSON as calls                   schema     what messages look like
//!  gate       what each method takes of its caller
//!  kv watch lease cluster maintenance auth lock election health  the services
//!  admin      the operator's own                reflection what there is to call
//!   verdict    whether all is well                status_json  the same and all else, as JSON
//!   hashes      hashes of everything, one at a time    snapshot_stream    the state in blobs
//!   contest    who of several owns a name
//!   parse     wire → commands   render     results → wire   errors     errors → codes and texts
//!   node      reads                           answers    what answers may take of the memory
//!   logins    who calls, and proposals        credentials  passwords, tokens, names in certificates
//! ```
//!
//! Before there is a cluster, `waiting` has the port.
//!
//! A connection is one task with all its calls (see `calls`), so whoever drops that task has dropped everything.

mod admin;
mod answers;
mod auth;
mod authority;
mod body;
mod browser;
mod calls;
mod cluster;
mod contest;
mod counters;
mod credentials;
mod dispatch;
mod election;
mod errors;
mod frames;
mod gate;
mod gateway;
mod hashes;
mod health;
mod http;
mod io;
mod kv;
mod lease;
mod lock;
mod logins;
mod maintenance;
mod node;
mod page;
mod parse;
mod pings;
mod probes;
mod range_stream;
mod record;
mod reflection;
mod render;
mod schema;
mod server;
mod snapshot_stream;
mod status_json;
mod stop;
pub(crate) mod timer;
mod turned_away;
pub mod verdict;
pub mod version;
mod waiting;
mod watch;
mod watch_codec;
mod watch_permits;
mod windows;
mod yielding;

pub use crate::node::PendingNode;
pub use admin::{
    AllPending, AskedAround, AskedLately, BackupsMade, ClusterBeside, ComesIn, DiskWritten, GivingUp, Host,
    IssuedClient, SeenNode,
};
pub use answers::Answers;
pub use browser::BrowserPolicy;
pub use cluster::MemberRules;
pub use counters::Counters;
pub use credentials::{
    BCRYPT_COST, BCRYPT_COST_MAX, BCRYPT_COST_MIN, JWT_TTL, Jwt, JwtOptions, KeyError, LoginOptions,
    SIMPLE_TTL, SignMethod, TokenKind,
};
pub use gateway::json_there_and_back;
pub use record::methods;
pub use render::alarm_name;
pub use server::{Admit, Api, ApiOptions, Listener, MetricsText, Plaintext, Serves, Stay, Task, TlsSource};
pub use status_json::{pending_json, status_as_json};
pub use stop::{Stop, Stopping};
pub use waiting::{AroundNode, Waiting, WaitingNode};
pub use watch_codec::encode_events;
pub use yielding::YieldRefusal;
