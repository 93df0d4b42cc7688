//! Which queues a record goes to.

use core::ffi::{c_char, c_void};

use replcore_core::log::record::Record;
use replcore_core::queue::rules::{Destination, Place, Rule, RuleText, Rules, Source};
use replcore_core::stream::{Name, NodeId};

use super::check::{bytes, characters, reference, reference_mut, sized, slice, text};
use super::leaf::or;
use super::machine::{Memory, REPLCORE_NAME_BYTES, bytes_of_machine, part};
use super::replcore_status;
use super::status::status;

/// Says which queues a record goes to: rules, the registered leaves, the hubs above, and what the
/// poster asks for. Memory, threads and moving as for a machine; it has no orders.
///
/// What was posted here or came from a leaf goes to every hub above; what came from a hub above goes to
/// none. Nothing goes back to the node it came from, nor to the queue of its own origin.
pub struct replcore_dispatch {
    _opaque: [u8; 0],
}

struct Dispatch {
    own: Name,
    hub: bool,
    rules: Rules<&'static mut [Rule], &'static mut [Destination]>,
    leaves: List,
    upstreams: List,
}

/// Queues, by rising id.
struct List {
    places: &'static mut [Destination],
    len: usize,
}

impl List {
    fn as_slice(&self) -> &[Destination] {
        &self.places[..self.len]
    }

    fn add(&mut self, name: Name) -> Result<(), replcore_status> {
        let queue = Destination::new(name);
        let Err(at) = self.as_slice().binary_search_by_key(&queue.id, |known| known.id) else {
            return Ok(());
        };
        if self.len == self.places.len() {
            return Err(replcore_status::Full);
        }
        self.places.copy_within(at..self.len, at + 1);
        self.places[at] = queue;
        self.len += 1;
        Ok(())
    }

    fn remove(&mut self, name: Name) -> Result<(), replcore_status> {
        let found = self.as_slice().binary_search_by_key(&name.queue_id(), |known| known.id);
        let at = found.map_err(|_| replcore_status::End)?;
        self.places.copy_within(at + 1..self.len, at);
        self.len -= 1;
        Ok(())
    }
}

const DISPATCH: u64 = u64::from_le_bytes(*b"repldisp");

/// The record was posted at this node.
pub const REPLCORE_FROM_HERE: u32 = 0;
/// A leaf of this node sent it.
pub const REPLCORE_FROM_LEAF: u32 = 1;
/// A hub above this node sent it.
pub const REPLCORE_FROM_UPSTREAM: u32 = 2;

/// Most queues in one rule.
const RULE_TARGETS_MAX: usize = 32;

/// What a dispatch is told at its start. 0 means the default.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct replcore_dispatch_config {
    /// sizeof(replcore_dispatch_config).
    pub struct_size: u32,
    /// Rules, at most 65,535; default 16. About 84 bytes of memory each.
    pub rules_max: u32,
    /// Queues named in all rules together, at most 65,535; default 64. 72 bytes of memory each; so are
    /// the two that follow.
    pub targets_max: u32,
    /// Registered leaves, at most 1,000,000; default 64.
    pub leaves_max: u32,
    /// Hubs above, at most 1,000,000; default 4.
    pub upstreams_max: u32,
    /// 1: no hub, records go to the hubs above and nowhere else.
    pub without_leaves: u32,
    /// The node's name: nothing is queued for itself.
    pub name: *const c_char,
}

/// A queue that a record goes to.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct replcore_destination {
    /// Its id.
    pub queue: u64,
    /// Its name, with a zero byte behind it.
    pub name: [c_char; REPLCORE_NAME_BYTES],
}

/// Places for rules, targets, leaves and hubs above; and the own name.
type Sizes = ([usize; 4], Name);

/// # Safety
/// The name is NULL or ends in a zero byte.
unsafe fn sizes(given: &replcore_dispatch_config) -> Result<Sizes, replcore_status> {
    let (rules, targets) = (or(given.rules_max, 16), or(given.targets_max, 64));
    let (leaves, upstreams) = (or(given.leaves_max, 64), or(given.upstreams_max, 4));
    let too_many = rules.max(targets) > 65_535 || leaves.max(upstreams) > 1_000_000;
    if too_many || given.without_leaves > 1 {
        return Err(replcore_status::Value);
    }
    // SAFETY: as the caller promises.
    let name = Name::new(unsafe { text(given.name) }?).map_err(|_| replcore_status::Name)?;
    Ok(([rules, targets, leaves, upstreams].map(|count| count as usize), name))
}

/// The dispatch behind a pointer of the program.
///
/// # Safety
/// As for [`part`].
unsafe fn dispatch<'a>(made: *mut replcore_dispatch) -> Result<&'a mut Dispatch, replcore_status> {
    // SAFETY: as the caller promises; dispatches alone are placed with this magic.
    unsafe { part(made.cast(), DISPATCH) }
}

