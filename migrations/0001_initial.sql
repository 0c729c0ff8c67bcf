-- Every version of the configuration that this server stored; the highest is in force.
CREATE TABLE config (
    version   INTEGER PRIMARY KEY,
    document  TEXT    NOT NULL,
    stored_at INTEGER NOT NULL
);

-- Which server of the cluster this is: one row once the cluster exists.
CREATE TABLE identity (
    one  INTEGER PRIMARY KEY CHECK (one = 1),
    node INTEGER NOT NULL
);

-- The engine's durable record: one row, replaced whole.
CREATE TABLE record (
    one      INTEGER PRIMARY KEY CHECK (one = 1),
    document TEXT    NOT NULL
);

-- What happened, of both servers.
CREATE TABLE event (
    origin INTEGER NOT NULL,
    number INTEGER NOT NULL,
    at     INTEGER NOT NULL,
    kind   TEXT    NOT NULL,
    PRIMARY KEY (origin, number)
) WITHOUT ROWID;

-- Operators and the hash of their password (Argon2id, PHC string).
CREATE TABLE operator (
    name       TEXT    PRIMARY KEY,
    hash       TEXT    NOT NULL,
    changed_at INTEGER NOT NULL
);

-- One-time logins: only a hash; each is good once on each server.
CREATE TABLE one_time (
    hash       BLOB    PRIMARY KEY,
    expires_at INTEGER NOT NULL,
    used_at    INTEGER
) WITHOUT ROWID;

-- Logged-in browsers of this server: only a hash of the cookie.
CREATE TABLE session (
    hash       BLOB    PRIMARY KEY,
    operator   TEXT    NOT NULL,
    expires_at INTEGER NOT NULL
) WITHOUT ROWID;
