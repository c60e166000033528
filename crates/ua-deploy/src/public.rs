//! The final smoke: do the public domains answer as they should? It speaks for the public lane alone and never takes a
//! release back.

use std::time::{Duration, Instant};

use ua_common::error::Failure;
use ua_common::exit::Exit;
use ua_common::ops::Token;
use ua_common::output::Printer;
use ua_common::report::{Check, Verdict};
use ua_common::settings::Settings;
use ua_common::settings::value::{Base, StatusSet, Value as _};
use ua_staging::health::pause;
use ua_staging::http::{Way, status};

/// What one request may take.
const EACH: Duration = Duration::from_secs(10);
/// The app is restarting: how often it is asked, and the pause between.
const ATTEMPTS: u32 = 10;
const PAUSE: Duration = Duration::from_secs(2);

/// One question and the answers that are right.
struct Probe<'a> {
    id: &'static str,
    url: &'a str,
    token: Option<&'a Token>,
    right: StatusSet,
    /// How the question is told apart from the others, in words.
    how: &'static str,
}

/// The outcome of one question.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Which one.
    pub id: &'static str,
    /// Was it right?
    pub right: bool,
    /// In words.
    pub detail: String,
    /// What was asked.
    pub url: String,
}

fn probes<'a>(settings: &'a Settings, token: Option<&'a Token>) -> Vec<Probe<'a>> {
    let only = |status: &str| {
        let base = Base { dir: std::path::Path::new("/"), home: None };
        StatusSet::parse_text(status, &base)
            .unwrap_or_else(|_| settings.staging_api_health_status.value.clone())
    };
    let ops = settings.public_ops_profile_url.0.as_str();
    let mut probes = vec![
        Probe {
            id: "public.app",
            url: &settings.public_app_url.0,
            token: None,
            right: settings.staging_ui_health_status.value.clone(),
            how: "",
        },
        Probe {
            id: "public.api",
            url: &settings.public_api_health_url.0,
            token: None,
            right: only("200"),
            how: "",
        },
        Probe {
            id: "public.ops_closed",
            url: ops,
            token: None,
            right: only("401"),
            how: " without the token",
        },
    ];
    if let Some(token) = token.filter(|_| ops.starts_with("https://")) {
        probes.push(Probe {
            id: "public.ops_open",
            url: ops,
            token: Some(token),
            right: only("200"),
            how: " with the token",
        });
    }
    probes
}

fn ask(probe: &Probe<'_>) -> Answer {
    let Probe { id, url, how, .. } = probe;
    let (right, said) = match status(url, probe.token, Way::Internet, EACH) {
        Ok(code) if probe.right.contains(code) => (true, format!("answers {code}{how}")),
        Ok(code) => (false, format!("answers {code}{how}, not {}", probe.right.show())),
        Err(why) => (false, format!("does not answer{how}: {why}")),
    };
    Answer { id, right, detail: format!("{url} {said}"), url: (*url).to_owned() }
}

/// How the public side is before anything is changed: asked once.
pub fn before(settings: &Settings, token: Option<&Token>, out: &Printer) -> Vec<Answer> {
    let _waiting = out.waiting("asking the public domains");
    probes(settings, token).iter().map(ask).collect()
}

/// How it is after a deploy. What was broken before is a warning: this release did not break it. Who did not ask before
/// knows nothing of that.
pub fn after(
    settings: &Settings,
    token: Option<&Token>,
    before: Option<&[Answer]>,
    out: &Printer,
) -> Result<Vec<Check>, Failure> {
    judge(settings, token, before, (ATTEMPTS, PAUSE), out)
}

