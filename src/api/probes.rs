//! What orchestrators and monitoring ask whether a member is well: `/health`, `/livez` and `/readyz` (API reference, section 11).
//!
//! Owns: what each page looks at, and its words. Must never: ask for a credential: whoever may connect may ask. Driven by `http`.
//!
//! | page | fails when |
//! | --- | --- |
//! | `/health` | an alarm is raised, no leader is known, or a key cannot be read |
//! | `/livez` | a restart might help: this member cannot read its own copy |
//! | `/readyz` | clients should go elsewhere: data are known to be wrong, or reads or writes are not served here |
//!
//! A node that is in no cluster yet lives: a restart would only have it begin to wait anew. It is not ready, and says what it waits for.

use http::{Response, StatusCode};

use super::body::Body;
use super::http::{JSON, TEXT, page};
use super::node::{Freshness, Node};
use super::render;
use crate::command::{AlarmKind, KeyRange, Range};
use crate::telemetry::metrics::{HealthCheck, Metrics};

/// The key that is read to see whether reading works. Nobody has to have written it.
const PROBED_KEY: &[u8] = b"health";

/// A page of these.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Probe {
    Health,
    /// `/livez` or `/readyz`, by the name of its checks.
    All(&'static str),
    /// One check by itself.
    One(HealthCheck),
}

impl Probe {
    /// The one at this path; `None` where there is none.
    pub fn at(path: &str) -> Option<Self> {
        let path = path.strip_prefix('/')?;
        let mut checks = HealthCheck::ALL.into_iter();
        match path.split_once('/') {
            None if path == "health" => Some(Self::Health),
            None => checks.map(HealthCheck::page).find(|page| *page == path).map(Self::All),
            Some((page, name)) => {
                checks.find(|check| check.page() == page && check.name() == name).map(Self::One)
            }
        }
    }

    /// Looks, and says how it is.
    pub async fn answer(self, node: &Node, metrics: &Metrics, query: Option<&str>) -> Response<Body> {
        let query = Query::parse(query);
        let Some(checks) = self.checks(&query) else { return health(node, metrics, &query).await };
        let mut found = Vec::with_capacity(checks.len());
        for check in checks {
            let outcome = look(node, check).await;
            metrics.health_checks[check as usize].note(outcome.is_ok());
            found.push((check, outcome));
        }
        told(found, query.verbose)
    }

    /// The same of a node that is in no cluster yet, and waits for this.
    pub fn answer_waiting(self, waits_for: &str, query: Option<&str>) -> Response<Body> {
        let query = Query::parse(query);
        let why = format!("this node is in no cluster yet: {waits_for}");
        let Some(checks) = self.checks(&query) else { return healthy_unless(Some(why)) };
        let found = checks.into_iter().map(|check| match check {
            HealthCheck::Live => (check, Ok(())),
            HealthCheck::DataCorruption
            | HealthCheck::SerializableRead
            | HealthCheck::LinearizableRead
            | HealthCheck::NonLearner => (check, Err(why.clone())),
        });
        told(found.collect(), query.verbose)
    }

    /// What is looked at for it; nothing for `/health`, which has no checks.
    fn checks(self, query: &Query) -> Option<Vec<HealthCheck>> {
        match self {
            Self::Health => None,
            Self::One(check) => Some(vec![check]),
            Self::All(page) => {
                let is_meant = |check: &HealthCheck| check.page() == page && !query.excludes(check.name());
                Some(HealthCheck::ALL.into_iter().filter(is_meant).collect())
            }
        }
    }
}

/// What a page is asked for beside its path.
#[derive(Debug, Default, PartialEq, Eq)]
struct Query {
    serializable: bool,
    /// Alarms, or checks, that do not matter.
    excluded: Vec<String>,
    verbose: bool,
}

impl Query {
    fn excludes(&self, name: &str) -> bool {
        self.excluded.iter().any(|excluded| excluded == name)
    }

    fn parse(query: Option<&str>) -> Self {
        let mut parsed = Self::default();
        for pair in query.unwrap_or_default().split('&') {
            match pair.split_once('=').unwrap_or((pair, "")) {
                ("serializable", value) => parsed.serializable = value == "true",
                ("exclude", name) => parsed.excluded.push(name.to_owned()),
                ("verbose", _) => parsed.verbose = true,
                _ => {}
            }
        }
        parsed
    }
}

async fn health(node: &Node, metrics: &Metrics, query: &Query) -> Response<Body> {
    let sickness = sickness(node, query).await;
    let counter = if sickness.is_none() { &metrics.health_successes } else { &metrics.health_failures };
    counter.add(1);
    healthy_unless(sickness)
}

