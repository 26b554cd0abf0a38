// The peer: what a good Node engineer would put in georoom's place. One statement a PUT, prepared once a
// connection; the body of an update made into a packet once, by the adapter; no compression; what is known of
// a location kept in memory, so that nothing is read back. It checks little and keeps no history.
// As `naive` it commits each PUT as a transaction that reads and locks the row, changes it, and keeps a history.
import { createServer } from "node:http";
import mysql from "mysql2";
import { Server } from "socket.io";

const { API_ADDR, GATEWAY_ADDR, DATABASE_URL, ENGINE, POOL = "32" } = process.env;
const address = (text) => ({ host: text.split(":")[0], port: Number(text.split(":")[1]) });

const url = new URL(DATABASE_URL);
const socketPath = url.searchParams.get("socket");
const pool = mysql.createPool({
  ...(socketPath ? { socketPath } : { host: url.hostname, port: Number(url.port) }),
  ...(url.searchParams.get("ssl-mode") === "REQUIRED" && { ssl: { rejectUnauthorized: false } }),
  user: url.username,
  database: url.pathname.slice(1),
  connectionLimit: Number(POOL),
  maxIdle: Number(POOL),
});
const execute = (sql, values) =>
  new Promise((resolve, reject) =>
    pool.execute(sql, values, (error, result) => (error ? reject(error) : resolve(result))),
  );

await execute(
  `CREATE TABLE IF NOT EXISTS location (id BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY, version BIGINT NOT NULL,
   user_id BIGINT NOT NULL, updated_by BIGINT NOT NULL, geometry MEDIUMTEXT NOT NULL,
   properties MEDIUMTEXT NOT NULL, created_at BIGINT NOT NULL, updated_at BIGINT NOT NULL)`,
  [],
);

const isNaive = ENGINE === "naive";
if (isNaive) {
  await execute(
    `CREATE TABLE IF NOT EXISTS history (location_id BIGINT NOT NULL, version BIGINT NOT NULL,
     geometry MEDIUMTEXT NOT NULL, properties MEDIUMTEXT NOT NULL, updated_by BIGINT NOT NULL,
     created_at BIGINT NOT NULL, PRIMARY KEY (location_id, version))`,
    [],
  );
}

// With an engine of its own the WebSocket server is native.
const options = { serveClient: false };
if (ENGINE === "eiows") {
  const eiows = await import("eiows").catch((error) => {
    throw new Error(`no eiows (npm builds it, with Node's own sources from GitHub): ${error.code}`);
  });
  options.wsEngine = eiows.default.Server;
}
const gateway = createServer();
const io = new Server(gateway, options);
const rooms = io.of("/").adapter.rooms;

// id → the location as it stands, and the end of its queue.
const known = new Map();

const isNumber = (value) => typeof value === "number" && Number.isFinite(value);
const isPoint = ({ type, coordinates: c }) =>
  type === "Point" && isNumber(c?.[0]) && isNumber(c[1]) && Math.abs(c[0]) <= 180 && Math.abs(c[1]) <= 90;

const feature = (id, { geometry, properties, version, userId, updatedBy, createdAt, updatedAt }) => ({
  type: "Feature",
  id,
  geometry,
  properties: {
    ...properties,
    version,
    userId,
    updatedBy,
    createdAt: new Date(createdAt).toISOString(),
    updatedAt: new Date(updatedAt).toISOString(),
  },
});
const chat = (id, location, message) => ({
  userId: location.updatedBy,
  message,
  roomName: String(id),
  version: location.version,
});

async function load(id) {
  const found = known.get(id);
  if (found) return found;
  const [row] = await execute("SELECT * FROM location WHERE id = ?", [id]);
  if (!row) return undefined;
  const location = {
    geometry: JSON.parse(row.geometry),
    properties: JSON.parse(row.properties),
    version: row.version,
    userId: row.user_id,
    updatedBy: row.updated_by,
    createdAt: row.created_at,
    updatedAt: row.updated_at,
    queue: undefined,
  };
  if (!known.has(id)) known.set(id, location);
  return known.get(id);
}

