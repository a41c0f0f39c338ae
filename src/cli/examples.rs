//! Lines that can be typed as they are, at least one for each command.
//!
//! Owns: the lines. Must never: show a flag that a command does not have. Printed by `help`.

use super::spec::Command;

/// By the command's name.
const EXAMPLES: &[(&str, &str)] = &[
    ("serve", "covey serve --solo --data-dir /var/lib/covey"),
    ("status", "covey status"),
    ("doctor", "covey doctor"),
    ("get", "covey get /site/ --prefix --keys-only"),
    ("put", "covey put /site/name lab-1"),
    ("del", "covey del /site/ --prefix"),
    ("txn", "covey txn < requests.txt"),
    ("watch", "covey watch /site/ --prefix"),
    ("lease grant", "covey lease grant 60"),
    ("lease revoke", "covey lease revoke 326963a02758b527"),
    ("lease timetolive", "covey lease timetolive 326963a02758b527 --keys"),
    ("lease list", "covey lease list"),
    ("lease keep-alive", "covey lease keep-alive 326963a02758b527"),
    ("compact", "covey compact 1000"),
    ("endpoint status", "covey endpoint status --cluster -w table"),
    ("endpoint health", "covey endpoint health --cluster"),
    ("endpoint hashkv", "covey endpoint hashkv --cluster --rev 1000"),
    ("alarm list", "covey alarm list"),
    ("alarm disarm", "covey alarm disarm"),
    ("defrag", "covey defrag --cluster"),
    ("lock", "covey lock upgrade --ttl 30 -- ./upgrade.sh"),
    ("elect", "covey elect coordinator box-1"),
    ("member list", "covey member list -w table"),
    ("member add", "covey member add box-4 --peer-urls https://10.0.0.4:2380 --learner"),
    ("member remove", "covey member remove 8e9e05c52164694d"),
    ("member update", "covey member update 8e9e05c52164694d --peer-urls https://10.0.0.5:2380"),
    ("member promote", "covey member promote 8e9e05c52164694d"),
    ("move-leader", "covey move-leader 8e9e05c52164694d --endpoints 10.0.0.1:2379,10.0.0.2:2379"),
    ("auth enable", "covey auth enable"),
    ("auth disable", "covey auth disable --user root"),
    ("auth status", "covey auth status"),
    ("user add", "covey user add camera"),
    ("user delete", "covey user delete camera"),
    ("user get", "covey user get camera --detail"),
    ("user list", "covey user list"),
    ("user passwd", "covey user passwd camera"),
    ("user grant-role", "covey user grant-role camera viewer"),
    ("user revoke-role", "covey user revoke-role camera viewer"),
    ("role add", "covey role add viewer"),
    ("role delete", "covey role delete viewer"),
    ("role get", "covey role get viewer"),
    ("role list", "covey role list"),
    ("role grant-permission", "covey role grant-permission viewer read /site/ --prefix"),
    ("role revoke-permission", "covey role revoke-permission viewer /site/ --prefix"),
    ("snapshot", "covey snapshot save backup.db"),
    ("snapshot", "covey snapshot status backup.db"),
    ("snapshot", "covey snapshot restore backup.db --data-dir restored.covey"),
    ("recover", "covey recover --data-dir /var/lib/covey"),
    ("yield", "covey yield"),
    ("prepare-image", "covey prepare-image --data-dir /mnt/var/lib/covey"),
    ("node fingerprint", "covey node fingerprint --data-dir /var/lib/covey"),
    ("node pending", "covey node pending"),
    ("node approve", "covey node approve 1f0c2b6de87ab92244b0f06c02f2a5e7"),
    ("token create", "covey token create --ttl 1h"),
    ("token list", "covey token list"),
    ("token revoke", "covey token revoke 5f0c"),
    ("window open", "covey window open 10m"),
    ("window close", "covey window close"),
    ("client issue", "covey client issue camera --out camera.bundle"),
    ("client list", "covey client list"),
    ("client revoke", "covey client revoke camera"),
    ("client renew", "covey client renew camera --out camera.bundle"),
    ("log-level", "covey log-level debug"),
    ("config check", "covey config check /etc/covey/covey.toml"),
    ("completion", "covey completion bash > /etc/bash_completion.d/covey"),
];

/// The examples of a command.
pub fn of(command: &Command) -> impl Iterator<Item = &'static str> {
    EXAMPLES.iter().filter(|(name, _)| *name == command.name).map(|(_, line)| *line)
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use lexopt::Parser;

    use super::of;
    use crate::cli::args::Parsed;
    use crate::cli::spec::{COMMANDS, SERVE};

    #[test]
    fn every_command_has_an_example_that_can_be_typed() {
        for command in COMMANDS {
            assert!(of(command).next().is_some(), "{} has no example", command.name);
            for line in of(command).filter(|_| command.name != SERVE.name) {
                let rest = line.strip_prefix("covey ").and_then(|rest| rest.strip_prefix(command.name));
                let rest = rest.unwrap_or_else(|| panic!("{line} is no {}", command.name));
                let words = rest.split_whitespace().take_while(|word| !["<", ">"].contains(word));
                let mut parser = Parser::from_args(words.map(OsString::from));
                Parsed::default()
                    .rest(command, &mut parser)
                    .unwrap_or_else(|error| panic!("{line}: {error}"));
            }
        }
    }
}
