//! What a hostile archive tries: each attempt is refused with a typed error that names the
//! layer, the entry and the reason, and neither the store nor anything beside it is changed.
//!
//! The control is the same archive without the hostile entry, which is imported first.

use super::archives::{Fallible, Tar, gzip};
use super::tree::{describe, differences};
use crate::harness::{Outcome, TempDir, Test};
use belljar::image::{Devices, Durability, Import, Limits, Store};
use belljar::sys::tree;
use belljar::{Bytes, ErrorKind, FlawKind};
use std::fs;
use std::io::{Cursor, Read};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::time::Duration;
use tar::EntryType;

pub fn tests() -> Vec<Test> {
    vec![
        Test::new("image::attacks::paths_out_of_the_tree", &[], paths_out_of_the_tree),
        Test::new("image::attacks::links_out_of_the_tree", &[], links_out_of_the_tree),
        Test::new("image::attacks::whiteouts", &[], whiteouts),
        Test::new("image::attacks::devices", &[], devices),
        Test::new("image::attacks::duplicates", &[], duplicates),
        Test::new("image::attacks::attributes", &[], attributes),
        Test::new("image::attacks::default_acls", &[], default_acls),
        Test::new("image::attacks::headers_that_readers_disagree_on", &[], headers_that_readers_disagree_on),
        Test::new("image::attacks::sparse_maps", &[], sparse_maps),
        Test::new("image::attacks::bombs", &[], bombs),
        Test::new("image::attacks::damaged_streams", &[], damaged_streams),
    ]
}

/// A store beside something to be hit.
struct Target {
    dir: TempDir,
    store: Store,
}

impl Target {
    fn new() -> Fallible<Target> {
        let dir = TempDir::new()?;
        fs::create_dir(dir.path().join("outside"))?;
        fs::write(dir.path().join("outside/victim"), "as it was")?;
        let store = Store::open(dir.path().join("store"))?;
        let target = Target { dir, store };
        // the control: the harness of every attack is an archive that is taken
        target.store.import(import(Tar::new().directory("d").file("d/control", b"taken").end()), "control")?;
        Ok(target)
    }

    /// The archive must be refused for this reason, at this entry, with nothing changed.
    fn refuses(&self, archive: Vec<u8>, kind: FlawKind, entry: &str) -> Outcome {
        self.refuses_import(import(archive), kind, Some(entry))
    }

    fn refuses_import(&self, import: Import<'_>, kind: FlawKind, entry: Option<&str>) -> Outcome {
        let before = describe(self.dir.path())?;
        let shown = format!("{kind:?} at {entry:?}");
        let error = match self.store.import(import, "hostile") {
            Ok(_) => return Err(format!("{shown}: it was taken").into()),
            Err(error) => error,
        };
        let Some(flaw) = error.flaw() else { return Err(format!("{shown}: {error:?}").into()) };
        assert_eq!((error.kind(), flaw.kind()), (ErrorKind::InvalidImage, kind), "{error}");
        assert_eq!(flaw.layer(), "hostile.tar");
        assert_eq!(flaw.entry().map(|e| e.to_string_lossy().into_owned()).as_deref(), entry, "{error}");
        let changed = differences(&unlocked(before), &unlocked(describe(self.dir.path())?));
        assert!(changed.is_empty(), "{shown}: {changed:#?}");
        Ok(())
    }
}

/// Without the times of the store's own directories, in which work was made and removed.
fn unlocked(
    mut tree: std::collections::BTreeMap<std::path::PathBuf, String>,
) -> std::collections::BTreeMap<std::path::PathBuf, String> {
    tree.retain(|path, _| !path.ends_with("tmp"));
    tree
}

fn import(archive: Vec<u8>) -> Import<'static> {
    Import::rootfs_from("hostile.tar", Cursor::new(archive)).durability(Durability::Process)
}

