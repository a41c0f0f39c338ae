//! `auth`, `user` and `role`: who may do what.
//!
//! Owns: what is asked of the Auth service, and what is made of its answers. Must never: print a password. Driven by `run`, through `calls`.

use std::io;

use bytes::Bytes;
use tonic::{Request, Status};

use super::args::{ClientSettings, Format, Parsed, UsageError};
use super::calls::timed;
use super::client::Channel;
use super::password::{self, PasswordError};
use super::requests::{ZERO, prefix_end};
use super::spec::Command;
use crate::config::boolean;
use crate::wire::authpb::permission::Type as PermissionType;
use crate::wire::authpb::{Permission, UserAddOptions};
use crate::wire::etcdserverpb as pb;
use crate::wire::etcdserverpb::auth_client::AuthClient;

/// The user and the role that may do everything.
const ROOT: &str = "root";
/// What is said when the user root has not the role root, and when that role is there already.
const ROOT_WITHOUT_ROLE: &str = "etcdserver: root user does not have root role";
const ROLE_EXISTS: &str = "etcdserver: role name already exists";

/// What to ask for.
#[derive(Clone, Debug)]
pub enum Question {
    /// `auth enable`
    Enable,
    /// `auth disable`
    Disable,
    /// `auth status`
    Status,
    /// `user add`
    UserAdd(pb::AuthUserAddRequest),
    /// `user delete`
    UserDelete(String),
    /// `user get`
    UserGet(String),
    /// `user get --detail`
    UserDetail(String),
    /// `user list`
    Users,
    /// `user passwd`
    Password(pb::AuthUserChangePasswordRequest),
    /// `user grant-role`
    GrantRole { user: String, role: String },
    /// `user revoke-role`
    RevokeRole { user: String, role: String },
    /// `role add`
    RoleAdd(String),
    /// `role delete`
    RoleDelete(String),
    /// `role get`
    RoleGet(String),
    /// `role list`
    Roles,
    /// `role grant-permission`
    Grant(pb::AuthRoleGrantPermissionRequest),
    /// `role revoke-permission`
    Revoke(pb::AuthRoleRevokePermissionRequest),
}

