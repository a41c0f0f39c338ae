//! Other people's TLS against the certificates that a cluster issues: etcdctl (Go), openssl, curl, Python, and covey's own client.
//!
//! Not among the tests that need nothing but Rust: `.ci/run tls` has the programs.

use std::path::Path;
use std::process::{Command, Output, Stdio};

use covey::cli::bundle::Bundle;
use tempfile::TempDir;

use crate::client_keys::Cluster;
use crate::harness::{Server, run};

/// A node, and bundles of clients.
struct Scene {
    cluster: Cluster,
    server: Server,
    dir: TempDir,
}

impl Scene {
    async fn new() -> Self {
        let cluster = Cluster::new();
        let server = cluster.serve().await;
        Self { cluster, server, dir: TempDir::new().unwrap() }
    }

    /// The bundle of a client whose key is on the list, or not.
    fn bundle(&self, name: &str, issued_by: Option<&Cluster>) -> String {
        let client = match issued_by {
            None => self.cluster.issue(name),
            Some(other) => other.authority.issue_client(name).unwrap(),
        };
        let port = self.server.address.port();
        let bundle = Bundle {
            ca: self.cluster.authority.certificate_pem(),
            certificate: client.certificate,
            key: client.key,
            endpoints: vec![format!("https://localhost:{port}"), format!("https://127.0.0.1:{port}")],
        };
        let dir = self.dir.path().join(name);
        bundle.write(&dir).unwrap();
        dir.into_os_string().into_string().unwrap()
    }

    /// Runs a script with the endpoint `127.0.0.1:port` as its first argument and a bundle as its second.
    fn shell(&self, script: &str, bundle: &str) -> Output {
        let endpoint = self.server.address.to_string();
        output("bash", ["-euc", script, "bash", &endpoint, bundle])
    }
}

fn output<'a>(program: &str, arguments: impl IntoIterator<Item = &'a str>) -> Output {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut command = Command::new(program);
    command.args(arguments).env_clear().env("PATH", path).stdin(Stdio::null());
    command.output().unwrap_or_else(|error| panic!("{program}: {error}"))
}

fn says(output: &Output, what: &str) -> bool {
    let all = [&output.stdout[..], &output.stderr[..]].concat();
    output.status.success() && String::from_utf8_lossy(&all).contains(what)
}

/// Runs a script with a client's own bundle, with that of one who was never let in, and with one that has another cluster's certificate; and with bundles from
/// before and after the authority was replaced.
#[track_caller]
fn judge(script: &str, what: &str) {
    run(async {
        let mut scene = Scene::new().await;
        let bundle = scene.bundle("good", None);
        let good = scene.shell(script, &bundle);
        assert!(says(&good, what), "{good:?}");
        // Twice, so that there is more than one step on the way.
        for name in ["once", "twice"] {
            scene.cluster.replace();
            let before = scene.shell(script, &bundle);
            assert!(says(&before, what), "{before:?}");
            let after = scene.shell(script, &scene.bundle(name, None));
            assert!(says(&after, what), "{after:?}");
        }
        scene.cluster.forget();
        let ended = scene.shell(script, &bundle);
        assert!(!says(&ended, what), "{ended:?}");
        let last = scene.shell(script, &scene.bundle("last", None));
        assert!(says(&last, what), "{last:?}");
        let minted = scene.shell(script, &scene.bundle("minted", Some(&scene.cluster)));
        assert!(!says(&minted, what), "{minted:?}");
        let stranger = scene.shell(script, &scene.bundle("stranger", Some(&Cluster::new())));
        assert!(!says(&stranger, what), "{stranger:?}");
    });
}

#[test]
#[ignore = "needs etcdctl: .ci/run tls"]
fn etcdctl_works_with_the_environment_of_a_bundle() {
    judge(
        r#". "$2/env"; export ETCDCTL_API=3; etcdctl put k v; etcdctl get k; etcdctl endpoint health"#,
        "k\nv\n",
    );
}

