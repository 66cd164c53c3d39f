//! Where images come from: an OCI image layout, as a directory or in a tar archive, and what
//! `docker save` writes.
//!
//! <https://github.com/opencontainers/image-spec/blob/main/image-layout.md>;
//! for `docker save`, moby's `image/spec/v1.2.md`, "Combined Image JSON + Filesystem Changeset Format".

use super::archive::{Archive, Kind, clean};
use super::decode::is_compressed;
use super::digest::Digest;
use super::io_error;
use super::limits::Limits;
use super::record::{Platform, parse_configuration};
use crate::error::{Error, ErrorKind, Result};
use crate::flaw::{Flaw, FlawKind};
use crate::id::c_path;
use crate::sys::path::{FileKind, OpenFlags, open_in_root, stat};
use oci_spec::image::{Descriptor, ImageIndex, ImageManifest, MediaType};
use serde_json::Value;
use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Documents are no larger.
const MAX_DOCUMENT: u64 = 4 << 20;
/// Indexes in indexes.
const MAX_NESTING: u32 = 4;
/// Documents of one layout that are read in search of an image.
const MAX_DOCUMENTS: usize = 1000;
/// Names and targets of links in an archive of blobs.
const MAX_NAMES: usize = 8 << 20;
const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// A place to read named things from.
pub(super) enum Blobs {
    Directory(File, PathBuf),
    Archive { file: Arc<File>, index: HashMap<Vec<u8>, Place>, path: PathBuf },
}

/// Where a file is in an archive, or which other name it is.
pub(super) enum Place {
    At(u64, u64),
    Link(Vec<u8>),
}

/// An image that has been found, nothing of its layers read yet.
pub(super) struct Found {
    pub config: Vec<u8>,
    pub layers: Vec<Blob>,
}

/// A layer's blob.
pub(super) struct Blob {
    /// Its name in the source.
    pub name: Vec<u8>,
    /// The digest that it must have, if the source tells.
    pub digest: Option<Digest>,
    /// Its length, likewise.
    pub size: Option<u64>,
    pub diff_id: Digest,
}

impl Blob {
    /// How messages call it.
    pub fn shown(&self) -> String {
        self.digest.unwrap_or(self.diff_id).to_string()
    }
}

fn flawed(source: &str, detail: impl Into<String>) -> Error {
    Error::flawed(Flaw::new(source, None, FlawKind::Document, detail))
}

impl Blobs {
    pub fn directory(path: &Path) -> Result<Blobs> {
        let file = File::open(path).map_err(|e| io_error(format!("open {}", path.display()), &e))?;
        Ok(Blobs::Directory(file, path.to_owned()))
    }

