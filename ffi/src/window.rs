//! The place of a consumer in a queue.

use core::ffi::c_void;

use replcore_core::queue::consumer::{Entry, Next, Window, WindowConfig};
use replcore_core::stream::Position;
use replcore_core::time::Instant;

use super::check::reference_mut;
use super::machine::{Memory, REPLCORE_NEVER, bytes_of_machine, part};
use super::replcore_status;
use super::status::status;

/// The place of a named consumer in one queue and class, whose entries are handed to programs: in
/// order, settled in any order, again when they are not settled in time, and given up for dead after a
/// number of deliveries. Memory, threads and moving as for a machine; it has no orders. What it knows
/// is lost with the process: then everything that is not released is delivered again, and counts anew.
pub struct replcore_window {
    _opaque: [u8; 0],
}

type OfWindow = Window<&'static mut [Entry]>;

const WINDOW: u64 = u64::from_le_bytes(*b"replwind");

/// Nothing to deliver now.
pub const REPLCORE_NEXT_NOTHING: u32 = 0;
/// An entry to deliver.
pub const REPLCORE_NEXT_DELIVER: u32 = 1;
/// An entry that was delivered as often as it may be: to the dead letters with it.
pub const REPLCORE_NEXT_DEAD: u32 = 2;

/// What a consumer gets next.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct replcore_next {
    /// One of REPLCORE_NEXT_*.
    pub kind: u32,
    /// DELIVER: how many times it was delivered, this one included.
    pub deliveries: u32,
    /// DELIVER, DEAD: which entry.
    pub position: u64,
    /// NOTHING: when something is due again, in microseconds; REPLCORE_NEVER when nothing is
    /// outstanding.
    pub wake_us: u64,
}

/// The window behind a pointer of the program.
///
/// # Safety
/// As for [`part`].
unsafe fn window<'a>(window: *mut replcore_window) -> Result<&'a mut OfWindow, replcore_status> {
    // SAFETY: as the caller promises; windows alone are placed with this magic.
    unsafe { part(window.cast(), WINDOW) }
}

/// Bytes that a window with room for `entries_max` outstanding entries needs, wherever they begin: 16
/// for each, and a few.
#[unsafe(no_mangle)]
pub extern "C" fn replcore_window_memory(entries_max: u32) -> usize {
    Memory::bytes_of::<Entry>(entries_max as usize).saturating_add(bytes_of_machine::<OfWindow>())
}

/// Makes a window in `memory`; `*made` gets it. It starts at `released`, the first entry that was not
/// settled in an earlier life. An entry that is not settled within `ack_wait_ms` milliseconds is
/// delivered again, `deliveries_max` times in all. VALUE when one of the three limits is 0.
///
/// # Safety
/// `memory` has `len` bytes that nothing else uses while the window is used; `made` is writable and
/// not inside `memory`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn replcore_window_init(
    memory: *mut c_void,
    len: usize,
    entries_max: u32,
    ack_wait_ms: u32,
    deliveries_max: u32,
    released: u64,
    made: *mut *mut replcore_window,
) -> replcore_status {
    status((|| {
        // SAFETY: as the caller promises.
        let made = unsafe { reference_mut(made) }?;
        if entries_max == 0 || ack_wait_ms == 0 || deliveries_max == 0 {
            return Err(replcore_status::Value);
        }
        let mut memory = Memory::new(memory, len)?;
        // SAFETY: the memory is the window's alone as long as it is used.
        let entries = unsafe { memory.slice(entries_max as usize, Entry::default()) }?;
        let config = WindowConfig { ack_wait_ms, deliveries_max };
        let window = Window::new(config, Position(released), entries);
        *made = memory.place(WINDOW, window)?.cast();
        Ok(())
    })())
}

/// What comes next, of a queue that has ever held `end` entries; it counts as delivered. Call it until
/// it answers NOTHING: when the queue has grown, something was settled, or `wake_us` is past.
///
/// # Safety
/// `made` is a window, `next` is writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn replcore_window_take(
    made: *mut replcore_window,
    now_us: u64,
    end: u64,
    next: *mut replcore_next,
) -> replcore_status {
    status((|| {
        // SAFETY: as the caller promises.
        let (window, next) = unsafe { (window(made)?, reference_mut(next)?) };
        *next = match window.take(Instant::from_micros(now_us), Position(end)) {
            Next::Deliver { position, deliveries } => replcore_next {
                kind: REPLCORE_NEXT_DELIVER,
                deliveries,
                position: position.0,
                ..Default::default()
            },
            Next::Dead { position } => replcore_next {
                kind: REPLCORE_NEXT_DEAD,
                position: position.0,
                ..Default::default()
            },
            Next::Nothing { wake } => replcore_next {
                kind: REPLCORE_NEXT_NOTHING,
                wake_us: wake.map_or(REPLCORE_NEVER, Instant::as_micros),
                ..Default::default()
            },
        };
        Ok(())
    })())
}

