//! The lab trials that a change may affect.

use anyhow::{Context as _, Result};
use camino::Utf8Path;

use crate::cmd::Cmd;
use crate::lab;

const PREFLIGHT: &str = "ua-preflight";
const SSH_AUTH: &str = "ua-ssh-auth";
const STAGING: &str = "ua-staging";
const DEPLOY: &str = "ua-deploy";
const SYNC: &str = "ua-sync";
const VPSCTL: &str = "ua-vpsctl";

/// Each module of trials, with the crates that its trials run: their programs, and the libraries in those. A module
/// that is not listed always runs. `ua-common` is in every program.
const MODULES: [(&str, &[&str]); 13] = [
    ("preflight", &[PREFLIGHT]),
    ("ssh_auth", &[PREFLIGHT, SSH_AUTH, STAGING]),
    ("deploy_first", &[PREFLIGHT, STAGING, DEPLOY]),
    ("build", &[PREFLIGHT, STAGING, DEPLOY, VPSCTL]),
    ("processes", &[PREFLIGHT, STAGING, DEPLOY]),
    ("deploy_faults", &[PREFLIGHT, STAGING, DEPLOY]),
    ("staging", &[PREFLIGHT, STAGING, DEPLOY, VPSCTL]),
    ("vpsctl", &[PREFLIGHT, STAGING, DEPLOY, VPSCTL]),
    ("sync", &[PREFLIGHT, SYNC]),
    ("acceptance", &[PREFLIGHT, SSH_AUTH, STAGING, DEPLOY, SYNC, VPSCTL]),
    ("deploy", &[PREFLIGHT, SSH_AUTH, STAGING, DEPLOY, SYNC, VPSCTL]),
    ("runbooks", &[PREFLIGHT, SSH_AUTH, STAGING, DEPLOY, SYNC, VPSCTL]),
    ("dist", &[PREFLIGHT, SSH_AUTH, STAGING, DEPLOY, SYNC, VPSCTL]),
];

/// Returns the modules of trials that these changed paths cannot affect.
pub fn unaffected<'a>(paths: impl IntoIterator<Item = &'a str>) -> Vec<&'static str> {
    let affected: Vec<&str> = paths.into_iter().flat_map(affected_by).collect();
    modules(|module, _| !affected.contains(&module))
}

/// Whether trials remain when these modules are left out.
pub fn leaves_trials(left_out: &[&str]) -> bool {
    left_out.len() < MODULES.len()
}

fn affected_by(path: &str) -> Vec<&'static str> {
    let named = |names: &[&str]| modules(|module, _| names.contains(&module));
    match path.split('/').collect::<Vec<_>>()[..] {
        // Only `cargo xtask check` looks at these.
        ["crates", _, "tests", ..]
        | [".ci", ..]
        | ["xtask", "src", "verify" | "bench", ..]
        | ["xtask", "src", "main.rs" | "verify.rs" | "bench.rs" | "demo.rs" | "picture.rs"] => Vec::new(),
        ["crates", name, ..] if MODULES.iter().any(|(_, crates)| crates.contains(&name)) => {
            modules(|_, crates| crates.contains(&name))
        }
        // The package has the documents.
        [_] | ["docs", _] if Utf8Path::new(path).extension() == Some("md") => named(&["dist"]),
        ["runbooks" | "shims", ..] => named(&["runbooks", "dist"]),
        // Modules that no other one uses anything of.
        ["xtask", "src", "dist.rs"] | ["xtask", "docs", ..] | ["tests", "lab", "dist.rs"] => named(&["dist"]),
        ["tests", "lab", "acceptance.rs"] => named(&["acceptance", "deploy"]),
        ["tests", "lab", "preflight.rs"] => named(&["preflight"]),
        ["tests", "lab", "ssh_auth.rs"] => named(&["ssh_auth"]),
        ["tests", "lab", "build.rs"] => named(&["build"]),
        ["tests", "lab", "processes.rs"] => named(&["processes"]),
        ["tests", "lab", "staging.rs"] => named(&["staging"]),
        ["tests", "lab", "vpsctl.rs" | "vpsctl", ..] => named(&["vpsctl"]),
        ["tests", "lab", "runbooks.rs"] => named(&["runbooks"]),
        _ => modules(|_, _| true),
    }
}

