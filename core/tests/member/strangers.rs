//! What comes from those who do not belong, or is no frame at all.

use crate::world::{World, encoded, id, leaked, name};
use replcore::contract::{DialIndex, Input, LinkId, Machine, Output, Transport};
use replcore::member::{Member, MemberConfig, MemberEvent};
use replcore::rng::Rng;
use replcore::stream::{Address, NodeId};
use replcore::time::Instant;
use replcore::wire::{
    self, Cluster, ConfigurationId, Control, Frame, Heartbeat, Hello, MemberRole, Progress,
    Refusal, RefuseReason, Role, VoteRequest, Wish,
};

/// A member of three, alone with its links, in the hands of a test.
struct Lone {
    member: Member<'static>,
    now: Instant,
    said: Vec<Vec<u8>>,
    events: Vec<MemberEvent>,
    hung_up: Vec<LinkId>,
}

impl Lone {
    fn new(edit: impl FnOnce(&mut MemberConfig)) -> Self {
        let mut config = MemberConfig::new(name("n0"), name("cluster"), 1, 1);
        config.address = Address::new("n0:1").ok();
        edit(&mut config);
        let mut member = Member::new(config, leaked(4, config.election.is_some())).unwrap();
        for peer in ["n1", "n2"] {
            let address = Address::new(&format!("{peer}:1")).ok();
            member.add_known_peer(name(peer), address, None, true).unwrap();
        }
        let now = Instant::from_millis(1_000);
        let mut lone = Self { member, now, said: vec![], events: vec![], hung_up: vec![] };
        lone.input(Input::Timeout);
        lone
    }

    fn input(&mut self, input: Input<'_>) {
        self.member.handle(self.now, input);
        for _ in 0..1_000 {
            let mut buf = [0; wire::CONTROL_FRAME_BYTES_MAX];
            let input = match self.member.poll(&mut buf) {
                Output::Idle { .. } => return,
                Output::Send { link, len } => {
                    self.said.push(buf[..len].to_vec());
                    Input::Writable { link, bytes: len as u32 }
                }
                Output::Persist { token, .. } => Input::Persisted { token },
                Output::Event { event, .. } => {
                    self.events.push(event);
                    continue;
                }
                Output::Hangup { link } => {
                    self.hung_up.push(link);
                    Input::LinkDown { link }
                }
                _ => continue,
            };
            self.member.handle(self.now, input);
        }
        panic!("a drain does not end");
    }

    fn up(&mut self, link: u32, identity: Option<NodeId>) -> LinkId {
        let link = LinkId(link);
        let transport = Transport::Stream;
        self.input(Input::LinkUp { link, dialed: None, transport, identity });
        self.input(Input::Writable { link, bytes: 10_000 });
        link
    }

    fn hear(&mut self, link: LinkId, control: &Control<'_>) {
        self.input(Input::Recv { link, data: &encoded(control) });
    }

    fn greet(&mut self, link: LinkId, own: &str, cluster: &str, wish: Wish) {
        self.hear(link, &Control::Hello(hello(own, Role::Member)));
        self.hear(link, &Control::Cluster(Cluster { cluster, wish }));
    }

    fn refused(&self) -> Option<RefuseReason> {
        self.said.iter().find_map(|bytes| match said(bytes) {
            Control::Refuse(refuse) => Some(refuse.reason),
            _ => None,
        })
    }
}

fn said(bytes: &[u8]) -> Control<'_> {
    match wire::decode(bytes, 4_096) {
        Ok(Some((Frame::Control { control, .. }, _))) => control,
        other => panic!("{other:?}"),
    }
}

fn hello(own: &str, role: Role) -> Hello<'_> {
    Hello {
        magic: *b"RPLC",
        version_min: 1,
        version_max: 1,
        role,
        features: 0,
        name: own.into(),
        instance: 7,
        epoch: 0,
        frame_bytes_max: 512,
        keepalive_ms: 500,
        session: 1,
    }
}

/// The configuration that the three of a list make.
fn first() -> ConfigurationId {
    Lone::new(|_| {}).member.election().unwrap().configuration()
}

fn heartbeat(term: u64) -> Control<'static> {
    let configuration = first();
    Control::Heartbeat(Heartbeat { term, sent_us: 1, configuration, registry: 0 })
}

