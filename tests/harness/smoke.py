"""What every build must do: serve, come back from kill -9 with its data, and stop in order.

Owns: one server of COVEY_BIN (an emulator may be in front of it) and its data. Must never: take longer than an emulator needs.
Used by `.ci/stages/arm`.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

from servers import COVEY, NotReady, Server, exit_on_signals

# An emulator makes all of it some ten times slower.
START_SECONDS = 120
PATIENCE = ("--dial-timeout", "30s", "--command-timeout", "30s")


def main():
    exit_on_signals()
    with tempfile.TemporaryDirectory(prefix="smoke-") as scratch:
        server = Server(COVEY, Path(scratch) / "data")

        def client(*words):
            command = [server.binary, "--endpoints", server.endpoint, *PATIENCE, *words]
            return subprocess.run(command, check=True, capture_output=True, text=True).stdout

        try:
            server.start(START_SECONDS)
            client("put", "greeting", "hello")
            for _ in range(2):
                if client("get", "greeting") != "greeting\nhello\n":
                    sys.exit("FAIL what was put is not there")
                server.kill()
                server.start(START_SECONDS)
            if (code := server.stop()) != 0:
                sys.exit(f"FAIL it ended with {code} on SIGTERM")
        except (NotReady, subprocess.CalledProcessError) as why:
            sys.exit(f"FAIL {why} {getattr(why, 'stderr', '')}; its log ends:\n{server.log_tail()}")
    print("serves, survives kill -9, stops in order")


main()
