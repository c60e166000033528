//! Pushes that are cut off: by the line, by the VPS, by a signal. Whatever happens, each file is wholly old or wholly new,
//! the ledger names every new one, nothing half lies in the app's directories, and the same push again does the rest.

use std::collections::{BTreeMap, BTreeSet};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use xtask::lab::{Exec, Lab, Node, OPERATOR};

use super::WATCHDOG;
use crate::Scenario;
use crate::deploy_first::App;
use crate::sync::{joined, until};

/// What is pushed: small files, and a big one that comes last.
const DIR: &str = "src/bulk";
const FILES: usize = 200;
const BYTES: usize = 6_000_000;
/// Where on the VPS.
const THERE: &str = "/opt/universal_agent/src/bulk";
/// The limit that an upload is given, in seconds, and how long a client may take to notice: an upload, and ssh.
const IDLE: &str = "4";
const NOTICE_UPLOAD: Duration = Duration::from_secs(10);
const NOTICE: Duration = Duration::from_secs(45);
/// Digest and name of all that lies in a directory.
const SUMS: &str = "cd \"$1\" && find . ! -type d -printf '%P\\0' | xargs -0 sha256sum";
/// Kills of one push each.
const KILLS: u32 = 12;

/// Stands in front of rsync, and holds one push, once, while half of the big file is put in place.
const HOLD: &str = r#"#!/bin/sh
case $* in *--files-from=*/incoming/push-*) ;; *) exec /usr/bin/rsync "$@" ;; esac
[ -e /run/ua-wanted ] || exec /usr/bin/rsync "$@"
rm /run/ua-wanted
/usr/bin/rsync --bwlimit=2000 "$@" &
while kill -0 "$!" && ! find /opt/universal_agent /var/lib/ua-deploy/incoming -name "*zbig.??????" -size +0 | grep -q .; do
    sleep 0.01
done
pkill -STOP -f '^/usr/bin/rsync --bwlimit'
: >/run/ua-held
wait "$!"
"#;

pub(super) fn trials() -> Vec<(&'static str, Scenario)> {
    vec![
        ("a_push_whose_link_is_cut_in_its_upload_changes_nothing", upload as Scenario),
        ("a_push_that_is_cut_off_half_in_place_is_in_the_ledger", placing),
        ("a_push_that_is_killed_at_any_moment_is_in_the_ledger", killed),
    ]
}

/// What happens to a push that is half in place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    KillClient,
    LinkCut,
    KillRemote,
    Reboot,
    DiskFull,
}

/// The way to the VPS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Keys,
    TailscaleSsh,
}

/// Digests by name.
type Files = BTreeMap<String, String>;

/// An app that serves, and a directory of the working tree that differs from it.
struct Site<'a> {
    lab: &'a Lab,
    app: App<'a>,
}

impl<'a> Site<'a> {
    fn fresh(lab: &'a Lab) -> Result<Self> {
        lab.set_tailscale_ssh(true)?;
        let app = App::fresh_here(lab)?;
        app.deploy(&["--staging", "off"], &[("UA_SSH_KEYS_PORT", "2222")])?.exit(0)?;
        lab.vps().command(&["systemctl", "disable", "--now", WATCHDOG]).run()?;
        let site = Self { lab, app };
        site.write(0)?;
        site.push(Way::Keys).run()?;
        Ok(site)
    }

    /// Makes every file another one. The big one compresses to nothing smaller.
    fn write(&self, round: u32) -> Result<()> {
        let script = "mkdir -p \"$1\" && cd \"$1\"
            number=0; while [ $number -lt $2 ]; do echo \"round $4 of $number\" >n$number; number=$((number + 1)); done
            head -c \"$3\" /dev/urandom >zbig";
        let (files, bytes, round) = (FILES.to_string(), BYTES.to_string(), round.to_string());
        let words = ["sh", "-ec", script, "sh", DIR, &files, &bytes, &round];
        self.lab.laptop().command(&words).user(OPERATOR).dir("/home/op/app").run()
    }

