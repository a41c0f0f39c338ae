//! Log lines, captured from real `tracing` events.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tracing::level_filters::LevelFilter;
use tracing::{Event, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::{Context, SubscriberExt as _};

use super::{Current, LogFormat, LogLayer, LogLevel, LogSettings, path_end, write_line};

/// Formats events as the real layer does, at a fixed time, into a list.
struct Capture {
    format: LogFormat,
    lines: Arc<Mutex<Vec<String>>>,
}

impl<S: Subscriber> Layer<S> for Capture {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut line = String::new();
        write_line(&mut line, self.format, Duration::from_millis(1_700_000_000_123), event).unwrap();
        self.lines.lock().unwrap().push(line);
    }
}

pub(in crate::telemetry) fn captured(format: LogFormat, log: impl FnOnce()) -> Vec<String> {
    let lines = Arc::new(Mutex::new(Vec::new()));
    let layer = Capture { format, lines: Arc::clone(&lines) };
    tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), log);
    let lines = lines.lock().unwrap();
    lines.clone()
}

fn one(format: LogFormat, log: impl FnOnce()) -> String {
    let lines = captured(format, log);
    assert_eq!(lines.len(), 1);
    lines.into_iter().next().unwrap()
}

#[test]
fn a_json_line_has_etcds_keys_in_etcds_order() {
    let line = line!() + 2;
    let text =
        one(LogFormat::Json, || tracing::info!(term = 3_u64, ok = true, who = "a", "ready to {}", "serve"));
    let expected = format!(
        "{{\"level\":\"info\",\"ts\":\"2023-11-14T22:13:20.123Z\",\"caller\":\"telemetry/log_test.rs:{line}\",\
         \"msg\":\"ready to serve\",\"term\":3,\"ok\":true,\"who\":\"a\"}}"
    );
    assert_eq!(text, expected);
}

#[test]
fn every_json_line_parses_whatever_is_logged() {
    let nasty = "quote \" backslash \\ newline \n escape \u{1b} del \u{7f} snow \u{2603}";
    let text = one(LogFormat::Json, || {
        tracing::error!(
            text = nasty, debug = ?nasty, display = %nasty, low = -1_i64, infinite = f64::INFINITY, half = 0.5, "{nasty}"
        );
    });
    assert_eq!(text.lines().count(), 1);
    let value: serde_json::Value = serde_json::from_str(&text).unwrap();
    for key in ["msg", "text", "display"] {
        assert_eq!(value[key], nasty, "{key}");
    }
    assert_eq!(
        (&value["level"], &value["low"], &value["half"]),
        (&"error".into(), &(-1).into(), &0.5.into())
    );
    assert!(value["infinite"].is_null());
}

#[test]
fn a_forwarded_line_names_its_own_caller() {
    let text = one(LogFormat::Json, || tracing::warn!(caller = %"raft.rs:7", "{}", "became follower"));
    let value: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(value["caller"], "raft.rs:7");
    assert_eq!(text.matches("caller").count(), 1);
}

#[test]
fn a_text_line_is_one_line_and_sends_no_control_characters() {
    let line = line!() + 1;
    let text = one(LogFormat::Text, || tracing::debug!(n = 1, bad = %"\u{1b}[2J", "two\nlines"));
    assert_eq!(
        text,
        format!(
            "2023-11-14T22:13:20.123Z debug two\\nlines n=1 bad=\\u{{1b}}[2J (telemetry/log_test.rs:{line})"
        )
    );
}

#[test]
fn the_level_is_a_floor() {
    for (level, expected) in [
        (LogLevel::Debug, LevelFilter::DEBUG),
        (LogLevel::Info, LevelFilter::INFO),
        (LogLevel::Warn, LevelFilter::WARN),
        (LogLevel::Error, LevelFilter::ERROR),
    ] {
        let layer = LogLayer(Arc::new(Current::of(LogSettings { level, format: LogFormat::Json })));
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
            assert_eq!(tracing::enabled!(tracing::Level::DEBUG), expected >= tracing::Level::DEBUG);
            assert_eq!(tracing::enabled!(tracing::Level::INFO), expected >= tracing::Level::INFO);
            assert_eq!(tracing::enabled!(tracing::Level::WARN), expected >= tracing::Level::WARN);
            assert!(tracing::enabled!(tracing::Level::ERROR));
        });
    }
}

/// h2 warns of each connection that resets too many streams: anybody could fill the disk with that.
#[test]
fn what_libraries_say_of_strangers_is_for_whoever_looks_for_a_fault() {
    for level in LogLevel::ALL {
        let layer = LogLayer(Arc::new(Current::of(LogSettings { level, format: LogFormat::Json })));
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
            let is_told = tracing::enabled!(target: "h2::proto::streams::recv", tracing::Level::WARN);
            assert_eq!(is_told, level == LogLevel::Debug, "{level:?}");
            let ours = tracing::enabled!(target: "h2_of_another_name", tracing::Level::ERROR);
            assert!(ours, "{level:?}");
        });
    }
}

/// One place in the code, which `tracing` asks once whether anybody listens to it.
fn somebody_listens() -> bool {
    tracing::enabled!(tracing::Level::DEBUG)
}

#[test]
fn the_level_changes_for_what_has_logged_before_too() {
    let current = Arc::new(Current::of(LogSettings { level: LogLevel::Info, format: LogFormat::Json }));
    let layer = LogLayer(Arc::clone(&current));
    tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
        for (level, expected) in [(LogLevel::Info, false), (LogLevel::Debug, true), (LogLevel::Warn, false)] {
            current.set_level(level);
            assert_eq!((somebody_listens(), current.level()), (expected, level));
        }
    });
    for level in LogLevel::ALL {
        assert_eq!(LogLevel::named(level.name()), Some(level));
    }
    assert_eq!(LogLevel::named("loud"), None);
}

#[test]
fn callers_are_the_end_of_the_path() {
    assert_eq!(path_end("src/node/core.rs"), "node/core.rs");
    assert_eq!(path_end("src/main.rs"), "src/main.rs");
    assert_eq!(path_end("main.rs"), "main.rs");
}
