//! Every bound of the product in one place, with the relations between them asserted at compile time.
//!
//! Owns: the numbers. Must never: read configuration (settings that replace a default live in `config`, and
//! are checked there against the bounds here). Read by every room.

use std::time::Duration;

/// Default of `--max-request-bytes`: the largest proposal, in bytes as encoded (etcd's default).
pub const REQUEST_BYTES: usize = 1_572_864;
/// The largest value that `--max-request-bytes` may be set to; a proposal must fit one WAL batch.
pub const REQUEST_BYTES_MAX: usize = 8 * 1024 * 1024;
/// What a gRPC message may exceed `--max-request-bytes` by before it is refused unread (etcd's slack).
pub const GRPC_OVERHEAD_BYTES: usize = 512 * 1024;
/// Default of `--max-txn-ops` (etcd's default).
pub const TXN_OPS: usize = 128;
/// How deep transactions may nest; bounds the recursion of validation, encoding and apply. prost reads 100 nested messages, and a nested
/// transaction is two.
pub const TXN_DEPTH_MAX: usize = 40;

/// Default of `--quota-backend-bytes` (etcd's default).
pub const QUOTA_BYTES: u64 = 2 * 1024 * 1024 * 1024;
/// What a put costs against the quota beyond its key and value, in bytes.
pub const PUT_OVERHEAD_BYTES: u64 = 256;
/// What a lease costs against the quota, in bytes (etcd's number).
pub const LEASE_BYTES: u64 = 64;
/// The NOSPACE alarm is lifted once bytes in use fall below this share of the quota, in percent.
pub const QUOTA_CLEAR_PERCENT: u64 = 95;
/// Alarms of one kind that may be raised: any client can raise one for any id.
pub const ALARMS_MAX: usize = 256;
/// What users, roles and permissions may take in bytes: they are all in memory, and copied at each change.
pub const AUTH_BYTES_MAX: usize = 1024 * 1024;
/// The longest name of a user or a role, in bytes: whose an entry is stands in each.
pub const AUTH_NAME_BYTES_MAX: usize = 256;
/// Roles of one user: each is looked at for every request. A change that is in the log counts, whatever it makes of this or of the next bound.
pub const USER_ROLES_MAX: usize = 256;
/// Permissions of one role: each change of the role goes over all of them, as does what is done with a lease that has keys in so many places.
pub const ROLE_PERMISSIONS_MAX: usize = 4096;

