"""What takes long says how it stands to somebody at a terminal, and to nobody else.

Owns: a server of COVEY_BIN, and the terminals that its client is given for standard error. Must never: go by how long something takes.
Used by `.ci/stages/etcdctl`.
"""

import os
import pty
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

from servers import COVEY, NotReady, Server, environment, exit_on_signals

CLEAR = b"\r\x1b[K"
COMMAND_SECONDS_MAX = 60
KEYS, VALUE = 8, b"v" * 500_000


def on_terminal(command):
    """What is written to standard error where that is a terminal, standard output is a pipe."""
    ours, theirs = pty.openpty()
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=theirs, env=environment()) as process:
        os.close(theirs)
        late = threading.Timer(COMMAND_SECONDS_MAX, process.kill)
        late.start()
        shown = b""
        try:
            while piece := os.read(ours, 65536):
                shown += piece
        except OSError:  # how a terminal ends that nobody has open any more
            pass
        stdout = process.stdout.read()
        code = process.wait()
        late.cancel()
    os.close(ours)
    return shown, stdout, code


def check(name, command, *expected, again=lambda: None):
    shown, stdout, code = on_terminal(command)
    if code != 0 or not all(CLEAR + text in shown for text in expected) or not shown.endswith(CLEAR) or b"\x1b" in stdout:
        sys.exit(f"FAIL {name} on a terminal: {code} {shown!r} {stdout!r}")
    again()
    piped = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=COMMAND_SECONDS_MAX, check=False,
                           env=environment())
    if piped.returncode != 0 or piped.stderr or b"\x1b" in piped.stdout or b"\r" in piped.stdout:
        sys.exit(f"FAIL {name} in a pipe: {piped}")


def main():
    exit_on_signals()
    with tempfile.TemporaryDirectory(prefix="terminal-") as scratch:
        server = Server(COVEY, Path(scratch) / "data")
        try:
            server.start()
        except NotReady as why:
            sys.exit(f"FAIL {why}; its log ends:\n{server.log_tail()}")
        client = [server.binary, "--endpoints", server.endpoint]
        for number in range(KEYS):
            subprocess.run([*client, "put", f"key{number}"], input=VALUE, check=True, capture_output=True, env=environment())
        saved, restored = Path(scratch) / "saved", Path(scratch) / "restored"
        check("snapshot save", [*client, "snapshot", "save", str(saved)], b"saving ", b"4.0 MB saved, ")
        check("snapshot restore", [*client, "snapshot", "restore", str(saved), "--data-dir", str(restored)], b"restoring ",
              again=lambda: restored.rename(restored.with_suffix(".first")))
        check("defrag", [*client, "defrag"], b"defragmenting ")
        check("lock", [*client, "lock", "l", "--", "true"], b"waiting for l")
        if (code := server.stop()) != 0:
            sys.exit(f"FAIL it ended with {code} on SIGTERM")
    print("save, restore, defrag and lock show on a terminal what they do, and write nothing of it into a pipe")


if __name__ == "__main__":
    main()
