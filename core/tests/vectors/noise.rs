//! Handshakes and packets of links without TLS.

use replcore::stream::Name;
use replcore::transport::noise::{
    Channel, HANDSHAKE_BYTES_MAX, HEAD_BYTES, Identity, Initiator, KEY_BYTES, Kind, OVERHEAD_BYTES,
    SecretKey, Start,
};

use crate::format::{Fields, Vector, check_file};

const LEAF_RANDOM: [u8; KEY_BYTES] = [0x11; KEY_BYTES];
const HUB_RANDOM: [u8; KEY_BYTES] = [0x22; KEY_BYTES];
const PSK: [u8; KEY_BYTES] = [0x33; KEY_BYTES];
const LEAF_KEY: [u8; KEY_BYTES] = [0x44; KEY_BYTES];
const HUB_KEY: [u8; KEY_BYTES] = [0x55; KEY_BYTES];

fn vector(name: &str, fields: Fields, bytes: &[u8]) -> Vector {
    Vector { name: name.into(), fields: fields.0, bytes: bytes.to_vec() }
}

fn packet(channel: &mut Channel, frame: &[u8]) -> Vec<u8> {
    let mut packet = vec![0; frame.len() + OVERHEAD_BYTES];
    packet[HEAD_BYTES..][..frame.len()].copy_from_slice(frame);
    channel.seal(&mut packet, frame.len()).unwrap();
    packet
}

/// The packets of a link whose handshake is begun with `identity`.
fn link(kind: &str, identity: &Identity, vectors: &mut Vec<Vector>) {
    let mut out = [0; HANDSHAKE_BYTES_MAX];
    let (mut initiator, bytes) = Initiator::start(identity, LEAF_RANDOM, &mut out);
    let start_bytes = out[..bytes].to_vec();
    let start = Start::parse(&start_bytes).unwrap();
    let mut fields = Fields::default();
    fields.number("kind", start_bytes[0]);
    if let Identity::Shared { name, key } = identity {
        fields.text("name", name.as_str());
        fields.hex("psk", key.as_bytes());
    }
    if let Identity::Pinned { own, hub } = identity {
        fields.hex("leaf_private", own.as_bytes());
        fields.hex("leaf_public", &own.public().0);
        fields.hex("hub_private", &HUB_KEY);
        fields.hex("hub_public", &hub.0);
    }
    fields.hex("leaf_ephemeral_private", &LEAF_RANDOM);
    vectors.push(vector(&format!("start, {kind}"), fields, &start_bytes));

    let mut out = [0; HANDSHAKE_BYTES_MAX];
    let (mut hub, bytes) = match identity {
        Identity::Shared { key, .. } => start.answer_shared(key, HUB_RANDOM, &mut out).unwrap(),
        Identity::Pinned { own, .. } => {
            let hub = SecretKey::new(HUB_KEY);
            let (channel, shown, bytes) = start.answer_pinned(&hub, HUB_RANDOM, &mut out).unwrap();
            assert_eq!(shown, own.public());
            (channel, bytes)
        }
    };
    let mut fields = Fields::default();
    fields.number("kind", out[0]);
    fields.hex("hub_ephemeral_private", &HUB_RANDOM);
    vectors.push(vector(&format!("answer, {kind}"), fields, &out[..bytes]));

    let mut leaf = initiator.finish(&out[..bytes]).unwrap();
    let frame: Vec<u8> = (0..20).collect();
    for counter in 0..2u8 {
        for (end, channel) in [("leaf", &mut leaf), ("hub", &mut hub)] {
            let bytes = packet(channel, &frame);
            let mut fields = Fields::default();
            fields.number("kind", bytes[0]);
            fields.number("counter", counter);
            fields.hex("frame", &frame);
            vectors.push(vector(&format!("frame {counter} of the {end}, {kind}"), fields, &bytes));
        }
    }
}

#[test]
fn handshakes_and_packets_of_links_without_tls_are_as_their_vectors() {
    let mut vectors = Vec::new();
    let name = Name::new("till-7").unwrap();
    let shared = Identity::Shared { name, key: SecretKey::new(PSK) };
    link("shared key", &shared, &mut vectors);
    let hub = SecretKey::new(HUB_KEY).public();
    let pinned = Identity::Pinned { own: SecretKey::new(LEAF_KEY), hub };
    link("pinned key", &pinned, &mut vectors);
    let mut fields = Fields::default();
    fields.number("kind", Kind::Unknown.byte());
    vectors.push(vector("unknown", fields, &[Kind::Unknown.byte()]));
    let head = "Packets of links without TLS, before COBS: a link of each kind, in the order in which its\n\
                packets are sent.";
    check_file("noise.txt", head, &vectors);
}
