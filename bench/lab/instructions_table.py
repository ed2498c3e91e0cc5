"""Tables of what callgrind has counted in sessions of two sizes: bench/instructions.

usage: instructions_table.py DIR     the results of bench/lab/instructions
"""

import collections
import glob
import json
import os
import re
import statistics
import sys

OWN = "godwit"
# By the first of these functions that a thread has executed; the process's first thread is control.
THREADS = (("worker", "SourceWorker::Step("), ("worker", "TargetWorker::Step("), ("loader", "Loader::LoadAll("))
# Functions that one thread runs once each time round: how often a packet.
ROUNDS = ("::Step()", "::WorkerBase::Sleep()")
TOP = 12


class Thread:
    """One file of callgrind's: instructions by (object, function), and calls by function."""

    def __init__(self, path, first):
        self.costs = collections.Counter()
        self.calls = collections.Counter()
        names = {}  # (kind, number) → name; the format gives a name once and then its number

        def name(kind, text):
            number, given = re.fullmatch(r"\((\d+)\)(?: (.*))?", text).groups()
            if given is not None:
                names[kind, number] = given
            return names[kind, number]

        where = function = callee = None
        inclusive = False  # the line that follows "calls=" is no cost of the function's own
        for line in open(path, encoding="utf-8", errors="replace"):
            line = line.rstrip("\n")
            if match := re.match(r"(ob|fn|cob|cfn)=(.*)", line):
                key, text = match.groups()
                found = name(key[-2:], text)
                if key == "ob":
                    where = os.path.basename(found)
                elif key == "fn":
                    function = found
                elif key == "cfn":
                    callee = found
            elif line.startswith("calls="):
                self.calls[callee] += int(line[len("calls="):].split()[0])
                inclusive = True
            elif re.match(r"[+\-*\d]", line):
                if not inclusive:
                    self.costs[where, function] += int(line.split()[1])
                inclusive = False
            elif line.startswith("totals:"):
                assert sum(self.costs.values()) == int(line.split()[1]), f"{path}: not all of it is understood"
        functions = {function for _, function in self.costs}
        self.role = "control" if first else next(
            (role for role, part in THREADS if any(part in one for one in functions)), "others")


def kind(where):
    for part, name in (("libibverbs", "libibverbs"), ("librxe", "rxe's provider"), ("liburing", "liburing"),
                       ("ring_poll", "what waits for valgrind"), ("libabsl", "Abseil"), ("libprotobuf", "protobuf"),
                       ("libstdc++", "libstdc++"), ("ld-linux", "the loader"), ("libc.so", "libc")):
        if part in where:
            return name
    return "own code" if where == OWN else "others"


def read(folder):
    """{(round, mib): {(side, role): (costs, calls)}}"""
    sessions = {}
    for path in sorted(glob.glob(os.path.join(folder, "*.callgrind"))):
        number, mib, side, thread_number = os.path.basename(path).split(".")[0].split("-")
        threads = sessions.setdefault((int(number), int(mib)), {})
        thread = Thread(path, first=int(thread_number) == 1)
        costs, calls = threads.setdefault((side, thread.role), (collections.Counter(), collections.Counter()))
        costs.update(thread.costs)
        calls.update(thread.calls)
    return sessions


def slopes(folder):
    """A list of rounds: {(side, role, object, function): instructions a packet}, and the same of calls."""
    sessions = read(folder)
    packets = {}
    for line in open(os.path.join(folder, "sessions.jsonl"), encoding="utf-8"):
        one = json.loads(line)
        packets[one["round"], one["mib"]] = one["packets"]
    small, large = min(mib for _, mib in sessions), max(mib for _, mib in sessions)
    rounds = []
    for number in sorted({number for number, _ in sessions}):
        more = packets[number, large] - packets[number, small]
        costs, calls = collections.Counter(), collections.Counter()
        for mib, sign in ((large, 1), (small, -1)):
            for (side, role), (thread_costs, thread_calls) in sessions[number, mib].items():
                for (where, function), cost in thread_costs.items():
                    costs[side, role, where, function] += sign * cost / more
                for function, count in thread_calls.items():
                    calls[side, role, function] += sign * count / more
        rounds.append((costs, calls))
    return rounds


def cell(values):
    def shown(value):
        return f"{value:,.0f}" if abs(value) >= 10 or value == 0 else f"{value:.2g}"
    return f"{shown(statistics.median(values))} ({shown(min(values))} to {shown(max(values))})"


def main():
    rounds = slopes(sys.argv[1])

    def cost(wanted):
        return [sum(value for key, value in costs.items() if wanted(*key)) for costs, _ in rounds]

    def counts(values):
        return abs(statistics.median(values)) >= 0.5

    data, sides = ("worker", "loader"), ("send", "receive")
    print("| own code, instructions a packet | source | target | both |\n|---|---:|---:|---:|")
    for label, roles in (("worker", ("worker",)), ("loader", ("loader",)), ("**worker and loader**", data),
                         ("control", ("control",)), ("others", ("others",)), ("**all**", None)):
        of = [cost(lambda side, role, where, _, sides=sides: side in sides and (roles is None or role in roles)
                   and kind(where) == "own code") for sides in (("send",), ("receive",), sides)]
        if any(counts(values) for values in of):
            print(f"| {label} | {' | '.join(cell(values) if counts(values) else '–' for values in of)} |")

    print("\n| all code, both sides | worker and loader | control and others |\n|---|---:|---:|")
    for name in sorted({kind(where) for costs, _ in rounds for _, _, where, _ in costs}):
        of = [cost(lambda _, role, where, __, inside=inside: kind(where) == name and (role in data) == inside)
              for inside in (True, False)]
        if any(counts(values) for values in of):
            print(f"| {name} | {' | '.join(cell(values) if counts(values) else '–' for values in of)} |")

    print("\n| side | times a packet | a packet |\n|---|---|---:|")
    for side in sides:
        for part in ROUNDS:
            values = [sum(count for (at, role, function), count in calls.items()
                          if at == side and role == "worker" and part in function) for _, calls in rounds]
            print(f"| {side} | {part.strip(':()')} | {cell(values)} |")

    print("\n| side | thread | function of ours | a packet |\n|---|---|---|---:|")
    ours = {(side, role, function) for costs, _ in rounds for side, role, where, function in costs
            if kind(where) == "own code"}
    each = {one: [sum(value for (side, role, where, function), value in costs.items()
                      if (side, role, function) == one and kind(where) == "own code") for costs, _ in rounds]
            for one in ours}
    for one in sorted(each, key=lambda one: -statistics.median(each[one]))[:TOP]:
        side, role, function = one
        print(f"| {side} | {role} | `{re.sub(r'[(].*', '', function.replace('(anonymous namespace)::', ''))}` "
              f"| {cell(each[one])} |")


main()
