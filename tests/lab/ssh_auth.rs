//! Both ways in, against the real programs: what proves them, what must not pass for them, what becomes of a run when
//! the other end goes away, and the move from the one way to the other.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, ensure};
use serde_json::{Value, json};
use xtask::cmd::Output;
use xtask::lab::{Exec, Lab, Machine, Node, OPERATOR, SshPolicy};

use crate::Scenario;
use crate::deploy_first::Deployed as Said;
use crate::watch::{Watched, watched};

const VPS: &str = "root@srv1360701.taildcc090.ts.net";
const LEDGER: &str = ".local/state/ua/ssh-auth.jsonl";

/// Which of a canary's execs asks for 3 MiB: by then all is well.
const OUT: u32 = 3;

/// Every scenario of this module.
pub fn trials() -> Vec<(&'static str, Scenario)> {
    vec![
        ("both_modes_are_proved", both as Scenario),
        ("p57_no_key_passes_for_tailscale_ssh_and_no_other_key_for_the_named_one", traps),
        ("p57_an_sshd_that_lets_everybody_in_is_not_tailscale_ssh", open_door),
        ("keys_are_not_exercised_where_tailscale_ssh_holds_the_port", held_port),
        ("a_key_of_the_agent_is_proved_too", agent),
        ("the_policy_of_the_tailnet_denies_and_keys_still_work", denied),
        ("a_check_that_nobody_waits_for", not_waited_for),
        ("a_check_that_is_rejected", rejected),
        ("a_check_that_is_approved_late_lets_the_same_run_go_on", approved),
        ("p42_other_host_keys_end_every_run_until_somebody_looked", other_host_keys),
        ("a_plain_sshd_is_met_for_the_first_time_and_changes_its_key", plain_sshd),
        ("sshd_stopped", sshd_stopped),
        ("rebooted_in_the_middle", rebooted),
        ("tailscaled_restarted_in_the_middle", restarted),
        ("link_cut_in_the_middle", cut),
        ("p26_root_may_have_any_login_shell", login_shells),
        ("p46_scripts_that_call_ssh_themselves_connect_as_the_tools_do", scripts),
        ("p46_a_state_directory_of_an_odd_name", odd_state),
        ("words_for_a_shell_are_closed_on_failure_and_to_other_hosts", closed),
        ("no_secret_shows_in_a_process_list_or_a_file", secrets),
        ("the_cut_over_and_the_way_back", cut_over),
        ("two_canaries_at_once_write_two_lines", two_canaries),
        ("a_killed_canary_leaves_nothing_running", killed),
    ]
}

/// A program as the operator types it. In mode `keys` it asks the port that Tailscale SSH leaves to sshd.
fn typed<'a>(lab: &'a Lab, words: &[&str]) -> Exec<'a> {
    lab.laptop().command(words).user(OPERATOR).env("UA_SSH_KEYS_PORT", "2222")
}

/// What `ua-ssh-auth` reports.
fn auth(lab: &Lab, args: &[&str]) -> Result<Said> {
    Said::read(typed(lab, &[&["ua-ssh-auth", "--json"], args].concat()).output()?)
}

/// A shell script of the operator's.
fn script(lab: &Lab, text: &str) -> Result<Output> {
    typed(lab, &["sh", "-c", text]).output()
}

/// The same, which must succeed.
fn arrange(lab: &Lab, text: &str) -> Result<String> {
    typed(lab, &["sh", "-ec", text]).read()
}

/// `SHA256:…` of a public key.
fn fingerprint(machine: Machine<'_>, file: &str) -> Result<String> {
    let listed = machine.command(&["ssh-keygen", "-lf", file]).read()?;
    Ok(listed.split(' ').nth(1).context("a fingerprint")?.to_owned())
}

fn host_key(lab: &Lab) -> Result<String> {
    fingerprint(lab.vps(), "/etc/ssh/ssh_host_ed25519_key.pub")
}

fn data(said: &Said) -> &Value {
    &said.reports[0]["data"]
}

fn proved(said: &Said, modes: &[&str]) -> Result<()> {
    ensure!(data(said)["proved"] == json!(modes), "proved {}, not {modes:?}", data(said)["proved"]);
    Ok(())
}

/// A failure tells what to do next.
fn hinted(said: &Said, words: &str) -> Result<()> {
    let checks = said.reports[0]["checks"].as_array().into_iter().flatten();
    let hints: Vec<&str> = checks.filter_map(|check| check["hint"].as_str()).collect();
    ensure!(hints.iter().any(|hint| hint.contains(words)), "no hint of `{words}` in {hints:?}");
    Ok(())
}

