"""The status page in a real browser: what is to be read there while real servers run, fail, and let a box in.

Owns: the scenes. Must never: ask a server what only the page should say. Needs root, chromium, and COVEY_BIN.

  python shown.py DIRECTORY    screenshots are left there, for people to look at
"""

import base64
import json
import subprocess
import sys
import tempfile
import time
import urllib.request
from dataclasses import replace
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "harness"))
sys.path.insert(0, str(HERE))

from bearer import Bearer  # noqa: E402
from browser import Browser  # noqa: E402
from lan import Lan  # noqa: E402
from servers import COVEY, HOST, Server, exit_on_signals  # noqa: E402

WIDTHS = (320, 360, 1280)
# The page asks every two seconds; a machine that builds meanwhile is slow.
SOON = 30
FORMS = 90
MEMBER = replace(COVEY, command=("{binary}", "serve", "--data-dir", "{data}", "--listen-client-urls", "{url}",
                                 "--listen-peer-urls", "{peer_url}"))
HTTPS = replace(COVEY, command=("{binary}", "serve", "--solo", "--data-dir", "{data}"))
ANSWERED = "document.querySelector('#asof').textContent.startsWith('as of')"


def must(condition, what):
    if not condition:
        raise AssertionError(what)


def reads(selector, text):
    """The expression that this is to be read there."""
    return f"(document.querySelector({json.dumps(selector)})?.innerText ?? '').includes({json.dumps(text)})"


def states(*expected):
    """The expression that the members are in these states, in whatever order."""
    found = "[...document.querySelectorAll('#members tr td:last-child')].map((cell) => cell.innerText).sort().join()"
    return f"{found} === {json.dumps(','.join(sorted(expected)))}"


def look(browser, url, name, shots, complains=()):
    """All widths, light and dark: nothing sticks out, nothing is asked for elsewhere, and the browser has nothing to say."""
    for width in WIDTHS:
        for dark in (False, True) if width == 360 else (False,):
            page = browser.open(url, width, dark=dark)
            page.until("an answer", ANSWERED, SOON)
            # Rates take two answers.
            time.sleep(2.5)
            wide = page.evaluate("document.documentElement.scrollWidth")
            must(wide <= width, f"{name}: {wide} wide on {width}")
            page.screenshot(shots / f"{name}-{width}{'-dark' if dark else ''}.png")
            sound(page, url, name, complains)
            page.close()


def sound(page, url, name, complains=()):
    strange = [text for text in page.complaints if not any(known in text for known in complains)]
    must(not strange, f"{name}: the browser complains: {strange}")
    outside = [asked for asked in page.asked_for if not asked.startswith((url, "data:,"))]
    must(not outside, f"{name}: asked for {outside}")


def post(server, path, body):
    request = urllib.request.Request(server.url + path, json.dumps(body).encode())
    return urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=10).read()


def text64(text):
    return base64.b64encode(text.encode()).decode()


def one_box(scratch, shots):
    server = Server(COVEY, scratch / "one")
    server.start()
    url = f"{server.url}/status"
    with Browser() as browser:
        page = browser.open(url, 1280)
        page.until("a healthy box", reads("#line", "healthy: 1 voter"), SOON)
        must(page.evaluate(reads("#storage", "Keys\n0")), page.text("#storage"))
        for n in range(3):
            post(server, "/v3/kv/put", {"key": text64(f"key {n}"), "value": text64("value")})
        page.until("three keys", reads("#storage", "Keys\n3"), SOON)
        must(page.evaluate(reads("#load", "Puts")), page.text("#load"))
        moved = "!/Puts\\n(–|0 \\/s)/.test(document.querySelector('#load').innerText)"
        end = time.monotonic() + SOON
        while not page.evaluate(moved):
            must(time.monotonic() < end, f"no rate of puts: {page.text('#load')}")
            post(server, "/v3/kv/put", {"key": text64("often"), "value": text64("value")})
            time.sleep(0.2)
        must(page.evaluate(reads("#events", "ready to serve client requests")), page.text("#events"))
        sound(page, url, "one box")
        look(browser, url, "one", shots)

        server.kill()
        took = page.until("that the box is gone", reads("#lost", "does not answer"), SOON)
        page.screenshot(shots / "gone.png")
        server.start()
        page.until("that it is back", "document.querySelector('#lost').hidden", SOON)
        sound(page, url, "one box", complains=["ERR_CONNECTION_REFUSED", "ERR_CONNECTION_RESET", "ERR_EMPTY_RESPONSE"])
        print(f"one box: a box that was killed was missed after {took:.1f} s, and found again")
    must(server.stop() == 0, "it ends well")


