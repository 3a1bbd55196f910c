"""The file tools on real files: what they do, what they refuse, and how doubts are settled."""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import stat
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from logact.tools import ProbeAnswer, Toolbox, ToolContext, ToolError, changing, confine, journal
from logact.tools.confine import Root
from logact.tools.files import Workspace


class Hands:
    """Calls the tools of a workspace as an executor would."""

    def __init__(self, root: Path, **options: Any) -> None:
        self.root = root
        self.box = Toolbox([Workspace(root, **options)])

    def __call__(self, name: str, key: str = "", **arguments: Any) -> Any:
        target = self.box[name]
        return asyncio.run(target.call(target.check(arguments), ToolContext(key=key)))

    def probe(self, name: str, key: str, **arguments: Any) -> ProbeAnswer:
        return asyncio.run(self.box[name].probe(arguments, ToolContext(key=key)))

    def refuses(self, name: str, **arguments: Any) -> str:
        before = snapshot(self.root)
        with pytest.raises(ToolError) as caught:
            self(name, key="refused", **arguments)
        assert caught.value.definite, f"{caught.value} says nothing about what happened"
        assert snapshot(self.root) == before
        return str(caught.value)


def snapshot(root: Path) -> dict[str, Any]:
    return {
        str(path.relative_to(root)): path.read_bytes() if path.is_file() and not path.is_symlink() else None
        for path in sorted(root.rglob("*"))
        if not path.name.startswith(confine.RESERVED)
    }


@pytest.fixture
def hands(tmp_path: Path) -> Hands:
    root = tmp_path / "work"
    root.mkdir()
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret.txt").write_text("SECRET")
    return Hands(root)


# --- what they do ------------------------------


def test_effects_are_declared(hands: Hands) -> None:
    """Each tool says what its effect is, and has the means to settle a doubt that its effect asks for."""
    effects = {name: hands.box[name].effect for name in hands.box}
    assert effects == {
        "read_file": "read",
        "list_files": "read",
        "search_files": "read",
        "checksum_files": "read",
        "find_duplicates": "read",
        "write_file": "idempotent",
        "append_file": "irreversible",
        "move_file": "reversible",
        "delete_file": "irreversible",
        "make_directory": "idempotent",
        "write_manifest": "idempotent",
    }
    for name, effect in effects.items():
        assert hands.box[name].has_probe is (effect in ("reversible", "irreversible"))
        assert hands.box[name].declared
        assert hands.box[name].description
    read_only = Toolbox([Workspace(hands.root, read_only=True)])
    assert {item.effect for item in read_only.values()} == {"read"}


def test_write_and_read(hands: Hands) -> None:
    """What is written is read back, directories are made, and the mode of a replaced file stays."""
    text = "".join(f"line {number}\n" for number in range(5000))
    done = hands("write_file", path="a/b/c.txt", content=text)
    assert done["sha256"] == hashlib.sha256(text.encode()).hexdigest()
    first = hands("read_file", path="a/b/c.txt", limit=10)
    assert first["text"] == "".join(f"line {number}\n" for number in range(10))
    assert first["next_offset"] == 10
    last = hands("read_file", path=str(hands.root / "a/b/c.txt"), offset=4999)
    assert (last["text"], "next_offset" in last) == ("line 4999\n", False)
    (hands.root / "a/b/c.txt").chmod(0o640)
    hands("write_file", path="a/b/c.txt", content="x")
    assert stat.S_IMODE((hands.root / "a/b/c.txt").stat().st_mode) == 0o640
    assert sorted(os.listdir(hands.root / "a/b")) == ["c.txt"]


def test_read_limits(hands: Hands) -> None:
    """A huge line is cut and a binary file refused; neither fills memory or the model's context."""
    (hands.root / "long").write_bytes(b"x" * 10_000_000 + b"\nnext\n")
    result = hands("read_file", path="long")
    assert len(result["text"]) < 20_000
    assert result["text"].endswith("next\n")
    (hands.root / "binary").write_bytes(b"\0\1\2")
    assert "not a text file" in hands.refuses("read_file", path="binary")
    hands.refuses("read_file", path="long", offset=-1)
    hands.refuses("read_file", path="long", limit=0)


def test_named_pipe_does_not_block(hands: Hands) -> None:
    """Opening a named pipe would wait for a writer for ever; it is refused at once."""
    os.mkfifo(hands.root / "pipe")
    assert "special file" in hands.refuses("read_file", path="pipe")
    hands.refuses("write_file", path="pipe", content="x")
    hands.refuses("append_file", path="pipe", content="x")
    assert hands("checksum_files")["files"] == 0


