//! Compiles `src/shim` into a static ELF without libc or `std`, for the crate's
//! own target, so that the library can embed it.
//!
//! Only `$RUSTC` and a linker are needed. Linkers are tried in turn (the
//! toolchain's own rust-lld, the configured one, the C compiler, ld), because
//! none of them is there on every machine; the first that gives a static
//! executable is taken.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn main() {
    for dir in ["src/shim", "src/sys/kernel", "src/program/wire"] {
        println!("cargo::rerun-if-changed={dir}");
    }
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=RUSTC_LINKER");

    let os = env::var("CARGO_CFG_TARGET_OS").unwrap_or_default();
    let arch = env::var("CARGO_CFG_TARGET_ARCH").unwrap_or_default();
    if os != "linux" || !matches!(arch.as_str(), "x86_64" | "aarch64") {
        panic!("belljar supports Linux on x86_64 and aarch64, not {os} on {arch}");
    }
    build("src/shim/main.rs", "shim");
    // what the tests run in sandboxes; not part of the published package
    if Path::new(ATTACK).exists() {
        println!("cargo::rerun-if-changed=tests/attacks/payload");
        build(ATTACK, "attack");
    }
}

const ATTACK: &str = "tests/attacks/payload/main.rs";

/// Compiles one program into `$OUT_DIR/NAME.elf`.
fn build(source: &str, name: &str) {
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let elf = out.join(name).with_extension("elf");
    let mut failures = String::new();
    for linker in linkers() {
        match compile(source, name, &elf, &linker) {
            Ok(()) => match verify(&elf) {
                Ok(()) => return,
                Err(why) => failures += &format!("with {linker:?}: {why}\n"),
            },
            Err(why) => failures += &format!("with {linker:?}: {why}\n"),
        }
    }
    panic!("no linker could build {source}:\n{failures}");
}

/// How to link: a program and the flavour in which it takes its arguments.
#[derive(Debug)]
struct Linker {
    program: Option<PathBuf>,
    flavor: &'static str,
}

fn linkers() -> Vec<Linker> {
    let mut all = Vec::new();
    if let Some(program) = rust_lld() {
        all.push(Linker { program: Some(program), flavor: "ld.lld" });
    }
    if let Some(program) = env::var_os("RUSTC_LINKER").map(PathBuf::from) {
        let name = program.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let bare = ["ld", "lld", "mold", "wild"].iter().any(|ld| name == *ld || name.ends_with(&format!("-{ld}")));
        all.push(Linker { program: Some(program), flavor: if bare || name == "ld.lld" { "ld" } else { "gcc" } });
    }
    all.push(Linker { program: None, flavor: "gcc" }); // the target's default, usually cc
    for (program, flavor) in [("cc", "gcc"), ("clang", "gcc"), ("ld.lld", "ld.lld"), ("ld", "ld")] {
        all.push(Linker { program: Some(program.into()), flavor });
    }
    all
}

/// The linker that rustup ships beside the compiler.
fn rust_lld() -> Option<PathBuf> {
    let output = rustc().args(["--print", "sysroot"]).output().ok()?;
    let sysroot = PathBuf::from(String::from_utf8(output.stdout).ok()?.trim());
    let path = sysroot.join("lib/rustlib").join(env::var_os("HOST")?).join("bin/rust-lld");
    path.exists().then_some(path)
}

/// The compiler itself, without `RUSTC_WRAPPER`: a cache has nothing to gain here.
fn rustc() -> Command {
    let mut command = Command::new(env::var_os("RUSTC").expect("cargo sets RUSTC"));
    // Flags meant for the crate (sanitizers, coverage, target-cpu) do not fit a
    // program without std.
    command.env_remove("RUSTFLAGS").env_remove("CARGO_ENCODED_RUSTFLAGS");
    command
}

fn compile(source: &str, name: &str, elf: &Path, linker: &Linker) -> Result<(), String> {
    let manifest = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets CARGO_MANIFEST_DIR"));
    let mut command = rustc();
    command
        .arg(manifest.join(source))
        .args(["--crate-name", &format!("belljar_{name}"), "--crate-type", "bin", "--edition", "2024"])
        .args(["--cap-lints", "allow"])
        .arg("--target")
        .arg(env::var_os("TARGET").expect("cargo sets TARGET"))
        .args(["-C", "opt-level=s", "-C", "panic=abort", "-C", "lto=fat", "-C", "codegen-units=1"])
        .args(["-C", "relocation-model=static", "-C", "strip=symbols"])
        .args(["-C", "debuginfo=0", "-C", "overflow-checks=off", "-C", "default-linker-libraries=no"])
        .arg("-C")
        .arg(format!("linker-flavor={}", linker.flavor))
        .arg("-o")
        .arg(elf);
    let set = |name: &str, value: &str| env::var(name).is_ok_and(|v| v == value);
    // the functions of outlined atomics ask a libc which instructions the processor has
    let outlined = if set("CARGO_CFG_TARGET_ARCH", "aarch64") { ",-outline-atomics" } else { "" };
    command.arg("-C").arg(format!("target-feature=+crt-static{outlined}"));
    if linker.flavor != "gcc" && (set("CARGO_CFG_TARGET_ARCH", "x86_64") || set("CARGO_CFG_TARGET_ENV", "musl")) {
        // a compiler driver finds its linker there; other targets have none, and do not take the option
        command.args(["-C", "link-self-contained=no"]);
    }
    if let Some(program) = &linker.program {
        let mut value = OsString::from("linker=");
        value.push(program);
        command.arg("-C").arg(value);
    }
    let wants = ["-static", "-nostdlib", "--entry=_start", "--gc-sections", "-z,noseparate-code", "--build-id=none"];
    for want in wants {
        for argument in link_arguments(want, linker.flavor) {
            command.arg("-C").arg(format!("link-arg={argument}"));
        }
    }
    let Output { status, stderr, .. } = command.output().map_err(|e| e.to_string())?;
    if status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&stderr).chars().take(2000).collect()) }
}

/// A linker option as the flavour spells it: behind `-Wl` for a compiler driver.
fn link_arguments(option: &str, flavor: &str) -> Vec<String> {
    match (option, flavor) {
        ("-static", "gcc") => vec!["-static".into(), "-nostartfiles".into(), "-no-pie".into()],
        ("-nostdlib", _) => vec!["-nostdlib".into()],
        (option, "gcc") => vec![format!("-Wl,{option}")],
        (option, _) => option.split(',').map(String::from).collect(),
    }
}

/// A 64-bit executable without an interpreter: what execveat can run in an empty root.
fn verify(elf: &Path) -> Result<(), String> {
    let bytes = fs::read(elf).map_err(|e| e.to_string())?;
    let u16_at = |at: usize| bytes.get(at..at + 2).map(|b| u16::from_le_bytes([b[0], b[1]]));
    let (Some(kind), Some(entry), Some(count)) = (u16_at(16), u16_at(54), u16_at(56)) else {
        return Err("no ELF".into());
    };
    if &bytes[..5] != b"\x7fELF\x02" || kind != 2 {
        return Err(format!("not a static 64-bit executable (e_type {kind})"));
    }
    let phoff = u64::from_le_bytes(bytes[32..40].try_into().expect("eight bytes")) as usize;
    for i in 0..count as usize {
        let at = phoff + i * entry as usize;
        let p_type = bytes.get(at..at + 4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]));
        if matches!(p_type, None | Some(2 | 3)) {
            return Err("it is dynamically linked".into());
        }
    }
    Ok(())
}
