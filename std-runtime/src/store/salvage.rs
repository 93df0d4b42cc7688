//! What is done with a damaged segment.

use replcore::log::batch::Header;

use super::FileId;
use super::disk::Disk;
use super::embedded::SegmentStore;
use super::log::Damage;
use super::note::Note;
use super::segment;
use super::survey::remains;

/// How files are named that hold copies of damaged segments.
const ASIDE: &str = "damaged-";
/// Most such files that are made.
const ASIDE_MAX: usize = 16;
/// Most reports that are kept; all are logged.
const REPORTS_MAX: usize = 64;

impl<D: Disk> SegmentStore<D> {
    /// Sets a copy of a damaged segment aside and keeps what of the batch at `at` is sound.
    pub(super) fn quarantine(&mut self, index: usize, at: u64, torn: Option<(Header, Vec<u8>)>) {
        let number = self.log.segments[index].number;
        // Without room for a copy the node starts all the same.
        let copied = self.set_aside(number);
        let (mut kept, mut held) = (0, None);
        if let Some((header, entries)) = &torn {
            held = Some((header.first_ordinal, header.records));
            kept = self.salvage(index, at, header, entries);
        }
        self.log.segments[index].told_at_start = true;
        self.counters.segments_quarantined += 1;
        self.lost_tail = true;
        let held = held.map_or("an unknown number of records".to_owned(), |(first, records)| {
            format!("{records} records from ordinal {first} on, of which {kept} are sound")
        });
        self.reports.push(format!(
            "segment {} is damaged at byte {at}: it held {held}{}",
            segment::file_name(number),
            where_copied(copied, number),
        ));
    }

    /// Takes the entries of a damaged batch that are sound by themselves; answers how many records.
    fn salvage(&mut self, index: usize, at: u64, header: &Header, entries: &[u8]) -> u64 {
        let found = remains(header, entries);
        let last = header.first_ordinal + u64::from(header.records);
        self.log.next_ordinal = last;
        self.replay_life(found.notes.iter().copied());
        found.records.iter().for_each(|(ordinal, _, entry)| self.replay_record(entry, *ordinal));
        found.notes.into_iter().filter_map(Note::read).for_each(|note| self.replay_note(note));
        let end = at + replcore::log::batch::HEADER_BYTES as u64 + u64::from(header.bytes);
        let segment = &mut self.log.segments[index];
        segment.end = end.min(segment.capacity);
        segment.next_ordinal = last;
        found.records.len() as u64
    }

    /// Tells damage that was met while reading, and sets a copy of each segment aside that is
    /// damaged for the first time. Whether there was any: then a checkpoint is due, since the next
    /// start must not need what damaged notes have said.
    pub(super) fn tell_damage(&mut self) -> bool {
        let found = std::mem::take(&mut self.log.damage);
        for damage in &found {
            let number = damage.segment;
            let place = if damage.again {
                String::new()
            } else {
                where_copied(self.set_aside(number), number)
            };
            let Damage { first_ordinal, records, lost, first_lost, .. } = *damage;
            let lost = match lost {
                0 => "all of them can be read".to_owned(),
                1 => format!("the record {first_lost} is lost"),
                _ => format!("{lost} are lost, the first is {first_lost}"),
            };
            self.counters.segments_quarantined += u64::from(!damage.again);
            self.report(format!(
                "segment {} is damaged: of the {records} records that it held from ordinal \
                 {first_ordinal} on {lost}{place}",
                segment::file_name(number),
            ));
        }
        !found.is_empty()
    }

    fn report(&mut self, text: String) {
        tracing::warn!("{text}");
        if self.reports.len() < REPORTS_MAX {
            self.reports.push(text);
        }
    }

    /// Copies a segment into a file of its own, which helps a person later.
    fn set_aside(&mut self, number: u64) -> Result<(), String> {
        let name = aside_name(number);
        let names = self.log.disk.list().map_err(|error| format!("no copy was made: {error}"))?;
        if names.contains(&name) {
            return Ok(());
        }
        if names.iter().filter(|name| name.starts_with(ASIDE)).count() >= ASIDE_MAX {
            return Err(format!("no copy was made: there are {ASIDE_MAX} files {ASIDE}* already"));
        }
        let made = match self.log.segments.iter_mut().find(|segment| segment.number == number) {
            Some(segment) => segment
                .open(&mut self.log.disk)
                .and_then(|file| copy_file(&mut self.log.disk, file, segment.capacity, &name)),
            None => Err(std::io::Error::other("it was freed meanwhile")),
        };
        made.map_err(|error| format!("no copy was made: {error}"))
    }
}

fn where_copied(copied: Result<(), String>, number: u64) -> String {
    match copied {
        Ok(()) => format!("; a copy is in {}", aside_name(number)),
        Err(why) => format!("; {why}"),
    }
}

fn aside_name(number: u64) -> String {
    format!("{ASIDE}{number:016x}")
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
