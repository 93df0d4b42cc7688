//! Three hubs that hold one log (QC-33), as stores and the rules of who is believed, in a seeded order of
//! posts, elections, crashes, power cuts, links that break, copies that break off, disks that are lost, and
//! leaders that do not know that they lead no longer. What was acknowledged is at every leader, once, in
//! its place.
//!
//! `HUBS_SEEDS=1000 cargo test -p replcore-runtime --test store_hubs` runs more of them.

mod store_support;

use std::collections::{BTreeMap, BTreeSet};

use replcore::log::record::Message;
use replcore::rng::Rng;
use replcore::stream::Position;
use replcore_runtime::store::*;
use store_support::*;

type MemoryStore = SegmentStore<MemoryDisk>;

const HUBS: usize = 3;
const STEPS: usize = 400;

fn replicated() -> Config {
    Config { replicated: true, retain_bytes: 0, ..small() }
}

/// A copy that a hub takes. It goes with the process.
struct Copy {
    disk: MemoryDisk,
    store: MemoryStore,
    term: u64,
    cursor: Vec<u8>,
    place: Vec<u8>,
    through: Option<u64>,
}

#[derive(Default)]
struct Hub {
    disk: MemoryDisk,
    /// `None` while it is down.
    store: Option<MemoryStore>,
    /// The latest term that it has heard of or voted in.
    term: u64,
    /// The term in which it believes that it leads.
    leads: Option<u64>,
    /// Its log is not that of a disk that was lost.
    votes: bool,
    copy: Option<Copy>,
}

impl Hub {
    fn store(&mut self) -> &mut MemoryStore {
        self.store.as_mut().unwrap()
    }

    fn is_up(&self) -> bool {
        self.store.is_some()
    }

    /// The process ends; `power`: with the power of the machine.
    fn end(&mut self, power: Option<&mut Rng>) {
        (self.store, self.copy, self.leads) = (None, None, None);
        match power {
            Some(rng) => power_cut(&self.disk, rng),
            None => self.disk.process_ended(),
        }
    }

    /// Opens the store, after a start or a term that is over.
    fn follow(&mut self) {
        self.store = Some(open(&self.disk, replicated()));
    }

    fn step_down(&mut self) {
        self.end(None);
        self.follow();
    }

    /// The store that batches go to.
    fn target(&mut self, copy: bool) -> &mut MemoryStore {
        match (copy, &mut self.copy) {
            (true, Some(taken)) => &mut taken.store,
            _ => self.store.as_mut().unwrap(),
        }
    }

    /// As a process does that has followed; the last batch that is safe here, 0 while a copy is taken.
    fn commit(&mut self, copy: bool) -> Option<u64> {
        if !copy {
            self.store().commit().ok()?;
            return Some(self.store().head().number);
        }
        let taken = self.copy.as_mut()?;
        let Some(through) = taken.through else { return Some(0) };
        taken.store.commit().ok()?;
        if taken.store.head().number < through {
            return Some(0);
        }
        let disk = taken.disk.clone();
        self.end(None);
        disk.process_ended();
        self.disk.restore(&disk);
        self.follow();
        self.votes = true;
        Some(self.store().head().number)
    }
}

/// What a leader gives to a follower.
struct Link {
    ship: ShipCursor,
    parts: Option<CopyCursor>,
    copy: bool,
}

struct Post {
    number: u32,
    leader: usize,
    batch: u64,
    /// Where it stands in the queue; `None` when the store knew it already.
    position: Option<u64>,
}

#[derive(Default, Debug)]
struct Seen {
    acknowledged: usize,
    leaders: usize,
    deposed: usize,
    copies: usize,
    resumed: usize,
    lost_disks: usize,
}

struct World {
    rng: Rng,
    hubs: Vec<Hub>,
    links: BTreeMap<(usize, usize), Link>,
    pending: Vec<Post>,
    /// Position by number of what was acknowledged.
    acknowledged: BTreeMap<u32, u64>,
    known: BTreeSet<u32>,
    numbers: u32,
    terms: u64,
    seen: Seen,
}

impl World {
    fn new(seed: u64) -> Self {
        let fresh = |_| {
            let mut hub = Hub { votes: true, ..Hub::default() };
            hub.follow();
            hub
        };
        Self {
            rng: Rng::new(seed),
            hubs: (0..HUBS).map(fresh).collect(),
            links: BTreeMap::new(),
            pending: Vec::new(),
            acknowledged: BTreeMap::new(),
            known: BTreeSet::new(),
            numbers: 0,
            terms: 0,
            seen: Seen::default(),
        }
    }

