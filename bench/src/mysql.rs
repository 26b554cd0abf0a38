//! A small client of MySQL for the statements of the bench itself, so that it needs no driver.

use std::{
    error::Error,
    io::{Read, Write},
    net::TcpStream,
    time::{Duration, Instant},
};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Long password, protocol 4.1, secure connection, authentication plugins.
const CAPABILITIES: u32 = 0x1 | 0x200 | 0x8000 | 0x8_0000;
const UTF8MB4: u8 = 45;

/// A connection to MySQL.
pub struct MySql {
    stream: TcpStream,
    sequence: u8,
}

impl MySql {
    /// Logs in; `url` is `mysql://user@host:port`, without a password, as `tests/services/run` gives it.
    pub fn connect(url: &str) -> Result<Self> {
        let rest = url.strip_prefix("mysql://").ok_or("TEST_MYSQL_URL does not begin with mysql://")?;
        let (user, address) = rest.split_once('@').ok_or("TEST_MYSQL_URL has no user")?;
        if user.contains(':') {
            return Err("the bench needs a MySQL user without a password, as tests/services/run has".into());
        }
        let stream = TcpStream::connect(address.trim_end_matches('/'))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        let mut mysql = Self { stream, sequence: 0 };
        mysql.packet()?;
        let mut login = CAPABILITIES.to_le_bytes().to_vec();
        login.extend((1_u32 << 24).to_le_bytes());
        login.push(UTF8MB4);
        login.extend([0; 23]);
        login.extend(user.as_bytes());
        // Without a password the proof is empty, whatever the plugin.
        login.extend(b"\0\0caching_sha2_password\0");
        mysql.send(&login)?;
        loop {
            match mysql.packet()?.first() {
                Some(0) => return Ok(mysql),
                Some(0xfe) => mysql.send(&[])?,
                Some(1) => {}
                _ => return Err("MySQL refused the login".into()),
            }
        }
    }

    /// Carries out a statement and returns the rows as text.
    pub fn query(&mut self, sql: &str) -> Result<Vec<Vec<String>>> {
        self.sequence = 0;
        self.send(&[b"\x03", sql.as_bytes()].concat())?;
        let first = self.packet()?;
        match first.first() {
            Some(0) => return Ok(Vec::new()),
            Some(0xff) => return Err(format!("{sql}: {}", String::from_utf8_lossy(&first[9..])).into()),
            _ => {}
        }
        // The columns, then the rows, each ended by a short packet.
        while self.packet()?.first() != Some(&0xfe) {}
        let mut rows = Vec::new();
        loop {
            let row = self.packet()?;
            if row.first() == Some(&0xfe) && row.len() < 9 {
                return Ok(rows);
            }
            rows.push(fields(&row));
        }
    }

    /// Measures `n` commits that each change one row of a table made for it, in ns.
    pub fn commits(&mut self, n: usize) -> Result<Vec<u64>> {
        self.query("CREATE TABLE IF NOT EXISTS commits (id INT PRIMARY KEY, version BIGINT NOT NULL)")?;
        self.query("INSERT IGNORE INTO commits VALUES (1, 1)")?;
        (0..n)
            .map(|_| {
                std::thread::sleep(Duration::from_millis(10));
                let start = Instant::now();
                self.query("UPDATE commits SET version = version + 1 WHERE id = 1")?;
                Ok(start.elapsed().as_nanos() as u64)
            })
            .collect()
    }

    fn send(&mut self, payload: &[u8]) -> Result<()> {
        let mut packet = (payload.len() as u32).to_le_bytes();
        packet[3] = self.sequence;
        self.sequence = self.sequence.wrapping_add(1);
        Ok(self.stream.write_all(&[&packet, payload].concat())?)
    }

    fn packet(&mut self) -> Result<Vec<u8>> {
        let mut head = [0; 4];
        self.stream.read_exact(&mut head)?;
        self.sequence = head[3].wrapping_add(1);
        let mut payload = vec![0; u32::from_le_bytes([head[0], head[1], head[2], 0]) as usize];
        self.stream.read_exact(&mut payload)?;
        Ok(payload)
    }
}

/// Reads the fields of a row. All of them are short here.
fn fields(row: &[u8]) -> Vec<String> {
    let mut fields = Vec::new();
    let mut at = 0;
    while at < row.len() {
        let length = match row[at] {
            0xfb => 0,
            length => usize::from(length),
        };
        let end = (at + 1 + length).min(row.len());
        fields.push(String::from_utf8_lossy(&row[at + 1..end]).into_owned());
        at = end;
    }
    fields
}
