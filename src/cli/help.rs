//! Help as a person reads it.
//!
//! Owns: the layout. Must never: know a flag that the tables do not have.

use std::fmt::Write as _;

use super::examples;
use super::spec::{COMMANDS, Command, Flag, GLOBAL, SERVE};
use crate::config;

/// What `covey` without a command and `covey --help` print.
pub fn overview() -> String {
    let mut out = String::from(
        "covey: a key-value store that speaks etcd's v3 API, in one binary\n\nUsage: covey <command> [flags]\n\nCommands:\n",
    );
    for command in COMMANDS {
        let _ = writeln!(out, "  {:<16} {}", command.name, command.about);
    }
    let _ = writeln!(
        out,
        "  {:<16} Print help for a command, or for the configuration file (covey help config)",
        "help"
    );
    let _ = writeln!(out, "  {:<16} Print the version", "version");
    out.push_str("\nFlags of all commands but serve (environment: COVEY_ or ETCDCTL_ and the name):\n");
    flags(&mut out, GLOBAL);
    out.push_str("\nTo try it: covey serve --solo, and in another terminal covey put greeting hello\n");
    out
}

/// What `covey lease` prints: the commands whose name begins with this word.
pub fn group(word: &str) -> String {
    let mut out = String::new();
    let in_group = |command: &&&Command| command.name.split(' ').next() == Some(word) && command.name != word;
    for command in COMMANDS.iter().filter(in_group) {
        let _ = writeln!(out, "  {:<16} {}", command.name, command.about);
    }
    format!(
        "Usage: covey {word} <command> [flags]\n\nCommands:\n{out}\ncovey help {word} <command> tells more.\n"
    )
}

/// What `covey help <command>` prints.
pub fn command(command: &Command) -> String {
    let mut out = format!("{}\n\nUsage: covey {} {}\n", command.about, command.name, command.usage);
    if !command.details.is_empty() {
        let _ = write!(out, "\n{}", command.details);
    }
    let lines: Vec<_> = examples::of(command).collect();
    if let [first, more @ ..] = lines.as_slice() {
        let _ = write!(out, "\nExample{}:\n  {first}\n", if more.is_empty() { "" } else { "s" });
        for line in more {
            let _ = writeln!(out, "  {line}");
        }
    }
    if command.name == SERVE.name {
        out.push_str(
            "\nA flag wins over an environment variable, and that over the file. The variable is COVEY_ and the flag's name;\n\
             where etcd has the flag, etcd's variable works as well. One dash is as good as two.\n\
             On SIGHUP all are read again: what a running server can take it takes, and names the others in its log.\n\nFlags:\n",
        );
        out.push_str(&config::options());
        return out;
    }
    if !command.flags.is_empty() {
        out.push_str("\nFlags:\n");
        flags(&mut out, command.flags);
    }
    out.push_str("\nFlags of all commands but serve (environment: COVEY_ or ETCDCTL_ and the name):\n");
    flags(&mut out, GLOBAL);
    out
}

fn flags(out: &mut String, flags: &[Flag]) {
    for flag in flags {
        let short = flag.short.map(|c| format!("-{c}, ")).unwrap_or_default();
        let value = flag.value.map(|value| format!(" <{value}>")).unwrap_or_default();
        let spelling = format!("{short}--{}{value}", flag.long);
        let _ = writeln!(out, "  {spelling:<26} {}", flag.help);
    }
}

#[cfg(test)]
mod tests {
    use super::{COMMANDS, GLOBAL, command, overview};

    #[test]
    fn help_names_everything_in_lines_that_fit() {
        let mut all = overview();
        for spec in COMMANDS {
            assert!(all.contains(spec.about), "{}", spec.name);
            let text = command(spec);
            for flag in spec.flags {
                assert!(
                    text.contains(&format!("--{}", flag.long)) && text.contains(flag.help),
                    "{}",
                    flag.long
                );
            }
            if spec.name == "serve" {
                assert!(text.contains("--listen-client-urls"));
            } else {
                assert!(GLOBAL.iter().all(|flag| text.contains(flag.help)));
            }
            all.push_str(&text);
        }
        let long: Vec<&str> = all.lines().filter(|line| line.chars().count() > 120).collect();
        assert_eq!(long, Vec::<&str>::new());
    }
}
