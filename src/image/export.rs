//! Giving images away: as an OCI image layout, and as what `docker load` reads.
//!
//! A layer's archive is put together from its skeleton and its tree, byte for byte as it
//! came: its diff-id, and with it the image's id, stay what they were. Only the compression is anew.

use super::digest::{Digest, Hashing};
use super::io_error;
use super::record::Image;
use super::skeleton::assemble;
use super::store::{Store, Work};
use super::write::{Item, Writer};
use crate::error::{Error, ErrorKind, Result};
use crate::flaw::{Flaw, FlawKind};
use flate2::Compression as Level;
use flate2::write::GzEncoder;
use serde_json::{Value, json};
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use tar::EntryType;

/// How an exported layout's layers are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Compression {
    /// gzip, of zlib's level 6. The default.
    #[default]
    Gzip,
    /// As they are.
    None,
}

/// A blob that has been written.
struct Written {
    digest: Digest,
    size: u64,
}

impl Store {
    /// Writes an image into an OCI image layout: a directory, made if missing; one that holds other
    /// images keeps them. The image is entered under its tag (`org.opencontainers.image.ref.name`),
    /// in place of one of the same tag.
    ///
    /// # Errors
    /// As [`image`](Store::image); [`FlawKind::Damaged`](crate::FlawKind) for a layer that has been changed; those of writing.
    pub fn export_oci(&self, name: &str, path: impl AsRef<Path>, compression: Compression) -> Result<()> {
        let (image, _lease) = self.hold(name)?;
        self.layout(&image, path.as_ref(), compression)
    }

    /// As [`export_oci`](Store::export_oci), into one tar archive.
    ///
    /// # Errors
    /// The same.
    pub fn export_oci_archive(&self, name: &str, out: impl Write, compression: Compression) -> Result<()> {
        let (image, _lease) = self.hold(name)?;
        let work = self.work()?;
        let layout = work.path().join("layout");
        self.layout(&image, &layout, compression)?;
        let mut writer = Writer::new(BufWriter::new(out));
        let mut files = vec![PathBuf::from("oci-layout"), "index.json".into()];
        for directory in ["blobs", "blobs/sha256"] {
            let item = Item { path: directory.as_bytes(), kind: EntryType::Directory, mode: 0o755, ..Item::default() };
            writer.entry(&item, None)?;
        }
        let mut blobs: Vec<PathBuf> = fs::read_dir(layout.join("blobs/sha256"))
            .map_err(|e| io_error("read a layout", &e))?
            .flatten()
            .map(|entry| Path::new("blobs/sha256").join(entry.file_name()))
            .collect();
        blobs.sort();
        files.append(&mut blobs);
        for file in files {
            let mut content = File::open(layout.join(&file)).map_err(|e| io_error("open a blob", &e))?;
            let size = content.metadata().map_err(|e| io_error("open a blob", &e))?.len();
            let item = Item { path: file.as_os_str().as_encoded_bytes(), size, ..Item::default() };
            writer.entry(&item, Some(&mut content))?;
        }
        writer.finish().map(drop)
    }

    /// Writes an image as `docker save` does, for `docker load`, `podman load` and skopeo's
    /// `docker-archive:`; straight to `out`, with nothing in between on the disk.
    ///
    /// # Errors
    /// As [`export_oci`](Store::export_oci).
    pub fn export_docker(&self, name: &str, out: impl Write) -> Result<()> {
        let (image, _lease) = self.hold(name)?;
        let config_path = self.config_path(&image.id());
        let config = fs::read(&config_path).map_err(|e| io_error(format!("open {}", config_path.display()), &e))?;
        let mut writer = Writer::new(BufWriter::new(out));
        let mut names: Vec<String> = Vec::new();
        for layer in image.layers() {
            let file = format!("{}.tar", layer.hex());
            if !names.contains(&file) {
                let size = self.layer(*layer)?.archive_bytes;
                let (reader, pipe) = std::io::pipe().map_err(|e| io_error("make a pipe", &e))?;
                std::thread::scope(|scope| {
                    let assembling =
                        scope.spawn(|| self.assemble_layer(layer, BufWriter::with_capacity(1 << 16, pipe)));
                    let mut reader = reader;
                    let item = Item { path: file.as_bytes(), size, ..Item::default() };
                    let written = writer.entry(&item, Some(&mut reader));
                    drop(reader);
                    match assembling.join() {
                        Ok(Err(error)) if error.raw_os_error() != Some(libc::EPIPE) => Err(error),
                        Err(_) => Err(Error::new(ErrorKind::Other, "export a layer")),
                        _ => written,
                    }
                })?;
            }
            names.push(file);
        }
        let config_name = format!("{}.json", image.id().hex());
        writer.bytes(&config_name, &config)?;
        let manifest = json!([{ "Config": config_name, "RepoTags": [image.name()], "Layers": names }]);
        writer.bytes("manifest.json", manifest.to_string().as_bytes())?;
        writer.finish().map(drop)
    }

