"""The functions of LogAct's schema, as SQL: an append is one call, so one round trip and one transaction.

The row of the log in ``logact.logs`` is the queue: whoever updates it holds it to the end of the transaction, so
records become visible in the order of their numbers, and a transaction that is rolled back leaves no gap.

This file is text; who calls what is decided elsewhere.
"""

from __future__ import annotations

FITS = """
CREATE FUNCTION logact.fits(p_heads jsonb, p_record bigint, p_filter jsonb) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
    -- an entry's head is [kind, role, agent, tool, run, action]; a negative reference points into the same record.
    -- Whatever a writer may have put there is only no match: it never fails a reader.
    SELECT EXISTS (
        SELECT FROM jsonb_array_elements(p_filter) AS f (clause),
            jsonb_array_elements(CASE jsonb_typeof(p_heads) WHEN 'array' THEN p_heads ELSE '[]' END)
                WITH ORDINALITY AS h (head, place),
            LATERAL (SELECT
                CASE jsonb_typeof(head -> 4) WHEN 'number' THEN (head -> 4)::numeric ELSE 0 END AS run,
                CASE jsonb_typeof(head -> 5) WHEN 'number' THEN (head -> 5)::numeric ELSE 0 END AS action) AS n
        WHERE (NOT clause ? 'kinds' OR clause -> 'kinds' ? (head ->> 0))
            AND (NOT clause ? 'roles' OR clause -> 'roles' ? (head ->> 1))
            AND (NOT clause ? 'agents' OR clause -> 'agents' ? (head ->> 2))
            AND (NOT clause ? 'tools' OR clause -> 'tools' ? (head ->> 3))
            AND (NOT clause ? 'runs' OR clause -> 'runs' @> to_jsonb(
                CASE WHEN head ->> 0 = 'Run' THEN p_record * 1000 + place - 1
                    WHEN n.run < 0 THEN p_record * 1000 - 1 - n.run ELSE n.run END))
            AND (NOT clause ? 'actions' OR clause -> 'actions' @> to_jsonb(
                CASE WHEN head ->> 0 = 'Intent' THEN p_record * 1000 + place - 1
                    WHEN n.action < 0 THEN p_record * 1000 - 1 - n.action ELSE n.action END))
    )
$$"""

OPEN = """
CREATE FUNCTION logact.open(p_name text, p_log_id text, p_created_ms bigint) RETURNS integer
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    INSERT INTO logact.logs (name, log_id, created_ms) VALUES (p_name, p_log_id, p_created_ms)
        ON CONFLICT (name) DO NOTHING;
    SELECT id FROM logact.logs WHERE name = p_name
$$"""

