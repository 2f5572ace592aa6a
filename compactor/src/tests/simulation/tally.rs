//! What the steps of all seeds did, for the line that the test prints.

/// What the steps of all seeds did.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tally {
    pub(super) steps: usize,
    pub(super) uploads: usize,
    pub(super) kills: usize,
    pub(super) pauses: usize,
    pub(super) failures: usize,
    pub(super) jumps: usize,
    pub(super) merges: usize,
    pub(super) downsampled: usize,
    pub(super) retired: usize,
    pub(super) removed: usize,
}

impl Tally {
    pub(super) fn plus(self, other: Self) -> Self {
        Self {
            steps: self.steps + other.steps,
            uploads: self.uploads + other.uploads,
            kills: self.kills + other.kills,
            pauses: self.pauses + other.pauses,
            failures: self.failures + other.failures,
            jumps: self.jumps + other.jumps,
            merges: self.merges + other.merges,
            downsampled: self.downsampled + other.downsampled,
            retired: self.retired + other.retired,
            removed: self.removed + other.removed,
        }
    }
}
