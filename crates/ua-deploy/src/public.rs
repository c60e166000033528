//! The final smoke: do the public domains answer as they should? It speaks for the public lane alone and never takes a
//! release back.

use std::time::{Duration, Instant};

use ua_common::error::Failure;
use ua_common::exit::Exit;
use ua_common::http::{Way, status};
use ua_common::output::Printer;
use ua_common::report::Check;
use ua_common::settings::Settings;
use ua_common::settings::value::{Base, StatusSet, Value as _};
use ua_staging::health::pause;

use crate::remote::OpsAnswer;

/// What one request may take.
const EACH: Duration = Duration::from_secs(10);
/// The app is restarting: how often it is asked, and the pause between.
const ATTEMPTS: u32 = 10;
const PAUSE: Duration = Duration::from_secs(2);

/// Asks a URL on the VPS with the token of its own, or says why nobody could be asked.
pub type Open<'a> = dyn Fn(&str) -> Result<OpsAnswer, String> + 'a;

/// One question and the answers that are right.
struct Probe<'a> {
    id: &'static str,
    url: &'a str,
    right: StatusSet,
    /// How the question is told apart from the others, in words.
    how: &'static str,
    /// Is it asked on the VPS, with the token?
    open: bool,
}

/// What became of one question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Right,
    Wrong,
    /// It could not be put.
    Unasked,
}

/// The outcome of one question.
#[derive(Clone, Debug)]
pub struct Answer {
    id: &'static str,
    outcome: Outcome,
    detail: String,
    url: String,
}

/// The final smoke, for one run.
pub struct Smoke<'a> {
    /// Where to ask.
    pub settings: &'a Settings,
    /// How the ops address is asked with the token.
    pub open: Box<Open<'a>>,
    /// Where to print.
    pub out: &'a Printer,
}

impl Smoke<'_> {
    fn probes(&self) -> [Probe<'_>; 4] {
        let settings = self.settings;
        let only = |status: &str| {
            let base = Base { dir: std::path::Path::new("/"), home: None };
            StatusSet::parse_text(status, &base)
                .unwrap_or_else(|_| settings.staging_api_health_status.value.clone())
        };
        let (app, api) = (&*settings.public_app_url.0, &*settings.public_api_health_url.0);
        let ops = settings.public_ops_profile_url.0.as_str();
        let ui = settings.staging_ui_health_status.value.clone();
        [
            Probe { id: "public.app", url: app, right: ui, how: "", open: false },
            Probe { id: "public.api", url: api, right: only("200"), how: "", open: false },
            Probe {
                id: "public.ops_closed",
                url: ops,
                right: only("401"),
                how: " without the token",
                open: false,
            },
            Probe {
                id: "public.ops_open",
                url: ops,
                right: only("200"),
                how: " with the VPS's own token, asked there",
                open: true,
            },
        ]
    }

    fn ask_open(&self, probe: &Probe<'_>) -> Answer {
        if !probe.url.starts_with("https://") {
            return probe.unasked("the token is sent over https only");
        }
        match (self.open)(probe.url) {
            Ok(OpsAnswer::NoToken) => probe.unasked("the VPS has no token"),
            Ok(OpsAnswer::CommandFailed(failure)) => probe.unasked(&failure.to_string()),
            Ok(OpsAnswer::Status(status)) => probe.answer(match status.parse() {
                Ok(0) | Err(_) => Err("curl on the VPS got nothing".to_owned()),
                Ok(status) => Ok(status),
            }),
            Err(why) => probe.answer(Err(why)),
        }
    }

    /// All questions at the same time.
    fn ask_all(&self, probes: &[&Probe<'_>]) -> Vec<Answer> {
        std::thread::scope(|scope| {
            let asked: Vec<_> = probes
                .iter()
                .map(|probe| {
                    (!probe.open)
                        .then(|| scope.spawn(move || probe.answer(status(probe.url, Way::Internet, EACH))))
                })
                .collect();
            // Over our one connection.
            let asked = probes.iter().zip(asked).map(|(probe, thread)| match thread {
                None => self.ask_open(probe),
                Some(thread) => {
                    thread.join().unwrap_or_else(|_| probe.answer(Err("asking failed".to_owned())))
                }
            });
            asked.collect()
        })
    }

    /// How the public side is before anything is changed: asked once.
    pub fn before(&self) -> Vec<Answer> {
        let _waiting = self.out.waiting("asking the public domains");
        self.ask_all(&self.probes().each_ref())
    }

    /// How it is after a deploy. What was broken before is a warning: this release did not break it. Who did not ask
    /// before knows nothing of that.
    pub fn after(&self, before: Option<&[Answer]>) -> Result<Vec<Check>, Failure> {
        self.judge(before, (ATTEMPTS, PAUSE))
    }

    fn judge(
        &self,
        before: Option<&[Answer]>,
        (attempts, interval): (u32, Duration),
    ) -> Result<Vec<Check>, Failure> {
        let probes = self.probes();
        let start = Instant::now();
        let bar = self.out.spinner("asking the public domains");
        let mut answers = self.ask_all(&probes.each_ref());
        for attempt in 2..=attempts {
            let wrong: Vec<usize> =
                (0..answers.len()).filter(|&at| answers[at].outcome == Outcome::Wrong).collect();
            let Some(&first) = wrong.first() else { break };
            if attempt == 2 {
                let detail = &answers[first].detail;
                bar.suspend(|| self.out.note(&format!("{detail}; asking up to {attempts} times")));
            }
            bar.set_message(format!("asking {} (attempt {attempt} of {attempts})", probes[first].url));
            pause(interval)?;
            let again: Vec<&Probe<'_>> = wrong.iter().map(|&at| &probes[at]).collect();
            for (&at, answer) in wrong.iter().zip(self.ask_all(&again)) {
                answers[at] = answer;
            }
        }
        let broken_before = |id: &str| {
            let mut known = before.unwrap_or_default().iter();
            known.any(|answer| answer.id == id && answer.outcome == Outcome::Wrong)
        };
        let check = |answer: Answer| match answer {
            Answer { outcome: Outcome::Right, id, detail, .. } => Check::pass(id, detail),
            Answer { outcome: Outcome::Unasked, id, detail, .. } => Check::skip(id, detail),
            Answer { id, detail, .. } if broken_before(id) => {
                Check::warn(id, format!("{detail}; it was so before the deploy"))
            }
            Answer { id, detail, url, .. } => {
                let known = if before.is_some() { "; before the deploy it was right" } else { "" };
                Check::fail(id, Exit::PublicSmoke, format!("{detail}{known}"))
                    .hint(format!("curl -sv -o /dev/null {url}"))
            }
        };
        Ok(answers.into_iter().map(|answer| check(answer).since(start)).collect())
    }
}

