//! The Auth service (API reference, section 6).
//!
//! Owns: what is made of a password before anything is proposed, and what is told of users and roles. Must never: tell by time whether a user exists, or let a password get any further.
//! Driven by `dispatch`.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tonic::{Request, Response, Status};

use super::credentials::{Asker, Credentials, Holder, is_hash, to_compare};
use super::logins::Permits;
use super::node::{Freshness, Node};
use super::{errors, parse, render};
use crate::auth::ROOT;
use crate::command::{AuthCommand, Command, KeyRange, PasswordHash, Rejection};
use crate::limits::AUTH_NAME_BYTES_MAX;
use crate::mvcc::View;
use crate::wire::etcdserverpb as pb;
use crate::wire::etcdserverpb::auth_server::Auth;

/// How often a login is begun anew whose user changes while the password is compared.
const TRIES_MAX: usize = 4;

/// Serves `etcdserverpb.Auth`.
pub struct AuthService {
    node: Node,
}

impl AuthService {
    /// The service of a node.
    pub fn new(node: Node) -> Self {
        Self { node }
    }

    async fn change(
        &self,
        credentials: &Credentials,
        command: AuthCommand,
    ) -> Result<Option<pb::ResponseHeader>, Status> {
        self.node.handle().view().facts().auth.check_bounds(&command)?;
        let (revision, _) = self.node.propose(credentials, Command::Auth(command)).await?;
        Ok(Some(self.node.header(revision)))
    }

    /// What is kept of a password, or of what a client has made of it already.
    async fn password(
        &self,
        asker: Option<Asker>,
        password: String,
        hashed: &str,
    ) -> Result<PasswordHash, Status> {
        if !password.is_empty() || hashed.is_empty() {
            let hash = self.node.logins().passwords.hash(self.node.handle(), asker, password).await?;
            return Ok(PasswordHash(hash));
        }
        // As Go has it: tools that write base64 break lines.
        let decoded = STANDARD
            .decode(hashed.replace(['\r', '\n'], ""))
            .ok()
            .and_then(|hash| String::from_utf8(hash).ok());
        decoded.filter(|hash| is_hash(hash)).map(PasswordHash).ok_or_else(errors::no_password_hash)
    }

    /// All that was acknowledged before, in which the caller is root.
    async fn view_for_root(&self, credentials: &Credentials) -> Result<Arc<View>, Status> {
        let view = self.node.view(Freshness::Linearizable).await?;
        let (view, _) = self.node.permitted(credentials, view, |permits| permits.access.is_root()).await?;
        Ok(view)
    }

    /// Compares a password, and gives a token for it.
    async fn log_in(&self, asker: Option<Asker>, name: &str, password: &str) -> Result<String, Status> {
        let logins = self.node.logins();
        for _ in 0..TRIES_MAX {
            let view = self.node.handle().view();
            let auth = &view.facts().auth;
            if !auth.enabled {
                return Err(errors::auth_not_enabled());
            }
            let user = auth.user(name);
            if user.is_some_and(|user| user.no_password) {
                return Err(errors::no_password_user());
            }
            let since = user.map(|user| user.since);
            // Where there is no such user, root's is compared, in vain: that takes what the users' take here, whatever this member would hash at.
            let hash = user.or_else(|| auth.user(ROOT)).map(|user| user.password.0.clone());
            drop(view);
            let is_right =
                logins.passwords.is_right(self.node.handle(), asker, hash, password.to_owned()).await?;
            // Meanwhile the user may have been given another password.
            let view = self.node.handle().view();
            if view.facts().auth.user(name).map(|user| user.since) != since {
                continue;
            }
            let Some(since) = since.filter(|_| is_right) else { return Err(errors::auth_failed()) };
            return self.node.token_for(view, Holder { user: name.to_owned(), since }).await;
        }
        Err(Rejection::AuthRevisionOld.into())
    }
}

#[tonic::async_trait]
impl Auth for AuthService {
    async fn auth_enable(
        &self,
        request: Request<pb::AuthEnableRequest>,
    ) -> Result<Response<pb::AuthEnableResponse>, Status> {
        let header = self.change(&Credentials::of_call(&request), AuthCommand::Enable).await?;
        Ok(Response::new(pb::AuthEnableResponse { header }))
    }

    async fn auth_disable(
        &self,
        request: Request<pb::AuthDisableRequest>,
    ) -> Result<Response<pb::AuthDisableResponse>, Status> {
        let header = self.change(&Credentials::of_call(&request), AuthCommand::Disable).await?;
        Ok(Response::new(pb::AuthDisableResponse { header }))
    }

