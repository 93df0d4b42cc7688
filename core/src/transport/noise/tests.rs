use super::*;
use crate::stream::Name;
use std::format;
use std::vec::Vec;

fn key(number: u8) -> SecretKey {
    SecretKey::new([number; KEY_BYTES])
}

fn shared(name: &str, number: u8) -> Identity {
    Identity::Shared { name: Name::new(name).unwrap(), key: key(number) }
}

fn start(identity: &Identity) -> (Initiator, Vec<u8>) {
    let mut out = [0; HANDSHAKE_BYTES_MAX];
    let (initiator, bytes) = Initiator::start(identity, [77; KEY_BYTES], &mut out);
    (initiator, out[..bytes].to_vec())
}

/// What the hub makes of a start packet, with these keys.
fn answer(packet: &[u8], number: u8) -> Result<(Channel, Option<PublicKey>, Vec<u8>), Refused> {
    let mut out = [0; HANDSHAKE_BYTES_MAX];
    let start = Start::parse(packet)?;
    let (channel, who, bytes) = match start.name() {
        Some(_) => {
            let (channel, bytes) = start.answer_shared(&key(number), [88; KEY_BYTES], &mut out)?;
            (channel, None, bytes)
        }
        None => {
            let (channel, who, bytes) =
                start.answer_pinned(&key(number), [88; KEY_BYTES], &mut out)?;
            (channel, Some(who), bytes)
        }
    };
    Ok((channel, who, out[..bytes].to_vec()))
}

/// A leaf and a hub with the keys of a link.
fn pair() -> (Channel, Channel) {
    let (mut leaf, packet) = start(&shared("till-7", 1));
    let (hub, _, answered) = answer(&packet, 1).unwrap();
    (leaf.finish(&answered).unwrap(), hub)
}

fn sealed(channel: &mut Channel, frame: &[u8]) -> Vec<u8> {
    let mut packet = std::vec![0; frame.len() + OVERHEAD_BYTES];
    packet[HEAD_BYTES..][..frame.len()].copy_from_slice(frame);
    assert_eq!(channel.seal(&mut packet, frame.len()), Some(packet.len()));
    packet
}

fn opened(channel: &mut Channel, packet: &[u8]) -> Result<Vec<u8>, Refused> {
    let mut packet = packet.to_vec();
    channel.open(&mut packet).map(|frame| packet[frame].to_vec())
}

#[test]
fn frames_go_both_ways_with_either_kind_of_key() {
    let pinned = Identity::Pinned { own: key(3), hub: key(1).public() };
    for (identity, who) in [(shared("till-7", 1), None), (pinned, Some(key(3).public()))] {
        let (mut leaf, packet) = start(&identity);
        let (mut hub, shown, answered) = answer(&packet, 1).unwrap();
        assert_eq!(shown, who);
        let mut leaf = leaf.finish(&answered).unwrap();
        assert!(!hub.is_confirmed());
        for frame in [&b""[..], b"a frame", &[0; 1000]] {
            let packet = sealed(&mut leaf, frame);
            assert_eq!(opened(&mut hub, &packet).unwrap(), frame);
            let packet = sealed(&mut hub, frame);
            assert_eq!(opened(&mut leaf, &packet).unwrap(), frame);
            assert!(frame.len() < 7 || !packet.windows(frame.len()).any(|part| part == frame));
        }
        assert!(hub.is_confirmed());
    }
}

#[test]
fn another_key_at_either_end_is_refused() {
    let (_, packet) = start(&shared("till-7", 2));
    assert_eq!(answer(&packet, 1).unwrap_err(), Refused::Forged);
    let pinned = Identity::Pinned { own: key(3), hub: key(2).public() };
    let (_, packet) = start(&pinned);
    assert_eq!(answer(&packet, 1).unwrap_err(), Refused::Forged);
    // An answer of somebody who has not the key, or to another start packet.
    let (mut leaf, _) = start(&shared("till-7", 1));
    let (_, other) = start(&shared("till-8", 1));
    let (_, _, answered) = answer(&other, 1).unwrap();
    assert_eq!(leaf.finish(&answered).unwrap_err(), Refused::Forged);
}

