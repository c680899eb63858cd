//! Mistakes that are planted underneath the protocols, and how models are run.

use std::cell::Cell;

/// What the machine or the epoch gets wrong.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mistake {
    /// Nothing.
    None,
    /// Deferred functions run at once instead of after the pins of now.
    NoGracePeriod,
    /// Fences do nothing.
    NoFence,
    /// Compare-and-swap of flags is a load and a store.
    CompareThenStore,
}

thread_local! {
    // Loom runs a model's threads on the thread of the test.
    static PLANTED: Cell<Mistake> = const { Cell::new(Mistake::None) };
}

/// Whether the running model has this mistake.
pub fn is_planted(mistake: Mistake) -> bool {
    PLANTED.get() == mistake
}

/// Runs the model in all interleavings with at most two preemptions.
pub fn explore(mistake: Mistake, model: impl Fn() + Send + Sync + 'static) {
    PLANTED.set(mistake);
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(2);
    builder.max_branches = 20_000;
    builder.check(model);
    PLANTED.set(Mistake::None);
}
