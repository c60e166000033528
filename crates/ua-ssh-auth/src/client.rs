//! For scripts that call `ssh`, `rsync` or `scp` themselves: one word that makes them do what our own transport does.
//!
//! The configuration is a file of ours, named by its content, so that a script which goes on with it is not disturbed
//! by another one that asked for something else.

use std::path::Path;

use sha2::{Digest as _, Sha256};
use ua_common::error::Failure;
use ua_common::exit::Exit;
use ua_common::state;
use ua_common::tool::ssh::{Target, Use};
use ua_common::transport;

/// What is printed where no configuration could be made: `ssh` refuses it, so that a script which does not look at
/// exit codes cannot go on with ssh's own defaults.
pub const CLOSED: &str = "-F/nonexistent/ua-ssh-auth-failed";

/// The words for a shell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Client {
    args: String,
    target: String,
}

impl Client {
    /// Writes what `ssh` needs to know of the target, and gives the words.
    pub fn prepare(target: &Target) -> anyhow::Result<Self> {
        let host_keys = transport::prepare(target)?;
        let text = target.config(Use::Script, host_keys.path()).map_err(Failure::from)?;
        let dir = state::dir()?.join("ssh_config");
        state::private(&dir)?;
        let name: String = Sha256::digest(&text).iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        let path = dir.join(name);
        let shown = plain(&path)?;
        state::write(&path, &text, 0o600)
            .map_err(|error| Failure::new(Exit::Failed, format!("cannot write `{shown}`: {error}")))?;
        Ok(Self { args: format!("-F{shown}"), target: target.shown() })
    }

    /// One word for `ssh`, `scp` and `sftp`, which no shell takes apart.
    pub fn args(&self) -> &str {
        &self.args
    }

    /// For `rsync -e`.
    pub fn rsh(&self) -> String {
        rsh(&self.args)
    }

    /// For `eval`, in any POSIX shell and in fish.
    pub fn env(&self) -> String {
        env(&self.args, &self.target)
    }
}

/// For `rsync -e`.
pub fn rsh(args: &str) -> String {
    format!("ssh {args}")
}

/// For `eval`. Every value is of characters that no shell touches within single quotes.
pub fn env(args: &str, target: &str) -> String {
    format!(
        "export UA_VPS_HOST='{target}';\nexport UA_SSH_ARGS='{args}';\nexport UA_SSH_RSH='{}';",
        rsh(args)
    )
}

/// The path as text, if no shell would take it apart.
fn plain(path: &Path) -> Result<&str, Failure> {
    let plain =
        |text: &&str| text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/._-+@".contains(&byte));
    path.to_str().filter(plain).ok_or_else(|| {
        let message = format!("`{}` holds a character that a shell would take apart", path.display());
        Failure::new(Exit::Usage, message).hint("export XDG_STATE_HOME=/a/plain/path")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_paths() {
        assert_eq!(
            plain(Path::new("/home/op/.local/state/ua/ssh_config/0a")).unwrap(),
            "/home/op/.local/state/ua/ssh_config/0a"
        );
        for odd in ["/home/o p/x", "/a'b", "/$x", "/a\"", "/~/x", "/a\nb"] {
            assert_eq!(plain(Path::new(odd)).unwrap_err().exit, Exit::Usage, "{odd:?}");
        }
    }
}
