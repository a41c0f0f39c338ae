//! What a long command tells somebody who watches.
//!
//! Owns: one line of a terminal, which is gone in the end. Must never: write to anything but a terminal. Used by the commands that may take long.

use std::io::{self, IsTerminal as _, Write as _};

/// Back to the line's begin, and nothing behind it.
const CLEAR: &str = "\r\x1b[K";

/// A line that stands while something is going on.
pub struct Progress {
    is_seen: bool,
    /// What stands there.
    text: String,
}

impl Progress {
    /// Says what is going on.
    pub fn begin(text: &str) -> Self {
        let mut progress = Self { is_seen: io::stderr().is_terminal(), text: String::new() };
        progress.show(text);
        progress
    }

    /// Says how it stands now.
    pub fn show(&mut self, text: &str) {
        if self.is_seen && self.text != text {
            text.clone_into(&mut self.text);
            write(&format!("{CLEAR}{text}"));
        }
    }
}

/// A terminal that has gone away is no reason to stop.
fn write(text: &str) {
    let mut terminal = io::stderr().lock();
    let _ = terminal.write_all(text.as_bytes()).and_then(|()| terminal.flush());
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.is_seen {
            write(CLEAR);
        }
    }
}
