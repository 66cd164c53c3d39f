//! What a hostile image layout tries: with its documents, and with what stands where a blob should be. Each attempt is
//! refused with a typed error, quickly, and the store is as before; the control is the same layout unchanged.

use super::archives::{Fallible, LayerBlob, Tar, layout};
use crate::harness::{Need, Outcome, TempDir, Test};
use belljar::image::{Digest, Durability, Image, Import, Store};
use belljar::{Error, ErrorKind, FlawKind};
use serde_json::{Value, json};
use std::fs::{self, File};
use std::io::Cursor;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::time::{Duration, Instant};

pub fn tests() -> Vec<Test> {
    vec![
        Test::new("image::layouts::documents_that_lie", &[], documents_that_lie),
        Test::new("image::layouts::documents_that_do_not_end", &[], documents_that_do_not_end),
        Test::new("image::layouts::indexes_of_indexes", &[], indexes_of_indexes),
        Test::new("image::layouts::blobs_that_are_no_files", &[], blobs_that_are_no_files),
        Test::new("image::layouts::devices_for_blobs", &[Need::Root], devices_for_blobs),
        Test::new("image::layouts::archives_that_are_no_files", &[], archives_that_are_no_files),
    ]
}

struct Target {
    dir: TempDir,
    store: Store,
    /// The layer's blob.
    layer: Digest,
}

impl Target {
    fn new() -> Fallible<Target> {
        let dir = TempDir::new()?;
        let store = Store::open(dir.path().join("store"))?;
        let blob = LayerBlob::gzip(Tar::new().file("x", b"content").end());
        let layer = Digest::of(&blob.blob);
        let target = Target { dir, store, layer };
        layout(&target.at(), &[blob], json!({}))?;
        target.import()?;
        target.store.remove("hostile")?;
        target.store.gc()?;
        Ok(target)
    }

    fn at(&self) -> PathBuf {
        self.dir.path().join("layout")
    }

    fn blob(&self, digest: &Digest) -> PathBuf {
        self.at().join("blobs/sha256").join(digest.hex())
    }

    fn import(&self) -> belljar::Result<Image> {
        self.store.import(Import::oci_layout(self.at()).durability(Durability::Process), "hostile")
    }

    fn read(&self, path: &str) -> Fallible<Value> {
        Ok(serde_json::from_slice(&fs::read(self.at().join(path))?)?)
    }

    /// Writes a document as a blob; gives its descriptor.
    fn put(&self, document: &[u8], kind: &str) -> Fallible<Value> {
        let digest = Digest::of(document);
        fs::write(self.blob(&digest), document)?;
        let media_type = format!("application/vnd.oci.image.{kind}.v1+json");
        Ok(json!({ "digest": digest.to_string(), "size": document.len(), "mediaType": media_type }))
    }

    fn index(&self, manifests: Vec<Value>) -> Outcome {
        Ok(fs::write(self.at().join("index.json"), json!({ "schemaVersion": 2, "manifests": manifests }).to_string())?)
    }

    /// The index, the manifest and the configuration, each changed.
    fn change(
        &self,
        index: impl Fn(&mut Value),
        manifest: impl Fn(&mut Value),
        config: impl Fn(&mut Value),
    ) -> Outcome {
        let mut descriptor = self.read("index.json")?["manifests"][0].clone();
        let of = |descriptor: &Value| -> Fallible<Value> {
            let digest: Digest = descriptor["digest"].as_str().ok_or("no digest")?.parse()?;
            Ok(serde_json::from_slice(&fs::read(self.blob(&digest))?)?)
        };
        let mut document = of(&descriptor)?;
        let mut configuration = of(&document["config"])?;
        config(&mut configuration);
        document["config"] = self.put(configuration.to_string().as_bytes(), "config")?;
        manifest(&mut document);
        descriptor = self.put(document.to_string().as_bytes(), "manifest")?;
        index(&mut descriptor);
        self.index(vec![descriptor])
    }

    fn refused(&self, what: &str) -> Fallible<Error> {
        let started = Instant::now();
        let error = self.import().err().ok_or_else(|| format!("{what}: it was taken"))?;
        assert!(started.elapsed() < Duration::from_secs(20), "{what}: {:?}", started.elapsed());
        for part in ["images", "layers", "tmp", "configs"] {
            assert_eq!(fs::read_dir(self.store.root().join(part))?.count(), 0, "{what}: {part}: {error}");
        }
        Ok(error)
    }