def test_list(hands: Hands) -> None:
    """Listings are sorted, bounded, filtered by name or relative path, and show links without following."""
    hands("write_file", path="b/x.py", content="12")
    hands("write_file", path="a.py", content="1")
    (hands.root / "link").symlink_to("../outside")
    assert hands("list_files") == {
        "entries": [
            {"path": "a.py", "type": "file", "size": 1},
            {"path": "b", "type": "directory"},
            {"path": "link", "type": "link"},
        ],
        "truncated": False,
    }
    found = hands("list_files", recursive=True, pattern="*.py")["entries"]
    assert [entry["path"] for entry in found] == ["a.py", "b/x.py"]
    for number in range(2100):
        (hands.root / f"many{number}").touch()
    many = hands("list_files")
    assert (len(many["entries"]), many["truncated"]) == (2000, True)


def test_search(hands: Hands) -> None:
    """Matching lines come with path and line number, over a tree or one file, bounded."""
    hands("write_file", path="d/one.txt", content="alpha\nbeta\n")
    hands("write_file", path="two.md", content="beta\n" * 300)
    (hands.root / "binary").write_bytes(b"\0beta\n")
    found = hands("search_files", pattern="^bet")
    assert found["matches"][0] == {"path": "d/one.txt", "line": 2, "text": "beta"}
    assert (len(found["matches"]), found["truncated"]) == (200, True)
    assert len(hands("search_files", pattern="^bet", files="*.txt")["matches"]) == 1
    assert len(hands("search_files", pattern="a", path="d/one.txt")["matches"]) == 2
    assert hands("search_files", pattern="nothing") == {"matches": [], "truncated": False}
    assert "regular expression" in hands.refuses("search_files", pattern="(")
    hands.refuses("search_files", pattern="x" * 1000)
    hands.refuses("search_files", pattern="x", path="missing")


