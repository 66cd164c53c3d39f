//! The entries of the init layer.

use crate::error::Defect;
use crate::id::{c_path, check_guest, check_nul};
use crate::program::{Builder, Op};
use std::path::{Component, Path, PathBuf};

/// One entry, made in the order given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Entry {
    File { path: PathBuf, mode: u32, content: Vec<u8> },
    Directory { path: PathBuf, mode: u32 },
    Symlink { path: PathBuf, target: PathBuf },
    Hide(PathBuf),
    Opaque(PathBuf),
}

impl Entry {
    /// Where it puts something into the sandbox: entries that only hide put nothing.
    pub fn place(&self) -> Option<&Path> {
        match self {
            Entry::Hide(_) | Entry::Opaque(_) => None,
            entry => Some(entry.path()),
        }
    }

    fn path(&self) -> &Path {
        match self {
            Entry::File { path, .. } | Entry::Directory { path, .. } | Entry::Symlink { path, .. } => path,
            Entry::Hide(path) | Entry::Opaque(path) => path,
        }
    }

    /// The bytes that it takes in a tmpfs.
    pub fn size(&self) -> u64 {
        match self {
            Entry::File { content, .. } => content.len() as u64,
            _ => 0,
        }
    }

    pub fn check(&self, defects: &mut Vec<Defect>) {
        let path = self.path();
        check_guest(path, "the path of an entry of the root", defects);
        if !matches!(path.components().next_back(), Some(Component::Normal(_))) {
            defects.push(Defect::new(format!("{path:?} names no entry"), "a path that ends in a name"));
        }
        match self {
            Entry::File { mode, .. } if *mode > 0o777 => defects.push(Defect::new(
                format!("the mode {mode:o} of {path:?} is more than permission bits"),
                "a mode of 0 to 0o777",
            )),
            Entry::Symlink { target, .. } => {
                check_nul(target, "the target of a link", defects);
                if target.as_os_str().is_empty() {
                    defects.push(Defect::new(format!("the link {path:?} has no target"), "a path"));
                }
            }
            _ => {}
        }
    }

    pub fn lower(&self, builder: &mut Builder) {
        let path = &c_path(self.path());
        builder.op(match self {
            Entry::File { mode, content, .. } => Op::File { path, mode: *mode, content },
            Entry::Directory { mode, .. } => Op::Directory { path, mode: *mode },
            Entry::Symlink { target, .. } => {
                return builder.op(Op::Symlink { path, target: &c_path(target) });
            }
            Entry::Hide(_) => Op::Hide { path },
            Entry::Opaque(_) => Op::Opaque { path },
        });
    }
}
