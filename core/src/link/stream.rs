//! The two ends of a stream on one link: where the sender is, where the receiver is.

use crate::contract::{SkipReason, Token};
use crate::stream::{Cursor, Epoch, Position, QueueKey, StreamKey};
use crate::time::Instant;
use crate::wire;

/// How far the sending end of a stream is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub(crate) enum OutboundState {
    /// Not in use.
    Free,
    /// The store is to be asked what the queue holds.
    Ask,
    /// The store was asked.
    Asked,
    /// Known, and nothing in it that was not acknowledged.
    Quiet,
    /// To be announced.
    Announce,
    /// Announced, the receiver has not said where it is.
    Announced,
    /// The store is to be asked where the receiver goes on.
    Place,
    /// The store was asked that.
    Placing,
    /// Records flow.
    Running,
}

/// What is to be told before the next records: that these will not come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub(crate) struct PendingSkip {
    pub(crate) first: Position,
    pub(crate) next: Position,
}

/// The sending end of a stream.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub(crate) struct Outbound {
    pub(crate) state: OutboundState,
    /// The question that the store was asked last.
    pub(crate) asked: Token,
    pub(crate) key: QueueKey,
    /// Acknowledged before this.
    pub(crate) released: Position,
    /// The queue ends here.
    pub(crate) next: Position,
    /// The next byte to send.
    pub(crate) cursor: Cursor,
    /// Bytes granted and bytes sent since the last resume.
    pub(crate) granted_bytes: u64,
    pub(crate) sent_bytes: u64,
    pub(crate) round: u8,
    /// A `SendRecords` is not answered yet.
    pub(crate) ordered: bool,
    /// The link's credit that is kept for it.
    pub(crate) reserved_bytes: u32,
    /// That `SendRecords` is of a round that is over; its answer counts for nothing.
    pub(crate) void: bool,
    pub(crate) skip: Option<PendingSkip>,
    /// Why. Beside it and not in it: what is none is zero then, see `Streams::FREE`.
    pub(crate) skip_reason: SkipReason,
    /// A `Release` is due.
    pub(crate) release: bool,
    /// An entry that the consumer refused.
    pub(crate) dead: Option<Position>,
    /// When the stream last moved, for lines that lose frames.
    pub(crate) moved_at: Instant,
    /// Nobody else can have entries from here on.
    pub(crate) exposed: Position,
    /// The life that the receiver's place is of, while that is not the present one.
    pub(crate) claimed: Epoch,
    /// The place in `cursor` is the answer to the resume of this round.
    pub(crate) placed: Option<u8>,
}

impl Outbound {
    pub(crate) const FREE: Self = Self {
        state: OutboundState::Free,
        asked: Token(0),
        key: QueueKey { queue: crate::stream::QueueId(0), class: 0 },
        released: Position(0),
        next: Position(0),
        cursor: Cursor::at(Position(0)),
        granted_bytes: 0,
        sent_bytes: 0,
        round: 0,
        ordered: false,
        reserved_bytes: 0,
        void: false,
        skip: None,
        skip_reason: SkipReason::Expired,
        release: false,
        dead: None,
        moved_at: Instant::ZERO,
        exposed: Position(0),
        claimed: Epoch(0),
        placed: None,
    };

    /// Takes what the store says of the queue.
    pub(crate) fn known(
        &mut self,
        now: Instant,
        released: Position,
        next: Position,
        sent: Position,
    ) {
        self.exposed = sent.max(released);
        self.released = released;
        self.next = next.max(released);
        self.cursor = Cursor::at(released);
        self.moved_at = now;
        self.state =
            if self.holds_unreleased() { OutboundState::Announce } else { OutboundState::Quiet };
    }

    /// The queue has grown.
    pub(crate) fn grown(&mut self, now: Instant, next: Position) {
        if next <= self.next {
            return;
        }
        if self.all_released() {
            self.moved_at = now;
        }
        self.next = next;
        if self.state == OutboundState::Quiet {
            self.state = OutboundState::Announce;
        }
    }

