//! Images over a store directory.
//!
//! ```text
//! image STORE import SOURCE NAME [--reference REF] [--rootfs] [--devices skip|refuse|create] [--no-sync]
//! image STORE list
//! image STORE run NAME [--keep NEW] [--volume NAME:PATH]... [-- CMD ARGS...]
//! image STORE commit UPPER NEW [--parent NAME]
//! image STORE squash NAME NEW
//! image STORE export NAME oci:DIR | oci-archive:FILE | docker-archive:FILE [--uncompressed]
//! image STORE diff NAME NAME
//! image STORE remove NAME
//! image STORE volumes
//! image STORE verify
//! image STORE gc
//! ```
//! SOURCE is an OCI layout (directory or tar), a `docker save` archive, or a root file system in a tar.
//! `run` without CMD runs the image's own program, in the terminal if there is one; `--keep` commits what
//! it has changed. The exit status is the payload's, 128 + n when signal n ended it, and 125 for an error.

use belljar::image::{Commit, Compression, Devices, Durability, Import, Progress, Size, Store};
use belljar::{Command, RootFs, Sandbox, Stdio};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use std::collections::BTreeMap;
use std::error::Error;
use std::fs::File;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitCode;
use std::sync::Mutex;

type Fallible<T> = Result<T, Box<dyn Error>>;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match run(&args.iter().map(String::as_str).collect::<Vec<_>>()) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("image: {error}");
            ExitCode::from(125)
        }
    }
}