/// A peer URL is no longer than this: a DNS name and what comes around it.
pub const PEER_URL_BYTES_MAX: usize = 512;
/// Removed members whose keys are remembered, to tell them what happened.
pub const REMOVED_MEMBERS_MAX: usize = 64;
/// What a node is called is no longer than this: a DNS name.
pub const NODE_NAME_BYTES_MAX: usize = 255;
/// URLs that a node names when it comes in: more addresses than any box has.
pub const NODE_URLS_MAX: usize = 16;
/// How long a member is waited for that was let in by nobody's word and has not come, in seconds of running time; then it may be forgotten. Longer than a box
/// takes that was switched off while it was set up; how long the cluster has run is known up to [`OVERLAP_INTERVAL_SECONDS`].
pub const AWAITED_SECONDS: u64 = 60 * 60;
/// Members of a cluster that nodes may come to be by themselves: each is sent all of the log.
pub const ADMITTED_MEMBERS_MAX: usize = 128;
/// How long a cluster that formed by itself lets in whoever is on the LAN, in seconds of its running time; who comes in keeps that up for as long again.
pub const FOUNDING_WINDOW_SECONDS: u64 = 30 * 60;
/// How long it does at most, whoever comes in.
pub const FOUNDING_WINDOW_SECONDS_MAX: u64 = 60 * 60;
/// The shortest time that an operator may give a window or a token, in seconds of running time: it is counted in minutes.
pub const ADMISSION_SECONDS_MIN: u64 = 60;
/// The longest that an operator may open the window for: it is to be closed again.
pub const WINDOW_SECONDS_MAX: u64 = 24 * 60 * 60;
/// The longest that a token may be good for.
pub const TOKEN_SECONDS_MAX: u64 = 30 * 24 * 60 * 60;
/// Nodes that wait for an operator to let them in, of those that have asked last.
pub const PENDING_NODES_MAX: usize = 64;
/// The same of all members together, as one answer names them: an operator reads them one by one. How many it leaves out it says.
pub const PENDING_NODES_SHOWN_MAX: usize = 256;
/// Clients on this machine, and as many from elsewhere, for which all members are being asked at a time who waits there. Each has as many questions as there are
/// members wait for an answer, among those that other clients depend on, and as many answers in memory, of 90 KB at most.
pub const PENDING_ROUNDS_MAX: usize = 2;
/// How often the leader has the running time noted while something ends by it: its end costs as much at most, ...
pub const ELAPSED_INTERVAL_SECONDS: u64 = 60;
/// ... and so much at first, then as long as it has led: where leaders change all the time, the window closes all the same.
pub const ELAPSED_INTERVAL_SECONDS_MIN: u64 = 5;
/// How long a node that founded a cluster alone, since it found nobody, holds the first write of a user at most: whoever comes late by that much joins it, and
/// writes are not lost with a cluster that gives itself up.
pub const COMMIT_AFTER: Duration = Duration::from_secs(45);
/// For how long after its end a token is still kept that a node has come in with and has not come yet, in seconds of running time: it asks once more, by the
/// token alone, if it has lost what it was told.
pub const TOKEN_KEPT_SECONDS: u64 = TOKEN_SECONDS_MAX;
/// Tokens that are kept.
pub const TOKENS_MAX: usize = 64;
/// Words of members of former clusters that are kept for those that were away; one takes 120 bytes.
pub const TOMBSTONES_MAX: usize = 64;
/// Of a cluster with no more members, and places for such, all leave such a word, also those that only learn: the words of a few such clusters have room beside
/// one another.
pub const TOMBSTONE_SIGNERS_MAX: usize = 16;
/// Approved fingerprints whose nodes have not come in yet.
pub const APPROVALS_MAX: usize = 256;
/// Clients with a certificate of the cluster's.
pub const CLIENTS_MAX: usize = 4096;
/// What a client is called is no longer than this: the longest common name in a certificate.
pub const CLIENT_NAME_BYTES_MAX: usize = 64;
/// The authority's certificate, and its key, are no longer than this.
pub const AUTHORITY_BYTES_MAX: usize = 8 * 1024;
/// For how long servers show those who trust an authority that was replaced the way to its successor, in seconds of running time: by then operators have
/// renewed what they have given to clients.
pub const AUTHORITY_OVERLAP_SECONDS: u64 = 30 * 24 * 60 * 60;
/// Authorities that may be on their way out at a time: each adds a certificate to the servers' chains, and many clients read no longer ones (rustls
/// six beside the server's own, Java five). The next one waits for the first of them to end.
pub const AUTHORITY_BRIDGES_MAX: usize = 4;
/// How often the leader has the running time noted while nothing ends by it but the trust in an authority that was replaced.
pub const OVERLAP_INTERVAL_SECONDS: u64 = 15 * 60;
/// Default of `--max-learners` (etcd's default).
pub const LEARNERS: u64 = 1;
/// Size of a WAL segment in bytes.
pub const WAL_SEGMENT_BYTES: u64 = 2 * 1024 * 1024;
/// Bytes of proposals that one WAL batch collects before it is closed; one proposal above it goes alone.
pub const WAL_BATCH_BYTES: usize = 1024 * 1024;
/// Below this much room on the disk puts are refused, in bytes: what is on its way by then, two generations with their pages and the log beside them, still fits.
pub const DISK_LOW_BYTES: u64 = 16 * 1024 * 1024;
/// What is set aside on the disk for a time when there is no other room, in bytes: deletions and compactions need log and pages, too.
pub const DISK_RESERVE_BYTES: u64 = 32 * 1024 * 1024;
/// The store writes nothing where there is less room than this, in bytes: a fold that fails half way would end the node.
pub const FOLD_ROOM_BYTES: u64 = 2 * OVERLAY_BYTES as u64;
/// How often is looked whether the data directory is still where it was: what is acknowledged in between may be lost with it.
pub const DIRECTORY_LOOK: Duration = Duration::from_secs(5);
/// So many such looks that fail in a row are as bad as one that finds nothing there: a minute's.
pub const DIRECTORY_LOOKS_FAILED_MAX: u32 = 12;
/// A sync that takes this long is told of in the log: the disk is failing, or too slow for what is asked of it.
pub const SLOW_SYNC: Duration = Duration::from_secs(1);
/// A disk that answers nothing for so long is stuck: a leader lets another member lead then, that can do without. All syncs that one batch may have to wait
/// for (those of a piece of work ahead, of a new segment, its own) are seven: with two seconds for each a disk is slow, and no more.
pub const DISK_STUCK: Duration = Duration::from_secs(20);
/// The active generation of the overlay is frozen and folded into the store at this many bytes.
pub const OVERLAY_BYTES: usize = 4 * 1024 * 1024;
/// A dirty overlay is folded after this much quiet, so that a restart has little to replay.
pub const OVERLAY_IDLE: Duration = Duration::from_secs(300);
/// Default page cache of the store in bytes. A fold is written in stages of a third of it, so it need not hold a whole fold; twice as
/// much saves 1 % of the bytes written and costs 9 MB of memory.
pub const STORE_CACHE_BYTES: usize = 8 * 1024 * 1024;
/// Bytes of applied log entries that stay in memory for followers.
pub const LOG_CACHE_BYTES: usize = 4 * 1024 * 1024;

