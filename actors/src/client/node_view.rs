//! Immutable nodes, as a pinned thread sees them.

use treering_engine::PageRef;
use treering_engine::memory::View;
use treering_engine::tree::{Miss, ReadNodes};

use crate::runtime::Runtime;

/// The nodes in memory, for as long as the pin behind the view lasts.
#[derive(Clone, Copy)]
pub(crate) struct NodeView<'g> {
    pub(super) view: View<'g>,
    /// Who may run before each node is looked up: in a simulation, for clients, whose threads can be interrupted anywhere
    /// (rule R24). Not in release builds: looking whether there is anybody costs 4 % of a get in memory.
    others: Option<&'g Runtime>,
}

impl<'g> NodeView<'g> {
    /// What an actor sees: nothing happens beside it.
    pub fn new(view: View<'g>) -> NodeView<'g> {
        NodeView { view, others: None }
    }

    /// What a client sees.
    pub fn beside(view: View<'g>, runtime: &'g Runtime) -> NodeView<'g> {
        NodeView {
            view,
            others: runtime.sim.is_some().then_some(runtime),
        }
    }
}

impl ReadNodes for NodeView<'_> {
    #[inline]
    fn node(&self, reference: PageRef) -> Result<&[u8], Miss> {
        if cfg!(debug_assertions)
            && let Some(others) = self.others
        {
            others.switch();
        }
        match self.view.lookup(reference.id) {
            Some(frame) => Ok(frame.bytes),
            None => Err(Miss(reference)),
        }
    }

    #[inline]
    fn prefetch(&self, reference: PageRef) {
        self.view.prefetch_word(reference.id);
    }
}
