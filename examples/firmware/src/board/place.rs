//! A place for a value that is made once and stays.

use core::cell::UnsafeCell;
use core::mem::MaybeUninit;

/// Room for one value outside of the stack.
pub struct Place<T>(UnsafeCell<MaybeUninit<T>>);

// SAFETY: `put` is called once, before anything else could, as its contract says.
unsafe impl<T> Sync for Place<T> {}

impl<T> Place<T> {
    pub const fn empty() -> Self {
        Self(UnsafeCell::new(MaybeUninit::uninit()))
    }

    /// Makes the value in place: not on the stack, if the compiler can help it.
    ///
    /// # Safety
    /// Once for each place.
    #[inline(always)]
    pub unsafe fn put(&'static self, make: impl FnOnce() -> T) -> &'static mut T {
        // SAFETY: nobody else has a reference into it, by the contract.
        unsafe { (*self.0.get()).write(make()) }
    }
}
