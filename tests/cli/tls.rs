//! What is asked of clients that come by TLS, from the settings to other people's programs.
//!
//! What needs openssl is not among the tests that need nothing but Rust: `.ci/run tls` has it.

use std::ffi::OsStr;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

use crate::process::{Server, free_endpoint};

/// An authority as openssl keeps it, what it has issued, and a list on which nobody stands yet.
const AUTHORITY: &str = r#"
key() {
  openssl req "$@" -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes
}
key -x509 -days 2 -subj /CN=authority -keyout ca.key -out ca.pem
echo subjectAltName=DNS:localhost,IP:127.0.0.1 >names
for name in server good early late other; do
  key -subj "/CN=$name" -keyout "$name.key" -out "$name.csr"
  openssl x509 -req -in "$name.csr" -days 2 -CA ca.pem -CAkey ca.key -CAcreateserial -extfile names -out "$name.pem"
done
cat >ca.cnf <<END
[ca]
default_ca = here
[here]
certificate = ca.pem
private_key = ca.key
database = index
crlnumber = number
default_md = sha256
default_crl_days = 2
END
touch index
echo 01 >number
"#;
const REVOKE: &str =
    r#"openssl ca -config ca.cnf -revoke "$1.pem"; openssl ca -config ca.cnf -gencrl -out crl.pem"#;
const ASK: &str = r#"printf 'GET /version HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n' |
openssl s_client "$2" -connect "$3" -verify_return_error -CAfile ca.pem -cert "$1.pem" -key "$1.key" -quiet 2>&1"#;

/// What a script printed, and whether it came to its end.
fn shell(dir: &Path, script: &str, arguments: &[&str]) -> (bool, String) {
    let mut command = Command::new("bash");
    command.args(["-euo", "pipefail", "-c", script, "bash"]).args(arguments).current_dir(dir);
    let output = command.output().unwrap();
    let all = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(all).unwrap())
}

fn must(dir: &Path, script: &str, arguments: &[&str]) {
    let (is_done, said) = shell(dir, script, arguments);
    assert!(is_done, "{said}");
}

/// What a client on this machine is told that speaks no TLS: the status of HTTP, or nothing.
fn told_in_plain_text(endpoint: &str) -> Option<String> {
    let mut stream = TcpStream::connect(endpoint).unwrap();
    let request = b"GET /health HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
    // Whoever is refused may find the connection closed already.
    let _ = stream.write_all(request);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    let answer = String::from_utf8(answer).unwrap();
    answer.split(' ').nth(1).map(str::to_owned)
}

/// The ports of a server are for clients by https, for probes by https, and for probes by http.
#[test]
fn where_clients_have_to_show_certificates_plain_text_is_refused_also_from_this_machine() {
    let dir = TempDir::new().unwrap();
    let key = rcgen::KeyPair::generate().unwrap();
    let params = rcgen::CertificateParams::new(vec!["localhost".into()]).unwrap();
    let certificate = params.self_signed(&key).unwrap().pem();
    let file = |name: &str, text: &str| {
        let path = dir.path().join(name);
        fs::write(&path, text).unwrap();
        path.into_os_string()
    };
    let (cert, key) = (file("cert", &certificate), file("key", &key.serialize_pem()));
    for (name, demands, expected) in
        [("alone", false, [Some("200"), Some("200"), Some("200")]), ("both", true, [None, None, Some("200")])]
    {
        let (by_https, by_http) = (free_endpoint(), free_endpoint());
        let probes = format!("https://{by_https},http://{by_http}");
        let mut settings = vec![
            ("COVEY_CERT_FILE", &*cert),
            ("COVEY_KEY_FILE", &*key),
            ("COVEY_LISTEN_METRICS_URLS", OsStr::new(&probes)),
        ];
        settings.extend(demands.then_some(("COVEY_TRUSTED_CA_FILE", &*cert)));
        let server = Server::start_by("https", &dir.path().join(name), &settings);
        let told = [&server.endpoint, &by_https, &by_http].map(|endpoint| told_in_plain_text(endpoint));
        assert_eq!(told.each_ref().map(Option::as_deref), expected, "certificates demanded: {demands}");
    }
}

#[test]
#[ignore = "needs openssl: .ci/run tls"]
fn openssl_is_served_as_far_as_the_settings_allow() {
    let dir = TempDir::new().unwrap();
    must(dir.path(), AUTHORITY, &[]);
    must(dir.path(), REVOKE, &["early"]);
    let file = |name: &str| dir.path().join(name).into_os_string();
    let (cert, key, ca, crl) = (file("server.pem"), file("server.key"), file("ca.pem"), file("crl.pem"));
    let settings = [
        ("COVEY_CERT_FILE", &*cert),
        ("COVEY_KEY_FILE", &*key),
        ("COVEY_TRUSTED_CA_FILE", &*ca),
        ("COVEY_CLIENT_CRL_FILE", &*crl),
        ("COVEY_CLIENT_CERT_ALLOWED_CN", OsStr::new("good,early,late")),
        ("COVEY_TLS_MIN_VERSION", OsStr::new("TLS1.3")),
    ];
    let server = Server::start_in(&dir.path().join("a.covey"), &settings);
    let ask = |name: &str, version: &str| shell(dir.path(), ASK, &[name, version, &server.endpoint]).1;
    for name in ["good", "late"] {
        let answer = ask(name, "-tls1_3");
        assert!(answer.contains("etcdserver"), "{name}: {answer}");
    }
    for (name, version, reason) in [
        ("good", "-tls1_2", "alert protocol version"),
        ("early", "-tls1_3", "alert certificate revoked"),
        ("other", "-tls1_3", "alert"),
    ] {
        let answer = ask(name, version);
        assert!(answer.contains(reason) && !answer.contains("etcdserver"), "{name} {version}: {answer}");
    }
    let before = fs::read(&crl).unwrap();
    must(dir.path(), REVOKE, &["late"]);
    assert_ne!(before, fs::read(&crl).unwrap());
    let answer = ask("late", "-tls1_3");
    assert!(answer.contains("alert certificate revoked") && !answer.contains("etcdserver"), "{answer}");
    assert!(ask("good", "-tls1_3").contains("etcdserver"));
}
