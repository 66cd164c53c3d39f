//! Images and layers as the store knows them.

use super::digest::Digest;
use super::io_error;
use super::limits::{Durability, LeftOut};
use super::store::Store;
use crate::error::{Error, ErrorKind, Result};
use crate::flaw::{Flaw, FlawKind};
use oci_spec::image::ImageConfiguration;
use serde_json::{Value, json};
use std::fmt;
use std::fs;
use std::path::PathBuf;

/// An operating system and architecture, in the words of Go (`linux`, `amd64`, `arm64`, …).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Platform {
    /// `GOOS`.
    pub os: String,
    /// `GOARCH`.
    pub architecture: String,
    /// `v8` and the like; an index without it fits any.
    pub variant: Option<String>,
}

impl Platform {
    /// This machine's.
    pub fn host() -> Platform {
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        };
        Platform { os: "linux".into(), architecture: architecture.into(), variant: None }
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        self.variant.as_ref().map_or(Ok(()), |variant| write!(f, "/{variant}"))
    }
}

/// An image of a store: a name, a configuration, and layers, lowest first.
#[derive(Clone, Debug)]
pub struct Image {
    pub(super) name: String,
    pub(super) config: Digest,
    pub(super) layers: Vec<Digest>,
    pub(super) configuration: ImageConfiguration,
}

impl Image {
    /// The name and tag.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The digest of its configuration, which stands for all of it: what Docker calls the image's id.
    pub fn id(&self) -> Digest {
        self.config
    }

    /// The diff-ids of its layers, lowest first.
    pub fn layers(&self) -> &[Digest] {
        &self.layers
    }

    /// The configuration, as the OCI image-spec has it.
    pub fn configuration(&self) -> &ImageConfiguration {
        &self.configuration
    }
}

/// A layer of a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layer {
    /// The sha256 of its archive.
    pub diff_id: Digest,
    /// The length of its archive.
    pub archive_bytes: u64,
    /// The number of entries of its archive.
    pub entries: u64,
    /// What of it is not in its tree.
    pub left_out: LeftOut,
}

impl Layer {
    pub(super) fn to_json(&self) -> Vec<u8> {
        let value = json!({
            "diffId": self.diff_id.to_string(),
            "archiveBytes": self.archive_bytes,
            "entries": self.entries,
            "leftOut": {
                "devices": self.left_out.devices,
                "attributes": self.left_out.attributes,
                "owners": self.left_out.owners,
            },
        });
        value.to_string().into_bytes()
    }

    fn from_json(value: &Value) -> Option<Layer> {
        let count = |value: &Value, key: &str| value.get(key)?.as_u64();
        let left_out = value.get("leftOut")?;
        Some(Layer {
            diff_id: value.get("diffId")?.as_str()?.parse().ok()?,
            archive_bytes: count(value, "archiveBytes")?,
            entries: count(value, "entries")?,
            left_out: LeftOut {
                devices: count(left_out, "devices")?,
                attributes: count(left_out, "attributes")?,
                owners: count(left_out, "owners")?,
            },
        })
    }
}

/// A name with its tag filled in: `[HOST[:PORT]/]NAME[:TAG]`, tag `latest` unless given.
///
/// Names become file names: only letters, digits and `._-` between slashes, no empty
/// component and none that begins with a dot.
pub(super) fn full_name(name: &str) -> Result<String> {
    let bad = |why: &str| {
        Error::new(ErrorKind::InvalidSpec, format!("the image name {name:?} {why}"))
            .with_hint("a name like \"debian:12\" or \"localhost:5000/team/app:v1\"")
    };
    let (path, tag) = match name.rsplit_once(':') {
        Some((path, tag)) if !tag.contains('/') => (path, tag),
        _ => (name, "latest"),
    };
    let word = |text: &str| {
        text.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_')
            && text.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c))
    };
    let (host, rest) = match path.split_once('/') {
        Some((host, rest)) if host.contains(':') => (Some(host), rest),
        _ => (None, path),
    };
    let host_fits = host.is_none_or(|host| {
        host.split_once(':')
            .is_some_and(|(host, port)| word(host) && !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()))
    });
    if !host_fits || !rest.split('/').all(word) || !word(tag) {
        return Err(bad("has other characters than a name may have"));
    }
    if path.len() + tag.len() > 240 || tag.len() > 128 {
        return Err(bad("is too long"));
    }
    Ok(format!("{path}:{tag}"))
}

/// A full name as one file name: `/` is `+`, which no name contains.
fn file_name(full: &str) -> String {
    full.replace('/', "+")
}

impl Store {
    fn image_path(&self, full: &str) -> PathBuf {
        self.path("images").join(file_name(full))
    }

    /// The image of this name.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`]; [`ErrorKind::InvalidSpec`] for a name that none can have.
    pub fn image(&self, name: &str) -> Result<Image> {
        let full = full_name(name)?;
        let path = self.image_path(&full);
        let bytes = fs::read(&path).map_err(|e| {
            io_error(format!("open the image {full}"), &e).with_hint("a name of Store::images, or Store::import first")
        })?;
        let value: Value = serde_json::from_slice(&bytes).unwrap_or_default();
        let digest = value.get("config").and_then(Value::as_str).and_then(|text| text.parse().ok());
        match digest {
            Some(config) => self.load(full, config).map_err(|error| match error.kind() {
                // unless the image was removed meanwhile
                ErrorKind::NotFound if path.exists() => damaged(name, "its configuration is missing"),
                _ => error,
            }),
            None => Err(damaged(&path.display().to_string(), "it is no record of an image")),
        }
    }