    fn here(&self) -> Result<Files> {
        digests(&self.lab.laptop().command(&["sh", "-ec", SUMS, "sh", DIR]).dir("/home/op/app").read()?)
    }

    fn there(&self) -> Result<Files> {
        digests(&self.lab.vps().command(&["sh", "-ec", SUMS, "sh", THERE]).read()?)
    }

    /// The push, by one way or the other.
    fn push(&self, way: Way) -> Exec<'a> {
        self.typed(way, &["ua-vpsctl", "push", DIR])
    }

    fn typed(&self, way: Way, words: &[&str]) -> Exec<'a> {
        let command = self.lab.laptop().command(words).user(OPERATOR).dir("/home/op/app");
        let mode = if way == Way::Keys { "keys" } else { "tailscale_ssh" };
        let command = command.env("UA_SSH_AUTH_MODE", mode).env("UA_SSH_KEYS_PORT", "2222");
        command.env("UA_TRANSFER_IDLE_TIMEOUT", IDLE).timeout(Duration::from_mins(3))
    }

    /// What must hold whatever happened, once nothing runs any more; gives how many files are new.
    fn holds(&self, old: &Files) -> Result<usize> {
        let lab = self.lab;
        let clients = ["sh", "-c", "pgrep -a -u op -x 'ua-vpsctl|ssh|rsync' || true"];
        until("the client's processes end", || Ok(lab.laptop().command(&clients).read()?.is_empty()))?;
        // Held, it is told by whom; it is let go when the script of the VPS ends.
        let lock = "[ ! -e /var/lib/ua-deploy/lock ] || flock --nonblock /var/lib/ua-deploy/lock true ||
            { grep -q '^ua-vpsctl push .* by op@laptop, since ' /var/lib/ua-deploy/lock && exit 30; }";
        until("the lock is let go", || {
            let output = lab.vps().sh(lock)?;
            ensure!(matches!(output.code, 0 | 30), "it is not told who holds the lock: {output:?}");
            Ok(output.success())
        })?;
        let (new, there) = (self.here()?, self.there()?);
        let names = |files: &Files| files.keys().cloned().collect::<BTreeSet<_>>();
        ensure!(names(&there) == names(old), "other files lie there: {:?}", names(&there));
        let torn: Vec<_> =
            there.iter().filter(|(name, is)| *is != &old[*name] && *is != &new[*name]).collect();
        ensure!(torn.is_empty(), "neither old nor new: {torn:?}");
        let strays = "find /opt/universal_agent -name '.*.??????' -o -name '.~tmp~' -o -name '.rsync-partial' -o -name '*zbig?*'";
        let strays = lab.vps().sh(strays)?.stdout;
        ensure!(strays.is_empty(), "left in the app: {strays}");

        let said = self.app.run(&["plan"], &["--staging", "off"], &[("UA_SSH_KEYS_PORT", "2222")])?;
        said.exit(0)?;
        let pushes = said.reports[0]["data"]["pushed"].as_array().cloned().unwrap_or_default();
        let lines = pushes.iter().filter_map(|push| push["paths"].as_array()).flatten();
        let told: BTreeSet<&str> = lines.filter_map(Value::as_str).collect();
        let changed: Vec<_> =
            there.iter().filter(|(name, is)| *is == &new[*name] && *is != &old[*name]).collect();
        let untold =
            changed.iter().find(|(name, is)| !told.contains(format!("f\t{is}\t{DIR}/{name}").as_str()));
        ensure!(untold.is_none(), "changed, and not in the plan: {untold:?}");
        Ok(changed.len())
    }

    /// The same push again brings everything.
    fn again(&self, way: Way) -> Result<()> {
        let output = self.push(way).output()?;
        ensure!(output.code == 0, "{output:?}");
        ensure!(self.there()? == self.here()?, "not everything is as it was pushed: {output:?}");
        Ok(())
    }

    /// Lets no more than so many megabits a second come from the laptop.
    fn slow(&self) -> Result<()> {
        let limit = "tc qdisc replace dev tailscale0 root tbf rate 16mbit burst 32k latency 400ms";
        self.lab.laptop().command(&["sh", "-c", limit]).run()
    }

    /// Lets go of what is held.
    fn go_on(&self) -> Result<()> {
        self.lab.vps().sh("rm -f /run/ua-wanted /run/ua-held; pkill -CONT -x rsync").map(drop)
    }

    fn quick(&self) -> Result<()> {
        self.lab.laptop().sh("tc qdisc del dev tailscale0 root 2>/dev/null").map(drop)
    }
}

