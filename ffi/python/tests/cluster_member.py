"""A member of a cluster as a process, with the arguments and the lines of examples/c/election.c.

cluster_member.py FOLDER NAME NAME=HOST:PORT...
"""

import pathlib
import sys

import replcore


def place(text):
    name, _, address = text.partition("=")
    host, _, port = address.rpartition(":")
    return {"identifier": name, "host": host, "port": int(port)}


def main():
    folder, own, *members = sys.argv[1:]
    places = [place(member) for member in members]
    mine = next(one for one in places if one["identifier"] == own)
    cluster = replcore.Cluster(
        identifier=own, cluster="election", data_folder=pathlib.Path(folder),
        listen_host=mine["host"], listen_port=mine["port"], peers=[one for one in places if one is not mine],
    )

    def tell(event):
        if event is None or event.kind in ("became_leader", "lost_leadership", "leader_changed"):
            leader = cluster.get_leader_info()
            star = " *" if cluster.is_leader() else ""
            print(f"{cluster.term()} {leader.identifier if leader else '-'}{star}", flush=True)

    cluster.add_handler(tell)
    # What has happened before there was a handler.
    tell(None)
    sys.stdin.read()
    cluster.close()


if __name__ == "__main__":
    main()
