//! A tree of overlayfs as an archive: sorted, with whiteouts written as names.

use super::marks::{self, STAT};
use super::view::{Node, View};
use super::write::{Item, Writer};
use crate::error::{Error, ErrorKind, Result};
use crate::rootfs::Ranges;
use crate::sys::path::OpenFlags;
use crate::sys::{Errno, tree};
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{CStr, OsStr};
use std::fs::File;
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use tar::EntryType;

/// How a tree becomes an archive.
pub(super) struct Packing {
    /// Inside, outside, count: ids of the host that stand for ids of the image.
    pub uids: Ranges,
    pub gids: Ranges,
    /// Paths, relative, that are left out with all that is in them.
    pub except: BTreeSet<Vec<u8>>,
    /// No time is later.
    pub latest: Option<i64>,
    /// The directory of the view that becomes the archive's root.
    pub base: Vec<u8>,
    /// Whether marks become whiteouts: for a layer on others, not for the whole.
    pub whiteouts: bool,
}

/// Writes all that a view shows.
pub(super) fn pack(view: &View, packing: &Packing, out: impl Write) -> Result<()> {
    let mut packer = Packer { view, packing, writer: Writer::new(out), links: BTreeMap::new() };
    let root = view.find(Path::new(OsStr::from_bytes(&packing.base)))?;
    let root = root.ok_or_else(|| Error::call(format!("find {}", packing.base.escape_ascii()), Errno::ENOENT))?;
    packer.node(&root)?;
    packer.writer.finish().map(drop)
}

struct Packer<'a, W> {
    view: &'a View,
    packing: &'a Packing,
    writer: Writer<W>,
    /// The first path of each file with several names.
    links: BTreeMap<(u64, u64), Vec<u8>>,
}

fn mapped(id: u32, ranges: &[(u32, u32, u32)]) -> u32 {
    let range = ranges.iter().find(|(_, outside, count)| id >= *outside && id - outside < *count);
    range.map_or(id, |(inside, outside, _)| inside + (id - outside))
}

