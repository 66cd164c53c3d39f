//! What is in a directory, in words that can be compared: content, mode, owner, time,
//! attributes, links.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::hash::{DefaultHasher, Hasher};
use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use belljar::sys::tree;

/// One line for each entry, by path.
pub fn describe(root: &Path) -> std::io::Result<BTreeMap<PathBuf, String>> {
    let mut found = BTreeMap::new();
    let mut links = BTreeMap::new();
    walk(root, Path::new(""), &mut found, &mut links)?;
    for paths in links.into_values().filter(|paths: &Vec<PathBuf>| paths.len() > 1) {
        let group =
            format!(" linked with {}", paths.iter().map(|p| p.display().to_string()).collect::<Vec<_>>().join(" "));
        for path in paths {
            found.entry(path).or_default().push_str(&group);
        }
    }
    Ok(found)
}

fn walk(
    root: &Path,
    path: &Path,
    found: &mut BTreeMap<PathBuf, String>,
    links: &mut BTreeMap<(u64, u64), Vec<PathBuf>>,
) -> std::io::Result<()> {
    let full = root.join(path);
    let meta = fs::symlink_metadata(&full)?;
    let kind = meta.file_type();
    let mut line = format!("{:o} {}:{} {}.{:09}", meta.mode(), meta.uid(), meta.gid(), meta.mtime(), meta.mtime_nsec());
    if kind.is_file() {
        line += &format!(" {} bytes {:016x}", meta.len(), hash(&full)?);
    } else if kind.is_symlink() {
        line += &format!(" -> {}", fs::read_link(&full)?.display());
    } else if kind.is_char_device() || kind.is_block_device() {
        line += &format!(" device {:x}", meta.rdev());
    }
    if kind.is_file() || kind.is_dir() {
        let file = File::open(&full)?;
        for (name, value) in tree::attributes(file.as_fd()).unwrap_or_default() {
            line += &format!(" {}={}", name.to_string_lossy(), value.escape_ascii());
        }
    }
    if !kind.is_dir() && meta.nlink() > 1 {
        links.entry((meta.dev(), meta.ino())).or_default().push(path.to_owned());
    }
    found.insert(path.to_owned(), line);
    if kind.is_dir() {
        let mut names: Vec<_> = fs::read_dir(&full)?.map(|e| e.map(|e| e.file_name())).collect::<Result<_, _>>()?;
        names.sort();
        for name in names {
            walk(root, &path.join(name), found, links)?;
        }
    }
    Ok(())
}

fn hash(path: &Path) -> std::io::Result<u64> {
    let mut file = File::open(path)?;
    let mut hasher = DefaultHasher::new();
    let mut buffer = vec![0; 1 << 16];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hasher.finish()),
            n => hasher.write(&buffer[..n]),
        }
    }
}

/// The lines in which two trees differ.
pub fn differences(left: &BTreeMap<PathBuf, String>, right: &BTreeMap<PathBuf, String>) -> Vec<String> {
    let mut lines = Vec::new();
    for (path, line) in left {
        match right.get(path) {
            Some(other) if other == line => {}
            other => lines.push(format!("{}: {line} | {}", path.display(), other.map_or("missing", |l| l))),
        }
    }
    lines.extend(
        right
            .iter()
            .filter(|(path, _)| !left.contains_key(*path))
            .map(|(p, l)| format!("{}: missing | {l}", p.display())),
    );
    lines
}