/// Bytes that a dispatch of this configuration needs, wherever they begin; 0 for one that
/// replcore_dispatch_init refuses.
///
/// # Safety
/// `config` and the name in it are readable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn replcore_dispatch_memory(
    config: *const replcore_dispatch_config,
) -> usize {
    // SAFETY: as the caller promises; so is the next.
    let Ok(given) = (unsafe { sized(config) }) else {
        return 0;
    };
    // SAFETY: see above.
    let Ok(([rules, targets, leaves, upstreams], _)) = (unsafe { sizes(&given) }) else {
        return 0;
    };
    Memory::bytes_of::<Rule>(rules)
        .saturating_add(Memory::bytes_of::<Destination>(targets))
        .saturating_add(Memory::bytes_of::<Destination>(leaves))
        .saturating_add(Memory::bytes_of::<Destination>(upstreams))
        .saturating_add(bytes_of_machine::<Dispatch>())
}

/// Makes a dispatch in `memory`, without rules, leaves and hubs above; `*made` gets it.
///
/// # Safety
/// `memory` has `len` bytes that nothing else uses while the dispatch is used; `config` and the name in
/// it are readable; `made` is writable and not inside `memory`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn replcore_dispatch_init(
    memory: *mut c_void,
    len: usize,
    config: *const replcore_dispatch_config,
    made: *mut *mut replcore_dispatch,
) -> replcore_status {
    status((|| {
        // SAFETY: as the caller promises.
        let given: replcore_dispatch_config = unsafe { sized(config) }?;
        // SAFETY: as the caller promises.
        let made = unsafe { reference_mut(made) }?;
        // SAFETY: as the caller promises.
        let ([rules, targets, leaves, upstreams], own) = unsafe { sizes(&given) }?;
        let mut memory = Memory::new(memory, len)?;
        // SAFETY: the memory is the dispatch's alone as long as it is used.
        let dispatch = unsafe {
            let rules = memory.slice(rules, Rule::FREE)?;
            let rules = Rules::new(rules, memory.slice(targets, Destination::FREE)?);
            let leaves = List { places: memory.slice(leaves, Destination::FREE)?, len: 0 };
            let upstreams = List { places: memory.slice(upstreams, Destination::FREE)?, len: 0 };
            Dispatch { own, hub: given.without_leaves == 0, rules, leaves, upstreams }
        };
        *made = memory.place(DISPATCH, dispatch)?.cast();
        Ok(())
    })())
}

/// Adds a rule. It is for messages of `message_type`: exactly, with a trailing `*` by what they begin
/// with, and for all when it is NULL; and for those of the node `origin`, or of all when that is NULL.
/// They go to the `to_count` queues `to`, 1 to 32, among which `*` is every registered leaf. To replace
/// all rules, make a second dispatch and go over to it, or clear and add.
///
/// FULL, TEXT for a type of more than 63 bytes or with a `*` before its end, NAME, VALUE without queues.
///
/// # Safety
/// `made` is a dispatch, `to` has `to_count` texts; all texts end in a zero byte.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn replcore_dispatch_add_rule(
    made: *mut replcore_dispatch,
    message_type: *const c_char,
    origin: *const c_char,
    to: *const *const c_char,
    to_count: u32,
) -> replcore_status {
    status((|| {
        // SAFETY: as the caller promises; so are the two that follow.
        let (dispatch, message_type) = unsafe { (dispatch(made)?, text(message_type)?) };
        // SAFETY: see above.
        let (origin, to) =
            unsafe { (text(origin)?, slice(to, to_count, RULE_TARGETS_MAX as u32)?) };
        let mut queues = [""; RULE_TARGETS_MAX];
        for (place, &queue) in queues.iter_mut().zip(to) {
            // SAFETY: see above.
            *place = unsafe { text(queue) }?;
        }
        let to = &queues[..to.len()];
        Ok(dispatch.rules.add(&RuleText { message_type, origin, to })?)
    })())
}

/// Removes all rules; leaves and hubs above stay.
///
/// # Safety
/// `made` is a dispatch.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn replcore_dispatch_clear_rules(
    made: *mut replcore_dispatch,
) -> replcore_status {
    status((|| {
        // SAFETY: as the caller promises.
        unsafe { dispatch(made) }?.rules.clear();
        Ok(())
    })())
}

