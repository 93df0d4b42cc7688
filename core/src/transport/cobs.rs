//! Frames on a serial line: consistent overhead byte stuffing (Cheshire and Baker, 1999) with a
//! CRC-32C over each frame.
//!
//! ```text
//! line  = { packet 0x00 }
//! packet = cobs(frame, crc32c of the frame as u32 little-endian)
//! ```
//!
//! The zero byte is nowhere but between packets, so that a receiver is in step again at the next
//! one, whatever came before. Empty packets are passed over: a sender may put a zero in front of
//! a frame to end what noise has begun. A frame costs 4 bytes for the checksum, 1 for each
//! begun 254 bytes and 1 for the zero.
//!
//! A line of this kind is a [`Transport::Datagram`](crate::contract::Transport::Datagram) link: a
//! damaged frame is dropped and counted, and the link above repeats what matters.

use crate::log::{crc32c, u32_at};

/// The byte between packets.
pub const DELIMITER: u8 = 0;

const CHECKSUM_BYTES: usize = 4;
/// The code of a block of 254 bytes that stands for no zero.
const FULL_BLOCK: u8 = 0xff;

/// Most bytes that a frame of `frame_bytes` takes on the line, its delimiter included.
pub const fn encoded_bytes_max(frame_bytes: usize) -> usize {
    let stuffed = frame_bytes + CHECKSUM_BYTES;
    stuffed + stuffed.div_ceil(254) + 1
}

/// Bytes that a receiver's buffer needs for frames of at most `frame_bytes`.
pub const fn decode_buffer_bytes(frame_bytes: usize) -> usize {
    frame_bytes + CHECKSUM_BYTES
}

/// Writes `frame` to `out` as a packet with its delimiter and returns how many bytes that took.
/// `None`, and nothing of use in `out`, when it has less than what the frame needs; with
/// [`encoded_bytes_max`] bytes there is always room. An empty frame is a frame too.
pub fn encode(frame: &[u8], out: &mut [u8]) -> Option<usize> {
    let checksum = crc32c(frame).to_le_bytes();
    // `code_at` is where the length of the block now being written goes.
    let (mut code_at, mut at) = (0, 1);
    let mut block_is_open = true;
    for &byte in frame.iter().chain(&checksum) {
        if !block_is_open {
            // The last block was full, which says nothing about a zero: begin another.
            (code_at, at) = (at, at + 1);
            block_is_open = true;
        }
        if byte == DELIMITER {
            *out.get_mut(code_at)? = (at - code_at) as u8;
            (code_at, at) = (at, at + 1);
            continue;
        }
        *out.get_mut(at)? = byte;
        at += 1;
        if at - code_at == usize::from(FULL_BLOCK) {
            out[code_at] = FULL_BLOCK;
            block_is_open = false;
        }
    }
    if block_is_open {
        *out.get_mut(code_at)? = (at - code_at) as u8;
    }
    *out.get_mut(at)? = DELIMITER;
    Some(at + 1)
}

/// What a [`Decoder`] has seen. Bad packets are told apart by what is wrong with them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Counters {
    /// Frames that came whole.
    pub frames: u64,
    /// Packets that ended in the middle of a block, or are shorter than a checksum.
    pub malformed: u64,
    /// Packets whose checksum does not match.
    pub corrupt: u64,
    /// Packets longer than the buffer.
    pub too_long: u64,
}

impl Counters {
    /// Packets that were dropped, for whatever reason.
    pub const fn bad(&self) -> u64 {
        self.malformed + self.corrupt + self.too_long
    }
}

/// What came of giving bytes to a [`Decoder`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Taken {
    /// How many bytes were taken. Less than all only when they end a frame.
    pub bytes: usize,
    /// The length of the frame that is now at the start of the buffer.
    pub frame: Option<usize>,
}

/// Makes frames of bytes as they come. Its memory beside the caller's buffer is constant; work is
/// linear in the bytes given.
#[derive(Clone, Copy, Debug, Default)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Decoder {
    /// Bytes of the packet that are decoded already.
    len: usize,
    /// The code of the block being read; 0 before the first of a packet.
    code: u8,
    /// Bytes that are missing to the end of the block.
    block_left: u8,
    /// The packet does not fit the buffer.
    too_long: bool,
    counters: Counters,
}

impl Decoder {
    /// A decoder at the start of a line. What comes before the first delimiter may be the rest of a
    /// packet; it is then counted as bad.
    pub const fn new() -> Self {
        Self {
            len: 0,
            code: 0,
            block_left: 0,
            too_long: false,
            counters: Counters { frames: 0, malformed: 0, corrupt: 0, too_long: 0 },
        }
    }

