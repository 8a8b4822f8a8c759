"""Chains that wait suspended, many in a flow run: what waits, what it holds in memory, and what is charged when everybody is killed."""

from __future__ import annotations

import random
import re
import time
from collections import Counter
from pathlib import Path

from tests.bench.measure import MIB, Size, say
from tests.bench.report import Figure
from tests.e2e.stack import ROOT, Stack, fetch, nothing_left_behind
from tests.reliability.crew import Crew, Held, judge, see_through

STEPS = 3
_A_RUN = 100
_AT_A_TIME = 4
_HELD_S = 7200.0


def suspended(size: Size, scratch: Path) -> tuple[list[Figure], str]:
    """Processes, memory and charges of chains that wait suspended."""
    more = {"PREFECT_WORKER_QUERY_SECONDS": "1", "HAPPYHORSE_PRIVATE_NETWORK": "true"}
    with nothing_left_behind() as processes:
        # However slow the machine is: the first jobs end when all runs were seen waiting for them.
        stack = Stack(scratch / "chains", processes, job_s=size.chain_s + _HELD_S, **more)
        runs = _ordered(stack, size.chains)
        crew = Crew(stack, "bench", workers=1, limit=_AT_A_TIME)
        waiting: list[Held] = []

        def look(names: Counter[str]) -> None:
            held = crew.held()
            # One that has just been suspended ends its process a little later.
            if names["Suspended"] == runs and not crew.runs():
                if not waiting:
                    fetch(f"{stack.sandbox}/_sandbox/settings", {"job_s": size.chain_s}, method="PATCH")
                    fetch(f"{stack.sandbox}/_sandbox/clock", {"seconds": _HELD_S})
                waiting.append(held)
            say(f"{dict(names)}, {held.processes} processes, {held.resident / MIB:.0f} MiB, {len(stack.ledger())} charged")

        def kill(chance: random.Random) -> None:
            begun = list(crew.runs())
            which = chance.randrange(len(crew.running) + bool(begun))
            if which < len(crew.running):
                crew.kill(which)
            else:
                crew.kill_run(chance.choice(begun))

        started = time.perf_counter()
        try:
            killed = see_through(
                crew,
                "chains",
                runs,
                jobs=size.chains * STEPS,
                kill=kill,
                kills=size.kills,
                within_s=600 + 20.0 * size.chains,
                look=look,
            )
            wall_s = time.perf_counter() - started
        finally:
            crew.end()
        verdict = judge(stack, size.chains * STEPS)
    most = max(waiting, key=lambda held: held.resident)
    processes_then = max(held.processes for held in waiting)
    return [
        Figure(
            f"{size.chains} chains of {STEPS} jobs of {size.chain_s:g} s in {runs} runs that wait suspended, {killed} SIGKILLs",
            f"the jobs alone: {STEPS * size.chain_s:.0f} s",
            "while all wait 2 processes, 300 MiB; all kept, none charged twice",
            f"{wall_s:.0f} s; while all wait **{processes_then} processes**, **{most.resident / MIB:.0f} MiB**"
            f" ({most.proportional / MIB:.0f} MiB where what they share counts once);"
            f" {verdict.charges} charges, {verdict.lost} lost, **{verdict.double} twice**",
            processes_then <= 2 and most.resident <= 300 * MIB and (verdict.lost, verdict.double, verdict.charges) == (0, 0, verdict.jobs),
        )
    ], ""


def _ordered(stack: Stack, chains: int) -> int:
    """Deploy the flow that docs/flows.md shows, and have it make so many chains; gives in how many runs."""
    page = (ROOT / "docs" / "flows.md").read_text(encoding="utf-8")
    (code,) = (code for code in re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL) if "def chains(" in code)
    (stack.folder / "flow.py").write_text(code, encoding="utf-8")
    stack.prefect("work-pool", "create", "bench", "--type", "process")
    command = ["deploy", "flow.py:chains", "--name", "bench", "--pool", "bench"]
    stack.python("-m", "prefect", "--no-prompt", *command, cwd=stack.folder)
    deployment = fetch(f"{stack.api}/deployments/name/chains/bench")["id"]
    begins = range(0, chains, _A_RUN)
    for begin in begins:
        given = {"scenes": [f"Horse {number}" for number in range(begin, min(begin + _A_RUN, chains))]}
        fetch(f"{stack.api}/deployments/{deployment}/create_flow_run", {"parameters": given})
    return len(begins)
