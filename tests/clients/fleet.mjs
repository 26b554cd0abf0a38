// Clients that look after themselves, as a good app does: whenever one connects it joins each of its
// rooms again, with the last version it has seen. They check the order of what they are sent as they
// go and say what they saw only when asked, so that a hundred thousand messages cost no line.

const MAX_FAULTS = 20; // of a fleet: enough to see what went wrong

class Room {
  constructor(id, since) {
    this.id = id;
    this.name = String(id);
    this.last = since; // null: nothing seen, so the next join is a plain one
    this.first = null; // `digest` is over all versions from here to `last`
    this.digest = 0;
    this.coordinates = null;
    this.atDisconnect = null;
    this.updates = this.holes = this.repeats = 0;
    this.joins = this.recovered = this.unrecovered = 0;
    this.joined = false; // answered on this connection
    this.state = undefined; // what comes next is the current state: of this version, or (null) any
    this.target = 0;
  }

  get reached() {
    return this.joined && this.state === undefined && this.last >= this.target;
  }

  restart() {
    this.first = null;
    this.digest = 0x811c9dc5;
  }

  add({ version, userId, message: { geometry, properties } }) {
    this.first ??= version;
    this.last = version;
    this.updates++;
    this.coordinates = geometry.coordinates;
    // FNV-1a, which the other side can do as well.
    const text = `${version} ${userId} ${properties.updatedAt} ${JSON.stringify(geometry.coordinates)}\n`;
    for (let at = 0; at < text.length; at++) this.digest = Math.imul(this.digest ^ text.charCodeAt(at), 0x01000193) >>> 0;
  }
}

class Follower {
  constructor(fleet, name, socket) {
    Object.assign(this, { fleet, name, socket, rooms: new Map(), connects: 0, reasons: [] });
    socket.on("connect", () => {
      this.connects++;
      for (const room of this.rooms.values()) this.join(room);
      fleet.check();
    });
    socket.on("disconnect", (reason) => {
      this.reasons.push(reason);
      for (const room of this.rooms.values()) {
        room.atDisconnect = room.last;
        room.joined = false;
        room.state = undefined;
      }
    });
    socket.on("chat", (chat) => this.chat(chat));
    for (const event of ["exception", "room_closed"]) {
      socket.on(event, (body) => this.fault(`${event} ${JSON.stringify(body)}`));
    }
  }

  fault(text) {
    this.fleet.fault(`follower ${this.name}, connection ${this.connects}: ${text}`);
  }

  enter(rooms) {
    for (const [id, since] of rooms) {
      const room = new Room(id, since);
      room.restart();
      this.rooms.set(room.name, room);
      if (this.socket.connected) this.join(room);
    }
  }

  join(room) {
    const since = room.last;
    const connection = this.connects;
    room.joins++;
    const payload = since === null ? { locationId: room.id } : { locationId: room.id, since };
    this.socket.emit("join_room", payload, (answer) => {
      if (connection !== this.connects || !this.socket.connected) return;
      const said = `join of ${room.name} since ${since} answered ${JSON.stringify(answer)}`;
      if (since === null) {
        if (answer !== room.name) return this.fault(said);
        room.state = null;
      } else {
        if (answer.roomName !== room.name) return this.fault(said);
        // What was seen was committed, so the head is never behind it.
        if (answer.version < since) this.fault(said);
        if (answer.recovered) {
          room.recovered++;
        } else {
          room.unrecovered++;
          room.state = answer.version;
        }
      }
      room.joined = true;
      this.fleet.check();
    });
  }

  chat(chat) {
    const { roomName, version } = chat;
    if (version === undefined) return;
    const room = this.rooms.get(roomName);
    const saw = `room ${roomName}: version ${version} after ${room?.last}`;
    if (!room?.joined) return this.fault(`${saw} before the answer to the join`);
    if (room.state !== undefined) {
      if (version !== (room.state ?? version) || version < (room.last ?? 0)) {
        this.fault(`${saw} where the state ${room.state ?? "of now"} was due`);
      }
      room.state = undefined;
      room.restart();
    } else if (version <= room.last) {
      room.repeats++;
      return this.fault(saw);
    } else if (version !== room.last + 1) {
      room.holes += version - room.last - 1;
      this.fault(saw);
    }
    room.add(chat);
    if (version >= room.target) this.fleet.check();
  }

  summary() {
    const rooms = [...this.rooms.values()].map(
      ({ id, first, last, digest, coordinates, atDisconnect, updates, holes, repeats, joins, recovered, unrecovered, reached }) => ({
        id, first, last, digest, coordinates, atDisconnect, updates, holes, repeats, joins, recovered, unrecovered, reached,
      }),
    );
    return { name: this.name, connected: this.socket.connected, connects: this.connects, reasons: this.reasons, rooms };
  }
}

export class Fleet {
  followers = new Map();
  faults = [];
  waiting = null;

  // `say` is called once everybody is where `reach` wants them.
  constructor(say) {
    this.say = say;
  }

  fault(text) {
    if (this.faults.length < MAX_FAULTS) this.faults.push(text);
  }

  follow(name, socket, rooms) {
    const follower = new Follower(this, name, socket);
    this.followers.set(name, follower);
    follower.enter(rooms);
  }

  enter(name, rooms) {
    this.followers.get(name).enter(rooms);
  }

  // Waits until everybody is connected, and in each room with at least this version of it.
  reach(versions) {
    this.waiting = [...this.followers.values()];
    for (const { rooms } of this.waiting) {
      for (const room of rooms.values()) room.target = versions[room.name] ?? 0;
    }
    this.check();
  }

  // Cheap however often it is called: it looks only as far as the first who is not there yet, and
  // at those who were there before only at the end.
  check() {
    const there = ({ socket, rooms }) => socket.connected && [...rooms.values()].every((room) => room.reached);
    while (this.waiting) {
      while (this.waiting.length && there(this.waiting.at(-1))) this.waiting.pop();
      if (this.waiting.length) return;
      this.waiting = [...this.followers.values()].filter((follower) => !there(follower));
      if (this.waiting.length) continue;
      this.waiting = null;
      this.say();
    }
  }

  summary() {
    return { faults: this.faults, followers: [...this.followers.values()].map((follower) => follower.summary()) };
  }
}
