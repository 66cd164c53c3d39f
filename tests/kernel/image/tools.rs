//! Round trips with the tools that others use: what they make is imported and compared with how
//! they unpack it; what is exported here they must read, and show the same.

use super::archives::Fallible;
use super::tree::{describe, differences};
use crate::common::{sh, with_programs};
use crate::harness::{Need, Outcome, TempDir, Test};
use belljar::image::{Commit, Compression, Devices, Durability, Import, Store};
use belljar::{RootFs, Sandbox, Upper};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

const TOOLS: &[Need] = &[
    Need::Root,
    Need::Kernel(6, 13), // one lane is enough: the tools are slow in a virtual machine
    Need::Program("umoci"),
    Need::Program("skopeo"),
    Need::Program("podman"),
    Need::Program("buildah"),
    Need::Program("setfattr"),
];

pub fn tests() -> Vec<Test> {
    vec![
        Test::new("image::tools::umoci_skopeo_podman_buildah", TOOLS, round_trips),
        Test::new("image::tools::many_and_large", TOOLS, many_and_large),
        Test::new("image::tools::gnu_tar_formats", &[Need::Root, Need::Program("setfattr")], gnu_tar_formats),
        Test::new("image::tools::bsdtar_formats", &[Need::Root, Need::Program("bsdtar")], bsdtar_formats),
    ]
}

fn shell(dir: &Path, script: &str) -> Fallible<String> {
    let output = Command::new("/bin/sh").args(["-ec", script]).current_dir(dir).env("TMPDIR", dir).output()?;
    if !output.status.success() {
        return Err(format!("{script}: {}", String::from_utf8_lossy(&output.stderr)).into());
    }
    Ok(String::from_utf8(output.stdout)?.trim_end().to_owned())
}

/// The layers of an image, as the kernel shows them.
struct Mounted(PathBuf);

impl Mounted {
    fn new(store: &Store, name: &str, at: PathBuf) -> Fallible<Mounted> {
        fs::create_dir_all(&at)?;
        let image = store.image(name)?;
        let patch = format!("patches/{}", image.id().hex());
        let patch = Some(patch).filter(|patch| store.root().join(patch).exists());
        let layers = image.layers().iter().rev().map(|layer| format!("layers/{}/tree", layer.hex()));
        let layers = patch.into_iter().chain(layers);
        let mut lower = layers.collect::<Vec<_>>().join(":");
        if image.layers().len() == 1 {
            fs::create_dir_all(store.root().join("empty"))?;
            lower += ":empty";
        }
        let script = format!("mount -t overlay -o ro,lowerdir={lower} none {}", at.display());
        shell(store.root(), &script)?;
        Ok(Mounted(at))
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _reported = Command::new("umount").arg(&self.0).status(); // by the leak check
    }
}

type Tree = BTreeMap<PathBuf, String>;

/// Without what a tool keeps its own way.
fn plain(mut tree: Tree) -> Tree {
    for line in tree.values_mut() {
        let words =
            line.split(' ').filter(|word| !word.contains(".overlay.") && !word.starts_with("user.rootlesscontainers"));
        *line = words.collect::<Vec<_>>().join(" ");
    }
    tree
}

fn assert_same(what: &str, theirs: &Path, ours: &Path) -> Outcome {
    let (mut theirs, mut ours) = (plain(describe(theirs)?), plain(describe(ours)?));
    let copied = what.starts_with("podman") || what.starts_with("buildah");
    for (path, line) in theirs.iter_mut().chain(ours.iter_mut()).filter(|(_, line)| line.starts_with('4')) {
        // their copying storage driver touches directories; the root's own time is the unpacking's with umoci, as
        // its archives do not tell it
        if copied || path.as_os_str().is_empty() {
            let words: Vec<&str> = line.split(' ').collect();
            *line = [&words[..2], &words[3..]].concat().join(" ");
        }
    }
    let differ = differences(&theirs, &ours);
    if !differ.is_empty() {
        return Err(format!("{what}: theirs | ours: {:#?}", &differ[..differ.len().min(20)]).into());
    }
    Ok(())
}