/// Lines of the ledger.
fn ledger(lab: &Lab) -> Result<Vec<Value>> {
    let text = arrange(lab, &format!("cat {LEDGER}"))?;
    text.lines().map(|line| serde_json::from_str(line).with_context(|| line.to_owned())).collect()
}

fn both(lab: &Lab) -> Result<()> {
    lab.set_tailscale_ssh(true)?;
    let said = auth(lab, &["check", "--both"])?;
    said.exit(0)?.says("keys.exec", "pass", "user id 0")?.says("tailscale_ssh.exec", "pass", "user id 0")?;
    proved(&said, &["keys", "tailscale_ssh"])?;
    let (keys, tailscale) = (&data(&said)["keys"], &data(&said)["tailscale_ssh"]);
    let key = fingerprint(lab.laptop(), "/home/op/.ssh/id_ed25519.pub")?;
    ensure!(keys["method"] == "publickey" && keys["key"] == format!("ED25519 {key}"), "{keys}");
    ensure!(keys["at"] == "[100.64.0.2]:2222", "{keys}");
    ensure!(tailscale["method"] == "none" && tailscale["server"] == "Tailscale", "{tailscale}");
    ensure!(tailscale["at"] == "[100.64.0.2]:22" && tailscale["key"].is_null(), "{tailscale}");
    let host_key = format!("ssh-ed25519 {}", host_key(lab)?);
    ensure!(keys["host_key"] == host_key && tailscale["host_key"] == host_key, "{keys} {tailscale}");
    Ok(())
}

/// Runs a program where every ordinary way in is open: an agent with a key that sshd accepts, a default identity,
/// and a connection that ssh would share.
fn in_a_trap(lab: &Lab, words: &[&str]) -> Result<Said> {
    let trap = format!(
        "eval \"$(ssh-agent)\" >/dev/null
        trap 'ssh -O exit {VPS} 2>/dev/null; ssh-agent -k >/dev/null; rm .ssh/config' EXIT
        printf 'ControlMaster auto\\nControlPath ~/.ssh/open\\n' >.ssh/config
        ssh-add -q .ssh/id_ed25519 && ssh -fN {VPS} >/dev/null 2>&1 && ssh {VPS} true || exit 99
        \"$@\""
    );
    Said::read(typed(lab, &[&["sh", "-c", &trap, "trap"], words].concat()).output()?)
}

fn traps(lab: &Lab) -> Result<()> {
    let said = in_a_trap(lab, &["ua-ssh-auth", "check", "--mode", "tailscale_ssh", "--json"])?;
    said.exit(21)?.says("tailscale_ssh.connect", "fail", "refused the login")?;
    proved(&said, &[])?;
    let said = in_a_trap(lab, &["ua-ssh-auth", "canary", "--json"])?;
    said.exit(21)?;
    ensure!(data(&said)["entry"]["verdict"] == "fail", "{}", data(&said));
    // Whoever uses the transport is held to it.
    let other = in_a_trap(lab, &["ua-staging", "verify", "--auth-mode", "tailscale_ssh", "--json"])?;
    other.exit(21)?;

    arrange(lab, "rm -f other && ssh-keygen -q -t ed25519 -N '' -f other")?;
    let named = ["ua-ssh-auth", "check", "--mode", "keys", "--ssh-key", "other", "--json"];
    let said = in_a_trap(lab, &named)?;
    said.exit(21)?.says("keys.connect", "fail", "refused the login")?;
    hinted(&said, "ssh-copy-id")
}

/// A real sshd that accepts method `none`, as Tailscale SSH does.
fn open_door(lab: &Lab) -> Result<()> {
    let open = "passwd -q -d root
        printf 'PermitRootLogin yes\\nPermitEmptyPasswords yes\\n' >/etc/ssh/sshd_config.d/00-open.conf
        systemctl restart ssh";
    lab.vps().command(&["sh", "-ec", open]).run()?;
    arrange(lab, &format!("ssh -o BatchMode=yes -o PreferredAuthentications=none {VPS} true"))?;
    let said = auth(lab, &["check", "--both"])?;
    said.exit(1)?.says("keys.not-exercised", "fail", "method `none`")?;
    said.says("tailscale_ssh.connect", "fail", "let us in, but not by mode `tailscale_ssh`")?;
    proved(&said, &[])?;
    let said = auth(lab, &["canary"])?;
    said.exit(21)?;
    ensure!(data(&said)["entry"]["verdict"] == "fail", "{}", data(&said));
    Ok(())
}

