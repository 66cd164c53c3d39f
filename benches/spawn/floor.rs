//! The floor: what the kernel asks for this work, and nothing else. One clone that
//! shares this process's memory, the mounts by mount(2), no error messages, no
//! supervision, no id-mapped layers, one line of id map, and (unless asked for) no `lo`.

use crate::raw::{self, Stack};
use crate::world::World;
use std::ffi::CString;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// The least work.
pub struct Floor {
    flags: i32,
    lo: bool,
    uid_map: CString,
    gid_map: CString,
    scratch: CString,
    overlay: CString,
    program: CString,
    stack: Stack,
}

/// The namespaces of every row; the network is what costs most, so it can be left out.
pub const NAMESPACES: i32 = libc::CLONE_NEWNS
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUSER
    | libc::CLONE_NEWNET;

fn c_string(bytes: &[u8]) -> CString {
    CString::new(bytes).expect("paths of this benchmark have no NUL")
}

fn c_path(path: &Path) -> CString {
    c_string(path.as_os_str().as_bytes())
}

impl Floor {
    pub fn new(world: &World, program: &str, net: bool) -> Floor {
        // SAFETY: these two take nothing and cannot fail.
        let (uid, gid) = unsafe { (libc::geteuid(), libc::getegid()) };
        let overlay = format!(
            "lowerdir={}:{},upperdir=upper,workdir=work,userxattr",
            world.layers[1].display(),
            world.layers[0].display()
        );
        Floor {
            flags: if net { NAMESPACES } else { NAMESPACES & !libc::CLONE_NEWNET },
            lo: false,
            uid_map: c_string(format!("0 {uid} 1").as_bytes()),
            gid_map: c_string(format!("0 {gid} 1").as_bytes()),
            scratch: c_path(&world.scratch),
            overlay: c_string(overlay.as_bytes()),
            program: c_string(program.as_bytes()),
            stack: Stack::new(),
        }
    }

    /// Brings up `lo` too, as sandboxes do.
    pub fn with_lo(mut self) -> Floor {
        self.lo = true;
        self
    }

    /// Starts one; gives its pid. What fails before the program shows in its exit code.
    pub fn spawn(&mut self) -> io::Result<i32> {
        let flags = self.flags;
        let argument = std::ptr::from_ref(self).cast_mut().cast();
        // SAFETY: `child` makes system calls only, and reads this `Floor` while this
        // frame sleeps.
        let pid = unsafe { raw::vfork(flags, &mut self.stack, child, argument) };
        if pid < 0 { Err(io::Error::from_raw_os_error(-pid as i32)) } else { Ok(pid as i32) }
    }

    /// Starts one and waits for its end.
    pub fn run(&mut self) -> io::Result<()> {
        match wait(self.spawn()?)? {
            0 => Ok(()),
            status => Err(io::Error::other(format!("the set-up failed at line {} of floor.rs", status >> 8))),
        }
    }
}

/// wait4(2).
pub fn wait(pid: i32) -> io::Result<i32> {
    let mut status = 0;
    // SAFETY: the kernel writes one int.
    match unsafe { libc::waitpid(pid, &mut status, 0) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(status),
    }
}

/// # Safety
/// For `Floor::spawn` only.
unsafe extern "C" fn child(argument: *mut u8) -> ! {
    // SAFETY: `spawn` passes its own `Floor`, which nobody writes while it sleeps.
    let floor = unsafe { &*argument.cast::<Floor>() };
    let failed = floor.exec().err().unwrap_or(255);
    loop {
        // SAFETY: the child ends.
        unsafe { raw::call(libc::SYS_exit_group, failed & 0xff, 0, 0, 0, 0) };
    }
}