    /// What has come so far.
    pub const fn counters(&self) -> Counters {
        self.counters
    }

    /// Takes bytes of `line` up to the end of the first sound frame, which is then at the start of
    /// `buf`, or all of them. Give the rest of the line again once the frame is used. `buf` has to
    /// be the same, with its contents, until a frame is complete; with [`decode_buffer_bytes`]
    /// bytes it takes every frame of that size. Longer ones are dropped and counted.
    pub fn take(&mut self, line: &[u8], buf: &mut [u8]) -> Taken {
        for (index, &byte) in line.iter().enumerate() {
            if byte == DELIMITER {
                let frame = self.finish(buf);
                if frame.is_some() {
                    return Taken { bytes: index + 1, frame };
                }
            } else if self.block_left > 0 {
                self.block_left -= 1;
                self.append(byte, buf);
            } else {
                // A block that is not full ends in a zero, which shows once another one follows.
                if self.code != 0 && self.code != FULL_BLOCK {
                    self.append(0, buf);
                }
                (self.code, self.block_left) = (byte, byte - 1);
            }
        }
        Taken { bytes: line.len(), frame: None }
    }

    fn append(&mut self, byte: u8, buf: &mut [u8]) {
        match buf.get_mut(self.len) {
            Some(place) => {
                *place = byte;
                self.len += 1;
            }
            None => self.too_long = true,
        }
    }