fn run(args: &[&str]) -> Fallible<u8> {
    let [store, command, rest @ ..] = args else {
        return Err("usage: image STORE import|list|run|commit|squash|export|diff|remove|volumes|verify|gc …".into());
    };
    let store = Store::open(store)?;
    match (*command, rest) {
        ("import", [source, name, options @ ..]) => import(&store, source, name, options)?,
        ("list", []) => {
            println!("{:40} {:14} {:>6} {:>12} {:>12} {:>12}", "NAME", "ID", "LAYERS", "OWN", "SHARED", "VIRTUAL");
            for image in store.images()? {
                let sizes = store.sizes(image.name())?;
                let id = &image.id().hex()[..12];
                let [own, shared, all] = [sizes.own, sizes.shared, sizes.r#virtual].map(disk);
                println!("{:40} {id:14} {:>6} {own:>12} {shared:>12} {all:>12}", image.name(), image.layers().len());
            }
        }
        ("run", [name, options @ ..]) => return start(&store, name, options),
        ("commit", [upper, new, options @ ..]) => {
            let commit = Commit::upper(*upper);
            let commit = match options {
                ["--parent", parent] => commit.parent(*parent),
                _ => commit,
            };
            println!("{}", store.commit(commit, new)?.id());
        }
        ("squash", [name, new]) => println!("{}", store.squash(name, new)?.id()),
        ("export", [name, target, options @ ..]) => {
            let compression = if options.contains(&"--uncompressed") { Compression::None } else { Compression::Gzip };
            match target.split_once(':') {
                Some(("oci", path)) => store.export_oci(name, path, compression)?,
                Some(("oci-archive", path)) => store.export_oci_archive(name, File::create(path)?, compression)?,
                Some(("docker-archive", path)) => store.export_docker(name, File::create(path)?)?,
                _ => return Err("export to oci:DIR, oci-archive:FILE or docker-archive:FILE".into()),
            }
        }
        ("diff", [from, to]) => store.diff(from, to)?.iter().for_each(|difference| println!("{difference}")),
        ("remove", [name]) => store.remove(name)?,
        ("volumes", []) => {
            for volume in store.volumes()? {
                println!("{:40} {:>12} {:?}", volume.name, disk(volume.size), volume.usage);
            }
        }
        ("verify", []) => {
            let damage = store.verify()?;
            damage.iter().for_each(|error| println!("{error}"));
            return Ok(u8::from(!damage.is_empty()));
        }
        ("gc", []) => {
            let collected = store.gc()?;
            println!("{} layers, {}", collected.layers, disk(collected.size));
        }
        _ => return Err(format!("{command}: no such command, or other arguments").into()),
    }
    Ok(0)
}

fn disk(size: Size) -> String {
    format!("{:.1} MiB", size.blocks.get() as f64 / f64::from(1 << 20))
}

/// One bar for each layer that is being read.
struct Bars {
    all: MultiProgress,
    layers: Mutex<BTreeMap<usize, ProgressBar>>,
}

impl Bars {
    fn show(&self, progress: &Progress) {
        let Ok(mut layers) = self.layers.lock() else { return };
        let bar = layers.entry(progress.layer).or_insert_with(|| {
            let style = ProgressStyle::with_template("{prefix:20} {bar:40} {bytes:>11} of {total_bytes:11} {msg}");
            let bar = self.all.add(ProgressBar::new(progress.total.unwrap_or(0)));
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
            bar.set_prefix(progress.name.chars().take(20).collect::<String>());
            bar
        });
        bar.set_position(progress.read);
        if progress.done {
            bar.finish_with_message("done");
        }
    }
}

fn import(store: &Store, source: &str, name: &str, options: &[&str]) -> Fallible<()> {
    let bars = Bars { all: MultiProgress::new(), layers: Mutex::default() };
    let observer = |progress: &Progress| bars.show(progress);
    let rootfs = options.contains(&"--rootfs");
    let mut import = if rootfs { Import::rootfs(source) } else { Import::detect(source) }.progress(&observer);
    let mut options = options.iter();
    while let Some(option) = options.next() {
        import = match (*option, options.as_slice().first().copied()) {
            ("--rootfs", _) => import,
            ("--no-sync", _) => import.durability(Durability::Process),
            ("--reference", Some(reference)) => {
                options.next();
                import.reference(reference)
            }
            ("--devices", Some(policy)) => {
                options.next();
                import.devices(match policy {
                    "skip" => Devices::Skip,
                    "refuse" => Devices::Refuse,
                    "create" => Devices::Create,
                    _ => return Err(format!("--devices {policy}").into()),
                })
            }
            _ => return Err(format!("{option}: no such option").into()),
        };
    }
    let image = store.import(import, name)?;
    println!("{}", image.id());
    for layer in image.layers() {
        let left_out = store.layer(*layer)?.left_out;
        if left_out != Default::default() {
            eprintln!("{layer}: not in the tree: {left_out:?}");
        }
    }
    Ok(())
}

fn start(store: &Store, name: &str, options: &[&str]) -> Fallible<u8> {
    let (options, program) = match options.iter().position(|word| *word == "--") {
        Some(at) => (&options[..at], &options[at + 1..]),
        None => (options, &[][..]),
    };
    let mut root = RootFs::image(store, name)?;
    let mut volumes = store.declared_volumes(name)?; // first, so that one that is named hides it
    let mut keep = None;
    for pair in options.chunks(2) {
        match pair {
            ["--keep", new] => keep = Some(*new),
            ["--volume", volume] => {
                let (volume, path) = volume.split_once(':').ok_or("--volume NAME:PATH")?;
                let volume = store.volume(volume)?;
                volume.fill(&root, path)?;
                volumes.push(volume.mount(path));
            }
            _ => return Err(format!("{pair:?}: no such option").into()),
        }
    }
    if keep.is_some() {
        root = root.track_changes();
    }
    let sandbox = volumes.into_iter().fold(Sandbox::builder(root), |builder, mount| builder.mount(mount)).build()?;
    let mut command = match program {
        [] => Command::entrypoint(),
        [program, args @ ..] => {
            let mut command = Command::new(program);
            command.args(args);
            command
        }
    };
    command.stdin(Stdio::Inherit).stdout(Stdio::Inherit).stderr(Stdio::Inherit);
    let mut child = sandbox.spawn(&command)?;
    let exit = child.wait()?;
    if let Some(new) = keep {
        let changes = child.changes()?;
        println!("{}", store.commit(Commit::changes(&changes).parent(name), new)?.id());
    }
    let code = exit.status.and_then(|status| status.code().or_else(|| status.signal().map(|signal| 128 + signal)));
    Ok(code.map_or(125, |code| code as u8))
}
