"""Entries to bytes and back: nothing is lost, a digest covers all that matters, and nothing bad stops a reader."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from logact import codec
from logact.entry import (
    KINDS,
    RECORD_ENTRIES_MAX,
    BlobRef,
    Call,
    Entry,
    ErasedPayload,
    Failure,
    Heartbeat,
    Inference,
    Input,
    Intent,
    NewEntry,
    Notice,
    Part,
    Payload,
    Pin,
    Policy,
    Result,
    Run,
    Spec,
    ToolSpec,
    Unknown,
    Usage,
    Vote,
    VoterInPolicy,
    own,
    position_of,
    record_of,
    stricter,
)
from logact.errors import LogCorrupt, TooLarge, UsageError
from tests.core.test_machine_records import sample

BLOB = BlobRef(digest="d" * 43, size=3, media_type="image/png", preview="p")

FULL: list[Payload] = [
    Run(agent="ann", title="t", dry_run=True, answer_schema={"type": "object"}, parent=5),
    Input(run=1, text='hé\n"x"', parts=(Part(text="a"), Part(blob=BLOB))),
    Inference(
        run=1,
        turn=2,
        base=3,
        context=(1, "digest", 2),
        calls=(Call(id="c", tool="t", arguments={"a": [1, {"b": None}]}, raw="{", broken="no"),),
        usage=Usage(input_tokens=1, cost_usd=0.25),
        raw=BLOB,
    ),
    Intent(run=1, agent="ann", tool="t", arguments={"x": 1.5}, pins=(Pin("p", "d"),), effect="read", retry_of=9),
    Vote(approved=None, intent=4, voter="v", scope="run:1", seen=3, confidence=0.5, shadow=True),
    Result(intent=4, value={"a": [True, None]}, blob=BLOB, parts=(Part(blob=BLOB),), truncated=True),
    Result(intent=4, error=Failure(kind="timeout", message="m", definite=True, retry_after_s=1.5)),
    Policy(version=2, expected=1, voters={"v": VoterInPolicy(kind="human", shadow=True)}, need={"k": 1, "of": ["v"]}),
    Spec(agent="ann", tools=(ToolSpec(name="t", parameters={"type": "object"}, effect="idempotent"),)),
]


def encode(*payloads: Payload, key: str = "", **more: Any) -> codec.EncodedRecord:
    """A record of these payloads."""
    entries = [NewEntry(payload=payload, role="client", name="me", **more) for payload in payloads]
    return codec.encode_record(
        entries,
        log="log",
        writer="w",
        number=1,
        previous="",
        time_ms=5,
        randomness=bytes(range(12)) * len(entries),
        key=key,
    )


def decoded(*payloads: Payload, record: int = 7) -> list[Entry]:
    """The entries of a record of these payloads."""
    return codec.decode_record(encode(*payloads).body, record)


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_every_kind_comes_back(kind: str) -> None:
    """The smallest payload of every kind is read back as it was, with its header."""
    payload = sample(kind)
    (entry,) = decoded(payload)
    assert entry.payload == payload
    assert (entry.kind, entry.author.role, entry.log, entry.time_ms) == (kind, "client", "log", 5)
    assert entry.critical == KINDS[kind].CRITICAL


@pytest.mark.parametrize("payload", FULL, ids=lambda one: type(one).__name__)
def test_full_payloads_come_back(payload: Payload) -> None:
    """Payloads with everything set are read back as they were."""
    assert decoded(payload)[0].payload == payload


def test_positions_fold_record_and_index() -> None:
    """A position is the record's number times a thousand plus the index."""
    entries = decoded(Notice(code="a", message=""), Notice(code="b", message=""), record=14)
    assert [entry.position for entry in entries] == [14000, 14001]
    assert (position_of(14, 1), record_of(14001), own(0), own(1)) == (14001, 14, -1, -2)