    async fn auth_status(
        &self,
        _: Request<pb::AuthStatusRequest>,
    ) -> Result<Response<pb::AuthStatusResponse>, Status> {
        let view = self.node.view(Freshness::Linearizable).await?;
        let auth = &view.facts().auth;
        Ok(Response::new(pb::AuthStatusResponse {
            header: Some(self.node.header(view.revision())),
            enabled: auth.enabled,
            auth_revision: auth.revision.0,
        }))
    }

    async fn authenticate(
        &self,
        request: Request<pb::AuthenticateRequest>,
    ) -> Result<Response<pb::AuthenticateResponse>, Status> {
        let asker = request.extensions().get().copied();
        let pb::AuthenticateRequest { name, password } = request.into_inner();
        let password = to_compare(password);
        // Nobody has such a name.
        let name = if name.len() > AUTH_NAME_BYTES_MAX { String::new() } else { name };
        self.node.handle().read_barrier().await?;
        let token = self.log_in(asker, &name, &password).await?;
        let header = Some(self.node.header(self.node.handle().view().revision()));
        Ok(Response::new(pb::AuthenticateResponse { header, token }))
    }

    async fn user_add(
        &self,
        request: Request<pb::AuthUserAddRequest>,
    ) -> Result<Response<pb::AuthUserAddResponse>, Status> {
        let credentials = Credentials::of_call(&request);
        let asker = request.extensions().get().copied();
        // Hashing is not for just anybody.
        self.node.require_root(&credentials).await?;
        let pb::AuthUserAddRequest { name, password, options, hashed_password } = request.into_inner();
        let name = parse::new_name(name)?;
        let no_password = options.is_some_and(|options| options.no_password);
        let password = if no_password || name.is_empty() {
            PasswordHash::default()
        } else {
            self.password(asker, password, &hashed_password).await?
        };
        let header = self.change(&credentials, AuthCommand::AddUser { name, password, no_password }).await?;
        Ok(Response::new(pb::AuthUserAddResponse { header }))
    }

    async fn user_get(
        &self,
        request: Request<pb::AuthUserGetRequest>,
    ) -> Result<Response<pb::AuthUserGetResponse>, Status> {
        let credentials = Credentials::of_call(&request);
        let name = request.into_inner().name;
        let view = self.node.view(Freshness::Linearizable).await?;
        let permits = |permits: Permits<'_>| permits.access.is_root() || permits.is_user(&name);
        let (view, _) = self.node.permitted(&credentials, view, permits).await?;
        let user = view.facts().auth.user(&name).ok_or(Rejection::UserNotFound)?;
        let header = Some(self.node.header(view.revision()));
        Ok(Response::new(pb::AuthUserGetResponse { header, roles: user.roles.clone() }))
    }

    async fn user_list(
        &self,
        request: Request<pb::AuthUserListRequest>,
    ) -> Result<Response<pb::AuthUserListResponse>, Status> {
        let view = self.view_for_root(&Credentials::of_call(&request)).await?;
        let users = view.facts().auth.users.keys().cloned().collect();
        let header = Some(self.node.header(view.revision()));
        Ok(Response::new(pb::AuthUserListResponse { header, users }))
    }

    async fn user_delete(
        &self,
        request: Request<pb::AuthUserDeleteRequest>,
    ) -> Result<Response<pb::AuthUserDeleteResponse>, Status> {
        let credentials = Credentials::of_call(&request);
        let name = request.into_inner().name;
        let header = self.change(&credentials, AuthCommand::DeleteUser { name }).await?;
        Ok(Response::new(pb::AuthUserDeleteResponse { header }))
    }

    async fn user_change_password(
        &self,
        request: Request<pb::AuthUserChangePasswordRequest>,
    ) -> Result<Response<pb::AuthUserChangePasswordResponse>, Status> {
        let credentials = Credentials::of_call(&request);
        let asker = request.extensions().get().copied();
        self.node.require_root(&credentials).await?;
        let pb::AuthUserChangePasswordRequest { name, password, hashed_password } = request.into_inner();
        let password = self.password(asker, password, &hashed_password).await?;
        let header = self.change(&credentials, AuthCommand::ChangePassword { name, password }).await?;
        Ok(Response::new(pb::AuthUserChangePasswordResponse { header }))
    }

