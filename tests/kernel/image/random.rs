//! Archives that a seeded generator makes: unpacked as GNU tar unpacks them; and, with bytes
//! changed, refused with a flaw or taken, but never more than that.

use super::archives::{Fallible, Tar, gzip};
use super::import::tree_of;
use super::tree::{describe, differences};
use crate::harness::{Need, Outcome, TempDir, Test};
use belljar::image::{Durability, Import, Store};
use std::fs;
use std::io::Cursor;
use std::process::Command;
use tar::EntryType;

pub fn tests() -> Vec<Test> {
    vec![
        Test::new("image::random::as_gnu_tar_unpacks", &[Need::Root], as_gnu_tar_unpacks),
        Test::new("image::random::damaged", &[], damaged),
    ]
}

/// xorshift64*: the same archives wherever the test runs. `BELLJAR_TEST_SEED` begins elsewhere.
struct Random(u64);

impl Random {
    fn new(salt: u64) -> Random {
        let seed = std::env::var("BELLJAR_TEST_SEED").ok().and_then(|seed| seed.parse().ok());
        Random(seed.unwrap_or(20_261_121u64).wrapping_mul(2) + 1 + salt)
    }

    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) % n
    }

    fn pick<'a>(&mut self, from: &'a [String]) -> Option<&'a String> {
        (!from.is_empty()).then(|| &from[self.below(from.len() as u64) as usize])
    }
}

/// Rounds; `BELLJAR_TEST_ROUNDS` for a long run.
fn rounds(usual: u64) -> u64 {
    std::env::var("BELLJAR_TEST_ROUNDS").ok().and_then(|n| n.parse().ok()).unwrap_or(usual)
}

fn archive(random: &mut Random) -> Vec<u8> {
    let mut tar = Tar::new();
    let (mut directories, mut files) = (vec![String::new()], Vec::new());
    for number in 0..random.below(60) {
        let parent = random.pick(&directories).cloned().unwrap_or_default();
        let length = [3, 20, 99, 200][random.below(4) as usize];
        let path = format!("{parent}{number}{}", "n".repeat(random.below(length) as usize));
        let spelled = if random.below(4) == 0 { format!("./{path}") } else { path.clone() };
        let mut records: Vec<(&str, Vec<u8>)> = Vec::new();
        let mut name = spelled.clone();
        if name.len() > 99 {
            records.push(("path", name.clone().into_bytes()));
            name.truncate(90);
        }
        if random.below(3) == 0 {
            let time = format!("{}.{:09}", random.below(2_000_000_000), random.below(1_000_000_000));
            records.push(("mtime", time.into_bytes()));
        }
        let kind = match random.below(10) {
            0..=2 => EntryType::Directory,
            3 => EntryType::Symlink,
            4 if !files.is_empty() => EntryType::Link,
            5 => EntryType::Fifo,
            _ => EntryType::Regular,
        };
        let data = vec![b'a' + (number % 26) as u8; random.below(3000) as usize];
        let data = if kind == EntryType::Regular { &data[..] } else { &[] };
        let link = match kind {
            EntryType::Symlink => format!("../{}", random.below(100)),
            EntryType::Link => random.pick(&files).cloned().unwrap_or_default(),
            _ => String::new(),
        };
        let mut short = link.clone();
        if short.len() > 99 {
            records.push(("linkpath", link.into_bytes()));
            short.truncate(90);
        }
        let mut header = Tar::header(kind, name.as_bytes(), short.as_bytes(), data.len() as u64);
        // a link has its target's
        if kind != EntryType::Link {
            header.set_mode([0o644, 0o755, 0o4755, 0o1777, 0o600, 0o000][random.below(6) as usize]);
            header.set_uid(random.below(70_000));
            header.set_gid(random.below(3) * 1000);
            header.set_mtime(random.below(1 << 31));
        }
        if kind == EntryType::Link {
            records.retain(|(key, _)| *key != "mtime");
        }
        if !records.is_empty() {
            let records: Vec<(&str, &[u8])> = records.iter().map(|(key, value)| (*key, value.as_slice())).collect();
            tar = tar.pax(&records);
        }
        tar = tar.raw(header, data);
        match kind {
            EntryType::Directory => directories.push(format!("{path}/")),
            EntryType::Regular => files.push(path),
            _ => {}
        }
    }
    tar.end()
}

fn import(store: &Store, bytes: Vec<u8>) -> belljar::Result<belljar::image::Image> {
    store.import(Import::rootfs_from("random.tar", Cursor::new(bytes)).durability(Durability::Process), "random")
}

fn as_gnu_tar_unpacks() -> Outcome {
    for round in 0..rounds(30) {
        let dir = TempDir::new()?;
        let store = Store::open(dir.path().join("store"))?;
        let bytes = archive(&mut Random::new(round));
        let (theirs, file) = (dir.path().join("theirs"), dir.path().join("a.tar"));
        fs::create_dir(&theirs)?;
        fs::write(&file, &bytes)?;
        let tar =
            Command::new("tar").arg("-C").arg(&theirs).args(["-xp", "--numeric-owner", "-f"]).arg(&file).output()?;
        assert!(tar.status.success(), "round {round}: {}", String::from_utf8_lossy(&tar.stderr));
        let image = import(&store, bytes).map_err(|e| format!("round {round}: {e}"))?;
        let mut theirs = describe(&theirs)?;
        let mut ours = describe(&tree_of(&store, &image, 0))?;
        // not in the archive
        theirs.remove(std::path::Path::new(""));
        ours.remove(std::path::Path::new(""));
        // GNU tar loses the times of directories to which it comes back; verify() compares ours
        for line in theirs.values_mut().chain(ours.values_mut()).filter(|line| line.starts_with('4')) {
            let words: Vec<&str> = line.split(' ').collect();
            *line = [&words[..2], &words[3..]].concat().join(" ");
        }
        let differ = differences(&theirs, &ours);
        assert!(differ.is_empty(), "round {round}: theirs | ours: {differ:#?}");
        assert!(store.verify()?.is_empty(), "round {round}");
    }
    Ok(())
}

fn damaged() -> Fallible<()> {
    let dir = TempDir::new()?;
    let store = Store::open(dir.path().join("store"))?;
    let mut random = Random::new(1000);
    let (mut taken, mut refused) = (0, 0);
    for round in 0..rounds(150) {
        let mut bytes = archive(&mut random);
        let zipped = random.below(4) == 0;
        if zipped {
            bytes = gzip(&bytes);
        }
        for _ in 0..1 + random.below(4) {
            let at = random.below(bytes.len() as u64) as usize;
            match random.below(4) {
                0 => bytes[at] = 0,
                1 => bytes.truncate(at.max(1)),
                _ => bytes[at] ^= 1 << random.below(8),
            }
        }
        match import(&store, bytes) {
            Ok(_) => taken += 1,
            Err(error) => {
                assert!(error.flaw().is_some(), "round {round}: {error:?}");
                refused += 1;
            }
        }
    }
    assert!(taken > 0 && refused > 0, "{taken} taken, {refused} refused");
    assert!(store.verify()?.is_empty());
    assert_eq!(fs::read_dir(store.root().join("tmp"))?.count(), 0);
    Ok(())
}