/// QC-23: counted, refused, and nothing else.
#[test]
fn strangers_are_counted_and_ignored() {
    let cases = [
        ("n1", "another", None, RefuseReason::Cluster),
        ("n9", "cluster", None, RefuseReason::Stranger),
        ("n1", "cluster", Some(id("n2")), RefuseReason::Identity),
        ("n0", "cluster", None, RefuseReason::NameInUse),
        ("a b", "cluster", None, RefuseReason::Name),
    ];
    for (own, cluster, identity, reason) in cases {
        let mut lone = Lone::new(|_| {});
        let link = lone.up(0, identity);
        lone.greet(link, own, cluster, Wish::Stay);
        lone.hear(link, &heartbeat(9));
        assert_eq!(lone.refused(), Some(reason), "{own} of {cluster}");
        assert_eq!(lone.hung_up, [link]);
        assert_eq!((lone.member.term(), lone.member.leader()), (0, None));
        let stats = lone.member.stats();
        let counted = match reason {
            RefuseReason::Cluster => stats.wrong_cluster,
            RefuseReason::Stranger => stats.strangers,
            RefuseReason::Identity => stats.wrong_identity,
            _ => 1,
        };
        assert_eq!(counted, 1);
    }
}

/// QC-23: who is known and no member of the configuration has no say.
#[test]
fn what_a_non_member_says_of_leaders_is_counted_and_ignored() {
    let mut lone = Lone::new(|_| {});
    let link = lone.up(0, None);
    lone.greet(link, "n9", "cluster", Wish::Voter);
    assert_eq!(lone.refused(), None, "it may wish to be a member");
    lone.hear(link, &heartbeat(9));
    let request = VoteRequest {
        term: 10,
        campaign: 1,
        pre: false,
        handed_over: true,
        configuration: ConfigurationId { term: 9, version: 9 },
        progress: Progress::default(),
    };
    lone.hear(link, &Control::VoteRequest(request));
    lone.hear(link, &Control::HandOver(10));
    let members = [[1; 8].as_slice(), &[1]].concat();
    let configuration = ConfigurationId { term: 9, version: 9 };
    lone.hear(link, &Control::Members(wire::Members { configuration, members: &members }));
    assert_eq!((lone.member.term(), lone.member.leader()), (0, None));
    assert_eq!(lone.member.stats().election.strangers, 4);
    assert_eq!(lone.member.election().unwrap().configuration(), first());
}

/// A term too far ahead to be true, also from a member.
#[test]
fn a_term_far_in_the_future_is_counted_and_not_believed() {
    let mut lone = Lone::new(|_| {});
    let link = lone.up(0, None);
    lone.greet(link, "n1", "cluster", Wish::Stay);
    lone.hear(link, &heartbeat(u64::MAX));
    lone.hear(link, &heartbeat((1 << 32) + 1));
    assert_eq!((lone.member.term(), lone.member.leader()), (0, None));
    assert_eq!(lone.member.stats().election.implausible, 2);
    lone.hear(link, &heartbeat(3));
    assert_eq!(lone.member.leader().map(|leader| leader.term), Some(3));
}

/// QC-25, QC-12: success, or failure with the reason and the term.
#[test]
fn a_heartbeat_is_accepted_or_refused_with_a_reason() {
    let mut lone = Lone::new(|_| {});
    let (one, two) = (lone.up(0, None), lone.up(1, None));
    lone.greet(one, "n1", "cluster", Wish::Stay);
    lone.greet(two, "n2", "cluster", Wish::Stay);
    let mut answer = |link, term| {
        lone.said.clear();
        lone.hear(link, &heartbeat(term));
        let answer = lone.said.iter().find_map(|bytes| match said(bytes) {
            Control::HeartbeatAnswer(answer) => Some((answer.term, answer.refusal)),
            _ => None,
        });
        answer.unwrap()
    };
    assert_eq!(answer(one, 5), (5, None));
    assert_eq!(answer(two, 4), (5, Some(Refusal::Term)));
    assert_eq!(answer(two, 5), (5, Some(Refusal::Taken)), "one leads in a term");
    assert_eq!(answer(two, 6), (6, None));
    assert_eq!(lone.member.stats().election.conflicts, 1);
    let refused = lone.member.stats().election.heartbeats_refused;
    assert_eq!(refused, 2);
}

/// QC-07: also in a term that was learnt from a heartbeat.
#[test]
fn a_node_that_has_a_leader_votes_for_nobody_in_its_term() {
    let mut lone = Lone::new(|_| {});
    let (one, two) = (lone.up(0, None), lone.up(1, None));
    lone.greet(one, "n1", "cluster", Wish::Stay);
    lone.greet(two, "n2", "cluster", Wish::Stay);
    lone.hear(one, &heartbeat(5));
    // Long after: nothing but the vote binds it.
    lone.now = lone.now.plus_millis(10_000);
    lone.said.clear();
    let request = VoteRequest {
        term: 5,
        campaign: 1,
        pre: false,
        handed_over: false,
        configuration: first(),
        progress: Progress::default(),
    };
    lone.hear(two, &Control::VoteRequest(request));
    let answers: Vec<Option<Refusal>> = lone
        .said
        .iter()
        .filter_map(|bytes| match said(bytes) {
            Control::VoteAnswer(answer) => Some(answer.refusal),
            _ => None,
        })
        .collect();
    assert_eq!(answers, [Some(Refusal::Taken)]);
}