    /// Lists an uncompressed archive. Content is not read but jumped over.
    pub fn archive(path: &Path, limits: &Limits) -> Result<Blobs> {
        let fail = |e: io::Error| io_error(format!("open {}", path.display()), &e);
        let file = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path).map_err(fail)?;
        if !file.metadata().map_err(fail)?.is_file() {
            let what = format!("look for an image in {}, which is no regular file", path.display());
            return Err(Error::new(ErrorKind::NotSupported, what)
                .with_hint("the archive in a file; or Import::rootfs, which reads a stream"));
        }
        let mut first = [0; 8];
        let n = file.read_at(&mut first, 0).map_err(fail)?;
        if is_compressed(&first[..n]) {
            return Err(Error::new(
                ErrorKind::NotSupported,
                format!("read {}: it is compressed as a whole", path.display()),
            )
            .with_hint("the archive unpacked once (gunzip, unzstd); its layers may be compressed"));
        }
        let mut archive = Archive::new(BufReader::new(file.try_clone().map_err(fail)?), None);
        let shown = path.display().to_string();
        let mut index = HashMap::new();
        let mut names = 0;
        loop {
            let read = archive.next();
            let Some(entry) = read.map_err(|stop| stop.of(&shown, archive.path.as_deref()))? else { break };
            let name = clean(&entry.path, limits.depth).map_err(|stop| stop.of(&shown, Some(&entry.path)))?;
            names += name.len() + entry.link.len();
            if index.len() as u64 >= limits.entries.min(1 << 16) || names > MAX_NAMES {
                let flaw = Flaw::new(&shown, Some(&name), FlawKind::TooManyEntries, "too many files for an image");
                return Err(Error::flawed(flaw));
            }
            match entry.kind {
                Kind::File if entry.sparse.is_none() => {
                    index.insert(name, Place::At(archive.position, entry.size));
                }
                Kind::Symlink => {
                    index.insert(name.clone(), Place::Link(beside(&name, &entry.link)));
                }
                Kind::HardLink => {
                    let target = clean(&entry.link, limits.depth).map_err(|stop| stop.of(&shown, Some(&name)))?;
                    index.insert(name, Place::Link(target));
                }
                _ => {}
            }
            archive.seek_content().map_err(|stop| stop.of(&shown, Some(&entry.path)))?;
        }
        let file = Arc::new(file);
        Ok(Blobs::Archive { file, index, path: path.to_owned() })
    }

    pub fn shown(&self) -> String {
        match self {
            Blobs::Directory(_, path) | Blobs::Archive { path, .. } => path.display().to_string(),
        }
    }

    fn has(&self, name: &[u8]) -> bool {
        self.open(name).is_ok()
    }

    /// Opens one by name; gives its length too.
    pub fn open(&self, name: &[u8]) -> Result<(Box<dyn Read + Send>, u64)> {
        match self {
            Blobs::Directory(directory, path) => {
                let what = format!("open {} of {}", name.escape_ascii(), path.display());
                let c_name = c_path(Path::new(std::ffi::OsStr::new(&*String::from_utf8_lossy(name))));
                let flags = OpenFlags::NONBLOCK | OpenFlags::NOCTTY;
                let fd = open_in_root(directory.as_fd(), &c_name, flags).map_err(|errno| Error::call(&*what, errno))?;
                if stat(fd.as_fd()).map_err(|errno| Error::call(&*what, errno))?.kind != FileKind::Regular {
                    return Err(flawed(&path.display().to_string(), format!("{} is no file", name.escape_ascii())));
                }
                let file = File::from(fd);
                let size = file.metadata().map_err(|e| io_error(what, &e))?.len();
                Ok((Box::new(file), size))
            }
            Blobs::Archive { file, index, .. } => {
                let mut name = name.to_vec();
                for _ in 0..8 {
                    match index.get(&name) {
                        Some(Place::At(at, size)) => {
                            return Ok((Box::new(Section { file: file.clone(), at: *at, end: at + size }), *size));
                        }
                        Some(Place::Link(to)) => name = to.clone(),
                        None => break,
                    }
                }
                Err(Error::new(
                    ErrorKind::NotFound,
                    format!("open {} of {}: it is not in the archive", name.escape_ascii(), self.shown()),
                ))
            }
        }
    }

    /// A small file.
    fn document(&self, name: &[u8]) -> Result<Vec<u8>> {
        let (reader, size) = self.open(name)?;
        let what = || format!("{} of {}", name.escape_ascii(), self.shown());
        if size > MAX_DOCUMENT {
            return Err(flawed(&self.shown(), format!("{} has {size} bytes", name.escape_ascii())));
        }
        let mut bytes = Vec::new();
        reader.take(MAX_DOCUMENT).read_to_end(&mut bytes).map_err(|e| io_error(format!("read {}", what()), &e))?;
        Ok(bytes)
    }

    /// A small blob of a layout, by digest.
    fn blob(&self, descriptor: &Descriptor) -> Result<Vec<u8>> {
        let (name, digest) = blob_name(descriptor)?;
        let bytes = self.document(&name)?;
        if Digest::of(&bytes) != digest || bytes.len() as u64 != descriptor.size() {
            let detail = format!("the document is {} of {} bytes", Digest::of(&bytes), bytes.len());
            return Err(Error::flawed(Flaw::new(digest, None, FlawKind::Digest, detail)));
        }
        Ok(bytes)
    }

    /// Whether this is an OCI layout.
    pub fn is_layout(&self) -> bool {
        self.has(b"oci-layout") && self.has(b"index.json")
    }

    /// Whether this is what `docker save` writes.
    pub fn is_docker(&self) -> bool {
        self.has(b"manifest.json")
    }

    /// The image of an OCI layout for a platform, and of a reference if there are several.
    pub fn layout_image(&self, reference: Option<&str>, platform: &Platform) -> Result<Found> {
        let shown = self.shown();
        let index = self.document(b"index.json")?;
        let index = ImageIndex::from_reader(&*index).map_err(|e| flawed(&shown, format!("index.json: {e}")))?;
        let mut names = Vec::new();
        let mut candidates: Vec<&Descriptor> = Vec::new();
        for descriptor in index.manifests() {
            let name = descriptor.annotations().as_ref().and_then(|all| all.get(REF_NAME)).map(String::as_str);
            names.push(name.unwrap_or("(unnamed)").to_owned());
            // names may be short or full: "12" or "docker.io/library/debian:12"
            let same = |wanted: &str| {
                name.is_some_and(|name| name == wanted || name.rsplit_once(':').is_some_and(|(_, tag)| tag == wanted))
            };
            if reference.is_none_or(same) {
                candidates.push(descriptor);
            }
        }
        let mut search = Search { blobs: self, platform, seen: HashSet::new(), manifests: Vec::new() };
        for descriptor in candidates {
            search.descriptor(descriptor, 0)?;
        }
        match search.manifests.as_slice() {
            [manifest] => self.manifest_image(&self.blob(manifest)?),
            [] => Err(Error::new(
                ErrorKind::NotFound,
                format!(
                    "find an image for {platform}{} in {shown}",
                    reference.map_or(String::new(), |r| format!(" named {r:?}"))
                ),
            )
            .with_hint(format!("another platform, or one of the names there: {}", names.join(", ")))),
            several => {
                Err(Error::new(ErrorKind::InvalidSpec, format!("choose one of {} images of {shown}", several.len()))
                    .with_hint(format!("Import::reference with one of: {}", names.join(", "))))
            }
        }
    }

    fn manifest_image(&self, bytes: &[u8]) -> Result<Found> {
        let shown = self.shown();
        let manifest = ImageManifest::from_reader(bytes).map_err(|e| flawed(&shown, format!("its manifest: {e}")))?;
        let config = self.blob(manifest.config())?;
        let (_, diff_ids) = parse_configuration(&config, &shown)?;
        if diff_ids.len() != manifest.layers().len() {
            let detail = format!("{} layers in the manifest, {} diff-ids", manifest.layers().len(), diff_ids.len());
            return Err(flawed(&shown, detail));
        }
        let layers = manifest.layers().iter().zip(diff_ids).map(|(descriptor, diff_id)| {
            let (name, digest) = blob_name(descriptor)?;
            Ok(Blob { name, digest: Some(digest), size: Some(descriptor.size()), diff_id })
        });
        Ok(Found { config, layers: layers.collect::<Result<_>>()? })
    }

    /// The image of a `docker save` archive, by name if there are several.
    pub fn docker_image(&self, reference: Option<&str>) -> Result<Found> {
        let shown = self.shown();
        let bad = |detail: &str| flawed(&shown, format!("manifest.json: {detail}"));
        let manifest: Value =
            serde_json::from_slice(&self.document(b"manifest.json")?).map_err(|e| bad(&e.to_string()))?;
        let images = manifest.as_array().ok_or_else(|| bad("it is no list"))?;
        let tags = |image: &Value| -> Vec<String> {
            let tags = image.get("RepoTags").and_then(Value::as_array);
            tags.into_iter().flatten().filter_map(|tag| tag.as_str().map(str::to_owned)).collect()
        };
        let mut wanted = images.iter().filter(|image| {
            reference.is_none_or(|r| tags(image).iter().any(|tag| tag == r || tag.ends_with(&format!("/{r}"))))
        });
        let names = || images.iter().flat_map(tags).collect::<Vec<_>>().join(", ");
        let image = match (wanted.next(), wanted.next()) {
            (Some(image), None) => image,
            (None, _) => {
                return Err(Error::new(ErrorKind::NotFound, format!("find the image {reference:?} in {shown}"))
                    .with_hint(format!("one of the names there: {}", names())));
            }
            _ => {
                return Err(Error::new(
                    ErrorKind::InvalidSpec,
                    format!("choose one of {} images of {shown}", images.len()),
                )
                .with_hint(format!("Import::reference with one of: {}", names())));
            }
        };
        let config = image.get("Config").and_then(Value::as_str).ok_or_else(|| bad("an image without Config"))?;
        let config = self.document(config.as_bytes())?;
        let (_, diff_ids) = parse_configuration(&config, &shown)?;
        let layers = image.get("Layers").and_then(Value::as_array).ok_or_else(|| bad("an image without Layers"))?;
        let names: Vec<&str> = layers.iter().filter_map(Value::as_str).collect();
        if names.len() != diff_ids.len() {
            return Err(bad(&format!("{} layers, {} diff-ids", names.len(), diff_ids.len())));
        }
        let layers = names.iter().zip(diff_ids).map(|(name, diff_id)| Blob {
            name: name.trim_start_matches("./").as_bytes().to_vec(),
            digest: None,
            size: None,
            diff_id,
        });
        Ok(Found { config, layers: layers.collect() })
    }
}

