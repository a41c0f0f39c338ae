"""A network of bad links: boxes whose every frame is on its way for a while, or lost.

    links.py PREFIX BOXES DELAY_MS LOSS

Makes the namespaces PREFIX-0, PREFIX-1 …, each with eth0 at 198.19.0.1, 198.19.0.2 … (the range that is set aside for benchmarks), says "ready",
and carries frames between them until its standard input ends. What a kernel with netem does with a queue per interface, this does for all of them.
LOSS is a share of 1; losses are the same in each run, the time they hit is not.

Owns: the namespaces and what is between them. Must never: have an interface in the namespace that it was started in. Needs root and iproute2.
"""

import collections
import ctypes
import fcntl
import os
import random
import select
import signal
import struct
import subprocess
import sys
import time

IP = "/usr/sbin/ip"
NAMESPACES = "/run/netns"
CLONE_NEWNET = 0x40000000
TUNSETIFF = 0x400454CA
IFF_TAP = 0x0002
IFF_NO_PI = 0x1000
FRAME_MAX = 2048
ADDRESS_BYTES = 6
# A group's address, of which every box may be one.
GROUP_BIT = 1
# Of one box, before others have their turn.
FRAMES_AT_ONCE = 64
# Of frames under way; a switch has no more room either.
QUEUE_MAX = 20_000


def ip(*words):
    subprocess.run([IP, *words], check=True)


def enter(namespace):
    libc = ctypes.CDLL(None, use_errno=True)
    with open(f"{NAMESPACES}/{namespace}") as opened:
        if libc.setns(opened.fileno(), CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), f"setns {namespace}")


def box(namespace, number):
    """The end of a new namespace's eth0 that is ours."""
    ip("netns", "add", namespace)
    enter(namespace)
    end = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(end, TUNSETIFF, struct.pack("16sH22x", b"eth0", IFF_TAP | IFF_NO_PI))
    ip("link", "set", "lo", "up")
    ip("address", "add", f"198.19.0.{number + 1}/24", "dev", "eth0")
    ip("link", "set", "eth0", "up")
    return end


class Switch:
    """Frames between the ends, each of them late by the same."""

    def __init__(self, ends, delay, loss):
        self.ends, self.delay, self.loss = ends, delay, loss
        self.draw = random.Random(1)
        self.places = {}
        self.under_way = collections.deque()

    def take(self, end):
        for _ in range(FRAMES_AT_ONCE):
            try:
                frame = os.read(end, FRAME_MAX)
            except BlockingIOError:
                return
            to, sender = frame[:ADDRESS_BYTES], frame[ADDRESS_BYTES:2 * ADDRESS_BYTES]
            self.places[sender] = end
            if self.draw.random() < self.loss or len(self.under_way) >= QUEUE_MAX:
                continue
            known = None if to[0] & GROUP_BIT else self.places.get(to)
            ends = [known] if known else [other for other in self.ends if other != end]
            self.under_way.append((time.monotonic() + self.delay, ends, frame))

    def deliver(self):
        """Answers when the next one is due."""
        while self.under_way:
            due, ends, frame = self.under_way[0]
            if due > time.monotonic():
                return due - time.monotonic()
            self.under_way.popleft()
            for end in ends:
                try:
                    os.write(end, frame)
                except OSError:
                    pass  # that box has no room for it, or is down: lost, like any other

        return None

    def run(self, until):
        while True:
            wait = self.deliver()
            readable, _, _ = select.select([*self.ends, until], [], [], None if wait is None else max(wait, 0))
            if until in readable:
                return
            for end in readable:
                self.take(end)


def main():
    prefix, boxes, delay_ms, loss = sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), float(sys.argv[4])
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    made = []
    try:
        ends = []
        for number in range(boxes):
            made.append(f"{prefix}-{number}")
            ends.append(box(made[-1], number))
        print("ready", flush=True)
        Switch(ends, delay_ms / 1000, loss).run(sys.stdin.fileno())
    finally:
        for namespace in made:
            subprocess.run([IP, "netns", "del", namespace], check=False)


if __name__ == "__main__":
    main()