    fn below(&mut self, end: usize) -> usize {
        self.rng.between(0, end as u64 - 1) as usize
    }

    fn one_in(&mut self, count: usize) -> bool {
        self.below(count) == 0
    }

    fn leaders(&self) -> Vec<usize> {
        (0..HUBS).filter(|at| self.hubs[*at].leads.is_some()).collect()
    }

    /// A post at a hub that leads, or believes so: a new one, or one that was not acknowledged.
    fn post(&mut self, at: usize) {
        let open: Vec<u32> =
            (1..=self.numbers).rev().take(20).filter(|it| !self.is_acknowledged(*it)).collect();
        let again =
            if open.is_empty() || self.one_in(2) { None } else { Some(self.below(open.len())) };
        let number = again.map_or(self.numbers + 1, |index| open[index]);
        self.numbers = self.numbers.max(number);
        let key_bytes = number.to_le_bytes();
        let mut body = key_bytes.to_vec();
        body.resize(4 + self.below(3_000), b'x');
        let bytes =
            message(&Message { idempotency_key: &key_bytes, body: &body, ..Message::default() }, 2);
        let store = self.hubs[at].store();
        let next = |store: &mut MemoryStore| store.holding(key("q", 2)).map_or(0, |it| it.next.0);
        let before = store.counters().posts_known;
        post(store, &bytes, &["q"]).unwrap();
        store.commit().unwrap();
        let known = store.counters().posts_known > before;
        let batch = store.committed_number();
        store.show_through(batch);
        let position = (!known).then(|| next(store) - 1);
        self.pending.push(Post { number, leader: at, batch, position });
    }

    fn is_acknowledged(&self, number: u32) -> bool {
        self.acknowledged.contains_key(&number) || self.known.contains(&number)
    }

    /// Readers of the queue have taken some of what was acknowledged.
    fn release(&mut self, at: usize) {
        let Some(most) = self.acknowledged.values().max() else { return };
        let store = self.hubs[at].store.as_mut().unwrap();
        let Some(held) = store.holding(key("q", 2)) else { return };
        let through = most.saturating_sub(15).min(held.next.0);
        if through > held.released.0 {
            store.release(key("q", 2), Position(through));
            store.commit().unwrap();
        }
    }

    fn drop_links(&mut self, of: usize) {
        self.links.retain(|(from, to), _| *from != of && *to != of);
    }

    fn gone(&mut self, at: usize) {
        self.drop_links(at);
        self.pending.retain(|post| post.leader != at);
    }

    fn crash(&mut self, at: usize) {
        self.gone(at);
        let power = self.one_in(2);
        self.hubs[at].end(power.then_some(&mut self.rng));
    }

    fn lose_disk(&mut self, at: usize) {
        self.crash(at);
        self.hubs[at] = Hub::default();
        self.seen.lost_disks += 1;
    }

    fn step_down(&mut self, at: usize) {
        self.gone(at);
        self.hubs[at].step_down();
        self.seen.deposed += 1;
    }

    /// A hub asks for the votes of the others; whether it leads now.
    fn elect(&mut self, at: usize) -> bool {
        let fits = |hub: &Hub| hub.is_up() && hub.votes && hub.leads.is_none();
        if !fits(&self.hubs[at]) {
            return false;
        }
        let head = self.hubs[at].store().head();
        let progress = |head: Head| (head.term, head.number);
        let voter = (0..HUBS).find(|other| {
            *other != at
                && fits(&self.hubs[*other])
                && self.hubs[*other]
                    .store
                    .as_ref()
                    .is_some_and(|store| progress(store.head()) <= progress(head))
        });
        let Some(voter) = voter else { return false };
        self.terms += 1;
        let term = self.terms;
        for it in [at, voter] {
            self.hubs[it].term = term;
        }
        self.drop_links(at);
        let hub = &mut self.hubs[at];
        hub.copy = None;
        hub.store().promote(term, term).unwrap();
        let number = hub.store().committed_number();
        hub.store().show_through(number);
        hub.leads = Some(term);
        self.seen.leaders += 1;
        self.check(at);
        true
    }

