//! A control group per node, in every hierarchy the machine has.
//!
//! A node's systemd takes its own group for the root of all: two nodes in one group would see each other's units.

use anyhow::{Context as _, Result, ensure};
use camino::{Utf8Path, Utf8PathBuf};
use fs_err as fs;
use rustix::fs::{Access, access};

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
    ensure!(limited, "this machine does not control the memory of `{node}`");
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

/// Whether machines can have control groups of their own: systemd needs one in the hierarchy that it keeps its units in.
pub(super) fn availability() -> Result<()> {
    let ours = hierarchies()?;
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    let systemd = parse_hierarchies(&mounts).into_iter().find(|hierarchy| hierarchy.keeps_units);
    let systemd =
        systemd.context("no control group hierarchy is mounted in which systemd keeps its units")?;
    ensure!(
        ours.iter().any(|base| base.starts_with(&systemd.mount)),
        "no control group in `{}` is delegated to this user; where systemd runs: `systemd-run --user --scope \
         --property=Delegate=yes cargo xtask …`",
        systemd.mount
    );
    Ok(())
}

/// A mounted hierarchy.
#[derive(Debug, PartialEq, Eq)]
struct Hierarchy {
    mount: Utf8PathBuf,
    /// Group that is shown at its mount point.
    root: Utf8PathBuf,
    /// Options of its file system, which include its controllers or its name; nothing for the unified one.
    options: Vec<String>,
    keeps_units: bool,
}

impl Hierarchy {
    /// Directory of our own group, from the lines of `/proc/self/cgroup`.
    fn own(&self, groups: &str) -> Option<Utf8PathBuf> {
        groups.lines().find_map(|line| {
            let (names, group) = line.split_once(':')?.1.split_once(':')?;
            let same = if names.is_empty() {
                self.options.is_empty()
            } else {
                names.split(',').all(|name| self.options.iter().any(|option| option == name))
            };
            // A group above what is mounted has no directory.
            same.then(|| self.mount.join(Utf8Path::new(group).strip_prefix(&self.root).unwrap_or("".into())))
        })
    }
}

/// In each hierarchy, the topmost group that we are in and may make groups in: for root that is its mount point.
fn hierarchies() -> Result<Vec<Utf8PathBuf>> {
    let groups = fs::read_to_string("/proc/self/cgroup")?;
    let mounted = parse_hierarchies(&fs::read_to_string("/proc/self/mountinfo")?);
    let base = |hierarchy: &Hierarchy| {
        let own = hierarchy.own(&groups)?;
        let above = own.ancestors().take_while(|group| group.starts_with(&hierarchy.mount));
        let writable = |group: &&Utf8Path| access(group.as_std_path(), Access::WRITE_OK).is_ok();
        above.filter(writable).last().map(Utf8Path::to_owned)
    };
    Ok(mounted.iter().filter_map(base).collect())
}

/// Mounted hierarchies; without `cpuset`, whose old kind takes no process before it is set up.
fn parse_hierarchies(mountinfo: &str) -> Vec<Hierarchy> {
    let parse = |line: &str| {
        let (mount, kind) = line.split_once(" - ")?;
        let mut place = mount.split(' ').skip(3);
        let (root, mount) = (place.next()?, place.next()?);
        let mut kind = kind.split(' ');
        let (version, options) = (kind.next()?, kind.next_back()?);
        let options: Vec<String> = match version {
            "cgroup" => options.split(',').map(str::to_owned).collect(),
            "cgroup2" => Vec::new(),
            _ => return None,
        };
        let has = |name: &str| options.iter().any(|option| option == name);
        // Beside the old kind the unified one is not systemd's.
        let keeps_units = has("name=systemd") || (options.is_empty() && mount == "/sys/fs/cgroup");
        let cpuset = has("cpuset");
        let hierarchy = Hierarchy { mount: mount.into(), root: root.into(), options, keeps_units };
        (!cpuset).then_some(hierarchy)
    };
    mountinfo.lines().filter_map(parse).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &str = "\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
34 31 0:31 / /sys/fs/cgroup/cpuset rw,relatime - cgroup cgroup rw,cpuset
39 31 0:36 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime shared:9 - cgroup cgroup rw,xattr,name=systemd
41 31 0:38 /box /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
";

    #[test]
    fn both_kinds_of_hierarchy_are_found() {
        let found = parse_hierarchies(MOUNTS);
        let told: Vec<_> = found.iter().map(|it| (it.mount.as_str(), it.keeps_units)).collect();
        let (cpu, systemd, unified) =
            ("/sys/fs/cgroup/cpu,cpuacct", "/sys/fs/cgroup/systemd", "/sys/fs/cgroup/unified");
        assert_eq!(told, [(cpu, false), (systemd, true), (unified, false)]);
        let alone = parse_hierarchies("26 23 0:23 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw,nsdelegate\n");
        assert!(alone[0].keeps_units);
    }

    #[test]
    fn own_group_is_found_below_the_mount_point() {
        let groups = "9:name=systemd:/user/x\n3:cpuset:/\n2:cpuacct,cpu:/y\n0::/box/z\n";
        let own: Vec<_> = parse_hierarchies(MOUNTS).iter().map(|it| it.own(groups).unwrap()).collect();
        let expected =
            ["/sys/fs/cgroup/cpu,cpuacct/y", "/sys/fs/cgroup/systemd/user/x", "/sys/fs/cgroup/unified/z"];
        assert_eq!(own, expected);
        let outside = parse_hierarchies(MOUNTS).last().unwrap().own("0::/../other\n").unwrap();
        assert_eq!(outside, "/sys/fs/cgroup/unified/");
    }
}