def test_references_inside_a_record_become_positions() -> None:
    """Negative references point to neighbours; stored bytes keep that form, so hashes don't depend on the place."""
    encoded = codec.encode_record(
        [
            NewEntry(payload=Run(agent="a"), role="client", name="c"),
            NewEntry(payload=Input(run=own(0), text="x"), role="client", name="c", causes=(own(0), 3)),
        ],
        log="log",
        writer="w",
        number=1,
        previous="",
        time_ms=1,
        randomness=b"0" * 24,
    )
    for record in (2, 9):
        _, given_ = codec.decode_record(encoded.body, record)
        assert isinstance(given_.payload, Input)
        assert given_.payload.run == given_.run == position_of(record)
        assert given_.causes == (position_of(record), 3)
    assert b'"run":-1' in encoded.body


def test_headers_say_what_an_entry_is_about() -> None:
    """Agent, run, action and tool are taken from the payload; filters match on them."""
    (entry,) = decoded(Intent(run=4, agent="ann", tool="t"))
    assert (entry.agent, entry.run, entry.tool, entry.action) == ("ann", 4, "t", 0)
    (entry,) = decoded(Vote(approved=True, intent=9))
    assert entry.action == 9


def test_what_is_written_is_small() -> None:
    """Defaults take no room."""
    assert b"arguments" not in encode(Intent(run=1, agent="a", tool="t")).body
    assert decoded(Heartbeat())[0].size == 2