fn held_port(lab: &Lab) -> Result<()> {
    lab.set_tailscale_ssh(true)?;
    let said = auth(lab, &["check", "--mode", "keys", "--keys-port", "22"])?;
    said.exit(1)?.says("keys.not-exercised", "fail", "the key was not tried")?;
    proved(&said, &[])?;
    hinted(&said, "UA_SSH_KEYS_PORT")?;
    let said = auth(lab, &["check", "--mode", "keys"])?;
    said.exit(0)?;
    proved(&said, &["keys"])?;
    // An ordinary run goes on, and says so. (What it finds there is not this trial's business.)
    let verify =
        |port| Said::read(typed(lab, &["ua-staging", "verify", "--json", "--keys-port", port]).output()?);
    verify("22")?.says("ssh", "warn", "Tailscale SSH holds")?.says("staging.routes", "fail", "")?;
    verify("2222")?.says("ssh", "pass", "accepted ED25519")?;
    Ok(())
}

fn agent(lab: &Lab) -> Result<()> {
    lab.set_tailscale_ssh(true)?;
    arrange(lab, "rm -f held* && ssh-keygen -q -t ed25519 -N '' -f held")?;
    let key = fingerprint(lab.laptop(), "/home/op/held.pub")?;
    let public = arrange(lab, "cat held.pub")?;
    lab.vps().command(&["sh", "-c", "cat >.ssh/authorized_keys"]).stdin(public).run()?;
    // From here on only the agent has a key that the VPS knows.
    let said = "eval \"$(ssh-agent)\" >/dev/null; ssh-add -q held && rm held
        printf 'Host *\n ControlMaster auto\n ControlPath ~/.ssh/cm-%%C\n ControlPersist yes\n ForkAfterAuthentication yes\n' >.ssh/config
        ua-ssh-auth check --mode keys --ssh-key agent --json
        ua-staging verify --ssh-key agent --staging disabled -q >/dev/null 2>&1
        ! pgrep -u op -x ssh >&2 || exit 99
        ssh-agent -k >/dev/null
        ua-ssh-auth check --mode keys --ssh-key agent --json";
    let said = Said::read(script(lab, said)?)?;
    let [with, without] = said.reports.as_slice() else { anyhow::bail!("{:?}", said.output) };
    ensure!(with["exit_code"] == 0 && with["data"]["keys"]["key"] == format!("ED25519 {key}"), "{with}");
    ensure!(without["exit_code"] == 21, "{without}");
    Ok(())
}

fn denied(lab: &Lab) -> Result<()> {
    lab.set_tailscale_ssh(true)?;
    let unknown =
        auth(lab, &["check", "--mode", "tailscale_ssh", "--host", &VPS.replace("root", "nobody2")])?;
    unknown.exit(21)?.says("tailscale_ssh.connect", "fail", "as user \"nobody2\"")?;
    for (policy, words) in [
        (SshPolicy::Deny, "does not permit you to SSH to this node"),
        (SshPolicy::DenyRoot, "does not permit you to SSH as user \"root\""),
    ] {
        lab.set_ssh_policy(policy)?;
        let said = auth(lab, &["check", "--both"])?;
        said.exit(21)?.says("tailscale_ssh.connect", "fail", words)?;
        hinted(&said, "tailnet's policy")?;
        // Break-glass.
        proved(&said, &["keys"])?;
    }
    Ok(())
}

/// Everybody is asked for a check.
fn check_mode(lab: &Lab) -> Result<()> {
    lab.set_tailscale_ssh(true)?;
    // A change of policy forgets whom an earlier trial had approved.
    lab.set_ssh_policy(SshPolicy::Check)
}

/// Where the check can be approved.
fn url(text: &str) -> Option<&str> {
    text.split_whitespace().find(|word| word.starts_with("http") && word.contains("/auth/hskey-"))
}

