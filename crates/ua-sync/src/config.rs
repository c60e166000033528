//! What a run works with: the settings as they are meant for the mirror, and the places on this machine.

use std::path::{Path, PathBuf};

use ua_common::error::Failure;
use ua_common::exit::Exit;
use ua_common::place::Place;
use ua_common::settings::value::{AuthMode, SshKey};
use ua_common::settings::{Origin, Settings, SettingsError, Sourced, Surroundings};

/// Folder of the manifest and the default state, in the repository.
const STATE: &str = "AGENT_RUN_WORKSPACES/remote_vps_sync_state";

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
            mirror: place(&settings.sync_local_dir, "AGENT_RUN_WORKSPACES/remote_vps_workspaces")?,
            state: place(&settings.sync_state_dir, STATE)?,
            manifest: place(&settings.sync_manifest_file, &format!("{STATE}/synced_workspaces.txt"))?,
            artifacts: place(&settings.sync_local_artifacts_dir, "artifacts/remote_vps_artifacts")?,
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
                    .hint("ua-sync --ssh-key FILE, or --auth-mode tailscale_ssh"))
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