    /// A leader dials a follower.
    fn connect(&mut self, from: usize, to: usize) {
        let Some(term) = self.hubs[from].leads else { return };
        if self.hubs[to].term > term {
            return self.step_down(from);
        }
        self.hubs[to].term = term;
        if self.hubs[to].leads.is_some() {
            return self.step_down(to);
        }
        let [leader, follower] = self.hubs.get_disjoint_mut([from, to]).unwrap();
        let sound = |it: &mut Copy| it.term == term && it.store.commit().is_ok();
        if !follower.copy.as_mut().is_some_and(sound) {
            follower.copy = None;
        }
        let store = leader.store();
        if let Some(copy) = &follower.copy
            && let Some(parts) = CopyCursor::resume(&copy.cursor, &copy.place)
            && let Some(ship) = store.ship_from(copy.store.head()).unwrap()
        {
            let parts = copy.through.is_none().then_some(parts);
            self.links.insert((from, to), Link { ship, parts, copy: true });
            self.seen.resumed += 1;
            return;
        }
        follower.copy = None;
        let there = follower.store();
        // What it has followed and not committed yet is not told.
        there.commit().unwrap();
        if there.identity().instance == store.identity().instance
            && let Some(ship) = store.ship_from(there.head()).unwrap()
        {
            self.links.insert((from, to), Link { ship, parts: None, copy: false });
            return;
        }
        let start = store.start_copy().unwrap();
        let cursor = start.cursor.to_bytes().unwrap();
        let disk = MemoryDisk::default();
        let copy = SegmentStore::open_copy(disk.clone(), &name(NAME), replicated(), &start.state);
        let (store, place, through) = (copy.unwrap(), Vec::new(), None);
        follower.copy = Some(Copy { disk, store, term, cursor, place, through });
        let link = Link { ship: start.ship, parts: Some(start.cursor), copy: true };
        self.links.insert((from, to), link);
        self.seen.copies += 1;
    }

    /// Hands on so many parts and batches; `false` when the link is at its end.
    fn give(&mut self, from: usize, to: usize, count: usize) -> bool {
        let Some(link) = self.links.get_mut(&(from, to)) else { return false };
        let [leader, follower] = self.hubs.get_disjoint_mut([from, to]).unwrap();
        let store = leader.store();
        store.pin(link.ship.segment());
        for _ in 0..count {
            let mut bytes = Vec::new();
            if let Some(cursor) = &mut link.parts {
                let copy = follower.copy.as_mut().unwrap();
                if store.copy_part(cursor, &mut bytes).unwrap() {
                    copy.store.take_copy_part(&bytes).unwrap();
                    copy.place = cursor.place();
                } else {
                    copy.store.finish_copy().unwrap();
                    copy.through = Some(store.committed_number());
                    link.parts = None;
                }
                continue;
            }
            match store.ship(&mut link.ship, &mut bytes).unwrap() {
                Shipped::Batch if follower.target(link.copy).follow(&bytes).is_ok() => {}
                Shipped::End => break,
                _ => return false,
            }
        }
        true
    }

    /// A leader hands on some of its log, and hears what is safe there.
    fn ship(&mut self, from: usize, to: usize) {
        if !self.hubs[to].is_up() || from == to {
            return;
        }
        if !self.links.contains_key(&(from, to)) {
            self.connect(from, to);
        }
        let Some(copy) = self.links.get(&(from, to)).map(|link| link.copy) else { return };
        // A copy is of few parts.
        let count = 1 + self.below(if copy { 2 } else { 12 });
        let dies = self.one_in(25);
        if dies {
            let writes = self.rng.between(0, 12);
            self.hubs[to].disk.stop_after(writes);
        }
        let goes_on = self.give(from, to, count);
        let breaks = self.one_in(if copy { 3 } else { 12 });
        if dies {
            self.drop_links(to);
            self.hubs[to].end(Some(&mut self.rng));
            return self.hubs[to].follow();
        }
        if !goes_on || breaks {
            self.links.remove(&(from, to));
            return;
        }
        let term = self.hubs[from].leads.unwrap();
        // It has voted for another meanwhile, and confirms nothing of this term any more.
        let deposed = self.hubs[to].term > term;
        let safe = self.hubs[to].commit(copy);
        if deposed {
            self.links.remove(&(from, to));
            return;
        }
        let Some(safe) = safe else { return drop(self.links.remove(&(from, to))) };
        if copy && safe > 0 {
            // The copy has taken the place of the store, and is followed from now on.
            self.links.get_mut(&(from, to)).unwrap().copy = false;
        }
        let (done, left) = std::mem::take(&mut self.pending)
            .into_iter()
            .partition(|post| post.leader == from && post.batch <= safe);
        self.pending = left;
        let done: Vec<Post> = done;
        for post in done {
            match post.position {
                Some(position) => drop(self.acknowledged.insert(post.number, position)),
                None => drop(self.known.insert(post.number)),
            }
        }
    }