def test_the_body_is_covered_to_the_last_byte() -> None:
    """Whatever byte of a stored record is changed: the check finds it, or what is read is the same."""
    first = encode(Run(agent="ann", title="pay 10"), Input(run=own(0), text="pay 10 €"))
    honest = codec.decode_record(first.body, 1)
    found = same = 0
    for place in range(len(first.body)):
        changed = bytearray(first.body)
        changed[place] ^= 0x01
        try:
            assert codec.check_record(bytes(changed)) != first.hash
        except LogCorrupt:
            found += 1
            continue
        same += codec.decode_record(bytes(changed), 1) == honest
    assert found == len(first.body), (found, same, len(first.body))


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_damage_never_raises_anything_else(data: st.DataObject) -> None:
    """Bytes damaged in any way are read, or refused as LogCorrupt; nothing else comes out."""
    body = bytearray(encode(*FULL).body)
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(body) - 1))
        body[place : place + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    for read in (lambda: codec.decode_record(bytes(body), 3), lambda: codec.check_record(bytes(body))):
        try:
            read()
        except LogCorrupt:
            pass


def test_a_changed_payload_is_named() -> None:
    """The check says which entry of a record does not fit."""
    body = encode(Notice(code="a", message="one"), Notice(code="b", message="two")).body
    with pytest.raises(LogCorrupt, match=r"Entry 1 of a record \(Notice\) does not match its digest"):
        codec.check_record(body.replace(b"two", b"owt"))
    with pytest.raises(LogCorrupt, match="does not match its hash"):
        codec.check_record(body.replace(b'"time":5', b'"time":6'))


def test_lost_payloads_are_found() -> None:
    """A record with fewer payloads than headers is read, without them, and does not verify."""
    raw = msgspec.json.decode(encode(Notice(code="a", message=""), Notice(code="b", message="")).body)
    raw["payloads"].pop()
    body = msgspec.json.encode(raw)
    assert isinstance(codec.decode_record(body, 1)[1].payload, ErasedPayload)
    with pytest.raises(LogCorrupt, match="lost payloads"):
        codec.check_record(body)


def test_an_erasure_keeps_the_hash() -> None:
    """An erased payload is gone with its salt; head and hash stay, and the record verifies."""
    encoded = encode(Notice(code="a", message="one"), Notice(code="b", message="two"))
    body = codec.erase_payload(encoded.body, 0)
    assert codec.check_record(body) == encoded.hash
    assert b"one" not in body
    first, second = codec.decode_record(body, 1)
    assert first.payload == ErasedPayload(kind="Notice")
    assert isinstance(second.payload, Notice)


def test_salts_hide_short_payloads() -> None:
    """Two equal payloads have different digests, so a short one cannot be guessed from its digest."""
    entries = [NewEntry(payload=Notice(code="a", message=""), role="client", name="c")] * 2
    heads = codec.encode_record(
        entries, log="l", writer="w", number=1, previous="", time_ms=1, randomness=bytes(range(24))
    ).heads
    assert heads[0].digest != heads[1].digest


def test_the_content_is_what_is_said() -> None:
    """The content's digest does not depend on time, chain or salt; that of the record does."""
    one = encode(Run(agent="a"))
    two = codec.encode_record(
        [NewEntry(payload=Run(agent="a"), role="client", name="me")],
        log="log",
        writer="other",
        number=9,
        previous="x",
        time_ms=99,
        randomness=b"9" * 12,
    )
    assert one.content == two.content
    assert one.hash != two.hash
    assert encode(Run(agent="b")).content != one.content


def forged(head: dict[str, Any], data: Any) -> Entry:
    """One entry with a changed header and payload."""
    raw = msgspec.json.decode(encode(Run(agent="a")).body)
    raw["head"]["entries"][0].update(head)
    raw["payloads"][0]["data"] = data
    (entry,) = codec.decode_record(msgspec.json.encode(raw), 1)
    return entry


@pytest.mark.parametrize(
    ("head", "data"),
    [
        ({"kind": "Teleport"}, {"to": "moon"}),
        ({"version": 99}, {"agent": "a"}),
        ({}, {"agent": 7}),
        ({}, {}),
        ({}, "text"),
        ({}, [1, 2]),
        ({}, None),
        ({"kind": "Intent"}, {"run": "one", "agent": "a", "tool": "t"}),
        ({"kind": "Recovery"}, {"intent": 1, "attempt": 1, "settlement": "magic"}),
    ],
)
def test_what_cannot_be_understood_is_kept(head: dict[str, Any], data: Any) -> None:
    """An unknown kind, a newer version, a payload that does not fit: kept as it is, never fatal."""
    entry = forged(head, data)
    assert entry.payload == Unknown(kind=head.get("kind", "Run"), data=data)


def test_unknown_fields_of_a_known_kind_are_passed_over() -> None:
    """A field that a later minor version added does not make an entry unreadable."""
    assert forged({}, {"agent": "a", "mood": "good"}).payload == Run(agent="a")


@pytest.mark.parametrize(
    "body", [b"", b"{", b"null", b"[]", b'{"hash":"x"}', b"\xff\xfe", b'{"hash":1,"head":{},"payloads":[]}']
)
def test_a_frame_that_cannot_be_read_is_corrupt(body: bytes) -> None:
    """A record without a readable frame is corruption, said as such by every reader."""
    for read in (
        lambda: codec.decode_record(body, 1),
        lambda: codec.check_record(body),
        lambda: codec.read_head(body),
    ):
        with pytest.raises(LogCorrupt):
            read()


@pytest.mark.parametrize("depth", [codec.DEPTH_MAX + 1, 5_000, 50_000])
def test_deep_values_are_not_written(depth: int) -> None:
    """What nests too deep is refused before it is written (it raised RecursionError)."""
    value: Any = 1
    for _ in range(depth):
        value = [value]
    with pytest.raises(UsageError, match="not JSON"):
        encode(Intent(run=1, agent="a", tool="t", arguments={"x": value}))


def test_brackets_in_texts_are_no_depth() -> None:
    """Only real nesting counts: not brackets in texts, not many values side by side."""
    value = {"text": "[[[" * 200 + '\\"]', "many": [[1], {"a": "}"}] * 200}
    (entry,) = decoded(Intent(run=1, agent="a", tool="t", arguments=value))
    assert isinstance(entry.payload, Intent)
    assert entry.payload.arguments == value


def test_deep_values_of_others_are_corrupt_or_kept() -> None:
    """A forged record that nests deeper than a stack raises LogCorrupt (it was RecursionError, and stopped all)."""
    body = encode(Intent(run=1, agent="a", tool="t", arguments={"x": "DEEP"})).body
    for depth in (codec.DEPTH_MAX + 50, 100_000):
        deep = body.replace(b'"DEEP"', b"[" * depth + b"]" * depth)
        try:
            codec.decode_record(deep, 1)
        except LogCorrupt:
            assert depth == 100_000
        with pytest.raises(LogCorrupt):
            codec.check_record(deep)


def test_numbers_without_a_value_become_null() -> None:
    """JSON has no NaN and no infinity: they are stored as null, and digests agree with that."""
    (entry,) = decoded(Intent(run=1, agent="a", tool="t", arguments={"x": float("nan"), "y": float("inf")}))
    assert isinstance(entry.payload, Intent)
    assert entry.payload.arguments == {"x": None, "y": None}
    assert codec.digest_of({"x": float("nan")}) == codec.digest_of({"x": None})


@pytest.mark.parametrize("value", ["\udcff", {(1, 2): 3}, object()])
def test_what_is_no_json_is_refused(value: Any) -> None:
    """A value that JSON cannot hold is a usage error that says what to do."""
    with pytest.raises(UsageError, match="onvert the value first"):
        encode(Intent(run=1, agent="a", tool="t", arguments={"x": value}))


def test_sizes_are_limited() -> None:
    """A payload, a record and a batch have a largest size; above it nothing is written."""
    with pytest.raises(TooLarge, match="ove large values to blobs"):
        encode(Notice(code="a", message="x" * (codec.PAYLOAD_BYTES_MAX + 1)))
    big = Notice(code="a", message="x" * 200_000)
    with pytest.raises(TooLarge, match="A record is too large"):
        encode(*[big] * 5)
    with pytest.raises(UsageError, match="at least one entry"):
        encode()
    with pytest.raises(UsageError, match="plit the batch"):
        encode(*[Notice(code="a", message="")] * (RECORD_ENTRIES_MAX + 1))


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=15,
)


