//! What is done with a damaged segment.

use replcore::log::batch::Header;
use replcore::log::record::{ENTRY_HEADER_BYTES, Record};

use super::FileId;
use super::disk::Disk;
use super::embedded::SegmentStore;
use super::note::{KIND_NOTE, Note};
use super::segment::{self, length_at};

impl<D: Disk> SegmentStore<D> {
    /// Sets a copy of a damaged segment aside and keeps what of the batch at `at` is sound.
    pub(super) fn quarantine(
        &mut self,
        index: usize,
        at: u64,
        torn: Option<(Header, Vec<u8>)>,
    ) -> std::io::Result<()> {
        let number = self.log.segments[index].number;
        let capacity = self.log.segments[index].capacity;
        let file = self.log.segments[index].open(&mut self.log.disk)?;
        let name = format!("damaged-{number:016x}");
        // A copy helps a person later; without room for it the node starts all the same.
        let copied = copy_file(&mut self.log.disk, file, capacity, &name).is_ok();
        let (mut kept, mut held) = (0, None);
        if let Some((header, entries)) = &torn {
            held = Some((header.first_ordinal, header.records));
            kept = self.salvage(index, at, header, entries);
        }
        self.counters.segments_quarantined += 1;
        self.lost_tail = true;
        let held = held.map_or("an unknown number of records".to_owned(), |(first, records)| {
            format!("{records} records from ordinal {first} on, of which {kept} are sound")
        });
        self.reports.push(format!(
            "segment {} is damaged at byte {at}: it held {held}{}",
            segment::file_name(number),
            if copied { format!("; a copy is in {name}") } else { String::new() },
        ));
        Ok(())
    }

    /// Takes the entries of a damaged batch that are sound by themselves; answers how many records.
    fn salvage(&mut self, index: usize, at: u64, header: &Header, entries: &[u8]) -> u64 {
        let (mut offset, mut ordinal) = (0, header.first_ordinal);
        self.log.next_ordinal = self.log.next_ordinal.max(header.first_ordinal);
        let last = header.first_ordinal + u64::from(header.records);
        let (mut records, mut notes) = (Vec::new(), Vec::new());
        while offset + ENTRY_HEADER_BYTES <= entries.len() {
            let length = length_at(entries, offset);
            let Some(entry) = entries.get(offset..offset + length.max(ENTRY_HEADER_BYTES)) else {
                break;
            };
            let sound = entry[..4] == crc32c::crc32c(&entry[4..]).to_le_bytes();
            if entry[8] == KIND_NOTE && sound {
                notes.push(entry);
            } else if ordinal < last {
                if sound && Record::check(entry, crc32c::crc32c).is_ok() {
                    records.push((entry, ordinal));
                }
                ordinal += 1;
            }
            offset += length.max(ENTRY_HEADER_BYTES);
        }
        self.log.next_ordinal = last;
        self.replay_life(notes.iter().copied());
        records.iter().for_each(|(entry, ordinal)| self.replay_record(entry, *ordinal));
        notes.into_iter().filter_map(Note::read).for_each(|note| self.replay_note(note));
        let kept = records.len() as u64;
        let end = at + replcore::log::batch::HEADER_BYTES as u64 + u64::from(header.bytes);
        let segment = &mut self.log.segments[index];
        segment.end = end.min(segment.capacity);
        segment.next_ordinal = last;
        kept
    }
}

fn copy_file<D: Disk>(disk: &mut D, from: FileId, bytes: u64, name: &str) -> std::io::Result<()> {
    let to = disk.create(name, 0)?;
    let mut buffer = vec![0; 256 << 10];
    let mut at = 0;
    let mut copy = || {
        while at < bytes {
            let read = disk.read_at(from, at, &mut buffer)?;
            if read == 0 {
                break;
            }
            disk.write_at(to, at, &buffer[..read])?;
            at += read as u64;
        }
        disk.sync_data(to)
    };
    let copied = copy();
    disk.close(to);
    if copied.is_err() {
        let _ = disk.remove(name);
    }
    copied
}