fn paths_out_of_the_tree() -> Outcome {
    let target = Target::new()?;
    let victim = target.dir.path().join("outside/victim");
    let absolute = victim.to_str().ok_or("not UTF-8")?;
    for path in ["../outside/victim", "d/../../outside/victim", "..", "d/..", "a/../../../../../../../../tmp/belljar-x"]
    {
        target.refuses(Tar::new().directory("d").file(path, b"hit").end(), FlawKind::Path, path)?;
        target.refuses(Tar::new().directory("d").directory(path).end(), FlawKind::Path, path)?;
        target.refuses(Tar::new().pax(&[("path", path.as_bytes())]).file("d", b"hit").end(), FlawKind::Path, path)?;
    }
    target.refuses(
        Tar::new().pax(&[("path", absolute.as_bytes())]).file("x", b"hit").end(),
        FlawKind::Path,
        absolute,
    )?;
    target.refuses(Tar::new().file("/etc/belljar-hit", b"hit").end(), FlawKind::Path, "/etc/belljar-hit")?;
    target.refuses(Tar::new().pax(&[("path", b"a\0b")]).file("x", b"").end(), FlawKind::Path, "a\0b")?;
    let deep = "d/".repeat(300) + "x";
    target.refuses(Tar::new().pax(&[("path", deep.as_bytes())]).file("x", b"").end(), FlawKind::TooDeep, &deep)?;
    let long = "x".repeat(256);
    target.refuses(Tar::new().pax(&[("path", long.as_bytes())]).file("x", b"").end(), FlawKind::Path, &long)?;
    target.refuses(Tar::new().file(".", b"the root is no file").end(), FlawKind::Path, ".")?;
    assert_eq!(fs::read(victim)?, b"as it was");
    Ok(())
}

fn links_out_of_the_tree() -> Outcome {
    let target = Target::new()?;
    let outside = target.dir.path().join("outside");
    let outside = outside.to_str().ok_or("not UTF-8")?;
    for link in [outside, "../../../outside", "/", ".."] {
        let archive = || Tar::new().symlink("l", link);
        target.refuses(archive().file("l/victim", b"hit").end(), FlawKind::Parent, "l/victim")?;
        target.refuses(archive().directory("l/sub").end(), FlawKind::Parent, "l/sub")?;
        target.refuses(archive().file("l", b"hit").end(), FlawKind::Duplicate, "l")?;
        target.refuses(archive().directory("l").end(), FlawKind::Duplicate, "l")?;
        target.refuses(archive().hard_link("h", "l/victim").end(), FlawKind::Parent, "h")?;
        target.refuses(archive().file("l/.wh.victim", b"").end(), FlawKind::Parent, "l/.wh.victim")?;
        target.refuses(archive().file("l/.wh..wh..opq", b"").end(), FlawKind::Parent, "l/.wh..wh..opq")?;
        // a hard link to a link is the link itself: written through it is not
        let twice = archive().hard_link("h", "l").file("h/victim", b"hit");
        target.refuses(twice.end(), FlawKind::Parent, "h/victim")?;
    }
    let victim = format!("{outside}/victim");
    target.refuses(Tar::new().hard_link("h", "../../outside/victim").end(), FlawKind::Path, "h")?;
    target.refuses(
        Tar::new().pax(&[("linkpath", victim.as_bytes())]).hard_link("h", "x").end(),
        FlawKind::Path,
        "h",
    )?;
    target.refuses(Tar::new().hard_link("h", "missing").end(), FlawKind::HardLink, "h")?;
    target.refuses(Tar::new().directory("d").hard_link("h", "d").end(), FlawKind::HardLink, "h")?;
    target.refuses(Tar::new().file(".wh.x", b"").hard_link("h", "x").end(), FlawKind::HardLink, "h")?;
    target.refuses(Tar::new().file("f", b"").file("f/x", b"").end(), FlawKind::Parent, "f/x")?;
    let long = "t/".repeat(2500);
    target.refuses(Tar::new().pax(&[("linkpath", long.as_bytes())]).symlink("l", "x").end(), FlawKind::Path, "l")?;
    let victim = fs::metadata(target.dir.path().join("outside/victim"))?;
    assert_eq!(victim.nlink(), 1);
    Ok(())
}

fn whiteouts() -> Outcome {
    let target = Target::new()?;
    for path in [".wh...", ".wh..", ".wh.", "d/.wh...", ".wh..wh.plnk", ".wh.d/x", ".wh..wh..opq/x"] {
        target.refuses(Tar::new().directory("d").file(path, b"").end(), FlawKind::Whiteout, path)?;
    }
    target.refuses(Tar::new().file(".wh.x", b"content").end(), FlawKind::Whiteout, ".wh.x")?;
    target.refuses(
        Tar::new().pax(&[("path", b"../.wh.outside")]).file("x", b"").end(),
        FlawKind::Path,
        "../.wh.outside",
    )?;
    Ok(())
}