impl Drop for Site<'_> {
    fn drop(&mut self) {
        // The next trial says so if this failed.
        let _ = self.quick();
        let _ = self.go_on();
        let _ = self.lab.vps().command(&["rm", "-f", "/usr/local/bin/rsync"]).run();
    }
}

fn digests(text: &str) -> Result<Files> {
    let line = |line: &str| line.split_once("  ").map(|(digest, name)| (name.to_owned(), digest.to_owned()));
    text.lines().map(line).collect::<Option<_>>().with_context(|| format!("not digests: {text}"))
}

fn upload(lab: &Lab) -> Result<()> {
    let site = Site::fresh(lab)?;
    for (round, way) in [(1, Way::Keys), (2, Way::TailscaleSsh)] {
        let old = site.there()?;
        site.write(round)?;
        site.slow()?;
        lab.vps().command(&["touch", "/run/ua-begun"]).run()?;
        let (output, took) = thread::scope(|scope| {
            let client = scope.spawn(|| anyhow::Ok((site.push(way).output()?, Instant::now())));
            // What the other end of an earlier one has not given up yet is older.
            let sent = "find /var/lib/ua-deploy/incoming -name '.zbig.*' -newer /run/ua-begun -size +1000k | grep -q .";
            until("much of the upload has come", || Ok(lab.vps().sh(sent)?.success()))?;
            let cut_at = Instant::now();
            let cut = lab.cut_link(Node::Vps);
            let (output, ended) = joined(client)?;
            cut.and_then(|()| lab.restore_link(Node::Vps))?;
            anyhow::Ok((output, ended.duration_since(cut_at)))
        })?;
        ensure!(output.code == 32 && took < NOTICE_UPLOAD, "{way:?}: {took:?}, {output:?}");
        ensure!(output.stderr.contains("the upload failed, and nothing was put in place"), "{output:?}");
        site.quick()?;
        let changed = site.holds(&old).with_context(|| format!("{way:?}"))?;
        ensure!(changed == 0, "{way:?}: {changed} files were changed");
        site.again(way)?;
    }
    Ok(())
}

fn placing(lab: &Lab) -> Result<()> {
    let site = Site::fresh(lab)?;
    let put = "cat >/usr/local/bin/rsync && chmod 755 /usr/local/bin/rsync";
    lab.vps().command(&["sh", "-ec", put]).stdin(HOLD).run()?;
    let faults = [Fault::KillClient, Fault::LinkCut, Fault::KillRemote, Fault::Reboot, Fault::DiskFull];
    let cells = faults.iter().flat_map(|fault| [Way::Keys, Way::TailscaleSsh].map(|way| (*fault, way)));
    for (round, (fault, way)) in (1..).zip(cells) {
        half_in_place(&site, round, fault, way).with_context(|| format!("{fault:?}, {way:?}"))?;
    }
    Ok(())
}

