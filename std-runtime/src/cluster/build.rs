//! From options to a machine, a folder and a reactor.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant as StdInstant;

use replcore::contract::{LinkId, Machine as _};
use replcore::election::{ElectionSlot, Membership};
use replcore::member::{Member, MemberConfig, MemberLink, MemberMemory};
use replcore::registry::{PEERS_MAX, PeerSlot};
use replcore::rng::Rng;
use replcore::stream::{Address as ShortText, Epoch};
use replcore::time::Instant;
use replcore::wire::Role;
use tokio::sync::mpsc;

use super::config::{encode_metadata, join_host_port};
use super::host::{Host, KEYS, MemberReactor};
use super::options::{ClusterOptions, Profile};
use super::shared::Shared;
use super::state::{Owner, StateFolder};
use super::writer::{Writer, Written};
use crate::client::ClientStore;
use crate::driver::{Reactor, ReactorConfig, entropy};
use crate::engine::{Engine, EngineConfig, Router, Ways};
use crate::options::Address;
use crate::store::Identity;
use crate::tls::Tls;

/// Links that are open at once: to each peer one that this member dials and one that the other
/// does, and programs.
fn links_max(options: &ClusterOptions) -> u32 {
    PEERS_MAX as u32 + accepted_max(options)
}

/// Connections that others may open.
pub(super) fn accepted_max(options: &ClusterOptions) -> u32 {
    PEERS_MAX as u32 + options.programs_max
}

/// Opens the folder and puts the parts together. `listening` is where the member listens.
///
/// # Errors
/// One line that names what is wrong.
pub(super) fn host(
    options: ClusterOptions,
    shared: &Arc<Shared>,
    listening: &Address,
) -> Result<(Rc<Host>, mpsc::Receiver<Written>), String> {
    let tls = options.tls.clone().map(Tls::load).transpose();
    let tls = tls.map_err(|error| error.to_string())?;
    if let Some(tls) = &tls
        && tls.name() != options.name
    {
        return Err(format!(
            "the certificate is for {}, but this member is {}; use the certificate of {}",
            tls.name(),
            options.name,
            options.name
        ));
    }
    let mut rng = Rng::new(entropy());
    let owner = Owner { cluster: options.cluster, name: options.name };
    let mut state = StateFolder::open(&options.folder, owner, rng.next_u64())?;
    let advertised = advertised(&options, listening)?;
    let instance = state.instance;
    let mut member = member(&options, &advertised, instance, &mut rng)?;
    let in_folder = |error: String| format!("data folder {}: {error}", options.folder.display());
    let mut known = false;
    for key in KEYS {
        let Some(record) = state.read(key).map_err(in_folder)? else { continue };
        known = true;
        if !options.masterless {
            member.restore(key, &record).map_err(|error| {
                in_folder(format!("what is stored as {key:?} is not taken ({error:?})"))
            })?;
        }
    }
    let (writer, written) = Writer::start(state, options.stall_file.clone())?;
    let reactor = reactor(&options, member, instance);
    let of_reactor = (Arc::clone(shared), reactor.start_us());
    reactor.observe(move |engine| {
        let member = engine.machine();
        let until = member.leader_until();
        let until_us = until.map_or(0, |until| of_reactor.1.saturating_add(until.as_micros()));
        of_reactor.0.lease.publish(member.term(), until_us);
    });
    let host = Rc::new(Host {
        reactor,
        shared: Arc::clone(shared),
        tls,
        start: StdInstant::now(),
        writer: RefCell::new(Some(writer)),
        connections: Cell::new(0),
        calls_at_work: Cell::new(0),
        waits: Cell::new(0),
        stopping: Cell::new(false),
        joins: !options.join.is_empty() && !known,
        options,
    });
    Ok((host, written))
}

