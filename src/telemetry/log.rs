//! Log lines on stderr: JSON with etcd's keys, or text for people.
//!
//! Owns: the layout of a line, and level and format, which an operator may change while the process runs. Must never: fail or panic because of what is
//! logged or because nobody reads it. Installed once by `app`; called by `tracing` for every event that passes the level.

use std::cell::RefCell;
use std::fmt::{self, Write as _};
use std::io::{self, Write as _};
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::{Context, SubscriberExt as _};

use super::recent::RecentLayer;
use super::timestamp::{wall_clock, write_timestamp};

/// The name of a field that replaces the place of the event itself: for lines that are forwarded from another log.
pub(super) const CALLER_FIELD: &str = "caller";
const MESSAGE_FIELD: &str = "message";
/// A line buffer that grew beyond this is not kept.
const BUFFER_KEPT_MAX: usize = 16 * 1024;

/// The least serious level that is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogLevel {
    /// Everything.
    Debug,
    /// What an operator wants to know.
    Info,
    /// What may need a look.
    Warn,
    /// What does need one.
    Error,
}

impl LogLevel {
    /// All of them; each stands at its own number.
    const ALL: [Self; 4] = [Self::Debug, Self::Info, Self::Warn, Self::Error];

    /// What it is called.
    pub fn name(self) -> &'static str {
        match self {
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Error => "error",
        }
    }

    /// The one of this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|level| level.name() == name)
    }
}

/// How lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// One JSON object a line, with etcd's keys.
    Json,
    /// For people.
    Text,
}

/// What is logged and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogSettings {
    /// The least serious level.
    pub level: LogLevel,
    /// The look of a line.
    pub format: LogFormat,
}

/// Logging was started twice.
#[derive(Debug, thiserror::Error)]
#[error("logging has been started already")]
pub struct AlreadyStarted;

/// Starts logging for the whole process.
///
/// # Errors
///
/// When something else has started it before.
pub fn init(settings: LogSettings) -> Result<(), AlreadyStarted> {
    let current = Arc::new(Current::of(settings));
    let layer = LogLayer(Arc::clone(&current));
    let subscriber = tracing_subscriber::registry().with(layer).with(RecentLayer::of_process());
    tracing::subscriber::set_global_default(subscriber).map_err(|_| AlreadyStarted)?;
    CURRENT.set(current).map_err(|_| AlreadyStarted)
}

/// The least serious level that is logged now; `None` before logging has started.
pub fn log_level() -> Option<LogLevel> {
    CURRENT.get().map(|current| current.level())
}

/// Logs from this level on, until the process ends. Before logging has started this does nothing.
pub fn set_log_level(level: LogLevel) {
    if let Some(current) = CURRENT.get() {
        current.set_level(level);
    }
}

/// Lines look like this from now on. Before logging has started this does nothing.
pub fn set_log_format(format: LogFormat) {
    if let Some(current) = CURRENT.get() {
        current.is_json.store(format == LogFormat::Json, Ordering::Relaxed);
    }
}

/// That of the process.
static CURRENT: OnceLock<Arc<Current>> = OnceLock::new();

/// What is logged and how, as of now.
struct Current {
    level: AtomicU8,
    is_json: AtomicBool,
}

impl Current {
    fn of(LogSettings { level, format }: LogSettings) -> Self {
        Self { level: AtomicU8::new(level as u8), is_json: AtomicBool::new(format == LogFormat::Json) }
    }

    fn level(&self) -> LogLevel {
        LogLevel::ALL[usize::from(self.level.load(Ordering::Relaxed))]
    }

    fn set_level(&self, level: LogLevel) {
        self.level.store(level as u8, Ordering::Relaxed);
        // Every place in the code that logs remembers whether it is listened to.
        tracing::callsite::rebuild_interest_cache();
    }

    fn format(&self) -> LogFormat {
        if self.is_json.load(Ordering::Relaxed) { LogFormat::Json } else { LogFormat::Text }
    }
}

/// Libraries that warn of each connection with which something is wrong: whoever connects could fill the log. Why it ended is told by who has opened it.
const ABOUT_STRANGERS: [&str; 1] = ["h2"];

/// Whether what has this target is for whoever looks for a fault in this program, however serious it is called.
fn is_about_strangers(target: &str) -> bool {
    target.split("::").next().is_some_and(|library| ABOUT_STRANGERS.contains(&library))
}

struct LogLayer(Arc<Current>);

impl LogLayer {
    fn filter(&self) -> LevelFilter {
        match self.0.level() {
            LogLevel::Debug => LevelFilter::DEBUG,
            LogLevel::Info => LevelFilter::INFO,
            LogLevel::Warn => LevelFilter::WARN,
            LogLevel::Error => LevelFilter::ERROR,
        }
    }
}

thread_local! {
    /// One buffer a thread, so that a line costs no allocation.
    static BUFFER: RefCell<String> = const { RefCell::new(String::new()) };
}

impl<S: Subscriber> Layer<S> for LogLayer {
    fn enabled(&self, metadata: &Metadata<'_>, _: Context<'_, S>) -> bool {
        let filter = self.filter();
        *metadata.level() <= filter
            && (filter == LevelFilter::DEBUG || !is_about_strangers(metadata.target()))
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(self.filter())
    }

    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        BUFFER.with(|buffer| {
            // A value that logs while it is formatted finds the buffer taken; its line gets one of its own.
            let mut kept = buffer.try_borrow_mut();
            let mut own = String::new();
            let line = kept.as_deref_mut().unwrap_or(&mut own);
            line.clear();
            // Only a field's own formatting can fail; what it wrote until then is still worth a line.
            let _ = write_line(line, self.0.format(), wall_clock(), event);
            line.push('\n');
            // One write for the whole line, so that lines of several threads do not mix. There is nowhere to report a
            // stderr that is gone.
            let _ = io::stderr().lock().write_all(line.as_bytes());
            if line.capacity() > BUFFER_KEPT_MAX {
                *line = String::new();
            }
        });
    }
}

