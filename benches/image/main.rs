//! How fast an image is unpacked, beside other tools: `cargo bench --features image --bench image -- DIR`.
//!
//! DIR holds an OCI layout `layout` of one image, tagged `v1`, with gzip layers; where it is
//! missing it is made, by debootstrap(8) and umoci(1): Debian, and a layer of 10,000 small files. Each round runs every
//! program once, in turn, into a directory of its own; what is printed is the median, and the peak of
//! resident memory over all rounds (of the program's largest process, getrusage(2) `ru_maxrss`).
//!
//! Nothing is removed before the end: ext4 does not give inodes out again for minutes, and looks at each of them for
//! every file that is made (`recently_deleted`, fs/ext4/ialloc.c), which would be all that is measured. For the same
//! reason a second run wants another DIR, or five minutes.

use belljar::image::{Devices, Durability, Import, Store};
use std::error::Error;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

type Fallible<T> = Result<T, Box<dyn Error>>;

fn main() -> Fallible<()> {
    let mut args = std::env::args().skip(1).filter(|arg| arg != "--bench");
    let at = PathBuf::from(args.next().unwrap_or_else(|| "/var/tmp/belljar-bench".into()));
    if let (Some(durability), Some(out)) = (args.next(), args.next()) {
        return import(&at, &durability, &out);
    }
    std::fs::create_dir_all(&at)?;
    if !at.join("layout/index.json").exists() {
        shell(&at, MAKE)?;
    }
    let layers = shell(&at, LAYERS)?;
    let own = std::env::current_exe()?;
    let own = |mode: &str| format!("{} {} {mode} OUT", own.display(), at.display());
    let sequence = |command: &str| {
        let commands = layers.lines().map(|blob| command.replace("BLOB", blob));
        commands.collect::<Vec<_>>().join("; ")
    };
    let rows = [
        ("belljar", own("process")),
        ("belljar, on the disk before it counts (syncfs)", own("disk")),
        ("belljar, one processor", format!("taskset -c 0 {}", own("process"))),
        ("tar -xzf, layer after layer", format!("mkdir OUT; {}", sequence("tar -C OUT --numeric-owner -xpzf BLOB"))),
        (
            "tar -xzf, one processor",
            format!("mkdir OUT; taskset -c 0 sh -c '{}'", sequence("tar -C OUT --numeric-owner -xpzf BLOB")),
        ),
        (
            "bsdtar -xf, layer after layer",
            format!("mkdir OUT; {}", sequence("bsdtar -C OUT --numeric-owner -xpf BLOB")),
        ),
        ("umoci unpack", "umoci unpack --image layout:v1 OUT >/dev/null".into()),
        (
            "skopeo copy to podman's storage (overlay)",
            "skopeo copy -q oci:layout:v1 'containers-storage:[overlay@'$PWD'/OUT/s+'$PWD'/OUT/r]localhost/x:v1'"
                .into(),
        ),
    ];
    let rounds = std::env::var("BELLJAR_BENCH_ROUNDS").ok().and_then(|n| n.parse().ok()).unwrap_or(5);
    let mut times: Vec<Vec<Duration>> = vec![Vec::new(); rows.len()];
    let mut memory = vec![0; rows.len()];
    shell(&at, CLEAR)?;
    for round in 0..rounds {
        for (i, (name, command)) in rows.iter().enumerate() {
            shell(&at, "mkdir -p runs; sync; cat layout/blobs/*/* >/dev/null")?;
            let command = command.replace("OUT", &format!("runs/{round}.{i}"));
            let (time, peak) = measure(&at, &command).map_err(|e| format!("{name}: {e}"))?;
            times[i].push(time);
            memory[i] = memory[i].max(peak);
        }
    }
    shell(&at, CLEAR)?;
    println!("| | seconds | peak memory |\n| --- | ---: | ---: |");
    for ((name, _), (mut times, peak)) in rows.iter().zip(times.into_iter().zip(memory)) {
        times.sort();
        println!("| {name} | {:.2} | {} MiB |", times[times.len() / 2].as_secs_f64(), peak >> 10);
    }
    Ok(())
}

const MAKE: &str = r"
    [ -d root/etc ] || debootstrap --variant=minbase bookworm root >/dev/null
    umoci init --layout layout && umoci new --image layout:v1
    umoci unpack --image layout:v1 bundle >/dev/null; cp -a root/. bundle/rootfs/
    umoci repack --image layout:v1 bundle >/dev/null; rm -rf bundle
    umoci unpack --image layout:v1 bundle >/dev/null; mkdir bundle/rootfs/small
    i=0; while [ $i -lt 10000 ]; do echo file $i > bundle/rootfs/small/$i; i=$((i+1)); done
    umoci repack --image layout:v1 bundle >/dev/null; rm -rf bundle";

const CLEAR: &str = "for m in runs/*/s/overlay; do umount $m 2>/dev/null || true; done; rm -rf runs";

/// The layers' blobs, lowest first.
const LAYERS: &str = r#"
    blob() { printf 'layout/blobs/%s\n' "$(echo "$1" | tr : /)"; }
    manifest=$(blob "$(grep -o '"digest":"[^"]*"' layout/index.json | head -n 1 | cut -d '"' -f 4)")
    tr -d ' \n' <"$manifest" | sed 's/.*"layers"//' | grep -o '"digest":"[^"]*"' | cut -d '"' -f 4 |
      while read -r digest; do blob "$digest"; done"#;

/// This program again, as the one that is measured.
fn import(at: &Path, durability: &str, out: &str) -> Fallible<()> {
    let durability = if durability == "disk" { Durability::Disk } else { Durability::Process };
    let store = Store::open(at.join(out))?;
    let import = Import::oci_layout(at.join("layout")).reference("v1").devices(Devices::Create).durability(durability);
    store.import(import, "x:v1")?;
    Ok(())
}

fn shell(at: &Path, script: &str) -> Fallible<String> {
    let output = Command::new("/bin/sh").args(["-ec", script]).current_dir(at).output()?;
    if !output.status.success() {
        return Err(format!("{script}: {}", String::from_utf8_lossy(&output.stderr)).into());
    }
    Ok(String::from_utf8(output.stdout)?.trim_end().to_owned())
}

/// Wall time, and the peak of resident memory in KiB.
fn measure(at: &Path, command: &str) -> Fallible<(Duration, u64)> {
    let script = format!("command time -f 'maxrss %M' sh -ec '{}'", command.replace('\'', r"'\''"));
    let started = Instant::now();
    let output = Command::new("/bin/sh").args(["-ec", &script]).current_dir(at).output()?;
    let time = started.elapsed();
    let said = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        return Err(format!("{command}: {:?}: {said}", output.status.signal()).into());
    }
    let peak = said.lines().rev().find_map(|line| line.strip_prefix("maxrss ")).ok_or("time(1) says nothing")?;
    Ok((time, peak.trim().parse()?))
}
