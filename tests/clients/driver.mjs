// Hosts many stock Socket.IO clients for a test harness: commands come in on stdin and what the
// clients see goes out on stdout, one JSON object a line each way.
//
// in   {"op":"connect","client":1,"version":"4"|"3"|"2","url":"http://…","opts":{…}}
//      {"op":"emit","client":1,"event":"join_room","args":[…],"ack":7}   (ack may be left out);
//                                       {"$bytes":3} anywhere in args stands for three bytes of binary data
//      {"op":"disconnect","client":1}   says good-bye to the server
//      {"op":"kill","client":1}         drops the connection without a word
//      {"op":"transport","client":1}
//      {"op":"follow","client":1,"follower":7,"version":…,"url":…,"opts":{…},"rooms":[[42,null],[43,8]]}
//                                       this client is a fleet (fleet.mjs) and gets one more follower,
//                                       which connects again by itself; rooms with the `since` of the
//                                       first join, null for none
//      {"op":"enter","client":1,"follower":7,"rooms":[[44,0]]}   more rooms
//      {"op":"cut","client":1,"follower":7}   as kill
//      {"op":"reach","client":1,"versions":{"42":9}}   answered when everybody is in all rooms, and there
//      {"op":"summary","client":1}
//      {"op":"reset","client":1}        ends all clients and forgets them, so that another test can begin
//      {"op":"block","client":1,"ms":8000}   nothing happens here for so long, nor is anything read
//      {"op":"exit"}                    as does the end of stdin
// out  {"client":1,"kind":"connect","id":"…"}
//      {"client":1,"kind":"connect_error","message":"…","data":{…}}   no connection, or (3.x, 4.x) a refusal
//      {"client":1,"kind":"error","value":…}               2.x: a refusal
//      {"client":1,"kind":"disconnect","reason":"…"}
//      {"client":1,"kind":"event","event":"…","args":[…]}
//      {"client":1,"kind":"ack","ack":7,"args":[…]}
//      {"client":1,"kind":"transport","name":"…"}          null while there is none
//      {"client":1,"kind":"upgrade","name":"websocket"}
//      {"client":1,"kind":"reached"}
//      {"client":1,"kind":"reset"}
//      {"client":1,"kind":"unblocked"}
//      {"client":1,"kind":"summary","faults":["…"],"followers":[…]}

import { Agent } from "node:http";
import { createRequire } from "node:module";
import { createInterface } from "node:readline";
import { Fleet } from "./fleet.mjs";

// Clients are to use their own ws package, but 2.x prefers the WebSocket of newer Node.js.
delete globalThis.WebSocket;

const require = createRequire(import.meta.url);
const clients = new Map();
const fleets = new Map();

let lines = "";

function flush() {
  const text = lines;
  lines = "";
  if (text) process.stdout.write(text);
}

// One write for all that happens in one turn of the event loop.
function report(client, kind, fields) {
  if (!lines) setImmediate(flush);
  lines += JSON.stringify({ client, kind, ...fields }) + "\n";
}

// Leaves only when the other side has everything: process.exit() alone would drop what a full pipe
// has not taken yet.
function finish(status) {
  flush();
  process.stdout.write("", () => process.exit(status));
}

function reportEvent(client, [event, ...args]) {
  // Where the server asks for an acknowledgement the last argument is the function that sends it.
  report(client, "event", { event, args: args.filter((arg) => typeof arg !== "function") });
}

// TCP connections of its own for each client, as devices have; kill() also needs to get at them.
class OwnAgent extends Agent {
  // The XMLHttpRequest of 4.x, when a long poll on a reused connection is cut, begins another and never
  // sends it, so that only the heartbeat tells that the server is gone.
  reuseSocket(socket, request) {
    super.reuseSocket(socket, request);
    request.once("socket", () => (request.reusedSocket = false));
  }
}

const newAgent = () => new OwnAgent({ keepAlive: true });

