//! The lab's verbs do what they say, and a reset undoes each of them. Bends the lab that is up:
//! `cargo test -p xtask --test lab -- --ignored`.

use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use xtask::lab::{Control, Lab, Node, SshPolicy};
use xtask::ui::note;

/// One verb: what it is called, how it is done, what must then be so, and how it is undone.
struct Verb {
    name: &'static str,
    act: fn(&Lab) -> Result<()>,
    holds: fn(&Lab) -> Result<bool>,
    undo: fn(&Lab) -> Result<()>,
}

fn laptop_says(lab: &Lab, command: &str, expected: &str) -> Result<bool> {
    let output = lab.laptop().sh(command)?;
    Ok((output.stdout + &output.stderr).contains(expected))
}

fn ssh(lab: &Lab, port: u16) -> Result<bool> {
    let command =
        format!("ssh -o BatchMode=yes -o ConnectTimeout=3 -p {port} root@srv1360701.taildcc090.ts.net true");
    Ok(lab.laptop().sh(&command)?.success())
}

const VERBS: &[Verb] = &[
    Verb {
        name: "stop tailscaled",
        act: |lab| lab.stop_tailscaled(Node::Laptop),
        holds: |lab| laptop_says(lab, "tailscale status --json", "doesn't appear to be running"),
        undo: |lab| lab.start_tailscaled(Node::Laptop),
    },
    Verb {
        name: "restart tailscaled",
        act: |lab| lab.restart_tailscaled(Node::Vps),
        holds: |lab| ssh(lab, 22),
        undo: |_| Ok(()),
    },
    Verb {
        name: "tailscale down",
        act: |lab| lab.tailscale_down(Node::Laptop),
        holds: |lab| laptop_says(lab, "tailscale status", "Tailscale is stopped."),
        undo: |lab| lab.tailscale_up(Node::Laptop),
    },
    Verb {
        name: "log out",
        act: |lab| lab.log_out(Node::Laptop),
        holds: |lab| laptop_says(lab, "tailscale status", "Logged out."),
        undo: |lab| lab.log_in(Node::Laptop),
    },
    Verb {
        name: "cut link",
        act: |lab| lab.cut_link(Node::Vps),
        holds: |lab| Ok(!ssh(lab, 22)?),
        undo: |lab| lab.restore_link(Node::Vps),
    },
    Verb {
        name: "expire the VPS",
        act: |lab| lab.expire(Node::Vps),
        holds: |lab| laptop_says(lab, "tailscale ping --c=1 --timeout=1s 100.64.0.2", "expired"),
        undo: |lab| lab.log_in(Node::Vps),
    },
    Verb {
        name: "expire the laptop",
        act: |lab| lab.expire(Node::Laptop),
        holds: |lab| laptop_says(lab, "tailscale status", "Logged out."),
        undo: |lab| lab.log_in(Node::Laptop),
    },
    Verb {
        name: "rename",
        act: |lab| lab.rename(Node::Vps, "moved"),
        holds: |lab| laptop_says(lab, "getent hosts moved.taildcc090.ts.net", "100.64.0.2"),
        undo: |lab| lab.rename_back(Node::Vps),
    },
    Verb {
        name: "break DNS",
        act: |lab| lab.break_dns(Node::Laptop),
        holds: |lab| Ok(!lab.laptop().exec(&["getent", "hosts", "srv1360701.taildcc090.ts.net"])?.success()),
        undo: |lab| lab.restore_dns(Node::Laptop),
    },
    Verb {
        name: "refuse DNS",
        act: |lab| lab.set_accept_dns(Node::Laptop, false),
        holds: |lab| Ok(!lab.laptop().exec(&["getent", "hosts", "srv1360701.taildcc090.ts.net"])?.success()),
        undo: |lab| lab.set_accept_dns(Node::Laptop, true),
    },
    Verb {
        name: "https control",
        act: |lab| lab.use_control(Control::Https),
        holds: |lab| {
            lab.vps().command(&["tailscale", "serve", "--bg", "--https=8443", "text:hello"]).run()?;
            let hello = laptop_says(lab, "curl -sS https://srv1360701.taildcc090.ts.net:8443/", "hello")?;
            lab.vps().command(&["tailscale", "serve", "reset"]).run()?;
            Ok(hello && ssh(lab, 22)?)
        },
        undo: |lab| lab.use_control(Control::Headscale),
    },
    Verb {
        name: "reboot the VPS",
        act: |lab| lab.reboot(Node::Vps),
        holds: |lab| ssh(lab, 2222),
        undo: |_| Ok(()),
    },
    Verb {
        name: "reboot the laptop",
        act: |lab| lab.reboot(Node::Laptop),
        holds: |lab| ssh(lab, 22),
        undo: |_| Ok(()),
    },
    Verb {
        name: "fill disk",
        act: |lab| lab.fill_disk(Node::Vps, 1024),
        holds: |lab| {
            let written =
                lab.vps().sh("head -c 3M /dev/zero >/root/big; status=$?; rm -f /root/big; exit $status")?;
            Ok(written.stderr.contains("No space left"))
        },
        undo: |lab| lab.free_disk(Node::Vps),
    },
    Verb {
        name: "Tailscale SSH",
        act: |lab| lab.set_tailscale_ssh(true),
        holds: |lab| laptop_says(lab, "ssh-keyscan 2>&1 srv1360701.taildcc090.ts.net", "SSH-2.0-Tailscale"),
        undo: |lab| lab.set_tailscale_ssh(false),
    },
    Verb {
        name: "SSH policy denies",
        act: |lab| lab.set_tailscale_ssh(true).and_then(|()| lab.set_ssh_policy(SshPolicy::Deny)),
        holds: |lab| Ok(!ssh(lab, 22)? && ssh(lab, 2222)?),
        undo: |lab| lab.set_ssh_policy(SshPolicy::Accept).and_then(|()| lab.set_tailscale_ssh(false)),
    },
    Verb {
        name: "SSH policy denies root",
        act: |lab| lab.set_tailscale_ssh(true).and_then(|()| lab.set_ssh_policy(SshPolicy::DenyRoot)),
        holds: |lab| Ok(!ssh(lab, 22)? && laptop_says(lab, "ssh ua@srv1360701.taildcc090.ts.net id", "(ua)")?),
        undo: |lab| lab.set_ssh_policy(SshPolicy::Accept).and_then(|()| lab.set_tailscale_ssh(false)),
    },
    Verb {
        name: "other host keys",
        act: Lab::change_host_keys,
        holds: |lab| Ok(!ssh(lab, 2222)?),
        // There is no other way back.
        undo: Lab::reset,
    },
    Verb { name: "force relay", act: Lab::force_relay, holds: |lab| ssh(lab, 22), undo: Lab::allow_direct },
];

