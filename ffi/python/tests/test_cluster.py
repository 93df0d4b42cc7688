"""Members of a cluster: in one process, and the documented program in three that are killed."""

import asyncio
import json
import os
import subprocess
import sys
import threading
import time
import unittest

import replcore
from support import HERE, PATIENCE, PROGRAM, Case, eventually, free_port

NAMES = ["server_a", "server_b", "server_c"]


class ClusterTest(Case):
    def configurations(self, names=NAMES, **more):
        ports = {name: free_port() for name in names}
        metadata = {name: {"server_port": 8000 + at} for at, name in enumerate(names)}
        return {
            own: {
                "identifier": own,
                "listen_host": "localhost",
                "listen_port": ports[own],
                "peers": [
                    {"host": "localhost", "port": ports[name], "identifier": name, "metadata": metadata[name]}
                    for name in names if name != own
                ],
                **more,
            }
            for own in names
        }

    def make(self, configuration, **more):
        folder = self.folder / configuration["identifier"]
        cluster = replcore.Cluster(**{**configuration, "data_folder": folder, **more})
        self.addCleanup(cluster.close)
        return cluster

    def start(self, **more):
        # Patient, so that a busy machine does not change leaders in the middle of a test.
        patient = {"timeout_ms_min": 1500, "timeout_ms_max": 3000, **more}
        return {name: self.make(one) for name, one in self.configurations(**patient).items()}

    def leader_of(self, members):
        """The one that all agree on, once they do."""
        found = []

        def agreed():
            infos = [one.get_leader_info() for one in members.values()]
            known = {info.identifier if info else None for info in infos}
            leader = members.get(known.pop()) if len(known) == 1 else None
            if leader is not None and leader.is_leader():
                found.append(leader)
            return found

        eventually("a leader that all know", agreed)
        return found[0]

    def test_three_members_elect_one_and_know_host_port_and_metadata_of_it(self):
        """QC-16, QC-17: on every node, the leader included."""
        members = self.start()
        leader = self.leader_of(members)
        at = NAMES.index(leader.identifier)

        def told():
            infos = [one.get_leader_info() for one in members.values()]
            return all(info and info.metadata == {"server_port": 8000 + at} for info in infos)

        eventually("all know the metadata that the files say", told)
        for one in members.values():
            info = one.get_leader_info()
            self.assertEqual((info.host, info.port, info.identifier), ("localhost", leader.port, leader.identifier))
            self.assertEqual({peer.identifier for peer in one.get_peers()}, set(NAMES) - {one.identifier})
        self.assertGreater(leader.stats()["heartbeats_sent"], 0)

    def test_never_two_lead_while_leaders_resign_and_end(self):
        members = self.start()
        wrong, stop = [], threading.Event()

        def watch():
            while not stop.is_set():
                leading = [name for name, one in list(members.items()) if one.is_leader()]
                if len(leading) > 1:
                    wrong.append(leading)

        watcher = threading.Thread(target=watch)
        watcher.start()
        try:
            first = self.leader_of(members)
            term = first.term()
            first.resign()
            self.assertFalse(first.is_leader())
            eventually("another term", lambda: self.leader_of(members).term() > term)
            second = self.leader_of(members)
            members.pop(second.identifier).close()
            self.assertFalse(second.is_leader())
            third = self.leader_of(members)
            self.assertNotEqual(third.identifier, second.identifier)
            eventually("the loss is noticed", lambda: any(
                peer.identifier == second.identifier and not peer.is_up for peer in third.get_peers()))
            # One of three cannot lead.
            members.pop(third.identifier).close()
            (last,) = members.values()
            eventually("nobody leads", lambda: last.get_leader_info() is None)
            self.assertFalse(last.is_leader())
        finally:
            stop.set()
            watcher.join()
        self.assertEqual(wrong, [])

    def test_metadata_that_changes_spreads_and_events_tell_it(self):
        """QC-17, QC-18: handlers may be slow and may fail."""
        members = self.start()
        self.leader_of(members)
        seen, slow = [], threading.Event()

        def fails(event):
            slow.wait(0.1)
            raise RuntimeError("a handler's own fault")

        logs = self.enterContext(self.assertLogs("replcore", "ERROR")) if hasattr(self, "enterContext") else None
        members["server_a"].add_handler(fails)
        members["server_a"].add_handler(seen.append)
        members["server_b"].set_metadata({"server_port": 9999, "über": "ß"})

        def known():
            found = {peer.identifier: peer.metadata for peer in members["server_a"].get_peers()}
            return found["server_b"] == {"server_port": 9999, "über": "ß"}

        eventually("the new metadata is known", known)
        eventually("the event is told", lambda: any(
            event.kind == "peer_changed" and event.identifier == "server_b" for event in seen))
        if logs is not None:
            self.assertIn("a handler's own fault", logs.output[0])

    def test_events_reach_a_running_loop(self):
        members = self.start()
        leader = self.leader_of(members)
        other = next(one for one in members.values() if one is not leader)

        async def run():
            events = other.events()
            asyncio.get_running_loop().call_later(0.05, leader.resign)
            async for event in events:
                if event.kind in ("leader_changed", "became_leader") and event.identifier:
                    return event

        event = self.run_async(run())
        self.assertGreater(event.term, 0)

    def test_without_election_the_members_only_know_of_each_other(self):
        """QC-20"""
        members = self.start(masterless=True)
        eventually("all are there", lambda: all(
            sum(peer.is_up for peer in one.get_peers()) == 2 for one in members.values()))
        self.assertFalse(any(one.is_leader() or one.get_leader_info() for one in members.values()))
        with self.assertRaises(replcore.StatusError):
            members["server_a"].resign()

    def test_a_member_alone_leads_and_its_term_rises_over_restarts(self):
        (one,) = self.configurations(["alone"]).values()
        terms = []
        for _ in range(3):
            with self.make(one) as cluster:
                self.assertEqual(cluster.wait_for_leader(PATIENCE).identifier, "alone")
                eventually("it leads", cluster.is_leader)
                terms.append(cluster.term())
            self.assertFalse(cluster.is_leader())
        self.assertEqual(terms, sorted(set(terms)))

    def test_wrong_configurations_are_told_and_unsound_peers_passed_over(self):
        sound = {"identifier": "a", "data_folder": self.folder / "a"}
        for wrong, said in [
            ({"identifier": "a b"}, "not a name"),
            ({"profile": "fast"}, "lan, wan and battery"),
            ({"timeout_ms_min": 10}, "two heartbeats"),
            ({"metadata": {"x": "y" * 300}}, "at most 256"),
            ({"peers": [{"host": "h"}]}, "none of the peers is sound"),
            ({"advertise": "x" * 64}, "63 bytes"),
        ]:
            with self.assertLogs("replcore") if "peers" in wrong else self.subTest(said):
                with self.assertRaisesRegex(replcore.ReplcoreError, said):
                    replcore.Cluster(**{**sound, **wrong})
        good = {"host": "localhost", "port": 1, "identifier": "b"}
        bad = [{"host": "h", "port": 0, "identifier": "c"}, dict(good), {**good, "identifier": "a"}, "x"]
        with self.assertLogs("replcore", "ERROR") as logs:
            cluster = self.make({**sound, "peers": [good, *bad], "of_another_program": 1})
        self.assertEqual(len(logs.output), 4)
        self.assertEqual([peer.identifier for peer in cluster.get_peers()], ["b"])
        with self.assertRaisesRegex(replcore.LogError, "in use by another"):
            replcore.Cluster(**sound)
        with self.assertRaisesRegex(OSError, "cannot listen at localhost"):
            self.make({"identifier": "d", "listen_port": cluster.port})

    def test_python_and_the_daemon_go_on_with_the_folder_of_each_other(self):
        folder, address = self.folder / "a", f"127.0.0.1:{free_port()}"

        def term_of_daemon(name="a"):
            command = [PROGRAM, "cluster", "--name", name, "--listen", address, "--data", str(folder), "--log", "error"]
            daemon = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
            self.addCleanup(daemon.stderr.close)
            self.addCleanup(daemon.wait)
            self.addCleanup(daemon.kill)
            said = []

            def leads():
                ask = [PROGRAM, "leader", address, "--json"]
                asked = subprocess.run(ask, capture_output=True, text=True, timeout=PATIENCE)
                said.append(asked.stdout)
                return asked.returncode == 0 or daemon.poll() is not None

            eventually("the daemon leads", leads)
            if daemon.poll() is not None:
                return daemon.stderr.read()
            daemon.terminate()
            self.assertEqual(daemon.wait(PATIENCE), 0)
            return json.loads(said[-1])["term"]

        def term_of_python():
            with replcore.Cluster("a", data_folder=folder) as cluster:
                eventually("Python leads", cluster.is_leader)
                return cluster.term()

        # Each leads in a later term than the other did: the vote was read.
        terms = [term_of_daemon(), term_of_python(), term_of_daemon(), term_of_python()]
        self.assertEqual(terms, sorted(set(terms)))
        # Of another member it is refused, by both.
        self.assertIn("give", term_of_daemon("b"))
        with self.assertRaisesRegex(replcore.ReplcoreError, "give"):
            replcore.Cluster("b", data_folder=folder)

    def test_a_damaged_vote_is_refused(self):
        (one,) = self.configurations(["alone"]).values()
        with self.make(one) as cluster:
            cluster.wait_for_leader(PATIENCE)
            eventually("the vote is stored", (self.folder / "alone/ballot").exists)
        ballot = self.folder / "alone/ballot"
        damaged = bytearray(ballot.read_bytes())
        damaged[-6] ^= 1
        ballot.write_bytes(damaged)
        with self.assertRaisesRegex(replcore.LogError, "ballot: is damaged"):
            self.make(one)

    def test_the_documented_program_runs_in_three_processes_and_survives_its_leader(self):
        """EX-5, unchanged but for the import."""
        environment = {**os.environ, "REPLCORE_DATA": str(self.folder), "PYTHONUNBUFFERED": "1"}
        lines, processes = {name: [] for name in NAMES}, {}

        def start(name, configuration):
            file = self.folder / f"{name}.json"
            file.write_text(json.dumps(configuration))
            process = subprocess.Popen(
                [sys.executable, HERE / "qcluster_program.py", file], stdout=subprocess.PIPE, text=True, env=environment
            )
            self.addCleanup(process.stdout.close)
            self.addCleanup(process.wait)
            self.addCleanup(process.kill)
            threading.Thread(target=lambda: lines[name].extend(process.stdout), daemon=True).start()
            processes[name] = process

        def leader(among):
            """Who says so in its last words, once the others say the same."""
            latest = {name: "".join(lines[name][-2:]) for name in among}
            leading = [name for name in among if f"{name} is doing some work" in latest[name]]
            agreed = leading and all(
                name == leading[0] or f"identifier='{leading[0]}'" in latest[name] for name in among)
            return leading[0] if len(leading) == 1 and agreed else None

        for name, configuration in self.configurations().items():
            start(name, configuration)
        eventually("one leads and the others know it", lambda: leader(NAMES))
        first = leader(NAMES)
        processes[first].kill()
        rest = [name for name in NAMES if name != first]
        killed = time.monotonic()
        eventually("another leads", lambda: leader(rest))
        self.assertLess(time.monotonic() - killed, PATIENCE)
        self.assertIn("'server_port'", "".join(lines[next(name for name in rest if name != leader(rest))]))


if __name__ == "__main__":
    unittest.main()
