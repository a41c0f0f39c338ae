//! The figures that grow with something, as curves: one SVG with a panel for each figure.
//!
//! Owns: the drawing. Must never: need more than a browser, or begin an axis of costs above nothing. Driven by `main`.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::report::Row;

const WIDTH: f64 = 280.0;
const HEIGHT: f64 = 180.0;
/// Around the curves, for words.
const MARGIN: f64 = 36.0;
const COLUMNS: usize = 3;
const COVEY: &str = "#0a7d4f";
const ETCD: &str = "#b4491f";

/// All rows that grow with something; points of a panel are in the order of the rows, equally far apart.
pub fn svg(rows: &[Row]) -> String {
    let mut panels: BTreeMap<(&str, &str), Vec<&Row>> = BTreeMap::new();
    for row in rows {
        let what = row.name.split_once(": ").map_or("", |(_, what)| what);
        if let Some((along, _)) = row.along {
            panels.entry((along, what)).or_default().push(row);
        }
    }
    let lines = panels.len().div_ceil(COLUMNS);
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{}\" height=\"{}\" font-family=\"sans-serif\" \
         font-size=\"10\"><rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n",
        WIDTH * COLUMNS as f64,
        HEIGHT * lines as f64
    );
    for (n, ((along, what), rows)) in panels.iter().enumerate() {
        let (x, y) = (WIDTH * (n % COLUMNS) as f64, HEIGHT * (n / COLUMNS) as f64);
        let _ = writeln!(out, "<g transform=\"translate({x} {y})\">{}</g>", panel(along, what, rows));
    }
    out + "</svg>\n"
}

fn panel(along: &str, what: &str, rows: &[&Row]) -> String {
    let most = rows.iter().map(|row| row.covey.max(row.etcd)).fold(f64::MIN_POSITIVE, f64::max);
    let unit = rows.first().map_or("", |row| row.unit);
    let steps = rows.len().saturating_sub(1).max(1) as f64;
    let at = |n: usize| MARGIN + (WIDTH - 2.0 * MARGIN) * n as f64 / steps;
    let bottom = HEIGHT - MARGIN;
    let curve = |color: &str, of: fn(&Row) -> f64| {
        let points: Vec<String> = (0..)
            .zip(rows)
            .map(|(n, row)| format!("{:.1},{:.1}", at(n), bottom - (bottom - MARGIN) * of(row) / most))
            .collect();
        format!(
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{color}\" stroke-width=\"2\"/>",
            points.join(" ")
        )
    };
    let mut out = format!(
        "<text x=\"{MARGIN}\" y=\"14\">{what}, {unit}: <tspan fill=\"{COVEY}\">covey</tspan>, \
         <tspan fill=\"{ETCD}\">etcd</tspan></text>\
         <text x=\"2\" y=\"{MARGIN}\">{most:.0}</text><text x=\"2\" y=\"{bottom}\">0</text>\
         <path d=\"M{MARGIN} {MARGIN}V{bottom}H{}\" fill=\"none\" stroke=\"#888\"/>",
        WIDTH - MARGIN
    );
    for (n, row) in rows.iter().enumerate() {
        let value = row.along.map_or(0.0, |along| along.1);
        let _ = write!(
            out,
            "<text x=\"{:.1}\" y=\"{}\" text-anchor=\"middle\">{value} {along}</text>",
            at(n),
            bottom + 14.0
        );
    }
    out + &curve(COVEY, |row| row.covey) + &curve(ETCD, |row| row.etcd)
}
