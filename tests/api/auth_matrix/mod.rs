//! Every method of every service, called by everybody there can be: what each is told.

mod asking;
mod table;

use std::sync::Arc;
use std::time::Duration;

use covey::api::{LoginOptions, TokenKind, methods};
use covey::telemetry::metrics::Metrics;
use covey::wire::etcdserverpb as pb;
use smol::Timer;
use tempfile::TempDir;
use tonic::Code;

use self::asking::{OK, call, message, outcome};
use self::table::{LEASE, Row, admin, table};
use crate::auth::{Land, Shore, jwt, jwt_for};
use crate::harness::{Server, Setup, run};

/// As many as the table's first column has.
const CALLERS: usize = 8;
/// In that column.
const NO_TOKEN: usize = 1;

fn offering_all() -> Setup {
    Setup { metrics: Arc::new(Metrics::new(methods(true))), ..Setup::default() }
}

/// The table's columns.
fn told(row: &Row) -> [&str; 3] {
    let mut told = row.2.split(' ');
    [(); 3].map(|()| told.next().unwrap())
}

#[test]
fn every_method_tells_everybody_what_they_may_not() {
    run(async {
        let mut missing: Vec<String> =
            methods(true).map(|method| format!("{}/{}", method.service, method.method)).collect();
        let table = table();
        missing.retain(|path| table.iter().all(|(row, ..)| row != path));
        assert_eq!(missing, Vec::<String>::new(), "every method is in the table");
        assert_eq!(LEASE, Land::LEASE);

        let ttl = Duration::from_secs(20);
        let mut setup = offering_all();
        setup.options.logins = LoginOptions { tokens: TokenKind::Simple(ttl), bcrypt_cost: 4 };
        let shore = Shore::with(true, setup).await;
        let land = &shore.land;
        let (plain, certified) = (land.server.channel().await, shore.channel("certified").await);
        let ended = land.token("reader").await;
        Timer::after(ttl + Duration::from_millis(200)).await;
        let tokens = [
            None,
            Some("none.1".to_owned()),
            Some(ended),
            Some(land.token("nothing").await),
            Some(land.token("reader").await),
            Some(land.token("writer").await),
            None,
            Some(land.token("root").await),
        ];
        let mut wrong = Vec::new();
        for row in &table {
            let [expected, ..] = told(row);
            assert_eq!(expected.len(), CALLERS);
            for (caller, (token, expected)) in tokens.iter().zip(expected.chars()).enumerate() {
                let channel = if caller == 6 { &certified } else { &plain };
                let token = token.as_deref().map(|token| ("token", token));
                let status = call(channel, row, token.as_slice(), expected == '.').await;
                let found = outcome(row, &status);
                if found != expected {
                    wrong.push(format!("{} {caller}: {found} instead of {expected}: {status:?}", row.0));
                }
            }
        }
        assert_eq!(wrong, Vec::<String>::new());
    });
}

/// A web token that has ended is as good as none, whoever's it was.
#[test]
fn an_ended_web_token_is_none_whatever_is_asked_for() {
    run(async {
        let dir = TempDir::new().unwrap();
        let mut setup = offering_all();
        let ttl = Duration::from_secs(1);
        let tokens = TokenKind::Jwt(jwt_for(dir.path(), "ES256", true, ttl));
        setup.options.logins = LoginOptions { tokens, bcrypt_cost: 4 };
        let land = Land::with(setup).await;
        let token = land.token("root").await;
        let mut still = land.reads(&token).await;
        while still.is_ok() {
            Timer::after(Duration::from_millis(50)).await;
            still = land.reads(&token).await;
        }
        let channel = land.server.channel().await;
        let mut wrong = Vec::new();
        for row in &table() {
            let expected = told(row)[0].chars().nth(NO_TOKEN).unwrap();
            let status = call(&channel, row, &[("token", &token)], expected == '.').await;
            if outcome(row, &status) != expected {
                wrong.push(format!("{}: {status:?} instead of {expected}", row.0));
            }
        }
        assert_eq!(wrong, Vec::<String>::new());
    });
}

/// The operator of the box is asked for nothing on it. Whoever comes from elsewhere has to be somebody to be shown anything.
#[test]
fn the_operators_service_asks_who_comes_from_elsewhere() {
    run(async {
        let table = admin();
        for names_users in [true, false] {
            let mut setup = offering_all();
            setup.options.logins.bcrypt_cost = 4;
            let shore = Shore::with(names_users, setup).await;
            let token = shore.land.token("nothing").await;
            let callers = [
                ("certified", None, if names_users { '.' } else { 'e' }),
                ("stranger", None, if names_users { 'd' } else { 'e' }),
                ("certified", Some("none.1"), 't'),
                ("stranger", Some(token.as_str()), '.'),
            ];
            for (name, token, expected) in callers {
                let channel = shore.channel(name).await;
                for row in &table {
                    let token = token.map(|token| ("token", token));
                    let status = call(&channel, row, token.as_slice(), false).await;
                    // Who is somebody is shown what there is, and changes nothing from elsewhere.
                    let is_shown = told(row)[0].chars().nth(6) == Some('.');
                    let expected = if expected == '.' && !is_shown { 'b' } else { expected };
                    let found = outcome(row, &status);
                    assert_eq!(found, expected, "{} {name} {names_users}: {status:?}", row.0);
                }
            }
        }
    });
}