fn healthy_unless(sickness: Option<String>) -> Response<Body> {
    let (status, health) = match sickness {
        None => (StatusCode::OK, "true"),
        Some(_) => (StatusCode::SERVICE_UNAVAILABLE, "false"),
    };
    let text = serde_json::json!({ "health": health, "reason": sickness.unwrap_or_default() });
    page(status, JSON, text.to_string())
}

/// What is wrong with this member: alarms, then its leader, then reading itself.
async fn sickness(node: &Node, query: &Query) -> Option<String> {
    let view = node.handle().view();
    let alarms = view.facts().alarms.iter().map(|alarm| render::alarm_name(alarm.kind));
    if let Some(alarm) = alarms.into_iter().find(|alarm| !query.excludes(alarm)) {
        return Some(format!("ALARM {alarm}"));
    }
    if !query.serializable && node.handle().status().leader.is_none() {
        return Some("RAFT NO LEADER".into());
    }
    let read = read_shown(node, Freshness::from_wire(query.serializable)).await;
    read.err().map(|why| format!("RANGE ERROR:{why}"))
}

/// All that failed is named; what passed only when that is asked for.
fn told(found: Vec<(HealthCheck, Result<(), String>)>, verbose: bool) -> Response<Body> {
    let is_well = found.iter().all(|(_, outcome)| outcome.is_ok());
    let lines = found.into_iter().map(|(check, outcome)| match outcome {
        Ok(()) => format!("[+]{} ok\n", check.name()),
        Err(why) => format!("[-]{} failed: {why}\n", check.name()),
    });
    let text: String = lines.collect();
    if !is_well {
        return page(StatusCode::SERVICE_UNAVAILABLE, TEXT, text + "\n");
    }
    page(StatusCode::OK, TEXT, if verbose { text + "ok\n" } else { "ok\n".to_owned() })
}

async fn look(node: &Node, check: HealthCheck) -> Result<(), String> {
    match check {
        // Whoever waits for a state, or has one that is not shown, would only wait anew after a restart.
        HealthCheck::Live => read(node, Freshness::Serializable).await,
        HealthCheck::DataCorruption => {
            let view = node.handle().view();
            let is_raised = view.facts().alarms.iter().any(|alarm| alarm.kind == AlarmKind::Corrupt);
            if is_raised { Err("alarm activated: CORRUPT".into()) } else { Ok(()) }
        }
        HealthCheck::SerializableRead => read_shown(node, Freshness::Serializable).await,
        HealthCheck::LinearizableRead => read_shown(node, Freshness::Linearizable).await,
        // A learner that has caught up serves what the others serve.
        HealthCheck::NonLearner if node.require_voter().is_err() => Err("not supported for learner".into()),
        HealthCheck::NonLearner => Ok(()),
    }
}

/// Reads as a client would.
async fn read_shown(node: &Node, freshness: Freshness) -> Result<(), String> {
    node.require_state().map_err(|status| status.message().to_owned())?;
    read(node, freshness).await
}

async fn read(node: &Node, freshness: Freshness) -> Result<(), String> {
    let view = node.view(freshness).await.map_err(|status| status.message().to_owned())?;
    let probe = Range::all(KeyRange::single(bytes::Bytes::from_static(PROBED_KEY)));
    let read = node.read(view, true, move |view| view.range(&probe)).await;
    read.map(drop).map_err(|error| tonic::Status::from(error).message().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_read_as_probes_write_it() {
        let parse = Query::parse;
        assert_eq!(parse(None), Query::default());
        let both = parse(Some("exclude=NOSPACE&serializable=true&exclude=CORRUPT"));
        assert_eq!(both.excluded, ["NOSPACE", "CORRUPT"]);
        assert!(both.serializable && !both.verbose);
        assert!(!parse(Some("serializable=1&x&=y&serializable=false")).serializable);
        assert!(parse(Some("verbose")).verbose && parse(Some("verbose=")).verbose);
    }

    #[test]
    fn each_check_has_a_page_of_its_own_and_no_other_path_is_one() {
        assert_eq!(Probe::at("/health"), Some(Probe::Health));
        assert_eq!(Probe::at("/livez"), Some(Probe::All("livez")));
        assert_eq!(Probe::at("/readyz"), Some(Probe::All("readyz")));
        for check in HealthCheck::ALL {
            let path = format!("/{}/{}", check.page(), check.name());
            assert_eq!(Probe::at(&path), Some(Probe::One(check)));
        }
        for path in
            ["", "/", "/livez/", "/livez/non_learner", "/readyz/", "/readyz/x", "/readyz/non_learner/"]
        {
            assert_eq!(Probe::at(path), None, "{path}");
        }
    }
}
