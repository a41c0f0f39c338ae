//! What is said of users and roles, in etcdctl's formats.
//!
//! Owns: their layout. Must never: print anything but what came back. Driven by `reply`'s formats.

use std::io::{self, Write};

use super::access::Answer;
use super::quote::quote;
use super::requests::{ZERO, prefix_end};
use crate::wire::authpb::Permission;
use crate::wire::authpb::permission::Type as PermissionType;
use crate::wire::etcdserverpb::{AuthRoleGetResponse, ResponseHeader};

/// Lines for people.
pub fn simple(out: &mut impl Write, answer: &Answer) -> io::Result<()> {
    match answer {
        Answer::Said(said) => writeln!(out, "{said}"),
        Answer::Done(said, _) => writeln!(out, "{said}"),
        Answer::Status(response) => {
            writeln!(out, "Authentication Status: {}", response.enabled)?;
            writeln!(out, "AuthRevision: {}", response.auth_revision)
        }
        Answer::User(name, response) => {
            write!(out, "User: {name}\nRoles:")?;
            response.roles.iter().try_for_each(|role| write!(out, " {role}"))?;
            writeln!(out)
        }
        Answer::Detail(name, roles) => {
            writeln!(out, "User: {name}")?;
            roles.iter().try_for_each(|(name, response)| {
                writeln!(out)?;
                role(out, name, response)
            })
        }
        Answer::Users(response) => response.users.iter().try_for_each(|user| writeln!(out, "{user}")),
        Answer::Role(name, response) => role(out, name, response),
        Answer::Roles(response) => response.roles.iter().try_for_each(|role| writeln!(out, "{role}")),
    }
}

fn role(out: &mut impl Write, name: &str, response: &AuthRoleGetResponse) -> io::Result<()> {
    writeln!(out, "Role {name}")?;
    for (title, own) in [("Read", PermissionType::Read), ("Write", PermissionType::Write)] {
        writeln!(out, "KV {title}:")?;
        let counts =
            |perm: &&Permission| perm.perm_type() == own || perm.perm_type() == PermissionType::Readwrite;
        response.perm.iter().filter(counts).try_for_each(|perm| permission(out, perm))?;
    }
    Ok(())
}

fn permission(out: &mut impl Write, perm: &Permission) -> io::Result<()> {
    let Permission { key, range_end, .. } = perm;
    out.write_all(if range_end.is_empty() { b"\t" } else { b"\t[" })?;
    out.write_all(key)?;
    if range_end == ZERO {
        out.write_all(b", <open ended>")?;
    } else if !range_end.is_empty() {
        out.write_all(b", ")?;
        out.write_all(range_end)?;
        out.write_all(b")")?;
    }
    if !key.is_empty() && !range_end.is_empty() && prefix_end(key) == *range_end {
        out.write_all(b" (prefix ")?;
        out.write_all(key)?;
        out.write_all(b")")?;
    }
    writeln!(out)
}

/// A name and a value a line; `header` prints who answered.
pub fn fields<W: Write>(
    out: &mut W,
    answer: &Answer,
    header: impl Fn(&mut W, Option<&ResponseHeader>) -> io::Result<()>,
) -> io::Result<()> {
    let role = |out: &mut W, response: &AuthRoleGetResponse| {
        header(out, response.header.as_ref())?;
        response.perm.iter().try_for_each(|perm| {
            // Two blanks: etcdctl's.
            writeln!(out, "\"PermType\" :  {}", perm.perm_type().as_str_name())?;
            writeln!(out, "\"Key\" : {}\n\"RangeEnd\" : {}", quote(&perm.key), quote(&perm.range_end))
        })
    };
    match answer {
        Answer::Done(_, response) => header(out, response.as_ref()),
        Answer::Role(_, response) => role(out, response),
        Answer::Detail(name, roles) => {
            writeln!(out, "User: {name}")?;
            roles.iter().try_for_each(|(_, response)| {
                writeln!(out)?;
                role(out, response)
            })
        }
        Answer::Roles(response) => {
            header(out, response.header.as_ref())?;
            write!(out, "\"Roles\" :")?;
            response.roles.iter().try_for_each(|role| write!(out, " {}", quote(role.as_bytes())))?;
            writeln!(out)
        }
        // The others have no fields, and were refused, or say the same in every format.
        Answer::Said(_) | Answer::Status(_) | Answer::User(..) | Answer::Users(_) => simple(out, answer),
    }
}
