"""What an operation is, and how it becomes a request.

Owns: the form of operations and their conversion. Must never: know a server. An operation is plain Python data, so
that a sequence can be printed, cut down, pasted into a file and played again:

  ("put", {"key": b"a", "value": b"1"})

The name is one of REQUESTS, or of the player's own operations (player.py: watches, restarts and so on); the fields are
the request's. A number may be a tuple that is worked out when the operation is played, so that what it means survives
when operations before it are taken away:

  ("now", -2)        the store's revision, less two
  ("compacted", 1)   the revision of the last compaction, and one
  ("mod", b"a", 0)   the revision of the last change of a key (1 if there is none)
  ("auto", "x")      the lease that was granted last under this name
  ("own",)           the id of the server's only member

and a long value may be ("bytes", 7, 1000): a thousand times the byte 7.

The field "by" is no part of the request. It says who asks, by the token of that user's last login (side.py): without it
nobody does.
"""

import zlib

from stubs import make_stubs

((kv, kv_grpc), (lease, lease_grpc), (watch, watch_grpc), (maintenance, maintenance_grpc), (v3lock, v3lock_grpc),
 (v3election, v3election_grpc), (auth, auth_grpc), (cluster, cluster_grpc)) = make_stubs(
     "kv", "lease", "watch", "maintenance", "v3lock", "v3election", "auth", "cluster")

SHOWN_BYTES_MAX = 100
INT64_MIN, INT64_MAX = -(2**63), 2**63 - 1

# name: (service, method, request)
REQUESTS = {
    "range": ("kv", "Range", kv.RangeRequest),
    "put": ("kv", "Put", kv.PutRequest),
    "delete": ("kv", "DeleteRange", kv.DeleteRangeRequest),
    "txn": ("kv", "Txn", kv.TxnRequest),
    "compact": ("kv", "Compact", kv.CompactionRequest),
    "grant": ("lease", "LeaseGrant", lease.LeaseGrantRequest),
    "revoke": ("lease", "LeaseRevoke", lease.LeaseRevokeRequest),
    "time_to_live": ("lease", "LeaseTimeToLive", lease.LeaseTimeToLiveRequest),
    "leases": ("lease", "LeaseLeases", lease.LeaseLeasesRequest),
    "hash_kv": ("maintenance", "HashKV", maintenance.HashKVRequest),
    "status": ("maintenance", "Status", maintenance.StatusRequest),
    "alarm": ("maintenance", "Alarm", maintenance.AlarmRequest),
    "lock": ("lock", "Lock", v3lock.LockRequest),
    "unlock": ("lock", "Unlock", v3lock.UnlockRequest),
    "campaign": ("election", "Campaign", v3election.CampaignRequest),
    "proclaim": ("election", "Proclaim", v3election.ProclaimRequest),
    "leader": ("election", "Leader", v3election.LeaderRequest),
    "resign": ("election", "Resign", v3election.ResignRequest),
    "defragment": ("maintenance", "Defragment", maintenance.DefragmentRequest),
    "hash": ("maintenance", "Hash", maintenance.HashRequest),
    "move_leader": ("maintenance", "MoveLeader", maintenance.MoveLeaderRequest),
    "member_list": ("cluster", "MemberList", cluster.MemberListRequest),
    "member_add": ("cluster", "MemberAdd", cluster.MemberAddRequest),
    "member_remove": ("cluster", "MemberRemove", cluster.MemberRemoveRequest),
    "member_promote": ("cluster", "MemberPromote", cluster.MemberPromoteRequest),
    "member_update": ("cluster", "MemberUpdate", cluster.MemberUpdateRequest),
    "auth_enable": ("auth", "AuthEnable", auth.AuthEnableRequest),
    "auth_disable": ("auth", "AuthDisable", auth.AuthDisableRequest),
    "auth_status": ("auth", "AuthStatus", auth.AuthStatusRequest),
    "login": ("auth", "Authenticate", auth.AuthenticateRequest),
    "user_add": ("auth", "UserAdd", auth.AuthUserAddRequest),
    "user_get": ("auth", "UserGet", auth.AuthUserGetRequest),
    "user_list": ("auth", "UserList", auth.AuthUserListRequest),
    "user_delete": ("auth", "UserDelete", auth.AuthUserDeleteRequest),
    "change_password": ("auth", "UserChangePassword", auth.AuthUserChangePasswordRequest),
    "grant_role": ("auth", "UserGrantRole", auth.AuthUserGrantRoleRequest),
    "revoke_role": ("auth", "UserRevokeRole", auth.AuthUserRevokeRoleRequest),
    "role_add": ("auth", "RoleAdd", auth.AuthRoleAddRequest),
    "role_get": ("auth", "RoleGet", auth.AuthRoleGetRequest),
    "role_list": ("auth", "RoleList", auth.AuthRoleListRequest),
    "role_delete": ("auth", "RoleDelete", auth.AuthRoleDeleteRequest),
    "grant_permission": ("auth", "RoleGrantPermission", auth.AuthRoleGrantPermissionRequest),
    "revoke_permission": ("auth", "RoleRevokePermission", auth.AuthRoleRevokePermissionRequest),
}
RESPONSES = {
    "range": kv.RangeResponse, "put": kv.PutResponse, "delete": kv.DeleteRangeResponse, "txn": kv.TxnResponse,
    "compact": kv.CompactionResponse, "grant": lease.LeaseGrantResponse, "revoke": lease.LeaseRevokeResponse,
    "time_to_live": lease.LeaseTimeToLiveResponse, "leases": lease.LeaseLeasesResponse,
    "hash_kv": maintenance.HashKVResponse, "status": maintenance.StatusResponse, "alarm": maintenance.AlarmResponse,
    "lock": v3lock.LockResponse, "unlock": v3lock.UnlockResponse, "campaign": v3election.CampaignResponse,
    "proclaim": v3election.ProclaimResponse, "leader": v3election.LeaderResponse, "resign": v3election.ResignResponse,
    "defragment": maintenance.DefragmentResponse, "hash": maintenance.HashResponse,
    "move_leader": maintenance.MoveLeaderResponse, "member_list": cluster.MemberListResponse,
    "member_add": cluster.MemberAddResponse, "member_remove": cluster.MemberRemoveResponse,
    "member_promote": cluster.MemberPromoteResponse, "member_update": cluster.MemberUpdateResponse, "auth_enable": auth.AuthEnableResponse,
    "auth_disable": auth.AuthDisableResponse, "auth_status": auth.AuthStatusResponse, "login": auth.AuthenticateResponse,
    "user_add": auth.AuthUserAddResponse, "user_get": auth.AuthUserGetResponse, "user_list": auth.AuthUserListResponse,
    "user_delete": auth.AuthUserDeleteResponse, "change_password": auth.AuthUserChangePasswordResponse,
    "grant_role": auth.AuthUserGrantRoleResponse, "revoke_role": auth.AuthUserRevokeRoleResponse,
    "role_add": auth.AuthRoleAddResponse, "role_get": auth.AuthRoleGetResponse, "role_list": auth.AuthRoleListResponse,
    "role_delete": auth.AuthRoleDeleteResponse, "grant_permission": auth.AuthRoleGrantPermissionResponse,
    "revoke_permission": auth.AuthRoleRevokePermissionResponse,
}
STUBS = {"kv": kv_grpc.KVStub, "lease": lease_grpc.LeaseStub, "watch": watch_grpc.WatchStub,
         "maintenance": maintenance_grpc.MaintenanceStub, "lock": v3lock_grpc.LockStub,
         "election": v3election_grpc.ElectionStub, "auth": auth_grpc.AuthStub, "cluster": cluster_grpc.ClusterStub}

