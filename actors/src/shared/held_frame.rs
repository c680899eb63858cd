//! A frame that is held for whoever has this: for readers that may be gone when the page comes.

use std::sync::Arc;

use treering_engine::memory::FrameId;

use super::{Shared, unhold};

/// A frame, held until this is dropped, wherever that is: by its reader, or on the way to it.
#[derive(Debug)]
pub(crate) struct HeldFrame {
    shared: Arc<Shared>,
    frame: FrameId,
}

impl HeldFrame {
    /// Takes over a hold on the frame.
    pub fn new(shared: &Arc<Shared>, frame: FrameId) -> HeldFrame {
        HeldFrame {
            shared: Arc::clone(shared),
            frame,
        }
    }
}

impl Drop for HeldFrame {
    fn drop(&mut self) {
        unhold(&self.shared.memory, self.frame);
    }
}