/// Bytes of applied log entries that stay in memory while a follower is about to install a snapshot that they follow.
pub const LOG_OFFERED_BYTES_MAX: usize = 4 * LOG_CACHE_BYTES;

/// Proposals that may wait for consensus; one more is refused with "too many requests" (etcd's gap).
pub const PROPOSALS_PENDING_MAX: usize = 5000;
/// Where so many wait, what nobody waits for is proposed once and its outcome is not heeded.
pub const PROPOSALS_HEEDED_MAX: usize = PROPOSALS_PENDING_MAX / 2;
/// Bytes of proposals that may wait for consensus.
pub const PROPOSALS_PENDING_BYTES_MAX: usize = 32 * 1024 * 1024;
/// Bytes of requests that may be under way from clients and not be complete yet, on all connections together.
pub const REQUESTS_ARRIVING_BYTES_MAX: usize = 64 * 1024 * 1024;
/// The largest window of an HTTP/2 connection: what its client may send before anything of it is read, in bytes.
pub const WINDOW_BYTES_MAX: u32 = 4 * 1024 * 1024;
/// The smallest one, which HTTP/2 gives to everybody (RFC 9113, section 6.9.2).
pub const WINDOW_BYTES_MIN: u32 = 65_535;
/// The largest window of one stream, in bytes.
pub const STREAM_WINDOW_BYTES_MAX: u32 = 1024 * 1024;
/// What windows may come to beyond the smallest ones, on all connections together, in bytes; less where memory is scarce.
pub const WINDOWS_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Default bound on open connections: at some 28 KB for one with an idle stream, 56 MB when all of them are taken.
pub const CONNECTIONS: usize = 2048;
/// What clients may have sent that nobody has read, on all connections together, in bytes: the bound that follows from the others.
pub const UNREAD_BYTES_MAX: usize = CONNECTIONS * WINDOW_BYTES_MIN as usize + WINDOWS_BYTES_MAX;
/// Calls at a time on all connections together, where there is memory for so many: see `app::resources`.
pub const CALLS: usize = 1 << 18;
/// Default of `--max-concurrent-streams`: calls at a time on one connection; a client that meets the bound waits. Kubernetes has thousands of
/// watches on one. (etcd's default is no bound.)
pub const STREAMS_PER_CONNECTION: u32 = 8192;
/// Default of `--grpc-keepalive-min-time` (etcd's default).
pub const KEEPALIVE_MIN_TIME: Duration = Duration::from_secs(5);
/// Default of `--grpc-keepalive-interval` (etcd's default).
pub const KEEPALIVE_INTERVAL: Duration = Duration::from_hours(2);
/// Default of `--grpc-keepalive-timeout` (etcd's default).
pub const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(20);
/// Bytes of answers that are being read or that clients have not taken, on all connections together: where memory is plenty, and however
/// little there is. `app` chooses in between.
pub const ANSWERS_BYTES_MAX: usize = 256 * 1024 * 1024;
/// See [`ANSWERS_BYTES_MAX`].
pub const ANSWERS_BYTES_MIN: usize = 8 * 1024 * 1024;
/// What a range or transaction reserves for its answer at first. One that needs more gives that back, and reserves so many times as much.
pub const ANSWER_FIRST_BYTES: usize = 512 * 1024;
/// See [`ANSWER_FIRST_BYTES`].
pub const ANSWER_GROWTH: usize = 8;
/// One answer reserves at most one part in so many of what there is for all.
pub const ANSWER_SHARE: usize = 2;
/// What a write reserves that may return more than single keys, and what is read for its answer at most: one part in so many of what there is
/// for all. What it returns is known only once it has happened.
pub const ANSWER_WRITE_SHARE: usize = 4;
/// What an answer that was not taken costs beyond its bytes.
pub const ANSWER_OVERHEAD_BYTES: usize = 512;
/// Bytes of an answer that are handed to the connection at a time. That such a piece was taken is how a slow client is told from one that
/// takes nothing.
pub const ANSWER_PIECE_BYTES: usize = 64 * 1024;
/// How long a client may take nothing of what it was answered before it is disconnected.
pub const ANSWER_PATIENCE: Duration = Duration::from_secs(60);
/// Linearizable reads that may wait for their read index.
pub const READS_PENDING_MAX: usize = 20_000;
/// Committed bytes that may wait for the applier before new proposals are held back.
pub const UNAPPLIED_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Bytes of entries that may wait for a member's own disk before it takes no more; the leader of others that are faster would fill its memory.
pub const UNSYNCED_BYTES_MAX: usize = 16 * 1024 * 1024;
/// How long a leader lets proposals come together while its disk syncs, at most. Longer than a sync takes on a flash card in good health; a disk that
/// takes longer must not hold up members with faster ones.
pub const GATHERING_MAX: Duration = Duration::from_millis(50);