/// The search for the manifests of a platform.
struct Search<'a> {
    blobs: &'a Blobs,
    platform: &'a Platform,
    /// Each document is read once, however often and from wherever it is referred to.
    seen: HashSet<String>,
    manifests: Vec<Descriptor>,
}

impl Search<'_> {
    fn descriptor(&mut self, descriptor: &Descriptor, nesting: u32) -> Result<()> {
        let shown = || self.blobs.shown();
        if nesting > MAX_NESTING {
            return Err(flawed(&shown(), "indexes are nested too deeply"));
        }
        if descriptor.platform().as_ref().is_some_and(|p| {
            let variant = p.variant().as_ref().zip(self.platform.variant.as_ref());
            p.os().to_string() != self.platform.os
                || p.architecture().to_string() != self.platform.architecture
                || variant.is_some_and(|(theirs, wanted)| theirs != wanted)
        }) || !self.seen.insert(descriptor.digest().to_string())
        {
            return Ok(());
        }
        if self.seen.len() > MAX_DOCUMENTS {
            return Err(flawed(&shown(), format!("more than {MAX_DOCUMENTS} documents for this platform")));
        }
        let index = matches!(descriptor.media_type(), MediaType::ImageIndex)
            || descriptor.media_type().to_string().ends_with("manifest.list.v2+json");
        if nesting > 0 && descriptor.platform().is_some() && !self.blobs.has(&blob_name(descriptor)?.0) {
            return Ok(()); // a layout may hold one platform of several
        }
        if !index {
            self.manifests.push(descriptor.clone());
            return Ok(());
        }
        let shown = descriptor.digest().to_string();
        let index =
            ImageIndex::from_reader(&*self.blobs.blob(descriptor)?).map_err(|e| flawed(&shown, e.to_string()))?;
        index.manifests().iter().try_for_each(|d| self.descriptor(d, nesting + 1))
    }
}

fn blob_name(descriptor: &Descriptor) -> Result<(Vec<u8>, Digest)> {
    let digest: Digest = descriptor.digest().to_string().parse()?;
    Ok((format!("blobs/sha256/{}", digest.hex()).into_bytes(), digest))
}

/// The name that a relative link at `name` stands for.
fn beside(name: &[u8], link: &[u8]) -> Vec<u8> {
    let mut names: Vec<&[u8]> = name.split(|b| *b == b'/').collect();
    names.pop();
    for part in link.split(|b| *b == b'/') {
        match part {
            b"" | b"." => {}
            b".." => drop(names.pop()),
            part => names.push(part),
        }
    }
    names.join(&b'/')
}

/// A part of a file.
struct Section {
    file: Arc<File>,
    at: u64,
    end: u64,
}

impl Read for Section {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = buffer.len().min((self.end - self.at).min(usize::MAX as u64) as usize);
        let n = self.file.read_at(&mut buffer[..most], self.at)?;
        self.at += n as u64;
        Ok(n)
    }
}