fn not_waited_for(lab: &Lab) -> Result<()> {
    check_mode(lab)?;
    let check = ["check", "--mode", "tailscale_ssh"];
    let begun = Instant::now();
    let said = auth(lab, &[&check[..], &["--no-wait"]].concat())?;
    ensure!(begun.elapsed() < Duration::from_secs(4), "it waited for {:?}", begun.elapsed());
    let shown = url(&said.output.stderr).with_context(|| format!("no address in {:?}", said.output))?;
    said.exit(22)?.says("tailscale_ssh.connect", "fail", shown)?;
    hinted(&said, shown)?;

    let quiet = typed(lab, &["ua-ssh-auth", "check", "--mode", "tailscale_ssh", "--no-wait", "--quiet"]);
    let quiet = quiet.output()?;
    ensure!(quiet.code == 22 && quiet.stdout.is_empty() && url(&quiet.stderr).is_some(), "{quiet:?}");

    // Every other tool asks in the same way; a timer sets the wait to nothing.
    let verify = ["ua-staging", "verify", "--auth-mode", "tailscale_ssh", "--json"];
    let other = Said::read(typed(lab, &verify).env("UA_SSH_CHECK_WAIT", "0").output()?)?;
    other.exit(22)?;
    ensure!(url(&other.output.stderr).is_some(), "{:?}", other.output);

    let begun = Instant::now();
    let late = auth(lab, &[&check[..], &["--check-wait", "3"]].concat())?;
    let took = begun.elapsed();
    late.exit(22)?;
    ensure!(took > Duration::from_secs(3) && took < Duration::from_secs(8), "it waited for {took:?}");
    Ok(())
}

/// Runs `ua-ssh-auth` and does something about the check that it asks for, given its id.
fn asked(lab: &Lab, args: &[&str], answer: &dyn Fn(&str) -> Result<()>) -> Result<Said> {
    arrange(lab, ": >said")?;
    let words = [&["sh", "-c", "exec ua-ssh-auth --json \"$@\" 2>said", "asked"], args].concat();
    let shown = lab.laptop().path("/home/op/said")?;
    thread::scope(|scope| {
        let run = scope.spawn(|| typed(lab, &words).output());
        let begun = Instant::now();
        let id = loop {
            let text = std::fs::read_to_string(&shown)?;
            if let Some((_, id)) =
                url(&text).filter(|_| text.ends_with('\n')).and_then(|url| url.rsplit_once('/'))
            {
                break id.to_owned();
            }
            ensure!(begun.elapsed() < Duration::from_secs(5), "nobody was asked: {text}");
            thread::sleep(Duration::from_millis(20));
        };
        answer(&id)?;
        Said::read(run.join().map_err(|_| anyhow!("the run panicked"))??)
    })
}

fn rejected(lab: &Lab) -> Result<()> {
    check_mode(lab)?;
    let said = asked(lab, &["check", "--mode", "tailscale_ssh"], &|id| lab.reject(id))?;
    said.exit(21)?.says("tailscale_ssh.connect", "fail", "refused the login")?;
    hinted(&said, "approve the check")
}

fn approved(lab: &Lab) -> Result<()> {
    check_mode(lab)?;
    let said = asked(lab, &["check", "--mode", "tailscale_ssh"], &|id| {
        // ssh itself would give up a server that is silent for 30 s.
        thread::sleep(Duration::from_secs(35));
        lab.approve(id)
    })?;
    said.exit(0)?.says("tailscale_ssh.check", "pass", "was approved")?;
    said.says("tailscale_ssh.exec", "pass", "a command runs")?;
    proved(&said, &["tailscale_ssh"])?;
    // The approval holds for a while, also for what nobody waits for.
    auth(lab, &["canary", "--no-wait"])?.exit(0).map(drop)
}

fn other_host_keys(lab: &Lab) -> Result<()> {
    lab.set_tailscale_ssh(true)?;
    auth(lab, &["check", "--both"])?.exit(0)?;
    let old = host_key(lab)?;
    lab.change_host_keys()?;
    let new = host_key(lab)?;

    // sshd shows the new keys already, and the tailnet still gives the old ones.
    let said = auth(lab, &["check", "--mode", "keys"])?;
    said.exit(23)?.says("keys.connect", "fail", &new)?.says("keys.connect", "fail", &old)?;
    said.says("keys.connect", "fail", "since 20")?;
    hinted(&said, "known-hosts --refresh")?;
    let touch = format!("ssh $(ua-ssh-auth args) {VPS} touch was-here; ua-staging verify");
    let refused = script(lab, &touch)?;
    ensure!(refused.code == 23 && refused.stderr.contains("Host key verification failed"), "{refused:?}");
    ensure!(lab.vps().sh("test ! -e was-here")?.success(), "a root session was opened");

    // Now the tailnet gives the new ones, which is as good as anybody's word.
    lab.restart_tailscaled(Node::Vps)?;
    lab.wait_for_host_key(&lab.vps().command(&["cat", "/etc/ssh/ssh_host_ed25519_key.pub"]).read()?)?;
    let said = auth(lab, &["check", "--both"])?;
    for id in ["keys.connect", "tailscale_ssh.connect"] {
        said.exit(23)?
            .says(id, "fail", "gives other host keys")?
            .says(id, "fail", &new)?
            .says(id, "fail", &old)?;
    }
    hinted(&said, "known-hosts --refresh")?;
    auth(lab, &["known-hosts", "--refresh"])?.exit(0)?.says("host_keys", "pass", "gave way")?;
    auth(lab, &["check", "--both"])?.exit(0).map(drop)
}

