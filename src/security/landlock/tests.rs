//! The crate `landlock` as an oracle: the rights of each version, in the words of others.

use super::*;
use ::landlock::{ABI, Access, AccessFs, AccessNet, BitFlags, Scope};

fn compiled(abi: u32) -> Domains {
    let around = Surroundings {
        abi,
        own_mounts: true,
        root_writable: false,
        places: [
            ("/w", Place::Writable),
            ("/f", Place::Files),
            ("/d", Place::Devices),
            ("/b", Place::WritableDevices),
            ("/q", Place::Queues),
        ]
        .map(|(path, place)| (path.into(), place))
        .into(),
        sockets: vec!["/run/s".into()],
        may_mount: false,
        user_limits: None,
        own_network: false,
        own_pids: false,
    };
    let asked = Landlock::standard().connect_tcp([443]).bind_tcp([80]).send_udp([53]).bind_udp([0, 514]);
    let asked = asked.enforce(Enforce::BestEffort);
    let (mut report, mut defects) = (Enforcement::default(), Vec::new());
    let domains = asked.compile(&around, &mut report, &mut defects);
    assert!(defects.is_empty());
    domains
}

/// Rights and object of each rule.
fn rules(domain: &Domain) -> Vec<(u64, Vec<u8>)> {
    let (mut all, mut rest) = (Vec::new(), domain.rules.as_slice());
    let word = |bytes: &[u8]| bytes.iter().rev().fold(0u64, |n, b| n << 8 | u64::from(*b));
    while let Some((head, tail)) = rest.split_at_checked(16) {
        let (object, tail) = tail.split_at(word(&head[12..]) as usize);
        all.push((word(&head[..8]), object.to_vec()));
        rest = tail;
    }
    all
}

#[test]
fn each_version_is_used_in_full() {
    let versions = [ABI::V2, ABI::V3, ABI::V4, ABI::V5, ABI::V6, ABI::V7, ABI::V8, ABI::V9];
    for (version, abi) in (2..).zip(versions) {
        let Domains { sandbox, process: domain } = compiled(version);
        // the domain around the sandbox has this one right; the payload's would part it from processes that enter
        let sockets = AccessFs::from_all(abi) & BitFlags::from(AccessFs::ResolveUnix);
        let all = AccessFs::from_all(abi) & !sockets;
        assert_eq!(domain.files, all.bits(), "files of version {version}");
        let (around, refer) = (sockets | AccessFs::Refer, AccessFs::Refer as u64);
        let inherited = if sockets.is_empty() { 0 } else { around.bits() };
        assert_eq!((sandbox.files, sandbox.ports, sandbox.scopes), (inherited, 0, 0), "sockets of version {version}");
        let both = vec![(refer, b"/\0".to_vec()), (sockets.bits(), b"/run/s\0".to_vec())];
        assert_eq!(rules(&sandbox), if sockets.is_empty() { vec![] } else { both }, "version {version}");
        assert_eq!(domain.ports, AccessNet::from_all(abi).bits(), "ports of version {version}");
        assert_eq!(domain.scopes, Scope::from_all(abi).bits(), "scopes of version {version}");
        let read = AccessFs::from_read(abi);
        let write = all & !(AccessFs::MakeChar | AccessFs::MakeBlock | AccessFs::IoctlDev);
        let files = read | (all & (AccessFs::WriteFile | AccessFs::Truncate));
        let ioctl = all & BitFlags::from(AccessFs::IoctlDev);
        let mut wanted = vec![
            (read.bits(), b"/\0".to_vec()),
            (write.bits(), b"/w\0".to_vec()),
            (files.bits(), b"/f\0".to_vec()),
            ((files | ioctl).bits(), b"/d\0".to_vec()),
            ((write | ioctl).bits(), b"/b\0".to_vec()),
            (write.bits(), b"/q\0".to_vec()),
        ];
        if version >= PORTS {
            wanted.push((AccessNet::BindTcp as u64, 80u64.to_le_bytes().into()));
            wanted.push((AccessNet::ConnectTcp as u64, 443u64.to_le_bytes().into()));
        }
        assert_eq!(rules(&domain), wanted, "rules of version {version}");
    }
    // what the crate does not have yet: <linux/landlock.h> of Linux 7.2
    let Domains { process, .. } = compiled(10);
    assert_eq!(process.ports, 0b1111);
    let udp: Vec<_> = rules(&process).into_iter().filter(|(access, _)| *access == 4 || *access == 8).collect();
    let port = |access, port: u64| (access, port.to_le_bytes().to_vec());
    assert_eq!(udp, [port(4, 0), port(4, 514), port(8, 53)]);
    // the first breaks rename(2), and is not used; none is none
    for version in [0, 1] {
        let Domains { sandbox, process } = compiled(version);
        assert!(!sandbox.restricts() && !process.restricts());
    }
}