    /// All images, by name.
    ///
    /// # Errors
    /// Those of reading the store.
    pub fn images(&self) -> Result<Vec<Image>> {
        self.each_image()?.into_iter().collect()
    }

    /// Each image, or what is wrong with its record.
    pub(super) fn each_image(&self) -> Result<Vec<Result<Image>>> {
        let directory = self.path("images");
        let fail = |e: &std::io::Error| io_error(format!("read {}", directory.display()), e);
        let mut names = Vec::new();
        for entry in fs::read_dir(&directory).map_err(|e| fail(&e))? {
            names.push(entry.map_err(|e| fail(&e))?.file_name().to_string_lossy().replace('+', "/"));
        }
        names.sort();
        let images = names.iter().map(|name| self.image(name));
        // one that is removed meanwhile is no error
        Ok(images.filter(|image| !matches!(image, Err(e) if e.kind() == ErrorKind::NotFound)).collect())
    }

    /// Takes a name away. Layers go with the next [`gc`](Store::gc), if nothing else refers to them.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`].
    pub fn remove(&self, name: &str) -> Result<()> {
        let full = full_name(name)?;
        fs::remove_file(self.image_path(&full)).map_err(|e| io_error(format!("remove the image {full}"), &e))
    }

    /// Gives an image a second name, which may be one in use: it then stands for this image.
    ///
    /// # Errors
    /// As [`image`](Store::image).
    pub fn tag(&self, name: &str, new: &str) -> Result<Image> {
        let _held = self.lock_shared()?;
        let image = self.image(name)?;
        self.record(new, image.config, Durability::Disk)
    }

    /// What the store knows of a layer.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`].
    pub fn layer(&self, diff_id: Digest) -> Result<Layer> {
        let path = self.layer_path(&diff_id).join("layer.json");
        let bytes = fs::read(&path).map_err(|e| io_error(format!("open the layer {diff_id}"), &e))?;
        let layer = serde_json::from_slice(&bytes).ok().as_ref().and_then(Layer::from_json);
        layer
            .filter(|layer| layer.diff_id == diff_id)
            .ok_or_else(|| damaged(&diff_id.to_string(), "its record is damaged"))
    }

    /// The image of a configuration in the store.
    pub(super) fn load(&self, name: String, config: Digest) -> Result<Image> {
        let path = self.config_path(&config);
        let bytes = fs::read(&path).map_err(|e| io_error(format!("open {}", path.display()), &e))?;
        if Digest::of(&bytes) != config {
            return Err(damaged(&name, "its configuration is not that of its digest"));
        }
        let (configuration, layers) = parse_configuration(&bytes, &name)?;
        Ok(Image { name, config, layers, configuration })
    }

    /// Enters a name. The caller holds the store's lock, and all layers are there.
    pub(super) fn record(&self, name: &str, config: Digest, durability: Durability) -> Result<Image> {
        let full = full_name(name)?;
        let record = json!({ "name": full, "config": config.to_string() });
        self.write(&self.image_path(&full), record.to_string().as_bytes(), durability)?;
        self.load(full, config)
    }
}

pub(super) fn damaged(layer: &str, detail: &str) -> Error {
    Error::flawed(Flaw::new(layer, None, FlawKind::Document, detail))
        .with_hint("to remove the image and import it again")
}

/// A configuration and the diff-ids in it.
pub(super) fn parse_configuration(bytes: &[u8], source: &str) -> Result<(ImageConfiguration, Vec<Digest>)> {
    let bad = |detail: String| Error::flawed(Flaw::new(source, None, FlawKind::Document, detail));
    let configuration = ImageConfiguration::from_reader(bytes).map_err(|e| bad(format!("its configuration: {e}")))?;
    let layers: Result<Vec<Digest>> = configuration.rootfs().diff_ids().iter().map(|id| id.parse()).collect();
    let layers = layers.map_err(|e| bad(format!("its configuration: {e}")))?;
    if configuration.rootfs().typ() != "layers" || layers.is_empty() {
        return Err(bad("its configuration lists no layers".into()));
    }
    Ok((configuration, layers))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_are_no_paths() {
        for (name, full) in [
            ("debian", "debian:latest"),
            ("a/b:1", "a/b:1"),
            ("localhost:5000/a_b/c-d.e:v1.2", "localhost:5000/a_b/c-d.e:v1.2"),
            ("localhost:5000/a", "localhost:5000/a:latest"),
        ] {
            assert_eq!(full_name(name).ok().as_deref(), Some(full));
        }
        let long = "x".repeat(300);
        for name in
            ["", ":", "a:", "../x", "a/../b", "/a", "a//b", "a b", "a:b:c", "a\0", ".a", "a+b", "-x", "x:.y", &long]
        {
            assert!(full_name(name).is_err(), "{name:?}");
        }
    }
}
