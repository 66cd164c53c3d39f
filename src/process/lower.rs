//! The payload's process as ops.

use super::command::DEFAULT_PATH;
use super::{Command, Init, Stdio, Streams};
use crate::error::{Defect, Error, Result};
use crate::id::{c_path, c_string, check_guest, check_nul};
use crate::preset::Preset;
use crate::program::{Builder, Op, Slot, Strings, strings};
use std::collections::BTreeMap;
use std::ffi::{CString, OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

/// What a stream is that the command does not set.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Defaults {
    /// Nothing.
    Null,
    /// Pipes for stdout and stderr.
    Output,
}

/// Where in the payload's process something is done that another domain has to say.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// With the capabilities of the set-up.
    BeforeIds,
    /// With those of the payload.
    AfterIds,
    /// When nothing is left to do but to execute the program.
    Last,
}

/// What the sandbox knows of ids: the defaults, and whether groups can be set.
#[derive(Clone, Copy)]
pub(crate) struct Ids<'a> {
    pub uid: u32,
    pub gid: u32,
    pub may_set_groups: bool,
    /// What the payload keeps.
    pub capabilities: u64,
    /// The image's defaults, the ids above among them.
    pub preset: Option<&'a Preset>,
}

impl Command {
    /// What is wrong with the command, for a sandbox whose ids these closures know.
    pub(crate) fn check(
        &self,
        has_uid: impl Fn(u32) -> bool,
        has_gid: impl Fn(u32) -> bool,
        ids: &Ids<'_>,
        init: Init,
    ) -> Result<()> {
        let mut defects = Vec::new();
        self.limits.check(init, &mut defects);
        let argv = self.argv(ids.preset);
        match (argv.first().is_none_or(|program| program.is_empty()), ids.preset) {
            (true, Some(preset)) => defects.push(Defect::new(
                format!("the image {} names no program", preset.name),
                "Command::new(program) instead of Command::entrypoint()",
            )),
            (true, None) => {
                defects.push(Defect::new("the program has no name", "a path or a name to look for in PATH"))
            }
            _ => {}
        }
        argv.iter().chain(&self.arg0).for_each(|arg| check_nul(arg, "the argument", &mut defects));
        for (key, value) in &self.environment(ids.preset) {
            check_nul(key, "the variable", &mut defects);
            check_nul(value, "the value of a variable", &mut defects);
            if key.is_empty() || key.as_bytes().contains(&b'=') {
                defects.push(Defect::new(format!("{key:?} is no name of a variable"), "a name without '='"));
            }
        }
        check_guest(&self.directory(ids.preset), "the working directory", &mut defects);
        let mut unmapped = |what: &str, id: u32| {
            defects.push(Defect::new(
                format!("{what} {id} does not exist in the sandbox's id map"),
                "an id of the map, or an IdMap with more ids: as an ordinary user IdMap::subordinate()",
            ));
        };
        // the defaults are in the map, unless they are an image's
        if let Some(uid) =
            Some(self.payload_uid(ids)).filter(|uid| (self.uid.is_some() || ids.preset.is_some()) && !has_uid(*uid))
        {
            unmapped("uid", uid);
        }
        let gid = Some(self.payload_gid(ids)).filter(|_| self.gid.is_some() || ids.preset.is_some());
        let groups = self.payload_groups(ids);
        for gid in gid.iter().chain(&groups).filter(|gid| !has_gid(**gid)) {
            unmapped("gid", *gid);
        }
        if groups.len() > 64 {
            defects.push(Defect::new(format!("{} supplementary groups", groups.len()), "at most 64"));
        }
        if !groups.is_empty() && !ids.may_set_groups {
            defects.push(Defect::new(
                "supplementary groups cannot be set where only the caller's own id is mapped",
                "IdMap::subordinate(), or no groups",
            ));
        }
        if self.umask > 0o777 {
            defects.push(Defect::new(format!("the umask {:o}", self.umask), "0 to 0o777: permission bits (umask(2))"));
        }
        self.schedule.check(&mut defects);
        super::fds::check(&self.fds, &mut defects);
        self.check_streams(&mut defects);
        if defects.is_empty() { Ok(()) } else { Err(Error::spec(defects)) }
    }

    /// A terminal takes a devpts.
    pub(crate) fn check_terminal(&self, has_devpts: bool) -> Result<()> {
        if !self.wants_terminal() || has_devpts {
            return Ok(());
        }
        Err(Error::spec(vec![Defect::new(
            "a pty without a devpts of the sandbox's own in the mount plan",
            "Mount::dev(\"/dev\") or Mount::devpts(\"/dev/pts\"), in a root that is not inherited or joined",
        )]))
    }

    /// A terminal takes a reader at its other end, or the payload waits for one.
    pub(crate) fn check_unattended(&self) -> Result<()> {
        if !self.wants_terminal() {
            return Ok(());
        }
        Err(Error::spec(vec![Defect::new(
            "a pty in a call that waits for the end: nobody would read from it, and the payload would wait, too",
            "Sandbox::spawn, and Child::pty to read from",
        )]))
    }

