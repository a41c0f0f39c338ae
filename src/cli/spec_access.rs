//! The commands that say who may do what.
//!
//! Owns: their names and help lines. Must never: parse a value. `spec` lists them.

use super::spec::{Command, Flag, option, switch};

const fn plain(name: &'static str, usage: &'static str, about: &'static str) -> Command {
    Command { name, alias: None, usage, about, details: "", flags: &[] }
}

/// Has everybody say who it is.
pub const AUTH_ENABLE: Command = Command {
    details: "\
From then on every command needs --user, and is allowed what the user's roles are. There has to be a user root, which is
given the role root where it does not have that.
",
    ..plain("auth enable", "[flags]", "Let nobody do anything without a user's name and password")
};

/// Asks nobody any more.
pub const AUTH_DISABLE: Command =
    plain("auth disable", "[flags]", "Let everybody do everything; users and roles stay");

/// Whether anybody is asked.
pub const AUTH_STATUS: Command = plain(
    "auth status",
    "[flags]",
    "Print whether users are asked for, and how often users and roles have changed",
);

/// Whether the password is asked for at the terminal.
const INTERACTIVE: Flag =
    switch("interactive", "If false, read the password from standard input (default true)");

/// Makes a user.
pub const USER_ADD: Command = Command {
    details: "A password that is not given is asked for, twice.\n",
    flags: &[
        INTERACTIVE,
        option("new-user-password", "text", "The password; the name may have a colon then"),
        switch("no-password", "Without a password: known by a certificate alone"),
    ],
    ..plain("user add", "[flags] <name[:password]>", "Make a user")
};

/// Removes a user.
pub const USER_DELETE: Command = plain("user delete", "[flags] <name>", "Remove a user");

/// Tells of a user.
pub const USER_GET: Command = Command {
    flags: &[switch("detail", "Print what the roles may do, too")],
    ..plain("user get", "[flags] <name>", "Print the roles of a user")
};

/// Lists users.
pub const USER_LIST: Command = plain("user list", "[flags]", "Print all users");

/// Changes a password.
pub const USER_PASSWD: Command = Command {
    flags: &[INTERACTIVE],
    ..plain("user passwd", "[flags] <name>", "Give a user another password, which is asked for, twice")
};

/// Gives a user a role.
pub const USER_GRANT_ROLE: Command = plain("user grant-role", "[flags] <user> <role>", "Give a user a role");

/// Takes a role from a user.
pub const USER_REVOKE_ROLE: Command =
    plain("user revoke-role", "[flags] <user> <role>", "Take a role from a user");

/// Makes a role.
pub const ROLE_ADD: Command = plain("role add", "[flags] <name>", "Make a role that may do nothing yet");

/// Removes a role.
pub const ROLE_DELETE: Command =
    plain("role delete", "[flags] <name>", "Remove a role, also from all users that have it");

/// Tells of a role.
pub const ROLE_GET: Command = plain("role get", "[flags] <name>", "Print what a role may read and write");

/// Lists roles.
pub const ROLE_LIST: Command = plain("role list", "[flags]", "Print all roles");

/// The keys that a permission is for.
const KEYS: &[Flag] = &[
    switch("prefix", "Every key that begins with the given one"),
    switch("from-key", "Every key from the given one on"),
];

/// Allows a role something.
pub const ROLE_GRANT: Command = Command {
    flags: KEYS,
    ..plain(
        "role grant-permission",
        "[flags] <role> read|write|readwrite <key> [end]",
        "Let a role read or write a key or a range of keys",
    )
};

/// Allows it no more.
pub const ROLE_REVOKE: Command = Command {
    details: "The keys have to be the very range that was granted.\n",
    flags: KEYS,
    ..plain("role revoke-permission", "[flags] <role> <key> [end]", "Take back what a role was granted")
};