    /// The receiver says where it is. What it says of another life of the log, or what this queue
    /// never gave to anybody, is a matter for the store.
    pub(crate) fn resume(&mut self, now: Instant, resume: &wire::Resume, epoch: Epoch) {
        let position = Position(resume.position);
        self.cursor = Cursor { position, offset: resume.offset };
        self.granted_bytes = u64::from(resume.credit_bytes);
        self.sent_bytes = 0;
        self.round = resume.round;
        self.skip = None;
        self.moved_at = now;
        self.placed = None;
        let beyond = position > self.next || (position == self.next && resume.offset > 0);
        // While an order is out it is not known yet what of it went.
        let unseen = position > self.exposed && !self.ordered;
        self.void = self.ordered;
        if Epoch(resume.epoch) != epoch || beyond || unseen {
            self.claimed = Epoch(resume.epoch);
            self.state = OutboundState::Place;
            return;
        }
        self.state = OutboundState::Running;
        self.release_through(position);
    }

    /// The store says where the receiver goes on: it is told so, and resumes from there.
    pub(crate) fn place(&mut self, now: Instant, position: Position) {
        self.cursor = Cursor::at(position.min(self.next));
        self.exposed = self.exposed.max(self.cursor.position);
        self.placed = Some(self.round);
        self.state = OutboundState::Announce;
        self.moved_at = now;
    }

    /// The receiver acknowledges. `false` when it acknowledges what the queue does not have.
    pub(crate) fn acknowledge(&mut self, now: Instant, ack: &wire::Ack, safe: bool) -> bool {
        let position = Position(ack.position);
        if position > self.next {
            return false;
        }
        if ack.round == self.round && ack.credit_bytes > self.granted_bytes {
            self.granted_bytes = ack.credit_bytes;
            self.moved_at = now;
        }
        if position > self.cursor.position {
            self.cursor = Cursor::at(position);
        }
        if safe && position > self.released {
            self.moved_at = now;
            self.release_through(position);
        }
        true
    }

    fn release_through(&mut self, position: Position) {
        if position > self.released {
            self.released = position;
            self.release = true;
        }
    }

    /// Records were written to the link.
    pub(crate) fn sent(&mut self, now: Instant, next: Cursor, bytes: u32) {
        if next.position <= self.next {
            self.exposed = self.exposed.max(next.position);
        }
        if self.end_order() && next > self.cursor && next.position <= self.next {
            if self.released == self.cursor.position {
                self.moved_at = now;
            }
            self.cursor = next;
            self.sent_bytes = self.sent_bytes.saturating_add(u64::from(bytes));
        }
    }

    /// Records are not to be had.
    pub(crate) fn gone(&mut self, next: Position, reason: SkipReason) {
        if next <= self.next {
            self.exposed = self.exposed.max(next);
        }
        if self.end_order() && next > self.cursor.position && next <= self.next {
            self.skip = Some(PendingSkip { first: self.cursor.position, next });
            self.skip_reason = reason;
        }
    }

    /// The link's credit that was kept for the order that is answered.
    pub(crate) fn return_reserved(&mut self) -> u32 {
        core::mem::take(&mut self.reserved_bytes)
    }

    /// The order that was out is answered. Whether the answer counts.
    fn end_order(&mut self) -> bool {
        let counts = self.ordered && !self.void;
        self.ordered = false;
        self.void = false;
        counts
    }

    /// Bytes that the receiver still allows.
    pub(crate) fn credit_bytes(&self) -> u32 {
        u32::try_from(self.granted_bytes.saturating_sub(self.sent_bytes)).unwrap_or(u32::MAX)
    }

    fn ready_to_send(&self) -> bool {
        self.state == OutboundState::Running
            && !self.ordered
            && self.skip.is_none()
            && self.cursor.position < self.next
            && self.credit_bytes() > 0
    }

    /// Whether the store is to be asked something.
    pub(crate) fn asks_store(&self) -> bool {
        matches!(self.state, OutboundState::Ask | OutboundState::Place)
    }

