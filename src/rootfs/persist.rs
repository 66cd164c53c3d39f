//! An upper that is a directory of the host: its two directories, its lock, and what its ids stand for.
//!
//! ```text
//! PATH/upper, PATH/work      overlayfs's
//! PATH/init                  what init layers held: paths of the sandbox, each ended by a NUL
//! PATH/ids                   only where the files have ids of the host: one line for each range of a map under
//!                            which a sandbox wrote, `uid INSIDE OUTSIDE COUNT` or `gid …`
//! ```
//! Where the parent could id-map the upper (Linux 5.19), its files have the ids inside, and there is nothing to
//! note. An ordinary user's, or those on a file system without id-mapped mounts, have the ids that the map leads
//! to; whoever reads them later needs the map as it was then.

use super::{Ranges, Source};
use crate::error::{Error, Result};
use crate::sys::Errno;
use crate::sys::kernel::abi::*;
use crate::sys::kernel::call;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, chown};
use std::path::{Path, PathBuf};

/// No map is noted in more than this: 680 ranges of at most 36 bytes are legal, and some runs have others.
const MAX_NOTE: u64 = 1 << 20;
const HINT: &str = "a directory that was given to Upper::Persist, and that only its owner has written";

/// Makes the directories of a persistent upper and locks them. The merged root has the mode of the upper's, whose it is
/// to look like the topmost layer's, whatever the caller's umask.
pub(super) fn prepare(path: &Path, top: Option<&PathBuf>, source: Source) -> Result<File> {
    let fail = |what: &str, e: std::io::Error| {
        Error::call(format!("{what} the upper {}", path.display()), Errno::of(e))
            .with_hint("a directory that the caller may write, on a file system like ext4, xfs, btrfs or tmpfs")
    };
    let own = |directory: &Path| match source.owner.filter(|_| !source.idmap) {
        Some((uid, gid)) => chown(directory, Some(uid), Some(gid)).map_err(|e| fail("own", e)),
        None => Ok(()),
    };
    if fs::symlink_metadata(path).is_err() {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(|e| fail("make", e))?;
        own(path)?; // the sandbox's set-up goes through it
    }
    let lock = File::open(path).map_err(|e| fail("open", e))?;
    call::flock(lock.as_raw_fd(), LOCK_EX | LOCK_NB).map_err(|errno| match errno {
        Errno::EAGAIN => Error::call(format!("lock the upper {}", path.display()), Errno::EBUSY)
            .with_hint("a directory of its own for each sandbox, or this one after the other sandbox has ended"),
        errno => fail("lock", errno.into()),
    })?;
    for name in ["upper", "work"] {
        let directory = path.join(name);
        match fs::DirBuilder::new().mode(0o755).create(&directory) {
            Ok(()) => {
                own(&directory)?;
                if let Some(top) = top.filter(|_| name == "upper") {
                    let like = fs::metadata(top).map_err(|e| fail("take the mode of the layers for", e))?.permissions();
                    fs::set_permissions(&directory, like).map_err(|e| fail("set the mode of", e))?;
                }
            }
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(e) => return Err(fail("make", e)),
        }
    }
    Ok(lock)
}

/// Notes what the init layer of a sandbox holds: it is true for that sandbox only, also where the payload has written
/// to it, and a commit leaves it out.
pub(super) fn note_init<'a>(path: &Path, entries: impl Iterator<Item = &'a Path>) -> Result<()> {
    let mut all = noted_init(path)?;
    let known = all.len();
    all.extend(entries.map(Path::to_owned));
    all.sort_unstable();
    all.dedup();
    if all.len() == known {
        return Ok(());
    }
    let text: Vec<u8> = all.iter().flat_map(|path| path.as_os_str().as_bytes().iter().chain(&[0])).copied().collect();
    replace(path, "init", &text)
}

/// What the init layers of all sandboxes on this upper held.
pub(crate) fn noted_init(path: &Path) -> Result<Vec<PathBuf>> {
    let text = read(path, "init")?.unwrap_or_default();
    let paths = text.split(|b| *b == 0).filter(|path| !path.is_empty());
    Ok(paths.map(|path| OsStr::from_bytes(path).into()).collect())
}

