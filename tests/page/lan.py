"""Boxes without configuration on a network of namespaces, as tests/zero has them.

Owns: the namespaces, their wires, and the servers in them. Must never: touch what it has not made, or reach beyond these namespaces. Needs root. Used by shown.py.
"""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "harness"))

from servers import COVEY, Server, environment  # noqa: E402

IP = "/usr/sbin/ip"
PORT = 2379


def ip(*arguments):
    subprocess.run([IP, *arguments], check=True)


class Lan:
    """So many boxes on one switch; none runs."""

    def __init__(self, root, boxes):
        lan = f"cp{os.getpid()}"
        self.switch = f"{lan}-sw"
        self.boxes = []
        ip("netns", "add", self.switch)
        ip("-n", self.switch, "link", "add", "switch", "type", "bridge", "mcast_snooping", "0")
        ip("-n", self.switch, "link", "set", "switch", "up")
        for n in range(boxes):
            box = Box(f"{lan}-{n}", f"box{n}", Path(root) / f"box{n}")
            self.boxes.append(box)
            ip("netns", "add", box.netns)
            ip("-n", box.netns, "link", "set", "lo", "up")
            ip("-n", self.switch, "link", "add", f"p{n}", "type", "veth", "peer", "name", "eth0", "netns", box.netns)
            ip("-n", self.switch, "link", "set", f"p{n}", "master", "switch", "up")
            ip("-n", box.netns, "address", "add", f"10.88.0.{n + 1}/24", "dev", "eth0")
            ip("-n", box.netns, "link", "set", "eth0", "up")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for box in self.boxes:
            box.server.kill()
        for netns in [box.netns for box in self.boxes] + [self.switch]:
            subprocess.run([IP, "netns", "del", netns], check=False)


class Box:
    """A namespace and the server in it. `inside` is what a program is started by there."""

    def __init__(self, netns, name, data):
        self.netns = netns
        self.inside = (IP, "netns", "exec", netns)
        command = (*self.inside, "{binary}", "serve", "--name", name, "--data-dir", "{data}")
        self.server = Server(replace(COVEY, command=command), data, port=PORT)
        self.page = f"http://127.0.0.1:{PORT}/status"

    def run(self, *arguments):
        """A command on the box: its exit code, and what it prints."""
        done = subprocess.run([*self.inside, self.server.binary, *arguments], env=environment(), text=True,
                              capture_output=True, timeout=60, check=False)
        return done.returncode, done.stdout

    def status(self):
        code, text = self.run("status", "-w", "json")
        return code, json.loads(text) if text else {}