    async fn user_grant_role(
        &self,
        request: Request<pb::AuthUserGrantRoleRequest>,
    ) -> Result<Response<pb::AuthUserGrantRoleResponse>, Status> {
        let credentials = Credentials::of_call(&request);
        let pb::AuthUserGrantRoleRequest { user, role } = request.into_inner();
        let header = self.change(&credentials, AuthCommand::GrantRole { user, role }).await?;
        Ok(Response::new(pb::AuthUserGrantRoleResponse { header }))
    }

    async fn user_revoke_role(
        &self,
        request: Request<pb::AuthUserRevokeRoleRequest>,
    ) -> Result<Response<pb::AuthUserRevokeRoleResponse>, Status> {
        let credentials = Credentials::of_call(&request);
        let pb::AuthUserRevokeRoleRequest { name: user, role } = request.into_inner();
        let header = self.change(&credentials, AuthCommand::RevokeRole { user, role }).await?;
        Ok(Response::new(pb::AuthUserRevokeRoleResponse { header }))
    }

    async fn role_add(
        &self,
        request: Request<pb::AuthRoleAddRequest>,
    ) -> Result<Response<pb::AuthRoleAddResponse>, Status> {
        let credentials = Credentials::of_call(&request);
        let name = parse::new_name(request.into_inner().name)?;
        let header = self.change(&credentials, AuthCommand::AddRole { name }).await?;
        Ok(Response::new(pb::AuthRoleAddResponse { header }))
    }

    async fn role_get(
        &self,
        request: Request<pb::AuthRoleGetRequest>,
    ) -> Result<Response<pb::AuthRoleGetResponse>, Status> {
        let credentials = Credentials::of_call(&request);
        let name = request.into_inner().role;
        let view = self.node.view(Freshness::Linearizable).await?;
        let permits = |permits: Permits<'_>| permits.access.is_root() || permits.has_role(&name);
        let (view, _) = self.node.permitted(&credentials, view, permits).await?;
        let auth = &view.facts().auth;
        let perm = match auth.role(&name) {
            // What root may do is not kept.
            _ if name == ROOT => vec![render::everything()],
            Some(role) => role.permissions().iter().map(render::permission).collect(),
            None => return Err(Rejection::RoleNotFound.into()),
        };
        let header = Some(self.node.header(view.revision()));
        Ok(Response::new(pb::AuthRoleGetResponse { header, perm }))
    }

    async fn role_list(
        &self,
        request: Request<pb::AuthRoleListRequest>,
    ) -> Result<Response<pb::AuthRoleListResponse>, Status> {
        let view = self.view_for_root(&Credentials::of_call(&request)).await?;
        let roles = view.facts().auth.roles.keys().cloned().collect();
        let header = Some(self.node.header(view.revision()));
        Ok(Response::new(pb::AuthRoleListResponse { header, roles }))
    }

    async fn role_delete(
        &self,
        request: Request<pb::AuthRoleDeleteRequest>,
    ) -> Result<Response<pb::AuthRoleDeleteResponse>, Status> {
        let credentials = Credentials::of_call(&request);
        let name = request.into_inner().role;
        let header = self.change(&credentials, AuthCommand::DeleteRole { name }).await?;
        Ok(Response::new(pb::AuthRoleDeleteResponse { header }))
    }

    async fn role_grant_permission(
        &self,
        request: Request<pb::AuthRoleGrantPermissionRequest>,
    ) -> Result<Response<pb::AuthRoleGrantPermissionResponse>, Status> {
        let credentials = Credentials::of_call(&request);
        let pb::AuthRoleGrantPermissionRequest { name: role, perm } = request.into_inner();
        let permission = parse::permission(perm)?;
        let header = self.change(&credentials, AuthCommand::GrantPermission { role, permission }).await?;
        Ok(Response::new(pb::AuthRoleGrantPermissionResponse { header }))
    }

    async fn role_revoke_permission(
        &self,
        request: Request<pb::AuthRoleRevokePermissionRequest>,
    ) -> Result<Response<pb::AuthRoleRevokePermissionResponse>, Status> {
        let credentials = Credentials::of_call(&request);
        let pb::AuthRoleRevokePermissionRequest { role, key, range_end } = request.into_inner();
        let range = KeyRange::from_wire(key, range_end);
        let header = self.change(&credentials, AuthCommand::RevokePermission { role, range }).await?;
        Ok(Response::new(pb::AuthRoleRevokePermissionResponse { header }))
    }
}
