#!/usr/bin/env python3
"""Is every flag of etcd's and every command and flag of etcdctl's either here, or on the page that says what there is instead?

Owns: reading the two programs' help. Must never: know a flag by itself.

  python flags.py

Needs etcd and etcdctl; see servers.py for how they are named.
"""

import re
import subprocess
import sys
from pathlib import Path

sys.dont_write_bytecode = True

import compare  # noqa: E402  (it knows where servers is)
import servers  # noqa: E402

PAGE = Path(__file__).resolve().parents[2] / "src/config/etcd-flags.md"
OF_ETCDCTL = "\n## Of etcdctl\n"
FLAGS_MIN, COMMANDS_MIN = 100, 40  # fewer were read wrongly


def help_of(*command):
    done = subprocess.run([*command, "--help"], capture_output=True, text=True, check=False, env={**servers.environment(), "ETCDCTL_API": "3"})
    return done.stdout + done.stderr


def flags_in(text):
    return set(re.findall(r"(?m)^ +(?:-\w, )?--([a-z][a-z0-9-]+)", text)) - {"help", "version"}


def of_etcd(page):
    flags = flags_in(help_of(servers.ETCD.binary()))
    if len(flags) < FLAGS_MIN:
        yield f"etcd has only {sorted(flags)}"
    for flag in sorted(flags):
        if not any(f"| `--{spelling}` |" in page for spelling in (flag, flag.removeprefix("experimental-"))):
            yield f"etcd's --{flag} is not on the page"


def of_etcdctl(page):
    etcdctl, covey = compare.etcdctl_of_environment().binary, servers.COVEY.binary()
    text = help_of(etcdctl)
    commands = re.findall(r"(?m)^\t([a-z-]+(?: [a-z-]+)?)\t", text[text.index("COMMANDS:"):text.index("OPTIONS:")])
    if len(commands) < COMMANDS_MIN:
        yield f"etcdctl has only {commands}"
    everywhere = flags_in(text[text.index("OPTIONS:"):])
    for flag in sorted(everywhere - flags_in(help_of(covey, "get"))):
        if f"`--{flag}`" not in page:
            yield f"etcdctl's --{flag} is not on the page"
    for command in commands:
        own = help_of(covey, *command.split())
        if f"`{command}`" in page:
            continue
        if "unknown command" in own:
            yield f"etcdctl's {command} is not on the page"
            continue
        theirs = flags_in(re.split(r"GLOBAL OPTIONS", help_of(etcdctl, *command.split()))[0])
        for flag in sorted(theirs - flags_in(own)):
            if f"`{command} --{flag}`" not in page:
                yield f"etcdctl's {command} --{flag} is not on the page"


def main():
    page = PAGE.read_text()
    server, _, client = page.partition(OF_ETCDCTL)
    wrong = [*of_etcd(server), *of_etcdctl(client)]
    for line in wrong:
        print(f"FAIL {line}")
    print(f"flags of etcd and etcdctl: {len(wrong)} missing")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