/// Where the others reach it: as it was told, or its own host name where it listens everywhere.
fn advertised(options: &ClusterOptions, listening: &Address) -> Result<String, String> {
    if !options.advertise.is_empty() {
        return Ok(options.advertise.clone());
    }
    let (Address::Tcp(wanted), Address::Tcp(bound)) = (&options.listen, listening) else {
        return Err(format!(
            "listens on {listening}, where no other machine reaches it; say where with advertise"
        ));
    };
    let host = wanted.rsplit_once(':').map_or(wanted.as_str(), |(host, _)| host);
    let port = bound.rsplit_once(':').and_then(|(_, port)| port.parse().ok()).unwrap_or(0);
    let everywhere = matches!(host, "0.0.0.0" | "[::]" | "*");
    let address = match everywhere {
        true => {
            let name = rustix::system::uname();
            join_host_port(&name.nodename().to_string_lossy(), port)
        }
        false => format!("{host}:{port}"),
    };
    match ShortText::new(&address) {
        Ok(_) => Ok(address),
        Err(error) => Err(format!("address `{address}`: {error}; give a shorter one by advertise")),
    }
}

fn member(
    options: &ClusterOptions,
    advertised: &str,
    instance: u64,
    rng: &mut Rng,
) -> Result<Member<'static>, String> {
    let mut config = MemberConfig::new(options.name, options.cluster, instance, rng.next_u64());
    config = match options.profile {
        Profile::Lan => config,
        Profile::Wan => config.wan(),
        Profile::Battery => config.battery(),
    };
    config.election = (!options.masterless).then_some(options.election);
    config.membership = match (options.join.is_empty(), options.voter) {
        (false, _) => Membership::None,
        (true, true) => Membership::Voter,
        (true, false) => Membership::Learner,
    };
    config.address = ShortText::new(advertised).ok();
    config.priority = options.priority;
    config.handshake_ms = options.handshake.as_millis() as u32;
    let memory = MemberMemory {
        peers: leak(PeerSlot::FREE, PEERS_MAX),
        links: leak(MemberLink::FREE, links_max(options) as usize),
        members: leak(ElectionSlot::FREE, if options.masterless { 0 } else { PEERS_MAX }),
    };
    let mut member = Member::new(config, memory).map_err(|error| error.to_string())?;
    for peer in &options.peers {
        let address = ShortText::new(&peer.address.to_string())
            .map_err(|error| format!("peer {}: address `{}`: {error}", peer.name, peer.address))?;
        let metadata = match peer.metadata.is_empty() {
            true => None,
            false => Some(encode_metadata(&peer.metadata)?),
        };
        member
            .add_known_peer(peer.name, Some(address), metadata.as_deref(), peer.voter)
            .map_err(|error| format!("peer {}: {error}", peer.name))?;
    }
    if let Some(metadata) = &options.metadata {
        let metadata = encode_metadata(metadata)?;
        member.set_metadata(Instant::ZERO, &metadata).map_err(|error| error.to_string())?;
    }
    Ok(member)
}

/// Memory for the life of the process: about 60 KiB for each start of a member.
fn leak<T: Clone>(value: T, count: usize) -> &'static mut [T] {
    Box::leak(vec![value; count].into_boxed_slice())
}

fn reactor(options: &ClusterOptions, member: Member<'static>, instance: u64) -> Rc<MemberReactor> {
    let config = EngineConfig {
        links_max: links_max(options),
        link_buffer_bytes: 64 << 10,
        frame_bytes_max: 64 << 10,
        calls_max: 64,
        call_bytes_max: 64 << 10,
        // There are no records: the store is only asked to hold nothing.
        maintain_ms: 60_000,
        persist_outside: true,
        ..EngineConfig::default()
    };
    let identity = Identity { name: options.name, instance, epoch: Epoch::default() };
    let store = ClientStore::new(identity, options.name.queue_id(), 0);
    let ways = Ways { follow: |_, _, _| {}, peer: peer_of };
    let router = Router::new(options.name, false, &[]);
    let (engine, _) = Engine::new(config, member, store, router, ways, Instant::ZERO);
    Reactor::new(
        ReactorConfig {
            links_max: config.links_max,
            frame_bytes_max: config.frame_bytes_max,
            write_stall: options.write_stall,
        },
        engine,
    )
}

fn peer_of(member: &Member<'static>, link: LinkId) -> Option<(Role, u32)> {
    member.link_peer(link).map(|(_, role)| (role, 0))
}
