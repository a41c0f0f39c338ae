//! The commands for a cluster's upkeep, for locks and elections, and for the shell.
//!
//! Owns: their names and help lines. Must never: parse a value. `spec` lists them.

use super::spec::{CLUSTER, Command, Flag, option};

/// Asks whether members are well.
pub const ENDPOINT_HEALTH: Command = Command {
    name: "endpoint health",
    alias: None,
    usage: "[flags]",
    about: "Say of each endpoint whether it is well: reads at the latest state, and knows of no alarm",
    details: "The exit code is 0 if all are well and 1 if not.\n",
    flags: &[CLUSTER],
};

/// Asks members for hashes of their data.
pub const ENDPOINT_HASHKV: Command = Command {
    name: "endpoint hashkv",
    alias: None,
    usage: "[flags]",
    about: "Print the hash of all keys with their history, for each endpoint",
    details: "Of two members the hashes are equal if they are asked for the same revision and have compacted alike.\n",
    flags: &[CLUSTER, option("rev", "revision", "As it was at this revision (default the latest)")],
};

/// Makes files smaller.
pub const DEFRAG: Command = Command {
    name: "defrag",
    alias: None,
    usage: "[flags]",
    about: "Give space that is not used back to the file system, at each endpoint",
    details: "",
    flags: &[CLUSTER],
};

/// Lists alarms.
pub const ALARM_LIST: Command = Command {
    name: "alarm list",
    alias: None,
    usage: "[flags]",
    about: "Print the alarms that are raised: NOSPACE and CORRUPT, and by which member",
    details: "",
    flags: &[],
};

/// Clears alarms.
pub const ALARM_DISARM: Command = Command {
    name: "alarm disarm",
    alias: None,
    usage: "[flags]",
    about: "Clear all alarms, and print which there were",
    details: "",
    flags: &[],
};

/// Holds a lock.
pub const LOCK: Command = Command {
    name: "lock",
    alias: None,
    usage: "[flags] <name> [-- <command> [arguments]]",
    about: "Hold a lock: until this is interrupted, or while a command runs",
    details: "\
Waits until nobody else holds it, and prints its key then. With a command that is run instead, with ETCD_LOCK_KEY and
ETCD_LOCK_REV in its environment, and its exit code is this one's. Whoever holds a lock and is away for longer than the
time to live has lost it.
",
    flags: &[option("ttl", "seconds", "For how long the holder may be away (default 10)")],
};

/// Stands for an election.
pub const ELECT: Command = Command {
    name: "elect",
    alias: None,
    usage: "[flags] <election> [proposal]",
    about: "Lead an election's other candidates until this is interrupted, or print who does",
    details: "Waits until nobody else leads, and prints key and proposal then. With -l it only looks on.\n",
    flags: &[Flag {
        long: "listen",
        short: Some('l'),
        value: None,
        help: "Print who leads, whenever that changes",
    }],
};

/// Makes a shell's completion.
pub const COMPLETION: Command = Command {
    name: "completion",
    alias: None,
    usage: "bash|zsh|fish",
    about: "Print a script by which a shell completes covey's commands and flags",
    details: "\
  bash    source <(covey completion bash)
  zsh     source <(covey completion zsh)
  fish    covey completion fish | source
",
    flags: &[],
};