function open(version, url, opts) {
  const io = require(`socket.io-client-${version}`);
  return io(url, { forceNew: true, agent: newAgent(), ...opts });
}

function connect({ client, version, url, opts }) {
  const socket = open(version, url, { reconnection: false, ...opts });
  clients.set(client, socket);

  socket.on("connect", () => report(client, "connect", { id: socket.id }));
  socket.on("connect_error", (error) =>
    report(client, "connect_error", { message: String(error.message ?? error), data: error.data }),
  );
  socket.on("disconnect", (reason) => report(client, "disconnect", { reason }));
  if (version === "2") {
    socket.on("error", (error) => report(client, "error", { value: error instanceof Error ? error.message : error }));
    const { onevent } = socket;
    socket.onevent = function (packet) {
      reportEvent(client, packet.data);
      onevent.call(this, packet);
    };
  } else {
    socket.onAny((...args) => reportEvent(client, args));
  }
  // Every reconnection makes a new engine.
  socket.io.on("open", () => {
    socket.io.engine.on("upgrade", (transport) => report(client, "upgrade", { name: transport.name }));
  });
}

function kill(socket) {
  const { engine, opts } = socket.io;
  const { transport } = engine;
  if (transport.ws) {
    transport.ws.terminate();
    return;
  }
  // Long polling: with its transport closed already the client sends no close packet, and the
  // requests that the cut makes it try again fail. A reconnection has a new agent.
  const { agent } = opts;
  opts.agent = newAgent();
  transport.onClose();
  agent.addRequest = (request) => request.destroy(new Error("killed"));
  agent.destroy();
}

// Ends everybody without a word, as the end of this process would.
function reset({ client }) {
  const followers = [...fleets.values()].flatMap((fleet) => [...fleet.followers.values()]);
  for (const socket of [...clients.values(), ...followers.map((follower) => follower.socket)]) {
    socket.io.reconnection(false);
    if (socket.io.engine?.transport) kill(socket);
    socket.disconnect();
  }
  clients.clear();
  fleets.clear();
  // Behind what the ends bring about.
  setTimeout(() => report(client, "reset"), 20);
}

function follow({ client, follower, version, url, opts, rooms }) {
  if (!fleets.has(client)) fleets.set(client, new Fleet(() => report(client, "reached")));
  fleets.get(client).follow(follower, open(version, url, opts), rooms);
}

// Buffer is what every generation of clients takes for binary data.
const revive = (key, value) => (value?.$bytes === undefined ? value : Buffer.alloc(value.$bytes, 7));

const operations = {
  connect,
  follow,
  emit({ client, event, args = [], ack }) {
    const done = ack === undefined ? [] : [(...values) => report(client, "ack", { ack, args: values })];
    clients.get(client).emit(event, ...args, ...done);
  },
  disconnect: ({ client }) => clients.get(client).disconnect(),
  kill: ({ client }) => kill(clients.get(client)),
  transport({ client }) {
    report(client, "transport", { name: clients.get(client).io.engine?.transport?.name ?? null });
  },
  enter: ({ client, follower, rooms }) => fleets.get(client).enter(follower, rooms),
  cut: ({ client, follower }) => kill(fleets.get(client).followers.get(follower).socket),
  reach: ({ client, versions }) => fleets.get(client).reach(versions),
  summary: ({ client }) => report(client, "summary", fleets.get(client).summary()),
  reset,
  block({ client, ms }) {
    flush();
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, ms);
    report(client, "unblocked");
    flush(); // before anything that comes in now
  },
  exit: () => finish(0),
};

process.on("uncaughtException", (error) => {
  console.error(error);
  finish(1);
});
process.stdout.on("error", () => process.exit(1)); // the harness is gone

createInterface({ input: process.stdin })
  .on("line", (line) => {
    const command = JSON.parse(line, revive);
    operations[command.op](command);
  })
  .on("close", () => finish(0));
