//! Links without TLS, for devices: whose key is whose. What goes over the line is in
//! [`replcore::transport::noise`]; here are the keys of a node, in one file ([`keys`]).

pub(crate) mod keys;

use std::cell::{Cell, RefCell};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use replcore::stream::Name;
use replcore::transport::noise::{Channel, Identity, Start};

use self::keys::{Keys, hex, random};
use crate::reload::{self, changed_at};

/// The keys of a node. Cheap to clone; all clones see a reload.
#[derive(Clone, Debug)]
pub(crate) struct Noise {
    shared: Rc<Shared>,
}

#[derive(Debug)]
struct Shared {
    path: PathBuf,
    keys: RefCell<Keys>,
    /// When the file was last changed, as far as the file system tells.
    changed: Cell<Option<SystemTime>>,
    counters: NoiseCounters,
}

/// What was counted since the start.
#[derive(Debug, Default)]
pub(crate) struct NoiseCounters {
    /// Links that have shown that they have the keys.
    pub(crate) links: Cell<u64>,
    /// Start packets of keys that are not known, or do not fit.
    pub(crate) strangers: Cell<u64>,
    /// Packets that were replayed, changed, or of no link.
    pub(crate) packets_refused: Cell<u64>,
}

impl Noise {
    /// Reads the file of keys.
    ///
    /// # Errors
    /// One line that names the file at fault, and no key.
    pub(crate) fn load(path: &Path) -> Result<Self, String> {
        // Before the contents, so that a change in between is seen as one later.
        let changed = Cell::new(changed_at(path));
        let keys = RefCell::new(Keys::read(path)?);
        let counters = NoiseCounters::default();
        Ok(Self { shared: Rc::new(Shared { path: path.to_owned(), keys, changed, counters }) })
    }

    pub(crate) fn counters(&self) -> &NoiseCounters {
        &self.shared.counters
    }

    /// How this node shows the hub of that name who it is.
    ///
    /// # Errors
    /// There is no key for it.
    pub(crate) fn identity(&self, own: Name, hub: Name) -> Result<Identity, String> {
        let keys = self.shared.keys.borrow();
        if let Some(key) = keys.shared.get(&hub) {
            return Ok(Identity::Shared { name: own, key: key.clone() });
        }
        let at = self.shared.path.display();
        let public = keys.public.iter().find(|(_, name)| **name == hub);
        match (&keys.own, public) {
            (Some(own), Some((public, _))) => {
                Ok(Identity::Pinned { own: own.clone(), hub: *public })
            }
            (None, Some(_)) => Err(format!("{at} has no private key of this node")),
            (_, None) => {
                Err(format!("{at} has no key of {hub}; add `{hub} psk KEY` or `{hub} public KEY`"))
            }
        }
    }

    /// Answers a start packet, with the name that its key belongs to: writes the answer to `out`.
    ///
    /// # Errors
    /// Why not, in one line without a secret.
    pub(crate) fn answer(
        &self,
        start: &Start<'_>,
        out: &mut [u8],
    ) -> Result<(Channel, Name, usize), String> {
        let keys = self.shared.keys.borrow();
        let at = self.shared.path.display();
        let random = random()?;
        let Some(name) = start.name() else {
            let own = keys.own.as_ref().ok_or_else(|| {
                format!("a peer pins a public key, but {at} has no private key of this node")
            })?;
            let (channel, public, bytes) = start
                .answer_pinned(own, random, out)
                .map_err(|_| "a peer has pinned another public key than this node's".to_owned())?;
            return match keys.public.get(&public) {
                Some(name) => Ok((channel, *name, bytes)),
                None => Err(format!(
                    "no node has the public key {}; to let it in, add `NAME public KEY` to {at}",
                    hex(&public.0)
                )),
            };
        };
        let key = keys.shared.get(&name).ok_or_else(|| {
            format!("there is no psk of {name}; to let it in, add `{name} psk KEY` to {at}")
        })?;
        let (channel, bytes) = start.answer_shared(key, random, out).map_err(|_| {
            format!("{name} has another psk than the one in {at}; compare both ends")
        })?;
        Ok((channel, name, bytes))
    }

    /// Reads the file again if it has changed. Returns whether it was taken. Links that are open go on.
    ///
    /// # Errors
    /// The file is not good; what was loaded before stays in force.
    pub(crate) fn reload(&self) -> Result<bool, String> {
        let changed = changed_at(&self.shared.path);
        if changed == self.shared.changed.get() {
            return Ok(false);
        }
        let keys = Keys::read(&self.shared.path)?;
        *self.shared.keys.borrow_mut() = keys;
        self.shared.changed.set(changed);
        Ok(true)
    }

    /// Looks for a changed file every `period` and takes it, for as long as it is polled.
    pub(crate) async fn watch(self, period: Duration) {
        let tell = |reloaded: Result<(), &String>| match reloaded {
            Ok(()) => tracing::info!("the file of keys has changed and is in force"),
            Err(error) => tracing::error!("{error}; the keys of before stay in force"),
        };
        reload::watch(period, || self.reload(), tell).await;
    }
}
