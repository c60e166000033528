//! The switch: `ssh.auth_mode` in the user's own `ua.toml`, with everything else in that file as it was.

use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use toml_edit::{DocumentMut, Item, value};
use ua_common::error::Failure;
use ua_common::exit::Exit;
use ua_common::settings::value::{AuthMode, Value as _};
use ua_common::settings::{Layer, Origin, Settings, Surroundings};
use ua_common::state;

/// An edit that is ready to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edit {
    /// The file, through any link to it.
    pub path: PathBuf,
    /// What it says now; nothing if it does not say.
    pub from: Option<String>,
    /// What it shall say.
    pub to: AuthMode,
    old: Option<String>,
    new: String,
}

/// Refuses to switch what the file does not decide.
pub fn overridden(settings: &Settings) -> Option<Failure> {
    let origin = &settings.ssh_auth_mode.origin;
    let mend = match origin {
        Origin::Flag(flag) => format!("run it again without {flag}"),
        Origin::Env(name) => format!("unset {name}  # and wherever it is exported"),
        _ => return None,
    };
    let mode = settings.ssh_auth_mode.value.show();
    let message = format!("`ssh.auth_mode` is `{mode}` by {origin}, so the file would not decide");
    Some(Failure::new(Exit::Usage, message).hint(mend))
}

/// Reads the file and prepares the edit.
pub fn plan(around: &Surroundings, to: AuthMode) -> Result<Edit, Failure> {
    let home = around.config_home.as_ref().ok_or_else(|| {
        Failure::new(Exit::Usage, "there is no user file while HOME is unset").hint("export HOME=…")
    })?;
    let path = home.join("ua").join("ua.toml");
    // A link, as of a directory of dotfiles, stays a link.
    let path = path.canonicalize().unwrap_or(path);
    let failed = |what: String| Failure::new(Exit::Usage, format!("`{}`: {what}", path.display()));
    let old = match std::fs::read_to_string(&path) {
        Ok(text) => Some(text),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        Err(error) => return Err(failed(error.to_string())),
    };
    let (from, new) = edit(old.as_deref().unwrap_or_default(), to).map_err(failed)?;
    Ok(Edit { path, from, to, old, new })
}

/// The text with `ssh.auth_mode` set, and what it was. Comments and order stay.
fn edit(text: &str, to: AuthMode) -> Result<(Option<String>, String), String> {
    let mut document: DocumentMut = text.parse().map_err(|error: toml_edit::TomlError| error.to_string())?;
    let ssh = document.entry("ssh").or_insert_with(toml_edit::table);
    let ssh = ssh.as_table_like_mut().ok_or("`ssh` is not a table")?;
    let from = ssh.get("auth_mode").map(|item| item.as_str().map_or_else(|| item.to_string(), str::to_owned));
    match ssh.get_mut("auth_mode").and_then(Item::as_value_mut) {
        Some(old) => {
            let decor = old.decor().clone();
            *old = to.show().into();
            *old.decor_mut() = decor;
        }
        None => drop(ssh.insert("auth_mode", value(to.show()))),
    }
    Ok((from, document.to_string()))
}

impl Edit {
    /// Is there nothing to do?
    pub fn is_done(&self) -> bool {
        self.from.as_deref().is_some_and(|from| from.eq_ignore_ascii_case(&self.to.show()))
    }

    /// The change, for a person.
    pub fn words(&self) -> String {
        let was = self.from.as_deref().map_or("nothing".to_owned(), |from| format!("`{from}`"));
        format!("`ssh.auth_mode = {}` in `{}`, which said {was}", self.to.show(), self.path.display())
    }

    /// Writes the file as a whole, and sees that the settings are read from it as meant.
    pub fn apply(&self, around: &Surroundings) -> Result<(), Failure> {
        if std::fs::read_to_string(&self.path).ok() != self.old {
            let message = format!("`{}` was changed at the same moment", self.path.display());
            return Err(Failure::new(Exit::Failed, message).hint("run it again"));
        }
        self.write(&self.new)?;
        let read = Settings::load(Layer::new(), around).map(|settings| settings.ssh_auth_mode);
        let said = match read {
            Ok(read) if read.value == self.to && matches!(read.origin, Origin::User(..)) => return Ok(()),
            Ok(read) => format!("`ssh.auth_mode` would be `{}` by {}", read.value.show(), read.origin),
            Err(error) => error.to_string(),
        };
        self.revert()?;
        Err(Failure::new(Exit::Failed, format!("`{}` was put back: {said}", self.path.display())))
    }

    /// Puts the file back as it was.
    pub fn revert(&self) -> Result<(), Failure> {
        match &self.old {
            Some(text) => self.write(text),
            None => std::fs::remove_file(&self.path).map_err(|error| self.failed(&error)),
        }
    }

    fn write(&self, text: &str) -> Result<(), Failure> {
        let mode = std::fs::metadata(&self.path).map_or(0o600, |meta| meta.permissions().mode() & 0o7777);
        let dir = self.path.parent().unwrap_or(&self.path);
        std::fs::create_dir_all(dir)
            .and_then(|()| state::write(&self.path, text, mode))
            .map_err(|error| self.failed(&error))
    }

    fn failed(&self, error: &std::io::Error) -> Failure {
        Failure::new(Exit::Failed, format!("cannot write `{}`: {error}", self.path.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_else_stays_as_it_is() {
        let text = "# mine\n\n[preflight]\ntimeout = 4 # slow link\n\n[ssh]\n# how\nauth_mode = 'Keys'   # since May\nkey = \"~/k\"\n";
        let (from, new) = edit(text, AuthMode::TailscaleSsh).unwrap();
        assert_eq!(from.as_deref(), Some("Keys"));
        assert_eq!(new, text.replace("'Keys'", "\"tailscale_ssh\""));
        let (_, back) = edit(&new, AuthMode::Keys).unwrap();
        assert_eq!(back, text.replace("'Keys'", "\"keys\""));
    }

    #[test]
    fn any_form_of_the_key_is_found() {
        let all = [
            ("", None, "[ssh]\nauth_mode = \"keys\"\n"),
            ("[host]\nvps = \"a\"\n", None, "[host]\nvps = \"a\"\n\n[ssh]\nauth_mode = \"keys\"\n"),
            ("ssh.auth_mode = \"x\"\n", Some("x"), "ssh.auth_mode = \"keys\"\n"),
            (
                "ssh = { auth_mode = \"x\", key = \"k\" }\n",
                Some("x"),
                "ssh = { auth_mode = \"keys\", key = \"k\" }\n",
            ),
            ("[ssh]\r\nkey = \"k\"\r\n", None, "[ssh]\nkey = \"k\"\nauth_mode = \"keys\"\n"),
        ];
        for (text, from, new) in all {
            let edited = edit(text, AuthMode::Keys).unwrap();
            assert_eq!((edited.0.as_deref(), edited.1.replace('\r', "")), (from, new.to_owned()), "{text:?}");
        }
        assert!(edit("ssh = 3\n", AuthMode::Keys).is_err() && edit("[ssh\n", AuthMode::Keys).is_err());
    }
}
