"""What W&B wrote without a network, read by its format: LevelDB's log of protocol buffers."""

from __future__ import annotations

import json
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

BLOCK = 32768


def runs(folder: Path) -> list[list[Any]]:
    """The records of each offline run in a recorder's folder, in the order of their beginning."""
    return [_whole(file) for file in sorted((folder / "wandb").glob("offline-run-*/*.wandb"))]


def _whole(file: Path) -> list[Any]:
    """All records; wandb's process writes the last ones after it has said that it is done."""
    end = time.monotonic() + 30
    while True:
        records = list(_records(file.read_bytes()))
        if kinds(records, "exit") or time.monotonic() > end:
            return records
        time.sleep(0.05)


def rows(records: list[Any]) -> dict[int, dict[str, Any]]:
    """The rows of values by their number; a number that comes twice is refused."""
    found: dict[int, dict[str, Any]] = {}
    for record in records:
        if record.WhichOneof("record_type") == "history":
            row = _items(record.history.item)
            number = row.pop("_step")
            assert number not in found
            found[number] = {name: v for name, v in row.items() if not name.startswith("_")}
    return found


def settings(records: list[Any]) -> dict[str, Any]:
    """The run's configuration as it was said last."""
    found: dict[str, Any] = {}
    for record in records:
        kind = record.WhichOneof("record_type")
        if kind in ("run", "config"):
            of = record.run.config if kind == "run" else record.config
            found.update(_items(of.update))
    return found


def kinds(records: list[Any], kind: str) -> list[Any]:
    """All records of a kind, such as ``artifact`` or ``exit``."""
    return [getattr(r, kind) for r in records if r.WhichOneof("record_type") == kind]


def _items(items: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for item in items:
        *outer, name = item.nested_key or [item.key]
        inner = found
        for key in outer:
            inner = inner.setdefault(key, {})
        inner[name] = json.loads(item.value_json)
    return found


def _records(content: bytes) -> Iterator[Any]:
    from wandb.proto import wandb_internal_pb2

    assert content[:4] == b":W&B"
    place, whole = 7, b""
    while place + 7 <= len(content):
        if BLOCK - place % BLOCK < 7:  # no header fits: the block ends with zeros
            place += BLOCK - place % BLOCK
            continue
        _, length, kind = struct.unpack("<IHB", content[place : place + 7])
        whole += content[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # the only part, or the last one
            record = wandb_internal_pb2.Record()
            record.ParseFromString(whole)
            whole = b""
            yield record
