//! Subordinate ids: what `/etc/subuid` and `/etc/subgid` grant a user (subuid(5)).

use std::io;

/// A range of the host's ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SubIds {
    pub first: u32,
    pub count: u32,
}

/// The ranges that a file grants a user, by name or by number.
pub(crate) fn subordinate(path: &str, uid: u32) -> io::Result<Vec<SubIds>> {
    let name = nix::unistd::User::from_uid(nix::unistd::Uid::from_raw(uid)).ok().flatten().map(|user| user.name);
    Ok(parse(&std::fs::read_to_string(path)?, name.as_deref(), uid))
}

fn parse(text: &str, name: Option<&str>, uid: u32) -> Vec<SubIds> {
    let mut ranges = Vec::new();
    for line in text.lines() {
        let mut fields = line.trim().split(':');
        let (Some(who), Some(first), Some(count), None) = (fields.next(), fields.next(), fields.next(), fields.next())
        else {
            continue;
        };
        if Some(who) != name && who.parse() != Ok(uid) {
            continue;
        }
        if let (Ok(first), Ok(count)) = (first.parse(), count.parse()) {
            ranges.push(SubIds { first, count });
        }
    }
    ranges
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_by_name_and_by_number_and_no_others() {
        let text = "root:1:2\nmaria:100000:65536\n# maria:5:5\n1000:300000:10\nmaria:x:1\nmaria:1:2:3\nmar:7:7\n";
        let range = |first, count| SubIds { first, count };
        assert_eq!(parse(text, Some("maria"), 1000), [range(100000, 65536), range(300000, 10)]);
        assert_eq!(parse(text, None, 1001), []);
    }
}
