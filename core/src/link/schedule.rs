//! Which class of records a link sends next.

use super::backoff::TokenBucket;
use crate::stream::CLASSES;
use crate::time::Instant;

/// Bytes that classes 1, 2 and 3 may send in one round, as multiples of the frame size.
const SHARES: [u32; CLASSES] = [0, 8, 4, 1];

/// Bytes that either bucket lets pass at once.
const BURST_BYTES: u32 = 64 * 1024;

/// How a link shares its bytes among the classes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Sharing {
    /// Class 0 goes strictly first up to this many bytes a second, and shares with class 1 beyond;
    /// 0 (the default) for no limit.
    pub urgent_bytes_per_second: u32,
    /// Classes 1 to 3 together send no more than this many bytes a second on a link, so that a
    /// long backlog does not fill a thin line; 0 (the default) for no limit.
    pub backlog_bytes_per_second: u32,
    /// A lower class waits until every higher one is empty, for as long as it takes. Default false.
    pub strict: bool,
}

impl Sharing {
    /// No limits, shared 8 : 4 : 1 below class 0.
    pub const fn new() -> Self {
        Self { urgent_bytes_per_second: 0, backlog_bytes_per_second: 0, strict: false }
    }
}

impl Default for Sharing {
    fn default() -> Self {
        Self::new()
    }
}

/// Strict priority for class 0 under a token bucket, deficit round robin for the others
/// (Shreedhar and Varghese, "Efficient Fair Queuing Using Deficit Round Robin", 1996).
#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub(super) struct Scheduler {
    urgent: TokenBucket,
    backlog: TokenBucket,
    deficit: [i64; CLASSES],
    turn: u8,
}

impl Scheduler {
    pub(super) const fn new() -> Self {
        Self {
            urgent: TokenBucket::full(BURST_BYTES),
            backlog: TokenBucket::full(BURST_BYTES),
            deficit: [0; CLASSES],
            turn: 1,
        }
    }

    /// The class to serve among those that are `ready`, or when one may be served.
    pub(super) fn pick(
        &mut self,
        now: Instant,
        sharing: &Sharing,
        ready: [bool; CLASSES],
        frame_bytes: u32,
    ) -> Result<u8, Option<Instant>> {
        let urgent_in_time = self.urgent.ready(now, sharing.urgent_bytes_per_second, BURST_BYTES);
        if ready[0] && (urgent_in_time || sharing.strict) {
            return Ok(0);
        }
        // Beyond its rate class 0 takes turns under the share of class 1.
        let mut wanted = ready;
        wanted[1] |= ready[0];
        if !wanted[1..].contains(&true) {
            return Err(None);
        }
        if !self.backlog.ready(now, sharing.backlog_bytes_per_second, BURST_BYTES) {
            return Err(Some(self.backlog.ready_at(sharing.backlog_bytes_per_second)));
        }
        let class = if sharing.strict {
            (1..CLASSES).find(|class| wanted[*class]).unwrap_or(1)
        } else {
            self.next_by_deficit(wanted, frame_bytes)
        };
        Ok(if class == 1 && ready[0] { 0 } else { class as u8 })
    }

    fn next_by_deficit(&mut self, wanted: [bool; CLASSES], frame_bytes: u32) -> usize {
        // A debt is at most one frame and each visit adds at least one, so this ends within two
        // rounds; the bound keeps a broken invariant from becoming an endless loop.
        for _ in 0..4 * CLASSES {
            let class = usize::from(self.turn);
            if wanted[class] && self.deficit[class] > 0 {
                return class;
            }
            if !wanted[class] {
                self.deficit[class] = 0;
            }
            self.turn = if class + 1 == CLASSES { 1 } else { self.turn + 1 };
            let next = usize::from(self.turn);
            if wanted[next] {
                self.deficit[next] += i64::from(SHARES[next]) * i64::from(frame_bytes.max(1));
            }
        }
        (1..CLASSES).find(|class| wanted[*class]).unwrap_or(1)
    }

    /// Counts bytes that were sent of a class.
    pub(super) fn charge(&mut self, class: u8, bytes: u32) {
        if class == 0 {
            self.urgent.take(bytes);
            return;
        }
        self.backlog.take(bytes);
        if let Some(deficit) = self.deficit.get_mut(usize::from(class)) {
            *deficit -= i64::from(bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn served(sharing: &Sharing, ready: [bool; CLASSES], frames: u32) -> [u32; CLASSES] {
        let mut scheduler = Scheduler::new();
        let mut count = [0; CLASSES];
        for _ in 0..frames {
            let class = scheduler.pick(Instant::ZERO, sharing, ready, 1000).unwrap();
            scheduler.charge(class, 1000);
            count[usize::from(class)] += 1;
        }
        count
    }

    #[test]
    fn class_0_goes_first() {
        assert_eq!(served(&Sharing::new(), [true; 4], 100), [100, 0, 0, 0]);
    }

    #[test]
    fn the_others_share_8_to_4_to_1_and_nothing_starves() {
        let count = served(&Sharing::new(), [false, true, true, true], 1300);
        assert!(count[1].abs_diff(800) <= 8 && count[2].abs_diff(400) <= 8, "{count:?}");
        assert!(count[3].abs_diff(100) <= 8, "{count:?}");
        assert_eq!(served(&Sharing::new(), [false, false, false, true], 10), [0, 0, 0, 10]);
    }

    #[test]
    fn class_0_over_its_rate_leaves_room() {
        let sharing = Sharing { urgent_bytes_per_second: 1, ..Sharing::new() };
        let count = served(&sharing, [true, false, false, true], 200);
        assert!(count[0] > 64 && count[3] > 0, "{count:?}");
    }

    #[test]
    fn strict_starves_on_demand() {
        let sharing = Sharing { strict: true, ..Sharing::new() };
        assert_eq!(served(&sharing, [false, false, true, true], 10), [0, 0, 10, 0]);
    }

    #[test]
    fn a_backlog_rate_says_when_to_go_on() {
        let sharing = Sharing { backlog_bytes_per_second: 1000, ..Sharing::new() };
        let mut scheduler = Scheduler::new();
        scheduler.charge(2, BURST_BYTES);
        let ready = [false, false, true, false];
        let wait = scheduler.pick(Instant::ZERO, &sharing, ready, 1000).unwrap_err().unwrap();
        assert!(wait > Instant::ZERO);
        assert_eq!(scheduler.pick(wait, &sharing, ready, 1000), Ok(2));
    }
}
