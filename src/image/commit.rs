//! Making images: from what a sandbox has changed, and from other images.

use super::digest::Digest;
use super::io_error;
use super::limits::{Devices, Durability, Limits, Policy};
use super::pack::{Packing, pack};
use super::record::{Image, Platform};
use super::store::Store;
use super::view::View;
use crate::error::{Error, ErrorKind, Result};
use crate::handle::Lease;
use crate::host::Host;
use crate::rootfs::{Changes, InInitLayer, Ranges, noted_ids, noted_init};
use crate::sys::path::{FileKind, OpenFlags};
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;
use std::fs;
use std::io::BufWriter;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::time::Duration;

/// What to commit, and what the new image says of itself: see [`Store::commit`].
///
/// ```no_run
/// use belljar::image::{Commit, Store};
/// use belljar::{Command, RootFs, Sandbox};
///
/// let store = Store::open("/var/lib/bells")?;
/// let root = RootFs::image(&store, "debian:12")?.track_changes();
/// let mut child = Sandbox::builder(root).build()?.spawn(Command::new("touch").arg("/new"))?;
/// child.wait()?;
/// let changes = child.changes()?;
/// let commit = Commit::changes(&changes).parent("debian:12").cmd(["/bin/ls", "/new"]);
/// store.commit(commit, "mine:1")?;
/// # Ok::<(), belljar::Error>(())
/// ```
#[derive(Debug)]
pub struct Commit<'a> {
    from: From<'a>,
    parent: Option<String>,
    set: Map<String, Value>,
    history: Map<String, Value>,
    author: Option<String>,
    created: Option<String>,
    latest: Option<i64>,
    except: BTreeSet<Vec<u8>>,
    durability: Durability,
}

#[derive(Debug)]
enum From<'a> {
    Upper(PathBuf),
    Changes(&'a Changes),
}

