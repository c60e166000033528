//! The remote toggle: may the timer copy? The app on the VPS decides, asked at its public name with the operator's token.

use std::time::{Duration, Instant};

use serde_json::{Map, Value};
use ua_common::exit::Exit;
use ua_common::http::{self, Answer, Way};
use ua_common::ops::{TOKEN_HEADER, TOKEN_VARIABLE, Token};
use ua_common::report::Check;
use ua_common::settings::Settings;

/// The check's name in a report.
pub const ID: &str = "sync.toggle";

/// What one question may take.
pub const LIMIT: Duration = Duration::from_secs(15);

/// Asks the toggle. Only a plain yes is one; everything else is the check that ends the run: `skip` where the app does not
/// say yes, `fail` where nobody could be asked.
pub fn ask(settings: &Settings, token: Option<&Token>, limit: Duration) -> Result<(), Check> {
    let start = Instant::now();
    let gateway = &settings.ops_gateway_url;
    let url = format!("{}{}", gateway.0.trim_end_matches('/'), settings.ops_toggle_path.0);
    if !url.starts_with("https://") {
        let detail =
            format!("`{url}` (from {}) is not asked: the token is sent over https only", gateway.origin);
        return Err(Check::fail(ID, Exit::Usage, detail).hint("ua-sync once --gateway-url https://HOST"));
    }
    let Some(token) = token else {
        let detail = format!("`{url}` cannot be asked: there is no {TOKEN_VARIABLE}");
        let hint = format!("export {TOKEN_VARIABLE}=…  # or write it to the repository's `.env`");
        return Err(Check::fail(ID, Exit::Failed, detail).hint(hint));
    };
    answer(&url, token, limit).map_err(|check| check.since(start))
}

fn answer(url: &str, token: &Token, limit: Duration) -> Result<(), Check> {
    let bearer = format!("Bearer {}", token.reveal());
    let headers = [(TOKEN_HEADER, token.reveal()), ("authorization", &bearer)];
    match http::ask(url, &headers, Way::Internet, limit) {
        Ok(answer) => judge(url, &answer),
        Err(why) => Err(failed(format!("`{url}` does not answer: {why}"), format!("curl -sS {url}"))),
    }
}

fn failed(detail: String, hint: String) -> Check {
    Check::fail(ID, Exit::Failed, detail).hint(hint)
}