/// Three layers with everything in them that a layer can say.
const BUILD: &str = r#"
    umoci init --layout l && umoci new --image l:v1
    next() { umoci unpack --image l:v1 b$1 >/dev/null; r=b$1/rootfs; }
    next 1; for i in usr bin lib lib64 sbin proc dev tmp; do mkdir $r/$i; done
    mkdir -p $r/etc $r/d/sub $r/o/deep $r/many; echo 1 > $r/etc/a; echo 1 > $r/d/f; ln $r/d/f $r/d/sub/hard
    ln -s ../x $r/d/sym; chmod 4755 $r/etc/a; chown 33:44 $r/d/f; mkfifo $r/d/p; mknod $r/d/null c 1 3
    i=0; while [ $i -lt 500 ]; do echo $i > $r/many/$i; i=$((i+1)); done
    echo x > $r/o/old; echo y > $r/o/deep/old2; setfattr -n user.note -v hello $r/etc/a; chmod 1777 $r/tmp
    cp /bin/true $r/capable; setfattr -n security.capability -v 0x0100000200040000000000000000000000000000 $r/capable
    umoci repack --image l:v1 b1 >/dev/null
    next 2; rm $r/many/1?; rm -r $r/o; mkdir $r/o; echo new > $r/o/new; rm $r/d/sym; touch -d @1.123456789 $r/etc/a
    umoci repack --image l:v1 b2 >/dev/null
    next 3; mkdir $r/e; ln $r/d/f $r/e/third; echo z > $r/e/$(printf 'n%.0s' $(seq 200)); rm -r $r/many
    printf 'a%.0s' $(seq 100000) > $r/e/larger; ln -s $(printf 't%.0s' $(seq 150)) $r/e/longlink
    umoci repack --image l:v1 b3 >/dev/null
    umoci config --image l:v1 --config.env A=1 --config.cmd /bin/true --config.workingdir /etc"#;

fn round_trips() -> Outcome {
    let dir = TempDir::new()?;
    let at = dir.path();
    let store = Store::open(at.join("store"))?;
    let import = |import: Import<'_>, name: &str| {
        store.import(import.devices(Devices::Create).durability(Durability::Process), name)
    };
    shell(at, BUILD)?;
    shell(at, "umoci unpack --image l:v1 whole >/dev/null")?;
    let whole = at.join("whole/rootfs");

    // what they make
    let image = import(Import::oci_layout(at.join("l")).reference("v1"), "app:1")?;
    assert_eq!(image.layers().len(), 3);
    let mounted = Mounted::new(&store, "app:1", at.join("m1"))?;
    assert_same("umoci unpack", &whole, &mounted.0)?;
    for (target, source) in [
        ("docker-archive:docker.tar:app:1", "docker.tar"),
        ("oci-archive:oci.tar:v1", "oci.tar"),
        ("--dest-compress-format zstd --dest-oci-accept-uncompressed-layers=false oci:zstd:v1", "zstd"),
    ] {
        shell(
            at,
            &format!(
                "skopeo copy -q oci:l:v1 {target} 2>/dev/null || skopeo copy -q --dest-compress-format zstd oci:l:v1 {target}"
            ),
        )?;
        let again = import(Import::detect(at.join(source)), "again")?;
        assert_eq!((again.id(), again.layers()), (image.id(), image.layers()), "{source}");
    }
    drop(mounted);
    assert!(store.verify()?.is_empty(), "{:?}", store.verify()?);

    // what we make of it: a commit, which they must unpack as the kernel shows it
    let upper = at.join("upper");
    let root = RootFs::image(&store, "app:1")?.upper(Upper::Persist(upper.clone()));
    let sandbox = with_programs(Sandbox::builder(root)).build()?;
    let script = "rm -r /o; mkdir /o; echo fresh > /o/x; rm /d/p; ln /d/f /e/fourth; chmod 700 /e; echo more >> /etc/a";
    assert!(sandbox.status(&sh(script))?.success());
    drop(sandbox);
    store.commit(Commit::upper(&upper).parent("app:1").durability(Durability::Process), "app:2")?;
    store.squash("app:2", "flat:2")?;
    for name in ["app:2", "flat:2"] {
        let mounted = Mounted::new(&store, name, at.join("m2"))?;
        let ours = &mounted.0;
        assert!(!ours.join("o/new").exists() && ours.join("o/x").exists() && !ours.join("d/p").exists());
        store.export_oci(name, at.join("out"), Compression::Gzip)?;
        shell(at, "rm -rf theirs; umoci unpack --image out:2 theirs >/dev/null")?;
        assert_same(&format!("umoci unpack of {name}"), &at.join("theirs/rootfs"), ours)?;
        let podman = format!("--root {0}/pr --runroot {0}/prr --storage-driver vfs", at.display());
        store.export_docker(name, File::create(at.join("out.tar"))?)?;
        shell(at, &format!("podman {podman} load -q -i out.tar"))?;
        let shown = shell(at, &format!("podman {podman} image mount {name}"))?;
        assert_same(&format!("podman load of {name}"), Path::new(&shown), ours)?;
        shell(
            at,
            &format!(
                "rm -f saved.tar; podman {podman} save -q -o saved.tar {name}; podman {podman} image umount {name}"
            ),
        )?;
        let saved = import(Import::docker_archive(at.join("saved.tar")), "saved")?;
        assert_eq!(saved.id(), store.image(name)?.id(), "podman save");
        let buildah = format!("buildah --root {0}/br --runroot {0}/brr --storage-driver vfs", at.display());
        store.export_oci_archive(name, File::create(at.join("oci2.tar"))?, Compression::None)?;
        let container = shell(at, &format!("{buildah} from oci-archive:oci2.tar:2"))?;
        let shown = shell(at, &format!("{buildah} mount {container}"))?;
        assert_same(&format!("buildah from {name}"), Path::new(&shown), ours)?;
        shell(at, &format!("{buildah} umount {container}; {buildah} rm {container}"))?;
        drop(mounted);
    }
    // whatever they keep mounted would be a leak
    shell(at, "for m in $(awk '{print $5}' /proc/self/mountinfo | grep \"^$PWD/\" | sort -r); do umount $m; done")?;
    Ok(())
}

