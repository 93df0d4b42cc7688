"""Programs killed with SIGKILL while they post and receive."""

import random
import time
import unittest

from support import PATIENCE, Case, bodies


class KillTest(Case):
    def test_a_program_killed_at_random_loses_and_doubles_nothing(self):
        posted, rounds, per_round = 3_000, 30, 20
        hub, out = self.hub(), self.folder / "received"
        rng = random.Random(7)

        def begin():
            arguments = (hub.address, self.folder / "leaf", out, posted, rounds * per_round)
            return self.child("killed_leaf.py", *arguments)

        program = begin()
        kills = 0
        for n in range(rounds):
            hub.post([f"command {n * per_round + i}" for i in range(per_round)], "--to", "py-1")
            # The kill comes at any moment of what goes on meanwhile.
            time.sleep(rng.uniform(0, 0.3))
            kind = rng.randrange(10)
            if kind < 6:
                program.kill()
                program.wait()
                program = begin()
                kills += 1
            elif kind == 6:
                hub.kill()
                hub.start()
        self.assertEqual(program.wait(PATIENCE), 0)
        self.assertGreater(kills, 10)
        self.assertEqual(bodies(hub.messages(), "sale"), [str(n + 1) for n in range(posted)])
        lines = out.read_text().splitlines()
        self.assertEqual(lines, [f"{n} command {n}" for n in range(rounds * per_round)])


if __name__ == "__main__":
    unittest.main()