    fn flaw(&self, what: &str) -> Fallible<FlawKind> {
        let error = self.refused(what)?;
        Ok(error.flaw().ok_or_else(|| format!("{what}: {error}"))?.kind())
    }
}

fn documents_that_lie() -> Outcome {
    let keep = |_: &mut Value| ();
    type Change<'a> = &'a dyn Fn(&mut Value);
    let cases: [(&str, [Change<'_>; 3], FlawKind); 9] = [
        ("the layer's size", [&keep, &|m| m["layers"][0]["size"] = json!(9), &keep], FlawKind::Digest),
        ("the configuration's size", [&keep, &|m| m["config"]["size"] = json!(9), &keep], FlawKind::Digest),
        ("the manifest's size", [&|d| d["size"] = json!(9), &keep, &keep], FlawKind::Digest),
        ("a size below zero", [&keep, &|m| m["layers"][0]["size"] = json!(-1), &keep], FlawKind::Document),
        (
            "more layers than diff-ids",
            [&keep, &|m| m["layers"] = json!([m["layers"][0], m["layers"][0]]), &keep],
            FlawKind::Document,
        ),
        (
            "fewer layers than diff-ids",
            [&keep, &keep, &|c| {
                c["rootfs"]["diff_ids"] = json!([c["rootfs"]["diff_ids"][0], c["rootfs"]["diff_ids"][0]])
            }],
            FlawKind::Document,
        ),
        (
            "no layers at all",
            [&keep, &|m| m["layers"] = json!([]), &|c| c["rootfs"]["diff_ids"] = json!([])],
            FlawKind::Document,
        ),
        (
            "another diff-id",
            [&keep, &keep, &|c| c["rootfs"]["diff_ids"][0] = json!(Digest::of(b"").to_string())],
            FlawKind::Digest,
        ),
        (
            "a diff-id that is a path",
            [&keep, &keep, &|c| c["rootfs"]["diff_ids"][0] = json!("sha256:../../etc")],
            FlawKind::Document,
        ),
    ];
    for (what, [index, manifest, config], kind) in cases {
        let target = Target::new()?;
        target.change(index, manifest, config)?;
        assert_eq!(target.flaw(what)?, kind, "{what}");
    }
    for digest in ["sha256:../../../../../../etc/passwd", "sha256:", "sha512:00", "../../x", ""] {
        let target = Target::new()?;
        target.change(keep, |m| m["layers"][0]["digest"] = json!(digest), keep)?;
        let error = target.refused(digest)?;
        assert!(matches!(error.kind(), ErrorKind::NotSupported | ErrorKind::InvalidImage), "{digest}: {error}");
        let target = Target::new()?;
        target.change(|d| d["digest"] = json!(digest), keep, keep)?;
        target.refused(digest)?;
    }
    // media types are often wrong, and what is in the blob decides
    let target = Target::new()?;
    target.change(keep, |m| m["layers"][0]["mediaType"] = json!("application/x-unknown"), keep)?;
    target.import()?;
    Ok(())
}

fn documents_that_do_not_end() -> Outcome {
    let target = Target::new()?;
    let index = target.read("index.json")?;
    // a GiB of nothing under the configuration's name, and for an index
    let config = target.at().join("config");
    File::create(&config)?.set_len(1 << 30)?;
    let keep = |_: &mut Value| ();
    let fake = Digest::of(b"whatever");
    fs::rename(&config, target.blob(&fake))?;
    target.change(keep, |m| m["config"] = json!({ "digest": fake.to_string(), "size": 1 << 30, "mediaType": "application/vnd.oci.image.config.v1+json" }), keep)?;
    assert_eq!(target.flaw("a configuration of 1 GiB")?, FlawKind::Document);
    for nested in ["[", "{\"a\":"] {
        fs::write(target.at().join("index.json"), nested.repeat(1 << 19))?;
        assert_eq!(target.flaw("a document of brackets")?, FlawKind::Document);
    }
    let long = format!("{}{}", index, " ".repeat(5 << 20));
    fs::write(target.at().join("index.json"), long)?;
    assert_eq!(target.flaw("an index of 5 MiB")?, FlawKind::Document);
    fs::write(target.at().join("index.json"), b"\0\xff")?;
    assert_eq!(target.flaw("no JSON")?, FlawKind::Document);
    Ok(())
}

/// Digests forbid a cycle, but not that a few documents stand for billions of paths through them.
fn indexes_of_indexes() -> Outcome {
    let target = Target::new()?;
    let manifest = target.read("index.json")?["manifests"][0].clone();
    let nest = |levels: usize, width: usize| -> Fallible<Value> {
        let mut descriptor = manifest.clone();
        for _ in 0..levels {
            let index = json!({ "schemaVersion": 2, "manifests": vec![&descriptor; width] });
            descriptor = target.put(index.to_string().as_bytes(), "index")?;
        }
        Ok(descriptor)
    };
    target.index(vec![nest(4, 2000)?; 2000])?;
    let started = Instant::now();
    target.import()?;
    assert!(started.elapsed() < Duration::from_secs(30), "{:?}", started.elapsed());
    target.store.remove("hostile")?;
    target.store.gc()?;
    target.index(vec![nest(5, 1)?])?;
    assert_eq!(target.flaw("five indexes deep")?, FlawKind::Document);
    let many = (0..1100).map(|i| {
        let mut descriptor = manifest.clone();
        descriptor["digest"] = json!(Digest::of(i.to_string().as_bytes()).to_string());
        descriptor
    });
    target.index(many.collect())?;
    assert_eq!(target.flaw("1100 manifests")?, FlawKind::Document);
    Ok(())
}

fn blobs_that_are_no_files() -> Outcome {
    let target = Target::new()?;
    let blob = target.blob(&target.layer);
    let outside = target.dir.path().join("outside");
    fs::rename(&blob, &outside)?;
    for link in [outside.clone(), PathBuf::from("../../../outside"), blob.clone()] {
        symlink(&link, &blob)?;
        target.refused(&format!("a link to {link:?}"))?;
        fs::remove_file(&blob)?;
    }
    nix::unistd::mkfifo(&blob, nix::sys::stat::Mode::S_IRWXU)?;
    assert_eq!(target.flaw("a FIFO")?, FlawKind::Document);
    fs::remove_file(&blob)?;
    let socket = nix::sys::stat::SFlag::S_IFSOCK;
    nix::sys::stat::mknod(&blob, socket, nix::sys::stat::Mode::S_IRWXU, 0)?;
    target.refused("a socket")?;
    fs::remove_file(&blob)?;
    fs::create_dir(&blob)?;
    target.refused("a directory")?;
    fs::remove_dir(&blob)?;
    target.refused("nothing")?;
    // the control: a link within the layout is followed
    fs::copy(&outside, target.at().join("inside"))?;
    symlink("../../inside", &blob)?;
    target.import()?;
    Ok(())
}

fn devices_for_blobs() -> Outcome {
    let target = Target::new()?;
    let blob = target.blob(&target.layer);
    fs::remove_file(&blob)?;
    let zero = nix::sys::stat::makedev(1, 5);
    let mode = nix::sys::stat::Mode::S_IRWXU;
    nix::sys::stat::mknod(&blob, nix::sys::stat::SFlag::S_IFCHR, mode, zero)?;
    assert_eq!(target.flaw("/dev/zero")?, FlawKind::Document);
    Ok(())
}

fn archives_that_are_no_files() -> Outcome {
    let target = Target::new()?;
    let fifo = target.dir.path().join("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU)?;
    for import in [Import::oci_layout(&fifo), Import::docker_archive(&fifo), Import::docker_archive("/dev/zero")] {
        let error = target.store.import(import, "x").err().ok_or("it was taken")?;
        assert_eq!(error.kind(), ErrorKind::NotSupported, "{error}");
    }
    // names and targets that would fill memory
    let long = "t".repeat((1 << 20) - 100);
    let mut tar = Tar::new();
    for i in 0..9 {
        tar = tar.pax(&[("linkpath", long.as_bytes())]).symlink(&i.to_string(), "x");
    }
    let path = target.dir.path().join("links.tar");
    fs::write(&path, tar.end())?;
    let error = target.store.import(Import::docker_archive(&path), "x").err().ok_or("it was taken")?;
    assert_eq!(error.flaw().map(|flaw| flaw.kind()), Some(FlawKind::TooManyEntries), "{error}");
    // a stream may come from a pipe
    let stream = Import::rootfs_from("pipe", Cursor::new(Tar::new().file("x", b"").end()));
    target.store.import(stream.durability(Durability::Process), "x")?;
    Ok(())
}
