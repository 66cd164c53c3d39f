//! Taking images into a store.

use super::decode;
use super::digest::Digest;
use super::extract::{Unpacked, extract};
use super::io_error;
use super::limits::{Devices, Durability, FileCapabilities, Limits, Policy};
use super::record::{Image, Layer, Platform, full_name, parse_configuration};
use super::source::{Blob, Blobs, Found};
use super::store::{Store, Work};
use crate::error::{Error, ErrorKind, Result};
use crate::flaw::{Flaw, FlawKind};
use serde_json::json;
use std::fmt;
use std::fs::{DirBuilder, File};
use std::io::Read;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// What to import, and how: see [`Store::import`].
///
/// ```
/// use belljar::image::{Devices, Import, Limits};
/// use belljar::Bytes;
///
/// let import = Import::oci_layout("layout")
///     .reference("v1")
///     .devices(Devices::Refuse)
///     .limits(Limits { bytes: Bytes::gib(2), ..Limits::default() });
/// ```
pub struct Import<'a> {
    source: Source,
    reference: Option<String>,
    platform: Platform,
    policy: Policy,
    progress: Option<&'a Observer<'a>>,
}

type Observer<'a> = dyn Fn(&Progress) + Sync + 'a;

enum Source {
    Layout(PathBuf),
    Docker(PathBuf),
    Rootfs(PathBuf),
    Stream(Mutex<Option<Box<dyn Read + Send>>>, String),
    Any(PathBuf),
}

/// How far an import has come with one layer.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Progress {
    /// Which layer, from 0, lowest first.
    pub layer: usize,
    /// How many there are.
    pub layers: usize,
    /// What the layer is called in its source.
    pub name: String,
    /// Bytes read of it; its length when it was in the store already.
    pub read: u64,
    /// Its length, if known.
    pub total: Option<u64>,
    /// Whether it is in the store now.
    pub done: bool,
}

impl fmt::Debug for Import<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let source = match &self.source {
            Source::Layout(path) | Source::Docker(path) | Source::Rootfs(path) | Source::Any(path) => {
                path.display().to_string()
            }
            Source::Stream(_, name) => name.clone(),
        };
        let Import { reference, platform, policy, .. } = self;
        f.debug_struct("Import")
            .field("source", &source)
            .field("reference", reference)
            .field("platform", platform)
            .field("policy", policy)
            .finish_non_exhaustive()
    }
}

impl<'a> Import<'a> {
    fn new(source: Source) -> Import<'a> {
        Import { source, reference: None, platform: Platform::host(), policy: Policy::default(), progress: None }
    }

    /// An OCI image layout: a directory, or an uncompressed tar archive of one.
    pub fn oci_layout(path: impl Into<PathBuf>) -> Import<'a> {
        Import::new(Source::Layout(path.into()))
    }

    /// What `docker save`, `podman save` or `skopeo copy … docker-archive:` writes.
    pub fn docker_archive(path: impl Into<PathBuf>) -> Import<'a> {
        Import::new(Source::Docker(path.into()))
    }

    /// A plain root file system as one layer: a tar archive, uncompressed, gzip or zstd.
    pub fn rootfs(path: impl Into<PathBuf>) -> Import<'a> {
        Import::new(Source::Rootfs(path.into()))
    }

    /// As [`rootfs`](Import::rootfs), from a stream; `name` is what messages call it.
    pub fn rootfs_from(name: impl Into<String>, stream: impl Read + Send + 'static) -> Import<'a> {
        Import::new(Source::Stream(Mutex::new(Some(Box::new(stream))), name.into()))
    }

    /// Whichever of the three it is, by what is in it; a compressed archive is a root file system.
    pub fn detect(path: impl Into<PathBuf>) -> Import<'a> {
        Import::new(Source::Any(path.into()))
    }

    /// Which of several images: a layout's `org.opencontainers.image.ref.name` or its tag, an
    /// archive's `RepoTags`.
    pub fn reference(mut self, name: impl Into<String>) -> Self {
        self.reference = Some(name.into());
        self
    }

    /// For which platform, where a layout has several; [`Platform::host`] unless set.
    pub fn platform(mut self, platform: Platform) -> Self {
        self.platform = platform;
        self
    }

    /// Caps on each layer.
    pub fn limits(mut self, limits: Limits) -> Self {
        self.policy.limits = limits;
        self
    }

    /// What to do with device nodes; [`Devices::Skip`] unless set.
    pub fn devices(mut self, devices: Devices) -> Self {
        self.policy.devices = devices;
        self
    }

    /// What to do with capabilities of files; [`FileCapabilities::Keep`] unless set.
    pub fn file_capabilities(mut self, capabilities: FileCapabilities) -> Self {
        self.policy.capabilities = capabilities;
        self
    }

    /// Whether a layer is on the disk before it counts; [`Durability::Disk`] unless set.
    pub fn durability(mut self, durability: Durability) -> Self {
        self.policy.durability = durability;
        self
    }

    /// Is told how far the import has come, from several threads, some times a second and layer.
    pub fn progress(mut self, observer: &'a Observer<'a>) -> Self {
        self.progress = Some(observer);
        self
    }

    fn tell(&self, layer: usize, layers: usize, name: &str, read: u64, total: Option<u64>, done: bool) {
        if let Some(observer) = self.progress {
            observer(&Progress { layer, layers, name: name.to_owned(), read, total, done });
        }
    }
}

