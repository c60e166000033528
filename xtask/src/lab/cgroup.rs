//! A control group per node, in every hierarchy the machine has.
//!
//! A node's systemd takes its own group for the root of all: two nodes in one group would see each other's units.

use anyhow::Result;
use camino::{Utf8Path, Utf8PathBuf};
use fs_err as fs;

use crate::cmd::Cmd;

/// Makes the groups of one node and returns them.
pub(super) fn create(key: &str, node: &str) -> Result<Vec<Utf8PathBuf>> {
    let mut groups = Vec::new();
    for hierarchy in hierarchies()? {
        let lab = hierarchy.join(group_name(key));
        let group = lab.join(node);
        fs::create_dir_all(&group)?;
        // A unified hierarchy hands controllers down only on request. The old kind has no such file.
        let _ = fs::write(lab.join("cgroup.subtree_control"), "+cpu +memory +pids");
        groups.push(group);
    }
    Ok(groups)
}

/// Limits the memory of a node to this many bytes, or lifts the limit.
pub(super) fn limit_memory(key: &str, node: &str, limit: Option<u64>) -> Result<()> {
    let mut limited = false;
    for hierarchy in hierarchies()? {
        let group = hierarchy.join(group_name(key)).join(node);
        for (file, without) in [("memory.max", "max"), ("memory.limit_in_bytes", "-1")] {
            let file = group.join(file);
            if file.exists() {
                fs::write(file, limit.map_or_else(|| without.to_owned(), |limit| limit.to_string()))?;
                limited = true;
            }
        }
    }
    anyhow::ensure!(limited, "this machine does not control the memory of `{node}`");
    Ok(())
}

/// Is no process in these groups, nor in any below them?
pub(super) fn are_empty(groups: &[Utf8PathBuf]) -> Result<bool> {
    let groups = groups.iter().map(|group| group.as_str());
    let all = Cmd::new(["find"]).args(groups).args(["-name", "cgroup.procs", "-exec", "cat", "{}", "+"]);
    // Groups below go away meanwhile, which find has to say.
    Ok(all.output()?.stdout.is_empty())
}

/// Removes the groups of the lab, whose processes have ended.
pub(super) fn remove(key: &str) -> Result<()> {
    for hierarchy in hierarchies()? {
        let lab = hierarchy.join(group_name(key));
        if lab.exists() {
            // Only rmdir works there, from the leaves up; the last processes may still be on their way out.
            let removed =
                || Cmd::new(["find", lab.as_str(), "-depth", "-type", "d", "-exec", "rmdir", "{}", "+"]);
            super::wait_until("control groups empty", std::time::Duration::from_secs(10), || {
                Ok(removed().output()?.success())
            })?;
        }
    }
    Ok(())
}

fn group_name(key: &str) -> String {
    format!("ua-lab-{key}")
}

fn hierarchies() -> Result<Vec<Utf8PathBuf>> {
    Ok(parse_hierarchies(&fs::read_to_string("/proc/self/mountinfo")?))
}

/// Mount points of control group hierarchies; without `cpuset`, whose old kind takes no process before it is set up.
fn parse_hierarchies(mountinfo: &str) -> Vec<Utf8PathBuf> {
    let parse = |line: &str| {
        let (mount, kind) = line.split_once(" - ")?;
        let mut kind = kind.split(' ');
        let of_interest = kind.next()?.starts_with("cgroup") && !kind.next_back()?.contains("cpuset");
        of_interest.then(|| Utf8Path::new(mount.split(' ').nth(4).unwrap_or_default()).to_owned())
    };
    mountinfo.lines().filter_map(parse).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_kinds_of_hierarchy_are_found() {
        let mounts = "\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
34 31 0:31 / /sys/fs/cgroup/cpuset rw,relatime - cgroup cgroup rw,cpuset
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime shared:9 - cgroup cgroup rw,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
";
        assert_eq!(parse_hierarchies(mounts), ["/sys/fs/cgroup/systemd", "/sys/fs/cgroup/unified"]);
    }
}
