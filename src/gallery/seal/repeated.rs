//! A host that does not tell its guest that it was resumed: the thread's randomness begins again and again from one state. For tests.

use std::cell::RefCell;

thread_local! {
    static STATE: RefCell<Option<fastrand::Rng>> = const { RefCell::new(None) };
}

/// From now on this thread draws from this state; `None` gives it the system's randomness back.
pub(crate) fn from(state: Option<u64>) {
    STATE.set(state.map(fastrand::Rng::with_seed));
}

/// Fills the bytes, if this thread's randomness repeats.
pub(super) fn fill(bytes: &mut [u8]) -> bool {
    STATE.with_borrow_mut(|state| state.as_mut().map(|state| state.fill(bytes)).is_some())
}