    /// Whether the store is to be asked something or a frame is due.
    fn has_word(&self) -> bool {
        self.asks_store() || self.state == OutboundState::Announce || self.skip.is_some()
    }

    /// Which of [`Streams`](super::streams::Streams)' sets the stream belongs to, in their order.
    pub(crate) fn marks(&self) -> [bool; 4] {
        [
            self.release || self.dead.is_some(),
            self.has_word(),
            self.ready_to_send(),
            !self.is_drained(),
        ]
    }

    /// Whether everything that the store has reported is acknowledged.
    fn is_drained(&self) -> bool {
        match self.state {
            OutboundState::Free | OutboundState::Quiet => true,
            OutboundState::Running => !self.holds_unreleased(),
            _ => false,
        }
    }

    /// On a line that loses frames: whether silence from the receiver would be suspicious.
    pub(crate) fn awaits_receiver(&self) -> bool {
        match self.state {
            OutboundState::Announced => true,
            OutboundState::Running => self.holds_unreleased(),
            _ => false,
        }
    }

    pub(crate) fn holds_unreleased(&self) -> bool {
        self.released < self.next
    }

    fn all_released(&self) -> bool {
        self.released == self.next
    }
}

/// How far the receiving end of a stream is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub(crate) enum InboundState {
    /// Not in use.
    Free,
    /// The store is to be asked how far the stream was taken.
    Ask,
    /// The store was asked.
    Asked,
    /// Records flow.
    Running,
    /// The store had no room; it is asked again.
    Waiting,
}

/// What a frame of records is to its stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fit {
    /// It is the next.
    Next,
    /// It brings nothing new, or belongs to a round that is over.
    Known,
    /// Something before it is missing.
    Gap,
}

/// The receiving end of a stream.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub(crate) struct Inbound {
    pub(crate) state: InboundState,
    /// The question that the store was asked last.
    pub(crate) asked: Token,
    /// When it is asked again if it had no room.
    pub(crate) wait_until: Instant,
    pub(crate) source: StreamKey,
    /// The next byte to arrive.
    pub(crate) expected: Cursor,
    /// Everything before is safe.
    pub(crate) taken: Cursor,
    /// Bytes that arrived and bytes that are safe, since the last resume.
    pub(crate) arrived_bytes: u64,
    pub(crate) safe_bytes: u64,
    pub(crate) round: u8,
    /// A `Resume` is due.
    pub(crate) resume: bool,
    /// An `Ack` is due.
    pub(crate) ack: bool,
    /// Something is missing, and is asked for when all that came before it is safe.
    pub(crate) gap: bool,
    /// An entry to refuse.
    pub(crate) reject: Option<Position>,
    /// The life of the owner's log that `taken` is of.
    pub(crate) taken_epoch: Epoch,
}

impl Inbound {
    pub(crate) const FREE: Self = Self {
        state: InboundState::Free,
        asked: Token(0),
        wait_until: Instant::ZERO,
        source: StreamKey {
            owner: crate::stream::NodeId::NONE,
            queue: QueueKey { queue: crate::stream::QueueId(0), class: 0 },
            epoch: Epoch(0),
        },
        expected: Cursor::at(Position(0)),
        taken: Cursor::at(Position(0)),
        arrived_bytes: 0,
        safe_bytes: 0,
        round: 0,
        resume: false,
        ack: false,
        gap: false,
        reject: None,
        taken_epoch: Epoch(0),
    };

    /// Takes what the store says of the stream, and asks the sender to go on from there.
    pub(crate) fn known(&mut self, epoch: Epoch, cursor: Cursor) {
        self.taken_epoch = epoch;
        // Of a record that comes in another life again, no part counts.
        self.taken = if epoch == self.source.epoch { cursor } else { Cursor::at(cursor.position) };
        self.go_back();
    }

