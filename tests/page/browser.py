"""A headless Chromium, driven over a pair of pipes by its DevTools protocol.

Owns: the browser's process and its profile. Must never: listen on a port, or hide what a page complains of. Used by shown.py; nothing beyond
Python's own library is needed.

The browser reads commands from its file descriptor 3 and writes answers and events to 4, each JSON and a zero byte.
"""

import base64
import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ANSWER_SECONDS_MAX = 60
LOAD_SECONDS_MAX = 20
LOOK_SECONDS = 0.1
NAMES = ("chromium-headless-shell", "chromium")
# No sandbox: the gate runs as root, and the only pages are our own.
FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-background-networking",
         "--disable-component-update", "--no-first-run", "--hide-scrollbars", "--remote-debugging-pipe")


class Browser:
    """One process. `prefix` is what it is started by, as `ip netns exec NAME`."""

    def __init__(self, prefix=(), flags=()):
        binary = next((found for name in NAMES if (found := shutil.which(name))), None)
        if binary is None:
            sys.exit(f"no browser: none of {', '.join(NAMES)} is there")
        self.profile = tempfile.TemporaryDirectory(prefix="browser-", ignore_cleanup_errors=True)
        commands, self.to_browser = os.pipe()
        self.from_browser, answers = os.pipe()
        start = ["bash", "-c", f'exec "$@" 3<&{commands} 4>&{answers}', "bash", *prefix, binary, *FLAGS, *flags,
                 f"--user-data-dir={self.profile.name}", "about:blank"]
        self.process = subprocess.Popen(["setpriv", "--pdeathsig", "SIGKILL", *start], stdin=subprocess.DEVNULL,
                                        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                                        pass_fds=(commands, answers))
        os.close(commands)
        os.close(answers)
        self.came = b""
        self.calls = 0
        self.pages = {}

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        os.close(self.to_browser)
        os.close(self.from_browser)
        self.profile.cleanup()

    def call(self, method, session=None, **params):
        """What the browser answers. Events that come meanwhile go to their pages."""
        self.calls += 1
        message = {"id": self.calls, "method": method, "params": params}
        if session:
            message["sessionId"] = session
        os.write(self.to_browser, json.dumps(message).encode() + b"\0")
        end = time.monotonic() + ANSWER_SECONDS_MAX
        while time.monotonic() < end:
            answer = self.receive(end - time.monotonic())
            if answer and answer.get("id") == self.calls:
                if "error" in answer:
                    raise AssertionError(f"{method}: {answer['error']}")
                return answer["result"]
        raise AssertionError(f"{method}: no answer")

    def receive(self, seconds):
        """The next message; none if none comes in that time."""
        while b"\0" not in self.came:
            if not select.select([self.from_browser], [], [], seconds)[0]:
                return None
            more = os.read(self.from_browser, 1 << 16)
            if not more:
                raise AssertionError("the browser has ended")
            self.came += more
        text, self.came = self.came.split(b"\0", 1)
        message = json.loads(text)
        if page := self.pages.get(message.get("sessionId")):
            page.note(message)
        return message

    def open(self, url, width, height=900, dark=False):
        return Page(self, url, width, height, dark)


class Page:
    """A tab of its own."""

    def __init__(self, browser, url, width, height, dark):
        self.browser = browser
        self.complaints = []
        self.asked_for = []
        self.target = browser.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = browser.call("Target.attachToTarget", targetId=self.target, flatten=True)["sessionId"]
        browser.pages[self.session] = self
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 500)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        if trouble := self.call("Page.navigate", url=url).get("errorText"):
            raise AssertionError(f"{url}: {trouble}")
        self.until(f"{url} is there", "location.href !== 'about:blank' && document.readyState === 'complete'", LOAD_SECONDS_MAX)

    def call(self, method, **params):
        return self.browser.call(method, self.session, **params)

    def close(self):
        self.browser.call("Target.closeTarget", targetId=self.target)

    def note(self, event):
        params = event.get("params", {})
        match event.get("method"):
            case "Runtime.exceptionThrown":
                self.complaints.append(params["exceptionDetails"].get("exception", {}).get("description", "exception"))
            case "Runtime.consoleAPICalled" if params["type"] in ("error", "warning", "assert"):
                self.complaints.append(" ".join(str(one.get("value")) for one in params["args"]))
            case "Log.entryAdded" if params["entry"]["level"] in ("error", "warning"):
                self.complaints.append(f"{params['entry']['text']} ({params['entry'].get('url', '')})")
            case "Network.requestWillBeSent":
                self.asked_for.append(params["request"]["url"])

    def evaluate(self, expression):
        result = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in result:
            raise AssertionError(f"{expression}: {result['exceptionDetails']}")
        return result["result"].get("value")

    def text(self, selector):
        """What is to be read there; nothing where it is not shown."""
        return self.evaluate(f"document.querySelector({json.dumps(selector)})?.innerText ?? ''")

    def until(self, what, expression, seconds):
        """Looks until the expression is true; how long that took."""
        began = time.monotonic()
        while time.monotonic() - began < seconds:
            if self.evaluate(expression):
                return time.monotonic() - began
            time.sleep(LOOK_SECONDS)
        raise AssertionError(f"{what}: not within {seconds} s; the page reads:\n{self.text('body')}")

    def click(self, selector):
        """As a finger does: at its middle, on whatever is in front there."""
        middle = self.evaluate(
            f"(() => {{ const node = document.querySelector({json.dumps(selector)}); node.scrollIntoView({{block: 'center'}});"
            " const box = node.getBoundingClientRect(); return [box.x + box.width / 2, box.y + box.height / 2]; })()")
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=middle[0], y=middle[1], button="left", clickCount=1)

    def screenshot(self, path):
        """All of the page, as a PNG."""
        size = self.call("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}
        shot = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=True, clip=clip)
        Path(path).write_bytes(base64.b64decode(shot["data"]))