fn plain_sshd(lab: &Lab) -> Result<()> {
    let known = |text: &str| arrange(lab, &format!("cat .ssh/known_hosts 2>/dev/null || {text}"));
    arrange(lab, "rm .ssh/known_hosts")?;
    let said = auth(lab, &["check"])?;
    said.exit(23)?.says("keys.connect", "fail", "is unknown")?;
    hinted(&said, "known-hosts --accept")?;
    let first = host_key(lab)?;
    auth(lab, &["known-hosts", "--accept", "--dry-run"])?.exit(0)?.says("host_keys", "skip", &first)?;
    ensure!(known("echo none")?.trim() == "none", "a dry run wrote");
    auth(lab, &["known-hosts", "--accept"])?.exit(0)?.says("host_keys", "pass", &first)?;
    auth(lab, &["check"])?.exit(0)?.says("keys.proof", "pass", "known to your known_hosts")?;

    lab.change_host_keys()?;
    let second = host_key(lab)?;
    let said = auth(lab, &["check"])?;
    said.exit(23)?.says("keys.connect", "fail", &first)?.says("keys.connect", "fail", &second)?;
    let before = known("false")?;
    auth(lab, &["known-hosts", "--accept"])?.exit(23)?.says("host_keys", "fail", &first)?;
    ensure!(known("false")? == before, "a changed key was accepted as a first one");
    auth(lab, &["known-hosts", "--refresh"])?.exit(0)?.says("host_keys", "pass", &second)?;
    auth(lab, &["check"])?.exit(0).map(drop)
}

fn sshd_stopped(lab: &Lab) -> Result<()> {
    lab.vps().command(&["systemctl", "stop", "ssh"]).run()?;
    typed(lab, &["ua-preflight", "--quiet"]).run()?;
    let said = auth(lab, &["check"])?;
    said.exit(20)?.says("keys.connect", "fail", "port 2222")?;
    hinted(&said, "ua-preflight --ssh")
}

/// Lets these of the coming execs of a script, counted from 0, take longer than anybody waits.
fn hold(lab: &Lab, execs: &[u32]) -> Result<()> {
    let held = execs.iter().map(ToString::to_string).collect::<Vec<_>>().join("|");
    // Tailscale SSH starts shells of its own, too.
    let text = format!(
        "if [ \"$BASH_EXECUTION_STRING\" = 'sh -s' ]; then
            n=$(cat execs 2>/dev/null || echo 0); echo $((n + 1)) >execs
            case $n in {held}) : >held.$n; sleep 200 ;; esac
        fi"
    );
    lab.vps().command(&["sh", "-c", "cat >>.bashrc"]).stdin(text).run()
}

