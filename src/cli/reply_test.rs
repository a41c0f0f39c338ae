//! Each format against what etcdctl prints for the same answers.

use bytes::Bytes;

use super::{Health, Reply, ValuesOnly, write};
use crate::cli::access::Answer;
use crate::cli::args::Format;
use crate::wire::authpb::Permission;
use crate::wire::etcdserverpb::{
    AlarmMember, AlarmResponse, AuthRoleGetResponse, AuthRoleListResponse, AuthStatusResponse,
    AuthUserGetResponse, AuthUserListResponse, DeleteRangeResponse, DowngradeInfo, HashKvResponse,
    LeaseGrantResponse, LeaseKeepAliveResponse, LeaseLeasesResponse, LeaseRevokeResponse, LeaseStatus,
    LeaseTimeToLiveResponse, Member, MemberAddResponse, MemberListResponse, MemberPromoteResponse,
    MemberRemoveResponse, MemberUpdateResponse, MoveLeaderResponse, PutResponse, RangeResponse,
    ResponseHeader, ResponseOp, StatusResponse, TxnResponse, WatchResponse, response_op::Response,
};
use crate::wire::mvccpb::{Event, KeyValue};

fn printed(format: Format, reply: &Reply) -> String {
    let mut out = Vec::new();
    write(&mut out, format, reply).unwrap();
    String::from_utf8(out).unwrap()
}

const HEADER: Option<ResponseHeader> = Some(ResponseHeader {
    cluster_id: 14_841_639_068_965_178_418,
    member_id: 10_276_657_743_932_975_437,
    revision: 2,
    raft_term: 3,
});

fn kv() -> KeyValue {
    KeyValue {
        key: Bytes::from_static(b"foo"),
        value: Bytes::from_static(b"bar"),
        create_revision: 2,
        mod_revision: 2,
        version: 1,
        lease: 0,
    }
}

fn range() -> Reply {
    Reply::Range(RangeResponse { header: HEADER, kvs: vec![kv()], more: false, count: 1 }, ValuesOnly(false))
}

fn txn() -> Reply {
    let inner = Some(ResponseHeader { revision: 2, ..ResponseHeader::default() });
    let responses = [
        Response::ResponsePut(PutResponse { header: inner, prev_kv: None }),
        Response::ResponseDeleteRange(DeleteRangeResponse {
            header: inner,
            deleted: 1,
            prev_kvs: vec![kv()],
        }),
        Response::ResponseRange(RangeResponse { header: inner, kvs: vec![kv()], more: false, count: 1 }),
    ];
    let responses = responses.into_iter().map(|response| ResponseOp { response: Some(response) }).collect();
    Reply::Txn(TxnResponse { header: HEADER, succeeded: true, responses })
}

fn status() -> Reply {
    let answer = StatusResponse {
        header: HEADER,
        version: "3.6.0".to_owned(),
        db_size: 20_480,
        leader: 10_276_657_743_932_975_437,
        raft_index: 4,
        raft_term: 3,
        raft_applied_index: 4,
        errors: vec![],
        db_size_in_use: 16_384,
        is_learner: false,
        storage_version: "3.6.0".to_owned(),
        db_size_quota: 2_147_483_648,
        downgrade_info: Some(DowngradeInfo::default()),
    };
    Reply::Status(vec![("127.0.0.1:2379".to_owned(), answer)])
}