fn modules(wanted: impl Fn(&'static str, &[&str]) -> bool) -> Vec<&'static str> {
    MODULES.iter().filter(|(module, crates)| wanted(module, crates)).map(|(module, _)| *module).collect()
}

/// Returns the paths that differ from the branch's upstream, or from `main` where it has none, since the two parted;
/// with what is not committed yet.
pub fn paths() -> Result<Vec<String>> {
    let git = |arguments: &[&str]| {
        Cmd::new(["git"]).args(arguments.iter().copied()).dir(lab::checkout()?.as_str()).read()
    };
    let upstream = git(&["rev-parse", "--abbrev-ref", "@{upstream}"]);
    let upstream = upstream.as_deref().map_or("main", str::trim);
    let base = git(&["merge-base", "HEAD", upstream])
        .with_context(|| format!("no common commit with `{upstream}`; `cargo xtask test` runs everything"))?;
    let differing = git(&["diff", "--name-only", "--no-renames", "-z", base.trim()])?;
    let new = git(&["ls-files", "--others", "--exclude-standard", "-z"])?;
    Ok((differing + &new).split_terminator('\0').map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn affected(paths: &[&str]) -> Vec<&'static str> {
        let left_out = unaffected(paths.iter().copied());
        modules(|module, _| !left_out.contains(&module))
    }

    #[test]
    fn crate_change_runs_trials_that_use_it() {
        assert_eq!(
            affected(&["crates/ua-sync/src/lib.rs"]),
            ["sync", "acceptance", "deploy", "runbooks", "dist"]
        );
        assert_eq!(
            affected(&["crates/ua-ssh-auth/remote/x.sh"]),
            ["ssh_auth", "acceptance", "deploy", "runbooks", "dist"]
        );
        let deploy = affected(&["crates/ua-deploy/Cargo.toml"]);
        assert!(deploy.contains(&"deploy_faults") && deploy.contains(&"vpsctl"), "{deploy:?}");
        assert!(!deploy.contains(&"sync") && !deploy.contains(&"ssh_auth"), "{deploy:?}");
    }

    #[test]
    fn shared_or_unknown_change_runs_every_trial() {
        for path in [
            "crates/ua-common/src/run.rs",
            "crates/ua-new/src/lib.rs",
            "xtask/src/lab/mod.rs",
            "xtask/src/app.rs",
            "tests/app/server/provision.sh",
            "tests/app/README.md",
            "tests/lab/main.rs",
            "tests/lab/deploy_first.rs",
            "docs/report.schema.json",
            "Cargo.lock",
        ] {
            assert_eq!(unaffected([path]), Vec::<&str>::new(), "{path}");
        }
    }

    #[test]
    fn change_without_trials_runs_none() {
        for paths in
            [&[][..], &["crates/ua-common/tests/transport.rs", ".ci/run", "xtask/src/verify/unit.rs"]]
        {
            assert!(!leaves_trials(&unaffected(paths.iter().copied())), "{paths:?}");
        }
    }

    #[test]
    fn several_changes_add_up() {
        assert_eq!(affected(&["README.md", "tests/lab/vpsctl/cuts.rs"]), ["vpsctl", "dist"]);
        assert_eq!(affected(&["runbooks/migration.md", ".ci/run"]), ["runbooks", "dist"]);
    }

    #[test]
    fn table_has_every_module_of_trials() {
        let source = include_str!("../../../tests/lab/main.rs");
        let calls = source.lines().filter_map(|line| line.trim().strip_prefix("(\"")?.split_once('"'));
        let mut found: Vec<&str> =
            calls.filter(|(_, rest)| rest.contains("::")).map(|(name, _)| name).collect();
        found.push("deploy_faults");
        found.sort_unstable();
        let mut listed = modules(|_, _| true);
        listed.sort_unstable();
        assert_eq!(listed, found);
    }

    #[test]
    fn table_lists_libraries_of_each_program() {
        for (module, crates) in MODULES {
            for name in crates {
                let path = lab::checkout().unwrap().join(format!("crates/{name}/Cargo.toml"));
                let manifest = std::fs::read_to_string(path).unwrap();
                let dependencies =
                    manifest.split_once("[dependencies]").unwrap().1.split("\n[").next().unwrap();
                for line in dependencies.lines().filter(|line| line.starts_with("ua-")) {
                    let (dependency, _) = line.split_once('.').unwrap();
                    assert!(
                        dependency == "ua-common" || crates.contains(&dependency),
                        "{module} runs {name}, which uses {dependency}"
                    );
                }
            }
        }
    }
}