impl Probe<'_> {
    fn answer(&self, status: Result<u16, String>) -> Answer {
        let Self { id, url, how, .. } = self;
        let (outcome, said) = match status {
            Ok(code) if self.right.contains(code) => (Outcome::Right, format!("answers {code}{how}")),
            Ok(code) => (Outcome::Wrong, format!("answers {code}{how}, not {}", self.right.show())),
            Err(why) => (Outcome::Wrong, format!("does not answer{how}: {why}")),
        };
        Answer { id, outcome, detail: format!("{url} {said}"), url: (*url).to_owned() }
    }

    fn unasked(&self, why: &str) -> Answer {
        let detail = format!("only the closed half was checked: {why}");
        Answer { id: self.id, outcome: Outcome::Unasked, detail, url: self.url.to_owned() }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::io::{Read as _, Write as _};
    use std::net::TcpListener;

    use ua_common::env_contract::CommandFailure;
    use ua_common::output::{Color, Format};
    use ua_common::report::Verdict;
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

    fn smoke(
        settings: &Settings,
        open: &Open<'_>,
        before: Option<&Settings>,
    ) -> Vec<(String, Verdict, Exit)> {
        let out = &Printer::new(Format::Human, true, false, Color::Never);
        let of = |settings| Smoke { settings, open: Box::new(open), out };
        let before = before.map_or(Vec::new(), |settings| of(settings).before());
        let smoke = of(settings);
        let checks = smoke.judge(Some(&before), (2, Duration::from_millis(1))).unwrap();
        checks.into_iter().map(|check| (check.id.into_owned(), check.verdict, check.exit)).collect()
    }

    #[test]
    fn p27_an_app_and_api_at_500_fail_the_deploy() {
        let settings = settings(&server(500), &server(500), &server(401));
        let checks = smoke(&settings, &|_| Ok(OpsAnswer::NoToken), None);
        assert_eq!(checks[0], ("public.app".to_owned(), Verdict::Fail, Exit::PublicSmoke));
        assert_eq!(checks[1], ("public.api".to_owned(), Verdict::Fail, Exit::PublicSmoke));
        assert_eq!(checks[2].1, Verdict::Pass);
    }

    #[test]
    fn p27_ops_codes_are_compared() {
        // 200 without the token: the ops endpoints are open to everybody.
        let checks =
            smoke(&settings(&server(307), &server(200), &server(200)), &|_| Ok(OpsAnswer::NoToken), None);
        assert_eq!((checks[0].1, checks[1].1), (Verdict::Pass, Verdict::Pass));
        assert_eq!(checks[2], ("public.ops_closed".to_owned(), Verdict::Fail, Exit::PublicSmoke));
        assert_eq!(checks[3], ("public.ops_open".to_owned(), Verdict::Skip, Exit::Ok));
    }

    #[test]
    fn broken_before_the_deploy_is_a_warning() {
        let settings = settings(&server(200), &server(500), &server(401));
        let checks = smoke(&settings, &|_| Ok(OpsAnswer::NoToken), Some(&settings));
        assert_eq!(checks[1].1, Verdict::Warn);
    }

    #[test]
    fn p27_the_open_half_is_asked_on_the_vps_and_over_https_only() {
        let open = |status: &'static str| {
            move |url: &str| {
                assert_eq!(url, "https://127.0.0.1:1/");
                Ok(OpsAnswer::Status(status.to_owned()))
            }
        };
        let settings = settings(&server(200), &server(200), "https://127.0.0.1:1/");
        assert_eq!(smoke(&settings, &open("200"), None)[3].1, Verdict::Pass);
        for wrong in ["401", "000", ""] {
            assert_eq!(smoke(&settings, &open(wrong), None)[3].2, Exit::PublicSmoke, "{wrong:?}");
        }
        let failure = CommandFailure { code: "1".to_owned(), stderr: String::new() };
        let failed = |_: &str| Ok(OpsAnswer::CommandFailed(failure.clone()));
        assert_eq!(smoke(&settings, &failed, None)[3].1, Verdict::Skip);
        let lost = |_: &str| Err("the connection is gone".to_owned());
        assert_eq!(smoke(&settings, &lost, None)[3].1, Verdict::Fail);
    }
}