fn judge(
    settings: &Settings,
    token: Option<&Token>,
    before: Option<&[Answer]>,
    (attempts, interval): (u32, Duration),
    out: &Printer,
) -> Result<Vec<Check>, Failure> {
    let probes = probes(settings, token);
    let start = Instant::now();
    let bar = out.spinner("asking the public domains");
    let mut answers: Vec<Option<Answer>> = vec![None; probes.len()];
    for attempt in 1..=attempts {
        for (probe, answer) in probes.iter().zip(&mut answers) {
            if answer.as_ref().is_none_or(|answer| !answer.right) {
                bar.set_message(format!("asking {} (attempt {attempt} of {attempts})", probe.url));
                *answer = Some(ask(probe));
            }
        }
        if answers.iter().flatten().all(|answer| answer.right) {
            break;
        }
        if attempt < attempts {
            pause(interval)?;
        }
    }
    let broken_before =
        |id: &str| before.unwrap_or_default().iter().any(|answer| answer.id == id && !answer.right);
    let mut checks: Vec<Check> = answers
        .into_iter()
        .flatten()
        .map(|answer| match answer {
            Answer { right: true, id, detail, .. } => Check::pass(id, detail),
            Answer { id, detail, .. } if broken_before(id) => {
                Check::warn(id, format!("{detail}; it was so before the deploy"))
            }
            Answer { id, detail, url, .. } => {
                let known = if before.is_some() { "; before the deploy it was right" } else { "" };
                Check::fail(id, Exit::PublicSmoke, format!("{detail}{known}"))
                    .hint(format!("curl -sv -o /dev/null {url}"))
            }
        })
        .map(|check| check.since(start))
        .collect();
    if !checks.iter().any(|check| check.id == "public.ops_open") {
        let why = match token {
            None => "no UA_OPS_TOKEN in the environment or the repository's .env",
            Some(_) => "the token is sent over https only",
        };
        checks.push(Check::skip("public.ops_open", format!("only the closed half was checked: {why}")));
    }
    debug_assert!(checks.iter().any(|check| check.verdict != Verdict::Skip));
    Ok(checks)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::io::{Read as _, Write as _};
    use std::net::TcpListener;

    use ua_common::output::{Color, Format};
    use ua_common::settings::{Layer, Origin, Raw, Surroundings};

    use super::*;

    /// Answers every request with `code`, for as long as the test runs; 0 never answers.
    fn server(code: u16) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        std::thread::spawn(move || {
            let mut held = Vec::new();
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                if code == 0 {
                    held.push(stream);
                    continue;
                }
                let _asked = stream.read(&mut [0; 4096]).unwrap();
                let answer = format!("HTTP/1.1 {code} X\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
                stream.write_all(answer.as_bytes()).unwrap_or_default();
            }
        });
        url
    }

    fn settings(app: &str, api: &str, ops: &str) -> Settings {
        let env = BTreeMap::new();
        let dir = std::path::PathBuf::from("/");
        let around = Surroundings { cwd: dir.clone(), home: Some(dir), config_home: None, env, uid: 0 };
        let layer: Layer =
            [("public.app_url", app), ("public.api_health_url", api), ("public.ops_profile_url", ops)]
                .into_iter()
                .map(|(key, url)| (key, (Raw::Text(url.to_owned()), Origin::Flag("--x".to_owned()))))
                .collect();
        Settings::resolve(&[layer], &around).unwrap()
    }

    fn smoke(settings: &Settings, before: &[Answer]) -> Vec<(String, Verdict, Exit)> {
        let out = Printer::new(Format::Human, true, false, Color::Never);
        let checks = judge(settings, None, Some(before), (2, Duration::from_millis(1)), &out).unwrap();
        checks.into_iter().map(|check| (check.id.into_owned(), check.verdict, check.exit)).collect()
    }

    #[test]
    fn p27_an_app_and_api_at_500_fail_the_deploy() {
        let settings = settings(&server(500), &server(500), &server(401));
        let checks = smoke(&settings, &[]);
        assert_eq!(checks[0], ("public.app".to_owned(), Verdict::Fail, Exit::PublicSmoke));
        assert_eq!(checks[1], ("public.api".to_owned(), Verdict::Fail, Exit::PublicSmoke));
        assert_eq!(checks[2].1, Verdict::Pass);
    }

    #[test]
    fn p27_ops_codes_are_compared() {
        // 200 without the token: the ops endpoints are open to everybody.
        let checks = smoke(&settings(&server(307), &server(200), &server(200)), &[]);
        assert_eq!((checks[0].1, checks[1].1), (Verdict::Pass, Verdict::Pass));
        assert_eq!(checks[2], ("public.ops_closed".to_owned(), Verdict::Fail, Exit::PublicSmoke));
        assert_eq!(checks[3], ("public.ops_open".to_owned(), Verdict::Skip, Exit::Ok));
    }

    #[test]
    fn broken_before_the_deploy_is_a_warning() {
        let settings = settings(&server(200), &server(500), &server(401));
        let out = Printer::new(Format::Human, true, false, Color::Never);
        let checks = smoke(&settings, &before(&settings, None, &out));
        assert_eq!(checks[1].1, Verdict::Warn);
    }
}