fn write_line(out: &mut String, format: LogFormat, now: Duration, event: &Event<'_>) -> fmt::Result {
    match format {
        LogFormat::Json => write_json(out, now, event),
        LogFormat::Text => write_text(out, now, event),
    }
}

fn write_json(out: &mut String, now: Duration, event: &Event<'_>) -> fmt::Result {
    let metadata = event.metadata();
    let head = Head::of(event);
    write!(out, "{{\"level\":\"{}\",\"ts\":\"", level_name(*metadata.level()))?;
    write_timestamp(out, now)?;
    out.push_str("\",\"caller\":");
    json_string(out, &head.caller(metadata));
    out.push_str(",\"msg\":");
    json_string(out, &head.message);
    event.record(&mut JsonFields { out });
    out.push('}');
    Ok(())
}

fn write_text(out: &mut String, now: Duration, event: &Event<'_>) -> fmt::Result {
    let metadata = event.metadata();
    let head = Head::of(event);
    write_timestamp(out, now)?;
    write!(out, " {:5} ", level_name(*metadata.level()))?;
    write_words(out, &head, event);
    out.push_str(" (");
    text_string(out, &head.caller(metadata));
    out.push(')');
    Ok(())
}

/// The message and its fields.
pub(super) fn write_words(out: &mut String, head: &Head, event: &Event<'_>) {
    text_string(out, &head.message);
    event.record(&mut TextFields { out });
}

/// zap's names, which etcd's readers know; it has nothing below debug.
pub(super) fn level_name(level: Level) -> &'static str {
    match level {
        Level::ERROR => "error",
        Level::WARN => "warn",
        Level::INFO => "info",
        Level::DEBUG | Level::TRACE => "debug",
    }
}

/// The two fields that stand in front of the others, wherever they were given.
#[derive(Default)]
pub(super) struct Head {
    message: String,
    caller: Option<String>,
}

impl Head {
    pub(super) fn of(event: &Event<'_>) -> Self {
        let mut head = Head::default();
        event.record(&mut head);
        head
    }

    /// `room/file.rs:12`: the end of the path, which is unique enough and the same on every build machine.
    fn caller(&self, metadata: &Metadata<'_>) -> String {
        if let Some(caller) = &self.caller {
            return caller.clone();
        }
        match (metadata.file(), metadata.line()) {
            (Some(file), Some(line)) => format!("{}:{line}", path_end(file)),
            _ => metadata.target().to_owned(),
        }
    }
}

impl Visit for Head {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        match field.name() {
            MESSAGE_FIELD => self.message = format!("{value:?}"),
            CALLER_FIELD => self.caller = Some(format!("{value:?}")),
            _ => {}
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            MESSAGE_FIELD => value.clone_into(&mut self.message),
            CALLER_FIELD => self.caller = Some(value.to_owned()),
            _ => {}
        }
    }
}

/// The last two parts of a path.
pub(super) fn path_end(path: &str) -> &str {
    path.rmatch_indices('/').nth(1).map_or(path, |(at, _)| &path[at + 1..])
}

fn is_head(field: &Field) -> bool {
    matches!(field.name(), MESSAGE_FIELD | CALLER_FIELD)
}

struct JsonFields<'a> {
    out: &'a mut String,
}

impl JsonFields<'_> {
    fn key(&mut self, field: &Field) {
        self.out.push(',');
        json_string(self.out, field.name());
        self.out.push(':');
    }

    fn raw(&mut self, field: &Field, value: impl fmt::Display) {
        self.key(field);
        let _ = write!(self.out, "{value}");
    }
}

impl Visit for JsonFields<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if !is_head(field) {
            self.key(field);
            self.out.push('"');
            let _ = write!(JsonEscape(self.out), "{value:?}");
            self.out.push('"');
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        if !is_head(field) {
            self.key(field);
            json_string(self.out, value);
        }
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.raw(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.raw(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.raw(field, value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        // JSON has no infinities.
        if value.is_finite() { self.raw(field, value) } else { self.raw(field, "null") }
    }
}

struct TextFields<'a> {
    out: &'a mut String,
}

impl Visit for TextFields<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if !is_head(field) {
            let _ = write!(self.out, " {}=", field.name());
            let _ = write!(TextEscape(self.out), "{value:?}");
        }
    }
}

fn json_string(out: &mut String, text: &str) {
    out.push('"');
    let _ = JsonEscape(out).write_str(text);
    out.push('"');
}

fn text_string(out: &mut String, text: &str) {
    let _ = TextEscape(out).write_str(text);
}

/// Escapes what is written through it for the inside of a JSON string (RFC 8259, section 7).
struct JsonEscape<'a>(&'a mut String);

impl fmt::Write for JsonEscape<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for c in text.chars() {
            match c {
                '"' => self.0.push_str("\\\""),
                '\\' => self.0.push_str("\\\\"),
                '\n' => self.0.push_str("\\n"),
                c if c.is_control() => write!(self.0, "\\u{:04x}", u32::from(c))?,
                c => self.0.push(c),
            }
        }
        Ok(())
    }
}

/// Keeps a line one line and a terminal unharmed: control characters are shown, not sent.
struct TextEscape<'a>(&'a mut String);

impl fmt::Write for TextEscape<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for c in text.chars() {
            if c.is_control() { write!(self.0, "{}", c.escape_default())? } else { self.0.push(c) }
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "log_test.rs"]
pub(super) mod tests;
