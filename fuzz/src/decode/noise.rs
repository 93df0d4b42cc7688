//! Links without TLS: bytes from outside as packets, and packets that are changed, repeated, held back and
//! left out. What is taken was sent, once, in order.

use replcore::stream::Name;
use replcore::transport::noise::{
    Channel, HANDSHAKE_BYTES_MAX, HEAD_BYTES, Identity, Initiator, OVERHEAD_BYTES, Responder,
    SecretKey, Took,
};

struct Ends {
    leaf: Channel,
    hub: Responder,
    start: Vec<u8>,
}

/// A hub that has the key and answers whoever has it.
fn answer(hub: &mut Responder, packet: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = packet.to_vec();
    let Took::Start(start) = hub.take(&mut bytes) else { return None };
    let (mut out, key) = ([0; HANDSHAKE_BYTES_MAX], SecretKey::new([1; 32]));
    let (channel, length) = match start.name() {
        Some(_) => start.answer_shared(&key, [3; 32], &mut out).ok()?,
        None => {
            let (channel, _, length) = start.answer_pinned(&key, [3; 32], &mut out).ok()?;
            (channel, length)
        }
    };
    hub.answered(&start, channel);
    Some(out[..length].to_vec())
}

impl Ends {
    fn new(pinned: bool) -> Self {
        let (mut hub, mut out) = (Responder::default(), [0; HANDSHAKE_BYTES_MAX]);
        let identity = match pinned {
            true => Identity::Pinned {
                own: SecretKey::new([4; 32]),
                hub: SecretKey::new([1; 32]).public(),
            },
            false => Identity::Shared {
                name: Name::new("till-7").expect("a name"),
                key: SecretKey::new([1; 32]),
            },
        };
        let (mut initiator, length) = Initiator::start(&identity, [2; 32], &mut out);
        let start = out[..length].to_vec();
        let answer = answer(&mut hub, &start).expect("the key fits");
        Self { leaf: initiator.finish(&answer).expect("the key fits"), hub, start }
    }

    fn send(&mut self, number: u8) -> Vec<u8> {
        let mut packet = vec![0; OVERHEAD_BYTES + 1];
        packet[HEAD_BYTES] = number;
        let length = self.leaf.seal(&mut packet, 1).expect("counters are left");
        assert_eq!(length, packet.len());
        packet
    }

    /// The number in a packet that the hub takes.
    fn take(&mut self, packet: &[u8]) -> Option<u8> {
        let mut bytes = packet.to_vec();
        match self.hub.take(&mut bytes) {
            Took::First(frame) | Took::Frame(frame) => {
                assert_eq!(frame.len(), 1);
                Some(bytes[frame][0])
            }
            _ => None,
        }
    }
}

/// Runs one input.
pub(super) fn run(data: &[u8]) {
    let Some((&[pinned, cut], rest)) = data.split_first_chunk::<2>() else { return };
    let mut ends = Ends::new(pinned % 2 == 1);
    let (hostile, orders) = rest.split_at(usize::from(cut).min(rest.len()));
    let mut stranger = Responder::default();
    for kind in 0..=6 {
        let packet = [&[kind][..], hostile].concat();
        assert_eq!(ends.take(&packet), None, "nobody has the keys");
        assert_eq!(answer(&mut stranger, &packet), None);
        assert!(ends.leaf.open(&mut packet.clone()).is_err());
    }
    // Start packets that come again end nothing.
    let start = ends.start.clone();
    assert_eq!(answer(&mut ends.hub, &start), None);

    let (mut sent, mut taken) = (Vec::new(), None);
    for order in orders.chunks_exact(3) {
        let number = sent.len();
        if number < 256 {
            let packet = ends.send(number as u8);
            sent.push(packet);
        }
        // One of those that were sent, and what becomes of it.
        let index = usize::from(order[0]) % sent.len();
        let mut packet = sent[index].clone();
        let at = usize::from(order[1]) % packet.len();
        packet[at] ^= order[2];
        match ends.take(&packet) {
            Some(number) => {
                assert_eq!((order[2], usize::from(number)), (0, index), "a changed packet");
                assert!(taken.is_none_or(|last| last < index), "{index} after {taken:?}");
                taken = Some(index);
            }
            None => assert!(order[2] != 0 || taken.is_some_and(|last| last >= index)),
        }
    }
}