def test_catastrophic_pattern_is_killed(hands: Hands, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pattern that backtracks for years ends at the time limit, and the event loop runs on meanwhile."""
    monkeypatch.setattr("logact.tools.searching.SEARCH_SECONDS_MAX", 0.5)
    before = set(children())  # servers that other tests share
    hands("write_file", path="evil", content="a" * 60 + "!\n")

    async def both() -> int:
        ticks = 0
        target = hands.box["search_files"]
        task = asyncio.ensure_future(target.call({"pattern": "(a+)+$"}, ToolContext()))
        while not task.done():
            await asyncio.sleep(0.01)
            ticks += 1
        with pytest.raises(ToolError, match=r"took more than 0\.5 s"):
            await task
        return ticks

    assert asyncio.run(both()) > 20
    assert not set(children()) - before


def test_checksums_manifest_duplicates(hands: Hands) -> None:
    """Checksums agree with hashlib; the manifest is sorted, the same however often written, and leaves itself out."""
    hands("write_file", path="b/2.txt", content="same")
    hands("write_file", path="a/1.txt", content="same")
    hands("write_file", path="c.txt", content="other")
    (hands.root / "empty1").touch()
    (hands.root / "empty2").touch()
    digest = hashlib.sha256(b"same").hexdigest()
    sums = hands("checksum_files")
    assert (sums["files"], sums["bytes"]) == (5, 13)
    assert f"{digest}  4  a/1.txt" in sums["checksums"]
    assert hands("checksum_files", path="c.txt")["files"] == 1
    assert hands("find_duplicates") == {
        "groups": [{"sha256": digest, "size": 4, "paths": ["a/1.txt", "b/2.txt"]}],
        "wasted_bytes": 4,
        "truncated": False,
    }
    first = hands("write_manifest", path=".", target="out/manifest.txt")
    lines = (hands.root / "out/manifest.txt").read_text().splitlines()
    assert lines[0] == f"{digest}  4  a/1.txt"
    assert [line.split("  ")[2] for line in lines] == ["a/1.txt", "b/2.txt", "c.txt", "empty1", "empty2"]
    assert hands("write_manifest", path=".", target="out/manifest.txt") == first


def test_a_crash_while_writing_leaves_the_old_file(hands: Hands, monkeypatch: pytest.MonkeyPatch) -> None:
    """A write that fails halfway leaves the old content and no temporary file."""
    hands("write_file", path="f", content="old")

    def broken(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", broken)
    with pytest.raises(ToolError) as caught:
        hands("write_file", path="f", content="new")
    assert caught.value.kind == "environment"
    assert (hands.root / "f").read_text() == "old"
    assert os.listdir(hands.root) == ["f"]


# --- doubts ------------------------------


def test_move_probe_and_undo(hands: Hands) -> None:
    """The probe tells before from after, and the undo brings it back."""
    arguments = {"source": "a.txt", "target": "sub/b.txt"}
    hands("write_file", path="a.txt", content="x")
    assert hands.probe("move_file", "k", **arguments).happened is False
    hands("move_file", key="k", **arguments)
    answer = hands.probe("move_file", "k", **arguments)
    assert (answer.happened, answer.value) == (True, {"source": "a.txt", "target": "sub/b.txt", "type": "file"})
    assert hands.probe("move_file", "other key", **arguments).happened is None
    undo = hands.box["move_file"].undo(arguments, None, ToolContext(key="u"))
    assert asyncio.run(undo) == "moved sub/b.txt back to a.txt"
    assert hands.probe("move_file", "k", **arguments).happened is False
    assert (hands.root / "a.txt").read_text() == "x"


def test_move_probe_cannot_tell(hands: Hands) -> None:
    """Another file at the target, both gone, or both there: the probe does not guess."""
    arguments = {"source": "a.txt", "target": "b.txt"}
    hands("write_file", path="a.txt", content="x")
    hands("move_file", key="k", **arguments)
    (hands.root / "b.txt").unlink()
    assert hands.probe("move_file", "k", **arguments).happened is None
    (hands.root / "b.txt").write_text("another")
    assert hands.probe("move_file", "k", **arguments).happened is None
    (hands.root / "a.txt").write_text("again")
    assert hands.probe("move_file", "k", **arguments).happened is None


def test_move_never_overwrites(hands: Hands) -> None:
    """An existing target is refused, also by an undo, also for directories."""
    hands("write_file", path="a", content="a")
    hands("write_file", path="b", content="b")
    assert "exists already" in hands.refuses("move_file", source="a", target="b")
    assert "does not exist" in hands.refuses("move_file", source="missing", target="c")
    hands("make_directory", path="d")
    hands("move_file", source="d", target="e")
    hands.refuses("move_file", source="e", target="e/inside")
    hands.refuses("move_file", source=".", target="x")
    with pytest.raises(ToolError) as caught:
        asyncio.run(hands.box["move_file"].undo({"source": "a", "target": "b"}, None, ToolContext()))
    assert caught.value.definite


def test_a_target_that_appears_late_survives(hands: Hands, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that appears at the target between check and rename is not replaced: the kernel refuses."""
    hands("write_file", path="a", content="a")
    original = changing.rename_to_free_name

    def late(old: confine.Place, new: confine.Place) -> None:
        (hands.root / "b").write_text("came late")
        original(old, new)

    monkeypatch.setattr(changing, "rename_to_free_name", late)
    with pytest.raises(ToolError) as caught:
        hands("move_file", source="a", target="b")
    assert caught.value.definite
    assert (hands.root / "b").read_text() == "came late"


def test_delete_and_probe(hands: Hands) -> None:
    """A deletion is recognised as done, as not done, and as unknown."""
    hands("write_file", path="f", content="x")
    assert hands.probe("delete_file", "k", path="f").happened is None, "nothing was begun under this key"
    hands("delete_file", key="k", path="f")
    assert hands.probe("delete_file", "k", path="f").happened is True
    assert hands.probe("delete_file", "other", path="f").happened is None
    (hands.root / "f").write_text("a new one")
    assert hands.probe("delete_file", "k", path="f").happened is None
    assert "does not exist" in hands.refuses("delete_file", path="missing")
    hands("write_file", path="d/f", content="x")
    assert "not empty" in hands.refuses("delete_file", path="d").lower()
    (hands.root / "link").symlink_to("d")
    hands("delete_file", path="link")
    assert (hands.root / "d/f").exists()
    hands("delete_file", path="d/f")
    hands("delete_file", path="d/")
    assert not (hands.root / "d").exists()


@pytest.mark.parametrize("moment", ["before", "after"])
def test_probes_around_a_crash(hands: Hands, monkeypatch: pytest.MonkeyPatch, moment: str) -> None:
    """Killed between the journal and the effect, or after the effect: the probe tells which."""

    class Killed(BaseException):
        pass

    def crash_at(patched: pytest.MonkeyPatch, name: str, function: Callable[..., Any]) -> None:
        def crashing(*arguments: Any, **more: Any) -> Any:
            if name == "write" and len(bytes(arguments[1])) > 50:  # the journal itself
                return function(*arguments, **more)
            if moment == "after":
                function(*arguments, **more)
            raise Killed

        patched.setattr(os, name, crashing)

    happened = moment == "after"
    hands("write_file", path="f", content="text\n")
    for tool_name, call_name, arguments in (
        ("append_file", "write", {"path": "f", "content": "text\n"}),
        ("delete_file", "unlink", {"path": "f"}),
    ):
        with monkeypatch.context() as patched:
            crash_at(patched, call_name, getattr(os, call_name))
            with pytest.raises(Exception, match="Killed"):  # what contains it is an ordinary error
                hands(tool_name, key=tool_name, **arguments)
        assert hands.probe(tool_name, tool_name, **arguments).happened is happened


def test_append_and_probe(hands: Hands) -> None:
    """The same line may be in the file already: only the place counts, not the text."""
    hands("append_file", key="k1", path="log", content="line\n")
    hands("append_file", key="k2", path="log", content="line\n")
    assert (hands.root / "log").read_text() == "line\nline\n"
    for key in ("k1", "k2"):
        answer = hands.probe("append_file", key, path="log", content="line\n")
        assert answer.happened is True
    assert hands.probe("append_file", "k3", path="log", content="line\n").happened is None
    (hands.root / "log").write_text("li")
    assert hands.probe("append_file", "k2", path="log", content="line\n").happened is None


def test_append_torn(hands: Hands) -> None:
    """Half of the text is in the file: neither happened nor not."""
    hands("append_file", key="k", path="log", content="0123456789")
    os.truncate(hands.root / "log", 4)
    answer = hands.probe("append_file", "k", path="log", content="0123456789")
    assert answer.happened is None
    assert "first 4 of 10" in answer.detail


def test_appends_from_many_threads(hands: Hands) -> None:
    """Appends at the same time neither mix nor get lost, and each one's probe finds its own."""
    threads = [
        threading.Thread(
            target=hands, args=("append_file", f"k{number}"), kwargs={"path": "f", "content": f"{number}\n"}
        )
        for number in range(10, 30)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted((hands.root / "f").read_text().split()) == [str(number) for number in range(10, 30)]
    assert all(
        hands.probe("append_file", f"k{number}", path="f", content=f"{number}\n").happened for number in range(10, 30)
    )


def test_journal_is_bounded_hidden_and_survives_nonsense(hands: Hands) -> None:
    """The journal keeps its last records, no tool shows or touches it, and garbage in it stops nothing."""
    for number in range(journal.RECORDS_MAX + 5):
        hands("append_file", key=f"k{number}", path="f", content="x")
    assert hands.probe("append_file", "k0", path="f", content="x").happened is None
    assert hands.probe("append_file", "k20", path="f", content="x").happened is True
    assert [entry["path"] for entry in hands("list_files", recursive=True)["entries"]] == ["f"]
    for name in ("read_file", "delete_file"):
        assert "reserved" in hands.refuses(name, path=journal.NAME)
    assert "reserved" in hands.refuses("write_file", path=journal.NAME, content="[]")
    assert "does not exist" in hands.refuses("move_file", source="f", target=f"d/../{journal.NAME}")
    assert "reserved" in hands.refuses("move_file", source="f", target=f"new/directory/{journal.NAME}")
    (hands.root / journal.NAME).write_bytes(b"\xffgarbage")
    assert hands.probe("append_file", "k20", path="f", content="x").happened is None
    hands("append_file", key="new", path="f", content="x")
    assert hands.probe("append_file", "new", path="f", content="x").happened is True


def children() -> list[str]:
    """This process's children. A thread that ends meanwhile hands its own to another one: all is read again then."""
    while True:
        try:
            threads = [Path(f"/proc/self/task/{one}/children") for one in os.listdir("/proc/self/task")]
            return [child for thread in threads for child in thread.read_text().split()]
        except (FileNotFoundError, ProcessLookupError):
            continue


# --- hostile paths ------------------------------

OUTSIDE = [
    "../outside/secret.txt",
    "..",
    "a/../../outside/secret.txt",
    "./../outside/secret.txt",
    "//etc/passwd",
    "/etc/passwd",
    "/",
    "link/secret.txt",
    "inner/up/secret.txt",
    "absolute/secret.txt",
    "file_link",
    "chain1/secret.txt",
    "loop/secret.txt",
    "a\0b",
    "\0",
    "a" * 300,
    "b/" * 3000 + "c",
    "x" * 5000,
    "\udcff\ud800",
    "/proc/self/root/etc/passwd",
]


@pytest.fixture
def hostile(hands: Hands) -> Hands:
    root = hands.root
    (root / "a").mkdir()
    (root / "inner").mkdir()
    (root / "link").symlink_to("../outside")
    (root / "inner/up").symlink_to("../../outside")
    (root / "absolute").symlink_to(root.parent / "outside")
    (root / "file_link").symlink_to("../outside/secret.txt")
    (root / "chain1").symlink_to("chain2")
    (root / "chain2").symlink_to("a/../../outside")
    (root / "loop").symlink_to("loop")
    (root / "good").write_text("good\n")
    return hands


@pytest.mark.parametrize("path", OUTSIDE)
def test_nothing_outside_is_read_or_changed(hostile: Hands, path: str) -> None:
    """Whatever the path, no tool reads, makes, changes or removes anything outside of the workspace."""
    outside = hostile.root.parent / "outside"
    before = snapshot(outside)
    root = hostile.root
    for name, arguments in (
        ("read_file", {"path": path}),
        ("list_files", {"path": path}),
        ("search_files", {"pattern": "SECRET", "path": path}),
        ("checksum_files", {"path": path}),
        ("find_duplicates", {"path": path}),
        ("write_manifest", {"path": path, "target": "m"}),
        ("write_file", {"path": path, "content": "x"}),
        ("append_file", {"path": path, "content": "x"}),
        ("make_directory", {"path": path}),
        ("move_file", {"source": "good", "target": path}),
        ("write_manifest", {"path": "a", "target": path}),
    ):
        target = hostile.box[name]
        with pytest.raises(ToolError) as caught:
            asyncio.run(target.function(**arguments)) if name == "search_files" else target.function(**arguments)
        assert caught.value.definite, (name, caught.value)
        assert "SECRET" not in str(caught.value)
        assert snapshot(outside) == before
    assert (root / "good").read_text() == "good\n"
    for name, arguments in (
        ("delete_file", {"path": path}),
        ("move_file", {"source": path, "target": "stolen"}),
    ):
        if path == "file_link":  # the link itself may be moved and removed; what it points to may not
            continue
        with pytest.raises(ToolError):
            hostile.box[name].function(**arguments)
        assert snapshot(outside) == before
    hostile.box["delete_file"].function(path="file_link")
    assert snapshot(outside) == before


@pytest.mark.parametrize("path", ["good/", "good/.", "good/..", "good/x", "a/", ""])
def test_trailing_slashes(hostile: Hands, path: str) -> None:
    """A trailing slash asks for a directory: a file under that name is not read, written or removed."""
    for name, arguments in (
        ("read_file", {"path": path}),
        ("write_file", {"path": path, "content": "x"}),
        ("append_file", {"path": path, "content": "x"}),
    ):
        hostile.refuses(name, **arguments)
    if path != "a/":
        hostile.refuses("delete_file", path=path)


def test_links_that_stay_inside_work(hostile: Hands) -> None:
    """Relative, absolute and chained links inside of the workspace are followed for reading; never written to."""
    root = hostile.root
    (root / "a/f").write_text("inside\n")
    (root / "to_a").symlink_to("a")
    (root / "to_f").symlink_to(root / "to_a" / "f")
    (root / "a/back").symlink_to("../a/../to_a/f")
    for path in ("to_a/f", "to_f", "a/back", "a/../to_a/../a/f", f"{root}/to_a/f"):
        assert hostile("read_file", path=path)["text"] == "inside\n"
    hostile.refuses("write_file", path="to_f", content="x")
    hostile.refuses("append_file", path="to_f", content="x")
    hostile("write_file", path="to_a/new", content="x")
    assert (root / "a/new").read_text() == "x"


@pytest.mark.parametrize("kind", ["directory", "file"])
def test_exchanged_between_check_and_use(hands: Hands, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """A component exchanged for a link right after it was looked at is not followed."""
    root = hands.root
    hands("write_file", path="d/secret.txt", content="mine")
    original = confine._read_link

    def exchange(name: str, parent: int) -> str | None:
        found = original(name, parent)
        if kind == "directory" and name == "d" and (root / "d").is_dir() and not (root / "d").is_symlink():
            (root / "d").rename(root / "old")
            (root / "d").symlink_to("../outside")
        if kind == "file" and name == "secret.txt" and not (root / "d/secret.txt").is_symlink():
            (root / "d/secret.txt").unlink()
            (root / "d/secret.txt").symlink_to("../../outside/secret.txt")
        return found

    monkeypatch.setattr(confine, "_read_link", exchange)
    with pytest.raises(ToolError, match=r"symbolic link|not a directory"):
        hands("read_file", path="d/secret.txt")
    assert (root.parent / "outside/secret.txt").read_text() == "SECRET"


def test_exchanging_all_the_time_gains_nothing(hands: Hands) -> None:
    """A thread that keeps exchanging a directory for a link to the outside never makes a tool read or write there."""
    root, outside = hands.root, hands.root.parent / "outside"
    (root / "real").mkdir()
    (root / "real/secret.txt").write_text("mine")
    (root / "d").symlink_to("real")
    stop = threading.Event()

    def exchange() -> None:
        turn = 0
        while not stop.is_set():
            turn += 1
            (root / "next").symlink_to("../outside" if turn % 2 else "real")
            os.rename(root / "next", root / "d")

    thread = threading.Thread(target=exchange)
    thread.start()
    reads = refusals = 0
    try:
        for _ in range(1500):
            try:
                assert hands.box["read_file"].function("d/secret.txt")["text"] == "mine"
                hands.box["write_file"].function("d/written", "x")
                reads += 1
            except ToolError as error:
                assert error.definite
                refusals += 1
    finally:
        stop.set()
        thread.join()
    assert reads
    assert refusals
    assert os.listdir(outside) == ["secret.txt"]


def test_hidden_paths_are_out_of_reach(tmp_path: Path) -> None:
    """The log inside of the workspace is neither read, listed, hashed nor replaced; not by a hard link either."""
    log = tmp_path / "state"
    log.mkdir()
    (log / "log.db").write_text("ENTRIES")
    single = tmp_path / "token"
    single.write_text("TOKEN")
    os.link(single, tmp_path / "innocent")
    hands = Hands(tmp_path, hide=[log, single, tmp_path / "not yet"])
    for path in ("state", "state/log.db", "./x/../state/log.db", str(log / "log.db"), "token", "innocent", "not yet"):
        for name, more in (
            ("read_file", {}),
            ("write_file", {"content": "x"}),
            ("delete_file", {}),
            ("list_files", {}),
        ):
            with pytest.raises(ToolError, match=r"out of reach|does not exist") as caught:
                hands(name, path=path, **more)
            assert caught.value.definite
    hands("make_directory", path="x")
    with pytest.raises(ToolError, match="out of reach"):
        hands("move_file", source="state", target="y")
    with pytest.raises(ToolError, match="out of reach"):
        hands("move_file", source="x", target="not yet")
    assert [entry["path"] for entry in hands("list_files", recursive=True)["entries"]] == ["x"]
    assert hands("checksum_files")["files"] == 0
    assert hands("search_files", pattern=".") == {"matches": [], "truncated": False}


def test_no_handles_are_left_open(hostile: Hands) -> None:
    """Neither success nor refusal leaks a file descriptor."""
    hostile("write_file", path="a/b/c", content="x")
    before = len(os.listdir("/proc/self/fd"))
    for path in (*OUTSIDE, "a/b/c", "a/b/../b/c", "missing/x"):
        for name in ("read_file", "list_files", "checksum_files"):
            try:
                hostile.box[name].function(path)
            except ToolError:
                pass
    assert len(os.listdir("/proc/self/fd")) == before


def test_deep_trees_end(hands: Hands) -> None:
    """A tree deeper than the limit is refused with its path, and holds no handles afterwards."""
    handle = os.open(hands.root, os.O_RDONLY)
    for _ in range(confine.DEPTH_MAX + 10):
        os.mkdir("d", dir_fd=handle)
        inner = os.open("d", os.O_RDONLY, dir_fd=handle)
        os.close(handle)
        handle = inner
    os.close(handle)
    with pytest.raises(ToolError, match="levels deep"):
        hands("checksum_files")


def test_root_must_be_a_directory(tmp_path: Path) -> None:
    """A workspace that is not there is an error at once."""
    with pytest.raises(ToolError, match=re.escape(str(tmp_path / "no"))):
        Root(tmp_path / "no")
