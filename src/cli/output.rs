//! The only place that prints: results to standard output, errors to standard error.
//!
//! Owns: both streams. Must never: panic when nobody reads. `print!` is denied everywhere in this crate, because it does.

use std::io::{self, BufWriter, StdoutLock, Write};

/// The exit code after the reader of our output went away: what a shell reports for SIGPIPE.
pub const EXIT_BROKEN_PIPE: u8 = 141;

/// Runs `print` on a buffered standard output and flushes it.
pub fn to_stdout(
    print: impl FnOnce(&mut BufWriter<StdoutLock<'static>>) -> io::Result<()>,
) -> io::Result<()> {
    let mut out = BufWriter::new(io::stdout().lock());
    print(&mut out)?;
    out.flush()
}

/// Prints one line to standard error. There is nowhere to report that this fails.
pub fn to_stderr(line: &str) {
    let _ = writeln!(io::stderr().lock(), "{line}");
}
