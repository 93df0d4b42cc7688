//! Which queues a record goes to: the rules of the core over the lists of a running node.

use replcore::log::record::Record;
use replcore::queue::rules::{Destination, Place, Rule, RuleError, RuleText, Rules, Source};
use replcore::stream::{Name, NodeId, QueueId};

use crate::api::{ApiError, DispatchRule};
use crate::options::OwnRule;
use crate::schema::{self, Schema};
use crate::store::{Arrival, Route};

/// Most dispatch rules of a node.
pub const RULES_MAX: usize = 256;
/// Most queues that all rules of a node together may name.
pub const TARGETS_MAX: usize = 1024;

/// Longer decisions are made anew each time.
const REMEMBERED_TARGETS_MAX: usize = 64;

type Table = Rules<Box<[Rule]>, Box<[Destination]>>;

fn table() -> Table {
    let rules = vec![Rule::FREE; RULES_MAX].into_boxed_slice();
    Rules::new(rules, vec![Destination::FREE; TARGETS_MAX].into_boxed_slice())
}

/// The dispatch rules in force, the registered leaves and the upstreams.
#[derive(Debug)]
pub struct Router {
    own: QueueId,
    hub: bool,
    /// Rising by id.
    leaves: Vec<Destination>,
    upstreams: Vec<Destination>,
    rules: Table,
    texts: Vec<DispatchRule>,
    own_rule: Option<OwnRule>,
    schemas: Vec<Schema>,
    /// What a stream of posts has brought since [`Router::begin_stream`], while it is taken.
    stream: Option<Admission>,
    dispatched: u64,
    last: Option<Decision>,
}

/// What became of the posts of one frame.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Admission {
    seen: u64,
    pub refused: u64,
    /// Of those before, counted from 0, and why.
    pub first: Option<(u64, ApiError)>,
}

/// The last decision: records of one type and origin come in runs.
#[derive(Debug)]
struct Decision {
    origin: NodeId,
    arrival: Arrival,
    message_type: String,
    targets: Vec<Name>,
}

impl Router {
    /// The router of the node `name`, without rules and leaves.
    pub fn new(name: Name, hub: bool, upstreams: &[Name]) -> Self {
        Self {
            own: name.queue_id(),
            hub,
            leaves: Vec::new(),
            upstreams: upstreams.iter().copied().map(Destination::new).collect(),
            rules: table(),
            texts: Vec::new(),
            own_rule: None,
            schemas: Vec::new(),
            stream: None,
            dispatched: 0,
            last: None,
        }
    }

    /// Records put into queues since the start, once for each queue.
    pub const fn dispatched(&self) -> u64 {
        self.dispatched
    }

    /// The rules in force.
    pub fn rules(&self) -> &[DispatchRule] {
        &self.texts
    }

    /// Replaces the rules (HS-20).
    ///
    /// # Errors
    /// The index of the first rule that is not sound, and why; nothing has changed.
    pub fn set_rules(&mut self, rules: Vec<DispatchRule>) -> Result<(), (usize, RuleError)> {
        with_texts(&rules, |texts| self.rules.set(texts))?;
        self.texts = rules;
        self.last = None;
        Ok(())
    }

    /// Sets the program's own rule, or takes it away (HS-20).
    pub fn set_own_rule(&mut self, rule: Option<OwnRule>) {
        self.own_rule = rule;
        self.last = None;
    }

    /// Sets what messages must look like that programs post as records (HS-29). Other posts are
    /// checked where they come in.
    pub fn set_schemas(&mut self, schemas: Vec<Schema>) {
        self.schemas = schemas;
    }

    /// The posts of a frame follow.
    pub(super) fn begin_stream(&mut self) {
        self.stream = (!self.schemas.is_empty()).then(Admission::default);
    }

    /// No more posts of the frame follow.
    pub(super) const fn end_stream(&mut self) -> Option<Admission> {
        self.stream.take()
    }

    /// Adds what the program's own rule says, within what no rule may do.
    fn apply_own_rule(&self, record: &Record<'_>, arrival: Arrival, targets: &mut Vec<Name>) {
        let Some(rule) = &self.own_rule else { return };
        let origin = record.id().origin.0;
        let mut wanted = Vec::new();
        (rule.0)(record, arrival, &mut wanted);
        for name in wanted {
            let id = name.queue_id().0;
            let returns = match arrival {
                Arrival::Local => false,
                Arrival::Leaf(peer) => id == peer.0,
                Arrival::Upstream(peer) => id == peer.0 || self.is_upstream(id),
            };
            if !returns && id != origin && id != self.own.0 && !targets.contains(&name) {
                targets.push(name);
            }
        }
    }

    /// A leaf has registered.
    pub fn add_leaf(&mut self, name: Name) {
        let leaf = Destination::new(name);
        if let Err(at) = self.leaves.binary_search_by_key(&leaf.id, |leaf| leaf.id) {
            self.leaves.insert(at, leaf);
            self.last = None;
        }
    }