    fn finish(&mut self, buf: &[u8]) -> Option<usize> {
        let fresh = Self { counters: self.counters, ..Self::new() };
        let packet = core::mem::replace(self, fresh);
        if packet.code == 0 {
            return None;
        }
        if packet.too_long {
            self.counters.too_long += 1;
            return None;
        }
        // A shorter buffer than the one before is the caller's mistake; it costs the frame.
        let bytes = buf.get(..packet.len);
        let Some((bytes, len)) = bytes.zip(packet.len.checked_sub(CHECKSUM_BYTES)) else {
            self.counters.malformed += 1;
            return None;
        };
        if packet.block_left > 0 {
            self.counters.malformed += 1;
            return None;
        }
        if crc32c(&bytes[..len]) != u32_at(bytes, len) {
            self.counters.corrupt += 1;
            return None;
        }
        self.counters.frames += 1;
        Some(len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;
    use std::vec::Vec;

    const FRAME_BYTES_MAX: usize = 1100;

    fn packet(frame: &[u8]) -> Vec<u8> {
        let mut out = std::vec![0xaa; encoded_bytes_max(frame.len())];
        let length = encode(frame, &mut out).unwrap();
        out.truncate(length);
        out
    }

    /// Feeds `line` in pieces of random length and gives back the frames.
    fn frames(decoder: &mut Decoder, line: &[u8], rng: &mut Rng) -> Vec<Vec<u8>> {
        let mut buf = [0x55; decode_buffer_bytes(FRAME_BYTES_MAX)];
        let mut found = Vec::new();
        let mut rest = line;
        while !rest.is_empty() {
            let piece = rng.between(1, rest.len().min(300) as u64) as usize;
            let taken = decoder.take(&rest[..piece], &mut buf);
            assert!(taken.bytes > 0 && (taken.frame.is_some() || taken.bytes == piece));
            if let Some(len) = taken.frame {
                found.push(buf[..len].to_vec());
            }
            rest = &rest[taken.bytes..];
        }
        found
    }

    fn random_frame(len: usize, rng: &mut Rng) -> Vec<u8> {
        // Frames with many, few and no zeros: the blocks depend on nothing else.
        let zero_in = [2, 300, u64::MAX][rng.between(0, 2) as usize];
        let byte = |rng: &mut Rng| match rng.between(1, zero_in) {
            1 => 0,
            _ => rng.between(1, 255) as u8,
        };
        (0..len).map(|_| byte(rng)).collect()
    }

    #[test]
    fn every_length_reads_back_over_the_borders_of_blocks() {
        let mut rng = Rng::new(1);
        for len in (0..40).chain(240..270).chain(495..520).chain(750..775).chain([1099, 1100]) {
            for frame in [std::vec![0; len], std::vec![1; len], random_frame(len, &mut rng)] {
                let line = packet(&frame);
                assert!(line.len() <= encoded_bytes_max(len));
                assert_eq!(line.iter().position(|&byte| byte == 0), Some(line.len() - 1));
                assert_eq!(frames(&mut Decoder::new(), &line, &mut rng), [frame]);
            }
        }
    }

    #[test]
    fn packets_are_as_the_authors_of_cobs_give_them() {
        // The checksum of nothing is zero: four zeros.
        assert_eq!(packet(b""), [1, 1, 1, 1, 1, 0]);
        // crc32c("123456789") = 0xe3069283, without a zero.
        let expected = [14, b'1', b'2', b'3', b'4', b'5', b'6', b'7', b'8', b'9'];
        assert_eq!(packet(b"123456789"), [&expected[..], &[0x83, 0x92, 0x06, 0xe3, 0]].concat());
    }

    #[test]
    fn a_buffer_that_is_too_short_is_said_and_never_overrun() {
        let frame: Vec<u8> = (0..=255).chain(1..=255).collect();
        let whole = packet(&frame);
        for short in 0..whole.len() {
            assert_eq!(encode(&frame, &mut std::vec![0; short]), None, "{short} bytes");
        }
        assert_eq!(encode(&frame, &mut std::vec![0; whole.len()]), Some(whole.len()));
    }

    #[test]
    fn the_decoder_is_in_step_again_after_garbage() {
        for seed in 0..300 {
            let mut rng = Rng::new(seed);
            let mut line: Vec<u8> =
                (0..rng.between(0, 3000)).map(|_| rng.between(0, 255) as u8).collect();
            line.push(DELIMITER);
            let mut decoder = Decoder::new();
            assert_eq!(frames(&mut decoder, &line, &mut rng), [[]; 0], "seed {seed}");
            let before = decoder.counters();
            let frame = random_frame(rng.between(0, 1100) as usize, &mut rng);
            assert_eq!(frames(&mut decoder, &packet(&frame), &mut rng), [frame]);
            assert_eq!(decoder.counters(), Counters { frames: 1, ..before });
        }
    }

    #[test]
    fn every_flipped_bit_costs_its_frame_or_joins_or_splits_it_and_is_counted() {
        let mut rng = Rng::new(3);
        let (first, last) = (random_frame(300, &mut rng), random_frame(40, &mut rng));
        let (line, after) = (packet(&first), packet(&last));
        for bit in 0..line.len() * 8 {
            let mut damaged = [&line[..], &after[..], &after[..]].concat();
            damaged[bit / 8] ^= 1 << (bit % 8);
            let mut decoder = Decoder::new();
            let found = frames(&mut decoder, &damaged, &mut rng);
            // A damaged delimiter joins two packets, so that one copy of the later frame goes too.
            assert!(!found.contains(&first) && found.contains(&last), "bit {bit}");
            assert!(decoder.counters().bad() >= 1, "bit {bit}");
        }
    }

    #[test]
    fn lost_and_doubled_bytes_cost_at_most_the_frames_they_touch() {
        for seed in 0..300 {
            let mut rng = Rng::new(seed);
            let sent: Vec<_> = (0..20).map(|len| random_frame(len * 7, &mut rng)).collect();
            let mut line: Vec<u8> = sent.iter().flat_map(|frame| packet(frame)).collect();
            let at = rng.between(0, line.len() as u64 - 1) as usize;
            match rng.between(0, 1) {
                0 => drop(line.remove(at)),
                _ => line.insert(at, line[at]),
            }
            let mut decoder = Decoder::new();
            let found = frames(&mut decoder, &line, &mut rng);
            assert!(found.len() >= sent.len() - 2, "seed {seed}: {} frames", found.len());
            assert!(found.iter().all(|frame| sent.contains(frame)), "seed {seed}");
        }
    }

    #[test]
    fn a_frame_longer_than_the_buffer_is_counted_and_the_next_one_comes() {
        let mut decoder = Decoder::new();
        let line = [packet(&[7; 17]), packet(&[8; 16])].concat();
        let mut buf = [0; decode_buffer_bytes(16)];
        let taken = decoder.take(&line, &mut buf);
        assert_eq!(taken, Taken { bytes: line.len(), frame: Some(16) });
        assert_eq!(buf[..16], [8; 16]);
        assert_eq!(decoder.counters(), Counters { frames: 1, too_long: 1, ..Counters::default() });
    }

    #[test]
    fn a_foreign_or_missing_buffer_costs_frames_and_nothing_else() {
        let mut decoder = Decoder::new();
        let line = packet(&[7; 17]);
        decoder.take(&line[..10], &mut [0; 32]);
        assert_eq!(decoder.take(&line[10..], &mut []).frame, None);
        assert_eq!(decoder.counters().bad(), 1);
    }
}
