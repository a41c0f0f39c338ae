"""Lends a server with TLS and users to a command.

Owns: the certificates, the users and their roles. Must never: let anybody in without a certificate, or leave a key behind. Needs openssl.

  python secure.py covey|etcd COMMAND...

In COMMAND, {url} and {endpoint} are the server's, and {certificates} is a directory with `ca.pem`, and NAME.pem and NAME.key for each
of CERTIFICATES. Passwords are names; nobody has to log in as CERTIFIED, whose certificate is enough. Tokens that nobody uses end after
TOKEN_SECONDS. The roles are for keys that begin with `k/`, and there is one: `k/1`.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

sys.dont_write_bytecode = True
HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "harness"))

import servers  # noqa: E402

CERTIFIED = "certified"
# There is no user `somebody`: that one has to log in.
CERTIFICATES = ("server", "somebody", CERTIFIED)
TOKEN_SECONDS = 2

OPENSSL = """
[req]
distinguished_name = name
[name]
[authority]
basicConstraints = critical, CA:TRUE
[leaf]
subjectAltName = IP:127.0.0.1, DNS:localhost
"""
ISSUED_BY_CA = ("-CA", "ca.pem", "-CAkey", "ca.key", "-extensions", "leaf")

COMMANDS = (
    ("put", "k/1", "v"),
    ("put", "other", "v"),
    ("role", "add", "reads"),
    ("role", "grant-permission", "reads", "read", "--prefix", "k/"),
    ("role", "add", "writes"),
    ("role", "grant-permission", "writes", "write", "--prefix", "k/"),
    ("user", "add", "root:root"),
    ("user", "grant-role", "root", "root"),
    ("user", "add", "reader:reader"),
    ("user", "grant-role", "reader", "reads"),
    ("user", "add", CERTIFIED, "--no-password"),
    ("user", "grant-role", CERTIFIED, "reads"),
    ("user", "grant-role", CERTIFIED, "writes"),
    ("auth", "enable"),
)


def certify(directory):
    """Makes an authority and what it has issued. No usage is named: some servers are clients of their own."""
    (directory / "openssl.cnf").write_text(OPENSSL)
    new = ("openssl", "req", "-x509", "-config", "openssl.cnf", "-nodes", "-days", "2",
           "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1")
    for name in ("ca", *CERTIFICATES):
        issued = ("-extensions", "authority") if name == "ca" else ISSUED_BY_CA
        files = ("-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.pem")
        subprocess.run([*new, *issued, *files], cwd=directory, check=True, stderr=subprocess.DEVNULL)


def flags(kind, directory):
    own = ("--enable-grpc-reflection",) if kind is servers.COVEY else ()
    return (f"--cert-file={directory}/server.pem", f"--key-file={directory}/server.key", "--client-cert-auth",
            f"--trusted-ca-file={directory}/ca.pem", f"--auth-token-ttl={TOKEN_SECONDS}", *own)


def add_users(server, directory):
    # Either client does for either server.
    client = server.binary if server.kind is servers.COVEY else os.environ["ETCDCTL_BIN"]
    tls = (f"--cacert={directory}/ca.pem", f"--cert={directory}/somebody.pem", f"--key={directory}/somebody.key")
    for words in COMMANDS:
        subprocess.run([client, f"--endpoints={server.url}", *tls, *words], check=True, stdout=subprocess.DEVNULL,
                       env=servers.environment())


def main():
    servers.exit_on_signals()
    if len(sys.argv) < 3 or sys.argv[1] not in servers.KINDS:
        sys.exit(__doc__)
    with tempfile.TemporaryDirectory(prefix="secure-") as scratch:
        directory, kind = Path(scratch) / "certificates", servers.KINDS[sys.argv[1]]
        directory.mkdir()
        certify(directory)
        server = servers.Server(kind, Path(scratch) / "data", flags(kind, directory), scheme="https")
        try:
            server.start()
            add_users(server, directory)
        except (servers.NotReady, subprocess.CalledProcessError) as why:
            sys.exit(f"{why}; the server's log ends:\n{server.log_tail()}")
        words = {"{url}": server.url, "{endpoint}": server.endpoint, "{certificates}": str(directory)}
        command = sys.argv[2:]
        for word, value in words.items():
            command = [part.replace(word, value) for part in command]
        code = subprocess.run(command, check=False).returncode
        stopped = server.stop()
        if kind is servers.COVEY and stopped != 0:
            sys.exit(f"covey ended with {stopped} on SIGTERM; its log ends:\n{server.log_tail()}")
        return code


if __name__ == "__main__":
    sys.exit(main())