    /// The sender answers the resume of `round` with a place in the present life of its log. Whether
    /// it counts: a line that repeats frames may bring it late.
    pub(crate) fn place(&mut self, position: Position, round: u8) -> bool {
        let answered = self.state == InboundState::Running
            && self.round == round
            && !self.resume
            && self.arrived_bytes == 0;
        if answered {
            self.taken_epoch = self.source.epoch;
            self.taken = Cursor::at(position);
            self.go_back();
        }
        answered
    }

    /// Asks the sender to go on from what is safe; whatever is under way is void.
    pub(crate) fn go_back(&mut self) {
        self.state = InboundState::Running;
        self.expected = self.taken;
        self.arrived_bytes = 0;
        self.safe_bytes = 0;
        self.round = self.round.wrapping_add(1);
        self.resume = true;
        self.ack = false;
        self.gap = false;
    }

    /// Something is missing. The sender is asked to go back once for each round, and only when the
    /// store has answered for what came before: to ask earlier would bring that again. Should the
    /// store take longer than the sender's patience, the sender asks by itself. Whether it is asked now.
    pub(crate) fn miss(&mut self) -> bool {
        self.gap = self.taken != self.expected;
        if !self.gap {
            self.go_back();
        }
        !self.gap
    }

    /// The store has no room. What is under way is void, and asked for again at `until`.
    pub(crate) fn wait_until(&mut self, until: Instant) {
        self.go_back();
        self.resume = false;
        self.state = InboundState::Waiting;
        self.wait_until = until;
    }

    /// Which of [`Streams`](super::streams::Streams)' sets the stream belongs to, in their order.
    pub(crate) fn marks(&self) -> [bool; 4] {
        [self.has_word(), self.waits_until().is_some(), false, false]
    }

    /// Whether the store is to be asked something or a frame is due.
    fn has_word(&self) -> bool {
        match self.state {
            InboundState::Ask => true,
            InboundState::Running if self.resume || self.ack => true,
            _ => self.reject.is_some(),
        }
    }

    /// When it is asked for again, if the store had no room.
    pub(crate) const fn waits_until(&self) -> Option<Instant> {
        match self.state {
            InboundState::Waiting => Some(self.wait_until),
            _ => None,
        }
    }

    pub(crate) fn fit(&self, first: Cursor, next: Cursor, round: u8) -> Fit {
        let placed = self.taken_epoch == self.source.epoch;
        if self.state != InboundState::Running || round != self.round || self.resume || !placed {
            return Fit::Known;
        }
        if first == self.expected {
            Fit::Next
        } else if next <= self.expected {
            Fit::Known
        } else {
            Fit::Gap
        }
    }