/// The consumer is done with the entry at `position`, one way or the other. END, and nothing changes,
/// when it is not outstanding, because it was settled before.
///
/// # Safety
/// `made` is a window.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn replcore_window_settle(
    made: *mut replcore_window,
    position: u64,
) -> replcore_status {
    status((|| {
        // SAFETY: as the caller promises.
        let window = unsafe { window(made) }?;
        if window.settle(Position(position)) { Ok(()) } else { Err(replcore_status::End) }
    })())
}

/// Whether the entry at `position` is delivered and not settled: 1, or 0; 0 for what is not a window.
///
/// # Safety
/// `made` is a window.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn replcore_window_is_outstanding(
    made: *mut replcore_window,
    position: u64,
) -> i32 {
    // SAFETY: as the caller promises.
    unsafe { window(made) }.is_ok_and(|window| window.is_outstanding(Position(position))).into()
}

/// The queue holds nothing before `first` any more: what was outstanding there counts as settled.
///
/// # Safety
/// `made` is a window.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn replcore_window_gone(
    made: *mut replcore_window,
    first: u64,
) -> replcore_status {
    status((|| {
        // SAFETY: as the caller promises.
        unsafe { window(made) }?.gone(Position(first));
        Ok(())
    })())
}

/// The consumer has gone away with what it had: all of that is due at once.
///
/// # Safety
/// `made` is a window.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn replcore_window_give_back(
    made: *mut replcore_window,
    now_us: u64,
) -> replcore_status {
    status((|| {
        // SAFETY: as the caller promises.
        unsafe { window(made) }?.give_back(Instant::from_micros(now_us));
        Ok(())
    })())
}

/// Everything before is settled: the queue may be released up to here. 0 for what is not a window.
///
/// # Safety
/// `made` is a window.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn replcore_window_released(made: *mut replcore_window) -> u64 {
    // SAFETY: as the caller promises.
    unsafe { window(made) }.map_or(0, |window| window.released().0)
}

/// How many entries are delivered and not settled. 0 for what is not a window.
///
/// # Safety
/// `made` is a window.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn replcore_window_outstanding(made: *mut replcore_window) -> u32 {
    // SAFETY: as the caller promises.
    unsafe { window(made) }.map_or(0, |window| window.outstanding())
}

#[cfg(test)]
mod tests {
    use core::ptr::null_mut;

    use super::*;

    fn next(window: *mut replcore_window, now_us: u64, end: u64) -> replcore_next {
        let mut next = replcore_next::default();
        // SAFETY: the window was made by the test, `next` is a live value.
        let done = unsafe { replcore_window_take(window, now_us, end, &mut next) };
        assert_eq!(done, replcore_status::Ok);
        next
    }

    #[test]
    fn entries_are_delivered_settled_and_delivered_again_until_they_are_dead() {
        let mut memory = vec![0u8; replcore_window_memory(2)];
        let mut window = null_mut();
        let place: *mut c_void = memory.as_mut_ptr().cast();
        // SAFETY: the pointers are of live values and the length is that of the memory.
        unsafe {
            let mut make =
                |len, entries| replcore_window_init(place, len, entries, 10, 2, 7, &mut window);
            assert_eq!(make(memory.len(), 0), replcore_status::Value);
            assert_eq!(make(20, 2), replcore_status::Short);
            assert_eq!(make(memory.len(), u32::MAX), replcore_status::Short);
            assert_eq!(make(memory.len(), 2), replcore_status::Ok);
        }
        let delivered = |next: replcore_next| (next.kind, next.position, next.deliveries);
        assert_eq!(delivered(next(window, 0, 10)), (REPLCORE_NEXT_DELIVER, 7, 1));
        assert_eq!(delivered(next(window, 0, 10)), (REPLCORE_NEXT_DELIVER, 8, 1));
        // No room for a third.
        assert_eq!(next(window, 0, 10).wake_us, 10_000);
        // SAFETY: the window was made above.
        unsafe {
            assert_eq!(replcore_window_is_outstanding(window, 8), 1);
            assert_eq!(replcore_window_settle(window, 8), replcore_status::Ok);
            assert_eq!(replcore_window_is_outstanding(window, 8), 0);
            assert_eq!(replcore_window_settle(window, 8), replcore_status::End);
            assert_eq!(replcore_window_released(window), 7);
        }
        assert_eq!(delivered(next(window, 10_000, 10)), (REPLCORE_NEXT_DELIVER, 7, 2));
        assert_eq!(delivered(next(window, 20_000, 10)), (REPLCORE_NEXT_DEAD, 7, 0));
        // SAFETY: the window was made above; a machine it is not.
        unsafe {
            assert_eq!(replcore_window_released(window), 9);
            assert_eq!(replcore_window_outstanding(window), 0);
            let machine = window.cast::<super::super::replcore_machine>();
            assert_eq!(super::super::replcore_handle_timeout(machine, 0), replcore_status::Kind);
            assert_eq!(replcore_window_settle(null_mut(), 0), replcore_status::Null);
        }
    }
}
