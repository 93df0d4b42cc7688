"""The files of a leaf: power cuts, damage, room."""

import pathlib
import unittest

from support import Case

import replcore
from replcore._log import Log
from replcore.record import Encoder, Message, name_id

OWN = name_id("py-1")


class LogTest(Case):
    def open(self, folder=None, **settings):
        usual = {"segment_bytes": 4096, "segments_max": 1000, "keys_max": 100, "record_bytes_max": 1 << 20}
        log = Log(pathlib.Path(folder or self.folder / "log"), OWN, **{**usual, **settings})
        self.addCleanup(lambda: log._files and log.close())
        return log

    def commit(self, log):
        write = log.seal()
        log.write(write)
        log.apply(write)

    def post(self, log, *bodies, message_class=2, key=b""):
        encoder = Encoder("py-1", OWN)
        encoder.prepare(Message(b"", message_class=message_class, idempotency_key=key), log.state.epoch)
        for body in bodies:
            log.add_outgoing(encoder.encode(body, log.seq_next[message_class]), message_class, key)

    def take(self, log, position, *bodies):
        encoder = Encoder("hub", name_id("hub"))
        encoder.prepare(Message(b""), 7)
        records = [bytes(encoder.encode(body, position + n + 1)) for n, body in enumerate(bodies)]
        log.add_incoming((name_id("hub"), OWN, 2), (7, position + len(bodies)), records)

    def held(self, log):
        """Bodies in the outgoing queue of class 2, and in the inbox."""
        def read(backlog):
            return [replcore.record.received(log.read(*backlog.place(at)), 0).body
                    for at in range(backlog.first, backlog.next)]
        return read(log.outgoing[2]), read(log.inbox)

    def files(self):
        return sorted((self.folder / "log").glob("*.log"))

    def test_a_log_cut_at_any_byte_holds_whole_batches_and_goes_on(self):
        log = self.open(segment_bytes=1 << 20)
        sizes = [log._offset]
        for n in range(4):
            self.post(log, b"out %d" % n)
            self.take(log, n, b"in %d" % n)
            self.commit(log)
            sizes.append(log._offset)
        log.close()
        (file,) = self.files()
        whole = file.read_bytes()
        for cut in range(sizes[0], len(whole) + 1):
            file.write_bytes(whole[:cut])
            log = self.open(segment_bytes=1 << 20)
            batches = sum(cut >= size for size in sizes[1:])
            wanted = [b"out %d" % n for n in range(batches)], [b"in %d" % n for n in range(batches)]
            self.assertEqual(self.held(log), wanted, f"cut at {cut}")
            self.assertEqual(log.torn_bytes, cut - sizes[batches])
            self.assertEqual(log.places.get((name_id("hub"), OWN, 2), (7, 0)), (7, batches))
            self.post(log, b"next")
            self.commit(log)
            log.close()
            log = self.open(segment_bytes=1 << 20)
            self.assertEqual(self.held(log)[0], [*wanted[0], b"next"])
            log.close()

    def test_a_damaged_file_that_is_not_the_last_is_refused_and_named(self):
        log = self.open()
        for _ in range(10):
            self.post(log, b"x" * 1000)
            self.commit(log)
        log.close()
        first = self.files()[0]
        damaged = bytearray(first.read_bytes())
        damaged[500] ^= 1
        first.write_bytes(damaged)
        with self.assertRaisesRegex(replcore.LogError, f"{first.name}: byte .* restore the folder"):
            self.open()
        first.unlink()
        with self.assertRaisesRegex(replcore.LogError, "is missing"):
            self.open()

    def test_files_without_a_wanted_message_are_deleted_and_places_and_keys_survive(self):
        log = self.open()
        for n in range(50):
            self.post(log, b"x" * 1000, key=b"key %d" % n)
            self.take(log, n, b"y" * 1000)
            self.commit(log)
            log.release(2, n + 1)
            log.acknowledge(n + 1)
        self.commit(log)
        self.assertLess(len(self.files()), 4)
        log.close()
        log = self.open()
        self.assertEqual(self.held(log), ([], []))
        self.assertEqual((log.outgoing[2].next, log.inbox.next), (50, 50))
        self.assertEqual(log.places[name_id("hub"), OWN, 2], (7, 50))
        self.assertEqual(len(log.keys), 50)
        self.post(log, b"z")
        self.commit(log)
        self.assertEqual(log.outgoing[2].next, 51)

    def test_one_message_that_stays_does_not_keep_all_files(self):
        log = self.open(segments_max=5)
        self.take(log, 0, b"unread")
        self.post(log, b"urgent but stuck", message_class=0)
        self.commit(log)
        for n in range(100):
            self.post(log, b"x" * 1000)
            self.commit(log)
            log.release(2, n + 1)
        self.commit(log)
        self.assertLess(len(self.files()), 8)
        for _ in range(2):
            self.assertEqual(self.held(log)[1], [b"unread"])
            self.assertEqual(len(log.outgoing[0]), 1)
            log.close()
            log = self.open(segments_max=5)

    def test_a_batch_that_finds_no_space_leaves_no_trace(self):
        log = self.open()
        self.post(log, b"kept")
        self.commit(log)
        self.post(log, b"lost", key=b"k")
        self.take(log, 0, b"lost")
        write = log.seal()
        self.post(log, b"lost as well")
        log.fail(write)
        self.assertEqual((log.seq_next[2], log.received_next, len(log.keys), len(log.places)), (2, 0, 0, 0))
        self.post(log, b"later")
        self.commit(log)
        log.close()
        self.assertEqual(self.held(self.open()), ([b"kept", b"later"], []))

    def test_each_start_numbers_anew_and_keeps_what_waits(self):
        log = self.open()
        self.post(log, b"0", b"1", b"2")
        self.take(log, 0, b"in")
        self.commit(log)
        log.release(2, 1)
        self.commit(log)
        epochs = [log.state.epoch]
        for number in range(3, 6):
            log.close()
            log = self.open()
            epochs.append(log.state.epoch)
            self.assertEqual(log.seq_next[2], 1)
            self.post(log, b"%d" % number)
            self.commit(log)
        self.assertEqual(len(set(epochs)), 4)
        log.close()
        log = self.open()
        self.assertEqual(self.held(log), ([b"1", b"2", b"3", b"4", b"5"], [b"in"]))
        self.assertEqual([log.place_reader(2, epoch, 9) for epoch in epochs], [3, 4, 5, 6])
        self.assertEqual(log.place_reader(2, epochs[0], 2), 2)
        self.assertEqual(log.place_reader(2, 12345, 2), 1, "a life it never had: what is acknowledged")
        log.close()

    def test_a_folder_that_was_set_back_gives_no_number_again(self):
        log = self.open()
        self.post(log, b"kept")
        self.commit(log)
        copy = {file: file.read_bytes() for file in self.files()}
        self.post(log, b"lost")
        self.commit(log)
        epoch = log.state.epoch
        log.close()
        for file in self.files():
            file.unlink()
        for file, data in copy.items():
            file.write_bytes(data)
        log = self.open()
        self.assertNotEqual(log.state.epoch, epoch)
        self.post(log, b"new")
        self.commit(log)
        self.assertEqual(log.place_reader(2, epoch, 2), 1, "the hub gets the new one at the place of the lost")
        log.close()


if __name__ == "__main__":
    unittest.main()