#[test]
fn the_name_and_the_version_are_bound_to_the_key() {
    let (_, packet) = start(&shared("till-7", 1));
    let mut other = packet.clone();
    other[SHARED_NAME_END - 1] = b'8';
    assert_eq!(Start::parse(&other).unwrap().name().unwrap().as_str(), "till-8");
    assert_eq!(answer(&other, 1).unwrap_err(), Refused::Forged);
    other[1] = VERSION + 1;
    assert_eq!(answer(&other, 1).unwrap_err(), Refused::Malformed);
}

/// Where the name of `till-7` ends.
const SHARED_NAME_END: usize = 9;

#[test]
fn every_changed_or_missing_byte_of_a_handshake_is_refused() {
    for identity in [shared("till-7", 1), Identity::Pinned { own: key(3), hub: key(1).public() }] {
        let (_, packet) = start(&identity);
        let (_, _, answered) = answer(&packet, 1).unwrap();
        for at in 0..packet.len() {
            let mut changed = packet.clone();
            changed[at] ^= 1;
            assert!(answer(&changed, 1).is_err(), "byte {at}");
            assert!(answer(&packet[..at], 1).is_err(), "{at} bytes");
        }
        for at in 0..answered.len() {
            let (mut leaf, _) = start(&identity);
            let mut changed = answered.clone();
            changed[at] ^= 1;
            assert!(leaf.finish(&changed).is_err(), "byte {at}");
            assert_eq!(leaf.finish(&answered[..at]).unwrap_err(), Refused::Malformed);
        }
    }
}

#[test]
fn a_packet_that_comes_again_or_late_is_refused_and_counted_and_the_link_goes_on() {
    let (mut leaf, mut hub) = pair();
    let packets: Vec<_> = (0..5).map(|number| sealed(&mut leaf, &[number])).collect();
    assert_eq!(opened(&mut hub, &packets[0]), Ok([0].to_vec()));
    assert_eq!(opened(&mut hub, &packets[0]), Err(Refused::Replayed));
    // Lost ones are no fault.
    assert_eq!(opened(&mut hub, &packets[3]), Ok([3].to_vec()));
    assert_eq!(opened(&mut hub, &packets[2]), Err(Refused::Replayed));
    assert_eq!(hub.refused(), 2);
    assert_eq!(opened(&mut hub, &packets[4]), Ok([4].to_vec()));
    // Nor is what one end has sent taken by it, or by another link of the same keys.
    assert_eq!(opened(&mut leaf, &packets[4]), Err(Refused::Forged));
    let (_, start_again) = start(&shared("till-7", 1));
    let mut out = [0; HANDSHAKE_BYTES_MAX];
    let (mut next_link, _) = Start::parse(&start_again)
        .unwrap()
        .answer_shared(&key(1), [89; KEY_BYTES], &mut out)
        .unwrap();
    assert_eq!(opened(&mut next_link, &packets[4]), Err(Refused::Forged));
    assert!(!next_link.is_confirmed(), "a start packet that comes again shows nobody");
}

#[test]
fn every_changed_byte_of_a_packet_is_refused() {
    let (mut leaf, mut hub) = pair();
    let packet = sealed(&mut leaf, b"a frame");
    for at in 0..packet.len() {
        let mut changed = packet.clone();
        changed[at] ^= 0x80;
        assert!(opened(&mut hub, &changed).is_err(), "byte {at}");
        assert!(opened(&mut hub, &packet[..at]).is_err(), "{at} bytes");
    }
    assert_eq!(opened(&mut hub, &packet).unwrap(), b"a frame", "none of it cost the link");
}

#[test]
fn a_link_ends_before_a_counter_comes_twice() {
    let (mut leaf, mut hub) = pair();
    leaf.set_next(u64::from(u32::MAX));
    let last = sealed(&mut leaf, b"last");
    assert_eq!(opened(&mut hub, &last).unwrap(), b"last");
    let mut packet = *b"12345keep.and.a.tag.behind";
    assert_eq!(leaf.seal(&mut packet, 4), None);
    assert_eq!(&packet[HEAD_BYTES..][..4], b"keep");
    assert_eq!(opened(&mut hub, &last), Err(Refused::Replayed));
}

#[test]
fn no_key_is_shown() {
    let identity = Identity::Pinned { own: key(171), hub: key(1).public() };
    let (leaf, _) = start(&identity);
    let (mut channel, _) = pair();
    sealed(&mut channel, b"x");
    let shown = format!("{:?} {identity:?} {leaf:?} {channel:?}", shared("till-7", 171));
    assert!(!shown.contains("171") && !shown.to_lowercase().contains("abab"), "{shown}");
}
