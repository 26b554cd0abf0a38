"""One stock Python client for a test: what it sees goes out on stdout, one JSON object a line.

usage: client.py PACKAGES GENERATION URL TRANSPORTS TOKEN LOCATION

PACKAGES is the folder that python-socketio is installed in, GENERATION its major version: 5 speaks protocol 5, 4 speaks
protocol 4 (Socket.IO 2). It joins the location's room, sends three messages at once when it has the first position, and
ends when it has seen the location move, or is refused.
"""

import json
import sys
import threading

packages, generation, url, transports, token, location = sys.argv[1:]
sys.path.insert(0, packages)
import socketio  # noqa: E402

client = socketio.Client(reconnection=False)
done = threading.Event()


def report(kind, value=None):
    # In one write: handlers run in threads of their own.
    sys.stdout.write(json.dumps({"kind": kind, "value": value}) + "\n")
    sys.stdout.flush()


@client.event
def connect():
    report("connect")
    client.emit("join_room", {"locationId": int(location)}, callback=lambda room: report("ack", room))


@client.event
def connect_error(error):
    report("connect_error", error)
    done.set()


moves = []


@client.on("chat")
def chat(body):
    report("chat", body)
    if "version" not in body:
        return
    moves.append(body)
    if len(moves) == 2:
        done.set()
        return
    for number in range(3):
        client.emit("chat", {"roomName": location, "message": f"Zoë {number}"})


options = {"transports": transports.split(",")}
try:
    if generation == "4":
        client.connect(f"{url}?token={token}", **options)
    else:
        client.connect(url, auth={"token": token}, **options)
except socketio.exceptions.ConnectionError:
    pass  # which connect_error has reported
done.wait(60)
client.disconnect()