fn devices() -> Outcome {
    let target = Target::new()?;
    let archive = |major, minor| Tar::new().device("dev", EntryType::Char, major, minor).end();
    // would be a whiteout in disguise, whatever the policy
    target.refuses(archive(0, 0), FlawKind::Device, "dev")?;
    target.refuses_import(import(archive(0, 0)).devices(Devices::Create), FlawKind::Device, Some("dev"))?;
    target.refuses_import(import(archive(1, 3)).devices(Devices::Refuse), FlawKind::Device, Some("dev"))?;
    // with fewer bits it would be 0:0
    target.refuses_import(import(archive(4096, 0)).devices(Devices::Create), FlawKind::Device, Some("dev"))?;
    target.refuses_import(import(archive(0, 1 << 20)).devices(Devices::Create), FlawKind::Device, Some("dev"))?;
    let block = Tar::new().device("sda", EntryType::Block, 8, 0).end();
    target.refuses_import(import(block.clone()).devices(Devices::Refuse), FlawKind::Device, Some("sda"))?;
    let image = target.store.import(import(block), "skipped")?;
    assert_eq!(target.store.layer(image.layers()[0])?.left_out.devices, 1);
    let hex = image.layers()[0].hex();
    assert_eq!(fs::read_dir(target.store.root().join("layers").join(hex).join("tree"))?.count(), 0);
    Ok(())
}

fn duplicates() -> Outcome {
    let target = Target::new()?;
    target.refuses(Tar::new().file("x", b"1").file("x", b"2").end(), FlawKind::Duplicate, "x")?;
    target.refuses(Tar::new().file("x", b"1").file("./x", b"2").end(), FlawKind::Duplicate, "./x")?;
    target.refuses(Tar::new().file("x", b"1").directory("x").end(), FlawKind::Duplicate, "x")?;
    target.refuses(Tar::new().directory("x").file("x", b"1").end(), FlawKind::Duplicate, "x")?;
    target.refuses(Tar::new().directory("x").symlink("x", "/").end(), FlawKind::Duplicate, "x")?;
    target.refuses(Tar::new().file("y", b"").file("x", b"1").hard_link("x", "y").end(), FlawKind::Duplicate, "x")?;
    // a directory may be described twice
    target.store.import(import(Tar::new().directory("d").file("d/x", b"").directory("./d/").end()), "twice")?;
    Ok(())
}

fn attributes() -> Outcome {
    let target = Target::new()?;
    for name in ["trusted.overlay.opaque", "user.overlay.redirect", "user.overlay.metacopy", "user.belljar.stat"] {
        let key = format!("SCHILY.xattr.{name}");
        target.refuses(Tar::new().pax(&[(&key, b"y")]).directory("x").end(), FlawKind::Attribute, "x")?;
        target.refuses(Tar::new().pax(&[(&key, b"y")]).file("x", b"").end(), FlawKind::Attribute, "x")?;
    }
    let selinux = Tar::new().pax(&[("SCHILY.xattr.security.selinux", b"unconfined")]).file("x", b"").end();
    let image = target.store.import(import(selinux), "selinux")?;
    assert_eq!(target.store.layer(image.layers()[0])?.left_out.attributes, 1);
    // what the kernel refuses is the archive's fault, not the machine's
    let archive =
        |name: &str, value: &[u8]| Tar::new().pax(&[(&format!("SCHILY.xattr.{name}"), value)]).file("x", b"").end();
    target.refuses(archive("system.posix_acl_access", b"\x02\0\0\0odd"), FlawKind::Attribute, "x")?;
    target.refuses(archive(&format!("user.{}", "x".repeat(300)), b"y"), FlawKind::Attribute, "x")?;
    let many: Vec<(String, &[u8])> = (0..5000).map(|i| (format!("SCHILY.xattr.user.{i}"), &b""[..])).collect();
    let many: Vec<(&str, &[u8])> = many.iter().map(|(name, value)| (name.as_str(), *value)).collect();
    target.refuses_import(import(Tar::new().pax(&many).file("x", b"").end()), FlawKind::TooLarge, None)?;
    Ok(())
}

