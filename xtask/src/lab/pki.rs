//! The lab's own certificate authority, made anew for each lab: nothing outside trusts it.

use anyhow::Result;
use camino::{Utf8Path, Utf8PathBuf};
use fs_err as fs;

use crate::cmd::Cmd;

/// openssl's own defaults would make every certificate an authority.
const CONFIG: &str = "[req]\ndistinguished_name = name\n[name]\n";
const DAYS: &str = "365";

/// A certificate and its key, in files.
#[derive(Debug, Clone)]
pub(super) struct Certificate {
    pub crt: Utf8PathBuf,
    pub key: Utf8PathBuf,
}

/// The authority.
#[derive(Debug, Clone)]
pub(super) struct Authority {
    dir: Utf8PathBuf,
    root: Certificate,
}

impl Authority {
    /// Makes one, with its files in `dir`.
    pub fn create(dir: Utf8PathBuf) -> Result<Self> {
        fs::create_dir_all(&dir)?;
        fs::write(dir.join("openssl.cnf"), CONFIG)?;
        let root = Certificate { crt: dir.join("ca.crt"), key: dir.join("ca.key") };
        let authority = Self { dir, root };
        authority
            .request("/CN=Lab authority", &authority.root)
            .args(["-addext", "basicConstraints=critical,CA:TRUE"])
            .args(["-addext", "keyUsage=critical,keyCertSign,cRLSign"])
            .run()?;
        Ok(authority)
    }

    /// Issues a certificate for a server of this name.
    pub fn issue(&self, name: &str) -> Result<Certificate> {
        let crt = self.dir.join(format!("{name}.crt"));
        let issued = Certificate { key: crt.with_extension("key"), crt };
        self.request(&format!("/CN={name}"), &issued)
            .args(["-CA", self.root.crt.as_str(), "-CAkey", self.root.key.as_str()])
            .args(["-addext", &format!("subjectAltName=DNS:{name}")])
            .args(["-addext", "basicConstraints=critical,CA:FALSE", "-addext", "extendedKeyUsage=serverAuth"])
            .run()?;
        Ok(issued)
    }

    /// Makes the machine with this root directory trust the authority: what `update-ca-certificates` would do, in no
    /// time.
    pub fn install(&self, machine: &Utf8Path) -> Result<()> {
        let pem = fs::read_to_string(&self.root.crt)?;
        let hash = Cmd::new(["openssl", "x509", "-noout", "-hash", "-in", self.root.crt.as_str()]).read()?;
        let certificates = machine.join("etc/ssl/certs");
        fs::write(machine.join("usr/local/share/ca-certificates/lab.crt"), &pem)?;
        fs::write(certificates.join("lab.pem"), &pem)?;
        fs::os::unix::fs::symlink("lab.pem", certificates.join(format!("{}.0", hash.trim())))?;
        let bundle = certificates.join("ca-certificates.crt");
        let trusted = fs::read_to_string(&bundle)?;
        Ok(fs::write(&bundle, trusted + &pem)?)
    }

    fn request(&self, subject: &str, into: &Certificate) -> Cmd {
        Cmd::new(["openssl", "req", "-x509", "-config", self.dir.join("openssl.cnf").as_str()])
            .args(["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", DAYS])
            .args(["-subj", subject, "-out", into.crt.as_str(), "-keyout", into.key.as_str()])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_it_issues_verifies_for_its_name_alone() {
        let temp = tempfile::tempdir().unwrap();
        let dir = Utf8Path::from_path(temp.path()).unwrap().to_owned();
        let authority = Authority::create(dir).unwrap();
        let leaf = authority.issue("a.example").unwrap();
        let verify = |name| {
            Cmd::new(["openssl", "verify", "-x509_strict", "-purpose", "sslserver", "-verify_hostname", name])
                .args(["-CAfile", authority.root.crt.as_str(), leaf.crt.as_str()])
                .output()
                .unwrap()
        };
        assert_eq!(verify("a.example").code, 0, "{:?}", verify("a.example"));
        assert_ne!(verify("b.example").code, 0);
    }
}
