//! Controllers that most hosts have not mounted, or have nothing to give of.

use super::{file, limited, limits, ready};
use crate::common::*;
use crate::harness::TempDir;
use belljar::{Bytes, CgroupLimits, ClassId, ErrorKind, Limit, RdmaMax};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

/// Huge pages are limited and counted; which controller they are of depends on the host.
pub fn huge_pages() -> Fallible<()> {
    let page = Bytes::mib(2);
    let (child, _lines) = ready(limited(limits().hugetlb_max(page, Bytes::mib(6))), "echo ready; exec sleep 60")?;
    let max = file(&child, "hugetlb.2MB.max").or_else(|_| file(&child, "hugetlb.2MB.limit_in_bytes"))?;
    assert_eq!(max, (6 << 20).to_string());
    let counted = child.stats()?.hugetlb;
    assert_eq!(
        counted.iter().map(|pages| (pages.page, pages.current)).collect::<Vec<_>>(),
        [(page, Some(Bytes::new(0)))]
    );
    Ok(())
}

/// What no page of the machine is, is refused before anything is made.
pub fn pages_and_devices_that_are_not_there() -> Fallible<()> {
    let pages = limited(limits().hugetlb_max(Bytes::mib(3), Limit::Max)).build().and_then(|s| s.status(&sh("true")));
    let error = pages.err().ok_or("3 MiB pages")?;
    assert!(matches!(error.kind(), ErrorKind::InvalidSpec | ErrorKind::NotSupported), "{error}");
    let adapter = RdmaMax { handles: Limit::At(1), objects: Limit::Max };
    let rdma = limited(limits().rdma_max("belljar0", adapter)).build().and_then(|s| s.status(&sh("true")));
    let error = rdma.err().ok_or("an adapter belljar0")?;
    assert!(error.to_string().contains("rdma"), "{error}");
    Ok(())
}

/// Mounts v1 hierarchies in a mount namespace of their own, and then runs a program there.
const MOUNT: &str = "for c in net_cls net_prio perf_event; do
    mkdir $DIR/$c; mount -t cgroup -o $c cgroup $DIR/$c
done";

/// What `Need::SpareV1` asks for.
pub fn attempt() -> Result<(), String> {
    let dir = TempDir::new().map_err(|e| e.to_string())?;
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-ec", MOUNT]).env("DIR", dir.path());
    let output = command.output().map_err(|e| e.to_string())?;
    let said = String::from_utf8_lossy(&output.stderr);
    if output.status.success() { gone() } else { Err(said.lines().next().unwrap_or("it failed silently").to_owned()) }
}

/// The controllers that v2 has no files of, on a host that has them for v1.
pub fn of_v1_only() -> Fallible<()> {
    let dir = TempDir::new()?;
    let script = format!("{MOUNT}; exec \"$SELF\"");
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-ec", &script]);
    command.env("DIR", dir.path()).env("SELF", std::env::current_exe()?).env("BELLJAR_TEST_V1", "");
    let output = command.output()?;
    assert!(output.status.success(), "{output:?}");
    assert_eq!(String::from_utf8(output.stdout)?, "65552 lo 7 perf_event\n");
    gone().map_err(Into::into)
}

/// The kernel takes a hierarchy away some time after its last mount.
fn gone() -> Result<(), String> {
    let start = Instant::now();
    while std::fs::read_to_string("/proc/self/cgroup").is_ok_and(|text| MOUNTED.iter().any(|c| text.contains(c))) {
        if start.elapsed() > patience(Duration::from_secs(5)) {
            return Err("the hierarchies stay".into());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

const MOUNTED: [&str; 3] = [":net_cls:", ":net_prio:", ":perf_event:"];

/// What this program does with those mounts, run anew with `BELLJAR_TEST_V1`.
pub fn with_v1_mounted() -> ExitCode {
    match classified() {
        Ok(text) => {
            println!("{text}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn classified() -> Fallible<String> {
    let limits = CgroupLimits::new().net_cls(ClassId { major: 1, minor: 16 }).net_prio("lo", 7).perf_event();
    let (child, _lines) = ready(limited(limits), "echo ready; exec sleep 60")?;
    let priority = file(&child, "net_prio.ifpriomap")?;
    let priority = priority.lines().find(|line| line.starts_with("lo ")).unwrap_or_default();
    let groups = std::fs::read_to_string(format!("/proc/{}/cgroup", child.id()))?;
    let classid = file(&child, "net_cls.classid")?;
    drop(child);
    // A hierarchy goes with its last mount only if no group of it is still being freed; else it stays for ever.
    std::thread::sleep(patience(Duration::from_millis(500)));
    let perf = groups.lines().find(|line| line.contains(":perf_event:") && line.contains("/belljar-"));
    Ok(format!("{classid} {priority} {}", perf.map_or("", |_| "perf_event")))
}