/// A default ACL is its directory's alone: nothing that is unpacked beneath inherits it.
fn default_acls() -> Outcome {
    let target = Target::new()?;
    let acl = |entries: &[(u16, u16, u32)]| {
        let entries = entries.iter().flat_map(|(tag, permissions, id)| {
            [&tag.to_le_bytes()[..], &permissions.to_le_bytes(), &id.to_le_bytes()].concat()
        });
        2u32.to_le_bytes().into_iter().chain(entries).collect::<Vec<u8>>()
    };
    let open = acl(&[(1, 7, u32::MAX), (2, 7, 1234), (4, 5, u32::MAX), (0x10, 7, u32::MAX), (0x20, 5, u32::MAX)]);
    let archive = Tar::new()
        .pax(&[("SCHILY.xattr.system.posix_acl_default", &open)])
        .directory("d")
        .file("d/f", b"")
        .directory("d/sub")
        .end();
    let image = target.store.import(import(archive), "acl")?;
    let tree = target.store.root().join("layers").join(image.layers()[0].hex()).join("tree");
    let attributes = |path: &str| -> Fallible<Vec<std::ffi::CString>> {
        Ok(tree::attributes(fs::File::open(tree.join(path))?.as_fd())?.into_keys().collect())
    };
    assert_eq!(attributes("d")?, [c"system.posix_acl_default".to_owned()]);
    assert_eq!((attributes("d/f")?, attributes("d/sub")?), (vec![], vec![]));
    assert!(target.store.verify()?.is_empty());
    Ok(())
}

fn headers_that_readers_disagree_on() -> Outcome {
    let target = Target::new()?;
    let hidden = Tar::new().file("hidden", b"seen by some readers").0;
    // CVE-2025-62518: the header says 0, pax says what is true, and what follows is no entry
    let desync = Tar::new().pax(&[("size", hidden.len().to_string().as_bytes())]).file("x", b"");
    let mut archive = desync.0;
    archive.extend_from_slice(&hidden);
    let image = target.store.import(import(Tar(archive).end()), "desync")?;
    let tree = target.store.root().join("layers").join(image.layers()[0].hex()).join("tree");
    assert_eq!(fs::read(tree.join("x"))?, hidden);
    assert!(!tree.join("hidden").exists());
    // the other way round there is data that nobody owns
    let header = Tar::header(EntryType::Directory, b"d", b"", hidden.len() as u64);
    target.refuses(Tar::new().raw(header, &hidden).end(), FlawKind::Header, "d")?;
    let header = Tar::header(EntryType::Symlink, b"l", b"x", 512);
    target.refuses(Tar::new().raw(header, &[0; 512]).end(), FlawKind::Header, "l")?;
    let none = |archive: Vec<u8>, kind| target.refuses_import(import(archive), kind, None);
    let mut behind = Tar::new().file("x", b"").end();
    behind.extend_from_slice(&hidden);
    none(behind, FlawKind::Header)?;
    let mut lone = Tar::new().file("x", b"").0;
    lone.resize(lone.len() + 512, 0);
    lone.extend_from_slice(&hidden);
    none(lone, FlawKind::Header)?;
    let mut flipped = Tar::new().file("x", b"").end();
    flipped[0] = b'y';
    none(flipped, FlawKind::Header)?;
    for size in ["-1", "0x10", "1 ", "18446744073709551616"] {
        none(Tar::new().pax(&[("size", size.as_bytes())]).file("x", b"").end(), FlawKind::Header)?;
    }
    target.refuses(Tar::new().pax(&[("size", b"9223372036854775808")]).file("x", b"").end(), FlawKind::Header, "x")?;
    none(Tar::new().pax(&[("path", b"a")]).pax(&[("path", b"b")]).file("x", b"").end(), FlawKind::Header)?;
    none(Tar::new().pax(&[("path", b"a")]).end(), FlawKind::Header)?;
    let bad =
        |records: &[u8]| Tar::new().raw(Tar::header(EntryType::XHeader, b"p", b"", records.len() as u64), records);
    for records in [&b"100 path=x\n"[..], b"8 path=x\n", b"path=x\n", b"10 path=x\n\0\0", b"10 path=x "] {
        none(bad(records).file("x", b"").end(), FlawKind::Header)?;
    }
    let long = Tar::new().raw(Tar::header(EntryType::GNULongName, b"././@LongLink", b"", 2), b"a\0");
    let both = Tar(long.clone().0).pax(&[("path", b"b")]).file("x", b"").end();
    none(both, FlawKind::Header)?;
    none(Tar([long.0.clone(), long.0].concat()).file("x", b"").end(), FlawKind::Header)?;
    let global = |record: (&str, &[u8])| {
        let mut bytes = Tar::new().pax(&[record]).0;
        bytes[156] = b'g';
        let mut header = tar::Header::new_old();
        header.as_mut_bytes().copy_from_slice(&bytes[..512]);
        Tar::new().raw(header, &bytes[512..]).file("x", b"").end()
    };
    none(global(("size", b"0")), FlawKind::Header)?;
    none(global(("path", b"y")), FlawKind::Header)?;
    none(global(("linkpath", b"y")), FlawKind::Header)?;
    none(global(("GNU.sparse.map", b"0,1")), FlawKind::Header)?;
    none(global(("GNU.sparse.offset", b"1")), FlawKind::Header)?;
    none(global(("GNU.sparse.name", b"y")), FlawKind::Header)?;
    target.store.import(import(global(("comment", b"harmless"))), "global")?;
    for kind in [b'V', b'M', b'D', b'N', b'!'] {
        target.refuses(
            Tar::new().raw(Tar::header(EntryType::new(kind), b"x", b"", 0), b"").end(),
            FlawKind::Unsupported,
            "x",
        )?;
    }
    for uid in ["4294967295", "4294967296"] {
        target.refuses(Tar::new().pax(&[("uid", uid.as_bytes())]).file("x", b"").end(), FlawKind::Header, "x")?;
    }
    Ok(())
}

