"""``flask webhook simulate``: a service on loopback that behaves like the real one, with faults to switch on."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from .commands import PlainCommand
from .documents import json_option, print_document
from .parameters import with_options
from .terminal import escaped

if TYPE_CHECKING:
    from ..testing import CreatorSimulator

__all__ = ["simulate_command"]

F = TypeVar("F", bound=Callable[..., Any])

_FAULTS = {
    "lose": "whose callbacks are never sent",
    "delay": "whose callbacks are late",
    "duplicate": "whose callback is sent twice",
    "reorder": "whose callbacks arrive in reverse order",
    "contradict": "whose callbacks contradict each other",
    "forge": "for which a forged callback is sent",
    "hang": "whose polls are never answered",
    "fail": "that fail",
    "refuse": "whose submission is refused",
}


def _fault_option(name: str, tasks: str) -> Callable[[F], F]:
    kind = click.FloatRange(0, 1)
    return click.option(f"--{name}", type=kind, default=0.0, metavar="RATE", help=f"Share of tasks {tasks}.")


@click.command("simulate", cls=PlainCommand, short_help="Run a simulated service on loopback.")
@click.option("--port", type=click.IntRange(0, 65_535), default=3001, show_default=True, help="0 picks a free port.")
@click.option("--api", type=click.Choice(["real", "paper"]), default="real", show_default=True)
@click.option("--database", type=click.Choice(["sqlite", "postgres"]), default="sqlite", show_default=True)
@click.option("--gateway", is_flag=True, help="Put a gateway in front, which answers 502 while the service is down.")
@click.option(
    "--outage",
    type=click.FloatRange(0, min_open=True),
    nargs=2,
    metavar="AFTER LENGTH",
    help="Let the gateway answer 502, 504, a page and 429, from AFTER seconds after the start, for LENGTH seconds.",
)
@click.option(
    "--time-scale",
    type=click.FloatRange(0, min_open=True),
    default=1.0,
    show_default=True,
    help="Factor for its 10 s time-out and its 5 s between tries.",
)
@click.option(
    "--work-time",
    type=click.FloatRange(0),
    nargs=2,
    default=(1.0, 5.0),
    show_default=True,
    metavar="MIN MAX",
    help="Duration of a task in seconds.",
)
@click.option("--latency", type=click.FloatRange(0), default=0.0, show_default=True, help="Seconds before each answer.")
@click.option("--seed", type=int, help="Makes random choices repeatable, for the same task ids.")
@with_options(*(_fault_option(name, tasks) for name, tasks in _FAULTS.items()))
@click.option(
    "--delay-by", type=click.FloatRange(0), default=5.0, show_default=True, help="Length of --delay in seconds."
)
@click.option(
    "--crash-at", type=click.IntRange(1), multiple=True, metavar="N", help="Crash on the N-th submission. Repeatable."
)
@click.option(
    "--restart-after", type=click.FloatRange(0), default=1.0, show_default=True, help="Downtime of a crash in seconds."
)
@json_option
def simulate_command(
    port: int,
    seed: int | None,
    delay_by: float,
    crash_at: tuple[int, ...],
    outage: tuple[float, float] | None,
    *,
    gateway: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Run a simulated service on 127.0.0.1 until SIGTERM or Ctrl-C; its URL is the first line on stdout.

    It calls back like content-creator, and crashes on the same calls (--api real) or behaves as documented (--api
    paper). At the end it prints a summary; with --json only that goes to stdout, and the URL to stderr.
    """
    from ..testing import CreatorSimulator, Faults, run_simulator

    rates = {name: options.pop(name) for name in _FAULTS}
    try:
        simulator = CreatorSimulator(
            port=port,
            seed=seed,
            faults=Faults(**rates, delay_by=delay_by, crash_at=crash_at),
            gateway=gateway or outage is not None,
            **options,
        )
    except ValueError as error:
        raise click.UsageError(escaped(error)) from None

    def announce(simulator: CreatorSimulator) -> None:
        click.echo(simulator.base_url, err=as_json)
        click.echo(f"Set CREATOR_API_BASE_URL={simulator.base_url} (seed {simulator.seed}).", err=True)
        if outage is not None:
            timer = threading.Timer(outage[0], simulator.begin_outage, [outage[1]])
            timer.daemon = True
            timer.start()

    try:
        run_simulator(simulator=simulator, announce=announce)
    except OSError as error:
        raise click.ClickException(f"Port {port} cannot be used: {error.strerror or error}.") from error
    _summarise(simulator, as_json=as_json)


def _summarise(simulator: CreatorSimulator, *, as_json: bool) -> None:
    states = Counter(record.state for record in simulator.tasks.values())
    answers = Counter(
        "never sent" if record.attempt == 0 else str(record.status or record.error) for record in simulator.callbacks
    )
    summary: dict[str, Any] = {
        "tasks": states,
        "callbacks": answers,
        "requests": simulator.requests,
        "deaths": simulator.death_reasons,
    }
    if as_json:
        print_document({"url": simulator.base_url, "seed": simulator.seed, **summary})
        return
    for name, counts in summary.items():
        counted = counts if isinstance(counts, Counter) else Counter(counts)
        parts = [f"{count} {escaped(value)}" for value, count in counted.most_common()]
        click.echo(f"{name}: {', '.join(parts) or 'none'}")