/// What a round trip takes that is too much for most: 10,000 files in any run; with `BELLJAR_TEST_LONG` also a file of 1 GiB,
/// in blocks that differ. Nothing is removed on the way: ext4 looks at each inode removed of late for every one that is made.
const MANY: &str = r#"
    umoci init --layout l && umoci new --image l:v1
    next() { umoci unpack --image l:v1 b$1 >/dev/null; r=b$1/rootfs; }
    next 1; mkdir $r/small $r/gone $r/replaced; for i in $(seq 0 99); do mkdir $r/small/$i
      for j in $(seq 0 99); do echo $i $j > $r/small/$i/$j; done; done
    ln $r/small/0/0 $r/small/99/elsewhere; ln $r/small/0/0 $r/linked; echo old > $r/replaced/old
    touch -d @1500000000.123456789 $r/small/1/1; chown 7:8 $r/small/2/2; chmod 4711 $r/small/3/3
    setfattr -n user.note -v 'a b' $r/small/4/4; cp /bin/true $r/capable
    setfattr -n security.capability -v 0x0100000200040000000000000000000000000000 $r/capable
    umoci repack --image l:v1 b1 >/dev/null
    next 2; rm -r $r/gone $r/small/5? $r/replaced; mkdir $r/replaced; echo new > $r/replaced/new
    if [ -n "$LARGE" ]; then cp large $r/large; fi
    umoci repack --image l:v1 b2 >/dev/null
    next 3; ln $r/small/0/0 $r/small/0/again; rm $r/small/6/?; : > $r/small/6/7; chmod 700 $r/small/7
    umoci repack --image l:v1 b3 >/dev/null; umoci unpack --image l:v1 whole >/dev/null"#;

fn many_and_large() -> Outcome {
    let dir = TempDir::new()?;
    let at = dir.path();
    let long = std::env::var_os("BELLJAR_TEST_LONG").is_some();
    if long {
        let mut file = std::io::BufWriter::new(File::create(at.join("large"))?);
        let mut block = vec![0u8; 1 << 20];
        let mut state = 1u64;
        for number in 0..1024u64 {
            // a quarter of each block is anew, so that it is no repetition, and packs like programs do
            for byte in &mut block[..1 << 18] {
                state = state.wrapping_mul(6364136223846793005).wrapping_add(number | 1);
                *byte = (state >> 56) as u8;
            }
            std::io::Write::write_all(&mut file, &block)?;
        }
    }
    let made = format!("{}{MANY}", if long { "LARGE=1\n" } else { "LARGE=\n" });
    let started = std::time::Instant::now();
    shell(at, &made)?;
    let built = started.elapsed();
    let (whole, store) = (at.join("whole/rootfs"), Store::open(at.join("store"))?);
    let started = std::time::Instant::now();
    let import = Import::oci_layout(at.join("l")).reference("v1").devices(Devices::Create);
    store.import(import, "app:1")?;
    let imported = started.elapsed();
    let mounted = Mounted::new(&store, "app:1", at.join("m1"))?;
    assert_same("umoci unpack", &whole, &mounted.0)?;
    drop(mounted);
    // and on: committed, exported, and unpacked by them
    let upper = at.join("upper");
    let root = RootFs::image(&store, "app:1")?.upper(Upper::Persist(upper.clone()));
    let sandbox = with_programs(Sandbox::builder(root)).build()?;
    let script = "cd /small; rm -r 1?; for i in 20 21 22; do for j in $(seq 0 99); do echo more >> $i/$j; done; done; \
                  ln 0/0 30/new; mv 40 /moved; [ ! -e /large ] || printf end >> /large";
    assert!(sandbox.status(&sh(script))?.success());
    drop(sandbox);
    store.commit(Commit::upper(&upper).parent("app:1"), "app:2")?;
    let started = std::time::Instant::now();
    store.export_oci("app:2", at.join("out"), Compression::Gzip)?;
    let exported = started.elapsed();
    shell(at, "umoci unpack --image out:2 theirs >/dev/null")?;
    let mounted = Mounted::new(&store, "app:2", at.join("m2"))?;
    assert_same("umoci unpack of app:2", &at.join("theirs/rootfs"), &mounted.0)?;
    drop(mounted);
    if long {
        assert!(store.verify()?.is_empty());
        println!("built in {built:.1?}, imported in {imported:.1?}, exported in {exported:.1?}");
    }
    Ok(())
}