def three_members(scratch, shots):
    members = [Server(MEMBER, scratch / f"member{n}") for n in range(3)]
    names = ",".join(f"box{n}=http://{HOST}:{member.peer_port}" for n, member in enumerate(members))
    for n, member in enumerate(members):
        member.flags = ("--name", f"box{n}", "--initial-cluster", names)
        member.launch()
    for member in members:
        member.wait_ready()
    url = f"{members[0].url}/status"
    with Browser() as browser:
        page = browser.open(url, 360)
        page.until("three members that are well", f"{reads('#line', 'healthy: 3 voters')} && {states('this box', 'reached', 'reached')}", FORMS)
        look(browser, url, "three", shots)
        members[2].kill()
        took = page.until("that one is away", f"{reads('#line', 'box2 not reached')} && {states('this box', 'reached', 'AWAY')}", SOON)
        look(browser, url, "away", shots)
        members[1].kill()
        page.until("that there is no leader", reads("#line", "no leader: 1 of 3 voters are reached"), FORMS)
        sound(page, url, "three members")
        print(f"three members: one that was killed was away after {took:.1f} s")
    members[0].kill()


def self_signed(scratch):
    cert, key = str(scratch / "cert.pem"), str(scratch / "key.pem")
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
                    "-extensions", "usr_cert", "-subj", "/CN=box", "-addext", f"subjectAltName=IP:{HOST}", "-keyout", key, "-out", cert],
                   check=True, capture_output=True)
    return cert, key


def by_https(scratch, shots):
    cert, key = self_signed(scratch)
    server = Server(HTTPS, scratch / "https")
    server.flags = ("--listen-client-urls", f"https://{server.endpoint}", "--cert-file", cert, "--key-file", key)
    server.start()
    url = f"https://{server.endpoint}/status"
    with Browser(flags=("--ignore-certificate-errors",)) as browser:
        page = browser.open(url, 360)
        page.until("the verdict alone", reads("#line", "healthy: 1 of 1 members reached, 1 vote"), SOON)
        shown = page.text("body")
        must("Names, addresses, load and events are shown" in shown, shown)
        for what in ("Members", "Storage", "Load", "Recent", "fingerprint"):
            must(what not in shown, f"a stranger is shown {what}: {shown}")
        look(browser, url, "stranger", shots)
    must(server.stop() == 0, "it ends well")
    print("by https: a stranger is shown the verdict and no more")


def by_certificate(scratch, shots):
    """A client's certificate, which this browser cannot show by itself: what passes its bytes on shows it."""
    cert, key = self_signed(scratch)
    server = Server(HTTPS, scratch / "https", scheme="https")
    server.flags = ("--listen-client-urls", server.url, "--cert-file", cert, "--key-file", key, "--trusted-ca-file", cert,
                    "--client-cert-auth")
    server.start()
    with Bearer(server, cert, key) as bearer, Browser(flags=("--ignore-certificate-errors",)) as browser:
        page = browser.open(bearer.page, 360)
        page.until("everything", reads("#line", "healthy: 1 voter"), SOON)
        for where, what in (("#members", "this box"), ("#storage", "Keys\n0"), ("#load", "Puts"), ("#events", "ready to serve")):
            must(page.evaluate(reads(where, what)), f"{what} is not in {page.text(where)}")
        must(page.evaluate("document.querySelector('#redacted').hidden"), "nothing is left out")
        look(browser, bearer.page, "certificate", shots)
        # What changes the cluster is for the box itself alone.
        code = page.evaluate("fetch('status/approve', {method: 'POST', body: '{\"fingerprint\": \"\"}', headers: {'content-type':"
                             " 'application/json', 'x-covey-page': '1'}}).then((answer) => answer.status)")
        must(code == 403, f"an approval from elsewhere: {code}")
    must(server.stop() == 0, "it ends well")
    print("by https: who has a certificate is shown everything, and lets nobody in")


