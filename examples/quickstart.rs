//! t
use belljar::{Command, Mount, Mounts, RootFs, Sandbox, Stdio};
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut b = Sandbox::builder(RootFs::empty());
    for d in ["/usr", "/bin", "/lib", "/lib64", "/etc"] { b = b.mount(Mount::bind(d, d).read_only()); }
    let sandbox = b.build()?;
    let mut c = Command::new("sh");
    c.arg("-c").arg("id; hostname; echo $$; cat /proc/mounts; ls -la / /dev; ls -l /proc/self/fd; cat /proc/self/status; ip a; cat /proc/self/uid_map; touch /x; sleep 60 & exit 3");
    println!("{}", sandbox.explain(&c)?);
    let out = sandbox.output(&c)?;
    println!("{}\n{}\n{:?}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr), out.exit);
    let _ = (Mounts::none(), Stdio::Null);
    Ok(())
}