#[test]
#[ignore = "needs openssl: .ci/run tls"]
fn openssl_verifies_servers_and_bundles_at_any_time() {
    for version in ["-tls1_2", "-tls1_3"] {
        for time in ["0", "4102444800"] {
            // What the server thinks of the client is known once it has answered.
            let script = format!(
                r#"printf 'GET /version HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n' |
                openssl s_client {version} -attime {time} -connect "$1" -verify_return_error -verify_ip 127.0.0.1 \
                  -CAfile "$2/ca.crt" -cert "$2/client.crt" -key "$2/client.key" -quiet 2>&1"#
            );
            judge(&script, "etcdserver");
        }
    }
    run(async {
        let scene = Scene::new().await;
        let script = r#"for time in 0 4102444800; do
            openssl verify -x509_strict -purpose sslclient -attime $time -CAfile "$2/ca.crt" "$2/client.crt"
          done
          openssl x509 -in "$2/ca.crt" -noout -dates"#;
        let verified = scene.shell(script, &scene.bundle("good", None));
        assert!(says(&verified, "notAfter=Dec 31 23:59:59 9999 GMT"), "{verified:?}");
    });
}

#[test]
#[ignore = "needs curl: .ci/run tls"]
fn curl_is_served_over_both_protocols() {
    for protocol in ["--http1.1", "--http2"] {
        let script = format!(
            r#"curl -sS {protocol} --cacert "$2/ca.crt" --cert "$2/client.crt" --key "$2/client.key" "https://$1/version""#
        );
        judge(&script, "etcdserver");
    }
}

#[test]
#[ignore = "needs Python: .ci/run tls"]
fn pythons_ssl_takes_a_bundle() {
    let program = r#"
import ssl, sys, urllib.request
context = ssl.create_default_context(cafile=sys.argv[2] + "/ca.crt")
if hasattr(ssl, "VERIFY_X509_STRICT"):
    context.verify_flags |= ssl.VERIFY_X509_STRICT
context.load_cert_chain(sys.argv[2] + "/client.crt", sys.argv[2] + "/client.key")
print(urllib.request.urlopen("https://" + sys.argv[1] + "/version", context=context).read())
"#;
    judge(&format!("python3 - \"$1\" \"$2\" <<'END'{program}END\n"), "etcdserver");
}

#[test]
fn coveys_own_client_takes_a_bundle_and_speaks_plaintext_on_the_machine() {
    run(async {
        let scene = Scene::new().await;
        let covey = |arguments: &[&str]| output(env!("CARGO_BIN_EXE_covey"), arguments.iter().copied());
        let good = scene.bundle("good", None);
        assert!(covey(&["--bundle", &good, "put", "k", "v"]).status.success());
        let got = covey(&["--bundle", &good, "get", "k"]);
        assert!(says(&got, "k\nv\n"), "{got:?}");
        let file = |name: &str| Path::new(&good).join(name).into_os_string().into_string().unwrap();
        let (ca, cert, key) = (file("ca.crt"), file("client.crt"), file("client.key"));
        let at = scene.server.address.to_string();
        let each = covey(&["get", "k", "--endpoints", &at, "--cacert", &ca, "--cert", &cert, "--key", &key]);
        assert!(says(&each, "k\nv\n"), "{each:?}");
        assert!(says(&covey(&["--endpoints", &at, "get", "k"]), "k\nv\n"), "plaintext");

        let without = covey(&["get", "k", "--endpoints", &at, "--cacert", &ca]);
        assert!(!without.status.success(), "{without:?}");
        let minted = scene.bundle("minted", Some(&scene.cluster));
        assert!(!covey(&["--bundle", &minted, "get", "k"]).status.success());
        let elsewhere = Cluster::new();
        let other = elsewhere.serve().await;
        let other = format!("https://{}", other.address);
        let fooled = covey(&["--bundle", &good, "--endpoints", &other, "get", "k"]);
        assert!(
            !fooled.status.success() && !fooled.stderr.is_empty(),
            "a server of another cluster: {fooled:?}"
        );
        assert!(String::from_utf8_lossy(&fooled.stderr).contains("over TLS"), "{fooled:?}");
    });
}