/// QC-22: at once, with identity, state and term; QC-21: and who leads, or that nobody does.
#[test]
fn a_client_asks_who_leads() {
    let mut lone = Lone::new(|_| {});
    let client = lone.up(3, None);
    lone.hear(client, &Control::Hello(hello("tool", Role::Client)));
    let ask = |lone: &mut Lone, number| {
        lone.said.clear();
        lone.hear(client, &Control::Ask(number));
        lone.said[0].clone()
    };
    let bytes = ask(&mut lone, 1);
    let Control::Status(status) = said(&bytes) else {
        panic!("no status");
    };
    assert_eq!((status.number, status.role, status.leader), (1, MemberRole::Follower, ""));
    let one = lone.up(0, None);
    lone.greet(one, "n1", "cluster", Wish::Stay);
    lone.hear(one, &heartbeat(5));
    let bytes = ask(&mut lone, 2);
    let Control::Status(status) = said(&bytes) else {
        panic!("no status");
    };
    assert_eq!((status.term, status.leader, status.address), (5, "n1", "n1:1"));
    lone.said.clear();
    lone.hear(client, &Control::Ping(9));
    assert_eq!(said(&lone.said[0]), Control::Pong(9));
    // And nothing but ask.
    lone.hear(client, &heartbeat(7));
    assert_eq!((lone.hung_up.as_slice(), lone.member.term()), ([client].as_slice(), 5));
}

/// QC-24: any bytes, in any phase of a link.
#[test]
fn bytes_that_are_no_frames_cost_the_link_and_nothing_else() {
    let mut rng = Rng::new(5);
    for round in 0..400 {
        let mut lone = Lone::new(|config| config.seed = round);
        let link = lone.up(0, None);
        if round % 2 == 0 {
            lone.greet(link, "n1", "cluster", Wish::Stay);
        }
        let mut bytes: Vec<u8> = match round % 4 {
            0 => (0..300).map(|_| rng.next_u64() as u8).collect(),
            1 => encoded(&heartbeat(1)),
            2 => vec![0xff; 600],
            _ => encoded(&Control::Hello(hello("n1", Role::Member))),
        };
        let at = rng.between(0, bytes.len() as u64 - 1) as usize;
        bytes[at] ^= 1 << rng.between(0, 7);
        lone.input(Input::Recv { link, data: &bytes });
        assert!(lone.member.leader().is_none() || lone.hung_up.is_empty());
        let bad = lone.member.stats().link;
        let counted = bad.bad_length + bad.bad_checksum + bad.bad_type + bad.bad_payload;
        // A frame whose length has grown waits for more.
        assert!(counted <= 1);
    }
}

/// QC-24: well-formed frames that make no sense, from a member.
#[test]
fn any_order_of_frames_of_a_member_is_survived() {
    for seed in 0..60 {
        let mut world = World::new(3, 2_000 + seed);
        world.taping = true;
        world.elect();
        world.tell(0, |member, now| member.set_metadata(now, b"a")).unwrap();
        world.run_ms(1_500);
        world.taping = false;
        let mut rng = Rng::new(seed);
        for _ in 0..500 {
            let pick = rng.between(0, world.tape.len() as u64 - 1) as usize;
            let mut bytes = world.tape[pick].3.clone();
            // Hello again would rightly cost the link.
            if matches!(bytes[4], 1 | 2 | 13) {
                continue;
            }
            // A number of the payload is another one, and the checksum is right again.
            if bytes.len() > 14 && rng.between(0, 1) == 0 {
                let at = rng.between(12, bytes.len() as u64 - 1) as usize;
                bytes[at] = rng.next_u64() as u8 & 0x7f;
                reseal(&mut bytes);
            }
            let to = rng.between(0, 2) as usize;
            if let Some((link, _)) = world.links_of(to).first().copied() {
                world.inject(to, link, &bytes);
            }
            world.run_ms(rng.between(0, 10));
        }
    }
}

fn reseal(frame: &mut [u8]) {
    let covered = [&frame[..8], &frame[12..]].concat();
    let crc = replcore::log::crc32c(&covered);
    frame[8..12].copy_from_slice(&crc.to_le_bytes());
}

/// A peer of the file that is dialled and turns out to be another.
#[test]
fn a_dialled_peer_that_is_another_is_refused() {
    let mut lone = Lone::new(|_| {});
    let link = LinkId(0);
    let (dialed, transport) = (Some(DialIndex(0)), Transport::Stream);
    lone.input(Input::LinkUp { link, dialed, transport, identity: None });
    lone.input(Input::Writable { link, bytes: 10_000 });
    lone.hear(link, &Control::Hello(hello("n2", Role::Member)));
    assert_eq!(lone.refused(), Some(RefuseReason::Identity));
    assert_eq!(lone.hung_up, [link]);
    let refused = MemberEvent::Refused { node: id("n2"), reason: RefuseReason::Identity };
    assert!(lone.events.contains(&refused));
}