    /// Writes a layer's archive, which must be what its name says.
    fn assemble_layer(&self, layer: &Digest, out: impl Write) -> Result<()> {
        let path = self.layer_path(layer);
        let tree = File::open(path.join("tree")).map_err(|e| io_error(format!("open the layer {layer}"), &e))?;
        let mut out = Hashing::new(out);
        assemble(&path.join("skeleton.gz"), tree.as_fd(), &mut out)?;
        out.flush().map_err(|e| io_error("write an archive", &e))?;
        match out.digest() {
            digest if digest == *layer => Ok(()),
            digest => {
                let detail = format!("its digest is {digest}");
                Err(Error::flawed(Flaw::new(layer, None, FlawKind::Damaged, detail)))
            }
        }
    }

    fn layout(&self, image: &Image, path: &Path, compression: Compression) -> Result<()> {
        let fail = |e: &std::io::Error| io_error(format!("write the layout {}", path.display()), e);
        let blobs = path.join("blobs/sha256");
        fs::create_dir_all(&blobs).map_err(|e| fail(&e))?;
        let work = self.work()?;
        let next = AtomicUsize::new(0);
        let results: Mutex<Vec<Option<Result<Written>>>> = Mutex::new(image.layers().iter().map(|_| None).collect());
        let threads = std::thread::available_parallelism().map_or(1, usize::from).min(image.layers().len());
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| {
                    loop {
                        let number = next.fetch_add(1, Ordering::Relaxed);
                        let Some(layer) = image.layers().get(number) else { break };
                        let written = self.write_layer(layer, number, &work, &blobs, compression);
                        if let Ok(mut results) = results.lock() {
                            results[number] = Some(written);
                        }
                    }
                });
            }
        });
        let (suffix, mut layers) = (if compression == Compression::Gzip { "+gzip" } else { "" }, Vec::new());
        for written in results.into_inner().map_err(|_| Error::new(ErrorKind::Other, "export an image"))? {
            let Written { digest, size } =
                written.unwrap_or_else(|| Err(Error::new(ErrorKind::Other, "export a layer")))?;
            layers.push(json!({
                "mediaType": format!("application/vnd.oci.image.layer.v1.tar{suffix}"),
                "digest": digest.to_string(),
                "size": size,
            }));
        }
        let config = fs::read(self.config_path(&image.id())).map_err(|e| io_error("open a configuration", &e))?;
        let config = put(&blobs, &config, "application/vnd.oci.image.config.v1+json")?;
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": config,
            "layers": layers,
        });
        let mut manifest = put(&blobs, manifest.to_string().as_bytes(), "application/vnd.oci.image.manifest.v1+json")?;
        let tag = image.name().rsplit_once(':').map_or("latest", |(_, tag)| tag);
        manifest["annotations"] = json!({ "org.opencontainers.image.ref.name": tag });
        let index_path = path.join("index.json");
        let mut index: Value =
            fs::read(&index_path).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_else(
                || json!({ "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": [] }),
            );
        if let Some(manifests) = index["manifests"].as_array_mut() {
            manifests.retain(|other| other["annotations"]["org.opencontainers.image.ref.name"] != tag);
            manifests.push(manifest);
        }
        write_whole(&path.join("oci-layout"), br#"{"imageLayoutVersion":"1.0.0"}"#)?;
        write_whole(&index_path, index.to_string().as_bytes())
    }

    fn write_layer(
        &self,
        layer: &Digest,
        number: usize,
        work: &Work,
        blobs: &Path,
        compression: Compression,
    ) -> Result<Written> {
        let temporary = work.path().join(number.to_string());
        let fail = |e: &std::io::Error| io_error(format!("write {}", temporary.display()), e);
        let file = Hashing::new(BufWriter::new(File::create_new(&temporary).map_err(|e| fail(&e))?));
        let mut file = match compression {
            Compression::None => {
                let mut file = file;
                self.assemble_layer(layer, &mut file)?;
                file
            }
            Compression::Gzip => {
                let mut encoder = GzEncoder::new(file, Level::new(6));
                self.assemble_layer(layer, &mut encoder)?;
                encoder.finish().map_err(|e| fail(&e))?
            }
        };
        file.flush().map_err(|e| fail(&e))?;
        let written = Written { digest: file.digest(), size: file.count };
        move_file(&temporary, &blobs.join(written.digest.hex()))?;
        Ok(written)
    }
}

/// Also from one file system to another.
fn move_file(from: &Path, to: &Path) -> Result<()> {
    if fs::rename(from, to).is_err() {
        fs::copy(from, to).map_err(|e| io_error(format!("write {}", to.display()), &e))?;
    }
    Ok(())
}

/// Writes a document as a blob; gives its descriptor.
fn put(blobs: &Path, bytes: &[u8], media_type: &str) -> Result<Value> {
    let digest = Digest::of(bytes);
    write_whole(&blobs.join(digest.hex()), bytes)?;
    Ok(json!({ "mediaType": media_type, "digest": digest.to_string(), "size": bytes.len() }))
}

fn write_whole(path: &Path, bytes: &[u8]) -> Result<()> {
    let temporary = path.with_extension(format!("new{}", std::process::id()));
    fs::write(&temporary, bytes)
        .and_then(|()| fs::rename(&temporary, path))
        .map_err(|e| io_error(format!("write {}", path.display()), &e))
}