def let_in(scratch, shots):
    with Lan(scratch, 3) as lan:
        for box in lan.boxes[:2]:
            box.server.launch()
        first = lan.boxes[0]
        with Browser(first.inside) as browser:
            # There is a page before there is a cluster.
            url = first.page
            page = open_patiently(browser, url)
            page.until("two boxes in one cluster", f"{reads('#line', 'leader')} && {states('this box', 'reached')}", FORMS)
            first.run("window", "close")
            page.until("a closed window", reads("#phase", "sealed"), SOON)
            lan.boxes[2].server.launch()
            with Browser(lan.boxes[2].inside) as other:
                new = open_patiently(other, lan.boxes[2].page)
                new.until("what the new box waits for", reads("#line", "gathering"), FORMS)
                own = new.text("#box").split("fingerprint: ")[1]
                new.screenshot(shots / "waits.png")
                sound(new, lan.boxes[2].page, "the new box")
            # Whichever of them was asked, each shows who waits.
            page.until("the box that waits", reads("#nodes", "box2"), SOON)
            must(page.evaluate(reads("#nodes", own)), page.text("#nodes"))
            second = lan.boxes[1]
            with Browser(second.inside) as browser:
                approve(browser, second, own, shots)


def open_patiently(browser, url):
    """A server that was just started may not listen yet."""
    for _ in range(100):
        try:
            return browser.open(url, 360)
        except AssertionError as trouble:
            must("ERR_CONNECTION_REFUSED" in str(trouble), trouble)
            time.sleep(0.1)
    raise AssertionError(f"{url}: nobody listens")


def approve(browser, at, own, shots):
    page = browser.open(at.page, 360)
    page.until("the box that waits", reads("#nodes", "box2"), SOON)
    must(page.evaluate(reads("#nodes", own)), page.text("#nodes"))
    look(browser, at.page, "pending", shots)
    page.click("#nodes button")
    page.until("the question", "document.querySelector('#ask').open", SOON)
    must(page.text("#print") == own, f"{page.text('#print')} is to be compared with {own}")
    page.screenshot(shots / "question.png")
    page.click("#no")
    page.until("no question any more", "!document.querySelector('#ask').open", SOON)
    must(at.status()[1]["cluster"]["pending"], "a no is a no")
    page.click("#nodes button")
    page.until("the question", "document.querySelector('#ask').open", SOON)
    page.click("#yes")
    page.until("what came of it", reads("#done", "box2 is let in when it asks next."), SOON)
    page.until("three voters", f"{reads('#line', 'healthy: 3 voters')} && {states('this box', 'reached', 'reached')}", FORMS)
    page.screenshot(shots / "let-in.png")
    sound(page, at.page, "the page of who lets in")
    print("let in: a box that waited was compared and let in by the page")


def main():
    exit_on_signals()
    shots = Path(sys.argv[1])
    shots.mkdir(parents=True, exist_ok=True)
    scenes = (one_box, three_members, by_https, by_certificate, let_in)
    for scene in scenes:
        if sys.argv[2:] and scene.__name__ not in sys.argv[2:]:
            continue
        with tempfile.TemporaryDirectory(prefix="page-") as scratch:
            scene(Path(scratch), shots)


if __name__ == "__main__":
    main()
