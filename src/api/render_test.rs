//! Results to messages on the wire.

use super::*;
use crate::command::MemberAttributes;
use crate::ids::{LeaseId, MemberId};
use crate::store::Member;

#[test]
fn a_key_value_keeps_every_field() {
    let rendered = key_value(KeyValue {
        key: "k".into(),
        value: "v".into(),
        create_revision: Revision(2),
        mod_revision: Revision(5),
        version: 3,
        lease: LeaseId(-9),
    });
    let expected = mvccpb::KeyValue {
        key: "k".into(),
        create_revision: 2,
        mod_revision: 5,
        version: 3,
        value: "v".into(),
        lease: -9,
    };
    assert_eq!(rendered, expected);
}

#[test]
fn inner_headers_have_a_revision_alone_and_nested_ones_none() {
    let header = pb::ResponseHeader { cluster_id: 1, member_id: 2, revision: 9, raft_term: 3 };
    let put = || (Revision(9), OpResult::Put(PutResult::default()));
    let nested = TxnResult { succeeded: true, responses: vec![put()] };
    let responses = vec![
        (Revision(8), OpResult::Range(RangeResult::default())),
        put(),
        (Revision(9), OpResult::Txn(nested)),
    ];
    let answer = txn(header, TxnResult { succeeded: false, responses });
    assert_eq!((answer.header, answer.succeeded), (Some(header), false));
    let only = |revision| Some(pb::ResponseHeader { revision, ..Default::default() });
    let headers: Vec<_> = answer
        .responses
        .iter()
        .map(|op| match op.response.as_ref().unwrap() {
            Response::ResponseRange(range) => range.header,
            Response::ResponsePut(put) => put.header,
            Response::ResponseTxn(txn) => {
                let Some(Response::ResponsePut(put)) = &txn.responses[0].response else { panic!("{txn:?}") };
                assert_eq!(put.header, only(9));
                txn.header
            }
            Response::ResponseDeleteRange(_) => panic!("there is none"),
        })
        .collect();
    assert_eq!(headers, [only(8), only(9), only(0)]);
}

#[test]
fn members_are_shown_with_what_they_said_and_as_what_they_are_to_be() {
    let said = MemberAttributes {
        member: MemberId(2),
        name: "two".into(),
        peer_urls: vec!["http://p".into()],
        client_urls: vec!["http://c".into()],
        ..MemberAttributes::default()
    };
    let kept = MemberAttributes { member: MemberId(9), ..MemberAttributes::default() };
    let facts = Facts {
        members: vec![
            Member { key: None, votes: true, attributes: said },
            Member { key: None, votes: false, attributes: kept },
        ],
        ..Facts::default()
    };
    let rendered = members(&facts);
    let brief: Vec<_> = rendered.iter().map(|m| (m.id, m.name.as_str(), m.is_learner)).collect();
    assert_eq!(brief, [(2, "two", false), (9, "", true)]);
    assert_eq!(
        (&rendered[0].peer_urls[..], &rendered[0].client_urls[..]),
        (&["http://p".into()][..], &["http://c".into()][..])
    );
}