    /// Everything before `next` is safe. Whether the sender is asked now for what is missing.
    pub(crate) fn safe(&mut self, next: Cursor, bytes: u32) -> bool {
        self.safe_bytes = self.safe_bytes.saturating_add(u64::from(bytes)).min(self.arrived_bytes);
        if next >= self.taken {
            // What was under way when the stream went back may be safe by now: go on behind it.
            self.expected = self.expected.max(next);
            self.taken = next;
            self.ack = true;
        }
        self.gap && self.miss()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn running() -> Outbound {
        let mut outbound = Outbound::FREE;
        outbound.known(Instant::ZERO, Position(3), Position(10), Position(10));
        let resume = wire::Resume { epoch: 0, position: 5, offset: 2, credit_bytes: 100, round: 1 };
        outbound.resume(Instant::ZERO, &resume, Epoch(0));
        outbound
    }

    fn ack(position: u64) -> wire::Ack {
        wire::Ack { position, level: wire::Level::Synced, credit_bytes: 200, round: 1 }
    }

    #[test]
    fn a_reader_that_has_what_was_never_sent_or_another_life_is_given_a_place() {
        let resume = |epoch, position| wire::Resume {
            epoch,
            position,
            offset: 0,
            credit_bytes: 100,
            round: 4,
        };
        let mut outbound = Outbound::FREE;
        // 5 entries were sent in this life of 7, and 5 more were posted.
        outbound.known(Instant::ZERO, Position(3), Position(10), Position(5));
        outbound.resume(Instant::ZERO, &resume(7, 5), Epoch(7));
        assert_eq!((outbound.state, outbound.released), (OutboundState::Running, Position(5)));
        for strange in [resume(7, 8), resume(7, 11), resume(6, 5)] {
            outbound.resume(Instant::ZERO, &strange, Epoch(7));
            assert_eq!(outbound.state, OutboundState::Place);
            assert!(!outbound.ready_to_send());
            outbound.place(Instant::ZERO, Position(5));
            assert_eq!((outbound.state, outbound.placed), (OutboundState::Announce, Some(4)));
            assert_eq!(outbound.released, Position(5), "nothing is released by a strange place");
        }
        outbound.resume(Instant::ZERO, &resume(7, 5), Epoch(7));
        assert_eq!(outbound.state, OutboundState::Running);
    }

    #[test]
    fn a_resume_moves_the_cursor_and_releases_what_is_safe() {
        let outbound = running();
        assert_eq!(outbound.cursor, Cursor { position: Position(5), offset: 2 });
        assert_eq!((outbound.released, outbound.release), (Position(5), true));
    }

    #[test]
    fn a_receiver_beyond_the_end_is_noticed() {
        let mut outbound = running();
        assert!(!outbound.acknowledge(Instant::ZERO, &ack(11), true));
    }

    #[test]
    fn an_acknowledgement_that_is_not_safe_enough_releases_nothing() {
        let mut outbound = running();
        assert!(outbound.acknowledge(Instant::ZERO, &ack(7), false));
        assert_eq!(outbound.released, Position(5));
        assert!(outbound.acknowledge(Instant::ZERO, &ack(7), true));
        assert_eq!(outbound.released, Position(7));
    }

    #[test]
    fn a_report_of_sending_from_before_a_resume_is_void() {
        let mut outbound = running();
        outbound.ordered = true;
        let resume = wire::Resume { epoch: 0, position: 5, offset: 0, credit_bytes: 50, round: 2 };
        outbound.resume(Instant::ZERO, &resume, Epoch(0));
        outbound.sent(Instant::ZERO, Cursor::at(Position(8)), 40);
        assert_eq!((outbound.cursor, outbound.sent_bytes), (Cursor::at(Position(5)), 0));
        assert!(outbound.ready_to_send());
    }

    #[test]
    fn in_another_life_nothing_is_taken_before_the_sender_has_given_a_place() {
        let mut inbound = Inbound::FREE;
        inbound.source.epoch = Epoch(7);
        inbound.known(Epoch(6), Cursor { position: Position(50), offset: 9 });
        assert_eq!((inbound.taken, inbound.taken_epoch), (Cursor::at(Position(50)), Epoch(6)));
        inbound.resume = false;
        let next = Cursor::at(Position(51));
        assert_eq!(inbound.fit(inbound.taken, next, inbound.round), Fit::Known);
        assert!(!inbound.place(Position(0), inbound.round - 1), "a repeated frame");
        assert!(inbound.place(Position(40), inbound.round));
        assert_eq!((inbound.taken, inbound.taken_epoch), (Cursor::at(Position(40)), Epoch(7)));
        inbound.resume = false;
        let next = Cursor::at(Position(41));
        assert_eq!(inbound.fit(inbound.taken, next, inbound.round), Fit::Next);
        inbound.arrived_bytes = 9;
        assert!(!inbound.place(Position(0), inbound.round), "a repeated frame");
    }

    #[test]
    fn frames_of_a_round_that_is_over_are_passed_over() {
        let mut inbound = Inbound::FREE;
        inbound.known(Epoch(0), Cursor::default());
        inbound.resume = false;
        let next = Cursor::at(Position(1));
        assert_eq!(inbound.fit(Cursor::default(), next, 1), Fit::Next);
        assert_eq!(inbound.fit(Cursor::default(), next, 0), Fit::Known);
        assert_eq!(inbound.fit(next, Cursor::at(Position(2)), 1), Fit::Gap);
    }
}