fn sparse_maps() -> Outcome {
    let target = Target::new()?;
    let sparse = |map: &[u8], size: &[u8], data: &[u8]| {
        let records = [("GNU.sparse.map", map), ("GNU.sparse.size", size), ("GNU.sparse.name", b"s")];
        Tar::new().pax(&records).file("x", data).end()
    };
    let image = target.store.import(import(sparse(b"0,2,100,3,200,0", b"200", b"abcde")), "sparse")?;
    let tree = target.store.root().join("layers").join(image.layers()[0].hex()).join("tree");
    let content = fs::read(tree.join("s"))?;
    assert_eq!((content.len(), &content[..2], &content[100..103]), (200, &b"ab"[..], &b"cde"[..]));
    for (map, size) in [
        (&b"0,5"[..], &b"4"[..]),
        (b"0,4", b"200"),
        (b"0,6", b"200"),
        (b"0,3,2,2", b"200"),
        (b"100,3,0,2", b"200"),
        (b"18446744073709551615,5", b"200"),
    ] {
        target.refuses(sparse(map, size, b"abcde"), FlawKind::Header, "s")?;
    }
    target.refuses_import(import(sparse(b"0,5,7", b"200", b"abcde")), FlawKind::Header, None)?;
    // 8 EiB of nothing
    let huge = sparse(b"0,5", b"9000000000000000000", b"abcde");
    target.refuses(huge, FlawKind::TooLarge, "s")?;
    let records: &[(&str, &[u8])] = &[
        ("GNU.sparse.major", b"1"),
        ("GNU.sparse.minor", b"0"),
        ("GNU.sparse.name", b"s"),
        ("GNU.sparse.realsize", b"9"),
    ];
    let lines = "1".repeat(100_000);
    for map in [&*lines, "1000000000\n", "1\n0\n", "x\n", "99999999999999999999999999\n"] {
        let archive = Tar::new().pax(records).file("x", &{
            let mut data = map.as_bytes().to_vec();
            data.resize(data.len().next_multiple_of(512), 0);
            data
        });
        let before = target.store.import(import(archive.end()), "map");
        assert!(before.is_err_and(|e| e.flaw().is_some()), "{map:?}");
    }
    Ok(())
}

/// Zeros without end.
struct Zeros;

impl Read for Zeros {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        buffer.fill(0);
        Ok(buffer.len())
    }
}

/// The same bytes without end.
struct Again {
    bytes: Vec<u8>,
    at: usize,
}

impl Read for Again {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        for byte in &mut *buffer {
            *byte = self.bytes[self.at % self.bytes.len()];
            self.at += 1;
        }
        Ok(buffer.len())
    }
}

