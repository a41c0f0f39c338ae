//! The table of commands and their flags. Parsing, help and the hints for mistyped names derive from it.
//!
//! Owns: names and help lines. Must never: parse a value. `covey serve` takes its flags from `config` instead.

use super::spec_access::{
    AUTH_DISABLE, AUTH_ENABLE, AUTH_STATUS, ROLE_ADD, ROLE_DELETE, ROLE_GET, ROLE_GRANT, ROLE_LIST,
    ROLE_REVOKE, USER_ADD, USER_DELETE, USER_GET, USER_GRANT_ROLE, USER_LIST, USER_PASSWD, USER_REVOKE_ROLE,
};
use super::spec_upkeep::{
    ALARM_DISARM, ALARM_LIST, COMPLETION, DEFRAG, ELECT, ENDPOINT_HASHKV, ENDPOINT_HEALTH, LOCK,
};

/// A flag of a client command.
#[derive(Clone, Copy, Debug)]
pub struct Flag {
    /// Without dashes.
    pub long: &'static str,
    /// The one-letter spelling.
    pub short: Option<char>,
    /// What its value is called in help; `None` for a flag that is true or false.
    pub value: Option<&'static str>,
    /// What it does: a sentence without its end.
    pub help: &'static str,
}

/// A command.
#[derive(Clone, Copy, Debug)]
pub struct Command {
    /// Its name.
    pub name: &'static str,
    /// Another name that etcdctl has for it.
    pub alias: Option<&'static str>,
    /// What follows the name.
    pub usage: &'static str,
    /// What it does: a sentence without its end.
    pub about: &'static str,
    /// More to know, whole paragraphs.
    pub details: &'static str,
    /// Its own flags.
    pub flags: &'static [Flag],
}

pub(super) const fn switch(long: &'static str, help: &'static str) -> Flag {
    Flag { long, short: None, value: None, help }
}

pub(super) const fn option(long: &'static str, value: &'static str, help: &'static str) -> Flag {
    Flag { long, short: None, value: Some(value), help }
}

const CONFIG_FILE: Flag = option("config-file", "path", "The settings that serve is started with, TOML");
/// The data directory that a command works on.
pub const DATA_DIR: Flag = option("data-dir", "path", "The node's data directory (default NAME.covey)");
const NAME: Flag = option("name", "name", "The node's name, as serve has it (default \"default\")");

/// By which a command is told whose data directory it works on. What none of them says is taken from where serve takes it.
pub const PLACE: [Flag; 3] = [CONFIG_FILE, DATA_DIR, NAME];

/// The flags of every client command. Each can be set by `COVEY_` or `ETCDCTL_` and its name in the environment, too.
pub const GLOBAL: &[Flag] = &[
    option("endpoints", "list", "Where to connect, separated by commas (default 127.0.0.1:2379)"),
    option("cacert", "path", "Authorities that the server's certificate must come from, PEM"),
    option("cert", "path", "Certificate to show to the server, PEM"),
    option("key", "path", "Private key of the certificate, PEM"),
    option(
        "bundle",
        "path",
        "Directory with all four, from client issue; servers that have moved are found on the LAN",
    ),
    option("dial-timeout", "time", "How long connecting may take (default 2s)"),
    option("command-timeout", "time", "How long the command may take once connected (default 5s)"),
    Flag {
        long: "write-out",
        short: Some('w'),
        value: Some("format"),
        help: "How to print: simple, json, fields or table (default simple)",
    },
    switch("hex", "Print keys and values in hexadecimal, where the format is simple"),
    option("user", "name[:password]", "Who to authenticate as; a password that is not given is asked for"),
    option("password", "text", "Password of --user, which then has none behind its colon"),
    option("keepalive-time", "time", "How often a silent connection is tried (default 2s)"),
    option("keepalive-timeout", "time", "How long such a try may take (default 6s)"),
    switch("insecure-transport", "If false, endpoints without a scheme use TLS (default true)"),
    switch("insecure-skip-tls-verify", "Trust any certificate of the server's: only for tests"),
];

