//! A real sshd of our own on loopback.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// It listens until it is dropped. Whoever runs the test may log in with [`Sshd::key`].
pub struct Sshd {
    dir: TempDir,
    child: Child,
    /// Where it listens on 127.0.0.1.
    pub port: u16,
}

impl Sshd {
    /// Starts one. `extra` are further lines of its configuration.
    pub fn start(extra: &str) -> Self {
        let dir = TempDir::new().expect("a temporary directory");
        let at = |name: &str| dir.path().join(name);
        for name in ["host", "user"] {
            keygen(&at(name));
        }
        // As root, sshd insists on the directory of its unprivileged half.
        let _not_root = std::fs::create_dir_all("/run/sshd");
        let free = TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr());
        let port = free.expect("a free port").port();
        // The default key exchange of OpenSSH 9 takes most of the time of a login. The first line of a keyword counts;
        // with another home, a login runs no start-up file of whoever runs the test.
        let config = format!(
            "ListenAddress 127.0.0.1\nPort {port}\nHostKey {}\nAuthorizedKeysFile {}\nStrictModes no\nUsePAM no\n\
             PidFile none\nPasswordAuthentication no\nKbdInteractiveAuthentication no\nLogLevel VERBOSE\n\
             KexAlgorithms curve25519-sha256\n{extra}\nSetEnv HOME={}\n",
            at("host").display(),
            at("user.pub").display(),
            dir.path().display()
        );
        std::fs::write(at("config"), config).expect("its configuration");
        let log = std::fs::File::create(at("log")).expect("its log");
        // It must not outlive a test that is killed.
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "--", "/usr/sbin/sshd", "-D", "-e", "-f"])
            .arg(at("config"))
            .stdin(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("sshd, which `cargo xtask setup` installs");
        let sshd = Self { dir, child, port };
        let start = Instant::now();
        while !sshd.log().contains("Server listening") {
            assert!(start.elapsed() < Duration::from_secs(10), "sshd does not listen: {}", sshd.log());
            std::thread::sleep(Duration::from_millis(10));
        }
        sshd
    }

    /// The private key that it lets in.
    pub fn key(&self) -> PathBuf {
        self.dir.path().join("user")
    }

    /// Its public host key.
    pub fn host_key(&self) -> String {
        let line = std::fs::read_to_string(self.dir.path().join("host.pub")).expect("a public key");
        line.split_whitespace().take(2).collect::<Vec<_>>().join(" ")
    }

    /// How many logins it has accepted.
    pub fn logins(&self) -> usize {
        self.log().matches("Accepted publickey").count()
    }

    /// Ends every connection, and listens on.
    pub fn cut(&self) {
        let listener = self.child.id();
        // A connection is one process for root, and two for any other user.
        let cut = format!("pkill -KILL -P \"{listener},$(pgrep -d, -P {listener})\" '^sshd'");
        let cut = Command::new("sh").args(["-c", &cut]).status();
        assert!(cut.expect("pkill").success(), "there was no connection to cut");
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Sshd {
    fn drop(&mut self) {
        // It may have ended by itself, which is all that is wanted.
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// The user of the test: a server of anyone but root accepts nobody else.
pub fn user() -> String {
    let output = Command::new("id").arg("-un").output().expect("id");
    String::from_utf8(output.stdout).expect("a name").trim().to_owned()
}

/// Makes a key pair at `path` and `path.pub`.
pub fn keygen(path: &Path) {
    let made = Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(path).status();
    assert!(made.expect("ssh-keygen").success());
}