/// Bytes of changes in one piece of a state that is sent to another member; a single larger change goes alone.
pub const TRANSFER_PIECE_BYTES: usize = 256 * 1024;

/// Keys that a reader copies out of the overlay under one lock.
pub const OVERLAY_READ_CHUNK: usize = 256;
/// Keys that a client's read looks at before other reads get their turn on the thread.
pub const READ_PORTION_KEYS: usize = 2048;
/// Bytes of keys and values that a client's read fetches before other reads get their turn on the thread.
pub const READ_PORTION_BYTES: usize = 1024 * 1024;
/// Versions that one slice of physical compaction removes (etcd's default batch).
pub const COMPACTION_SLICE: usize = 1000;
/// The pause between two slices of physical compaction (etcd's default).
pub const COMPACTION_PAUSE: Duration = Duration::from_millis(10);

/// How long removal of compacted versions may be held back by those who read the whole state (snapshots, hashes).
pub const HOLD_MAX: Duration = Duration::from_hours(1);
/// Snapshots that clients may take at the same time.
pub const SNAPSHOTS_MAX: usize = 4;
/// How long one who reads the whole state may take for a slice before removal goes on without it.
pub const HOLD_IDLE_MAX: Duration = Duration::from_secs(60);
/// Bytes of changes, as the quota counts them, that one slice of a hash over the whole state reads.
pub const HASH_SLICE_BYTES: u64 = 1024 * 1024;

