//! A command with an image's defaults filled in.

use super::Command;
use super::command::DEFAULT_PATH;
use crate::preset::Preset;
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

impl Command {
    /// The program that the image names (`RootFs::image`): its entry point with the
    /// arguments given here, or, if there are none, with those of the image. An error of
    /// spawn where the root is no image, or one that names no program.
    ///
    /// Whatever the program, an image's environment, working directory and user are the
    /// defaults of every command that runs from it.
    pub fn entrypoint() -> Command {
        Command::new("")
    }

    /// Whether the image's program is meant.
    pub(super) fn is_entrypoint(&self) -> bool {
        self.program.is_empty()
    }

    /// The program and its arguments.
    pub(super) fn argv(&self, preset: Option<&Preset>) -> Vec<OsString> {
        match preset.filter(|_| self.is_entrypoint()) {
            None => std::iter::once(&self.program).chain(&self.args).cloned().collect(),
            Some(Preset { entrypoint, arguments, .. }) => {
                let arguments = if self.args.is_empty() { arguments } else { &self.args };
                entrypoint.iter().chain(arguments).cloned().collect()
            }
        }
    }

    /// The environment: the image's, or a fixed `PATH`, with the command's changes.
    pub(super) fn environment(&self, preset: Option<&Preset>) -> BTreeMap<OsString, OsString> {
        let mut env = BTreeMap::new();
        if !self.env_cleared {
            env.insert("PATH".into(), DEFAULT_PATH.into());
            env.extend(preset.into_iter().flat_map(|preset| preset.env.iter().cloned()));
        }
        for (key, value) in &self.env {
            match value {
                Some(value) => env.insert(key.clone(), value.clone()),
                None => env.remove::<OsStr>(key),
            };
        }
        env
    }

    pub(super) fn directory(&self, preset: Option<&Preset>) -> PathBuf {
        let own = self.current_dir.as_deref();
        own.or_else(|| preset?.current_dir.as_deref()).unwrap_or(Path::new("/")).to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_wins_over_the_image() {
        let preset = Preset {
            entrypoint: vec!["run".into()],
            arguments: vec!["a".into()],
            env: vec![("PATH".into(), "/image".into()), ("A".into(), "1".into()), ("B".into(), "1".into())],
            current_dir: Some("/srv".into()),
            ..Preset::default()
        };
        let preset = Some(&preset);
        let mut command = Command::entrypoint();
        assert_eq!((command.argv(preset), command.argv(None)), (vec!["run".into(), "a".into()], vec!["".into()]));
        command.arg("b").env("A", "2").env_remove("B");
        assert_eq!(command.argv(preset), ["run", "b"]);
        let env: Vec<_> = command.environment(preset).into_iter().collect();
        assert_eq!(env, [("A".into(), "2".into()), ("PATH".into(), "/image".into())]);
        assert_eq!(command.directory(preset), Path::new("/srv"));
        assert_eq!(command.current_dir("/").directory(preset), Path::new("/"));
        let mut own = Command::new("x");
        assert_eq!(own.argv(preset), ["x"]);
        assert_eq!(own.environment(None).len(), 1);
        assert_eq!(own.env("PATH", "/own").environment(preset).get(OsStr::new("PATH")), Some(&"/own".into()));
        assert!(own.env_clear().environment(preset).is_empty());
    }
}
