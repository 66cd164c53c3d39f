//! What works here, found by attempting it.

/// t
pub struct Doctor;
/// t
pub struct Finding;
/// t
pub struct Outcome;
/// t
pub fn doctor() -> Doctor { Doctor }