async function create({ geometry, properties = {}, userId = 1 }) {
  if (!geometry || !isPoint(geometry)) return [422, { code: "invalid_geometry" }];
  const now = Date.now();
  const { insertId: id } = await execute(
    `INSERT INTO location (version, user_id, updated_by, geometry, properties, created_at, updated_at)
     VALUES (1, ?, ?, ?, ?, ?, ?)`,
    [userId, userId, JSON.stringify(geometry), JSON.stringify(properties), now, now],
  );
  const location = { geometry, properties, version: 1, userId, updatedBy: userId, createdAt: now, updatedAt: now };
  known.set(id, location);
  return [201, { status: 201, data: { location: feature(id, location) } }];
}

// One statement after the other on a connection of the pool; returns the new version.
async function transact(id, geometry, userId, now) {
  const connection = await pool.promise().getConnection();
  try {
    await connection.query("BEGIN");
    const [[row]] = await connection.execute("SELECT version, properties FROM location WHERE id = ? FOR UPDATE", [id]);
    const version = row.version + 1;
    await connection.execute(
      "UPDATE location SET version = ?, geometry = ?, properties = ?, updated_by = ?, updated_at = ? WHERE id = ?",
      [version, geometry, row.properties, userId, now, id],
    );
    await connection.execute("INSERT INTO history VALUES (?, ?, ?, ?, ?, ?)", [
      id,
      version,
      geometry,
      row.properties,
      userId,
      now,
    ]);
    await connection.query("COMMIT");
    return { insertId: version };
  } catch (error) {
    await connection.query("ROLLBACK");
    throw error;
  } finally {
    connection.release();
  }
}

async function update({ id, geometry, userId = 1 }) {
  if (!geometry || !isPoint(geometry)) return [422, { code: "invalid_geometry" }];
  const location = await load(id);
  if (!location) return [404, { code: "not_found" }];
  // One after the other for each location: over several connections answers may overtake each other.
  while (location.queue) await location.queue;
  const now = Date.now();
  const done = isNaive
    ? transact(id, JSON.stringify(geometry), userId, now)
    : execute(
        `UPDATE location SET version = LAST_INSERT_ID(version + 1), geometry = ?, updated_by = ?, updated_at = ?
         WHERE id = ?`,
        [JSON.stringify(geometry), userId, now, id],
      );
  location.queue = done.then(
    () => {},
    () => {},
  );
  try {
    location.version = (await done).insertId;
  } finally {
    location.queue = undefined;
  }
  location.geometry = geometry;
  location.updatedBy = userId;
  location.updatedAt = now;
  const message = feature(id, location);
  const room = String(id);
  if (rooms.has(room)) io.to(room).emit("chat", chat(id, location, message));
  return [201, { status: 201, data: { updatedLocationResult: message } }];
}

async function read(id) {
  const location = await load(id);
  return location ? [200, feature(id, location)] : [404, { code: "not_found" }];
}

const api = createServer({ keepAliveTimeout: 120_000 }, (request, response) => {
  const answer = ([status, body]) => {
    const text = JSON.stringify(body);
    response.writeHead(status, { "content-type": "application/json", "content-length": Buffer.byteLength(text) });
    response.end(text);
  };
  const failed = (error) => answer(error instanceof SyntaxError ? [400, { code: "invalid_json" }] : [500, {}]);
  if (request.method === "GET" && request.url.startsWith("/location/")) {
    return void read(Number(request.url.slice(10))).then(answer, failed);
  }
  const act = request.url === "/location" && { POST: create, PUT: update }[request.method];
  if (!act) return answer([404, { code: "not_found" }]);
  const chunks = [];
  request.on("data", (chunk) => chunks.push(chunk));
  request.on("end", () => {
    const text = chunks.length === 1 ? chunks[0].toString() : Buffer.concat(chunks).toString();
    try {
      act(JSON.parse(text)).then(answer, failed);
    } catch (error) {
      failed(error);
    }
  });
});

io.on("connection", (socket) => {
  socket.on("join_room", async ({ locationId }, ack) => {
    const id = Number(locationId);
    const location = await load(id).catch(() => undefined);
    if (!location) return ack?.({ status: "error", code: "not_found" });
    socket.join(String(id));
    ack?.(String(id));
    socket.emit("chat", chat(id, location, feature(id, location)));
  });
});

api.listen(address(API_ADDR));
gateway.listen(address(GATEWAY_ADDR));