/// A tree of what archives can say, made with plain tools.
const TREE: &str = r#"
    mkdir -p t/d/sub t/empty; cd t; echo a > a; ln a d/hard; ln -s ../../anywhere d/sym; ln d/sym d/sym2 ; mkfifo p; mknod null c 1 3
    chmod 2755 d; chmod 1777 empty; chown 1000:2000 a; chown -h 5:6 d/sym; touch -d @1.5 a; touch -d @0 empty
    truncate -s 3M sparse; printf middle | dd of=sparse bs=1 seek=1500000 conv=notrunc 2>/dev/null; truncate -s 2M hole
    i=0; while [ $i -lt 60 ]; do printf x | dd of=many bs=1 seek=$((i*20000)) conv=notrunc 2>/dev/null; i=$((i+1)); done
    n=$(printf 'n%.0s' $(seq 90)); mkdir -p $n/$n/$n; echo deep > $n/$n/$n/f; ln $n/$n/$n/f $n/link
    ln -s $(printf 't%.0s' $(seq 200)) longlink; printf 'b%.0s' $(seq 513) > "odd name
with newline""#;

fn compare(at: &Path, archive: &str, original: &Path) -> Outcome {
    // bsdtar does not give the root its time
    shell(at, &format!("touch -d @7 {}", original.display()))?;
    let store = Store::open(at.join("store"))?;
    let import = Import::rootfs(at.join(archive)).devices(Devices::Create).durability(Durability::Process);
    let image = store.import(import, "t").map_err(|e| format!("{archive}: {e}"))?;
    assert!(store.verify()?.is_empty(), "{archive}: {:?}", store.verify()?);
    let tree = super::import::tree_of(&store, &image, 0);
    shell(at, &format!("touch -d @7 {}", tree.display()))?;
    assert_same(archive, original, &tree)?;
    // and as it came
    store.export_docker("t", std::io::sink())?;
    store.remove("t")?;
    store.gc()?;
    Ok(())
}

fn gnu_tar_formats() -> Outcome {
    let dir = TempDir::new()?;
    let at = dir.path();
    shell(at, TREE)?;
    shell(at, "setfattr -n user.x -v y t/a; setfattr -n user.dir -v z t/d")?;
    let formats = [
        "--format=gnu",
        "--format=gnu -S",
        "--format=pax",
        "--format=pax -S --sparse-version=0.0",
        "--format=pax -S --sparse-version=0.1",
        "--format=pax -S --sparse-version=1.0",
        "--format=pax --xattrs",
        "--format=pax -z",
        "--format=pax --zstd",
    ];
    for format in formats {
        let script = format!(
            "rm -rf x; tar -C t -cf f.tar {format} . && mkdir x && tar --xattrs -C x -xpf f.tar --numeric-owner"
        );
        shell(at, &script)?;
        compare(at, "f.tar", &at.join("x")).map_err(|e| format!("{format}: {e}"))?;
    }
    // the paths do not fit into ustar's fields
    shell(
        at,
        "rm -rf x t/nnn* t/longlink; tar -C t -cf f.tar --format=ustar . && mkdir x && tar -C x -xpf f.tar --numeric-owner",
    )?;
    compare(at, "f.tar", &at.join("x"))?;
    shell(
        at,
        "rm -rf x t/d/sym2; tar -C t -cf f.tar --format=v7 --exclude=p --exclude=null . && mkdir x && tar -C x -xpf f.tar --numeric-owner",
    )?;
    compare(at, "f.tar", &at.join("x"))
}

fn bsdtar_formats() -> Outcome {
    let dir = TempDir::new()?;
    let at = dir.path();
    shell(at, TREE)?;
    for format in ["pax", "gnutar"] {
        shell(
            at,
            &format!(
                "rm -rf x; bsdtar -C t -cf f.tar --format={format} . && mkdir x && bsdtar -C x -xpf f.tar --numeric-owner"
            ),
        )?;
        compare(at, "f.tar", &at.join("x")).map_err(|e| format!("{format}: {e}"))?;
    }
    Ok(())
}