APPEND = """
CREATE FUNCTION logact.append(p_log integer, p_items jsonb, p_data bytea, p_durable boolean) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
-- Answers 'L,CODE,NUMBER,CODE,NUMBER...': L is 1 if somebody listens; for each item what became of it.
DECLARE
    item jsonb;
    blob jsonb;
    body bytea;
    fingerprint bytea;
    v_first bigint; v_tail bigint; v_sealed boolean;
    v_number bigint; v_record bigint; v_digest bytea; v_content text; v_after bigint;
    v_writer text; v_next bigint;
    written boolean; known boolean;
    taken bigint := jsonb_array_length(p_items);
    answers text := '';
BEGIN
    IF p_durable AND current_setting('synchronous_commit') = 'off' THEN
        RAISE EXCEPTION 'synchronous_commit is off' USING ERRCODE = 'LA001';
    END IF;
    -- This update is written whatever the checks below say. It holds the log's row, and it makes this commit wait
    -- for the disk and the standby even if every item turns out to be a repeat: what is repeated may have been
    -- committed here without having reached the standby yet.
    UPDATE logact.logs SET tail = tail + taken WHERE id = p_log
        RETURNING first, tail - taken, sealed INTO v_first, v_tail, v_sealed;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'there is no log %', p_log USING ERRCODE = 'LA002';
    END IF;
    FOR place IN 0 .. jsonb_array_length(p_items) - 1 LOOP
        item := p_items -> place;
        body := substring(p_data FROM (item ->> 'o')::integer FOR (item ->> 's')::integer);
        fingerprint := sha256(body);
        v_writer := item ->> 'w';
        v_next := (item ->> 'n')::bigint;
        written := false;
        IF NOT (v_sealed OR item ? 'k') AND (NOT item ? 'a' OR (item ->> 'a')::bigint = v_tail) THEN
            -- nothing but the writer's number can stand against this one: asked and answered in one statement
            UPDATE logact.writers SET number = v_next, record = v_tail + 1, digest = fingerprint
                WHERE log = p_log AND writer = v_writer AND number = v_next - 1;
            written := FOUND;
        END IF;
        IF NOT written THEN
            SELECT number, record, digest INTO v_number, v_record, v_digest
                FROM logact.writers WHERE log = p_log AND writer = v_writer;
            known := FOUND;
            IF known AND v_number = v_next THEN
                answers := answers || CASE WHEN v_digest = fingerprint THEN ',1,' ELSE ',2,' END || v_record;
                taken := taken - 1;
                CONTINUE;
            ELSIF v_next <> coalesce(v_number, 0) + 1 AND (known OR NOT item ? 'e') THEN
                answers := answers || ',3,' || coalesce(v_number, 0) + 1;
                taken := taken - 1;
                CONTINUE;
            END IF;
            IF item ? 'k' THEN
                SELECT record, content INTO v_record, v_content
                    FROM logact.keys WHERE log = p_log AND key = item ->> 'k';
                IF FOUND THEN
                    answers := answers || CASE WHEN v_content = item ->> 'c' THEN ',4,' ELSE ',5,' END || v_record;
                    taken := taken - 1;
                    CONTINUE;
                END IF;
            END IF;
            IF v_sealed THEN
                answers := answers || ',6,' || v_tail;
                taken := taken - 1;
                CONTINUE;
            END IF;
            IF item ? 'a' THEN
                v_after := (item ->> 'a')::bigint;
                v_record := NULL;
                IF v_after > v_tail THEN
                    answers := answers || ',7,' || v_tail;
                    taken := taken - 1;
                    CONTINUE;
                ELSIF v_after < v_first - 1 THEN
                    answers := answers || ',8,' || v_first;
                    taken := taken - 1;
                    CONTINUE;
                ELSIF v_after < v_tail THEN
                    IF item ? 'f' THEN
                        SELECT record INTO v_record FROM logact.records
                            WHERE log = p_log AND record > v_after AND record <= v_tail
                                AND logact.fits(heads, record, item -> 'f')
                            ORDER BY record LIMIT 1;
                    ELSE
                        v_record := v_after + 1;
                    END IF;
                    IF v_record IS NOT NULL THEN
                        answers := answers || ',9,' || v_record;
                        taken := taken - 1;
                        CONTINUE;
                    END IF;
                END IF;
            END IF;
        END IF;
        IF item ? 'b' THEN
            FOR blob IN SELECT value FROM jsonb_array_elements(item -> 'b') LOOP
                INSERT INTO logact.blobs (log, digest, data) VALUES (
                    p_log, blob ->> 0, substring(p_data FROM (blob ->> 1)::integer FOR (blob ->> 2)::integer))
                    ON CONFLICT (log, digest) DO NOTHING;
            END LOOP;
        END IF;
        v_tail := v_tail + 1;
        INSERT INTO logact.records (log, record, crc, heads, body)
            VALUES (p_log, v_tail, (item ->> 'z')::bigint, item -> 'h', body);
        IF NOT written AND known THEN
            UPDATE logact.writers SET number = v_next, record = v_tail, digest = fingerprint
                WHERE log = p_log AND writer = v_writer;
        ELSIF NOT written THEN
            INSERT INTO logact.writers (log, writer, number, record, digest)
                VALUES (p_log, v_writer, v_next, v_tail, fingerprint);
        END IF;
        IF item ? 'k' THEN
            INSERT INTO logact.keys (log, key, record, content) VALUES (p_log, item ->> 'k', v_tail, item ->> 'c');
        END IF;
        IF item ? 'x' THEN
            v_sealed := true;
            UPDATE logact.logs SET sealed = true WHERE id = p_log;
        END IF;
        IF item ? 'y' THEN
            UPDATE logact.logs SET checkpoint = v_tail WHERE id = p_log;
        END IF;
        answers := answers || ',0,' || v_tail;
    END LOOP;
    IF taken < jsonb_array_length(p_items) THEN
        UPDATE logact.logs SET tail = v_tail WHERE id = p_log;
    END IF;
    -- Listeners hold this lock shared. Only where there are some does anybody have to be told.
    RETURN CASE WHEN pg_try_advisory_xact_lock(1282369345, p_log) THEN '0' ELSE '1' END || answers;
END $$"""

PUT_BLOB = """
CREATE FUNCTION logact.put_blob(p_log integer, p_digest text, p_data bytea) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    -- the update makes the commit wait for disk and standby although the blob may be there already
    INSERT INTO logact.blobs (log, digest, data) VALUES (p_log, p_digest, p_data)
        ON CONFLICT (log, digest) DO UPDATE SET digest = excluded.digest
$$"""

ERASE = """
CREATE FUNCTION logact.erase(p_log integer, p_record bigint, p_old bytea, p_crc bigint, p_new bytea) RETURNS boolean
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    UPDATE logact.records SET body = p_new, crc = p_crc
        WHERE log = p_log AND record = p_record AND sha256(body) = p_old
        RETURNING true
$$"""

TRIM = """
CREATE FUNCTION logact.trim(p_log integer, p_before bigint, p_most integer) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
-- Drops some of the records below p_before; whether more are left to drop.
DECLARE
    v_first bigint; v_before bigint;
BEGIN
    SELECT first, least(p_before, tail + 1) INTO v_first, v_before FROM logact.logs WHERE id = p_log FOR UPDATE;
    IF v_before IS NULL OR v_before <= v_first THEN
        RETURN false;
    END IF;
    DELETE FROM logact.records WHERE log = p_log AND record < least(v_before, v_first + p_most);
    UPDATE logact.logs SET first = least(v_before, v_first + p_most) WHERE id = p_log;
    RETURN v_first + p_most < v_before;
END $$"""