/// Calls, or gives the number of the line that failed.
macro_rules! call {
    ($n:ident, $a:expr, $b:expr, $c:expr, $d:expr, $e:expr) => {{
        // SAFETY: each pointer is a C string of the binary or of the `Floor`, or an array on the stack.
        let ret = unsafe { raw::call(libc::$n, $a as usize, $b as usize, $c as usize, $d as usize, $e as usize) };
        if ret < 0 {
            return Err(line!() as usize);
        }
        ret
    }};
}

macro_rules! put {
    ($path:literal, $text:expr) => {{
        let text = $text;
        let flags = libc::O_WRONLY | libc::O_CLOEXEC;
        let fd = call!(SYS_openat, libc::AT_FDCWD, $path.as_ptr(), flags, 0, 0);
        call!(SYS_write, fd, text.as_ptr(), text.count_bytes(), 0, 0);
    }};
}

const NULL: usize = 0;

impl Floor {
    /// Id maps and the overlay, in the namespaces of `NAMESPACES`. System calls only.
    #[inline(always)]
    pub fn prepare(&self) -> Result<(), usize> {
        put!(c"/proc/self/uid_map", self.uid_map.as_c_str());
        put!(c"/proc/self/setgroups", c"deny");
        put!(c"/proc/self/gid_map", self.gid_map.as_c_str());
        if self.lo {
            // struct ifreq: a name of 16 bytes, then the flags; 40 bytes in all
            let mut request = [0u16; 20];
            request[0] = u16::from_ne_bytes(*b"lo");
            request[8] = libc::IFF_UP as u16;
            let socket = call!(SYS_socket, libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0, NULL, NULL);
            call!(SYS_ioctl, socket, libc::SIOCSIFFLAGS, request.as_ptr(), NULL, NULL);
        }
        // a mount namespace of a new user namespace receives mounts of the host, but only
        // into the old root, which is dropped
        let size = c"size=16m,nr_inodes=1024,mode=755";
        call!(SYS_mount, c"s".as_ptr(), self.scratch.as_ptr(), c"tmpfs".as_ptr(), NULL, size.as_ptr());
        call!(SYS_chdir, self.scratch.as_ptr(), NULL, NULL, NULL, NULL);
        call!(SYS_mkdirat, libc::AT_FDCWD, c"upper".as_ptr(), 0o755, NULL, NULL);
        call!(SYS_mkdirat, libc::AT_FDCWD, c"work".as_ptr(), 0o755, NULL, NULL);
        call!(SYS_mkdirat, libc::AT_FDCWD, c"root".as_ptr(), 0o755, NULL, NULL);
        let flags = libc::MS_NOSUID | libc::MS_NODEV;
        call!(SYS_mount, c"o".as_ptr(), c"root".as_ptr(), c"overlay".as_ptr(), flags, self.overlay.as_ptr());
        call!(SYS_chdir, c"root".as_ptr(), NULL, NULL, NULL, NULL);
        Ok(())
    }

    /// `/proc` and the root, in the new pid namespace. System calls only.
    #[inline(always)]
    pub fn enter(&self) -> Result<(), usize> {
        let flags = libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC;
        call!(SYS_mount, c"p".as_ptr(), c"proc".as_ptr(), c"proc".as_ptr(), flags, NULL);
        // the old root ends up on top of the new one
        call!(SYS_pivot_root, c".".as_ptr(), c".".as_ptr(), NULL, NULL, NULL);
        call!(SYS_umount2, c".".as_ptr(), libc::MNT_DETACH, NULL, NULL, NULL);
        call!(SYS_chdir, c"/".as_ptr(), NULL, NULL, NULL, NULL);
        Ok(())
    }

    #[inline(always)]
    fn exec(&self) -> Result<(), usize> {
        self.prepare()?;
        self.enter()?;
        let argv = [self.program.as_ptr(), std::ptr::null()];
        let envp = [std::ptr::null::<std::ffi::c_char>()];
        call!(SYS_execve, self.program.as_ptr(), argv.as_ptr(), envp.as_ptr(), NULL, NULL);
        Ok(())
    }
}
