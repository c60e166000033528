//! What a run works with: the settings as they are meant for the mirror, and the places on this machine.

use std::path::{Path, PathBuf};

use ua_common::error::Failure;
use ua_common::exit::Exit;
use ua_common::place::Place;
use ua_common::settings::table;
use ua_common::settings::value::{AuthMode, SshKey};
use ua_common::settings::{Origin, Settings, SettingsError, Sourced, Surroundings};

/// Everything that is decided before anything is contacted.
#[derive(Clone, Debug)]
pub struct Config {
    /// The settings; host, key and port are those for mirroring.
    pub settings: Settings,
    /// The app's repository, if it is known.
    pub repo: Option<PathBuf>,
    /// The mirror.
    pub mirror: PathBuf,
    /// Its state.
    pub state: PathBuf,
    /// What it holds complete.
    pub manifest: PathBuf,
    /// The mirror of the artifacts.
    pub artifacts: PathBuf,
}

impl Config {
    /// Finds all places. The repository is only needed where one of them is derived from it.
    pub fn new(settings: &Settings, around: &Surroundings) -> Result<Self, SettingsError> {
        let settings = for_mirroring(settings);
        let repo = settings.repo(around);
        let place = |given: &Sourced<Option<PathBuf>>, default: &str| match (&given.value, &repo) {
            (Some(path), _) => Ok(path.clone()),
            (None, Ok(repo)) => Ok(repo.join(default)),
            // Once more, for an error of its own.
            (None, Err(_)) => settings.repo(around).map(|repo| repo.join(default)),
        };
        Ok(Self {
            mirror: place(&settings.sync_local_dir, table::MIRROR)?,
            state: place(&settings.sync_state_dir, table::MIRROR_STATE)?,
            manifest: place(&settings.sync_manifest_file, table::MANIFEST)?,
            artifacts: place(&settings.sync_local_artifacts_dir, table::ARTIFACTS)?,
            repo: repo.ok(),
            settings,
        })
    }

    /// The key must be there before anybody is contacted. A caller looks for these very words.
    pub fn key(&self) -> Result<(), Failure> {
        match (&self.settings.ssh_auth_mode.value, &self.settings.ssh_key.value) {
            (AuthMode::Keys, SshKey::File(path)) if !path.exists() => {
                let message = format!("SSH key does not exist: {}", path.display());
                Err(Failure::new(Exit::Usage, message)
                    .hint("ua-sync once --ssh-key FILE, or --auth-mode tailscale_ssh"))
            }
            _ => Ok(()),
        }
    }

    /// Where the target is this very machine, the mirror must not lie in what is mirrored, nor the other way round.
    pub fn apart(&self, place: &Place) -> Result<(), Failure> {
        if !place.myself {
            return Ok(());
        }
        let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_path_buf());
        let remote = real(Path::new(&self.settings.sync_remote_dir.value.0));
        let mirror = real(&self.mirror);
        if mirror.starts_with(&remote) || remote.starts_with(&mirror) {
            let message = format!(
                "the target is this very machine, and the mirror `{}` and the workspaces `{}` lie in each other",
                mirror.display(),
                remote.display()
            );
            return Err(Failure::new(Exit::Usage, message).hint("ua-sync once --local-dir /somewhere/else"));
        }
        Ok(())
    }
}

/// A flag is meant for this run; else what is set for mirroring goes before what is set for all tools.
fn for_mirroring(settings: &Settings) -> Settings {
    fn pick<T: Clone>(general: &mut Sourced<T>, own: &Sourced<Option<T>>) {
        if let (Some(value), false) = (&own.value, matches!(general.origin, Origin::Flag(_))) {
            *general = Sourced { value: value.clone(), origin: own.origin.clone() };
        }
    }
    let mut settings = settings.clone();
    let (host, key, port) =
        (settings.sync_host.clone(), settings.sync_key.clone(), settings.sync_port.clone());
    pick(&mut settings.host_vps, &host);
    pick(&mut settings.ssh_key, &key);
    pick(&mut settings.ssh_keys_port, &port);
    settings
}

#[cfg(test)]
mod tests {
    use super::*;
    use ua_common::host::Host;
    use ua_common::settings::{Layer, Raw};

    #[test]
    fn on_one_machine_the_mirror_and_what_is_mirrored_do_not_lie_in_each_other() {
        let root = tempfile::tempdir().unwrap();
        let at = |path: &str| root.path().join(path).display().to_string();
        std::fs::create_dir_all(at("ws/in/it")).unwrap();
        std::os::unix::fs::symlink(at("ws/in"), at("link")).unwrap();
        let around = Surroundings {
            cwd: root.path().to_path_buf(),
            home: None,
            config_home: None,
            env: std::collections::BTreeMap::new(),
            uid: 0,
        };
        let apart = |mirror: &str, myself: bool| {
            let flag =
                |key: &'static str, text: String| (key, (Raw::Text(text), Origin::Flag(key.to_owned())));
            let layer: Layer = [
                flag("repo.dir", at("")),
                flag("ssh.key", "agent".to_owned()),
                flag("sync.remote_dir", at("ws")),
                flag("sync.local_dir", at(mirror)),
            ]
            .into();
            let config = Config::new(&Settings::resolve(&[layer], &around).unwrap(), &around).unwrap();
            let place = Place { myself, ..Place::unvouched(&Host::Name("vps.example".to_owned())) };
            config.apart(&place).map_err(|failure| failure.exit)
        };
        for inside in ["ws", "ws/mirror", "link/it", ""] {
            assert_eq!(apart(inside, true), Err(Exit::Usage), "{inside}");
            assert_eq!(apart(inside, false), Ok(()), "another machine has directories of its own");
        }
        assert_eq!(apart("ws-mirror", true), Ok(()));
    }
}