HEADER, BY = "header", "by"
OWN = ("own",)
# What an alias stands for whose grant failed or was cut away: for each another, or one lease would have two names.
NO_LEASE_IDS = {"x": 0x7ffffffffffffff1, "y": 0x7ffffffffffffff2}


def fill(message, fields, resolve):
    """Sets `fields` of `message`; tuples are numbers that `resolve` works out."""
    for name, value in fields.items():
        if name == BY:
            continue
        if isinstance(value, dict):
            part = getattr(message, name)
            part.SetInParent()
            fill(part, value, resolve)
        elif isinstance(value, list):
            repeated = getattr(message, name)
            for item in value:
                if isinstance(item, dict):
                    fill(repeated.add(), item, resolve)
                else:
                    repeated.append(item)
        elif isinstance(value, tuple) and value[0] == "bytes":
            setattr(message, name, bytes([value[1]]) * value[2])
        elif isinstance(value, tuple):
            setattr(message, name, resolve(value) if value == OWN else clamp(resolve(value)))
        else:
            setattr(message, name, value)
    return message


def clamp(number):
    return max(INT64_MIN, min(INT64_MAX, number))


def plain(message):
    """The message as dicts, lists and scalars; what has no value is left out, as it is on the wire."""
    found = {}
    for field, value in message.ListFields():
        if field.message_type is None:
            found[field.name] = [brief(item) for item in value] if field.is_repeated else brief(value)
        elif field.is_repeated:
            found[field.name] = [plain(item) for item in value]
        else:
            found[field.name] = plain(value)
    return found


def brief(value):
    """A long value by its length and a checksum, so that a difference can be read."""
    if isinstance(value, bytes) and len(value) > SHOWN_BYTES_MAX:
        return f"{len(value)} bytes, crc {zlib.crc32(value):08x}, begins {value[:8]!r}"
    return value


def written(operations):
    """A sequence as text that `read` takes."""
    lines = "".join(f"    {operation!r},\n" for operation in operations)
    return f"[\n{lines}]"