    fn wants_terminal(&self) -> bool {
        let streams = [&self.stdin, &self.stdout, &self.stderr];
        self.pty.is_some() || streams.iter().any(|stdio| matches!(stdio, Some(Stdio::Pty)))
    }

    /// The payload's user and group inside.
    pub(crate) fn payload_ids(&self, ids: &Ids<'_>) -> (u32, u32) {
        (self.payload_uid(ids), self.payload_gid(ids))
    }

    pub(super) fn payload_uid(&self, ids: &Ids<'_>) -> u32 {
        self.uid.map_or(ids.uid, |uid| uid.get())
    }

    pub(super) fn payload_gid(&self, ids: &Ids<'_>) -> u32 {
        self.gid.map_or(ids.gid, |gid| gid.get())
    }

    /// An image's groups are its user's: another user has none, and nobody where they cannot be set.
    fn payload_groups(&self, ids: &Ids<'_>) -> Vec<u32> {
        match (&self.groups, ids.preset) {
            (Some(groups), _) => groups.iter().map(|gid| gid.get()).collect(),
            (None, Some(preset)) if self.uid.is_none() && ids.may_set_groups => preset.groups.clone(),
            _ => Vec::new(),
        }
    }

    /// Appends what the shim does before anything else. `spared`: the host process has a negative `oom_score_adj`.
    pub(crate) fn lower_early(&self, spared: bool, builder: &mut Builder) {
        self.schedule.lower_early(spared, builder);
    }

    /// Appends the ops of the payload's process. `security` appends what confines it.
    pub(crate) fn lower(
        &self,
        ids: &Ids<'_>,
        defaults: Defaults,
        without: u32,
        builder: &mut Builder,
        payload: impl FnOnce(&mut Builder) -> Result<()>,
        security: impl Fn(Stage, &mut Builder),
    ) -> Result<Streams> {
        let (ends, ours) = self.streams(ids, defaults, builder)?;
        let others = super::fds::lower(&self.fds, builder);
        let keep = match self.entry {
            Some(_) => builder.send(super::entry::own_program(without)?),
            None => Slot::NONE,
        };
        self.limits.lower(builder);
        payload(builder)?;
        builder.op(Op::Session {});
        self.limits.lower_payload(builder);
        self.schedule.lower(builder);
        let [stdin, stdout, stderr] = ends.slots;
        builder.op(Op::Stdio { stdin, stdout, stderr, others: &others, keep });
        if let Some(stream) = ends.terminal {
            builder.op(Op::Terminal { stream });
        }
        builder.op(Op::Umask { mask: self.umask });
        security(Stage::BeforeIds, builder);
        let groups: Vec<u8> = self.payload_groups(ids).iter().flat_map(|gid| gid.to_le_bytes()).collect();
        builder.op(Op::Credentials {
            uid: self.payload_uid(ids),
            gid: self.payload_gid(ids),
            groups: &groups,
            set_groups: ids.may_set_groups.into(),
            capabilities: ids.capabilities,
        });
        security(Stage::AfterIds, builder);
        builder.op(Op::WorkingDirectory { path: &c_path(&self.directory(ids.preset)) });
        let (args, env) = (self.argv(ids.preset), self.environment(ids.preset));
        let argv = strings(
            self.arg0.iter().chain(&args).take(1).chain(args.iter().skip(1)).map(|arg| c_string(arg.as_bytes())),
        );
        let envp = strings(env.iter().map(|(key, value)| c_string(&[key.as_bytes(), b"=", value.as_bytes()].concat())));
        security(Stage::Last, builder);
        builder.op(Op::Exec {
            candidates: Strings(&strings(candidates(args.first().map_or(&[], |arg| arg.as_bytes()), &env))),
            argv: Strings(&argv),
            envp: Strings(&envp),
        });
        Ok(ours)
    }
}

/// The paths to try, as execvp(3) makes them. An empty element of PATH means the
/// working directory.
fn candidates(program: &[u8], env: &BTreeMap<OsString, OsString>) -> Vec<CString> {
    if program.contains(&b'/') {
        return vec![c_string(program)];
    }
    let path = env.get(OsStr::new("PATH")).map_or(DEFAULT_PATH.as_bytes(), |path| path.as_bytes());
    path.split(|b| *b == b':')
        .map(|dir| match dir {
            b"" => c_string(&[b"./", program].concat()),
            dir => c_string(&[dir, b"/", program].concat()),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn candidates_follow_the_path_given() {
        let names = |command: &Command| {
            let found = candidates(command.program().as_bytes(), &command.environment(None));
            found.iter().map(|c| c.to_string_lossy().into_owned()).collect::<Vec<_>>()
        };
        assert_eq!(names(&Command::new("/bin/sh")), ["/bin/sh"]);
        assert_eq!(names(Command::new("sh").env("PATH", "/a::/b")), ["/a/sh", "./sh", "/b/sh"]);
        assert_eq!(names(Command::new("x").env_clear()).len(), 6);
    }
}