/// Writes a note, under the upper's lock: complete, or as it was.
fn replace(path: &Path, name: &str, bytes: &[u8]) -> Result<()> {
    let (new, place) = (path.join(format!("{name}.new")), path.join(name));
    fs::write(&new, bytes).and_then(|()| fs::rename(&new, &place)).map_err(|e| failed("write", &place, &e))
}

fn read(path: &Path, name: &str) -> Result<Option<Vec<u8>>> {
    let place = path.join(name);
    let read = match fs::metadata(&place) {
        Ok(meta) if meta.is_file() && meta.len() <= MAX_NOTE => fs::read(&place),
        Ok(_) => Err(std::io::ErrorKind::InvalidData.into()),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => Err(e),
    };
    read.map(Some).map_err(|e| failed("read", &place, &e))
}

/// Notes the map under which a sandbox is about to write, unless it is known.
pub(super) fn note(path: &Path, ids: &(Ranges, Ranges)) -> Result<()> {
    let known = noted(path)?.unwrap_or_default();
    if ids.0.iter().all(|range| known.0.contains(range)) && ids.1.iter().all(|range| known.1.contains(range)) {
        return Ok(());
    }
    let union = |new: &Ranges, old: &Ranges| -> Ranges {
        new.iter().chain(old.iter().filter(|range| !new.contains(range))).copied().collect()
    };
    let lines = |kind: &str, ranges: Ranges| -> String {
        ranges.iter().map(|(inside, outside, count)| format!("{kind} {inside} {outside} {count}\n")).collect()
    };
    let text = lines("uid", union(&ids.0, &known.0)) + &lines("gid", union(&ids.1, &known.1));
    replace(path, "ids", text.as_bytes())
}

/// The maps under which sandboxes wrote, the latest first; `None` where files have the ids inside.
pub(crate) fn noted(path: &Path) -> Result<Option<(Ranges, Ranges)>> {
    let Some(text) = read(path, "ids")? else { return Ok(None) };
    let text = String::from_utf8_lossy(&text);
    let bad = || Error::call(format!("read the id map noted in {}", path.display()), Errno::EINVAL).with_hint(HINT);
    let mut found = (Ranges::new(), Ranges::new());
    for line in text.lines() {
        let mut words = line.split(' ');
        let side = match words.next() {
            Some("uid") => &mut found.0,
            Some("gid") => &mut found.1,
            _ => return Err(bad()),
        };
        let numbers: Result<Vec<u32>, _> = words.map(str::parse).collect();
        match numbers.as_deref() {
            Ok([inside, outside, count]) => side.push((*inside, *outside, *count)),
            _ => return Err(bad()),
        }
    }
    Ok(Some(found))
}

fn failed(what: &str, place: &Path, e: &std::io::Error) -> Error {
    Error::call(format!("{what} the note {}", place.display()), Errno::of(e)).with_hint(HINT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_are_read_as_noted() {
        let dir = std::env::temp_dir().join(format!("belljar-ids-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        assert_eq!(noted(&dir).unwrap(), None);
        for paths in [&["/b", "/a"][..], &["/a"], &["/c"]] {
            note_init(&dir, paths.iter().map(Path::new)).unwrap();
        }
        assert_eq!(noted_init(&dir).unwrap(), ["/a", "/b", "/c"].map(PathBuf::from));
        let first = (vec![(0, 1000, 1)], vec![(0, 1000, 1), (1, 100_000, 65536)]);
        note(&dir, &first).unwrap();
        assert_eq!(noted(&dir).unwrap(), Some(first.clone()));
        note(&dir, &first).unwrap();
        let second = (vec![(0, 2000, 9)], vec![(0, 1000, 1)]);
        note(&dir, &second).unwrap();
        let both = (vec![(0, 2000, 9), (0, 1000, 1)], vec![(0, 1000, 1), (1, 100_000, 65536)]);
        assert_eq!(noted(&dir).unwrap(), Some(both));
        for text in ["uid 0 1\n", "pid 0 1 1\n", "uid 0 x 1\n", "uid 0 -1 1 1\n"] {
            fs::write(dir.join("ids"), text).unwrap();
            assert!(noted(&dir).is_err(), "{text}");
        }
        fs::remove_dir_all(dir).unwrap();
    }
}