    /// What a hub that leads holds of what was acknowledged.
    fn check(&mut self, at: usize) {
        let store = self.hubs[at].store();
        let mut held = BTreeMap::new();
        let mut numbers = BTreeSet::new();
        store
            .peek(id_of("q"), 0, usize::MAX >> 1, &mut |place, record| {
                let body = record.body();
                let number = u32::from_le_bytes(body[..4].try_into().unwrap());
                assert!(numbers.insert(number), "{number} is there twice");
                held.insert(place.position.0, number);
            })
            .unwrap();
        let released = store.holding(key("q", 2)).map_or(0, |it| it.released.0);
        for (number, position) in &self.acknowledged {
            if *position >= released {
                assert_eq!(held.get(position), Some(number), "{number} was acknowledged");
            }
        }
        let left = self.acknowledged.len();
        assert!(left == 0 || released < *self.acknowledged.values().max().unwrap() + 1);
    }

    fn step(&mut self) {
        let leaders = self.leaders();
        let at = self.below(HUBS);
        match self.below(40) {
            0 if self.hubs[at].is_up() => self.crash(at),
            1 | 2 if !self.hubs[at].is_up() => self.hubs[at].follow(),
            // One machine at a time, and not before the last one has all again.
            3 if self.one_in(4) && self.hubs.iter().all(|hub| hub.votes) => self.lose_disk(at),
            4 | 5 => drop(self.elect(at)),
            6 if leaders.contains(&at) && self.one_in(3) => self.step_down(at),
            7 if !leaders.is_empty() => {
                let leader = leaders[self.below(leaders.len())];
                self.release(leader);
            }
            8..=20 if !leaders.is_empty() => {
                let leader = leaders[self.below(leaders.len())];
                self.post(leader);
            }
            _ if !leaders.is_empty() => {
                let leader = leaders[self.below(leaders.len())];
                self.ship(leader, at);
            }
            _ => {}
        }
    }

    /// Everything works again: all hubs come to hold what the leader holds.
    fn heal(&mut self) {
        for at in 0..HUBS {
            if !self.hubs[at].is_up() {
                self.hubs[at].follow();
            } else if self.hubs[at].leads.is_some() {
                self.step_down(at);
            }
        }
        let leader = (0..HUBS).find(|at| self.elect(*at)).expect("a hub that can lead");
        for _ in 0..5_000 {
            let head = self.hubs[leader].store().head();
            let level = |hub: &Hub| hub.store.as_ref().is_some_and(|store| store.head() == head);
            if self.hubs.iter().all(level) {
                break;
            }
            for to in 0..HUBS {
                self.ship(leader, to);
            }
        }
        for at in 0..HUBS {
            self.check(at);
        }
        let entries = |hub: &mut Hub| {
            let mut all = Vec::new();
            hub.store()
                .peek(id_of("q"), 0, usize::MAX >> 1, &mut |place, record| {
                    all.push((place.position.0, place.ordinal, record.as_bytes().to_vec()));
                })
                .unwrap();
            (all, hub.store().head())
        };
        let first = entries(&mut self.hubs[leader]);
        for at in 0..HUBS {
            assert!(entries(&mut self.hubs[at]) == first, "hub {at} is not the leader");
        }
    }
}

#[test]
fn whatever_happens_to_hubs_what_was_acknowledged_is_at_the_next_leader_in_its_place() {
    let seeds = std::env::var("HUBS_SEEDS").ok().and_then(|text| text.parse().ok()).unwrap_or(4);
    let mut all = Seen::default();
    for seed in 0..seeds {
        let mut world = World::new(seed as u64);
        let run = std::panic::AssertUnwindSafe(|| {
            (0..STEPS).for_each(|_| world.step());
            world.heal();
        });
        if let Err(panic) = std::panic::catch_unwind(run) {
            println!("seed {seed} fails");
            std::panic::resume_unwind(panic);
        }
        all.acknowledged += world.acknowledged.len();
        all.leaders += world.seen.leaders;
        all.deposed += world.seen.deposed;
        all.copies += world.seen.copies;
        all.resumed += world.seen.resumed;
        all.lost_disks += world.seen.lost_disks;
    }
    println!("{all:?}");
    let met = [all.leaders, all.deposed, all.copies, all.resumed, all.lost_disks];
    assert!(all.acknowledged > 20 * seeds && met.iter().all(|count| *count > seeds / 4), "{all:?}");
}