@settings(max_examples=60, deadline=None)
@given(value=st.dictionaries(st.text(max_size=5), _JSON, max_size=4))
def test_arguments_come_back(value: dict[str, Any]) -> None:
    """Any JSON object is read back as it was, and its digest with it."""
    (entry,) = decoded(Intent(run=1, agent="a", tool="t", arguments=value))
    assert isinstance(entry.payload, Intent)
    assert entry.payload.arguments == value
    assert codec.digest_of(entry.payload.arguments) == codec.digest_of(value)


@settings(max_examples=40, deadline=None)
@given(value=st.dictionaries(st.text(max_size=5), _JSON, min_size=2, max_size=6), data=st.data())
def test_digests_do_not_depend_on_the_order_of_keys(value: dict[str, Any], data: st.DataObject) -> None:
    """Equal values have equal digests, however they were built."""
    keys = data.draw(st.permutations(list(value)))
    assert codec.digest_of({key: value[key] for key in keys}) == codec.digest_of(value)


def test_digests_are_sha_256() -> None:
    """Forty-three characters of URL-safe base 64, the same on every machine."""
    assert codec.digest(b"") == "47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU"
    assert codec.digest_of({"b": 1, "a": [1.0, "é"]}) == codec.digest('{"a":[1.0,"é"],"b":1}'.encode())


def test_blobs_are_checked() -> None:
    """A blob that does not match its digest is corruption."""
    codec.check_blob(codec.digest(b"x"), b"x")
    with pytest.raises(LogCorrupt, match="blob"):
        codec.check_blob(codec.digest(b"x"), b"y")


def test_stricter_effects() -> None:
    """Effects are ordered from read to irreversible."""
    assert stricter("read", "reversible") == "reversible"
    assert stricter("irreversible", "idempotent") == "irreversible"
