//! Passwords as they are typed.
//!
//! Owns: the terminal while one is typed. Must never: show it, or leave the terminal without its echo. Used by the commands that need one.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};

use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};

use super::args::Password;

/// Where a person is, wherever standard input and output lead.
const TERMINAL: &str = "/dev/tty";
/// A longer line is nobody's password.
const PASSWORD_BYTES_MAX: usize = 4096;

/// What the keys mean that are not part of a password.
const INTERRUPT: u8 = 0x03;
const END: u8 = 0x04;
const BACKSPACE: [u8; 2] = [0x08, 0x7f];
const CLEAR: u8 = 0x15;

/// Why there is no password.
#[derive(Debug, thiserror::Error)]
pub enum PasswordError {
    /// Nobody is there to be asked.
    #[error("failed to ask password: {0}")]
    Terminal(io::Error),
    /// It was not typed to its end.
    #[error("failed to ask password: interrupted")]
    Interrupted,
    /// Nothing was typed.
    #[error("empty password")]
    Empty,
    /// The two are not the same.
    #[error("given passwords are different")]
    Different,
}

/// The password to authenticate with.
pub fn ask() -> Result<Password, PasswordError> {
    typed("Password: ").map(Password)
}

/// A new password of a user's, typed twice.
pub fn ask_twice(user: &str) -> Result<String, PasswordError> {
    let first = typed(&format!("Password of {user}: "))?;
    if first.is_empty() {
        return Err(PasswordError::Empty);
    }
    let again = typed(&format!("Type password of {user} again for confirmation: "))?;
    if first == again { Ok(first) } else { Err(PasswordError::Different) }
}

/// The first line of standard input.
pub fn from_stdin() -> io::Result<String> {
    let mut line = String::new();
    io::stdin().lock().read_line(&mut line)?;
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}

fn typed(prompt: &str) -> Result<String, PasswordError> {
    let open = || OpenOptions::new().read(true).write(true).open(TERMINAL);
    let quiet = open().and_then(Quiet::begin).map_err(PasswordError::Terminal)?;
    let mut terminal = &quiet.terminal;
    terminal.write_all(prompt.as_bytes()).map_err(PasswordError::Terminal)?;
    let line = read_line(BufReader::new(terminal).bytes());
    // The key that ended the line was not shown either.
    let _ = terminal.write_all(b"\r\n");
    line
}

/// Key by key, since an interrupt must not leave the terminal as it is now.
fn read_line(keys: impl Iterator<Item = io::Result<u8>>) -> Result<String, PasswordError> {
    let mut line = Vec::new();
    for key in keys {
        match key.map_err(PasswordError::Terminal)? {
            b'\r' | b'\n' => break,
            INTERRUPT => return Err(PasswordError::Interrupted),
            END if line.is_empty() => return Err(PasswordError::Interrupted),
            END => break,
            CLEAR => line.clear(),
            key if BACKSPACE.contains(&key) => erase(&mut line),
            _ if line.len() == PASSWORD_BYTES_MAX => return Err(PasswordError::Interrupted),
            key => line.push(key),
        }
    }
    String::from_utf8(line).map_err(|error| PasswordError::Terminal(io::Error::other(error)))
}

/// Takes back a character, which may be several bytes: all but the first of them begin with the bits 10.
fn erase(line: &mut Vec<u8>) {
    while line.pop().is_some_and(|byte| byte & 0xc0 == 0x80) {}
}

/// A terminal that shows nothing of what is typed, as long as this lives.
struct Quiet {
    terminal: File,
    before: Termios,
}

impl Quiet {
    fn begin(terminal: File) -> io::Result<Self> {
        let before = tcgetattr(&terminal)?;
        let mut quiet = before.clone();
        quiet.local_modes &= !(LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG);
        tcsetattr(&terminal, OptionalActions::Flush, &quiet)?;
        Ok(Self { terminal, before })
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        // A terminal that is gone needs nothing.
        let _ = tcsetattr(&self.terminal, OptionalActions::Now, &self.before);
    }
}

#[cfg(test)]
mod tests {
    use super::{PASSWORD_BYTES_MAX, PasswordError, read_line};

    fn line(keys: &[u8]) -> Result<String, PasswordError> {
        read_line(keys.iter().map(|key| Ok(*key)))
    }

    #[test]
    fn keys_make_a_line() {
        for (keys, typed) in [
            (&b"secret\r"[..], "secret"),
            (b"two words\nmore", "two words"),
            (b"wrong\x15right\r", "right"),
            (b"\x7fab\x08c\r", "ac"),
            ("a\u{e9}\x7fb\r".as_bytes(), "ab"),
            (b"x\x04", "x"),
            (b"", ""),
        ] {
            assert_eq!(line(keys).unwrap(), typed, "{keys:?}");
        }
        for keys in [&b"secret\x03"[..], b"\x04", &[b'x'; PASSWORD_BYTES_MAX + 1]] {
            assert!(matches!(line(keys), Err(PasswordError::Interrupted)), "{keys:?}");
        }
        assert!(matches!(line(b"\xff\r"), Err(PasswordError::Terminal(_))));
    }
}
