//! Memory of an import: at most 64 MiB, whatever is in the layer. Each archive is imported by a process of its own,
//! whose peak of resident memory the kernel tells (proc(5), `VmHWM`).

use super::archives::{Fallible, LayerBlob, Tar, gzip, layout};
use crate::harness::{Need, Outcome, TempDir, Test};
use belljar::image::{Durability, Import, Limits, Store};
use serde_json::json;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::Path;
use std::process::{Command, ExitCode};
use tar::EntryType;

/// What the documentation says.
const MOST: u64 = 64 << 10;

pub fn tests() -> Vec<Test> {
    vec![
        // the same whatever the kernel: one lane is enough, and a virtual machine is slow at unpacking a GiB
        Test::new("image::memory::archives_that_want_much", &[Need::Kernel(6, 13)], archives_that_want_much),
        Test::new("image::memory::zstd_windows", &[Need::Kernel(6, 13), Need::Program("zstd")], zstd_windows),
    ]
}

/// This program again, which imports and prints its own peak in KiB.
pub fn measured(store: &str, archive: &str) -> ExitCode {
    let path = Path::new(archive);
    let import = if path.is_dir() { Import::oci_layout(path) } else { Import::rootfs(path) };
    let limits = Limits { expansion: 100, ..Limits::default() };
    let imported = Store::open(store)
        .and_then(|store| store.import(import.limits(limits).durability(Durability::Process), "measured"));
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or_default();
    println!("{}", peak.trim().trim_end_matches(" kB").trim());
    match imported {
        Ok(_) => ExitCode::SUCCESS,
        Err(error) if error.flaw().is_some() => ExitCode::from(3),
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

enum Expected {
    Taken,
    Refused,
}

fn peak(dir: &Path, archive: &Path, expected: Expected) -> Outcome {
    let store = dir.join("store");
    let arguments = format!("{}|measure:{}", store.display(), archive.display());
    let output = Command::new(std::env::current_exe()?).env("BELLJAR_TEST_IMPORTER", arguments).output()?;
    let what = archive.display();
    let code = if matches!(expected, Expected::Taken) { 0 } else { 3 };
    assert_eq!(output.status.code(), Some(code), "{what}: {}", String::from_utf8_lossy(&output.stderr));
    let peak: u64 = String::from_utf8(output.stdout)?.trim().parse()?;
    assert!(peak > 1000, "{what}: {peak} KiB is no figure");
    assert!(peak < MOST, "{what}: {peak} KiB");
    fs::remove_dir_all(store)?;
    Ok(())
}

fn archives_that_want_much() -> Outcome {
    let dir = TempDir::new()?;
    let at = |name: &str| dir.path().join(name);
    let write = |name: &str, archive: Vec<u8>, expected: Expected| -> Outcome {
        fs::write(at(name), archive)?;
        peak(dir.path(), &at(name), expected)?;
        Ok(fs::remove_file(at(name))?)
    };
    // large files, several layers at once
    let large = |seed: u8| {
        let block: Vec<u8> = (0..1 << 20).map(|i: u32| (i.wrapping_mul(2654435761) >> 13) as u8 ^ seed).collect();
        LayerBlob::gzip(Tar::new().file("large", &block.repeat(16)).end())
    };
    layout(&at("layout"), &[large(1), large(2), large(3)], json!({}))?;
    peak(dir.path(), &at("layout"), Expected::Taken)?;
    // a bomb, up to what the limits bear
    let mut bomb =
        flate2::write::GzEncoder::new(BufWriter::new(File::create(at("bomb"))?), flate2::Compression::new(1));
    let mut header = Tar::header(EntryType::Regular, b"bomb", b"", 3 << 30);
    header.set_cksum();
    bomb.write_all(header.as_bytes())?;
    for _ in 0..1056 {
        bomb.write_all(&vec![0; 1 << 20])?;
    }
    bomb.finish()?.flush()?;
    peak(dir.path(), &at("bomb"), Expected::Refused)?;
    // directories with long paths, with and without entries of their own
    let path = |i: usize| format!("{}/{i}", "d".repeat(250));
    let mut described = Tar::new().directory(&"d".repeat(99));
    let mut implicit = Tar::new();
    for i in 0..4000 {
        described = described.pax(&[("path", path(i).as_bytes())]).directory("x");
        implicit = implicit.pax(&[("path", format!("{}/f", path(i)).as_bytes())]).file("x", b"");
    }
    write("described", described.end(), Expected::Taken)?;
    write("implicit", implicit.end(), Expected::Taken)?;
    let mut deep = Tar::new();
    for i in 0..1000 {
        let path = format!("{i}/{}f", "deeper-and-deeper/".repeat(200));
        deep = deep.pax(&[("path", path.as_bytes())]).file("x", b"");
    }
    write("deep", deep.end(), Expected::Refused)?;
    // headers as long as they may be
    let attributes: Vec<(String, Vec<u8>)> =
        (0..15).map(|i| (format!("SCHILY.xattr.junk.{i}"), vec![b'x'; 65_000])).collect();
    let attributes: Vec<(&str, &[u8])> = attributes.iter().map(|(name, value)| (name.as_str(), &value[..])).collect();
    let mut headers = Tar::new();
    for i in 0..40 {
        headers = headers.pax(&attributes).file(&i.to_string(), b"");
    }
    write("headers", gzip(&headers.end()), Expected::Taken)?;
    // a sparse file in as many pieces as it may have, each of one byte
    let pieces = 200_000;
    let mut map = format!("{pieces}\n");
    (0..pieces).for_each(|i| map += &format!("{}\n1\n", i * 5000));
    let mut data = map.into_bytes();
    data.resize(data.len().next_multiple_of(512) + pieces, 0);
    let records: &[(&str, &[u8])] = &[
        ("GNU.sparse.major", b"1"),
        ("GNU.sparse.minor", b"0"),
        ("GNU.sparse.name", b"s"),
        ("GNU.sparse.realsize", b"1000000000"),
    ];
    // the header's size is of map and data
    write("pieces", Tar::new().pax(records).file("x", &data).end(), Expected::Taken)
}

fn zstd_windows() -> Outcome {
    let dir = TempDir::new()?;
    let block: Vec<u8> = (0..1 << 20).map(|i: u32| (i.wrapping_mul(2654435761) >> 13) as u8).collect();
    let plain = Tar::new().file("large", &block.repeat(40)).end();
    let archive = dir.path().join("plain");
    fs::write(&archive, &plain)?;
    let zstd = |arguments: &[&str]| -> Fallible<Vec<u8>> {
        let output = Command::new("zstd").args(["-q", "-c"]).args(arguments).arg(&archive).output()?;
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Ok(output.stdout)
    };
    // two layers at once, each with the largest window that is taken
    let window = zstd(&["-12", "--zstd=wlog=23"])?;
    let other = Tar::new().file("other", &block.repeat(40)).end();
    fs::write(&archive, &other)?;
    let second = zstd(&["-12", "--zstd=wlog=23"])?;
    let at = dir.path().join("layout");
    layout(&at, &[LayerBlob { archive: plain, blob: window }, LayerBlob { archive: other, blob: second }], json!({}))?;
    peak(dir.path(), &at, Expected::Taken)?;
    // a larger one is refused before it takes anything
    let long = dir.path().join("long");
    fs::write(&long, zstd(&["-1", "--long=27"])?)?;
    peak(dir.path(), &long, Expected::Refused)
}