#[test]
fn simple_is_what_scripts_expect() {
    assert_eq!(printed(Format::Simple, &range()), "foo\nbar\n");
    let Reply::Range(response, _) = range() else { unreachable!() };
    assert_eq!(printed(Format::Simple, &Reply::Range(response, ValuesOnly(true))), "bar\n");
    let put = |prev_kv| Reply::Put(PutResponse { header: HEADER, prev_kv });
    assert_eq!(printed(Format::Simple, &put(None)), "OK\n");
    assert_eq!(printed(Format::Simple, &put(Some(kv()))), "OK\nfoo\nbar\n");
    let delete = Reply::Delete(DeleteRangeResponse { header: HEADER, deleted: 1, prev_kvs: vec![kv()] });
    assert_eq!(printed(Format::Simple, &delete), "1\nfoo\nbar\n");
    assert_eq!(printed(Format::Simple, &txn()), "SUCCESS\n\nOK\n\n1\nfoo\nbar\n\nfoo\nbar\n");
    for format in [Format::Simple, Format::Json, Format::Fields] {
        assert_eq!(printed(format, &Reply::Compacted(7)), "compacted revision 7\n");
    }
    assert_eq!(
        printed(Format::Simple, &status()),
        "127.0.0.1:2379, 8e9e05c52164694d, 3.6.0, 3.6.0, 20 kB, 16 kB, 20%, 2.1 GB, true, false, 3, 4, 4, , , false\n"
    );
}

#[test]
fn simple_prints_bytes_as_they_are() {
    let kv = KeyValue { key: Bytes::from_static(b"\xff\0"), ..KeyValue::default() };
    let reply = Reply::Range(RangeResponse { kvs: vec![kv], ..RangeResponse::default() }, ValuesOnly(false));
    let mut out = Vec::new();
    write(&mut out, Format::Simple, &reply).unwrap();
    assert_eq!(out, b"\xff\0\n\n", "an empty value is an empty line");
}

#[test]
fn json_is_gos() {
    let head = r#""header":{"cluster_id":14841639068965178418,"member_id":10276657743932975437,"revision":2,"raft_term":3}"#;
    let pair = r#"{"key":"Zm9v","create_revision":2,"mod_revision":2,"version":1,"value":"YmFy"}"#;
    assert_eq!(printed(Format::Json, &range()), format!("{{{head},\"kvs\":[{pair}],\"count\":1}}\n"));
    let empty = Reply::Range(RangeResponse { header: HEADER, ..RangeResponse::default() }, ValuesOnly(false));
    assert_eq!(printed(Format::Json, &empty), format!("{{{head}}}\n"));
    let put = Reply::Put(PutResponse { header: HEADER, prev_kv: Some(kv()) });
    assert_eq!(printed(Format::Json, &put), format!("{{{head},\"prev_kv\":{pair}}}\n"));
    let inner = r#""header":{"revision":2}"#;
    assert_eq!(
        printed(Format::Json, &txn()),
        format!(
            "{{{head},\"succeeded\":true,\"responses\":[{{\"Response\":{{\"response_put\":{{{inner}}}}}}},\
             {{\"Response\":{{\"response_delete_range\":{{{inner},\"deleted\":1,\"prev_kvs\":[{pair}]}}}}}},\
             {{\"Response\":{{\"response_range\":{{{inner},\"kvs\":[{pair}],\"count\":1}}}}}}]}}\n"
        )
    );
    assert_eq!(
        printed(Format::Json, &status()),
        format!(
            "[{{\"Endpoint\":\"127.0.0.1:2379\",\"Status\":{{{head},\"version\":\"3.6.0\",\"dbSize\":20480,\
             \"leader\":10276657743932975437,\"raftIndex\":4,\"raftTerm\":3,\"raftAppliedIndex\":4,\
             \"dbSizeInUse\":16384,\"storageVersion\":\"3.6.0\",\"dbSizeQuota\":2147483648,\"downgradeInfo\":{{}}}}}}]\n"
        )
    );
}

