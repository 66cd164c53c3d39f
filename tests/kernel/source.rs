//! The source itself: who may import whom, and where `unsafe` may be.

use crate::common::Fallible;
use crate::harness::Test;
use std::fs;
use std::path::{Path, PathBuf};

pub fn tests() -> Vec<Test> {
    vec![
        Test::new("source::layers_import_downward", &[], layers_import_downward),
        Test::new("source::unsafe_is_where_it_may_be", &[], unsafe_is_where_it_may_be),
        Test::new("source::library_does_not_print_or_panic", &[], library_does_not_print_or_panic),
    ]
}

fn sources(dir: &Path) -> Fallible<Vec<(PathBuf, String)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(sources(&path)?);
        } else if path.extension().is_some_and(|e| e == "rs") {
            let text = fs::read_to_string(&path)?;
            found.push((path, text));
        }
    }
    Ok(found)
}

fn src() -> PathBuf {
    // CI runs a copy of this program beside a copy of the source
    let root = std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
    Path::new(&root).join("src")
}

/// The layer of a module: it may import lower ones, and its own only in the same folder
/// (L2 folders meet in `plan`).
fn layer(module: &str) -> Option<u32> {
    Some(match module {
        "enforce" | "error" | "flaw" | "units" | "id" | "handle" | "preset" | "socket" | "pty" => 1, // beside each other, above sys
        "sys" => 0,
        "program" | "host" => 2,
        "testing" => 3,
        "cgroup" | "namespace" | "rootfs" | "mount" | "security" | "process" => 3,
        "plan" => 4,
        "launch" => 5,
        "child" => 6,
        "sandbox" => 7,
        "image" => 8,
        "lib" => 9,
        _ => return None,
    })
}

fn layers_import_downward() -> Fallible<()> {
    let mut wrong = Vec::new();
    let mut seen = 0;
    for (path, text) in sources(&src())? {
        let relative = path.strip_prefix(src())?.to_owned();
        let top =
            relative.components().next().map(|c| c.as_os_str().to_string_lossy().into_owned()).unwrap_or_default();
        let module = top.trim_end_matches(".rs").to_owned();
        if module == "shim" || module == "lib" {
            continue; // a program of its own; the exports
        }
        let own = layer(&module).ok_or(format!("{module}: a module without a layer"))?;
        let code = text.split("#[cfg(test)]").next().unwrap_or_default();
        for line in code.lines().filter(|l| !l.trim_start().starts_with("//")) {
            for used in line.split("crate::").skip(1) {
                let used: String = used.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
                let Some(other) = layer(&used) else { continue };
                seen += 1;
                let beside = own == 1 && other == 1;
                if used != module && other >= own && !beside {
                    wrong.push(format!("{}: {}", relative.display(), line.trim()));
                }
            }
        }
    }
    assert!(seen > 100, "only {seen} imports were found");
    assert!(wrong.is_empty(), "{wrong:#?}");
    Ok(())
}

fn unsafe_is_where_it_may_be() -> Fallible<()> {
    let mut counted = 0;
    for (path, text) in sources(&src())? {
        let relative = path.strip_prefix(src())?;
        let allowed = ["sys", "launch", "shim"].iter().any(|dir| relative.starts_with(dir));
        for (number, line) in text.lines().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            if ["unsafe {", "unsafe fn", "unsafe impl", "unsafe extern"].iter().any(|form| code.contains(form)) {
                counted += 1;
                assert!(allowed, "{}:{}: {line}", relative.display(), number + 1);
            }
        }
    }
    assert!(counted > 20);
    Ok(())
}

fn library_does_not_print_or_panic() -> Fallible<()> {
    // a file of tests is a module under cfg(test)
    for (path, text) in sources(&src())?.into_iter().filter(|(path, _)| !path.ends_with("tests.rs")) {
        let code = text.split("#[cfg(test)]").next().unwrap_or_default();
        for (number, line) in code.lines().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            for form in
                ["println!(", "eprintln!(", "dbg!(", ".unwrap()", ".expect(", "panic!(", "todo!(", "unimplemented!("]
            {
                assert!(!code.contains(form), "{}:{}: {line}", path.display(), number + 1);
            }
        }
    }
    Ok(())
}
