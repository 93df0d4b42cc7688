"""Clusters whose members prove who they are: with the daemon among them, and others at the door."""

import shutil
import socket
import ssl
import subprocess
import unittest

from support import PATIENCE, PROGRAM, Case, eventually, free_port

import replcore

PATIENT = {"timeout_ms_min": 1500, "timeout_ms_max": 3000}


def eventually_told(said, logs):
    eventually(f"it is told: {said}", lambda: any(said in line for line in logs.output))


class ClusterTlsTest(Case):
    def setUp(self):
        super().setUp()
        self.authority("ca")

    def authority(self, folder):
        self.ca("init", self.folder / folder)

    def ca(self, *arguments):
        subprocess.run([PROGRAM, "ca", *map(str, arguments)], check=True, capture_output=True, timeout=PATIENCE)

    def files(self, name, folder="ca"):
        at = self.folder / folder
        if not (at / f"{name}.pem").exists():
            self.ca("issue", at, name)
        return {"tls_ca": at / "ca.pem", "tls_cert": at / f"{name}.pem", "tls_key": at / f"{name}.key"}

    def make(self, name, **more):
        cluster = replcore.Cluster(name, data_folder=self.folder / f"{name}.data", **{**PATIENT, **more})
        self.addCleanup(cluster.close)
        return cluster

    def peers_of(self, ports, name):
        return [{"identifier": one, "host": "localhost", "port": ports[one]} for one in ports if one != name]

    def test_members_of_python_and_the_daemon_trust_each_other_and_nobody_else(self):
        """QC-16, EX-5"""
        ports = {name: free_port() for name in "abc"}

        def start(name, **more):
            return self.make(name, listen_port=ports[name], peers=self.peers_of(ports, name), **more)

        members = [start(name, **self.files(name)) for name in "ab"]
        files = {key.replace("_", "-"): str(path) for key, path in self.files("c").items()}
        options = [part for key, path in files.items() for part in (f"--{key}", path)]
        options += [part for name in "ab" for part in ("--peer", f"{name}=localhost:{ports[name]}")]
        daemon = subprocess.Popen(
            [PROGRAM, "cluster", "--name", "c", "--listen", f"localhost:{ports['c']}", "--data",
             str(self.folder / "c.data"), "--log", "error", *options])
        self.addCleanup(daemon.wait)
        self.addCleanup(daemon.kill)

        def together():
            leaders = {one.get_leader_info() and one.get_leader_info().identifier for one in members}
            return len(leaders) == 1 and None not in leaders and all(
                {peer.identifier for peer in one.get_peers() if peer.is_up} >= set("abc") - {one.identifier}
                for one in members)

        eventually("all three are there and agree on a leader", together)

        # At the door: without a certificate, with one of another authority, without TLS.
        self.authority("elsewhere")
        stranger = self.files("d", "elsewhere")
        for said, files in [("has no certificate", None), ("unable to get local issuer", stranger)]:
            with self.subTest(said), self.assertLogs("replcore", "WARNING") as logs:
                self.knock(ports["a"], files)
                eventually_told(said, logs)
        self.assertGreaterEqual(members[0].stats()["connections_refused"], 2)
        with self.assertLogs("replcore", "WARNING") as logs:
            plain = self.make("d", peers=self.peers_of(ports, "d"))
            # The members of Python close the link, the daemon says why.
            refused = "from 127.0.0.1 is refused: it does not speak TLS"
            for said in [refused, "has closed the link at once", "wants TLS: give tls_ca"]:
                eventually_told(said, logs)
        self.assertFalse(any(peer.is_up for peer in plain.get_peers()))

    def knock(self, port, files):
        """Dials as a member would, and is let go of without a word of the cluster."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        if files is not None:
            context.load_cert_chain(files["tls_cert"], files["tls_key"])
        with socket.create_connection(("localhost", port), PATIENCE) as line:
            try:
                with context.wrap_socket(line) as secured:
                    self.assertEqual(secured.recv(1), b"")
            except OSError:
                pass

    def test_a_member_speaks_as_the_name_in_its_certificate_alone(self):
        ports = {"a": free_port(), "b": free_port()}
        self.make("a", listen_port=ports["a"], peers=self.peers_of(ports, "a"), **self.files("a"))
        # At the place of b there is another of the same authority.
        with self.assertLogs("replcore", "WARNING") as logs:
            self.make("x", listen_port=ports["b"], **self.files("x"))
            eventually_told("is for x, not for b", logs)

    def test_files_that_change_are_taken_up_when_they_are_good(self):
        ports = {"a": free_port(), "b": free_port()}
        one, other = (
            self.make(name, listen_port=ports[name], peers=self.peers_of(ports, name), **self.files(name))
            for name in "ab")

        def up():
            return all(any(peer.is_up for peer in member.get_peers()) for member in (one, other))

        eventually("they know each other", up)
        # The authority is replaced, first in the files of one.
        self.authority("next")
        with self.assertLogs("replcore", "WARNING") as logs:
            shutil.copy(self.folder / "next/ca.pem", self.folder / "ca/ca.pem")
            other.close()
            other = self.make("b", listen_port=ports["b"], peers=self.peers_of(ports, "b"), **self.files("b", "next"))
            eventually_told("a.pem: not a certificate that", logs)
        self.ca("issue", self.folder / "next", "a")
        for suffix in ("pem", "key"):
            shutil.copy(self.folder / f"next/a.{suffix}", self.folder / f"ca/a.{suffix}")
        eventually("they know each other again", up)

    def test_wrong_files_are_told_at_the_start(self):
        good = self.files("a")
        empty = self.folder / "empty"
        empty.write_text("")
        self.authority("elsewhere")
        encrypted = self.folder / "encrypted.key"
        subprocess.run(
            ["openssl", "pkcs8", "-topk8", "-in", good["tls_key"], "-out", encrypted, "-passout", "pass:x"],
            check=True, capture_output=True) if shutil.which("openssl") else encrypted.write_text("")
        for wrong, said in [
            ({"tls_key": None}, "three files, tls_ca, tls_cert and tls_key, or none"),
            ({"tls_ca": self.folder / "none"}, "none: No such file"),
            ({"tls_ca": empty}, "empty: no certificate in PEM form"),
            ({"tls_key": self.files("b")["tls_key"]}, "a.pem and .*b.key are no certificate and its key: key values"),
            ({"tls_key": encrypted}, "encrypted"),
            (self.files("b"), "b.pem is for b, but this member is a"),
            ({"tls_ca": self.folder / "elsewhere/ca.pem"}, "a.pem: not a certificate that .*ca.pem vouches for"),
        ]:
            with self.subTest(said), self.assertRaisesRegex(replcore.ReplcoreError, said):
                self.make("a", **{**good, **wrong})


if __name__ == "__main__":
    unittest.main()