#[test]
fn fields_are_all_there() {
    let head = "\"ClusterID\" : 14841639068965178418\n\"MemberID\" : 10276657743932975437\n\"Revision\" : 2\n\"RaftTerm\" : 3\n";
    let pair = "\"Key\" : \"foo\"\n\"CreateRevision\" : 2\n\"ModRevision\" : 2\n\"Version\" : 1\n\"Value\" : \"bar\"\n\"Lease\" : 0\n";
    assert_eq!(printed(Format::Fields, &range()), format!("{head}{pair}\"More\" : false\n\"Count\" : 1\n"));
    let put = Reply::Put(PutResponse { header: HEADER, prev_kv: Some(kv()) });
    let prev = pair.replace("\n\"", "\n\"Prev").replacen('"', "\"Prev", 1);
    assert_eq!(printed(Format::Fields, &put), format!("{head}{prev}"));
    assert!(
        printed(Format::Fields, &txn())
            .starts_with(&format!("{head}\"Succeeded\" : true\n\"ClusterID\" : 0\n"))
    );
    let status = printed(Format::Fields, &status());
    for line in [
        "\"StorageVersion\" : \"3.6.0\"",
        "\"DBSizeQuota\" : 2147483648",
        "\"Errors\" : []",
        "\"Endpoint\" : \"127.0.0.1:2379\"",
    ] {
        assert!(status.lines().any(|have| have == line), "{line}");
    }
    assert!(status.starts_with(head) && status.ends_with("\"DowngradeEnabled\" : false\n\n"));
}

const JSON_HEADER: &str =
    r#""cluster_id":14841639068965178418,"member_id":10276657743932975437,"revision":2,"raft_term":3"#;
const FIELDS_HEADER: &str = "\"ClusterID\" : 14841639068965178418\n\"MemberID\" : 10276657743932975437\n\"Revision\" : 2\n\"RaftTerm\" : 3\n";

/// As etcdctl 3.5.30 prints them.
#[test]
fn leases() {
    let granted = LeaseGrantResponse { header: HEADER, id: 0x2a, ttl: 100, error: String::new() };
    let keys = vec![Bytes::from_static(b"foo"), Bytes::from_static(b"fog")];
    let lives = LeaseTimeToLiveResponse { header: HEADER, id: 0x2a, ttl: 99, granted_ttl: 100, keys };
    let gone = LeaseTimeToLiveResponse { header: HEADER, id: 0x2a, ttl: -1, ..Default::default() };
    let leases = vec![LeaseStatus { id: 0x2a }, LeaseStatus { id: -1 }];
    let cases = [
        (
            Reply::LeaseGranted(granted),
            "lease 000000000000002a granted with TTL(100s)\n",
            r#""ID":42,"TTL":100,"Error":"""#,
            "\"ID\" : 42\n\"TTL\" : 100\n",
        ),
        (
            Reply::LeaseTimeToLive(lives, true),
            "lease 000000000000002a granted with TTL(100s), remaining(99s), attached keys([foo fog])\n",
            r#""id":42,"ttl":99,"granted-ttl":100,"keys":["Zm9v","Zm9n"]"#,
            "\"ID\" : 42\n\"TTL\" : 99\n\"GrantedTTL\" : 100\n\"Key\" : \"foo\"\n\"Key\" : \"fog\"\n",
        ),
        (
            Reply::LeaseTimeToLive(gone, false),
            "lease 000000000000002a already expired\n",
            r#""id":42,"ttl":-1,"granted-ttl":0,"keys":null"#,
            "\"ID\" : 42\n\"TTL\" : -1\n\"GrantedTTL\" : 0\n",
        ),
        (
            Reply::Leases(LeaseLeasesResponse { header: HEADER, leases }),
            "found 2 leases\n000000000000002a\n-000000000000001\n",
            r#""leases":[{"id":42},{"id":-1}]"#,
            "\"ID\" : 42\n\"ID\" : -1\n",
        ),
        (
            Reply::LeaseKeptAlive(LeaseKeepAliveResponse { header: HEADER, id: 0x2a, ttl: 100 }),
            "lease 000000000000002a keepalived with TTL(100)\n",
            r#""ID":42,"TTL":100"#,
            "\"ID\" : 42\n\"TTL\" : 100\n",
        ),
    ];
    for (reply, simple, json, fields) in cases {
        assert_eq!(printed(Format::Simple, &reply), simple);
        assert_eq!(printed(Format::Json, &reply), format!("{{{JSON_HEADER},{json}}}\n"));
        assert_eq!(printed(Format::Fields, &reply), format!("{FIELDS_HEADER}{fields}"));
    }
    let revoked = Reply::LeaseRevoked(0x2a, LeaseRevokeResponse { header: HEADER });
    assert_eq!(printed(Format::Simple, &revoked), "lease 000000000000002a revoked\n");
    assert_eq!(printed(Format::Json, &revoked), format!("{{\"header\":{{{JSON_HEADER}}}}}\n"));
    assert_eq!(printed(Format::Fields, &revoked), FIELDS_HEADER);
}