/// What somebody is told of each row of the table, all of it asked at once. Expected is this letter of the row's.
async fn told_by(
    server: &Server,
    metadata: &[(&'static str, &str)],
    expected: impl Fn(&Row) -> char,
) -> Vec<String> {
    let channel = server.channel().await;
    let calls = table().into_iter().map(|row| {
        let (channel, expected) = (channel.clone(), expected(&row));
        let metadata: Vec<_> = metadata.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
        smol::spawn(async move {
            let metadata: Vec<_> = metadata.iter().map(|(name, value)| (*name, value.as_str())).collect();
            let status = call(&channel, &row, &metadata, expected == '.').await;
            let found = outcome(&row, &status);
            (found != expected).then(|| format!("{}: {found} instead of {expected}: {status:?}", row.0))
        })
    });
    let (calls, mut wrong) = (calls.collect::<Vec<_>>(), Vec::new());
    for call in calls {
        wrong.extend(call.await);
    }
    wrong
}

/// That one may do something does not make a leader: what has to be read is waited for, and what has to be written is refused sooner, after whoever may not. Of what a learner
/// does not serve nobody is told anything else. Tokens are from before.
#[test]
fn every_method_tells_everybody_what_the_member_cannot_do() {
    run(async {
        let dir = TempDir::new().unwrap();
        let tokens = jwt(dir.path(), "HS512", true);
        let setup = || {
            let mut setup = offering_all();
            setup.options.logins =
                LoginOptions { tokens: TokenKind::Jwt(Arc::clone(&tokens)), bcrypt_cost: 4 };
            setup
        };
        let land = Land::with(setup()).await;
        let mut callers = vec![None, Some("none.1".to_owned())];
        for user in ["nothing", "reader", "writer", "root"] {
            callers.push(Some(land.token(user).await));
        }
        let metadata = |caller: Option<&str>| caller.map(|token| ("token", token.to_owned()));
        // What was folded is known whoever votes.
        let compact = message(pb::CompactionRequest { revision: 2, physical: true });
        let row: Row = ("etcdserverpb.KV/Compact", compact, "", OK);
        let channel = land.server.channel().await;
        let root = callers.last().cloned().flatten().unwrap();
        let folded = call(&channel, &row, &[("token", &root)], true).await;
        assert_eq!(folded.code(), Code::Ok);
        let learner = land.server.restart_with(Setup { learns: true, ..setup() }).await;
        // By their places in the table's first column.
        let places = [0, 1, 3, 4, 5, 7];
        for (caller, place) in callers.iter().zip(places) {
            let expected = |row: &Row| match told(row) {
                [_, "l", _] => 'l',
                [with_leader, ..] => with_leader.chars().nth(place).unwrap(),
            };
            let metadata = metadata(caller.as_deref());
            let metadata = metadata.iter().map(|(name, token)| (*name, token.as_str())).collect::<Vec<_>>();
            let wrong = told_by(&learner, &metadata, expected).await;
            assert_eq!(wrong, Vec::<String>::new(), "caller {place} of the learner");
        }
        let leaderless = learner.restart_with(Setup { lonely: true, ..setup() }).await;
        let all = callers.iter().enumerate().map(|(caller, token)| {
            let (metadata, leaderless) = (metadata(token.as_deref()), &leaderless);
            async move {
                let metadata =
                    metadata.iter().map(|(name, token)| (*name, token.as_str())).collect::<Vec<_>>();
                let expected = |row: &Row| told(row)[2].chars().nth(caller).unwrap();
                told_by(leaderless, &metadata, expected).await
            }
        });
        let wrong = futures(all).await;
        assert_eq!(wrong, vec![Vec::<String>::new(); callers.len()], "by caller, without a leader");
        let wants_leader = [("token", root.as_str()), ("hasleader", "true")];
        let in_vain = told_by(&leaderless, &wants_leader, |_| 'n').await;
        assert_eq!(in_vain, Vec::<String>::new(), "whoever asks for a leader is told at once");
    });
}

/// What all of these come to, at once.
async fn futures<T>(all: impl Iterator<Item = impl Future<Output = T>>) -> Vec<T> {
    let executor = smol::LocalExecutor::new();
    let all: Vec<_> = all.map(|one| executor.spawn(one)).collect();
    executor
        .run(async {
            let mut done = Vec::new();
            for one in all {
                done.push(one.await);
            }
            done
        })
        .await
}
