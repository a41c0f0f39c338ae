//! raft's log, which is slog's, forwarded to `tracing`.
//!
//! Owns: the mapping of levels and fields. Must never: format a record whose level nobody listens to, or show what is in an entry: users' values, and
//! the cluster's secrets. `consensus` hands the logger to raft.

use std::fmt::{self, Write as _};

use slog::{Drain, KV, Key, Level, Logger, Never, OwnedKVList, Record, Serializer};

use super::log::path_end;

/// raft's fields that are whole messages and entries.
const WITH_CONTENT: [&str; 2] = ["msg", "ents"];

/// A logger for raft whose lines appear as ours, with raft's file and line as their caller.
pub fn raft_logger() -> Logger {
    Logger::root(Forward, slog::o!())
}

struct Forward;

impl Drain for Forward {
    type Ok = ();
    type Err = Never;

    fn log(&self, record: &Record<'_>, context: &OwnedKVList) -> Result<(), Never> {
        if !self.is_enabled(record.level()) {
            return Ok(());
        }
        let mut text = Text(String::new());
        // Only a value's own formatting can fail; the fields until then are still worth a line.
        let _ = write!(text.0, "{}", record.msg());
        let _ = context.serialize(record, &mut text);
        let _ = record.kv().serialize(record, &mut text);
        let caller = Caller(record.file(), record.line());
        let message = text.0;
        match record.level() {
            Level::Critical | Level::Error => tracing::error!(target: "raft", caller = %caller, "{message}"),
            Level::Warning => tracing::warn!(target: "raft", caller = %caller, "{message}"),
            Level::Info => tracing::info!(target: "raft", caller = %caller, "{message}"),
            Level::Debug | Level::Trace => tracing::debug!(target: "raft", caller = %caller, "{message}"),
        }
        Ok(())
    }

    fn is_enabled(&self, level: Level) -> bool {
        match level {
            Level::Critical | Level::Error => tracing::enabled!(target: "raft", tracing::Level::ERROR),
            Level::Warning => tracing::enabled!(target: "raft", tracing::Level::WARN),
            Level::Info => tracing::enabled!(target: "raft", tracing::Level::INFO),
            Level::Debug | Level::Trace => tracing::enabled!(target: "raft", tracing::Level::DEBUG),
        }
    }
}

struct Caller(&'static str, u32);

impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "raft/{}:{}", path_end(self.0), self.1)
    }
}

/// raft's fields have names of their own, which `tracing` cannot take: they follow the message as `name=value`.
struct Text(String);

impl Serializer for Text {
    fn emit_arguments(&mut self, key: Key, value: &fmt::Arguments<'_>) -> slog::Result {
        if WITH_CONTENT.contains(&key) {
            // Up to the first list or text there are kinds and numbers.
            let text = value.to_string();
            let head = text.split(['[', '"']).next().unwrap_or_default();
            write!(self.0, " {key}={head}…")?;
        } else {
            write!(self.0, " {key}={value}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use raft::eraftpb::{Entry, Message, MessageType};
    use slog::{debug, o, warn};

    use super::super::log::LogFormat;
    use super::super::log::tests::captured;
    use super::raft_logger;

    #[test]
    fn records_arrive_with_level_fields_and_their_own_caller() {
        let line = line!() + 3;
        let lines = captured(LogFormat::Json, || {
            let logger = raft_logger().new(o!("raft_id" => 7));
            warn!(logger, "became {}", "follower"; "term" => 3);
            debug!(logger, "tick");
        });
        let first: serde_json::Value = serde_json::from_str(&lines[0]).unwrap();
        assert_eq!(
            (&first["level"], &first["msg"]),
            (&"warn".into(), &"became follower raft_id=7 term=3".into())
        );
        assert_eq!(first["caller"], format!("raft/telemetry/raft_log.rs:{line}"));
        let second: serde_json::Value = serde_json::from_str(&lines[1]).unwrap();
        assert_eq!((&second["level"], &second["msg"]), (&"debug".into(), &"tick raft_id=7".into()));
    }

    /// As raft has them: what it sends, and what it keeps.
    #[test]
    fn what_is_in_an_entry_is_not_shown() {
        let entry =
            Entry { data: b"secret".to_vec().into(), context: b"secret".to_vec().into(), ..Entry::default() };
        let msg_type = MessageType::MsgAppend;
        let ents = vec![entry];
        let m = Message { msg_type, to: 7, index: 9, entries: ents.clone(), ..Message::default() };
        let lines = captured(LogFormat::Json, || {
            let logger = raft_logger();
            debug!(logger, "Sending"; "msg" => ?m);
            debug!(logger, "appending"; "ents" => ?ents);
        });
        let sent: serde_json::Value = serde_json::from_str(&lines[0]).unwrap();
        let head = "Sending msg=Message { msg_type: MsgAppend, to: 7, from: 0, term: 0, log_term: 0, index: 9, entries: …";
        assert_eq!(sent["msg"], head);
        assert!(lines[1].contains("appending ents=…") && !lines.concat().contains("secret"), "{lines:?}");
    }
}