impl<'a> Commit<'a> {
    fn new(from: From<'a>) -> Commit<'a> {
        Commit {
            from,
            parent: None,
            set: Map::new(),
            history: Map::new(),
            author: None,
            created: None,
            latest: None,
            except: BTreeSet::new(),
            durability: Durability::Disk,
        }
    }

    /// What a sandbox with [`RootFs::track_changes`](crate::RootFs::track_changes) has changed. Entries
    /// of the init layer stay out, also where the payload has written to them.
    pub fn changes(changes: &'a Changes) -> Commit<'a> {
        Commit::new(From::Changes(changes))
    }

    /// The directory that was given to [`Upper::Persist`](crate::Upper::Persist), while no sandbox uses it. Entries of the
    /// init layers of those that did stay out.
    pub fn upper(path: impl Into<PathBuf>) -> Commit<'static> {
        Commit::new(From::Upper(path.into()))
    }

    /// The image on which the sandbox stood: its layers and configuration are the new one's,
    /// with the changes on top. Without it the changes are an image of their own.
    pub fn parent(mut self, name: impl Into<String>) -> Self {
        self.parent = Some(name.into());
        self
    }

    /// Who made it.
    pub fn author(mut self, author: impl Into<String>) -> Self {
        self.author = Some(author.into());
        self
    }

    /// How it was made, for the history.
    pub fn created_by(mut self, command: impl Into<String>) -> Self {
        self.history.insert("created_by".into(), command.into().into());
        self
    }

    /// A remark, for the history.
    pub fn comment(mut self, comment: impl Into<String>) -> Self {
        self.history.insert("comment".into(), comment.into().into());
        self
    }

    /// When it was made, in the form of RFC 3339. Not in the image unless set: the same
    /// changes give the same image.
    pub fn created(mut self, time: impl Into<String>) -> Self {
        self.created = Some(time.into());
        self
    }

    /// No file is later than this time since the epoch: what the run wrote has one time, and
    /// the same run gives the same layer.
    pub fn latest_mtime(mut self, time: Duration) -> Self {
        self.latest = Some(i64::try_from(time.as_secs()).unwrap_or(i64::MAX));
        self
    }

    /// Leaves out a path, with all that is in it.
    pub fn except(mut self, path: impl Into<PathBuf>) -> Self {
        let path: PathBuf = path.into();
        let path = path.strip_prefix("/").unwrap_or(&path);
        self.except.insert(path.as_os_str().as_bytes().to_vec());
        self
    }

    fn words<S: Into<String>>(words: impl IntoIterator<Item = S>) -> Value {
        words.into_iter().map(|word| Value::String(word.into())).collect()
    }

    /// The arguments that a run without any gets (`CMD`).
    pub fn cmd<S: Into<String>>(mut self, words: impl IntoIterator<Item = S>) -> Self {
        self.set.insert("Cmd".into(), Self::words(words));
        self
    }

    /// The program and its fixed arguments (`ENTRYPOINT`).
    pub fn entrypoint<S: Into<String>>(mut self, words: impl IntoIterator<Item = S>) -> Self {
        self.set.insert("Entrypoint".into(), Self::words(words));
        self
    }

    /// The environment, each `NAME=VALUE`, in place of the parent's.
    pub fn env<S: Into<String>>(mut self, variables: impl IntoIterator<Item = S>) -> Self {
        self.set.insert("Env".into(), Self::words(variables));
        self
    }

    /// The working directory.
    pub fn working_dir(mut self, path: impl Into<String>) -> Self {
        self.set.insert("WorkingDir".into(), path.into().into());
        self
    }

    /// The user: `user`, `uid`, `user:group` or `uid:gid`.
    pub fn user(mut self, user: impl Into<String>) -> Self {
        self.set.insert("User".into(), user.into().into());
        self
    }

    /// A label.
    pub fn label(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        let labels = self.set.entry("Labels").or_insert_with(|| json!({}));
        if let Some(labels) = labels.as_object_mut() {
            labels.insert(key.into(), value.into().into());
        }
        self
    }

    /// Whether the layer is on the disk before it counts; [`Durability::Disk`] unless set.
    pub fn durability(mut self, durability: Durability) -> Self {
        self.durability = durability;
        self
    }

    fn tree(&self) -> Result<(View, Packing)> {
        let mut packing = Packing {
            uids: Vec::new(),
            gids: Vec::new(),
            except: self.except.clone(),
            latest: self.latest,
            base: Vec::new(),
            whiteouts: true,
        };
        let fd: OwnedFd = match &self.from {
            From::Upper(path) => {
                (packing.uids, packing.gids) = noted_ids(path)?.unwrap_or_else(own_ids);
                let init = noted_init(path)?;
                let path = path.join("upper");
                // a directory of an init layer is a place for a mount: what else is in it, the payload has made
                packing.except.extend(init.iter().filter_map(|entry| {
                    let entry = entry.strip_prefix("/").unwrap_or(entry);
                    let kept = fs::symlink_metadata(path.join(entry)).is_ok_and(|meta| meta.is_dir());
                    (!kept).then(|| entry.as_os_str().as_bytes().to_vec())
                }));
                let file = fs::File::open(&path).map_err(|e| {
                    io_error(format!("open the upper {}", path.display()), &e)
                        .with_hint("the directory that was given to Upper::Persist")
                })?;
                file.into()
            }
            From::Changes(changes) => {
                for change in changes.iter() {
                    let change = change?;
                    // a directory on the way to such an entry is in the init layer too, but not its content
                    if change.in_init_layer == InInitLayer::Yes && change.file != FileKind::Directory {
                        let path = change.path.strip_prefix("/").unwrap_or(&change.path);
                        packing.except.insert(path.as_os_str().as_bytes().to_vec());
                    }
                }
                (packing.uids, packing.gids) = changes.written_ids().unwrap_or_else(own_ids);
                let upper = changes.upper().try_clone_to_owned();
                // opened anew: a descriptor that only names cannot be listed
                let upper = upper.map_err(|e| io_error("copy a descriptor", &e))?;
                crate::sys::tree::open_beneath(upper.as_fd(), c".", OpenFlags::DIRECTORY, true)
                    .map_err(|errno| Error::call("open the upper of a sandbox", errno))?
            }
        };
        Ok((View::of(vec![fd]), packing))
    }
}

/// Where nothing is noted: an ordinary user's own files are root's, root's are as they are.
pub(super) fn own_ids() -> (Ranges, Ranges) {
    let host = Host::probe();
    match host.may_map {
        true => (Vec::new(), Vec::new()),
        false => (vec![(0, host.uid, 1)], vec![(0, host.gid, 1)]),
    }
}

impl Store {
    /// Makes an image of what a sandbox has changed. The layer's archive is reproducible: sorted,
    /// without names of users, its whiteouts as OCI has them, with the times of the files. An
    /// ordinary user's layer has the owners that the files should have, as far as they are known.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] for the parent or upper; [`ErrorKind::NotSupported`] for an upper
    /// that refers to its layers (`redirect_dir`, `metacopy`).
    pub fn commit(&self, commit: Commit<'_>, name: &str) -> Result<Image> {
        super::record::full_name(name)?;
        let parent = commit.parent.as_deref().map(|parent| self.image(parent)).transpose()?;
        let (view, packing) = commit.tree()?;
        let (layer, _lease) = self.add_packed(&view, &packing, commit.durability)?;
        let mut config = match &parent {
            Some(parent) => self.config_value(parent)?,
            None => empty_configuration(),
        };
        let mut entry = commit.history.clone();
        if let Some(created) = &commit.created {
            config["created"] = json!(created);
            entry.insert("created".into(), json!(created));
        }
        if let Some(author) = &commit.author {
            config["author"] = json!(author);
            entry.insert("author".into(), json!(author));
        }
        for (key, value) in &commit.set {
            config["config"][key] = value.clone();
        }
        append(&mut config["rootfs"]["diff_ids"], json!(layer.to_string()));
        append(&mut config["history"], Value::Object(entry));
        self.enter(name, config.to_string().as_bytes(), commit.durability)
    }

