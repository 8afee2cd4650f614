"""
The benchmark: direct PostgreSQL, PgBouncer and pgshuttle side by side in one run.

    python -m tests.bench [--quick] [--only NAME,...] [--targets NAME,...] [--rounds N] [--seconds S] [--out DIR]

Theory. All targets stand in front of one PostgreSQL for the whole run. In each round each measure is taken from
each target in turn, and the order of the targets rotates, so that none of them always comes after a pause. A
measure that fails on one target is noted and the run goes on; Ctrl-C ends the run early with what there is. Writes
bench.md, bench.json and, with matplotlib, bench.svg to DIR and prints the page. Exit code 0 unless PostgreSQL itself
does not start.
"""

import argparse
import contextlib
import sys
from collections.abc import Sequence
from pathlib import Path
from time import monotonic

from tests.bench.cluster import cluster
from tests.bench.crowd import raise_open_files
from tests.bench.machine import describe_machine
from tests.bench.measure import Bench, Measure, Tier
from tests.bench.measures import MEASURES
from tests.bench.pgbench import timed
from tests.bench.plots import draw
from tests.bench.processes import Failed
from tests.bench.report import Report
from tests.bench.targets import OPENERS, POOLERS, Target
from tests.bench.wire import Complaint

QUICK_SHARE = 0.1  # of rows and clients


def main() -> None:
    """Read the command line, run, write and print the report."""
    args = parse_arguments(sys.argv[1:])
    args.out.mkdir(parents=True, exist_ok=True)
    raise_open_files()
    started = monotonic()
    with cluster() as upstream, contextlib.ExitStack() as stack:
        bench = Bench(upstream, args.out, args.seconds, QUICK_SHARE if args.quick else 1.0)
        machine = {
            **describe_machine(upstream.programs),
            "run": f"rounds: {args.rounds}; {bench.says}",
            "poolers": POOLERS,
        }
        report = Report(machine, args.targets, {measure.name: measure.says for measure in args.only})
        try:
            targets = open_targets(bench, report, args.only, stack)
            for round_ in range(args.rounds):
                play(bench, report, targets, args.only, round_)
        except KeyboardInterrupt:
            report.note("interrupted: not all rounds were run")
    machine["took"] = f"{monotonic() - started:.0f} s"
    write(report, args.out)


def write(report: Report, folder: Path) -> None:
    """The picture, the record and the page; the page is printed too."""
    try:
        words = "{date}; {processor}; {PostgreSQL}; {PgBouncer}".format(**report.machine)
        report.picture = draw(report.results, report.targets, words, folder)
    except Failed as reason:
        report.note(str(reason))
    (folder / "bench.json").write_text(report.to_json())
    (folder / "bench.md").write_text(report.to_markdown())
    print(report.to_markdown())


def parse_arguments(words: Sequence[str]) -> argparse.Namespace:
    """The command line; `only` becomes measures, `targets` names, and what is left out is filled in."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench", description=(__doc__ or "").strip().partition("\n\n")[0]
    )
    parser.add_argument("--quick", action="store_true", help="fewer measures, less of each: does it all work?")
    parser.add_argument("--only", type=_measures, help="these measures: " + ", ".join(m.name for m in MEASURES))
    parser.add_argument("--targets", type=_target_names, default=list(OPENERS), help=", ".join(OPENERS))
    parser.add_argument("--rounds", type=int, help="how often each is measured (3; quick: 1)")
    parser.add_argument("--seconds", type=float, help="length of each timed load (2; quick: 1)")
    parser.add_argument(
        "--out", type=Path, default=Path(".local/bench"), help="folder for bench.md, bench.json and logs"
    )
    args = parser.parse_args(words)
    tiers = {Tier.QUICK} if args.quick else {Tier.QUICK, Tier.FULL}
    args.only = args.only or [measure for measure in MEASURES if measure.tier in tiers]
    args.rounds = args.rounds or (1 if args.quick else 3)
    args.seconds = args.seconds or (1.0 if args.quick else 2.0)
    args.out = args.out.resolve()
    return args


def _measures(words: str) -> list[Measure]:
    known = {measure.name: measure for measure in MEASURES}
    return [known[name] for name in _known(words, list(known))]


def _target_names(words: str) -> list[str]:
    return _known(words, list(OPENERS))


def _known(words: str, known: Sequence[str]) -> list[str]:
    names = words.split(",")
    if unknown := [name for name in names if name not in known]:
        raise argparse.ArgumentTypeError(f"no such name: {', '.join(unknown)}; there are {', '.join(known)}")
    return names


def open_targets(
    bench: Bench, report: Report, measures: Sequence[Measure], stack: contextlib.ExitStack
) -> list[Target]:
    """Start and warm each target that can be had; the others are left out of all measures."""
    targets = []
    for name in report.targets:
        try:
            target = stack.enter_context(OPENERS[name](bench.cluster.address, bench.folder / f"{name}.log"))
            timed(bench.cluster.programs, target.address, 32, 1, ["-S"])
            targets.append(target)
        except (Failed, OSError) as reason:
            print(f"{name}: {reason}", file=sys.stderr)
            for measure in measures:
                if name in measure.targets:
                    report.leave_out(measure.name, name, str(reason))
    return targets


def play(bench: Bench, report: Report, targets: list[Target], measures: Sequence[Measure], round_: int) -> None:
    """One round: each measure on each target in turn."""
    for number, measure in enumerate(measures):
        if measure.is_once and round_ > 0:
            continue
        for target in rotated(targets, round_ + number):
            if target.name in measure.targets:
                take(bench, report, measure, target, round_)


def rotated(targets: list[Target], by: int) -> list[Target]:
    """The same targets, another one first."""
    if not targets:
        return []
    first = by % len(targets)
    return targets[first:] + targets[:first]


def take(bench: Bench, report: Report, measure: Measure, target: Target, round_: int) -> None:
    """Take one measure from one target; what goes wrong is noted."""
    print(f"round {round_ + 1}: {measure.name} on {target.name}", file=sys.stderr)
    try:
        report.results.add(measure.name, target.name, round_, measure.work(bench, target))
    except (Failed, Complaint, OSError) as reason:
        print(f"{measure.name} on {target.name}: {reason}", file=sys.stderr)
        report.leave_out(measure.name, target.name, str(reason))


if __name__ == "__main__":
    main()
