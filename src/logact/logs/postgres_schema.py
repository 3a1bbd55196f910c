"""LogAct's schema in PostgreSQL: tables and functions as numbered migrations, and the roles that may use them.

A database holds many logs in the schema ``logact``. Everything that writes is a function with the rights of the
schema's owner, so that a role which may append cannot change or delete what is there.
``python -m logact.logs.postgres_schema`` prints the whole as a script for ``psql``.

This file owns the format. It never reads or writes records.
"""

from __future__ import annotations

from logact.logs.postgres_functions import APPEND, ERASE, FITS, OPEN, PUT_BLOB, TRIM

LOCK_CLASS = 0x4C6F6741  # "LogA": the first key of every advisory lock that LogAct takes
MIGRATION_LOCK = 0  # the second; logs have numbers from 1 on

FORMAT = "SELECT version FROM logact.format"

MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        "CREATE SCHEMA IF NOT EXISTS logact",
        "CREATE TABLE logact.format (one boolean PRIMARY KEY DEFAULT true CHECK (one), version integer NOT NULL)",
        "INSERT INTO logact.format (version) VALUES (0)",
        # a row is updated by every append: room on its page keeps these updates out of the indexes
        """CREATE TABLE logact.logs (
            id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
            name text NOT NULL UNIQUE,
            log_id text NOT NULL,
            created_ms bigint NOT NULL,
            first bigint NOT NULL DEFAULT 1,
            tail bigint NOT NULL DEFAULT 0,
            checkpoint bigint NOT NULL DEFAULT 0,
            sealed boolean NOT NULL DEFAULT false
        ) WITH (fillfactor = 10)""",
        """CREATE TABLE logact.records (
            log integer NOT NULL,
            record bigint NOT NULL,
            crc bigint NOT NULL,
            heads jsonb NOT NULL,
            body bytea NOT NULL,
            PRIMARY KEY (log, record)
        )""",
        """CREATE TABLE logact.writers (
            log integer NOT NULL,
            writer text NOT NULL,
            number bigint NOT NULL,
            record bigint NOT NULL,
            digest bytea NOT NULL,
            PRIMARY KEY (log, writer)
        ) WITH (fillfactor = 50)""",
        """CREATE TABLE logact.keys (
            log integer NOT NULL,
            key text NOT NULL,
            record bigint NOT NULL,
            content text NOT NULL,
            PRIMARY KEY (log, key)
        )""",
        """CREATE TABLE logact.blobs (
            log integer NOT NULL,
            digest text NOT NULL,
            data bytea NOT NULL,
            PRIMARY KEY (log, digest)
        )""",
        FITS,
        OPEN,
        APPEND,
        PUT_BLOB,
        ERASE,
        TRIM,
        "REVOKE ALL ON ALL FUNCTIONS IN SCHEMA logact FROM PUBLIC",
        "REVOKE ALL ON SCHEMA logact FROM PUBLIC",
        # for people with psql
        """CREATE VIEW logact.log_records AS
            SELECT logs.name AS log, records.record, convert_from(records.body, 'UTF8') AS body
            FROM logact.records JOIN logact.logs ON logs.id = records.log""",
    ),
)
"""One tuple of statements for each version of the schema; ``logact.format`` holds how many were applied."""

ROLES = """
DO $$
DECLARE role text;
BEGIN
    FOREACH role IN ARRAY ARRAY['logact_reader', 'logact_writer', 'logact_operator'] LOOP
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = role) THEN
            EXECUTE format('CREATE ROLE %I NOLOGIN', role);
        END IF;
    END LOOP;
END $$;

-- a reader sees every log of this database, and appends nothing
GRANT USAGE ON SCHEMA logact TO logact_reader;
GRANT SELECT ON ALL TABLES IN SCHEMA logact TO logact_reader;
GRANT EXECUTE ON FUNCTION logact.fits(jsonb, bigint, jsonb) TO logact_reader;

-- a writer appends; it cannot update, delete or reorder, not even what it wrote itself
GRANT logact_reader TO logact_writer;
GRANT EXECUTE ON FUNCTION logact.open(text, text, bigint) TO logact_writer;
GRANT EXECUTE ON FUNCTION logact.append(integer, jsonb, bytea, boolean) TO logact_writer;
GRANT EXECUTE ON FUNCTION logact.put_blob(integer, text, bytea) TO logact_writer;

-- an operator may also erase payloads and drop what lies before a checkpoint
GRANT logact_writer TO logact_operator;
GRANT EXECUTE ON FUNCTION logact.erase(integer, bigint, bytea, bigint, bytea) TO logact_operator;
GRANT EXECUTE ON FUNCTION logact.trim(integer, bigint, integer) TO logact_operator;
"""
"""Roles for people to inherit: ``GRANT logact_writer TO ann``. The owner of the schema stays out of daily use."""


def script() -> str:
    """Everything that a database administrator runs once, as the role that is to own the schema."""
    steps = [statement + ";" for version in MIGRATIONS for statement in version]
    begin = f"BEGIN;\nSELECT pg_advisory_xact_lock({LOCK_CLASS}, {MIGRATION_LOCK});"
    done = f"UPDATE logact.format SET version = {len(MIGRATIONS)};"  # noqa: S608 a number of our own
    return "\n\n".join([begin, *steps, done, ROLES, "COMMIT;"])


if __name__ == "__main__":
    import sys

    sys.stdout.write(script() + "\n")
