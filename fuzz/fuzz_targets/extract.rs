//! Whatever bytes come as a layer: an import takes them, and then the store verifies, or refuses them
//! with a flaw, and then nothing is left; nothing beside the store is touched, and nothing panics.
//!
//! ```sh
//! cargo install cargo-fuzz
//! cargo +nightly fuzz run extract fuzz/corpus/extract fuzz/seeds -- -max_len=65536 -rss_limit_mb=512
//! ```
//! libFuzzer takes a nightly toolchain and a C++ compiler. The store is below `$TMPDIR`, else in `/dev/shm`: a tmpfs
//! with `user.` attributes (Linux 6.6), or every run waits for a disk. The seeds are archives of GNU tar; what compares
//! the extractor with GNU tar on generated archives is a test of the package (`image::random`).
#![no_main]

use belljar::Bytes;
use belljar::image::{Devices, Durability, Import, Limits, Store};
use libfuzzer_sys::fuzz_target;
use std::fs;
use std::io::Cursor;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::Duration;

struct Target {
    store: Store,
    beside: PathBuf,
}

fn target() -> &'static Target {
    static TARGET: OnceLock<Target> = OnceLock::new();
    TARGET.get_or_init(|| {
        let parent = std::env::var_os("TMPDIR").map_or_else(|| PathBuf::from("/dev/shm"), PathBuf::from);
        let dir = parent.join(format!("belljar-fuzz-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let beside = dir.join("victim");
        fs::write(&beside, "as it was").unwrap();
        Target { store: Store::open(dir.join("store")).unwrap(), beside }
    })
}

fuzz_target!(|bytes: &[u8]| {
    let Target { store, beside } = target();
    let limits = Limits { bytes: Bytes::mib(16), entries: 2000, time: Duration::from_secs(20), ..Limits::default() };
    let import = Import::rootfs_from("fuzz", Cursor::new(bytes.to_vec()))
        .limits(limits)
        .devices(Devices::Skip)
        .durability(Durability::Process);
    match store.import(import, "fuzz") {
        Ok(image) => {
            let damage = store.verify().unwrap();
            assert!(damage.is_empty(), "{damage:?}");
            assert_eq!(image.layers().len(), 1);
            store.export_docker("fuzz", std::io::sink()).unwrap();
            store.remove("fuzz").unwrap();
            store.gc().unwrap();
        }
        Err(error) => assert!(error.flaw().is_some(), "{error:?}"),
    }
    for part in ["layers", "tmp", "images"] {
        assert_eq!(fs::read_dir(store.root().join(part)).unwrap().count(), 0, "{part}");
    }
    assert_eq!(fs::read(beside).unwrap(), b"as it was");
});