/// Responses that may wait in a stream of watchers before its watchers wait instead (etcd's number).
pub const WATCH_STREAM_RESPONSES_MAX: usize = 128;
/// Bytes of responses that may wait in a stream of watchers; one response may exceed it.
pub const WATCH_STREAM_BYTES_MAX: usize = 2 * 1024 * 1024;
/// Bytes of events that may wait in all streams together; above it, a stream has at most one response waiting, and above twice as much only
/// a small one.
pub const WATCH_QUEUED_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Requests of one stream that may wait for the hub.
pub const WATCH_REQUESTS_WAITING_MAX: usize = 256;
/// Bytes of requests of one stream that may wait for the hub; the last one may exceed it.
pub const WATCH_REQUESTS_WAITING_BYTES_MAX: usize = 64 * 1024;
/// Bytes of requests of all streams that may wait for the hub: a watcher that finds no room is refused.
pub const WATCH_REQUESTS_WAITING_ALL_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Bytes of the keys of all watchers of one member; those with the same interval have it in common.
pub const WATCH_KEYS_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Watchers of one member, of all clients together: some 300 MB.
pub const WATCHERS_MAX: usize = 1_000_000;
/// Revisions that one response brings to a watcher (etcd's number).
pub const WATCH_SLICE_REVISIONS: usize = 1000;
/// Changes that are looked through for watchers in one go.
pub const WATCH_SLICE_ROWS: usize = 4096;
/// Watchers that are brought forward in one go.
pub const WATCH_SLICE_WATCHERS: usize = 4096;
/// Events of one revision that are worth encoding before it is whole.
pub const WATCH_LONG_EVENTS: usize = 1024;
/// Bytes of events that are made in one go; a single revision may exceed it.
pub const WATCH_SLICE_BYTES: usize = 512 * 1024;
/// The same while memory for events is scarce.
pub const WATCH_SCARCE_SLICE_BYTES: usize = 32 * 1024;
/// What still goes to a stream while there is no memory for events, in bytes as they count.
pub const WATCH_SMALL_BATCH_BYTES: usize = 16 * 1024;
/// Default of `--watch-progress-notify-interval` (etcd's default).
pub const WATCH_PROGRESS_INTERVAL: Duration = Duration::from_mins(10);
/// The shortest it may be set to (etcd's minimum).
pub const WATCH_PROGRESS_INTERVAL_MIN: Duration = Duration::from_millis(100);

/// Rows that one slice of the scrub checks.
pub const SCRUB_SLICE: usize = 2048;
/// The pause between two slices of the scrub: a walk over a million changes takes under half an hour.
pub const SCRUB_PAUSE: Duration = Duration::from_secs(1);
/// The rest between two walks of the scrub.
pub const SCRUB_REST: Duration = Duration::from_hours(24);

/// The largest frame between members: the largest proposal, or a full batch of small ones, and what comes around it.
pub const PEER_FRAME_BYTES_MAX: usize = 16 * 1024 * 1024;
/// The largest message of the control stream. A larger one takes the append stream.
pub const PEER_CONTROL_MESSAGE_BYTES_MAX: usize = 64 * 1024;
/// Messages in one frame between members.
pub const PEER_FRAME_MESSAGES_MAX: usize = 1024;
/// Bytes of messages to one member that one write takes together.
pub const PEER_WRITE_BYTES: usize = 256 * 1024;
/// Control messages that may wait to be sent to one member.
pub const PEER_CONTROL_QUEUE_MAX: usize = 256;
/// Bytes of appends that may wait to be sent to one member; one larger message waits alone.
pub const PEER_APPEND_QUEUE_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Bytes of messages from one member that may wait to be handled, per stream, before it is read no further.
pub const PEER_UNHANDLED_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Bytes of one stream between members that may be under way.
pub const PEER_STREAM_WINDOW: u32 = 512 * 1024;
/// Bytes that may be under way to a member however many packets are lost; at 1 Mbit/s they take a quarter of a second, and four members' a second.
pub const PEER_WINDOW_MIN: u64 = 32 * 1024;
/// Questions to other members that may wait for their answer.
pub const QUESTIONS_PENDING_MAX: usize = 20_000;
/// Questions of other members that may wait to be looked at; more are lost.
pub const QUESTIONS_WAITING_MAX: usize = 4096;
/// Pieces of states that may be on their way from one member to another at the same time.
pub const PEER_PARCELS_MAX: u32 = 2;