    /// A leaf is no longer registered.
    pub fn remove_leaf(&mut self, node: NodeId) {
        if let Ok(at) = self.leaves.binary_search_by_key(&node.0, |leaf| leaf.id.0) {
            self.leaves.remove(at);
            self.last = None;
        }
    }

    /// Whether a node is a registered leaf.
    pub fn is_leaf(&self, node: NodeId) -> bool {
        self.leaves.binary_search_by_key(&node.0, |leaf| leaf.id.0).is_ok()
    }

    /// Whether a queue or node is an upstream.
    pub fn is_upstream(&self, id: u64) -> bool {
        self.upstreams.iter().any(|upstream| upstream.id.0 == id)
    }
}

impl Route for Router {
    fn is_choosy(&self) -> bool {
        self.stream.is_some()
    }

    fn admit(&mut self, record: &Record<'_>) -> bool {
        let Some(stream) = &mut self.stream else { return true };
        let index = stream.seen;
        stream.seen += 1;
        let Err(error) = schema::check(&self.schemas, record.message_type(), record.body()) else {
            return true;
        };
        stream.refused += 1;
        stream.first.get_or_insert((index, error));
        false
    }

    fn route(&mut self, record: &Record<'_>, arrival: Arrival, targets: &mut Vec<Name>) {
        let (origin, message_type) = (record.id().origin, record.message_type());
        let asks = record.to().next().is_some() || self.own_rule.is_some();
        if let Some(last) = &self.last
            && !asks
            && (last.origin, last.arrival) == (origin, arrival)
            && last.message_type == message_type
        {
            self.dispatched += last.targets.len() as u64;
            targets.extend_from_slice(&last.targets);
            return;
        }
        let source = match arrival {
            Arrival::Local => Source::Local,
            Arrival::Leaf(peer) => Source::Leaf(peer),
            Arrival::Upstream(peer) => Source::Upstream(peer),
        };
        let (leaves, upstreams) = (&self.leaves, &self.upstreams);
        let place = Place { own: self.own, hub: self.hub, leaves, upstreams };
        let before = targets.len();
        self.rules.dispatch(record, source, &place, |target| targets.push(target.name));
        self.apply_own_rule(record, arrival, targets);
        let added = &targets[before..];
        self.dispatched += added.len() as u64;
        if !asks && added.len() <= REMEMBERED_TARGETS_MAX {
            self.last = Some(Decision {
                origin,
                arrival,
                message_type: message_type.to_owned(),
                targets: added.to_vec(),
            });
        }
    }
}

/// Checks rules without a router.
///
/// # Errors
/// The index of the first rule that is not sound, and why.
pub fn check_rules(rules: &[DispatchRule]) -> Result<(), (usize, RuleError)> {
    with_texts(rules, |texts| table().check(texts))
}

fn with_texts<R>(rules: &[DispatchRule], then: impl FnOnce(&[RuleText<'_>]) -> R) -> R {
    let targets: Vec<Vec<&str>> =
        rules.iter().map(|rule| rule.to.iter().map(String::as_str).collect()).collect();
    let texts: Vec<RuleText<'_>> = rules
        .iter()
        .zip(&targets)
        .map(|(rule, to)| RuleText { message_type: &rule.message_type, origin: &rule.origin, to })
        .collect();
    then(&texts)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use replcore::log::record::{Message, encode};
    use replcore::stream::{RecordId, Seq};
    use replcore::time::Stamp;

    use super::*;

    fn name(text: &str) -> Name {
        Name::new(text).unwrap()
    }

    /// HS-18, HS-19, HS-20.
    #[test]
    fn a_program_s_own_rule_adds_queues_but_sends_nothing_back() {
        let mut router = Router::new(name("hub"), true, &[name("above")]);
        router.set_own_rule(Some(OwnRule(Arc::new(|record, _, targets| {
            if record.message_type() == "alarm" {
                targets.extend(["one", "two", "above", "hub", "two"].map(name));
            }
        }))));
        let mut route = |message_type, origin, arrival| {
            let message = Message { message_type, ..Message::default() };
            let id =
                RecordId { origin: name(origin).node_id(), seq: Seq(1), ..RecordId::default() };
            let mut bytes = [0; 128];
            let length = encode(&message, id, Stamp::UNSET, &mut bytes, crc32c::crc32c).unwrap();
            let record = Record::parse(&bytes[..length]).unwrap();
            let mut targets = Vec::new();
            router.route(&record, arrival, &mut targets);
            targets
        };
        let leaf = |text: &str| Arrival::Leaf(name(text).node_id());
        let up = |text: &str| Arrival::Upstream(name(text).node_id());
        // From a leaf it goes up by itself; the rule adds the others, each once.
        assert_eq!(route("alarm", "one", leaf("one")), ["above", "two"].map(name));
        assert_eq!(route("alarm", "three", leaf("two")), ["above", "one"].map(name));
        assert_eq!(route("alarm", "four", up("above")), ["one", "two"].map(name));
        assert_eq!(route("other", "four", up("above")), []);
    }
}