impl<W: Write> Packer<'_, W> {
    fn node(&mut self, node: &Node) -> Result<()> {
        if self.packing.except.contains(&node.path) {
            return Ok(());
        }
        if node.is_whiteout() {
            return if self.packing.whiteouts { self.whiteout(node) } else { Ok(()) };
        }
        let stat = &node.stat;
        let (mut uid, mut gid) = (mapped(stat.st_uid, &self.packing.uids), mapped(stat.st_gid, &self.packing.gids));
        let mut mode = stat.st_mode & 0o7777;
        let mut xattrs = Vec::new();
        let mut opened = None;
        if matches!(node.kind(), libc::S_IFREG | libc::S_IFDIR) {
            let flags = if node.is_dir() { OpenFlags::DIRECTORY } else { OpenFlags::default() };
            let fd = self.view.open_node(node, flags)?;
            let fail = |errno| Error::call(format!("read the attributes of {}", node.path.escape_ascii()), errno);
            for (name, value) in tree::attributes(fd.as_fd()).map_err(fail)? {
                let bytes = name.to_bytes();
                refuse_redirects(&name, node)?;
                if (bytes.starts_with(b"user.") && !marks::is_reserved(bytes)) || bytes == b"security.capability" {
                    xattrs.push((bytes.to_vec(), value));
                } else if name.as_c_str() == STAT && (uid, gid) == (0, 0) && !nix::unistd::geteuid().is_root() {
                    (uid, gid, mode) = kept(&value, mode, node.is_dir()).unwrap_or((uid, gid, mode));
                }
            }
            opened = Some(File::from(fd));
        }
        let path = match self.relative(&node.path) {
            b"" => &b"./"[..],
            path => path,
        };
        let mut seconds = stat.st_mtime;
        let mut nanos = stat.st_mtime_nsec as u32;
        if let Some(latest) = self.packing.latest.filter(|latest| seconds >= *latest) {
            (seconds, nanos) = (latest, 0);
        }
        let item = Item { path, mode, uid, gid, mtime: (seconds, nanos), xattrs: &xattrs, ..Item::default() };
        if !node.is_dir() && stat.st_nlink > 1 {
            let id = (stat.st_dev, stat.st_ino);
            if let Some(first) = self.links.get(&id) {
                let item = Item { kind: EntryType::Link, link: first, xattrs: &[], ..item };
                return self.writer.entry(&item, None);
            }
            self.links.insert(id, path.to_vec());
        }
        let device = (nix::sys::stat::major(stat.st_rdev) as u32, nix::sys::stat::minor(stat.st_rdev) as u32);
        match node.kind() {
            libc::S_IFREG => {
                let mut file = opened.ok_or_else(|| Error::new(ErrorKind::Other, "a file that is not open"))?;
                let item = Item { size: stat.st_size as u64, ..item };
                self.writer.entry(&item, Some(&mut file))
            }
            libc::S_IFDIR => {
                drop(opened);
                self.writer.entry(&Item { kind: EntryType::Directory, ..item }, None)?;
                self.children(node)
            }
            libc::S_IFLNK => {
                let link = self.view.link(node)?;
                self.writer.entry(&Item { kind: EntryType::Symlink, link: &link, mode: 0o777, ..item }, None)
            }
            libc::S_IFIFO => self.writer.entry(&Item { kind: EntryType::Fifo, ..item }, None),
            libc::S_IFCHR => self.writer.entry(&Item { kind: EntryType::Char, device, ..item }, None),
            libc::S_IFBLK => self.writer.entry(&Item { kind: EntryType::Block, device, ..item }, None),
            _ => Ok(()), // a socket is nothing without its process
        }
    }

    /// A path of the view as the archive has it.
    fn relative<'p>(&self, path: &'p [u8]) -> &'p [u8] {
        match self.packing.base.len() {
            0 => path,
            base => path.get(base + 1..).unwrap_or_default(),
        }
    }

    fn children(&mut self, node: &Node) -> Result<()> {
        if self.packing.whiteouts && !node.path.is_empty() && self.view.is_opaque(node)? {
            let path = [self.relative(&node.path), b"/", marks::PREFIX, marks::OPAQUE_SUFFIX].concat();
            self.writer.entry(&Item { path: &path, mode: 0, ..Item::default() }, None)?;
        }
        for child in self.view.list(node)? {
            if child.name().starts_with(marks::PREFIX) {
                return Err(Error::new(
                    ErrorKind::NotSupported,
                    format!("pack \"{}\": an archive would take it for a whiteout", child.path.escape_ascii()),
                )
                .with_hint("a file name without \".wh.\" in front"));
            }
            self.node(&child)?;
        }
        Ok(())
    }

    fn whiteout(&mut self, node: &Node) -> Result<()> {
        let (name, path) = (node.name(), self.relative(&node.path));
        let path = [&path[..path.len() - name.len()], marks::PREFIX, name].concat();
        self.writer.entry(&Item { path: &path, mode: 0, ..Item::default() }, None)
    }
}

/// What an ordinary user's file should be. Its mode only if nobody has changed it since.
fn kept(value: &[u8], mode: u32, directory: bool) -> Option<(u32, u32, u32)> {
    let text = std::str::from_utf8(value).ok()?;
    let mut words = text.split(' ');
    let (uid, gid) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
    let original = u32::from_str_radix(words.next()?, 8).ok()?;
    let own = if directory { 0o700 } else { 0o400 };
    Some((uid, gid, if mode == original | own { original } else { mode }))
}

/// Marks by which an upper refers to its layers: alone, it is not what it seems.
fn refuse_redirects(name: &CStr, node: &Node) -> Result<()> {
    let marks =
        [c"user.overlay.redirect", c"trusted.overlay.redirect", c"user.overlay.metacopy", c"trusted.overlay.metacopy"];
    if !marks.contains(&name) {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::NotSupported,
        format!("pack {}: overlayfs has only noted its {name:?}", node.path.escape_ascii()),
    )
    .with_hint("the kernel's defaults: redirect_dir=off, metacopy=off"))
}