/// What came of it.
#[derive(Debug)]
pub enum Answer {
    /// It is done, which is said in the same way in every format.
    Said(&'static str),
    /// It is done; what is said of it, and by whom.
    Done(String, Option<pb::ResponseHeader>),
    /// From `auth status`.
    Status(pb::AuthStatusResponse),
    /// From `user get`, with the user.
    User(String, pb::AuthUserGetResponse),
    /// From `user get --detail`: the user, and its roles by name.
    Detail(String, Vec<(String, pb::AuthRoleGetResponse)>),
    /// From `user list`.
    Users(pb::AuthUserListResponse),
    /// From `role get`, with the role.
    Role(String, pb::AuthRoleGetResponse),
    /// From `role list`.
    Roles(pb::AuthRoleListResponse),
}

/// Why nothing is asked.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    /// The arguments.
    #[error(transparent)]
    Usage(#[from] UsageError),
    /// No such permission. etcdctl's words.
    #[error("invalid permission type: {0}")]
    Permission(String),
    /// There is no password.
    #[error(transparent)]
    Password(#[from] PasswordError),
    /// It cannot be read.
    #[error("cannot read standard input: {0}")]
    Input(io::Error),
}

/// What the arguments ask for, where the command is one of these. A password that is missing is asked for.
pub fn question(command: &Command, parsed: &Parsed, format: Format) -> Result<Option<Question>, AccessError> {
    let question = match command.name {
        "auth enable" => none(parsed, "auth enable command does not accept any arguments", Question::Enable)?,
        "auth disable" => {
            none(parsed, "auth disable command does not accept any arguments", Question::Disable)?
        }
        "auth status" => none(parsed, "auth status command does not accept any arguments", Question::Status)?,
        "user add" => Question::UserAdd(user_add(parsed)?),
        "user delete" => {
            Question::UserDelete(one(parsed, "user delete command requires user name as its argument")?)
        }
        "user get" => {
            let user = one(parsed, "user get command requires user name as its argument")?;
            if parsed.switch("detail")? { Question::UserDetail(user) } else { Question::UserGet(user) }
        }
        "user list" => none(parsed, "user list command requires no arguments", Question::Users)?,
        "user passwd" => {
            let name = one(parsed, "user passwd command requires user name as its argument")?;
            let password = new_password(parsed, &name)?;
            Question::Password(pb::AuthUserChangePasswordRequest { name, password, ..Default::default() })
        }
        "user grant-role" => {
            let (user, role) =
                two(parsed, "user grant command requires user name and role name as its argument")?;
            Question::GrantRole { user, role }
        }
        "user revoke-role" => {
            let (user, role) =
                two(parsed, "user revoke-role requires user name and role name as its argument")?;
            Question::RevokeRole { user, role }
        }
        "role add" => Question::RoleAdd(one(parsed, "role add command requires role name as its argument")?),
        "role delete" => {
            Question::RoleDelete(one(parsed, "role delete command requires role name as its argument")?)
        }
        "role get" => Question::RoleGet(one(parsed, "role get command requires role name as its argument")?),
        "role list" => none(parsed, "role list command requires no arguments", Question::Roles)?,
        "role grant-permission" => Question::Grant(grant(parsed)?),
        "role revoke-permission" => Question::Revoke(revoke(parsed)?),
        _ => return Ok(None),
    };
    let has_no_fields = matches!(question, Question::Status | Question::UserGet(_) | Question::Users);
    if has_no_fields && format == Format::Fields {
        return Err(UsageError::Format("fields").into());
    }
    Ok(Some(question))
}

fn none(parsed: &Parsed, refusal: &'static str, question: Question) -> Result<Question, UsageError> {
    if parsed.arguments.is_empty() { Ok(question) } else { Err(UsageError::Arguments(refusal)) }
}

fn one(parsed: &Parsed, needs: &'static str) -> Result<String, UsageError> {
    let [name] = parsed.arguments.as_slice() else { return Err(UsageError::Arguments(needs)) };
    text(name)
}

fn two(parsed: &Parsed, needs: &'static str) -> Result<(String, String), UsageError> {
    let [first, second] = parsed.arguments.as_slice() else { return Err(UsageError::Arguments(needs)) };
    Ok((text(first)?, text(second)?))
}

fn text(name: &[u8]) -> Result<String, UsageError> {
    let name = std::str::from_utf8(name).map_err(|_| UsageError::Arguments("a name has to be UTF-8"))?;
    Ok(name.to_owned())
}

fn user_add(parsed: &Parsed) -> Result<pb::AuthUserAddRequest, AccessError> {
    let given = one(parsed, "user add command requires user name as its argument")?;
    let no_password = parsed.switch("no-password")?;
    let by_flag = parsed.text("new-user-password").filter(|password| !password.is_empty());
    let (name, password) = match (by_flag, given.split_once(':')) {
        _ if no_password => (given, String::new()),
        (Some(password), _) => (given, password.to_owned()),
        (None, Some(("", _))) => return Err(UsageError::Arguments("empty user name is not allowed").into()),
        (None, Some((name, password))) => (name.to_owned(), password.to_owned()),
        (None, None) => {
            let password = new_password(parsed, &given)?;
            (given, password)
        }
    };
    let options = Some(UserAddOptions { no_password });
    Ok(pb::AuthUserAddRequest { name, password, options, ..Default::default() })
}

fn new_password(parsed: &Parsed, user: &str) -> Result<String, AccessError> {
    if parsed.parse("interactive", boolean)?.unwrap_or(true) {
        return Ok(password::ask_twice(user)?);
    }
    password::from_stdin().map_err(AccessError::Input)
}

fn grant(parsed: &Parsed) -> Result<pb::AuthRoleGrantPermissionRequest, AccessError> {
    const NEEDS: &str =
        "role grant command requires role name, permission type, and key [endkey] as its argument";
    let [role, kind, keys @ ..] = parsed.arguments.as_slice() else {
        return Err(UsageError::Arguments(NEEDS).into());
    };
    if keys.is_empty() {
        return Err(UsageError::Arguments(NEEDS).into());
    }
    let kind = String::from_utf8_lossy(kind);
    let Some(perm_type) = PermissionType::from_str_name(&kind.to_ascii_uppercase()) else {
        return Err(AccessError::Permission(kind.into_owned()));
    };
    let (key, range_end) = interval(parsed, keys)?;
    let perm = Some(Permission { perm_type: perm_type as i32, key, range_end });
    Ok(pb::AuthRoleGrantPermissionRequest { name: text(role)?, perm })
}

fn revoke(parsed: &Parsed) -> Result<pb::AuthRoleRevokePermissionRequest, UsageError> {
    const NEEDS: &str = "role revoke-permission command requires role name and key [endkey] as its argument";
    let [role, keys @ ..] = parsed.arguments.as_slice() else { return Err(UsageError::Arguments(NEEDS)) };
    if keys.is_empty() {
        return Err(UsageError::Arguments(NEEDS));
    }
    let (key, range_end) = interval(parsed, keys)?;
    Ok(pb::AuthRoleRevokePermissionRequest { role: text(role)?, key, range_end })
}

/// The keys of a permission, by etcdctl's rules: an empty key is the first one that there can be.
fn interval(parsed: &Parsed, keys: &[Vec<u8>]) -> Result<(Bytes, Bytes), UsageError> {
    let (prefix, from_key) = (parsed.switch("prefix")?, parsed.switch("from-key")?);
    if prefix && from_key {
        return Err(UsageError::Flags("--from-key and --prefix flags are mutually exclusive"));
    }
    let zero = || Bytes::from_static(ZERO);
    let (key, end) = match keys {
        [key] => (key, None),
        [key, end] => (key, Some(end)),
        _ => return Err(UsageError::Arguments("a permission is for one key, or for one key and an end")),
    };
    if key.is_empty() {
        return Ok((zero(), if prefix || from_key { zero() } else { Bytes::new() }));
    }
    let range_end = match end {
        Some(_) if prefix => return Err(UsageError::Flags("unexpected endkey argument with --prefix flag")),
        Some(_) if from_key => {
            return Err(UsageError::Flags("unexpected endkey argument with --from-key flag"));
        }
        Some(end) => Bytes::copy_from_slice(end),
        None if prefix => prefix_end(key),
        None if from_key => zero(),
        None => Bytes::new(),
    };
    Ok((Bytes::copy_from_slice(key), range_end))
}

/// Asks.
pub async fn ask(
    mut client: AuthClient<Channel>,
    settings: &ClientSettings,
    question: Question,
) -> Result<Answer, Status> {
    Ok(match question {
        Question::Enable => {
            enable(&mut client, settings).await?;
            Answer::Said("Authentication Enabled")
        }
        Question::Disable => {
            client.auth_disable(timed(settings, pb::AuthDisableRequest {})).await?;
            Answer::Said("Authentication Disabled")
        }
        Question::Status => {
            Answer::Status(client.auth_status(timed(settings, pb::AuthStatusRequest {})).await?.into_inner())
        }
        Question::RoleAdd(_)
        | Question::RoleDelete(_)
        | Question::RoleGet(_)
        | Question::Roles
        | Question::Grant(_)
        | Question::Revoke(_) => return ask_roles(client, settings, question).await,
        question => return ask_users(client, settings, question).await,
    })
}

/// The user root is given its role where it lacks that.
async fn enable(client: &mut AuthClient<Channel>, settings: &ClientSettings) -> Result<(), Status> {
    let ask = |settings| -> Request<pb::AuthEnableRequest> { timed(settings, pb::AuthEnableRequest {}) };
    match client.auth_enable(ask(settings)).await {
        Err(status) if status.message() == ROOT_WITHOUT_ROLE => {}
        answer => return answer.map(drop),
    }
    match client.role_add(timed(settings, pb::AuthRoleAddRequest { name: ROOT.to_owned() })).await {
        Err(status) if status.message() != ROLE_EXISTS => return Err(status),
        _ => {}
    }
    let request = pb::AuthUserGrantRoleRequest { user: ROOT.to_owned(), role: ROOT.to_owned() };
    client.user_grant_role(timed(settings, request)).await?;
    client.auth_enable(ask(settings)).await.map(drop)
}

async fn ask_users(
    mut client: AuthClient<Channel>,
    settings: &ClientSettings,
    question: Question,
) -> Result<Answer, Status> {
    Ok(match question {
        Question::UserAdd(request) => {
            let said = format!("User {} created", request.name);
            Answer::Done(said, client.user_add(timed(settings, request)).await?.into_inner().header)
        }
        Question::UserDelete(name) => {
            let said = format!("User {name} deleted");
            let request = timed(settings, pb::AuthUserDeleteRequest { name });
            Answer::Done(said, client.user_delete(request).await?.into_inner().header)
        }
        Question::UserGet(name) => {
            let request = timed(settings, pb::AuthUserGetRequest { name: name.clone() });
            Answer::User(name, client.user_get(request).await?.into_inner())
        }
        Question::UserDetail(name) => {
            let request = timed(settings, pb::AuthUserGetRequest { name: name.clone() });
            let mut roles = Vec::new();
            for role in client.user_get(request).await?.into_inner().roles {
                let request = timed(settings, pb::AuthRoleGetRequest { role: role.clone() });
                roles.push((role, client.role_get(request).await?.into_inner()));
            }
            Answer::Detail(name, roles)
        }
        Question::Password(request) => {
            let answer = client.user_change_password(timed(settings, request)).await?;
            Answer::Done("Password updated".to_owned(), answer.into_inner().header)
        }
        Question::GrantRole { user, role } => {
            let said = format!("Role {role} is granted to user {user}");
            let request = timed(settings, pb::AuthUserGrantRoleRequest { user, role });
            Answer::Done(said, client.user_grant_role(request).await?.into_inner().header)
        }
        Question::RevokeRole { user, role } => {
            let said = format!("Role {role} is revoked from user {user}");
            let request = timed(settings, pb::AuthUserRevokeRoleRequest { name: user, role });
            Answer::Done(said, client.user_revoke_role(request).await?.into_inner().header)
        }
        _ => Answer::Users(client.user_list(timed(settings, pb::AuthUserListRequest {})).await?.into_inner()),
    })
}

async fn ask_roles(
    mut client: AuthClient<Channel>,
    settings: &ClientSettings,
    question: Question,
) -> Result<Answer, Status> {
    Ok(match question {
        Question::RoleAdd(name) => {
            let said = format!("Role {name} created");
            let request = timed(settings, pb::AuthRoleAddRequest { name });
            Answer::Done(said, client.role_add(request).await?.into_inner().header)
        }
        Question::RoleDelete(role) => {
            let said = format!("Role {role} deleted");
            let request = timed(settings, pb::AuthRoleDeleteRequest { role });
            Answer::Done(said, client.role_delete(request).await?.into_inner().header)
        }
        Question::RoleGet(role) => {
            let request = timed(settings, pb::AuthRoleGetRequest { role: role.clone() });
            Answer::Role(role, client.role_get(request).await?.into_inner())
        }
        Question::Grant(request) => {
            let said = format!("Role {} updated", request.name);
            let answer = client.role_grant_permission(timed(settings, request)).await?;
            Answer::Done(said, answer.into_inner().header)
        }
        Question::Revoke(request) => {
            let said = revoked(&request);
            let answer = client.role_revoke_permission(timed(settings, request)).await?;
            Answer::Done(said, answer.into_inner().header)
        }
        _ => Answer::Roles(client.role_list(timed(settings, pb::AuthRoleListRequest {})).await?.into_inner()),
    })
}

fn revoked(request: &pb::AuthRoleRevokePermissionRequest) -> String {
    let pb::AuthRoleRevokePermissionRequest { role, key, range_end } = request;
    let (key, end) = (String::from_utf8_lossy(key), String::from_utf8_lossy(range_end));
    if end.is_empty() {
        return format!("Permission of key {key} is revoked from role {role}");
    }
    let end = if range_end == ZERO { "<open ended>".to_owned() } else { format!("{end})") };
    format!("Permission of range [{key}, {end} is revoked from role {role}")
}

#[cfg(test)]
#[path = "access_test.rs"]
mod tests;
