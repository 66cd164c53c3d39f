//! Whether layers are what they are named after.

use super::archive::{Archive, Entry, Kind, clean};
use super::digest::Hashing;
use super::io_error;
use super::limits::Stop;
use super::marks;
use super::record::Layer;
use super::skeleton::{assemble, open_content};
use super::store::Store;
use crate::error::{Error, ErrorKind, Result};
use crate::flaw::{Flaw, FlawKind};
use crate::sys::tree;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{CString, OsStr};
use std::fs::{self, File, Metadata};
use std::io::BufReader;
use std::os::fd::AsFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

impl Store {
    /// Hashes all layers again, by putting their archives together from what is stored, and
    /// compares each entry of their trees with its archive: kind, mode, owner, length, time,
    /// target, link, attributes; nothing may be missing, nothing too many. Gives what is wrong;
    /// an empty list is a sound store.
    ///
    /// # Errors
    /// Those of reading the store.
    pub fn verify(&self) -> Result<Vec<Error>> {
        let mut damage = Vec::new();
        let mut known = BTreeSet::new();
        for image in self.each_image()? {
            let image = match image {
                Ok(image) => image,
                Err(error) => {
                    damage.push(error);
                    continue;
                }
            };
            known.extend(image.layers().iter().copied());
            let missing = image.layers().iter().filter(|layer| !self.has_layer(layer));
            damage.extend(missing.map(|layer| {
                let detail = format!("it is missing, and the image {} has it", image.name());
                Error::flawed(Flaw::new(layer, None, FlawKind::Damaged, detail))
            }));
        }
        let layers = self.path("layers");
        for entry in fs::read_dir(&layers).map_err(|e| io_error(format!("read {}", layers.display()), &e))?.flatten() {
            let name = entry.file_name();
            let digest = name.to_str().and_then(super::digest::Digest::from_hex);
            let checked = match digest {
                Some(digest) => self.layer(digest).and_then(|layer| self.verify_layer(&layer)),
                None => {
                    let detail = "a directory that is no layer";
                    Err(Error::flawed(Flaw::new(name.to_string_lossy(), None, FlawKind::Damaged, detail)))
                }
            };
            match checked {
                Err(error) if error.kind() == ErrorKind::NotFound => {} // removed meanwhile
                Err(error) => damage.push(error),
                Ok(()) => {}
            }
        }
        Ok(damage)
    }

    fn verify_layer(&self, layer: &Layer) -> Result<()> {
        let path = self.layer_path(&layer.diff_id);
        let tree = path.join("tree");
        let root = File::open(&tree).map_err(|e| io_error(format!("open {}", tree.display()), &e))?;
        let (reader, writer) = std::io::pipe().map_err(|e| io_error("make a pipe", &e))?;
        let shown = layer.diff_id.to_string();
        let (assembled, compared) = std::thread::scope(|scope| {
            let assembling = scope.spawn(|| {
                let mut out = Hashing::new(std::io::BufWriter::with_capacity(1 << 16, writer));
                let assembled = assemble(&path.join("skeleton.gz"), root.as_fd(), &mut out);
                assembled.map(|()| out.digest())
            });
            let mut archive = Archive::new(BufReader::with_capacity(1 << 16, reader), None);
            let mut comparison = Comparison {
                tree: &tree,
                layer,
                privileged: nix::unistd::geteuid().is_root(),
                seen: BTreeSet::new(),
                directories: BTreeMap::new(),
            };
            let compared = comparison.run(&mut archive).map_err(|stop| stop.of(&shown, archive.path.as_deref()));
            drop(archive); // whoever writes to the pipe must not wait for us
            (assembling.join(), compared)
        });
        match assembled {
            // a writer whose reader has given up tells nothing of its own
            Ok(Err(error)) if error.raw_os_error() != Some(libc::EPIPE) || compared.is_ok() => return Err(error),
            Ok(Ok(digest)) if compared.is_ok() && digest != layer.diff_id => {
                let detail = format!("its digest is {digest}");
                return Err(Error::flawed(Flaw::new(&shown, None, FlawKind::Damaged, detail)));
            }
            Err(_) => return Err(Error::new(ErrorKind::Other, format!("verify the layer {shown}"))),
            _ => {}
        }
        compared
    }
}

struct Comparison<'a> {
    tree: &'a Path,
    layer: &'a Layer,
    privileged: bool,
    seen: BTreeSet<Vec<u8>>,
    /// The last entry of each directory counts.
    directories: BTreeMap<Vec<u8>, Entry>,
}

fn damaged(detail: impl Into<String>) -> Stop {
    Stop::flaw(FlawKind::Damaged, detail)
}