impl Store {
    /// Takes an image in and gives it a name (`debian:12`; tag `latest` unless given), which
    /// before may have stood for another. Layers that the store has are not read again, also
    /// those that an interrupted import has brought. Two processes that import the same layer
    /// unpack it once: the second waits.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidImage`] with [`Error::flaw`]: layer, entry and reason. The store is
    /// then as before, except that layers which were complete stay until [`gc`](Store::gc).
    /// [`ErrorKind::NotFound`] for a source, reference or platform that is not there.
    pub fn import(&self, import: Import<'_>, name: &str) -> Result<Image> {
        full_name(name)?;
        let limits = &import.policy.limits;
        match &import.source {
            Source::Layout(path) => {
                let blobs = if path.is_dir() { Blobs::directory(path)? } else { Blobs::archive(path, limits)? };
                let found = blobs.layout_image(import.reference.as_deref(), &import.platform)?;
                self.import_found(&import, &blobs, found, name)
            }
            Source::Docker(path) => {
                let blobs = if path.is_dir() { Blobs::directory(path)? } else { Blobs::archive(path, limits)? };
                let found = blobs.docker_image(import.reference.as_deref())?;
                self.import_found(&import, &blobs, found, name)
            }
            Source::Any(path) => {
                let blobs = if path.is_dir() {
                    Blobs::directory(path)?
                } else {
                    match Blobs::archive(path, limits) {
                        Err(e) if e.kind() == ErrorKind::NotSupported => return self.import_file(&import, path, name),
                        answer => answer?,
                    }
                };
                let reference = import.reference.as_deref();
                if blobs.is_layout() {
                    let found = blobs.layout_image(reference, &import.platform)?;
                    self.import_found(&import, &blobs, found, name)
                } else if blobs.is_docker() {
                    let found = blobs.docker_image(reference)?;
                    self.import_found(&import, &blobs, found, name)
                } else if path.is_dir() {
                    Err(Error::new(ErrorKind::NotFound, format!("find an OCI layout in {}", path.display())))
                } else {
                    self.import_file(&import, path, name)
                }
            }
            Source::Rootfs(path) => self.import_file(&import, path, name),
            Source::Stream(stream, source) => {
                let stream = stream.lock().ok().and_then(|mut stream| stream.take());
                let stream =
                    stream.ok_or_else(|| Error::new(ErrorKind::NotFound, "import a stream for a second time"))?;
                self.import_rootfs(&import, stream, source, None, name)
            }
        }
    }

    fn import_file(&self, import: &Import<'_>, path: &std::path::Path, name: &str) -> Result<Image> {
        let file = File::open(path).map_err(|e| io_error(format!("open {}", path.display()), &e))?;
        let total = file.metadata().ok().filter(|meta| meta.is_file()).map(|meta| meta.len());
        self.import_rootfs(import, file, &path.display().to_string(), total, name)
    }

    fn import_rootfs(
        &self,
        import: &Import<'_>,
        stream: impl Read + Send,
        source: &str,
        total: Option<u64>,
        name: &str,
    ) -> Result<Image> {
        let mut read = 0;
        let tell = &mut |n| {
            read = n;
            import.tell(0, 1, source, n, total, false);
        };
        let (layer, _lease) = self.add_layer(stream, &import.policy, source, tell)?;
        let config = json!({
            "architecture": import.platform.architecture,
            "os": import.platform.os,
            "config": {},
            "rootfs": { "type": "layers", "diff_ids": [layer.diff_id.to_string()] },
        });
        let image = self.enter(name, config.to_string().as_bytes(), import.policy.durability)?;
        import.tell(0, 1, source, read, total, true);
        Ok(image)
    }

    /// Unpacks a layer whose diff-id shows only at the end. It is leased until its image is entered.
    pub(super) fn add_layer(
        &self,
        stream: impl Read + Send,
        policy: &Policy,
        source: &str,
        tell: &mut (dyn FnMut(u64) + Send),
    ) -> Result<(Layer, crate::handle::Lease)> {
        let work = self.work()?;
        let unpacked = unpack(stream, &work, policy, source, tell)?;
        let diff_id = unpacked.ends.plain;
        let lease = {
            let held = self.lock_shared()?;
            self.lease(&diff_id, &[diff_id], &held)?
        };
        let layer = self.publish(work, unpacked, policy.durability)?;
        Ok((layer, lease))
    }

