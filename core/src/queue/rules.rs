//! Dispatch rules: which queues a record goes to.
//!
//! A rule names a type (exactly, as a prefix with a trailing `*`, or empty for all), optionally an
//! origin, and the queues. The rules of a node are one bounded table, replaced as a whole. What a
//! lookup costs depends on the length of the type and on the rules that match, not on how many
//! there are.
//!
//! Beside the rules, four things are fixed (HS-16 to HS-19): what was posted here or came from a
//! leaf goes to every upstream; what came from an upstream goes to none; nothing goes back to the
//! peer that it came from; nothing goes to the queue of its own origin.

use core::fmt;

use crate::log::record::Record;
use crate::stream::{Name, NodeId, QueueId};

/// Longest type or prefix in a rule, in bytes. Longer types are matched by a prefix.
pub const PATTERN_BYTES_MAX: usize = 63;

/// A queue that a record may go to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Destination {
    /// The queue, by the hash of its name.
    pub id: QueueId,
    /// Its name.
    pub name: Name,
}

impl Destination {
    /// A place for one, in the memory of [`Rules`].
    pub const FREE: Self = {
        let Ok(name) = Name::new("-") else { panic!("a dash is a name") };
        Self::new(name)
    };

    /// The queue called `name`.
    pub const fn new(name: Name) -> Self {
        Self { id: name.queue_id(), name }
    }
}

/// A rule as a person writes it.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct RuleText<'a> {
    /// Only this type; a trailing `*` matches any rest; empty for all.
    pub message_type: &'a str,
    /// Only from the node of this name; empty for all.
    pub origin: &'a str,
    /// Queues; `*` for every registered leaf.
    pub to: &'a [&'a str],
}

/// Why rules were not taken. Nothing has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum RuleError {
    /// More rules than the table holds; it holds this many.
    TooMany(usize),
    /// More targets, all rules together, than the table holds; it holds this many.
    TooManyTargets(usize),
    /// The type is longer than [`PATTERN_BYTES_MAX`], or has a `*` before its end.
    Type,
    /// The origin is not a name.
    Origin,
    /// The rule names no queue.
    NoTarget,
    /// The target at this index is neither a name nor `*`.
    Target(usize),
}

impl fmt::Display for RuleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooMany(limit) => write!(f, "there may be {limit} rules at most"),
            Self::TooManyTargets(limit) => {
                write!(f, "all rules together may name {limit} queues at most")
            }
            Self::Type => write!(
                f,
                "a type in a rule has at most {PATTERN_BYTES_MAX} bytes and a `*` only at its end"
            ),
            Self::Origin => f.write_str("the origin is not a name"),
            Self::NoTarget => f.write_str("the rule names no queue"),
            Self::Target(index) => write!(f, "target {} is not a name or `*`", index + 1),
        }
    }
}

impl core::error::Error for RuleError {}

/// Where a record came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Source {
    /// It was posted here.
    Local,
    /// A leaf of this node sent it.
    Leaf(NodeId),
    /// A hub above this node sent it.
    Upstream(NodeId),
}

/// The node at which a decision is made.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// This node; nothing is queued for itself.
    pub own: QueueId,
    /// Whether it dispatches: a leaf does not, whatever a message asks for.
    pub hub: bool,
    /// The queues of the registered leaves, by rising [`Destination::id`].
    pub leaves: &'a [Destination],
    /// The queues of the upstreams. Few.
    pub upstreams: &'a [Destination],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Pattern {
    prefix: bool,
    // Equal patterns stand next to each other in the table; zeros fill what is not used, and no
    // text has zeros that the length does not tell apart.
    bytes: [u8; PATTERN_BYTES_MAX],
    len: u8,
}

impl Pattern {
    const NONE: Self = Self { prefix: false, bytes: [0; PATTERN_BYTES_MAX], len: 0 };

    fn literal(text: &[u8], prefix: bool) -> Option<Self> {
        let mut pattern = Self { prefix, len: text.len() as u8, ..Self::NONE };
        pattern.bytes.get_mut(..text.len())?.copy_from_slice(text);
        Some(pattern)
    }

    fn new(text: &str) -> Result<Self, RuleError> {
        let (text, prefix) = match text.strip_suffix('*') {
            Some(text) => (text, true),
            None => (text, text.is_empty()),
        };
        if text.contains('*') {
            return Err(RuleError::Type);
        }
        Self::literal(text.as_bytes(), prefix).ok_or(RuleError::Type)
    }
}