/// What an answer means. Only `true` in the object's own `enabled` is a yes.
fn judge(url: &str, answer: &Answer) -> Result<(), Check> {
    match answer.status {
        200 => {}
        status @ (401 | 403) => {
            let hint = format!("export {TOKEN_VARIABLE}=…  # the one of the app");
            return Err(failed(format!("`{url}` refuses the token with status {status}"), hint));
        }
        status @ 300..=399 => {
            let detail = format!("`{url}` answers {status}; a redirect is not followed with the token");
            return Err(failed(detail, format!("curl -sSI {url}")));
        }
        status => return Err(failed(format!("`{url}` answers {status}"), format!("curl -sS {url}"))),
    }
    let body = answer.body.as_deref().unwrap_or_default();
    let why = match serde_json::from_slice::<Map<String, Value>>(body) {
        Err(_) if answer.body.is_none() => "its answer is longer than any that says yes or no",
        Err(_) => "its answer is no JSON object",
        Ok(object) => match object.get("enabled") {
            Some(Value::Bool(true)) => return Ok(()),
            Some(Value::Bool(false)) => "it is off",
            Some(Value::Null) | None => "it is not set",
            Some(_) => "its `enabled` is neither true nor false",
        },
    };
    Err(Check::skip(ID, format!("nothing is copied while the remote toggle is not on: {why} (`{url}`)")))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::io::{Read as _, Write as _};
    use std::net::TcpListener;
    use std::path::{Path, PathBuf};
    use std::process::Command;
    use std::sync::Arc;

    use rustls::pki_types::pem::PemObject as _;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};
    use rustls::{ServerConfig, ServerConnection, StreamOwned};
    use ua_common::report::Verdict;
    use ua_common::settings::{Layer, Origin, Raw, Surroundings};

    use super::*;

    fn settings(gateway: &str, path: &str) -> Settings {
        let dir = PathBuf::from("/");
        let env = BTreeMap::new();
        let around = Surroundings { cwd: dir.clone(), home: Some(dir), config_home: None, env, uid: 0 };
        let layer: Layer = [("ops.gateway_url", gateway), ("ops.toggle_path", path)]
            .into_iter()
            .map(|(key, text)| (key, (Raw::Text(text.to_owned()), Origin::Env("UA_X"))))
            .collect();
        Settings::resolve(&[layer], &around).unwrap()
    }

    fn secret() -> Token {
        Token::given("hunter2", "the test").unwrap()
    }

    fn outcome(result: Result<(), Check>) -> (Option<Verdict>, Exit, String) {
        match result {
            Ok(()) => (None, Exit::Ok, String::new()),
            Err(check) => {
                assert_eq!(check.id, ID);
                let said = format!("{} {}", check.detail, check.hint.unwrap_or_default());
                assert!(!said.contains("hunter2"), "{said}");
                (Some(check.verdict), check.exit, said)
            }
        }
    }

    #[test]
    fn p132_only_the_objects_own_true_is_a_yes() {
        let judged = |status, body: &str| {
            let answer = Answer { status, body: Some(body.as_bytes().to_vec()) };
            let (verdict, exit, _) = outcome(judge("https://x/y", &answer));
            (verdict, exit)
        };
        for on in [r#"{"enabled":true}"#, " {\"a\": 1,\r\n \"enabled\" : true}\n"] {
            assert_eq!(judged(200, on), (None, Exit::Ok), "{on}");
        }
        for off in [
            r#"{"enabled":false,"x":{"enabled":true}}"#,
            r#"{"x":{"enabled":true}}"#,
            r#"{"enabled":"true"}"#,
            r#"{"enabled":1}"#,
            r#"{"enabled":null}"#,
            "{}",
            "[true]",
            r#"[{"enabled":true}]"#,
            "true",
            "",
            r#"{"enabled":true"#,
            r#"{"enabled":true} and more"#,
            "<html>\"enabled\":true</html>",
        ] {
            assert_eq!(judged(200, off), (Some(Verdict::Skip), Exit::Ok), "{off}");
        }
        for status in [201, 204, 302, 401, 403, 404, 500, 503] {
            let failed = (Some(Verdict::Fail), Exit::Failed);
            assert_eq!(judged(status, r#"{"enabled":true}"#), failed, "{status}");
        }
        assert_eq!(
            outcome(judge("https://x/y", &Answer { status: 200, body: None })).0,
            Some(Verdict::Skip),
            "too long"
        );
    }

    #[test]
    fn the_token_never_leaves_over_http() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let settings = settings(&format!("http://{}", listener.local_addr().unwrap()), "/x");
        let (verdict, exit, said) = outcome(ask(&settings, Some(&secret()), LIMIT));
        assert_eq!((verdict, exit), (Some(Verdict::Fail), Exit::Usage));
        assert!(said.contains("(from UA_X)"), "{said}");
        assert!(listener.accept().is_err(), "it was contacted");
    }

    #[test]
    fn without_a_token_nobody_is_asked() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let settings = settings(&format!("https://{}", listener.local_addr().unwrap()), "/x");
        let (verdict, exit, said) = outcome(ask(&settings, None, LIMIT));
        assert_eq!((verdict, exit), (Some(Verdict::Fail), Exit::Failed));
        assert!(said.contains("UA_OPS_TOKEN"), "{said}");
        assert!(listener.accept().is_err(), "it was contacted");
    }

    /// A certificate for `localhost` that is its own authority, in `cert.pem`, and its key.
    fn certificate(dir: &Path) {
        let config = "[req]\ndistinguished_name = name\n[name]\n";
        std::fs::write(dir.join("openssl.cnf"), config).unwrap();
        let made = Command::new("openssl")
            .args([
                "req",
                "-x509",
                "-config",
                "openssl.cnf",
                "-subj",
                "/CN=localhost",
                "-days",
                "1",
                "-nodes",
            ])
            .args(["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"])
            .args(["-keyout", "key.pem", "-out", "cert.pem"])
            .args([
                "-addext",
                "subjectAltName=DNS:localhost",
                "-addext",
                "basicConstraints=critical,CA:FALSE",
            ])
            .current_dir(dir)
            .output()
            .expect("openssl");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    }

    /// Answers one connection; gives its URL and what it was asked.
    fn server(dir: &Path, answer: String) -> (String, std::thread::JoinHandle<String>) {
        let chain = CertificateDer::from_pem_file(dir.join("cert.pem")).unwrap();
        let key = PrivateKeyDer::from_pem_file(dir.join("key.pem")).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![chain], key)
            .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("https://localhost:{}", listener.local_addr().unwrap().port());
        let thread = std::thread::spawn(move || {
            let (socket, _) = listener.accept().unwrap();
            let mut stream = StreamOwned::new(ServerConnection::new(Arc::new(config)).unwrap(), socket);
            let mut asked = Vec::new();
            let mut byte = [0];
            while !asked.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|length| length == 1) {
                asked.push(byte[0]);
            }
            if answer.is_empty() {
                // Held open until the other side gives up.
                let _gone = stream.read(&mut byte);
            }
            stream.write_all(answer.as_bytes()).unwrap_or_default();
            stream.conn.send_close_notify();
            stream.flush().unwrap_or_default();
            String::from_utf8_lossy(&asked).into_owned()
        });
        (url, thread)
    }

    fn response(status: u16, headers: &str, body: &str) -> String {
        format!("HTTP/1.1 {status} X\r\n{headers}content-length: {}\r\n\r\n{body}", body.len())
    }

    /// The roots come from the environment of the process, so this test runs itself again with roots of its own.
    #[test]
    fn p131_the_token_travels_in_headers_over_tls_that_the_roots_vouch_for() {
        const DIR: &str = "UA_TEST_TLS";
        if let Some(dir) = std::env::var_os(DIR) {
            return over_tls(Path::new(&dir));
        }
        let dir = tempfile::tempdir().unwrap();
        certificate(dir.path());
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "--nocapture"])
            .arg("toggle::tests::p131_the_token_travels_in_headers_over_tls_that_the_roots_vouch_for")
            .env_clear()
            .env(DIR, dir.path())
            .env("SSL_CERT_FILE", dir.path().join("cert.pem"))
            .output()
            .unwrap();
        let shown = ua_tests::shown(&output);
        assert!(output.status.success() && shown.contains("1 passed"), "{shown}");
    }

    fn over_tls(dir: &Path) {
        let ask_one = |answer: String, limit| {
            let (url, server) = server(dir, answer);
            let outcome =
                outcome(ask(&settings(&format!("{url}/"), "/api/toggle?x=1"), Some(&secret()), limit));
            (outcome, server.join().unwrap().to_ascii_lowercase())
        };

        let ((verdict, ..), asked) = ask_one(response(200, "", r#"{"enabled":true}"#), LIMIT);
        assert_eq!(verdict, None, "on");
        assert!(asked.starts_with("get /api/toggle?x=1 http/1.1\r\n"), "{asked}");
        assert!(asked.contains("\r\nx-ua-ops-token: hunter2\r\n"), "{asked}");
        assert!(asked.contains("\r\nauthorization: bearer hunter2\r\n"), "{asked}");

        let ((verdict, exit, _), _) =
            ask_one(response(200, "", r#"{"enabled":false,"x":{"enabled":true}}"#), LIMIT);
        assert_eq!((verdict, exit), (Some(Verdict::Skip), Exit::Ok), "off");

        let ((verdict, exit, said), _) = ask_one(String::new(), Duration::from_millis(500));
        assert_eq!((verdict, exit), (Some(Verdict::Fail), Exit::Failed), "silence");
        assert!(said.contains("no answer within 0.5 s"), "{said}");

        // Where a redirect leads nobody comes.
        let elsewhere = TcpListener::bind("127.0.0.1:0").unwrap();
        elsewhere.set_nonblocking(true).unwrap();
        for location in ["https://localhost", "http://localhost"] {
            let port = elsewhere.local_addr().unwrap().port();
            let headers = format!("location: {location}:{port}/\r\n");
            let ((verdict, exit, said), _) = ask_one(response(307, &headers, r#"{"enabled":true}"#), LIMIT);
            assert_eq!((verdict, exit), (Some(Verdict::Fail), Exit::Failed), "redirect");
            assert!(said.contains("307"), "{said}");
            assert!(elsewhere.accept().is_err(), "the token went on to {location}");
        }

        // The same server by another name, for which its certificate does not speak.
        let (url, server) = server(dir, response(200, "", r#"{"enabled":true}"#));
        let other = url.replace("localhost", "127.0.0.1");
        let (verdict, exit, said) = outcome(ask(&settings(&other, "/"), Some(&secret()), LIMIT));
        assert_eq!((verdict, exit), (Some(Verdict::Fail), Exit::Failed), "{said}");
        assert_eq!(server.join().unwrap(), "", "nothing was sent to a stranger");
    }
}