#[test]
#[ignore = "needs a lab that is up and bends it; `cargo xtask test` and `e2e` run it after the trials"]
fn every_verb_does_what_it_says_and_is_undone_by_its_opposite_and_by_a_reset() {
    let lab = Lab::attach().expect("a lab");
    let only = std::env::var("ONLY").unwrap_or_default();
    let mut failed = Vec::new();
    for verb in VERBS.iter().filter(|verb| verb.name.contains(&only)) {
        if let Err(error) = check(&lab, verb) {
            note(format!("{}: {error:#}", verb.name));
            failed.push(verb.name);
        }
    }
    assert!(failed.is_empty(), "{failed:?}");
}

fn check(lab: &Lab, verb: &Verb) -> Result<()> {
    let timed = |what: &str, step: &dyn Fn() -> Result<()>| {
        let begun = Instant::now();
        let result = step().with_context(|| what.to_owned());
        note(format!("{:>6} ms  {}: {what}", begun.elapsed().as_millis(), verb.name));
        result
    };
    let holds = || {
        ensure!((verb.holds)(lab)?, "it does not hold");
        Ok(())
    };
    timed("reset before", &|| lab.reset())?;
    timed("act", &|| (verb.act)(lab))?;
    timed("holds", &holds)?;
    timed("undo", &|| (verb.undo)(lab))?;
    timed("reset after undo", &|| lab.reset())?;
    timed("act again", &|| (verb.act)(lab))?;
    timed("reset instead of undo", &|| lab.reset())
}

#[test]
#[ignore = "needs a lab that is up and bends it; `cargo xtask test` and `e2e` run it after the trials"]
fn an_approved_check_lets_the_waiting_login_in_and_the_next_one_through() -> Result<()> {
    let lab = Lab::attach()?;
    lab.reset()?;
    lab.set_tailscale_ssh(true)?;
    lab.set_ssh_policy(SshPolicy::Check)?;
    let ssh = "ssh -o BatchMode=yes root@srv1360701.taildcc090.ts.net true";
    let waiting = std::thread::spawn({
        let (lab, command) = (lab.clone(), format!("{ssh} 2>/tmp/check"));
        move || lab.laptop().sh(&command)
    });
    let shown = lab.laptop().path("/tmp/check")?;
    let id = loop {
        let text = std::fs::read_to_string(&shown).unwrap_or_default();
        if let Some((_, rest)) = text.split_once("/auth/") {
            break rest.split_whitespace().next().context("an id")?.to_owned();
        }
        ensure!(!waiting.is_finished(), "no check was asked for: {text}");
        std::thread::sleep(std::time::Duration::from_millis(50));
    };
    lab.approve(&id)?;
    let login = waiting.join().expect("no panic")?;
    ensure!(login.success(), "{login:?}");
    ensure!(lab.laptop().sh(ssh)?.success(), "a second check within the period");
    // A change of policy forgets who was approved.
    lab.set_ssh_policy(SshPolicy::Accept)?;
    lab.set_ssh_policy(SshPolicy::Check)?;
    ensure!(!lab.laptop().sh(&format!("timeout 2 {ssh}"))?.success(), "no check after a change of policy");
    lab.reset()
}