/// Waits until that exec is under way.
fn held(lab: &Lab, exec: u32) -> Result<()> {
    let file = lab.vps().path(format!("/root/held.{exec}"))?;
    let begun = Instant::now();
    while !file.exists() {
        ensure!(begun.elapsed() < Duration::from_secs(15), "the run did not come so far");
        thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// What a canary says in the middle of which something happened to the VPS, and how long it took it to notice.
fn canary_during(lab: &Lab, event: Scenario) -> Result<Duration> {
    lab.set_tailscale_ssh(true)?;
    hold(lab, &[OUT])?;
    thread::scope(|scope| {
        let run = scope.spawn(|| (auth(lab, &["canary"]), Instant::now()));
        held(lab, OUT)?;
        let begun = Instant::now();
        event(lab)?;
        let (said, ended) = run.join().map_err(|_| anyhow!("the run panicked"))?;
        lost(&said?)?;
        Ok(ended.duration_since(begun))
    })
}

/// A canary that lost its connection while it waited for output.
fn lost(said: &Said) -> Result<()> {
    said.exit(20)?.says("canary.codes", "pass", "")?.says("canary.out", "fail", "in the middle of `out`")?;
    hinted(said, "ua-preflight --ssh")
}

fn within(took: Duration, limit: u64) -> Result<()> {
    ensure!(took < Duration::from_secs(limit), "it took {took:?} to notice");
    Ok(())
}

fn rebooted(lab: &Lab) -> Result<()> {
    let took = canary_during(lab, |lab| lab.reboot(Node::Vps))?;
    within(took, 35)
}

/// Whatever runs in a session of Tailscale SSH ends with tailscaled.
fn restarted(lab: &Lab) -> Result<()> {
    let took = canary_during(lab, |lab| lab.restart_tailscaled(Node::Vps))?;
    within(took, 35)?;
    auth(lab, &["check", "--mode", "tailscale_ssh"])?.exit(0).map(drop)
}

/// Nobody says goodbye: only keep-alives, and the limit of a command, end these.
fn cut(lab: &Lab) -> Result<()> {
    lab.set_tailscale_ssh(true)?;
    hold(lab, &[0, 1 + OUT])?;
    thread::scope(|scope| {
        let keys = scope.spawn(|| auth(lab, &["check", "--mode", "keys"]));
        held(lab, 0)?;
        let canary = scope.spawn(|| (auth(lab, &["canary"]), Instant::now()));
        held(lab, 1 + OUT)?;
        let begun = Instant::now();
        lab.cut_link(Node::Vps)?;
        let keys = keys.join().map_err(|_| anyhow!("the check panicked"))??;
        keys.exit(20)?.says("keys.proof", "pass", "accepted")?.says("keys.exec", "fail", "")?;
        within(begun.elapsed(), 25)?;
        let (canary, ended) = canary.join().map_err(|_| anyhow!("the canary panicked"))?;
        lost(&canary?)?;
        within(ended.duration_since(begun), 40)
    })
}

fn login_shells(lab: &Lab) -> Result<()> {
    lab.set_tailscale_ssh(true)?;
    for shell in ["dash", "bash", "zsh", "fish"] {
        lab.vps().command(&["usermod", "--shell", &format!("/usr/bin/{shell}"), "root"]).run()?;
        auth(lab, &["check", "--both"])?.exit(0).context(shell)?;
        auth(lab, &["canary"])?.exit(0).context(shell)?;
    }
    Ok(())
}

/// A key whose path no shell and no list of options leaves alone; the VPS knows no other one.
const ODD_KEY: &str = "/home/op/a b'c\"$d";

fn odd_key(lab: &Lab) -> Result<()> {
    let make = [
        "sh",
        "-ec",
        "rm -f \"$0\" \"$0.pub\"; ssh-keygen -q -t ed25519 -N '' -f \"$0\"; cat \"$0.pub\"",
        ODD_KEY,
    ];
    let public = typed(lab, &make).read()?;
    lab.vps().command(&["sh", "-c", "cat >.ssh/authorized_keys"]).stdin(public).run()
}

fn scripts(lab: &Lab) -> Result<()> {
    lab.set_tailscale_ssh(true)?;
    odd_key(lab)?;
    arrange(lab, "echo whole >file")?;
    // The same text in all of these shells. sshd says which of its ports was used, Tailscale SSH says nothing.
    let text = format!(
        "ssh $(ua-ssh-auth args) {VPS} 'echo by ${{SSH_CONNECTION:-tailscale}}' &&
         rsync -e \"$(ua-ssh-auth rsh)\" file {VPS}:by-rsync && scp -q $(ua-ssh-auth args) file {VPS}:by-scp &&
         eval \"$(ua-ssh-auth env)\" && ssh $UA_SSH_ARGS \"$UA_VPS_HOST\" 'cat by-rsync by-scp; rm by-rsync by-scp' &&
         rsync -e \"$UA_SSH_RSH\" \"$UA_VPS_HOST\":/etc/hostname back && cat back"
    );
    for shell in ["bash", "dash", "fish"] {
        for (mode, by) in [("keys", " 2222\n"), ("tailscale_ssh", "by tailscale\n")] {
            let output = typed(lab, &[shell, "-c", &text])
                .env("UA_SSH_AUTH_MODE", mode)
                .env("UA_VPS_SSH_KEY", ODD_KEY)
                .output()?;
            let right = format!("{by}whole\nwhole\nsrv1360701\n");
            ensure!(output.code == 0 && output.stdout.ends_with(&right), "{shell}, {mode}: {output:?}");
        }
    }
    Ok(())
}

fn odd_state(lab: &Lab) -> Result<()> {
    lab.set_tailscale_ssh(true)?;
    odd_key(lab)?;
    let run = |verb: &[&str]| {
        let words = [&["ua-ssh-auth"], verb].concat();
        typed(lab, &words).env("XDG_STATE_HOME", "/home/op/st 'a").env("UA_VPS_SSH_KEY", ODD_KEY).output()
    };
    for verb in [&["canary"][..], &["check", "--both"]] {
        let output = run(verb)?;
        ensure!(output.code == 0, "{output:?}");
    }
    // No word for a shell can name that place.
    let output = run(&["args"])?;
    ensure!(output.code == 2 && output.stdout == "-F/nonexistent/ua-ssh-auth-failed\n", "{output:?}");
    arrange(lab, "rm -r \"st 'a\"").map(drop)
}

fn closed(lab: &Lab) -> Result<()> {
    let address = Node::Vps.public_address();
    // Each of them would get in by ssh's own defaults.
    let open = format!("-o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null root@{address}");
    arrange(lab, &format!("ssh -o BatchMode=yes {open} true"))?;
    let all = format!(
        "ssh $(ua-ssh-auth args) {open} touch was-here && echo in
         rsync -e \"$(ua-ssh-auth rsh) -o StrictHostKeyChecking=no\" file root@{address}:was-here && echo in
         eval \"$(ua-ssh-auth env)\"; ssh $UA_SSH_ARGS {open} touch was-here && echo in"
    );
    arrange(lab, "echo whole >file")?;
    let refused = |output: Output| {
        ensure!(output.stdout.is_empty(), "{output:?}");
        ensure!(lab.vps().sh("test ! -e was-here")?.success(), "a session was opened: {output:?}");
        Ok(output)
    };
    let other = refused(script(lab, &all)?)?;
    let words = "this configuration is for srv1360701.taildcc090.ts.net only";
    ensure!(other.stderr.matches(words).count() == 3, "{other:?}");
    refused(typed(lab, &["sh", "-c", &all]).env("UA_SSH_AUTH_MODE", "bogus").output()?)?;
    lab.tailscale_down(Node::Laptop)?;
    refused(script(lab, &all)?).map(drop)
}

fn secrets(lab: &Lab) -> Result<()> {
    const SENTINEL: &str = "sentinel-7f3a9c";
    lab.set_tailscale_ssh(true)?;
    lab.laptop().command(&["sh", "-c", "cat >secret"]).user(OPERATOR).stdin(SENTINEL).run()?;
    let key = arrange(lab, "cat .ssh/id_ed25519")?;
    let mut secrets: Vec<&str> = key.lines().filter(|line| !line.starts_with("-----")).collect();
    secrets.push(SENTINEL);

    let seen = watched(lab, &["/home/op/.local/state/ua/**"], || {
        // The variable is not to stand in a list of arguments of our own.
        script(
            lab,
            "UA_OPS_TOKEN=$(cat secret); export UA_OPS_TOKEN
             ua-ssh-auth canary --json -v; ua-ssh-auth check --both --json -v; cat .local/state/ua/ssh-auth.jsonl",
        )
    })?;
    let Watched { laptop, vps, done: said } = seen;
    // They did look.
    for words in
        ["ssh -F /home/op/.local/state/ua/run/", "rsync -e ssh -F", "IdentityFile", "Authenticated to"]
    {
        ensure!(laptop.contains(words), "nobody saw `{words}`: {laptop}");
    }
    ensure!(vps.contains("rsync --server"), "nobody saw rsync: {vps}");
    ensure!(said.stdout.matches("\"verdict\":\"pass\",\"exit_code\":0").count() >= 2, "{said:?}");
    let seen = format!("{laptop}{vps}{}{}", said.stdout, said.stderr);
    for secret in secrets {
        ensure!(!seen.contains(secret), "somebody could read `{secret}`");
    }
    Ok(())
}

/// The operator's own settings, at the beginning.
const SETTINGS: &str = "# Mine.
[ssh]
# Tailscale SSH holds 22.
keys_port = 2222 # the real sshd
canary_runs = 2

[preflight]
timeout = 4
";

fn cut_over(lab: &Lab) -> Result<()> {
    lab.set_tailscale_ssh(true)?;
    let file = ".config/ua/ua.toml";
    let put = format!("mkdir -p .config/ua && cat >{file}");
    lab.laptop().command(&["sh", "-c", &put]).user(OPERATOR).stdin(SETTINGS).run()?;
    let says = |auth_mode: &str| {
        let text = arrange(lab, &format!("cat {file}"))?;
        let right = SETTINGS.replace("canary_runs = 2\n", &format!("canary_runs = 2\n{auth_mode}"));
        ensure!(text == right, "{text}");
        anyhow::Ok(())
    };
    let refused = auth(lab, &["cutover"])?;
    refused.exit(1)?.says("rule.days", "fail", "no canary yet")?.says("rule.runs", "fail", "0, not 2")?;

    for (line, ago) in [(1, "8 days"), (2, "4 days"), (3, "1 hour")] {
        auth(lab, &["canary"])?.exit(0)?;
        let age = format!(
            "sed -i \"{line}s/\\\"at\\\":\\\"[^\\\"]*/\\\"at\\\":\\\"$(date -u -d '{ago} ago' +%FT%TZ)/\" {LEDGER}"
        );
        arrange(lab, &age)?;
    }
    auth(lab, &["status"])?.exit(0)?.says("rule", "pass", "allows the cut-over")?;
    // The ledger alone is not enough.
    auth(lab, &["cutover", "--keys-port", "22"])?.exit(1)?.says("keys.not-exercised", "fail", "")?;
    let overridden = typed(lab, &["ua-ssh-auth", "cutover"]).env("UA_SSH_AUTH_MODE", "keys").output()?;
    ensure!(overridden.code == 2 && overridden.stderr.contains("UA_SSH_AUTH_MODE"), "{overridden:?}");
    auth(lab, &["cutover", "--dry-run"])?.exit(0)?.says("switch", "skip", "would write")?;
    says("")?;
    ensure!(ledger(lab)?.len() == 3, "a refusal or a dry run left a line");

    auth(lab, &["cutover"])?.exit(0)?.says("switch", "pass", "tailscale_ssh")?;
    says("auth_mode = \"tailscale_ssh\"\n")?;
    proved(&auth(lab, &["check"])?, &["tailscale_ssh"])?;
    auth(lab, &["check", "--both"])?.exit(0)?;

    lab.set_ssh_policy(SshPolicy::Deny)?;
    auth(lab, &["check"])?.exit(21)?;
    auth(lab, &["rollback"])?.exit(0)?.says("switch", "pass", "which said `tailscale_ssh`")?;
    says("auth_mode = \"keys\"\n")?;
    let said = auth(lab, &["check"])?;
    proved(said.exit(0)?, &["keys"])?;
    auth(lab, &["status"])?.exit(0)?.says("switch", "pass", "last rollback")?;
    let events: Vec<Value> = ledger(lab)?.iter().map(|line| line["event"].clone()).collect();
    ensure!(json!(events) == json!(["canary", "canary", "canary", "cutover", "rollback"]), "{events:?}");
    Ok(())
}

fn two_canaries(lab: &Lab) -> Result<()> {
    lab.set_tailscale_ssh(true)?;
    let output = script(
        lab,
        "ua-ssh-auth canary -q & one=$!; ua-ssh-auth canary -q & wait $!; echo $?; wait $one; echo $?",
    )?;
    ensure!(output.stdout == "0\n0\n", "{output:?}");
    let lines = ledger(lab)?;
    ensure!(lines.len() == 2 && lines.iter().all(|line| line["verdict"] == "pass"), "{lines:?}");
    Ok(())
}

fn killed(lab: &Lab) -> Result<()> {
    lab.set_tailscale_ssh(true)?;
    hold(lab, &[OUT])?;
    thread::scope(|scope| {
        let run = scope.spawn(|| script(lab, "ua-ssh-auth canary & echo $! >pid; wait $!"));
        held(lab, OUT)?;
        arrange(lab, "pgrep -u op -x ssh && kill -KILL $(cat pid)")?;
        let gone = "for _ in $(seq 50); do pgrep -u op -x ssh >/dev/null || exit 0; sleep 0.1; done; exit 1";
        ensure!(script(lab, gone)?.success(), "ssh outlived its run");
        let output = run.join().map_err(|_| anyhow!("the run panicked"))??;
        ensure!(output.code == 137, "{output:?}");
        Ok(())
    })?;
    let left = || arrange(lab, "ls .local/state/ua/run | wc -l");
    ensure!(left()?.trim() == "1", "the killed run had a directory: {}", left()?);
    auth(lab, &["canary"])?.exit(0)?;
    ensure!(left()?.trim() == "0", "a dead run's directory is still there");
    Ok(())
}