/// Runs a server.
pub const SERVE: Command =
    Command { name: "serve", alias: None, usage: "[flags]", about: "Run a server", details: "", flags: &[] };

/// Reads keys.
pub const GET: Command = Command {
    name: "get",
    alias: None,
    usage: "[flags] <key> [range_end]",
    about: "Read a key or a range of keys",
    details: "",
    flags: &[
        switch("prefix", "Every key that begins with the given one"),
        switch("from-key", "Every key from the given one on"),
        option("limit", "number", "At most this many keys"),
        option("order", "order", "ASCEND or DESCEND"),
        option("sort-by", "field", "CREATE, KEY, MODIFY, VALUE or VERSION"),
        option("rev", "revision", "As it was at this revision"),
        switch("keys-only", "Without values"),
        switch("count-only", "Only how many there are; needs -w fields or json"),
        switch("print-value-only", "Only values; needs -w simple"),
        option(
            "consistency",
            "l|s",
            "l is linearizable, s serializable: from this member as it is (default l)",
        ),
    ],
};

/// Writes a key.
pub const PUT: Command = Command {
    name: "put",
    alias: None,
    usage: "[flags] <key> [value]",
    about: "Write a key",
    details: "Without a value it is read from standard input, all of it. A value that begins with a dash goes after --.\n",
    flags: &[
        switch("prev-kv", "Print what the key was before"),
        switch("ignore-value", "Keep the value, make a new version"),
        switch("ignore-lease", "Keep the lease"),
        option("lease", "id", "Attach the key to this lease (hexadecimal)"),
    ],
};

/// Deletes keys.
pub const DEL: Command = Command {
    name: "del",
    alias: Some("delete"),
    usage: "[flags] <key> [range_end]",
    about: "Delete a key or a range of keys; prints how many there were",
    details: "",
    flags: &[
        switch("prefix", "Every key that begins with the given one"),
        switch("from-key", "Every key from the given one on"),
        switch("prev-kv", "Print what was deleted"),
    ],
};