/// How often a leader shows that it is there.
pub const HEARTBEAT: Duration = Duration::from_millis(HEARTBEAT_MILLIS);
/// The same in milliseconds.
pub const HEARTBEAT_MILLIS: u64 = 90;
/// The shortest time without a word of the leader after which a follower looks for another one: five heartbeats. Each waits up to twice as
/// long, by chance, and longer where the leader's words come irregularly.
pub const ELECTION_TIMEOUT_MIN: Duration = Duration::from_millis(ELECTION_MILLIS);
/// The same in milliseconds.
pub const ELECTION_MILLIS: u64 = 450;
/// The longest that it gets where they do.
pub const ELECTION_TIMEOUT_MAX: Duration = Duration::from_secs(5);
/// The shortest heartbeat interval that may be set, in milliseconds: finer than that nothing is timed.
pub const HEARTBEAT_MILLIS_MIN: u64 = 10;
/// The longest election timeout that may be set, in milliseconds (etcd's bound).
pub const ELECTION_MILLIS_MAX: u64 = 50_000;
/// What those go by who wait for a leader to be found: an election takes less, as a rule (etcd's election timeout).
pub const ELECTION_TIMEOUT: Duration = Duration::from_secs(1);
/// Members that vote where the leader decides, if there are as many. More cost each write more.
pub const VOTERS: usize = 3;
/// How long a member must have been well there before it votes. A box that has just been switched on may be about to be switched off.
pub const VOTER_PROBATION: Duration = Duration::from_secs(10);
/// A voter that was not heard for so long is replaced there: longer than a restart, an update or a change of a cable takes.
pub const VOTER_ABSENCE_MAX: Duration = Duration::from_mins(10);
/// A member that a leader has never heard counts as gone after so long, even where half of the members are away: one of those that were away before this leader began
/// is no part of what has vanished now. Longer than a power cut, as a rule.
pub const NEVER_HEARD_MAX: Duration = Duration::from_hours(1);
/// How long a connection with another member must have held before changes of the members count on it (etcd's interval).
pub const HEALTH_INTERVAL: Duration = Duration::from_secs(5);
/// The longest time to live that a lease may ask for, in seconds (etcd's bound).
pub const LEASE_TTL_MAX: i64 = 9_000_000_000;
/// The shortest time to live, in seconds: one and a half election timeouts, rounded up. A leader must be found anew within it.
pub const LEASE_TTL_MIN: i64 = 2;
/// Leases that one log entry ends at most; a share of what may wait for their end at once.
pub const LEASES_PER_EXPIRY: usize = 128;
/// Leases whose end is proposed and not applied yet; more wait, so that an outage's worth of them does not fill the log.
pub const LEASES_EXPIRING_MAX: usize = 1024;
/// A proposal of the lessor that was not applied within this time is made again (etcd's pause).
pub const LEASE_RETRY: Duration = Duration::from_secs(3);
/// How often the remaining time of a lease is checkpointed; leases with a shorter time to live are not (etcd's interval).
pub const LEASE_CHECKPOINT_INTERVAL: Duration = Duration::from_secs(300);
/// Leases that are due for a checkpoint within this time join one that is written.
pub const LEASE_CHECKPOINT_SLACK: Duration = Duration::from_secs(30);
/// Leases that one log entry checkpoints at most.
pub const LEASES_PER_CHECKPOINT: usize = 1000;
/// The longest a proposal or a linearizable read may take on the server: 5 s and two election timeouts.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(7);