/// The leaf of this name is registered (`is_there` 1), which it may be already, or forgotten (0). FULL,
/// END for one to be forgotten that is not there.
///
/// # Safety
/// `made` is a dispatch, `name` ends in a zero byte.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn replcore_dispatch_set_leaf(
    made: *mut replcore_dispatch,
    name: *const c_char,
    is_there: u32,
) -> replcore_status {
    status((|| {
        // SAFETY: as the caller promises.
        let (dispatch, name) = unsafe { (dispatch(made)?, text(name)?) };
        let name = Name::new(name).map_err(|_| replcore_status::Name)?;
        match is_there {
            0 => dispatch.leaves.remove(name),
            1 => dispatch.leaves.add(name),
            _ => Err(replcore_status::Value),
        }
    })())
}

/// There is a hub above that reads the own queue of this name. FULL.
///
/// # Safety
/// `made` is a dispatch, `queue` ends in a zero byte.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn replcore_dispatch_add_upstream(
    made: *mut replcore_dispatch,
    queue: *const c_char,
) -> replcore_status {
    status((|| {
        // SAFETY: as the caller promises.
        let (dispatch, queue) = unsafe { (dispatch(made)?, text(queue)?) };
        dispatch.upstreams.add(Name::new(queue).map_err(|_| replcore_status::Name)?)
    })())
}

/// Writes the queues that the record in `data` goes to, each once, to `out`; `*count` gets how many.
/// `from` is one of REPLCORE_FROM_*, `peer` the id of the node that sent it, 0 for HERE. After SHORT
/// `*count` says how many places `out` needs.
///
/// # Safety
/// `made` is a dispatch, `data` has `len` bytes, `out` has `cap` places, `count` is writable; they do
/// not overlap.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn replcore_dispatch_record(
    made: *mut replcore_dispatch,
    from: u32,
    peer: u64,
    data: *const u8,
    len: usize,
    out: *mut replcore_destination,
    cap: usize,
    count: *mut usize,
) -> replcore_status {
    status((|| {
        // SAFETY: as the caller promises; so is the next.
        let (dispatch, data) = unsafe { (dispatch(made)?, bytes(data, len)?) };
        // SAFETY: see above.
        let count = unsafe { reference_mut(count) }?;
        if cap > 0 {
            // SAFETY: as the caller promises.
            unsafe { reference(out) }?;
        }
        let source = match from {
            REPLCORE_FROM_HERE => Source::Local,
            REPLCORE_FROM_LEAF => Source::Leaf(NodeId(peer)),
            REPLCORE_FROM_UPSTREAM => Source::Upstream(NodeId(peer)),
            _ => return Err(replcore_status::Value),
        };
        let place = Place {
            own: dispatch.own.queue_id(),
            hub: dispatch.hub,
            leaves: dispatch.leaves.as_slice(),
            upstreams: dispatch.upstreams.as_slice(),
        };
        let mut found = 0;
        dispatch.rules.dispatch(&Record::parse(data)?, source, &place, |queue| {
            if found < cap {
                let name = characters(queue.name.as_str());
                // SAFETY: inside the places that the caller promises, aligned as was checked.
                unsafe { out.add(found).write(replcore_destination { queue: queue.id.0, name }) };
            }
            found += 1;
        });
        *count = found;
        if found > cap { Err(replcore_status::Short) } else { Ok(()) }
    })())
}

#[cfg(test)]
mod tests {
    use core::ptr::{null, null_mut};
    use std::ffi::CStr;

    use super::super::*;
    use super::*;

    fn make(memory: &mut Vec<u8>) -> *mut replcore_dispatch {
        let config = replcore_dispatch_config {
            struct_size: size_of::<replcore_dispatch_config>() as u32,
            rules_max: 2,
            targets_max: 2,
            leaves_max: 2,
            upstreams_max: 1,
            without_leaves: 0,
            name: c"hub".as_ptr(),
        };
        let mut made = null_mut();
        // SAFETY: the pointers are of live values and the length is that of the memory.
        unsafe {
            memory.resize(replcore_dispatch_memory(&config), 0);
            let place = memory.as_mut_ptr().cast();
            let short = replcore_dispatch_init(place, memory.len() / 2, &config, &mut made);
            assert_eq!(short, replcore_status::Short);
            let done = replcore_dispatch_init(place, memory.len(), &config, &mut made);
            assert_eq!(done, replcore_status::Ok);
        }
        made
    }

    fn add_rule(made: *mut replcore_dispatch, of_type: &CStr, to: &CStr) -> replcore_status {
        let to = [to.as_ptr()];
        // SAFETY: the dispatch was made by the test, the texts are live.
        unsafe { replcore_dispatch_add_rule(made, of_type.as_ptr(), null(), to.as_ptr(), 1) }
    }