/// One place in the memory of [`Rules`].
#[derive(Clone, Copy, Debug)]
pub struct Rule {
    pattern: Pattern,
    /// [`NodeId::NONE`] for all.
    origin: NodeId,
    to_all_leaves: bool,
    /// The range of its targets, rising by id, each once.
    first_target: u16,
    targets: u16,
}

impl Rule {
    /// A place for a rule.
    pub const FREE: Self = Self {
        pattern: Pattern::NONE,
        origin: NodeId::NONE,
        to_all_leaves: false,
        first_target: 0,
        targets: 0,
    };
}

/// The dispatch rules of a node, in memory of the caller: arrays, boxes or slices of places for rules
/// and for the queues that they name, at most 65,535 of each, of about 84 and 72 bytes.
#[derive(Clone, Debug)]
pub struct Rules<R, T> {
    /// Rising by pattern.
    rules: R,
    rules_len: usize,
    targets: T,
    targets_len: usize,
    /// Bit n: some rule has a prefix of n bytes.
    prefix_lengths: u64,
}

impl<R, T> Rules<R, T>
where
    R: AsRef<[Rule]> + AsMut<[Rule]>,
    T: AsRef<[Destination]> + AsMut<[Destination]>,
{
    /// No rules: records go to upstreams and where they ask to go.
    ///
    /// # Panics
    /// When there are more than 65,535 places for rules or for targets.
    pub fn new(rules: R, targets: T) -> Self {
        let places_max = usize::from(u16::MAX);
        assert!(rules.as_ref().len() <= places_max && targets.as_ref().len() <= places_max);
        Self { rules, rules_len: 0, targets, targets_len: 0, prefix_lengths: 0 }
    }

    /// Replaces all rules. A rule is put in its place among the others, so it is quadratic in their
    /// number, of small steps.
    ///
    /// # Errors
    /// The index of the first rule that is not sound, and why; nothing has changed.
    pub fn set(&mut self, rules: &[RuleText<'_>]) -> Result<(), (usize, RuleError)> {
        self.check(rules)?;
        self.clear();
        for rule in rules {
            self.insert(rule);
        }
        Ok(())
    }

    /// Removes all rules.
    pub fn clear(&mut self) {
        (self.rules_len, self.targets_len, self.prefix_lengths) = (0, 0, 0);
    }

    /// Adds one rule to those there are.
    ///
    /// # Errors
    /// Why it is not sound, or does not fit; nothing has changed.
    pub fn add(&mut self, rule: &RuleText<'_>) -> Result<(), RuleError> {
        self.check_next(rule, self.rules_len, self.targets_len)?;
        self.insert(rule);
        Ok(())
    }

    /// Whether [`Rules::set`] would take these.
    ///
    /// # Errors
    /// As [`Rules::set`].
    pub fn check(&self, rules: &[RuleText<'_>]) -> Result<(), (usize, RuleError)> {
        let mut targets = 0;
        for (index, rule) in rules.iter().enumerate() {
            let named = self.check_next(rule, index, targets);
            targets += named.map_err(|error| (index, error))?;
        }
        Ok(())
    }

    /// Whether a rule is sound, and fits beside others; how many queues it names.
    fn check_next(
        &self,
        rule: &RuleText<'_>,
        rules: usize,
        targets: usize,
    ) -> Result<usize, RuleError> {
        let (rules_max, targets_max) = (self.rules.as_ref().len(), self.targets.as_ref().len());
        if rules >= rules_max {
            return Err(RuleError::TooMany(rules_max));
        }
        Pattern::new(rule.message_type)?;
        if !rule.origin.is_empty() && Name::new(rule.origin).is_err() {
            return Err(RuleError::Origin);
        }
        if rule.to.is_empty() {
            return Err(RuleError::NoTarget);
        }
        let mut named = 0;
        for (at, text) in rule.to.iter().enumerate() {
            if *text != "*" {
                named += 1;
                Name::new(text).map_err(|_| RuleError::Target(at))?;
            }
        }
        if targets + named > targets_max {
            return Err(RuleError::TooManyTargets(targets_max));
        }
        Ok(named)
    }

    /// Adds a rule that was checked.
    fn insert(&mut self, text: &RuleText<'_>) {
        let Ok(pattern) = Pattern::new(text.message_type) else { return };
        let (rules, targets) = (self.rules.as_mut(), self.targets.as_mut());
        let first = self.targets_len;
        for name in text.to.iter().filter_map(|text| Name::new(text).ok()) {
            targets[self.targets_len] = Destination::new(name);
            self.targets_len += 1;
        }
        let added = &mut targets[first..self.targets_len];
        added.sort_unstable_by_key(|target| target.id);
        let mut kept = usize::from(!added.is_empty());
        for at in 1..added.len() {
            if added[at].id != added[kept - 1].id {
                added[kept] = added[at];
                kept += 1;
            }
        }
        self.targets_len = first + kept;
        if pattern.prefix {
            self.prefix_lengths |= 1 << pattern.len;
        }
        let at = rules[..self.rules_len].partition_point(|rule| rule.pattern <= pattern);
        rules.copy_within(at..self.rules_len, at + 1);
        rules[at] = Rule {
            pattern,
            origin: Name::new(text.origin).map_or(NodeId::NONE, |name| name.node_id()),
            to_all_leaves: text.to.contains(&"*"),
            first_target: first as u16,
            targets: kept as u16,
        };
        self.rules_len += 1;
    }

    /// Calls `visit` with every queue that `record` goes to, each once.
    pub fn dispatch(
        &self,
        record: &Record<'_>,
        source: Source,
        place: &Place<'_>,
        mut visit: impl FnMut(&Destination),
    ) {
        let id = record.id();
        let origin = if id.origin == NodeId::NONE { NodeId(place.own.0) } else { id.origin };
        let (peer, upwards) = match source {
            Source::Local => (NodeId::NONE, true),
            Source::Leaf(peer) => (peer, true),
            Source::Upstream(peer) => (peer, false),
        };
        let allowed =
            |queue: QueueId| queue.0 != peer.0 && queue.0 != origin.0 && queue != place.own;
        if upwards {
            place.upstreams.iter().filter(|up| allowed(up.id)).for_each(&mut visit);
        }
        if !place.hub {
            return;
        }
        let downwards =
            |queue: QueueId| allowed(queue) && !place.upstreams.iter().any(|up| up.id == queue);
        let matching = || self.matching(record.message_type(), origin);
        let to_all_leaves = matching().any(|rule| rule.to_all_leaves);
        if to_all_leaves {
            place.leaves.iter().filter(|leaf| downwards(leaf.id)).for_each(&mut visit);
        }
        let among_leaves = |queue: QueueId| {
            to_all_leaves && place.leaves.binary_search_by_key(&queue, |leaf| leaf.id).is_ok()
        };
        for (index, rule) in matching().enumerate() {
            for target in self.targets_of(rule) {
                let earlier = || matching().take(index).any(|rule| self.names(rule, target.id));
                if downwards(target.id) && !among_leaves(target.id) && !earlier() {
                    visit(target);
                }
            }
        }
        for (index, name) in asked(record).enumerate() {
            let target = Destination::new(name);
            let earlier = || {
                asked(record).take(index).any(|other| other == name)
                    || matching().any(|rule| self.names(rule, target.id))
            };
            if downwards(target.id) && !among_leaves(target.id) && !earlier() {
                visit(&target);
            }
        }
    }

    fn targets_of(&self, rule: &Rule) -> &[Destination] {
        let first = usize::from(rule.first_target);
        &self.targets.as_ref()[first..first + usize::from(rule.targets)]
    }

    fn names(&self, rule: &Rule, queue: QueueId) -> bool {
        self.targets_of(rule).binary_search_by_key(&queue, |target| target.id).is_ok()
    }

    /// The rules for a type and origin.
    fn matching(&self, message_type: &str, origin: NodeId) -> impl Iterator<Item = &Rule> {
        let text = message_type.as_bytes();
        let exact = Pattern::literal(text, false);
        let lengths = self.prefix_lengths;
        let prefixes = (0..=text.len().min(PATTERN_BYTES_MAX))
            .filter(move |length| lengths & 1 << length != 0)
            .filter_map(move |length| Pattern::literal(&text[..length], true));
        exact
            .into_iter()
            .chain(prefixes)
            .flat_map(|pattern| self.with_pattern(pattern))
            .filter(move |rule| rule.origin == NodeId::NONE || rule.origin == origin)
    }

    fn with_pattern(&self, pattern: Pattern) -> impl Iterator<Item = &Rule> {
        let rules = &self.rules.as_ref()[..self.rules_len];
        let first = rules.partition_point(|rule| rule.pattern < pattern);
        rules[first..].iter().take_while(move |rule| rule.pattern == pattern)
    }
}

/// The queues that the poster asked for. What is no name is passed over.
fn asked<'a>(record: &Record<'a>) -> impl Iterator<Item = Name> + use<'a> {
    record.to().filter_map(|text| Name::new(text).ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::crc32c;
    use crate::log::record::{Message, encode};
    use crate::rng::Rng;
    use crate::stream::{Epoch, RecordId, Seq};
    use crate::time::Stamp;
    use std::collections::BTreeSet;
    use std::string::{String, ToString};
    use std::vec::Vec;

    type Table = Rules<[Rule; 16], [Destination; 64]>;

    fn table() -> Table {
        Rules::new([Rule::FREE; 16], [Destination::FREE; 64])
    }

    fn name(text: &str) -> Name {
        Name::new(text).unwrap()
    }

    fn sorted(names: &[&str]) -> Vec<Destination> {
        let mut all: Vec<_> = names.iter().map(|text| Destination::new(name(text))).collect();
        all.sort_by_key(|leaf| leaf.id);
        all
    }

    fn rule<'a>(message_type: &'a str, to: &'a [&'a str]) -> RuleText<'a> {
        RuleText { message_type, origin: "", to }
    }

    fn decide(
        rules: &Table,
        message: &Message<'_>,
        origin: &str,
        source: Source,
        hub: bool,
    ) -> Vec<String> {
        let mut bytes = [0; 512];
        let id =
            RecordId { origin: name(origin).node_id(), epoch: Epoch(1), class: 2, seq: Seq(1) };
        let length = encode(message, id, Stamp::UNSET, &mut bytes, crc32c).unwrap();
        let record = Record::parse(&bytes[..length]).unwrap();
        let leaves = sorted(&["a", "b", "c"]);
        let upstreams = sorted(&["up", "up2"]);
        let own = name("hub").queue_id();
        let place = Place { own, hub, leaves: &leaves, upstreams: &upstreams };
        let mut to = Vec::new();
        rules.dispatch(&record, source, &place, |target| to.push(target.name.to_string()));
        let count = to.len();
        to.sort();
        to.dedup();
        assert_eq!(to.len(), count, "every queue once");
        to
    }

    fn leaf(text: &str) -> Source {
        Source::Leaf(name(text).node_id())
    }

    fn upstream(text: &str) -> Source {
        Source::Upstream(name(text).node_id())
    }

    #[test]
    fn hs_17_a_message_posted_at_the_hub_goes_to_every_target_and_up() {
        let mut rules = table();
        rules.set(&[rule("", &["*"])]).unwrap();
        let to = decide(&rules, &Message::default(), "hub", Source::Local, true);
        assert_eq!(to, ["a", "b", "c", "up", "up2"]);
    }

    #[test]
    fn hs_18_nothing_goes_back_to_the_leaf_it_came_from_nor_to_its_origin() {
        let mut rules = table();
        rules.set(&[rule("", &["*", "a", "b", "x"])]).unwrap();
        let to = decide(&rules, &Message::default(), "a", leaf("b"), true);
        assert_eq!(to, ["c", "up", "up2", "x"]);
        let message = Message { to: &["a", "b", "hub", "y", "y"], ..Message::default() };
        assert_eq!(decide(&rules, &message, "a", leaf("b"), true), ["c", "up", "up2", "x", "y"]);
    }

    #[test]
    fn hs_19_what_came_from_an_upstream_goes_to_no_upstream() {
        let mut rules = table();
        rules.set(&[rule("", &["*", "up2"])]).unwrap();
        let message = Message { to: &["up2"], ..Message::default() };
        assert_eq!(decide(&rules, &message, "other", upstream("up"), true), ["a", "b", "c"]);
        assert!(decide(&rules, &message, "other", upstream("up"), false).is_empty());
    }

    #[test]
    fn a_leaf_sends_up_and_dispatches_nothing() {
        let mut rules = table();
        rules.set(&[rule("", &["*"])]).unwrap();
        let message = Message { to: &["a"], ..Message::default() };
        assert_eq!(decide(&rules, &message, "hub", Source::Local, false), ["up", "up2"]);
    }

    #[test]
    fn hs_20_types_match_exactly_by_prefix_and_by_origin() {
        let mut rules = table();
        let from_a = RuleText { message_type: "x", origin: "a", to: &["from-a"] };
        rules
            .set(&[rule("sale", &["s"]), rule("sale.*", &["p"]), rule("*", &["all"]), from_a])
            .unwrap();
        let typed = |text, origin| {
            let message = Message { message_type: text, ..Message::default() };
            let mut to = decide(&rules, &message, origin, Source::Local, true);
            to.retain(|name| !name.starts_with("up"));
            to
        };
        assert_eq!(typed("sale", "q"), ["all", "s"]);
        assert_eq!(typed("sale.new", "q"), ["all", "p"]);
        assert_eq!(typed("sales", "q"), ["all"]);
        assert_eq!(typed("x", "a"), ["all", "from-a"]);
        assert_eq!(typed("x", "b"), ["all"]);
        assert_eq!(typed(&"l".repeat(255), "b"), ["all"]);
    }

    #[test]
    fn hs_20_a_bad_rule_is_named_and_changes_nothing() {
        let mut rules = table();
        rules.set(&[rule("kept", &["k"])]).unwrap();
        let good = rule("a", &["b"]);
        let long = "t".repeat(64);
        let wrong = [
            (rule("a*b", &["b"]), RuleError::Type),
            (rule(&long, &["b"]), RuleError::Type),
            (rule("a", &[]), RuleError::NoTarget),
            (rule("a", &["b", "b c"]), RuleError::Target(1)),
            (RuleText { message_type: "", origin: "?", to: &["b"] }, RuleError::Origin),
        ];
        for (bad, error) in wrong {
            assert_eq!(rules.set(&[good, bad]), Err((1, error)));
        }
        assert_eq!(rules.set(&[good; 17]), Err((16, RuleError::TooMany(16))));
        assert_eq!(rules.set(&[rule("", &["b"; 65])]), Err((0, RuleError::TooManyTargets(64))));
        let message = Message { message_type: "kept", ..Message::default() };
        assert_eq!(decide(&rules, &message, "q", leaf("a"), true), ["k", "up", "up2"]);
    }

    #[test]
    fn decisions_agree_with_a_plain_reading_of_the_rules() {
        const TYPES: [&str; 7] = ["", "a", "ab", "abc", "a*", "ab*", "*"];
        const NAMES: [&str; 7] = ["a", "b", "c", "d", "up", "hub", "*"];
        for seed in 0..2000 {
            let mut rng = Rng::new(seed);
            let mut pick =
                |from: &[&'static str]| from[rng.between(0, from.len() as u64 - 1) as usize];
            let texts: Vec<_> = (0..4)
                .map(|_| (pick(&TYPES), pick(&["", "a", "d"]), [pick(&NAMES), pick(&NAMES)]))
                .collect();
            let (message_type, origin) =
                (pick(&["", "a", "ab", "abc", "x"]), pick(&["a", "b", "d", "hub"]));
            let asked = [pick(&NAMES[..6])];
            let source = match pick(&["local", "leaf", "up"]) {
                "local" => Source::Local,
                "leaf" => leaf("b"),
                _ => upstream("up"),
            };
            let sources: Vec<_> = texts
                .iter()
                .map(|(message_type, origin, to)| RuleText { message_type, origin, to })
                .collect();
            let mut rules = table();
            rules.set(&sources).unwrap();
            let message = Message { message_type, to: &asked, ..Message::default() };
            let to = decide(&rules, &message, origin, source, true);

            let mut expected: BTreeSet<&str> = asked.into();
            for (pattern, from, targets) in &texts {
                let fits = match pattern.strip_suffix('*') {
                    Some(prefix) => message_type.starts_with(prefix),
                    None => pattern.is_empty() || *pattern == message_type,
                };
                if fits && (from.is_empty() || *from == origin) {
                    expected.extend(targets.iter().copied());
                }
            }
            if expected.remove("*") {
                expected.extend(["a", "b", "c"]);
            }
            expected.remove("up");
            if !matches!(source, Source::Upstream(_)) {
                expected.extend(["up", "up2"]);
            }
            expected.remove("hub");
            expected.remove(origin);
            if matches!(source, Source::Leaf(_)) {
                expected.remove("b");
            }
            assert!(to.iter().map(String::as_str).eq(expected), "seed {seed}");
        }
    }
}
