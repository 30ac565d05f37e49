"""A slice of the attacks: the server lives, answers others, and ends within its grace."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

pytest.importorskip("uvicorn", reason="the server needs the extra server")

import attacks
from served_index import colour_index

GRACE = 5.0
# An encoder without weights, by the name that the index has for it.
SERVE = (
    "import sys; sys.path.insert(0, 'tests/support')\n"
    "import encoders; from colour import ColourEncoder\n"
    "encoders.load_encoder = lambda spec, *given: ColourEncoder(spec)\n" + attacks.SERVE
)
KINDS = ("another site", "as query", "bodies byte by byte", "JSON", "only held", "announced")


def test_others_are_answered_under_attack_and_the_server_ends_when_told(tmp_path: Path) -> None:
    index = colour_index(tmp_path, 24)
    kinds = [one for one in attacks.attacks(scans=300, megabytes=4) if any(kind in one.name for kind in KINDS)]
    assert len(kinds) == len(KINDS)
    asked = attacks.probes("blue/0002.png", 48)
    process, port = attacks.started(index, None, "--grace", GRACE, "--timeout", 3, code=SERVE)
    try:
        attacks.settle(port)
        for attack in kinds:
            _, others = attacks.under(port, attack, asked, 1.0)
            assert process.poll() is None, attack.name
            assert set(others.statuses) <= {"200", "503"}, (attack.name, str(others))
            assert others.statuses.get("200", 0) > 0, (attack.name, str(others))
        assert attacks._resident(process.pid) < 1024**3
        assert asyncio.run(attacks.exchange(port, attacks.request("/healthz"))) == "200"
        seconds, code = attacks.ended(process, port, [one for one in kinds if one.clients <= 16], GRACE + 20)
        assert seconds < GRACE + 1
        assert code in (0, 124)
    finally:
        process.kill()
        process.communicate()