fn half_in_place(site: &Site<'_>, round: u32, fault: Fault, way: Way) -> Result<()> {
    let lab = site.lab;
    let old = site.there()?;
    site.write(round)?;
    lab.vps().command(&["touch", "/run/ua-wanted"]).run()?;
    let (output, took) = thread::scope(|scope| {
        let client = scope.spawn(|| anyhow::Ok((site.push(way).output()?, Instant::now())));
        let held = || Ok(client.is_finished() || lab.vps().sh("[ -e /run/ua-held ]")?.success());
        let done = until("the push is half in place", held).and_then(|()| {
            // Nobody else comes between, and everybody is told who is at it.
            if round == 1 {
                for words in [
                    &["ua-vpsctl", "push", DIR][..],
                    &["ua-deploy", "run", "--allow-dirty", "--staging", "off"],
                ] {
                    let other = site.typed(way, words).output()?;
                    let told = format!("{}{}", other.stdout, other.stderr);
                    ensure!(other.code == 30 && told.contains("ua-vpsctl push "), "{words:?}: {other:?}");
                }
            }
            let at = Instant::now();
            match fault {
                Fault::KillClient => lab.laptop().command(&["pkill", "-KILL", "-x", "ua-vpsctl"]).run(),
                Fault::LinkCut => lab.cut_link(Node::Vps),
                Fault::KillRemote => {
                    // rsync may end by itself as soon as the shells are gone.
                    let all = "pkill -KILL -f '^(sh -s|/bin/sh /usr/local/bin/rsync )'; shells=$?
                        pkill -KILL -x rsync || exit $shells";
                    lab.vps().command(&["sh", "-c", all]).run()
                }
                Fault::Reboot => lab.reboot(Node::Vps),
                Fault::DiskFull => lab.fill_disk(Node::Vps, 0).and_then(|()| site.go_on()),
            }?;
            Ok(at)
        });
        if done.is_err() {
            site.go_on()?;
        }
        let (output, ended) = joined(client)?;
        let at = done?;
        match fault {
            Fault::LinkCut => lab.restore_link(Node::Vps)?,
            Fault::DiskFull => lab.free_disk(Node::Vps)?,
            _ => {}
        }
        anyhow::Ok((output, ended.saturating_duration_since(at)))
    })?;
    ensure!(took < NOTICE, "it took {took:?} to end: {output:?}");
    let (code, told) = match fault {
        Fault::KillClient => (137, ""),
        Fault::DiskFull => (1, "not everything could be put in place; the ledger names all of push "),
        _ => (20, "the ledger names whatever is put in place"),
    };
    ensure!(output.code == code && output.stderr.contains(told), "{output:?}");
    site.go_on()?;
    let changed = site.holds(&old)?;
    // By its key, the session outlives the connection.
    let goes_on = matches!(fault, Fault::KillClient | Fault::LinkCut) && way == Way::Keys;
    let right = if goes_on { changed == FILES + 1 } else { changed >= FILES };
    ensure!(right, "{changed} files were changed");
    site.again(way)
}

fn killed(lab: &Lab) -> Result<()> {
    let site = Site::fresh(lab)?;
    site.write(1)?;
    let begun = Instant::now();
    site.push(Way::Keys).run()?;
    let mut whole = begun.elapsed();
    let (mut some, mut unharmed) = (0, 0);
    for round in 1..=KILLS {
        let way = if round % 2 == 0 { Way::Keys } else { Way::TailscaleSsh };
        let old = site.there()?;
        site.write(round + 1)?;
        let delay = format!("{:.3}", (whole * round / KILLS).as_secs_f64());
        let words = ["timeout", "--foreground", "--signal=KILL", &delay, "ua-vpsctl", "push", DIR];
        let begun = Instant::now();
        let output = site.typed(way, &words).output()?;
        if output.code == 0 {
            unharmed += 1;
            // The first one may have had less of a busy machine.
            whole = whole.min(begun.elapsed());
        }
        let case = || format!("{way:?}, killed after {delay} s of {whole:?}");
        some += u32::from(site.holds(&old).with_context(case)? > 0);
        site.again(way).with_context(case)?;
    }
    ensure!(
        unharmed < KILLS / 2 && some > 0,
        "{unharmed} were not killed, {some} came to put something in place"
    );
    Ok(())
}
