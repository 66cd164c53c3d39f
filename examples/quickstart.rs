//! A sandbox from nothing but a Linux host: run it as root or as an ordinary user.
//!
//! Two tiny layers made here, the host's programs bound read-only over them, and a
//! shell script that looks around inside.

use belljar::{Bytes, Command, Mount, RootFs, Sandbox, Upper, Uts};
use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};

const LOOK_AROUND: &str = r#"
echo "I am pid $$ under PID 1 '$(cat /proc/1/comm)', uid $(id -u), on host '$(uname -n)'"
echo "network devices:  $(tail -n +3 /proc/net/dev | cut -d: -f1 | tr -d ' ' | tr '\n' ' ')"
echo "capabilities:     $(grep CapEff /proc/self/status | cut -f2)"
echo "/srv shows both layers and the init layer:"
for file in /srv/*; do echo "  $(basename "$file"): $(cat "$file")"; done
echo "the secret of the lower layer: $(cat /etc/secret 2>/dev/null || echo 'hidden')"
touch /usr/file 2>/dev/null && echo "/usr is writable?!" || echo "/usr is read-only"
echo "changed" > /srv/lower && echo "/srv is writable here: $(cat /srv/lower)"
"#;

fn main() -> Result<(), Box<dyn Error>> {
    let layers = Layers::new()?;
    let root = RootFs::overlay([&layers.lower, &layers.app])
        .hide("/etc/secret")
        .file("/srv/init", "true for this sandbox only")
        .upper(Upper::Discard { bytes: Bytes::mib(16), inodes: 1000 });
    let mut builder = Sandbox::builder(root).namespaces(belljar::Namespaces::isolated().uts(Uts::new("quickstart")));
    // where the host keeps its programs and their libraries
    for dir in ["/usr", "/bin", "/sbin", "/lib", "/lib64", "/nix", "/gnu"] {
        if Path::new(dir).exists() {
            builder = builder.mount(Mount::bind(dir, dir).read_only());
        }
    }
    let sandbox = builder.build()?;

    let output = sandbox.output(Command::new("sh").arg("-c").arg(LOOK_AROUND))?;
    print!("{}", String::from_utf8_lossy(&output.stdout));
    eprint!("{}", String::from_utf8_lossy(&output.stderr));

    let usage = &output.exit.usage;
    println!("\noutside: {}, after {:.1?}", output.exit, usage.wall);
    if let (Some(user), Some(system), Some(rss)) = (usage.user, usage.system, usage.max_rss) {
        println!("it cost {user:.1?} user and {system:.1?} system time, and {rss} of memory at most");
    }
    println!("the lower layer still says: {}", fs::read_to_string(layers.lower.join("srv/lower"))?);
    if !output.exit.success() {
        return Err("the script failed".into());
    }
    Ok(())
}

/// Two layers in a temporary directory, removed at the end.
struct Layers {
    dir: PathBuf,
    lower: PathBuf,
    app: PathBuf,
}

impl Layers {
    fn new() -> Result<Layers, Box<dyn Error>> {
        let dir = std::env::temp_dir().join(format!("belljar-quickstart-{}", std::process::id()));
        fs::create_dir(&dir)?;
        let layers = Layers { lower: dir.join("lower"), app: dir.join("app"), dir };
        for (file, content) in [
            (layers.lower.join("srv/lower"), "from the lower layer"),
            (layers.lower.join("etc/secret"), "nobody should see this"),
            (layers.app.join("srv/app"), "from the upper one of the two"),
        ] {
            fs::create_dir_all(file.parent().ok_or("a file without a directory")?)?;
            fs::write(file, content)?;
        }
        Ok(layers)
    }
}

impl Drop for Layers {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.dir) {
            eprintln!("cannot remove {}: {error}", self.dir.display());
        }
    }
}
