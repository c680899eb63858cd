//! Immutable nodes, as a pinned thread sees them.

use treering_engine::PageRef;
use treering_engine::memory::View;
use treering_engine::tree::{Miss, ReadNodes};

/// The nodes in memory, for as long as the pin behind the view lasts.
#[derive(Clone, Copy)]
pub(crate) struct NodeView<'g>(pub View<'g>);

impl ReadNodes for NodeView<'_> {
    #[inline]
    fn node(&self, reference: PageRef) -> Result<&[u8], Miss> {
        match self.0.lookup(reference.id) {
            Some(frame) => Ok(frame.bytes),
            None => Err(Miss(reference)),
        }
    }

    #[inline]
    fn prefetch(&self, reference: PageRef) {
        self.0.prefetch_word(reference.id);
    }
}