fn bombs() -> Outcome {
    let target = Target::new()?;
    let limits = Limits { bytes: Bytes::mib(8), entries: 100, time: Duration::from_secs(60), ..Limits::default() };
    let limited = |archive: Vec<u8>| import(archive).limits(limits);
    let large = gzip(&Tar::new().file("zeros", &vec![0; 9 << 20]).end());
    target.refuses_import(limited(large), FlawKind::TooLarge, Some("zeros"))?;
    let mut many = Tar::new();
    for i in 0..101 {
        many = many.file(&format!("f{i}"), b"");
    }
    target.refuses_import(limited(many.end()), FlawKind::TooManyEntries, Some("f100"))?;
    // more than the free GiB, from a thousandth of it
    let end = (3 << 30) / 512 * 512;
    let header = {
        let mut header = Tar::header(EntryType::Regular, b"bomb", b"", end);
        header.set_cksum();
        header.as_bytes().to_vec()
    };
    let mut bomb = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::new(1));
    std::io::Write::write_all(&mut bomb, &header)?;
    std::io::copy(&mut Zeros.take(1056 << 20), &mut bomb)?;
    target.refuses_import(
        import(bomb.finish()?).limits(Limits { expansion: 100, ..Limits::default() }),
        FlawKind::Expansion,
        Some("bomb"),
    )?;
    // a header that fills memory
    let huge = Tar::new().raw(Tar::header(EntryType::XHeader, b"pax", b"", 1 << 40), b"");
    target.refuses_import(import(huge.end()), FlawKind::TooLarge, None)?;
    let huge = Tar::new().raw(Tar::header(EntryType::GNULongName, b"././@LongLink", b"", 1 << 40), b"");
    target.refuses_import(import(huge.end()), FlawKind::TooLarge, None)?;
    // a source that never ends
    let endless = Import::rootfs_from("hostile.tar", Cursor::new(Tar::new().file("x", b"").0).chain(Zeros))
        .limits(Limits { bytes: Bytes::mib(64), ..Limits::default() })
        .durability(Durability::Process);
    target.refuses_import(endless, FlawKind::TooLarge, None)?;
    let slow = Import::rootfs_from("hostile.tar", Cursor::new(Tar::new().file("x", b"").0).chain(Zeros))
        .limits(Limits { time: Duration::from_millis(50), ..Limits::default() })
        .durability(Durability::Process);
    target.refuses_import(slow, FlawKind::TooSlow, None)?;
    // compressed streams that never end and never give anything
    let skippable = [0x50, 0x2a, 0x4d, 0x18, 0, 0, 0, 0].to_vec();
    for member in [gzip(b""), skippable] {
        let endless = Import::rootfs_from("hostile.tar", Again { bytes: member, at: 0 })
            .limits(Limits { time: Duration::from_millis(200), ..Limits::default() })
            .durability(Durability::Process);
        target.refuses_import(endless, FlawKind::TooSlow, None)?;
    }
    Ok(())
}

fn damaged_streams() -> Outcome {
    let target = Target::new()?;
    let archive = Tar::new().file("x", &[b'x'; 5000]).file("y", b"").end();
    let none = |archive: Vec<u8>, kind| target.refuses_import(import(archive), kind, None);
    target.refuses(archive[..3000].to_vec(), FlawKind::Truncated, "x")?;
    none(archive[..5632 + 512 + 100].to_vec(), FlawKind::Truncated)?;
    none(b"no archive at all".to_vec(), FlawKind::Truncated)?;
    none(vec![b'x'; 2000], FlawKind::Header)?;
    let zipped = gzip(&archive);
    let cut = target.store.import(import(zipped[..zipped.len() - 6].to_vec()), "cut");
    assert_eq!(cut.err().and_then(|e| e.flaw().map(|f| f.kind())), Some(FlawKind::Compression));
    let mut flipped = zipped;
    let last = flipped.len() - 5;
    flipped[last] ^= 1; // the checksum
    let flipped = target.store.import(import(flipped), "flipped");
    assert_eq!(flipped.err().and_then(|e| e.flaw().map(|f| f.kind())), Some(FlawKind::Compression));
    // other members follow each other; anything else behind the end is refused
    let two = [gzip(&archive[..700]), gzip(b""), gzip(&archive[700..])].concat();
    target.store.import(import(two.clone()), "members")?;
    for garbage in [&b"garbage"[..], b"\x1f\x8b", b"\0", &archive[..512]] {
        let archive = [two.as_slice(), garbage].concat();
        target.refuses_import(import(archive), FlawKind::Compression, None)?;
    }
    none(b"\xfd7zXZ\0and so on".to_vec(), FlawKind::Compression)?;
    // windows of 2 GiB and, as one segment, of 1 GiB; a dictionary that nobody has
    for frame in [&b"\x28\xb5\x2f\xfd\x00\xa8"[..], b"\x28\xb5\x2f\xfd\xa0\0\0\0\x40", b"\x28\xb5\x2f\xfd\x21\x07\x05"]
    {
        none([frame, &[0; 64]].concat(), FlawKind::Compression)?;
    }
    none(b"\x28\xb5\x2f\xfd\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff".to_vec(), FlawKind::Compression)?;
    // an archive that ends at an entry, without an end of its own, is one
    target.store.import(import(archive[..archive.len() - 1024].to_vec()), "short")?;
    Ok(())
}
