//! Removing what nothing refers to.

use super::io_error;
use super::size::Size;
use super::store::{Lock, Store, is_free};
use crate::error::Result;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// What [`Store::gc`] has removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Collected {
    /// Layers.
    pub layers: u64,
    /// What they took.
    pub size: Size,
}

impl Store {
    /// Removes the layers and configurations that no image, no running sandbox, no
    /// [`RootFs::image`](crate::RootFs::image) and no import under way refers to, and what
    /// killed processes have left. Others may use the store meanwhile: they wait for the
    /// moment in which it is decided what goes, not for the removal.
    ///
    /// # Errors
    /// Those of reading the store: a record that cannot be read may refer to anything, so
    /// nothing is removed then.
    pub fn gc(&self) -> Result<Collected> {
        let mut collected = Collected::default();
        let mut doomed = Vec::new();
        let work = self.work()?; // where nobody sweeps what we are removing
        {
            let exclusive = self.lock_exclusive()?;
            self.sweep(&exclusive)?;
            let (mut layers, mut configs) = (BTreeSet::new(), BTreeSet::new());
            for image in self.images()? {
                layers.extend(image.layers().iter().map(|layer| layer.hex()));
                configs.insert(image.id().hex());
            }
            self.leased(&mut layers, &mut configs, &exclusive)?;
            for name in names(&self.path("layers"))?.into_iter().filter(|name| !layers.contains(name)) {
                let from = self.path("layers").join(&name);
                let to = work.path().join(&name);
                fs::rename(&from, &to).map_err(|e| io_error(format!("remove the layer {name}"), &e))?;
                doomed.push(to);
            }
            for name in names(&self.path("configs"))?.into_iter().filter(|name| !configs.contains(name)) {
                remove(&self.path("configs").join(name))?;
            }
            for name in names(&self.path("patches"))?.into_iter().filter(|name| !configs.contains(name)) {
                let path = self.path("patches").join(name);
                fs::remove_dir_all(&path).map_err(|e| io_error(format!("remove {}", path.display()), &e))?;
            }
            for name in names(&self.path("locks"))? {
                let path = self.path("locks").join(name);
                if is_free(&path) {
                    remove(&path)?;
                }
            }
        }
        for path in doomed {
            collected.layers += 1;
            let size = super::size::measure(&path.join("tree"))?;
            collected.size.bytes += size.bytes;
            collected.size.blocks += size.blocks;
            fs::remove_dir_all(&path).map_err(|e| io_error(format!("remove {}", path.display()), &e))?;
        }
        Ok(collected)
    }

    /// What is in use; leases that nobody holds go.
    fn leased(&self, layers: &mut BTreeSet<String>, configs: &mut BTreeSet<String>, _exclusive: &Lock) -> Result<()> {
        for name in names(&self.path("leases"))? {
            let path = self.path("leases").join(&name);
            if is_free(&path) {
                remove(&path)?;
                continue;
            }
            let text = fs::read_to_string(&path).map_err(|e| io_error(format!("read {}", path.display()), &e))?;
            layers.extend(text.lines().map(str::to_owned));
            configs.insert(name);
        }
        Ok(())
    }
}

fn remove(path: &Path) -> Result<()> {
    fs::remove_file(path).map_err(|e| io_error(format!("remove {}", path.display()), &e))
}

fn names(directory: &Path) -> Result<Vec<String>> {
    let entries = fs::read_dir(directory).map_err(|e| io_error(format!("read {}", directory.display()), &e))?;
    Ok(entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect())
}