impl Comparison<'_> {
    fn run(&mut self, archive: &mut Archive<impl std::io::BufRead>) -> Result<(), Stop> {
        while let Some(entry) = archive.next()? {
            let path = clean(&entry.path, usize::MAX)?;
            let name = path.rsplit(|b| *b == b'/').next().unwrap_or_default();
            if let Some(hidden) = name.strip_prefix(marks::PREFIX) {
                if hidden != marks::OPAQUE_SUFFIX {
                    let mut hidden_path = path[..path.len() - name.len()].to_vec();
                    hidden_path.extend_from_slice(hidden);
                    self.saw(hidden_path);
                }
            } else if entry.kind == Kind::Directory {
                self.saw(path.clone());
                self.directories.insert(path, entry);
            } else {
                self.compare(&path, &entry)?;
                self.saw(path);
            }
        }
        archive.path = None;
        for (path, entry) in &self.directories {
            self.compare(path, entry)?;
        }
        self.nothing_else()
    }

    fn saw(&mut self, path: Vec<u8>) {
        let mut at = 0;
        while let Some(slash) = path[at..].iter().position(|b| *b == b'/') {
            self.seen.insert(path[..at + slash].to_vec());
            at += slash + 1;
        }
        self.seen.insert(path);
    }

    fn full(&self, path: &[u8]) -> PathBuf {
        self.tree.join(OsStr::from_bytes(path))
    }

    fn compare(&self, path: &[u8], entry: &Entry) -> Result<(), Stop> {
        let meta = match fs::symlink_metadata(self.full(path)) {
            Ok(meta) => meta,
            Err(_) if matches!(entry.kind, Kind::Character | Kind::Block) && self.layer.left_out.devices > 0 => {
                return Ok(());
            }
            Err(e) => return Err(damaged(format!("\"{}\" is missing: {e}", path.escape_ascii()))),
        };
        let kind = meta.file_type();
        let same = match entry.kind {
            Kind::File => kind.is_file(),
            Kind::Directory => kind.is_dir(),
            Kind::Symlink => kind.is_symlink(),
            Kind::Fifo => kind.is_fifo(),
            Kind::Character => kind.is_char_device(),
            Kind::Block => kind.is_block_device(),
            Kind::HardLink => {
                let target = fs::symlink_metadata(self.full(&clean(&entry.link, usize::MAX)?));
                return match target.is_ok_and(|target| (target.dev(), target.ino()) == (meta.dev(), meta.ino())) {
                    true => Ok(()),
                    false => Err(damaged("it is no link any more")),
                };
            }
        };
        if !same {
            return Err(damaged(format!("\"{}\" is of another kind", path.escape_ascii())));
        }
        self.compare_metadata(path, entry, &meta)
    }

    fn compare_metadata(&self, path: &[u8], entry: &Entry, meta: &Metadata) -> Result<(), Stop> {
        let shown = path.escape_ascii();
        let own = match (self.privileged, entry.kind) {
            (true, _) => 0,
            (false, Kind::Directory) => 0o700,
            (false, Kind::File) => 0o400,
            (false, _) => 0,
        };
        let wrong = |what: &str, is: String, should: String| {
            Err(damaged(format!("the {what} of \"{shown}\" is {is} and should be {should}")))
        };
        let (mode, should) = (meta.mode() & 0o7777, entry.mode | own);
        if mode != should && entry.kind != Kind::Symlink {
            return wrong("mode", format!("{mode:o}"), format!("{should:o}"));
        }
        if self.privileged && (meta.uid(), meta.gid()) != (entry.uid, entry.gid) {
            let owner = |uid: u32, gid: u32| format!("{uid}:{gid}");
            return wrong("owner", owner(meta.uid(), meta.gid()), owner(entry.uid, entry.gid));
        }
        if entry.kind == Kind::File && meta.len() != entry.size {
            return wrong("length", meta.len().to_string(), entry.size.to_string());
        }
        let time = (meta.mtime(), meta.mtime_nsec());
        if time != (entry.mtime.0, entry.mtime.1.into()) {
            return wrong(
                "time",
                format!("{}.{:09}", time.0, time.1),
                format!("{}.{:09}", entry.mtime.0, entry.mtime.1),
            );
        }
        if entry.kind == Kind::Symlink {
            let target = fs::read_link(self.full(path)).map(|target| target.into_os_string().into_vec());
            if target.ok().as_deref() != Some(&entry.link) {
                return Err(damaged(format!("the link \"{shown}\" leads elsewhere")));
            }
        }
        if matches!(entry.kind, Kind::File | Kind::Directory) {
            self.compare_attributes(path, entry)?;
        }
        Ok(())
    }

    fn compare_attributes(&self, path: &[u8], entry: &Entry) -> Result<(), Stop> {
        let file = match path {
            b"" => File::open(self.tree).map_err(|e| io_error("open a tree", &e))?,
            path => {
                let root = File::open(self.tree).map_err(|e| io_error("open a tree", &e))?;
                open_content(root.as_fd(), path)?
            }
        };
        for (name, value) in entry.xattrs.iter().filter(|(name, _)| name.starts_with(b"user.")) {
            let c_name = CString::new(name.as_slice()).unwrap_or_default();
            let is = tree::attribute(file.as_fd(), &c_name).map_err(|errno| Error::call("read an attribute", errno))?;
            // a file system without attributes had none to give
            if is.as_ref() != Some(value) && self.layer.left_out.attributes == 0 {
                return Err(damaged(format!("the attribute {} of \"{}\"", name.escape_ascii(), path.escape_ascii())));
            }
        }
        let mine = tree::attributes(file.as_fd()).map_err(|errno| Error::call("list attributes", errno))?;
        let strange = mine.keys().find(|name| {
            let bytes = name.to_bytes();
            bytes.starts_with(b"user.")
                && !marks::is_reserved(bytes)
                && !entry.xattrs.iter().any(|(known, _)| known == bytes)
        });
        match strange {
            Some(name) => {
                Err(damaged(format!("the attribute {name:?} of \"{}\" is not its archive's", path.escape_ascii())))
            }
            None => Ok(()),
        }
    }

    /// Whether the tree has anything that the archive has not.
    fn nothing_else(&self) -> Result<(), Stop> {
        let mut directories = vec![Vec::new()];
        while let Some(directory) = directories.pop() {
            let full = self.full(&directory);
            let entries = fs::read_dir(&full).map_err(|e| io_error(format!("read {}", full.display()), &e))?;
            for entry in entries.flatten() {
                let mut path = directory.clone();
                if !path.is_empty() {
                    path.push(b'/');
                }
                path.extend_from_slice(entry.file_name().as_bytes());
                if !self.seen.contains(&path) {
                    return Err(damaged(format!("\"{}\" is not in its archive", path.escape_ascii())));
                }
                if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    directories.push(path);
                }
            }
        }
        Ok(())
    }
}