    /// Makes an image of one layer that shows what this one shows, with the same configuration.
    ///
    /// # Errors
    /// As [`image`](Store::image), and those of reading the layers.
    pub fn squash(&self, name: &str, new: &str) -> Result<Image> {
        super::record::full_name(new)?;
        let (image, _held) = self.hold(name)?;
        let view = View::open(self.trees(&image))?;
        let (uids, gids) = own_ids();
        let packing = Packing { uids, gids, except: BTreeSet::new(), latest: None, base: Vec::new(), whiteouts: false };
        let (layer, _lease) = self.add_packed(&view, &packing, Durability::Disk)?;
        let mut config = self.config_value(&image)?;
        config["rootfs"]["diff_ids"] = json!([layer.to_string()]);
        config["history"] = json!([{ "created_by": "squash", "comment": format!("squashed from {}", image.id()) }]);
        self.enter(new, config.to_string().as_bytes(), Durability::Disk)
    }

    /// An image, and a lease on its layers.
    pub(super) fn hold(&self, name: &str) -> Result<(Image, Lease)> {
        let held = self.lock_shared()?;
        let image = self.image(name)?;
        if let Some(missing) = image.layers().iter().find(|layer| !self.has_layer(layer)) {
            return Err(super::record::damaged(&missing.to_string(), "it is not in the store"));
        }
        let lease = self.lease(&image.id(), image.layers(), &held)?;
        Ok((image, lease))
    }

    pub(super) fn config_value(&self, image: &Image) -> Result<Value> {
        let path = self.config_path(&image.id());
        let bytes = fs::read(&path).map_err(|e| io_error(format!("open {}", path.display()), &e))?;
        serde_json::from_slice(&bytes)
            .ok()
            .filter(Value::is_object)
            .ok_or_else(|| super::record::damaged(image.name(), "its configuration is damaged"))
    }

    /// Packs a tree and unpacks it into the store, without a file in between.
    fn add_packed(&self, view: &View, packing: &Packing, durability: Durability) -> Result<(Digest, Lease)> {
        let (reader, writer) = std::io::pipe().map_err(|e| io_error("make a pipe", &e))?;
        let root = nix::unistd::geteuid().is_root();
        let policy = Policy {
            limits: Limits { bytes: crate::units::Bytes::new(i64::MAX as u64), ..Limits::default() },
            devices: if root { Devices::Create } else { Devices::Skip },
            durability,
            ..Policy::default()
        };
        std::thread::scope(|scope| {
            let packing = scope.spawn(move || pack(view, packing, BufWriter::with_capacity(1 << 16, writer)));
            let added = self.add_layer(reader, &policy, "the layer that is being made", &mut |_| {});
            match (packing.join(), added) {
                (Ok(Ok(())), added) => added.map(|(layer, lease)| (layer.diff_id, lease)),
                // the reader's reason is the better one where the writer found nobody to read
                (Ok(Err(error)), Err(reason)) if error.raw_os_error() == Some(libc::EPIPE) => Err(reason),
                (Ok(Err(error)), _) => Err(error),
                (Err(_), _) => Err(Error::new(ErrorKind::Other, "pack a layer")),
            }
        })
    }
}

fn append(list: &mut Value, item: Value) {
    match list.as_array_mut() {
        Some(list) => list.push(item),
        None => *list = json!([item]),
    }
}

fn empty_configuration() -> Value {
    let platform = Platform::host();
    json!({
        "architecture": platform.architecture,
        "os": platform.os,
        "config": {},
        "rootfs": { "type": "layers", "diff_ids": [] },
    })
}
