//! Archives and layouts for the tests, made byte by byte where need be.

use belljar::image::Digest;
use serde_json::json;
use std::fs;
use std::io::Write;
use std::path::Path;
use tar::{EntryType, Header};

pub type Fallible<T> = Result<T, Box<dyn std::error::Error>>;

/// An archive under construction.
#[derive(Clone, Default)]
pub struct Tar(pub Vec<u8>);

impl Tar {
    pub fn new() -> Tar {
        Tar::default()
    }

    /// A header as given, and data.
    pub fn raw(mut self, mut header: Header, data: &[u8]) -> Tar {
        header.set_cksum();
        self.0.extend_from_slice(header.as_bytes());
        self.data(data)
    }

    pub fn data(mut self, data: &[u8]) -> Tar {
        self.0.extend_from_slice(data);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    pub fn header(kind: EntryType, path: &[u8], link: &[u8], size: u64) -> Header {
        let mut header = Header::new_gnu();
        header.as_mut_bytes()[..path.len()].copy_from_slice(path);
        header.as_mut_bytes()[157..157 + link.len()].copy_from_slice(link);
        header.set_entry_type(kind);
        header.set_mode(if kind == EntryType::Directory { 0o755 } else { 0o644 });
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1_600_000_000);
        header.set_size(size);
        header
    }

    pub fn file(self, path: &str, data: &[u8]) -> Tar {
        let header = Tar::header(EntryType::Regular, path.as_bytes(), b"", data.len() as u64);
        self.raw(header, data)
    }

    pub fn directory(self, path: &str) -> Tar {
        self.raw(Tar::header(EntryType::Directory, path.as_bytes(), b"", 0), b"")
    }

    pub fn symlink(self, path: &str, target: &str) -> Tar {
        self.raw(Tar::header(EntryType::Symlink, path.as_bytes(), target.as_bytes(), 0), b"")
    }

    pub fn hard_link(self, path: &str, target: &str) -> Tar {
        self.raw(Tar::header(EntryType::Link, path.as_bytes(), target.as_bytes(), 0), b"")
    }

    pub fn device(self, path: &str, kind: EntryType, major: u32, minor: u32) -> Tar {
        let mut header = Tar::header(kind, path.as_bytes(), b"", 0);
        header.set_device_major(major).unwrap();
        header.set_device_minor(minor).unwrap();
        self.raw(header, b"")
    }

    /// A pax header for the next entry.
    pub fn pax(self, records: &[(&str, &[u8])]) -> Tar {
        let mut bytes = Vec::new();
        for (key, value) in records {
            let rest = key.len() + value.len() + 3;
            let mut len = rest + 1;
            while len != rest + len.to_string().len() {
                len = rest + len.to_string().len();
            }
            write!(bytes, "{len} {key}=").unwrap();
            bytes.extend_from_slice(value);
            bytes.push(b'\n');
        }
        let header = Tar::header(EntryType::XHeader, b"pax", b"", bytes.len() as u64);
        self.raw(header, &bytes)
    }

    /// With the end of the archive.
    pub fn end(mut self) -> Vec<u8> {
        self.0.resize(self.0.len() + 1024, 0);
        self.0
    }
}

pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// A layer for a layout: its archive, and the blob that stands for it.
pub struct LayerBlob {
    pub archive: Vec<u8>,
    pub blob: Vec<u8>,
}

impl LayerBlob {
    pub fn gzip(archive: Vec<u8>) -> LayerBlob {
        LayerBlob { blob: gzip(&archive), archive }
    }
}

/// An OCI layout of one image; gives the configuration's digest.
pub fn layout(at: &Path, layers: &[LayerBlob], config: serde_json::Value) -> Fallible<Digest> {
    let blobs = at.join("blobs/sha256");
    fs::create_dir_all(&blobs)?;
    let put = |bytes: &[u8]| -> Fallible<serde_json::Value> {
        let digest = Digest::of(bytes);
        fs::write(blobs.join(digest.hex()), bytes)?;
        Ok(json!({ "digest": digest.to_string(), "size": bytes.len(), "mediaType": "" }))
    };
    let typed = |mut descriptor: serde_json::Value, kind: &str| {
        descriptor["mediaType"] = json!(format!("application/vnd.oci.image.{kind}"));
        descriptor
    };
    let diff_ids: Vec<String> = layers.iter().map(|layer| Digest::of(&layer.archive).to_string()).collect();
    let configuration = json!({
        "architecture": belljar::image::Platform::host().architecture,
        "os": "linux",
        "config": config,
        "rootfs": { "type": "layers", "diff_ids": diff_ids },
    })
    .to_string();
    let config = typed(put(configuration.as_bytes())?, "config.v1+json");
    let mut descriptors = Vec::new();
    for layer in layers {
        descriptors.push(typed(put(&layer.blob)?, "layer.v1.tar+gzip"));
    }
    let manifest = json!({ "schemaVersion": 2, "config": config, "layers": descriptors }).to_string();
    let mut manifest = typed(put(manifest.as_bytes())?, "manifest.v1+json");
    manifest["annotations"] = json!({ "org.opencontainers.image.ref.name": "v1" });
    fs::write(at.join("index.json"), json!({ "schemaVersion": 2, "manifests": [manifest] }).to_string())?;
    fs::write(at.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#)?;
    Ok(Digest::of(configuration.as_bytes()))
}
