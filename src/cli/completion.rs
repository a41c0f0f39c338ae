//! `completion`: what a shell offers while a command is typed.
//!
//! Owns: the scripts, which are made of the tables of commands. Must never: name a flag that the tables do not have. Driven by `run`.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use super::args::{Parsed, UsageError};
use super::spec::{COMMANDS, Command, Flag, GLOBAL, GROUPS, SERVE};
use crate::config;

/// The shells there are scripts for.
const SHELLS: &str = "bash, zsh or fish";
/// What `covey` knows beside the commands of the table.
const OTHERS: [&str; 2] = ["help", "version"];

/// The script for the shell that the argument names.
pub fn script(parsed: &Parsed) -> Result<String, UsageError> {
    let [shell] = parsed.arguments.as_slice() else {
        return Err(UsageError::Arguments("completion takes one shell: bash, zsh or fish"));
    };
    match shell.as_slice() {
        b"bash" => Ok(bash()),
        // zsh runs what was written for bash.
        b"zsh" => Ok(format!("#compdef covey\nautoload -U +X bashcompinit && bashcompinit\n{}", bash())),
        b"fish" => Ok(fish()),
        other => Err(UsageError::Word {
            flag: "shell",
            value: String::from_utf8_lossy(other).into_owned(),
            expected: SHELLS,
        }),
    }
}

/// The first words, each once.
fn first_words() -> BTreeSet<&'static str> {
    COMMANDS.iter().filter_map(|command| command.name.split(' ').next()).chain(OTHERS).collect()
}

fn second_words(group: &str) -> Vec<&'static str> {
    let second = |command: &&Command| command.name.split_once(' ').filter(|(first, _)| *first == group);
    COMMANDS.iter().filter_map(second).map(|(_, second)| second).collect()
}

/// Both spellings of a flag.
fn spellings(flag: &Flag) -> impl Iterator<Item = String> {
    let short = flag.short.map(|short| format!("-{short}"));
    [format!("--{}", flag.long)].into_iter().chain(short)
}

fn flags_of(command: &Command) -> Vec<String> {
    let help = "--help".to_owned();
    if command.name == SERVE.name {
        return config::flags().map(|flag| format!("--{flag}")).chain([help]).collect();
    }
    command.flags.iter().chain(GLOBAL).flat_map(spellings).chain([help]).collect()
}

/// Whatever is followed by a value, which is no word of the command.
fn with_values() -> BTreeSet<String> {
    let own = COMMANDS.iter().flat_map(|command| command.flags);
    own.chain(GLOBAL).filter(|flag| flag.value.is_some()).flat_map(spellings).collect()
}

fn joined(words: impl IntoIterator<Item = impl AsRef<str>>, between: &str) -> String {
    words.into_iter().map(|word| word.as_ref().to_owned()).collect::<Vec<_>>().join(between)
}

fn bash() -> String {
    let mut cases = String::new();
    for command in COMMANDS {
        let _ = writeln!(cases, "    '{} '*) words='{}' ;;", command.name, joined(flags_of(command), " "));
    }
    for group in GROUPS {
        let _ = writeln!(cases, "    '{group} ') words='{}' ;;", joined(second_words(group), " "));
    }
    let mut first: Vec<String> = first_words().iter().map(|word| (*word).to_owned()).collect();
    first.extend(GLOBAL.iter().flat_map(spellings));
    format!(
        "\
_covey() {{
  local current=${{COMP_WORDS[COMP_CWORD]}} before='' skipped='' words='' word
  for word in \"${{COMP_WORDS[@]:1:COMP_CWORD-1}}\"; do
    if [[ -n $skipped ]]; then
      skipped=''
      continue
    fi
    case $word in
      {}) skipped=1 ;;
      -*) ;;
      *) before=\"$before$word \" ;;
    esac
  done
  [[ -n $skipped ]] && return
  case $before in
{cases}    '') words='{}' ;;
  esac
  COMPREPLY=($(compgen -W \"$words\" -- \"$current\"))
}}
complete -o default -F _covey covey
",
        joined(with_values(), "|"),
        joined(first, " "),
    )
}

fn fish() -> String {
    let mut out = format!(
        "\
function __covey_before
    set -l skipped
    for word in (commandline -opc)[2..-1]
        if set -q skipped[1]
            set -e skipped
            continue
        end
        switch $word
            case {}
                set skipped 1
            case '-*'
            case '*'
                echo $word
        end
    end
end
function __covey_at
    set -l before (__covey_before)
    test \"$before\" = \"$argv\"
end
function __covey_in
    set -l before (__covey_before)
    string match -q -- \"$argv *\" \"$before \"
end
",
        joined(with_values(), " "),
    );
    for word in first_words() {
        let _ = writeln!(out, "complete -c covey -f -n '__covey_at' -a {word}");
    }
    for group in GROUPS {
        for word in second_words(group) {
            let _ = writeln!(out, "complete -c covey -f -n '__covey_at {group}' -a {word}");
        }
    }
    for command in COMMANDS.iter().filter(|command| command.name != SERVE.name) {
        for flag in command.flags {
            fish_flag(&mut out, &format!("__covey_in {}", command.name), flag);
        }
    }
    for flag in config::flags() {
        let _ = writeln!(out, "complete -c covey -n '__covey_in serve' -l {flag}");
    }
    for flag in GLOBAL {
        fish_flag(&mut out, "not __covey_in serve", flag);
    }
    out
}

fn fish_flag(out: &mut String, when: &str, flag: &Flag) {
    let short = flag.short.map(|short| format!(" -s {short}")).unwrap_or_default();
    let value = if flag.value.is_some() { " -r" } else { "" };
    let help = flag.help.replace('\'', "\\'");
    let _ = writeln!(out, "complete -c covey -n '{when}' -l {}{short}{value} -d '{help}'", flag.long);
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::{bash, first_words, fish};

    /// What bash offers at the end of this line.
    fn offered(words: &[&str]) -> Vec<String> {
        let line = words.join("' '");
        let (script, last) = (bash(), words.len() - 1);
        let ask = format!(
            "{script}\nCOMP_WORDS=('{line}'); COMP_CWORD={last}; _covey; printf '%s\\n' \"${{COMPREPLY[@]}}\""
        );
        let output = Command::new("bash").args(["--norc", "-euc", &ask]).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn bash_offers_what_fits() {
        assert_eq!(offered(&["covey", "me"]), ["member"]);
        assert_eq!(offered(&["covey", "member", "pro"]), ["promote"]);
        assert_eq!(offered(&["covey", "--endpoints", "get", "member", "pro"]), ["promote"]);
        assert_eq!(offered(&["covey", "member", "add", "name", "--peer"]), ["--peer-urls"]);
        assert_eq!(offered(&["covey", "get", "--count-only", "--endp"]), ["--endpoints"]);
        assert_eq!(offered(&["covey", "serve", "--listen-client-u"]), ["--listen-client-urls"]);
        assert_eq!(offered(&["covey", "get", "--rev", ""]), Vec::<String>::new(), "a value is to come");
        assert!(!offered(&["covey", "get", "--"]).contains(&"--peer-urls".to_owned()));
    }

    #[test]
    fn fish_knows_all_commands() {
        let script = fish();
        for word in first_words() {
            assert!(script.contains(&format!("-a {word}\n")), "{word}");
        }
    }
}
