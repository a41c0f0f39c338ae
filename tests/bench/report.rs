//! The figures: one table for people, one file for programs.
//!
//! Owns: what a row says and whether its target is met. Must never: round a miss into a hit. Driven by `main`.

use std::fmt::Write as _;

use serde_json::{Value, json};

/// One figure of both servers.
pub struct Row {
    pub name: String,
    pub unit: &'static str,
    pub covey: f64,
    pub etcd: f64,
    /// The target for covey's figure over etcd's.
    pub ratio: Option<f64>,
    /// The target for covey's figure itself.
    pub limit: Option<f64>,
    /// What the figure grows with, and how far that has come.
    pub along: Option<(&'static str, f64)>,
    more_is_better: bool,
}

impl Row {
    /// A figure that should be small; `ratio` is the most that covey's may be of etcd's.
    pub fn at_most(name: String, unit: &'static str, covey: f64, etcd: f64, ratio: Option<f64>) -> Self {
        Self { name, unit, covey, etcd, ratio, limit: None, along: None, more_is_better: false }
    }

    /// A figure that should be large; `ratio` is the least that covey's may be of etcd's.
    pub fn at_least(name: String, unit: &'static str, covey: f64, etcd: f64, ratio: Option<f64>) -> Self {
        Self { name, unit, covey, etcd, ratio, limit: None, along: None, more_is_better: true }
    }

    fn over_etcd(&self) -> f64 {
        self.covey / self.etcd
    }

    /// `None` where there is no target.
    pub fn is_met(&self) -> Option<bool> {
        let against =
            |found: f64, target: f64| if self.more_is_better { found >= target } else { found <= target };
        match (self.ratio, self.limit) {
            (None, None) => None,
            (ratio, limit) => Some(
                ratio.is_none_or(|target| against(self.over_etcd(), target))
                    && limit.is_none_or(|target| against(self.covey, target)),
            ),
        }
    }

    fn target(&self) -> String {
        let sign = if self.more_is_better { '≥' } else { '≤' };
        match (self.ratio, self.limit) {
            (Some(ratio), _) => format!("{sign} {ratio} × etcd"),
            (None, Some(limit)) => format!("{sign} {limit} {}", self.unit).trim_end().to_owned(),
            (None, None) => String::new(),
        }
    }

    fn verdict(&self) -> &'static str {
        match self.is_met() {
            Some(true) => "met",
            Some(false) => "missed",
            None => "",
        }
    }
}

/// The rows as a table in Markdown.
pub fn table<'a>(rows: impl Iterator<Item = &'a Row>) -> String {
    let mut text = String::from(
        "| what | covey | etcd | ratio | target | |\n| --- | ---: | ---: | ---: | --- | --- |\n",
    );
    for row in rows {
        let (name, unit, target, verdict) = (&row.name, row.unit, row.target(), row.verdict());
        let ratio = row.over_etcd();
        let ratio = if ratio.is_finite() { format!("{ratio:.2}") } else { String::new() };
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "| {name} | {:.3} {unit} | {:.3} {unit} | {ratio} | {target} | {verdict} |",
            row.covey, row.etcd
        );
    }
    text
}

/// The rows for a program.
pub fn to_json(rows: &[Row]) -> Value {
    let row = |row: &Row| {
        json!({
            "name": row.name, "unit": row.unit, "covey": row.covey, "etcd": row.etcd, "ratio": row.over_etcd(),
            "ratio_target": row.ratio, "limit": row.limit, "met": row.is_met(),
            "along": row.along.map(|along| along.0), "at": row.along.map(|along| along.1),
        })
    };
    Value::Array(rows.iter().map(row).collect())
}