/// Runs a transaction.
pub const TXN: Command = Command {
    name: "txn",
    alias: None,
    usage: "[flags]",
    about: "Run a transaction that is read from standard input",
    details: "\
Three blocks, each ended by an empty line: comparisons, requests for when all hold, requests for when one does not.

  mod(\"key1\") > \"0\"

  put key1 \"it was there\"

  put key1 'it is new'

Comparisons are of mod, create, version, value or lease, by =, !=, < or >.
Requests are get, put and del with their flags.
",
    flags: &[],
};

/// Compacts.
pub const COMPACT: Command = Command {
    name: "compact",
    alias: Some("compaction"),
    usage: "[flags] <revision>",
    about: "Forget what was overwritten or deleted before a revision",
    details: "",
    flags: &[switch("physical", "Wait until the space is free")],
};

/// Says how the node and its cluster stand.
pub const STATUS: Command = Command {
    name: "status",
    alias: None,
    usage: "[flags]",
    about: "Say whether this box and its cluster are well, and what to do if not",
    details: "\
The first line is the verdict; what follows it are the members, who waits to be let in, and what else there is on the
network. The exit code is 0 if all is well and 1 if not. It works while the node looks for others, too.
",
    flags: &[],
};

/// The flag of the commands that ask each endpoint.
pub(super) const CLUSTER: Flag = switch("cluster", "Ask all members, as the cluster lists them");

/// Asks for the state of members.
pub const ENDPOINT_STATUS: Command = Command {
    name: "endpoint status",
    alias: None,
    usage: "[flags]",
    about: "Print the state of each endpoint, as etcdctl does",
    details: "",
    flags: &[CLUSTER],
};

/// Makes a token.
pub const TOKEN_CREATE: Command = Command {
    name: "token create",
    alias: None,
    usage: "[flags]",
    about: "Make a token that lets one new node into the cluster, once",
    details: "\
Only the token goes to standard output. It is shown this once: put it into a file on the new box, and start covey there
with --join-token-file.
",
    flags: &[option("ttl", "time", "For how long it is good, counted while the cluster runs (default 1h)")],
};

/// Lists tokens.
pub const TOKEN_LIST: Command = Command {
    name: "token list",
    alias: None,
    usage: "[flags]",
    about: "Print the tokens that are good or were used: id, for how long, or by whom",
    details: "",
    flags: &[],
};

/// Forgets a token.
pub const TOKEN_REVOKE: Command = Command {
    name: "token revoke",
    alias: None,
    usage: "[flags] <id>",
    about: "Forget a token: it lets nobody in any more",
    details: "",
    flags: &[],
};

/// Lists nodes that wait.
pub const NODE_PENDING: Command = Command {
    name: "node pending",
    alias: None,
    usage: "[flags]",
    about: "Print the nodes that have asked any member to be let in: fingerprint, name, URLs, when",
    details: "",
    flags: &[],
};

/// Lets a node in.
pub const NODE_APPROVE: Command = Command {
    name: "node approve",
    alias: None,
    usage: "[flags] <fingerprint>",
    about: "Let a node into the cluster: it joins by itself when it asks next",
    details: "\
Compare the fingerprint with what \"covey node fingerprint\" prints on the new box. Of a node that is pending on this box,
the first 32 digits are enough.
",
    flags: &[],
};

/// Lets everybody in for a while.
pub const WINDOW_OPEN: Command = Command {
    name: "window open",
    alias: None,
    usage: "[flags] <time>",
    about: "Let in whoever is on the LAN, for so long (10m)",
    details: "",
    flags: &[],
};

/// Ends that.
pub const WINDOW_CLOSE: Command = Command {
    name: "window close",
    alias: None,
    usage: "[flags]",
    about: "Let in nobody any more without a token or an approval",
    details: "",
    flags: &[],
};

/// Makes what a client needs.
pub const CLIENT_ISSUE: Command = Command {
    name: "client issue",
    alias: None,
    usage: "[flags] <name>",
    about: "Make key and certificate for a client, and write down all that it needs",
    details: "\
The directory has ca.crt, client.crt, client.key, endpoints and env. Bring it to the client: covey commands take it
with --bundle, and etcdctl its variables from env. The key is nowhere else.
",
    flags: &[option("out", "path", "The directory, which must be new or empty (default: the name)")],
};

/// Lists clients.
pub const CLIENT_LIST: Command = Command {
    name: "client list",
    alias: None,
    usage: "[flags]",
    about: "Print the clients whose certificates are accepted: name, SHA-256 of the key, whether to be renewed",
    details: "",
    flags: &[],
};

/// Shuts a client out.
pub const CLIENT_REVOKE: Command = Command {
    name: "client revoke",
    alias: None,
    usage: "[flags] <name>",
    about: "Accept no certificate of this name any more; its connections are closed",
    details: "",
    flags: &[],
};

/// Gives a client the authority anew.
pub const CLIENT_RENEW: Command = Command {
    name: "client renew",
    alias: None,
    usage: "[flags] <name>",
    about: "Give a client the cluster's authority anew, which is replaced when a member is removed",
    details: "\
Writes ca.crt and endpoints over those of the client's bundle, or, where there is none, into a new directory, from which
they are brought to the client. Its key and its certificate stay good. The authority from before is of use for
30 days of running time after it was replaced; covey client list says who has to be renewed, and covey status how many.
",
    flags: &[option("out", "path", "The directory: a bundle, or a new or empty one (default: the name)")],
};

/// Says, or changes, what is logged.
pub const LOG_LEVEL: Command = Command {
    name: "log-level",
    alias: None,
    usage: "[flags] [debug|info|warn|error]",
    about: "Print the least serious level that a member logs, or change it until the member's process ends",
    details: "",
    flags: &[],
};

/// Saves, looks at and restores snapshots.
pub const SNAPSHOT: Command = Command {
    name: "snapshot",
    alias: None,
    usage: "save|status|restore [flags] <file>",
    about: "Save all data to a file, look at such a file, or make a new node of it",
    details: "\
save      asks one endpoint for everything it has and checks it. Neither reads nor writes are held up.
status    prints the file's hash, its revision, how many versions of keys it has, its size and format.
restore   makes the data directory of a new node: a new cluster of one member with the data of the file. Others join
          it (covey member add) with empty directories: each restore is a cluster of its own.

The format is covey's own: etcd's tools can save it, but not restore it, and covey does not restore etcd's.
Unless told otherwise, restore raises the revision far beyond what clients can have seen and compacts below that, so
that a client which resumes a watch is told to read anew instead of missing changes.
",
    flags: &[
        option("data-dir", "path", "Where restore puts the node; must be empty (default NAME.covey)"),
        switch("skip-hash-check", "Restore a file without the server's hash, or with another one"),
        option("bump-revision", "number", "How far restore raises the revision; 0 keeps it (default 1000000000)"),
        switch("mark-compacted", "Compact at the raised revision (default true unless it is kept)"),
        option("name", "name", "The node's name, as serve will have it (default \"default\")"),
        option("initial-cluster", "list", "As for etcd; may name this node only"),
        option("initial-cluster-token", "text", "As for etcd; every restore makes a new cluster anyway"),
        option("initial-advertise-peer-urls", "list", "As for etcd; serve says where peers find the node"),
    ],
};

/// Makes one node out of what is left of a cluster.
pub const RECOVER: Command = Command {
    name: "recover",
    alias: None,
    usage: "[flags]",
    about: "Make a stopped node the only member of a cluster that has lost its majority for good",
    details: "\
What etcd does with --force-new-cluster. The node keeps all its data and its place; the cluster goes on in a new
generation, and the other members are refused if they come back. All that the node's log holds is kept, committed or
not. What others have acknowledged and this node does not have is lost: choose the node whose log goes farthest.

  covey recover --data-dir /var/lib/covey      on the stopped node; says what it finds, and asks
  covey serve --data-dir /var/lib/covey        then start it as before
  covey member add b --peer-urls ...           and add others anew, with empty data directories

Instead of the directory, --config-file or serve's variables in the environment say which it is.
",
    flags: &[
        CONFIG_FILE,
        DATA_DIR,
        NAME,
        switch("yes", "Do not ask"),
    ],
};

/// Follows changes.
pub const WATCH: Command = Command {
    name: "watch",
    alias: None,
    usage: "[flags] <key> [range_end] [-- <command> [arguments]]",
    about: "Print changes of a key or a range of keys as they happen",
    details: "\
Runs until it is interrupted. A connection that is lost is made anew, and the watch goes on behind the last change
that was seen; when that has been compacted meanwhile it ends with an error.

With a command behind -- that is run for each change, one after the other, with ETCD_WATCH_REVISION,
ETCD_WATCH_EVENT_TYPE (\"PUT\" or \"DELETE\"), ETCD_WATCH_KEY and ETCD_WATCH_VALUE in its environment, the last
three in quotes. The watch ends when the command fails.
",
    flags: &[
        switch("prefix", "Every key that begins with the given one"),
        option("rev", "revision", "From this revision on, instead of from now on"),
        switch("prev-kv", "Print what the key was before, too"),
        switch("progress-notify", "Print now and then how far the watch has come when nothing happens"),
    ],
};

/// Makes a lease.
pub const LEASE_GRANT: Command = Command {
    name: "lease grant",
    alias: None,
    usage: "[flags] <seconds>",
    about: "Make a lease; keys attached to it (put --lease) go with it",
    details: "",
    flags: &[],
};

/// Ends a lease.
pub const LEASE_REVOKE: Command = Command {
    name: "lease revoke",
    alias: None,
    usage: "[flags] <lease id>",
    about: "End a lease and delete the keys attached to it",
    details: "",
    flags: &[],
};

/// Asks for a lease's time.
pub const LEASE_TIME_TO_LIVE: Command = Command {
    name: "lease timetolive",
    alias: None,
    usage: "[flags] <lease id>",
    about: "Print how long a lease has left",
    details: "",
    flags: &[switch("keys", "Print the keys attached to it, too")],
};

/// Lists leases.
pub const LEASE_LIST: Command = Command {
    name: "lease list",
    alias: None,
    usage: "[flags]",
    about: "Print all leases",
    details: "",
    flags: &[],
};

/// Renews a lease.
pub const LEASE_KEEP_ALIVE: Command = Command {
    name: "lease keep-alive",
    alias: None,
    usage: "[flags] <lease id>",
    about: "Renew a lease over and over, until it ends or this is interrupted",
    details: "A lease is renewed when a third of its time is over. Its id is hexadecimal, as the other commands print it.\n",
    flags: &[switch("once", "Renew it once")],
};

/// Lists members.
pub const MEMBER_LIST: Command = Command {
    name: "member list",
    alias: None,
    usage: "[flags]",
    about: "Print all members: id, whether it has started, name, peer URLs, client URLs, whether it is a learner",
    details: "",
    flags: &[],
};

/// The flag of the commands that say where a member is.
const PEER_URLS: Flag = option("peer-urls", "list", "Where the other members find it, separated by commas");

/// Adds a member.
pub const MEMBER_ADD: Command = Command {
    name: "member add",
    alias: None,
    usage: "[flags] <name> --peer-urls <list>",
    about: "Keep a place for one more member; prints the settings that it has to be started with",
    details: "\
The node that comes from these URLs gets the place, and all data from the others. As a learner it has no vote until it
is promoted: while it is catching up, nothing waits for it.
",
    flags: &[PEER_URLS, switch("learner", "Without a vote")],
};

/// Removes a member.
pub const MEMBER_REMOVE: Command = Command {
    name: "member remove",
    alias: None,
    usage: "[flags] <member id>",
    about: "Remove a member, which stops by itself",
    details: "Its id is never given again. To have the node back, empty its data directory and add it anew.\n",
    flags: &[],
};

/// Says where a member is.
pub const MEMBER_UPDATE: Command = Command {
    name: "member update",
    alias: None,
    usage: "[flags] <member id> --peer-urls <list>",
    about: "Say where the others find a member from now on",
    details: "",
    flags: &[PEER_URLS],
};

/// Gives a learner a vote.
pub const MEMBER_PROMOTE: Command = Command {
    name: "member promote",
    alias: None,
    usage: "[flags] <member id>",
    about: "Give a learner a vote, once it has caught up with the leader",
    details: "",
    flags: &[],
};

/// Has another member lead.
pub const MOVE_LEADER: Command = Command {
    name: "move-leader",
    alias: None,
    usage: "[flags] <member id>",
    about: "Have another member lead; the present leader must be among the endpoints",
    details: "",
    flags: &[],
};

/// Prints by what other nodes know this one.
pub const NODE_FINGERPRINT: Command = Command {
    name: "node fingerprint",
    alias: None,
    usage: "[flags]",
    about: "Print the fingerprint of a node's key, which is made if there is none yet",
    details: "\
The key stays the same for as long as the data directory does, whatever cluster the node is in. Nothing is started, and
a node that runs is not disturbed. What is printed is the SHA-256 of the public key; it is no secret.
",
    flags: &[
        CONFIG_FILE,
        DATA_DIR,
        NAME,
    ],
};

/// Looks for what is wrong.
pub const DOCTOR: Command = Command {
    name: "doctor",
    alias: None,
    usage: "[flags]",
    about: "Look for what is wrong on this box: network, disk, clock, and the server if it runs",
    details: "\
Each finding is OK, WARN or FAIL, with what to do. It changes nothing beyond a temporary file in the data directory. The
exit code is 1 if anything is FAIL.
",
    flags: &[
        CONFIG_FILE,
        DATA_DIR,
        NAME,
        option("interfaces", "list", "Interfaces that count, as serve has it"),
        option("peer-port", "port", "The UDP port of the members (default 2380)"),
    ],
};

/// Ends one of two clusters that cannot become one by themselves.
pub const YIELD: Command = Command {
    name: "yield",
    alias: None,
    usage: "[flags] [cluster]",
    about: "Give this cluster up for another one with which it is in conflict",
    details: "\
Where \"covey status\" says CONFLICT, one of the two clusters has to go. On one of its boxes, this says what is given up
and for which cluster, and asks. Then all its boxes join the other one; those that are away now do once they are back.
What a box had is kept in \"archive\" in its data directory, and nobody is served it any more.

The other cluster has to let the boxes in first. Where it is sealed, its operator approves each of them, and then this
is typed again. The cluster's id is needed only where there are several.
",
    flags: &[switch("yes", "Do not ask")],
};

/// Makes a disk one of a node that has never run.
pub const PREPARE_IMAGE: Command = Command {
    name: "prepare-image",
    alias: None,
    usage: "[flags]",
    about: "Remove a stopped node from a disk before the disk is copied",
    details: "\
Copies of a node's key are one node to the others, which let only one of them in. After this each copy of the disk makes
its own key at its first start. Refused while covey runs there.
",
    flags: &[
        CONFIG_FILE,
        DATA_DIR,
        NAME,
        switch("yes", "Do not ask"),
    ],
};

/// Says what a server would run with.
pub const CONFIG_CHECK: Command = Command {
    name: "config check",
    alias: None,
    usage: "[FILE] [flags of serve]",
    about: "Check the settings of a server, and say where each comes from",
    details: "\
Reads what serve would: the flags that are given here, COVEY_ and ETCD_ variables, the file, and defaults, the former
before the latter. What is wrong is said with the file's line and key, and the exit code is 78, as serve's. It starts
nothing and touches nothing.
",
    flags: &[],
};

/// What the commands begin with whose name has two words.
pub const GROUPS: &[&str] = &[
    "alarm", "auth", "client", "config", "endpoint", "lease", "member", "node", "role", "token", "user",
    "window",
];

/// Every command, in the order of help.
pub const COMMANDS: &[&Command] = &[
    &SERVE,
    &STATUS,
    &DOCTOR,
    &GET,
    &PUT,
    &DEL,
    &TXN,
    &WATCH,
    &LEASE_GRANT,
    &LEASE_REVOKE,
    &LEASE_TIME_TO_LIVE,
    &LEASE_LIST,
    &LEASE_KEEP_ALIVE,
    &COMPACT,
    &ENDPOINT_STATUS,
    &ENDPOINT_HEALTH,
    &ENDPOINT_HASHKV,
    &ALARM_LIST,
    &ALARM_DISARM,
    &DEFRAG,
    &LOCK,
    &ELECT,
    &MEMBER_LIST,
    &MEMBER_ADD,
    &MEMBER_REMOVE,
    &MEMBER_UPDATE,
    &MEMBER_PROMOTE,
    &MOVE_LEADER,
    &AUTH_ENABLE,
    &AUTH_DISABLE,
    &AUTH_STATUS,
    &USER_ADD,
    &USER_DELETE,
    &USER_GET,
    &USER_LIST,
    &USER_PASSWD,
    &USER_GRANT_ROLE,
    &USER_REVOKE_ROLE,
    &ROLE_ADD,
    &ROLE_DELETE,
    &ROLE_GET,
    &ROLE_LIST,
    &ROLE_GRANT,
    &ROLE_REVOKE,
    &SNAPSHOT,
    &CONFIG_CHECK,
    &RECOVER,
    &YIELD,
    &PREPARE_IMAGE,
    &NODE_FINGERPRINT,
    &NODE_PENDING,
    &NODE_APPROVE,
    &TOKEN_CREATE,
    &TOKEN_LIST,
    &TOKEN_REVOKE,
    &WINDOW_OPEN,
    &WINDOW_CLOSE,
    &CLIENT_ISSUE,
    &CLIENT_LIST,
    &CLIENT_REVOKE,
    &CLIENT_RENEW,
    &LOG_LEVEL,
    &COMPLETION,
];