    /// Writes a configuration and gives it a name; its layers are there, and leased.
    pub(super) fn enter(&self, name: &str, config: &[u8], durability: Durability) -> Result<Image> {
        let digest = Digest::of(config);
        self.patch(digest, &parse_configuration(config, name)?.1, durability)?;
        let _held = self.lock_shared()?;
        self.write(&self.config_path(&digest), config, durability)?;
        self.record(name, digest, durability)
    }

    fn import_found(&self, import: &Import<'_>, blobs: &Blobs, found: Found, name: &str) -> Result<Image> {
        let diff_ids: Vec<Digest> = found.layers.iter().map(|layer| layer.diff_id).collect();
        let _lease = {
            let held = self.lock_shared()?;
            self.lease(&Digest::of(&found.config), &diff_ids, &held)?
        };
        let count = found.layers.len();
        let threads = std::thread::available_parallelism().map_or(1, usize::from).min(count);
        let next = AtomicUsize::new(0);
        let stopped = AtomicBool::new(false);
        let failure = Mutex::new(None);
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| {
                    while !stopped.load(Ordering::Relaxed) {
                        let number = next.fetch_add(1, Ordering::Relaxed);
                        let Some(blob) = found.layers.get(number) else { break };
                        if let Err(error) = self.import_layer(import, blobs, blob, number, count) {
                            stopped.store(true, Ordering::Relaxed);
                            if let Ok(mut failure) = failure.lock() {
                                failure.get_or_insert(error);
                            }
                        }
                    }
                });
            }
        });
        match failure.into_inner() {
            Ok(Some(error)) => Err(error),
            _ => self.enter(name, &found.config, import.policy.durability),
        }
    }

    fn import_layer(&self, import: &Import<'_>, blobs: &Blobs, blob: &Blob, number: usize, count: usize) -> Result<()> {
        let shown = blob.shown();
        if self.has_layer(&blob.diff_id) {
            import.tell(number, count, &shown, 0, None, true);
            return Ok(());
        }
        let _one_at_a_time = self.lock_layer(&blob.diff_id)?;
        if self.has_layer(&blob.diff_id) {
            import.tell(number, count, &shown, 0, None, true);
            return Ok(());
        }
        let (stream, total) = blobs.open(&blob.name)?;
        if let Some(size) = blob.size.filter(|size| *size != total) {
            let detail = format!("the blob has {total} bytes and should have {size}");
            return Err(Error::flawed(Flaw::new(&shown, None, FlawKind::Digest, detail)));
        }
        let work = self.work()?;
        let tell = &mut |read| import.tell(number, count, &shown, read, Some(total), false);
        let unpacked = unpack(stream, &work, &import.policy, &shown, tell)?;
        let wrong = |what: &str, is: Digest, should: Digest| {
            let detail = format!("the digest of {what} is {is} and should be {should}");
            Err(Error::flawed(Flaw::new(&shown, None, FlawKind::Digest, detail)))
        };
        if let Some(digest) = blob.digest.filter(|digest| *digest != unpacked.ends.compressed) {
            return wrong("the blob", unpacked.ends.compressed, digest);
        }
        if blob.diff_id != unpacked.ends.plain {
            return wrong("the archive (the diff-id)", unpacked.ends.plain, blob.diff_id);
        }
        self.publish(work, unpacked, import.policy.durability)?;
        import.tell(number, count, &shown, total, Some(total), true);
        Ok(())
    }

    /// Gives a complete layer its place; one that is there already stays.
    fn publish(&self, work: Work, unpacked: Unpacked, durability: Durability) -> Result<Layer> {
        let Unpacked { ends, implicit, entries, left_out } = unpacked;
        let layer = Layer { diff_id: ends.plain, archive_bytes: ends.plain_bytes, entries, left_out };
        let record = work.path().join("layer.json");
        std::fs::write(&record, layer.to_json()).map_err(|e| io_error(format!("write {}", record.display()), &e))?;
        if !implicit.is_empty() {
            let path = work.path().join("implicit");
            std::fs::write(&path, implicit).map_err(|e| io_error(format!("write {}", path.display()), &e))?;
        }
        work.publish(&self.layer_path(&layer.diff_id), durability)?;
        Ok(layer)
    }
}

fn unpack(
    stream: impl Read + Send,
    work: &Work,
    policy: &Policy,
    shown: &str,
    tell: &mut (dyn FnMut(u64) + Send),
) -> Result<Unpacked> {
    let tree = work.path().join("tree");
    // an archive that does not describe its root has this one
    DirBuilder::new().mode(0o755).create(&tree).map_err(|e| io_error(format!("make {}", tree.display()), &e))?;
    let (feed, chunks) = decode::channel();
    let limits = &policy.limits;
    std::thread::scope(|scope| {
        scope.spawn(move || feed.run(stream, limits, tell));
        extract(chunks, &tree, &work.path().join("skeleton.gz"), policy, shown)
    })
}
