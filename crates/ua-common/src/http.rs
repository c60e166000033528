//! One HTTP question with a time limit. Certificates are judged by the system's own roots; redirects are answers.

use std::io::Read as _;
use std::net::{TcpStream, ToSocketAddrs as _};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection};
use rustls_platform_verifier::BuilderVerifierExt;
use ureq::tls::{RootCerts, TlsConfig};

/// Whether the proxy of the environment may be used: names of the tailnet mean nothing to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Straight to the name.
    Direct,
    /// As everything else on this machine goes to the internet.
    Internet,
}

/// The longest body that is read; what we ask for is far shorter.
const LONGEST_BODY: usize = 64 * 1024;

/// What a server said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// The body; nothing if it is longer than any that we ask for.
    pub body: Option<Vec<u8>>,
}

/// Asks `url` and gives the status, or why there is none.
pub fn status(url: &str, way: Way, limit: Duration) -> Result<u16, String> {
    call(url, &[], way, limit).map(|response| response.status().as_u16()).map_err(|error| said(&error, limit))
}

/// Asks `url` with these headers and gives the whole answer, or why there is none. They go to this address alone, since
/// a redirect is not followed.
pub fn ask(url: &str, headers: &[(&str, &str)], way: Way, limit: Duration) -> Result<Answer, String> {
    let mut response = call(url, headers, way, limit).map_err(|error| said(&error, limit))?;
    let mut body = Vec::new();
    let mut reader = response.body_mut().as_reader().take(LONGEST_BODY as u64 + 1);
    reader.read_to_end(&mut body).map_err(|error| said(&error.into(), limit))?;
    let body = (body.len() <= LONGEST_BODY).then_some(body);
    Ok(Answer { status: response.status().as_u16(), body })
}

fn call(
    url: &str,
    headers: &[(&str, &str)],
    way: Way,
    limit: Duration,
) -> Result<ureq::http::Response<ureq::Body>, ureq::Error> {
    let roots = TlsConfig::builder().root_certs(RootCerts::PlatformVerifier).build();
    let mut config = ureq::Agent::config_builder()
        .timeout_global(Some(limit))
        .http_status_as_error(false)
        .max_redirects(0)
        .user_agent(concat!("ua-tools/", env!("CARGO_PKG_VERSION")))
        .tls_config(roots);
    if way == Way::Direct {
        config = config.proxy(None);
    }
    let request = config.build().new_agent().get(url);
    headers.iter().fold(request, |request, (name, value)| request.header(*name, *value)).call()
}

fn said(error: &ureq::Error, limit: Duration) -> String {
    match error {
        ureq::Error::Timeout(_) => format!("no answer within {} s", limit.as_secs_f64()),
        ureq::Error::HostNotFound => "the name does not resolve on this machine".to_owned(),
        ureq::Error::Io(error) => error.to_string(),
        error => error.to_string(),
    }
}

/// When the certificate ends that `name` shows on `port`, as every visitor gets it; or why it is not to be trusted.
pub fn certificate_end(name: &str, port: u16, limit: Duration) -> Result<Timestamp, String> {
    let text = |error: &dyn std::fmt::Display| error.to_string();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(BuilderVerifierExt::with_platform_verifier)
        .map_err(|error| text(&error))?
        .with_no_client_auth();
    let address = (name, port).to_socket_addrs().map_err(|error| text(&error))?.next();
    let address = address.ok_or("the name does not resolve on this machine")?;
    let mut stream = TcpStream::connect_timeout(&address, limit).map_err(|error| text(&error))?;
    let limited = stream.set_read_timeout(Some(limit)).and_then(|()| stream.set_write_timeout(Some(limit)));
    limited.map_err(|error| text(&error))?;
    let host = ServerName::try_from(name.to_owned()).map_err(|error| text(&error))?;
    let mut tls = ClientConnection::new(Arc::new(config), host).map_err(|error| text(&error))?;
    while tls.is_handshaking() {
        tls.complete_io(&mut stream).map_err(|error| text(&error))?;
    }
    let leaf = tls.peer_certificates().and_then(<[_]>::first).ok_or("it shows no certificate")?;
    let (_, leaf) = x509_parser::parse_x509_certificate(leaf).map_err(|error| text(&error))?;
    Timestamp::from_second(leaf.validity().not_after.timestamp()).map_err(|error| text(&error))
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::TcpListener;
    use std::time::Instant;

    use super::*;

    /// Answers one connection with `answer`, or never if that is empty; gives its address.
    fn server(answer: &'static str) -> (String, std::thread::JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/x", listener.local_addr().unwrap());
        let thread = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut asked = [0; 4096];
            let length = stream.read(&mut asked).unwrap();
            if answer.is_empty() {
                // Held open until the other side gives up.
                let _gone = stream.read(&mut [0; 1]);
            }
            stream.write_all(answer.as_bytes()).unwrap_or_default();
            String::from_utf8_lossy(&asked[..length]).into_owned()
        });
        (url, thread)
    }

    #[test]
    fn a_redirect_is_an_answer() {
        let (url, _server) =
            server("HTTP/1.1 307 X\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n");
        assert_eq!(status(&url, Way::Direct, Duration::from_secs(5)), Ok(307));
    }

    #[test]
    fn an_error_status_is_an_answer() {
        let (url, _server) = server("HTTP/1.1 500 X\r\ncontent-length: 0\r\n\r\n");
        assert_eq!(status(&url, Way::Direct, Duration::from_secs(5)), Ok(500));
    }

    #[test]
    fn p28_a_server_that_never_answers_is_not_waited_for() {
        let (url, _server) = server("");
        let start = Instant::now();
        let error = status(&url, Way::Direct, Duration::from_millis(300)).unwrap_err();
        assert!(error.contains("no answer within 0.3 s"), "{error}");
        assert!(start.elapsed() < Duration::from_secs(3));
    }

    #[test]
    fn a_body_that_breaks_off_is_no_answer() {
        let (url, _server) = server("HTTP/1.1 200 X\r\ncontent-length: 9\r\n\r\nhalf");
        let error = ask(&url, &[], Way::Direct, Duration::from_millis(300)).unwrap_err();
        assert!(!error.is_empty(), "{error}");
    }

    #[test]
    fn headers_are_sent_and_the_body_comes_back() {
        let (url, server) = server("HTTP/1.1 403 X\r\ncontent-length: 4\r\n\r\nbody");
        let answer = ask(&url, &[("x-a", "1"), ("x-b", "2")], Way::Direct, Duration::from_secs(5)).unwrap();
        assert_eq!(answer, Answer { status: 403, body: Some(b"body".to_vec()) });
        let asked = server.join().unwrap();
        assert!(asked.contains("\r\nx-a: 1\r\n") && asked.contains("\r\nx-b: 2\r\n"), "{asked}");
    }

    #[test]
    fn a_body_that_is_too_long_is_none() {
        let long = |length: usize| {
            let text = format!("HTTP/1.1 200 X\r\ncontent-length: {length}\r\n\r\n{}", "x".repeat(length));
            let (url, _server) = server(text.leak());
            ask(&url, &[], Way::Direct, Duration::from_secs(5)).unwrap().body
        };
        assert_eq!(long(LONGEST_BODY).map(|body| body.len()), Some(LONGEST_BODY));
        assert_eq!(long(LONGEST_BODY + 1), None);
    }
}
