//! The handle of a sandbox's control groups.

use super::Child;
use crate::program::op::without;
use crate::testing;
use std::time::Duration;

/// A killed process leaves its group within microseconds of its end.
const KILL: Duration = Duration::from_secs(10);

impl Child {
    /// Ends what is left in the groups: what a payload has started outside of a pid
    /// namespace of its own. What cannot be ended keeps its group; `sweep` finds it.
    pub(super) fn kill_group(&self) {
        let _ = self.group.kill(testing::disabled() & without::CGROUP_KILL != 0, KILL);
    }
}