    /// A record of that type, posted at "a".
    fn record(of_type: &CStr) -> Vec<u8> {
        // SAFETY: zeros are a value of a structure of integers and pointers.
        let mut message: replcore_message = unsafe { core::mem::zeroed() };
        message.struct_size = size_of::<replcore_message>() as u32;
        message.message_type = of_type.as_ptr();
        let origin = Name::new("a").unwrap().node_id().0;
        let id = replcore_record_id { origin, seq: 1, epoch: 1, message_class: 2 };
        let (mut out, mut written) = (vec![0; 512], 0);
        // SAFETY: all are live values.
        let done = unsafe {
            replcore_record_encode(&message, &id, 0, out.as_mut_ptr(), out.len(), &mut written)
        };
        assert_eq!(done, replcore_status::Ok);
        out.truncate(written);
        out
    }

    fn queues(made: *mut replcore_dispatch, from: u32, record: &[u8], cap: usize) -> Vec<String> {
        let (mut out, mut count) = (Vec::<replcore_destination>::with_capacity(cap), 0);
        // SAFETY: the dispatch was made by the test, the others are live and as long as is said.
        let done = unsafe {
            let (data, places) = (record.as_ptr(), out.as_mut_ptr());
            let a = Name::new("a").unwrap().node_id().0;
            replcore_dispatch_record(made, from, a, data, record.len(), places, cap, &mut count)
        };
        let expected = if count > cap { replcore_status::Short } else { replcore_status::Ok };
        assert_eq!(done, expected);
        // SAFETY: so many were written.
        unsafe { out.set_len(count.min(cap)) };
        let name = |queue: &replcore_destination| {
            // SAFETY: there is a zero byte behind it.
            unsafe { CStr::from_ptr(queue.name.as_ptr()) }.to_str().unwrap().to_owned()
        };
        let mut names: Vec<String> = out.iter().map(name).collect();
        names.sort();
        names
    }

    /// HS-16 to HS-20.
    #[test]
    fn records_go_where_rules_leaves_and_hubs_above_say() {
        let mut memory = Vec::new();
        let made = make(&mut memory);
        assert_eq!(add_rule(made, c"price*", c"*"), replcore_status::Ok);
        assert_eq!(add_rule(made, c"price.new", c"audit"), replcore_status::Ok);
        assert_eq!(add_rule(made, c"", c"x"), replcore_status::Full);
        // SAFETY: the dispatch was made above, the texts are live.
        let set =
            |name: &CStr, there| unsafe { replcore_dispatch_set_leaf(made, name.as_ptr(), there) };
        for leaf in [c"b", c"a", c"a"] {
            assert_eq!(set(leaf, 1), replcore_status::Ok);
        }
        assert_eq!(set(c"d", 1), replcore_status::Full);
        assert_eq!(set(c"d", 0), replcore_status::End);
        // SAFETY: as above.
        let up = unsafe { replcore_dispatch_add_upstream(made, c"up".as_ptr()) };
        assert_eq!(up, replcore_status::Ok);

        let (price, sale) = (record(c"price.new"), record(c"sale"));
        assert_eq!(queues(made, REPLCORE_FROM_LEAF, &price, 4), ["audit", "b", "up"]);
        assert_eq!(queues(made, REPLCORE_FROM_UPSTREAM, &price, 4), ["audit", "b"]);
        assert_eq!(queues(made, REPLCORE_FROM_LEAF, &sale, 4), ["up"]);
        assert_eq!(queues(made, REPLCORE_FROM_LEAF, &price, 1), ["up"], "as far as there is room");

        assert_eq!(set(c"b", 0), replcore_status::Ok);
        assert_eq!(queues(made, REPLCORE_FROM_LEAF, &price, 4), ["audit", "up"]);
        // SAFETY: the dispatch was made above.
        unsafe { replcore_dispatch_clear_rules(made) };
        assert_eq!(queues(made, REPLCORE_FROM_LEAF, &price, 4), ["up"]);
    }

    #[test]
    fn rules_that_are_not_sound_and_foreign_pointers_are_refused() {
        let mut memory = Vec::new();
        let made = make(&mut memory);
        assert_eq!(add_rule(made, c"a*b", c"q"), replcore_status::Text);
        assert_eq!(add_rule(made, c"a", c"not a name"), replcore_status::Name);
        // SAFETY: the dispatch was made above; what is no dispatch is enough readable memory.
        unsafe {
            let none = replcore_dispatch_add_rule(made, null(), null(), null(), 0);
            assert_eq!(none, replcore_status::Value);
            let many = replcore_dispatch_add_rule(made, null(), null(), null(), 33);
            assert_eq!(many, replcore_status::Length);
            assert_eq!(replcore_dispatch_clear_rules(null_mut()), replcore_status::Null);
            let mut words = [0u64; 64];
            let foreign = words.as_mut_ptr().cast();
            assert_eq!(replcore_dispatch_clear_rules(foreign), replcore_status::Kind);
            assert_eq!(replcore_handle_timeout(made.cast(), 0), replcore_status::Kind);
        }
    }
}
