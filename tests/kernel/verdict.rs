//! Why a sandbox ended, as the kernel and our own record tell it.

use crate::common::*;
use crate::harness::{Need, Test};
use belljar::{Init, KillScope, Verdict};

pub fn tests() -> Vec<Test> {
    const USER: &[Need] = &[Need::UserNamespaces];
    vec![Test::new("verdict::signals_of_its_own_are_no_kill_of_ours", USER, own_signals)]
}

fn own_signals() -> Fallible<()> {
    for init in [Init::Shim, Init::Payload] {
        let sandbox = host().init(init).build()?;
        assert_eq!(sandbox.status(&sh("exit 137"))?.verdict, Verdict::Exited(137));
        for scope in [KillScope::Init, KillScope::Tree] {
            let mut child = sandbox.spawn(&sh("sleep 60 & sleep 60"))?;
            child.kill(scope)?;
            assert_eq!(child.wait()?.verdict, Verdict::KilledByHandle, "{init:?} {scope:?}");
            // one that has exited before is not killed
            let mut child = sandbox.spawn(&sh("exit 3"))?;
            child.wait_timeout(std::time::Duration::from_secs(10))?;
            child.kill(scope)?;
            assert_eq!(child.wait()?.verdict, Verdict::Exited(3), "{init:?} {scope:?}");
        }
        let child = sandbox.spawn(&sh("sleep 60"))?;
        child.signal(9)?;
        let mut child = child;
        assert_eq!(child.wait()?.verdict, Verdict::KilledByHandle, "{init:?}");
    }
    let sandbox = host().build()?;
    for signal in [9, 15, 24, 31] {
        let exit = sandbox.status(&sh(&format!("ulimit -c 0; kill -{signal} $$; sleep 60")))?;
        assert_eq!(exit.verdict, Verdict::Signaled(signal));
    }
    Ok(())
}