/// As etcdctl 3.5.30 prints them.
#[test]
fn watches() {
    let gone = KeyValue { value: Bytes::new(), create_revision: 0, version: 0, mod_revision: 3, ..kv() };
    let put = Event { r#type: 0, kv: Some(kv()), prev_kv: None };
    let delete = Event { r#type: 1, kv: Some(gone), prev_kv: Some(kv()) };
    let changes = WatchResponse { header: HEADER, events: vec![put, delete], ..Default::default() };
    let changes = Reply::Watch(changes);
    assert_eq!(printed(Format::Simple, &changes), "PUT\nfoo\nbar\nDELETE\nfoo\nbar\nfoo\n\n");
    let pair = r#"{"key":"Zm9v","create_revision":2,"mod_revision":2,"version":1,"value":"YmFy"}"#;
    let json = format!(
        r#"{{"Header":{{{JSON_HEADER}}},"Events":[{{"kv":{pair}}},{{"type":1,"kv":{{"key":"Zm9v","mod_revision":3}},"prev_kv":{pair}}}],"CompactRevision":0,"Canceled":false,"Created":false}}"#
    );
    assert_eq!(printed(Format::Json, &changes), json + "\n");
    let fields = |prefix: &str, of_key: [i64; 3], value: &str| {
        let [created, changed, version] = of_key;
        format!(
            "\"{prefix}Key\" : \"foo\"\n\"{prefix}CreateRevision\" : {created}\n\"{prefix}ModRevision\" : {changed}\n\"{prefix}Version\" : {version}\n\"{prefix}Value\" : \"{value}\"\n\"{prefix}Lease\" : 0\n"
        )
    };
    let (now, before, after) =
        (fields("", [2, 2, 1], "bar"), fields("Prev", [2, 2, 1], "bar"), fields("", [0, 3, 0], ""));
    assert_eq!(
        printed(Format::Fields, &changes),
        format!("{FIELDS_HEADER}\"Type\" : PUT\n{now}\"Type\" : DELETE\n{before}{after}")
    );
    let end = WatchResponse { canceled: true, compact_revision: 22, ..Default::default() };
    assert_eq!(
        printed(Format::Json, &Reply::Watch(end)),
        "{\"Header\":{},\"Events\":[],\"CompactRevision\":22,\"Canceled\":true,\"Created\":false}\n"
    );
}

fn members() -> Vec<Member> {
    let voter = Member {
        id: 0x8e9e_05c5_2164_694d,
        name: "a".to_owned(),
        peer_urls: vec!["http://a:1".to_owned()],
        client_urls: vec!["http://a:3".to_owned(), "http://a:4".to_owned()],
        is_learner: false,
    };
    let peer_urls = vec!["http://d:1".to_owned(), "http://d:2".to_owned()];
    vec![voter, Member { id: 0xd, peer_urls, is_learner: true, ..Member::default() }]
}

const VOTER_JSON: &str = r#"{"ID":10276657743932975437,"name":"a","peerURLs":["http://a:1"],"clientURLs":["http://a:3","http://a:4"]}"#;
const LEARNER_JSON: &str = r#"{"ID":13,"peerURLs":["http://d:1","http://d:2"],"isLearner":true}"#;
const LEARNER_FIELDS: &str = "\"ID\" : 13\n\"Name\" : \"\"\n\"PeerURL\" : \"http://d:1\"\n\"PeerURL\" : \"http://d:2\"\n\"IsLearner\" : true\n\n";

/// As etcdctl 3.5.30 prints them; of a change it prints no fields.
#[test]
fn members_and_their_changes() {
    let list = Reply::Members(MemberListResponse { header: HEADER, members: members() });
    assert_eq!(
        printed(Format::Simple, &list),
        "8e9e05c52164694d, started, a, http://a:1, http://a:3,http://a:4, false\nd, unstarted, , http://d:1,http://d:2, , true\n"
    );
    let head = format!("\"header\":{{{JSON_HEADER}}}");
    let all = format!("\"members\":[{VOTER_JSON},{LEARNER_JSON}]");
    assert_eq!(printed(Format::Json, &list), format!("{{{head},{all}}}\n"));
    let fields = printed(Format::Fields, &list);
    assert!(fields.starts_with(FIELDS_HEADER) && fields.ends_with(LEARNER_FIELDS), "{fields}");
    assert!(
        fields.contains("\"Name\" : \"a\"\n\"PeerURL\" : \"http://a:1\"\n\"ClientURL\" : \"http://a:3\"\n")
    );

    let add = |is_learner| {
        let members = vec![members()[0].clone(), Member { is_learner, ..members()[1].clone() }];
        let response = MemberAddResponse { header: HEADER, member: Some(members[1].clone()), members };
        Reply::MemberAdded("d\"".to_owned(), response)
    };
    let settings = r#"
ETCD_NAME="d\""
ETCD_INITIAL_CLUSTER="a=http://a:1,d\"=http://d:1,d\"=http://d:2"
ETCD_INITIAL_ADVERTISE_PEER_URLS="http://d:1,http://d:2"
ETCD_INITIAL_CLUSTER_STATE="existing"
"#;
    for (is_learner, how) in [(true, "added as learner to"), (false, "added to")] {
        assert_eq!(
            printed(Format::Simple, &add(is_learner)),
            format!("Member                d {how} cluster cdf818194e3a8c32\n{settings}")
        );
    }
    assert_eq!(printed(Format::Json, &add(true)), format!("{{{head},\"member\":{LEARNER_JSON},{all}}}\n"));
    assert_eq!(printed(Format::Fields, &add(true)), format!("{FIELDS_HEADER}{LEARNER_FIELDS}"));

    let (id, header, members) = (members()[0].id, HEADER, members());
    let removed = MemberRemoveResponse { header, members: members.clone() };
    let updated = MemberUpdateResponse { header, members: members.clone() };
    let promoted = MemberPromoteResponse { header, members };
    for (reply, how) in [
        (Reply::MemberRemoved(id, removed), "removed from"),
        (Reply::MemberUpdated(id, updated), "updated in"),
        (Reply::MemberPromoted(id, promoted), "promoted in"),
    ] {
        let expected = format!("Member 8e9e05c52164694d {how} cluster cdf818194e3a8c32\n");
        assert_eq!(printed(Format::Simple, &reply), expected);
        assert_eq!(printed(Format::Json, &reply), format!("{{{head},{all}}}\n"));
        assert_eq!(printed(Format::Fields, &reply), FIELDS_HEADER);
    }
    let moved = Reply::LeaderMoved { from: id, to: 0xd, response: MoveLeaderResponse { header: None } };
    assert_eq!(printed(Format::Simple, &moved), "Leadership transferred from 8e9e05c52164694d to d\n");
    assert_eq!(printed(Format::Json, &moved), "{}\n");
}

fn health(error: Option<&str>) -> Health {
    let took = std::time::Duration::from_micros(3_908);
    Health { endpoint: "127.0.0.1:2379".to_owned(), took, error: error.map(str::to_owned) }
}

#[test]
fn what_each_endpoint_says_is_printed_as_etcdctl_does() {
    let healths = Reply::Health(vec![health(None), health(Some("context deadline exceeded"))]);
    assert_eq!(
        printed(Format::Simple, &healths),
        "127.0.0.1:2379 is healthy: successfully committed proposal: took = 3.908ms\n"
    );
    assert_eq!(
        printed(Format::Json, &healths),
        "[{\"endpoint\":\"127.0.0.1:2379\",\"health\":true,\"took\":\"3.908ms\"},\
         {\"endpoint\":\"127.0.0.1:2379\",\"health\":false,\"took\":\"3.908ms\",\
         \"error\":\"context deadline exceeded\"}]\n"
    );
    assert_eq!(
        printed(Format::Fields, &Reply::Health(vec![health(None)])),
        "\"Endpoint\" : \"127.0.0.1:2379\"\n\"Health\" : true\n\"Took\" : 3.908ms\n\"Error\" : \n\n"
    );
    let hash = HashKvResponse { header: HEADER, hash: 7, compact_revision: -1, hash_revision: 0 };
    let hashes = Reply::Hashes(vec![("a:1".to_owned(), hash)]);
    assert_eq!(printed(Format::Simple, &hashes), "a:1, 7\n");
    assert!(
        printed(Format::Json, &hashes).ends_with("\"raft_term\":3},\"hash\":7,\"compact_revision\":-1}}]\n")
    );
    assert!(
        printed(Format::Fields, &hashes)
            .ends_with("\"RaftTerm\" : 3\n\"Endpoint\" : \"a:1\"\n\"Hash\" : 7\n\n")
    );
    let member = AlarmMember { member_id: 12, alarm: 1 };
    let alarms = Reply::Alarms(AlarmResponse { header: HEADER, alarms: vec![member] });
    assert_eq!(printed(Format::Simple, &alarms), "memberID:12 alarm:NOSPACE \n");
    assert!(printed(Format::Json, &alarms).ends_with("},\"alarms\":[{\"memberID\":12,\"alarm\":1}]}\n"));
    assert!(printed(Format::Fields, &alarms).ends_with("\"MemberID\" : 12\n\"AlarmType\" : NOSPACE\n\n"));
}

#[test]
fn bytes_are_printed_in_hexadecimal_when_that_is_asked_for() {
    assert_eq!(printed(Format::Hex, &range()), "\\x66\\x6f\\x6f\n\\x62\\x61\\x72\n");
    let values = match range() {
        Reply::Range(response, _) => Reply::Range(response, ValuesOnly(true)),
        other => other,
    };
    assert_eq!(printed(Format::Hex, &values), "\\x62\\x61\\x72\n");
    assert!(printed(Format::Hex, &txn()).starts_with("SUCCESS\n\nOK\n\n1\n\\x66"), "words stay words");
}

#[test]
fn what_is_a_table_is_drawn() {
    let member = Member { id: 0xbeef, name: "a".to_owned(), ..Member::default() };
    let members = Reply::Members(MemberListResponse { header: HEADER, members: vec![member] });
    assert_eq!(
        printed(Format::Table, &members),
        "\
┌──────┬─────────┬──────┬────────────┬──────────────┬────────────┐
│  ID  │ STATUS  │ NAME │ PEER ADDRS │ CLIENT ADDRS │ IS LEARNER │
├──────┼─────────┼──────┼────────────┼──────────────┼────────────┤
│ beef │ started │    a │            │              │      false │
└──────┴─────────┴──────┴────────────┴──────────────┴────────────┘
"
    );
    let table = printed(Format::Table, &status());
    let columns = |line: usize| table.lines().nth(line).unwrap().split('│').count();
    assert_eq!((columns(1), columns(3)), (18, 18), "{table}");
    assert_eq!(printed(Format::Table, &Reply::Health(vec![health(None)])).lines().count(), 5);
}

fn role() -> AuthRoleGetResponse {
    let permission = |kind: i32, key: &'static str, end: &'static str| Permission {
        perm_type: kind,
        key: Bytes::from_static(key.as_bytes()),
        range_end: Bytes::from_static(end.as_bytes()),
    };
    let perm = vec![
        permission(0, "k", ""),
        permission(2, "p/", "p0"),
        permission(1, "z", "\0"),
        permission(0, "a", "c"),
    ];
    AuthRoleGetResponse { header: HEADER, perm }
}

/// What etcdctl 3.5.30 prints.
#[test]
fn users_and_roles_are_printed_as_etcdctl_does() {
    let access = Reply::Access;
    let shown = printed(Format::Simple, &access(Answer::Role("r".to_owned(), role())));
    let lines = "Role r\nKV Read:\n\tk\n\t[p/, p0) (prefix p/)\n\t[a, c)\nKV Write:\n\t[p/, p0) (prefix p/)\n\t[z, <open ended>\n";
    assert_eq!(shown, lines);
    let detail = || access(Answer::Detail("u".to_owned(), vec![("r".to_owned(), role())]));
    assert_eq!(printed(Format::Simple, &detail()), format!("User: u\n\n{lines}"));
    let json = printed(Format::Json, &access(Answer::Role("r".to_owned(), role())));
    let perm = "\"perm\":[{\"key\":\"aw==\"},{\"permType\":2,\"key\":\"cC8=\",\"range_end\":\"cDA=\"},";
    assert!(json.contains(perm), "{json}");
    assert_eq!(printed(Format::Json, &detail()), format!("User: u\n\n{json}"));
    let fields = printed(Format::Fields, &access(Answer::Role("r".to_owned(), role())));
    assert!(
        fields.contains("\"RaftTerm\" : 3\n\"PermType\" :  READ\n\"Key\" : \"k\"\n\"RangeEnd\" : \"\"\n"),
        "{fields}"
    );

    let user = AuthUserGetResponse { header: HEADER, roles: vec!["r".to_owned(), "s".to_owned()] };
    assert_eq!(printed(Format::Simple, &access(Answer::User("u".to_owned(), user))), "User: u\nRoles: r s\n");
    let users = || AuthUserListResponse { header: HEADER, users: vec!["u".to_owned(), "v".to_owned()] };
    assert_eq!(printed(Format::Simple, &access(Answer::Users(users()))), "u\nv\n");
    assert!(printed(Format::Json, &access(Answer::Users(users()))).ends_with("},\"users\":[\"u\",\"v\"]}\n"));
    let roles = || AuthRoleListResponse { header: HEADER, roles: vec!["r".to_owned(), "root".to_owned()] };
    assert!(
        printed(Format::Fields, &access(Answer::Roles(roles()))).ends_with("\"Roles\" : \"r\" \"root\"\n")
    );
    assert!(
        printed(Format::Json, &access(Answer::Roles(roles()))).ends_with("},\"roles\":[\"r\",\"root\"]}\n")
    );
    let status = |enabled| AuthStatusResponse { header: HEADER, enabled, auth_revision: 22 };
    assert_eq!(
        printed(Format::Simple, &access(Answer::Status(status(true)))),
        "Authentication Status: true\nAuthRevision: 22\n"
    );
    assert!(
        printed(Format::Json, &access(Answer::Status(status(false)))).ends_with("},\"authRevision\":22}\n")
    );

    let done = || access(Answer::Done("User u created".to_owned(), HEADER));
    assert_eq!(printed(Format::Simple, &done()), "User u created\n");
    assert!(printed(Format::Json, &done()).starts_with("{\"header\":{\"cluster_id\":"));
    assert!(printed(Format::Fields, &done()).ends_with("\"RaftTerm\" : 3\n"));
    for format in [Format::Simple, Format::Json, Format::Fields, Format::Table] {
        let said = Reply::Access(Answer::Said("Authentication Enabled"));
        assert_eq!(printed(format, &said), "Authentication Enabled\n");
    }
}
