//! A closure that a client ships to the owner of a key. It is foreign code inside a step: whatever it does to itself
//! must stay its own affair.

use crate::error::{Error, Result};
use crate::foreign;

/// The closure as its sender wrote it: old value in, new value (or none: delete) out.
type Change = Box<dyn FnMut(Option<&[u8]>) -> Option<Vec<u8>> + Send>;

/// A shipped closure. Neither calling nor dropping it panics.
pub(crate) struct UpdateFunction(Option<Change>);

impl UpdateFunction {
    pub fn new(change: impl FnMut(Option<&[u8]>) -> Option<Vec<u8>> + Send + 'static) -> UpdateFunction {
        UpdateFunction(Some(Box::new(change)))
    }

    /// What the closure makes of `old`.
    ///
    /// # Errors
    /// [`Error::ClosurePanicked`].
    pub fn call(&mut self, old: Option<&[u8]>) -> Result<Option<Vec<u8>>> {
        let Some(change) = &mut self.0 else {
            unreachable!("the closure is taken away by drop alone")
        };
        foreign::call(|| change(old)).ok_or(Error::ClosurePanicked)
    }
}

impl Drop for UpdateFunction {
    fn drop(&mut self) {
        let change = self.0.take();
        foreign::call(|| drop(change));
    }
}

impl std::fmt::Debug for UpdateFunction {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("UpdateFunction")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Panics when it is dropped, with another one of its kind.
    struct Thrower(u32);

    impl Drop for Thrower {
        fn drop(&mut self) {
            if self.0 > 0 {
                std::panic::panic_any(Thrower(self.0 - 1));
            }
        }
    }

    #[test]
    fn nothing_that_a_closure_throws_gets_out() {
        let thrower = Thrower(3);
        let mut function = UpdateFunction::new(move |_| {
            let _ = &thrower;
            std::panic::panic_any(Thrower(3))
        });
        assert!(matches!(function.call(None), Err(Error::ClosurePanicked)));
        drop(function);
    }
}