const _: () = {
    assert!(REQUEST_BYTES <= REQUEST_BYTES_MAX);
    assert!((WAL_BATCH_BYTES as u64) < WAL_SEGMENT_BYTES);
    assert!(STORE_CACHE_BYTES >= OVERLAY_BYTES);
    assert!(OVERLAY_BYTES >= 2 * REQUEST_BYTES);
    assert!(PROPOSALS_PENDING_BYTES_MAX >= REQUEST_BYTES_MAX);
    assert!(QUOTA_CLEAR_PERCENT < 100);
    assert!(ANSWER_FIRST_BYTES <= ANSWERS_BYTES_MIN / ANSWER_SHARE);
    assert!(ANSWERS_BYTES_MIN <= ANSWERS_BYTES_MAX);
    assert!(4 * STREAM_WINDOW_BYTES_MAX <= WINDOW_BYTES_MAX && WINDOW_BYTES_MIN < WINDOW_BYTES_MAX);
    assert!(UNREAD_BYTES_MAX <= 192 * 1024 * 1024);
    assert!(PEER_FRAME_BYTES_MAX > REQUEST_BYTES_MAX + 2 * WAL_BATCH_BYTES);
    assert!(PEER_CONTROL_MESSAGE_BYTES_MAX < PEER_WRITE_BYTES && PEER_WRITE_BYTES < PEER_FRAME_BYTES_MAX);
    assert!(TRANSFER_PIECE_BYTES + REQUEST_BYTES_MAX < PEER_FRAME_BYTES_MAX);
    assert!(HOLD_IDLE_MAX.as_secs() < HOLD_MAX.as_secs());
    assert!(
        ELAPSED_INTERVAL_SECONDS <= ADMISSION_SECONDS_MIN && ADMISSION_SECONDS_MIN <= FOUNDING_WINDOW_SECONDS
    );
    assert!(FOUNDING_WINDOW_SECONDS <= FOUNDING_WINDOW_SECONDS_MAX);
    assert!(
        ELAPSED_INTERVAL_SECONDS < OVERLAP_INTERVAL_SECONDS
            && OVERLAP_INTERVAL_SECONDS < AUTHORITY_OVERLAP_SECONDS
    );
    assert!(VOTER_ABSENCE_MAX.as_secs() < NEVER_HEARD_MAX.as_secs());
    assert!(PENDING_NODES_MAX <= PENDING_NODES_SHOWN_MAX);
    assert!(16 * 2 * PENDING_ROUNDS_MAX * ADMITTED_MEMBERS_MAX <= QUESTIONS_PENDING_MAX);
    assert!(4 * TOMBSTONE_SIGNERS_MAX <= TOMBSTONES_MAX);
    assert!(2 * OVERLAP_INTERVAL_SECONDS <= AWAITED_SECONDS);
    assert!(ADMISSION_SECONDS_MIN < WINDOW_SECONDS_MAX && WINDOW_SECONDS_MAX <= TOKEN_SECONDS_MAX);
    assert!(LEASES_PER_EXPIRY <= LEASES_EXPIRING_MAX);
    assert!(LEASE_TTL_MIN > 0 && LEASE_TTL_MIN < LEASE_TTL_MAX);
    assert!(LEASE_TTL_MIN.unsigned_abs() == (ELECTION_TIMEOUT.as_secs() * 3).div_ceil(2));
    assert!(ELECTION_TIMEOUT.subsec_nanos() == 0);
    assert!(WATCH_SCARCE_SLICE_BYTES < WATCH_SLICE_BYTES && WATCH_SLICE_BYTES < WATCH_STREAM_BYTES_MAX);
    assert!(WATCH_STREAM_BYTES_MAX < WATCH_QUEUED_BYTES_MAX);
    assert!(WATCH_REQUESTS_WAITING_ALL_BYTES_MAX > REQUEST_BYTES_MAX + GRPC_OVERHEAD_BYTES);
    assert!(WATCH_SMALL_BATCH_BYTES < WATCH_SCARCE_SLICE_BYTES);
    assert!(DISK_STUCK.as_secs() > 7 * 2 && DISK_STUCK.as_secs() >= 4 * ELECTION_TIMEOUT_MAX.as_secs());
    assert!(ELECTION_TIMEOUT_MIN.as_millis() >= 5 * HEARTBEAT.as_millis());
    assert!(2 * ELECTION_TIMEOUT_MIN.as_millis() <= ELECTION_TIMEOUT.as_millis());
    assert!(ELECTION_TIMEOUT_MIN.as_millis() < ELECTION_TIMEOUT_MAX.as_millis());
};
