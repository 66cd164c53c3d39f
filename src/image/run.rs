//! Running from an image: its layers as a root, its configuration as a command's defaults.

use super::record::Image;
use super::store::Store;
use super::view::View;
use crate::error::{Error, ErrorKind, Result};
use crate::preset::Preset;
use crate::rootfs::RootFs;
use crate::sys::path::OpenFlags;
use std::ffi::OsString;
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

/// No system has a larger one.
const MAX_DATABASE: u64 = 4 << 20;

impl RootFs {
    /// The layers of an image of a store, with its environment, working directory and user
    /// as the defaults of every [`Command`](crate::Command), and its program as
    /// [`Command::entrypoint`](crate::Command::entrypoint).
    ///
    /// The layers stay in the store as long as this value, a [`Sandbox`](crate::Sandbox) built
    /// from it or one of its children lives, also one that outlives this process.
    ///
    /// A user or group that the configuration gives by name is looked up in the image's own
    /// `/etc/passwd` and `/etc/group`; one that is not there is an error, never root.
    ///
    /// # Errors
    /// As [`Store::image`]; [`ErrorKind::InvalidImage`] for a layer that is missing;
    /// [`ErrorKind::NotFound`] for the user.
    pub fn image(store: &Store, name: &str) -> Result<RootFs> {
        let (image, lease) = store.hold(name)?;
        let preset = preset(store, &image)?;
        let mut root = RootFs::overlay(store.trees(&image));
        root.leases.push(lease);
        root.preset = Some(Arc::new(preset));
        Ok(root)
    }
}

fn preset(store: &Store, image: &Image) -> Result<Preset> {
    let mut preset = Preset { name: image.name().to_owned(), ..Preset::default() };
    let Some(config) = image.configuration().config() else { return Ok(preset) };
    let words = |words: &Option<Vec<String>>| words.iter().flatten().map(OsString::from).collect();
    preset.entrypoint = words(config.entrypoint());
    preset.arguments = words(config.cmd());
    for variable in config.env().iter().flatten() {
        if let Some((key, value)) = variable.split_once('=').filter(|(key, _)| !key.is_empty()) {
            preset.env.push((key.into(), value.into()));
        }
    }
    let directory = config.working_dir().as_deref().filter(|directory| !directory.is_empty());
    preset.current_dir = directory.map(|directory| Path::new("/").join(directory));
    if let Some(user) = config.user().as_deref().filter(|user| !user.is_empty()) {
        resolve_user(user, &View::open(store.trees(image))?, &mut preset)?;
    }
    Ok(preset)
}

/// `user`, `uid`, `user:group`, `uid:gid` (OCI image-spec, "config.User").
fn resolve_user(text: &str, view: &View, preset: &mut Preset) -> Result<()> {
    let (user, group) = text.split_once(':').map_or((text, None), |(user, group)| (user, Some(group)));
    let passwd = database(view, "etc/passwd")?;
    let groups = database(view, "etc/group")?;
    let unknown = |what: &str, name: &str| {
        Error::new(ErrorKind::NotFound, format!("find the {what} {name:?} of the image {}", preset.name)).with_hint(
            "an image whose /etc/passwd and /etc/group have it, or Command::uid and Command::gid with RootFs::overlay",
        )
    };
    let line = lines(&passwd)
        .find(|fields| fields[0] == user || (number(user).is_some() && fields.get(2).copied() == Some(user)));
    let uid = match (number(user), &line) {
        (Some(uid), _) => uid,
        (None, Some(fields)) => fields.get(2).and_then(|id| number(id)).ok_or_else(|| unknown("user", user))?,
        (None, None) => return Err(unknown("user", user)),
    };
    let gid = match group {
        Some(group) => number(group)
            .or_else(|| lines(&groups).find(|fields| fields[0] == group).and_then(|fields| number(fields.get(2)?)))
            .ok_or_else(|| unknown("group", group))?,
        None => line.as_ref().and_then(|fields| number(fields.get(3)?)).unwrap_or(0),
    };
    if let (None, Some(fields)) = (group, &line) {
        let member = |list: &str| list.split(',').any(|name| name == fields[0]);
        let listed = lines(&groups).filter(|group| group.get(3).is_some_and(|list| member(list)));
        preset.groups = listed.filter_map(|group| number(group.get(2)?)).filter(|id| *id != gid).take(64).collect();
    }
    (preset.uid, preset.gid) = (Some(uid), Some(gid));
    Ok(())
}

/// Digits and nothing else, and no number that means something else to the kernel.
fn number(text: &str) -> Option<u32> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    text.parse().ok().filter(|id| digits && *id != u32::MAX)
}

fn lines(text: &str) -> impl Iterator<Item = Vec<&str>> {
    text.lines().filter(|line| !line.starts_with('#')).map(|line| line.split(':').collect())
}

/// A file of the image; empty if there is none. Through no link: that could lead anywhere.
fn database(view: &View, path: &str) -> Result<String> {
    let Some(node) = view.find(Path::new(path))?.filter(|node| node.kind() == libc::S_IFREG) else {
        return Ok(String::new());
    };
    let mut bytes = Vec::new();
    File::from(view.open_node(&node, OpenFlags::default())?)
        .take(MAX_DATABASE)
        .read_to_end(&mut bytes)
        .map_err(|e| super::io_error(format!("read {path} of an image"), &e))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn odd_users_are_never_root() {
        for text in ["", "-1", "+0", "0x0", " 0", "0 ", "4294967295", "4294967296", "1e3", "٠"] {
            assert_eq!(number(text), None, "{text:?}");
        }
        assert_eq!((number("0"), number("33")), (Some(0), Some(33)));
    }
}
