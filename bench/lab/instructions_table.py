"""Tables of what callgrind has counted in sessions of two sizes: bench/instructions.

usage: instructions_table.py DIR [--json]     the results of bench/lab/instructions
"""

import collections
import glob
import json
import os
import re
import statistics
import sys

OWN, OWN_CODE = "godwit", "own code"
NAMES = {"send": "source", "receive": "target"}
# By the first of these functions that a thread has executed; the process's first thread is control.
THREADS = (("worker", "SourceWorker::Step("), ("worker", "TargetWorker::Step("), ("loader", "Loader::LoadAll("))
# What a worker does once each time round, and, in some rounds, when there is nothing to do.
STEP, SLEEP = "::Step()", "::WorkerBase::Sleep()"
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
    return OWN_CODE if where == OWN else "others"


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


def slopes(sessions, packets):
    """A list of rounds: {(side, role, object, function): instructions a packet}, and the same of calls."""
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


def packet_counts(folder):
    """{(round, mib): packets}"""
    lines = [json.loads(line) for line in open(os.path.join(folder, "sessions.jsonl"), encoding="utf-8")]
    return {(one["round"], one["mib"]): one["packets"] for one in lines}


def least_squares(rows, wanted):
    """The factors of each row's columns whose sums come closest to what is wanted, by Gauss."""
    size = len(rows[0])
    table = [[sum(row[i] * row[j] for row in rows) for j in range(size)]
             + [sum(row[i] * one for row, one in zip(rows, wanted))] for i in range(size)]
    for i in range(size):
        pivot = max(range(i, size), key=lambda k: abs(table[k][i]))
        table[i], table[pivot] = table[pivot], table[i]
        for k in range(size):
            if k != i:
                factor = table[k][i] / table[i][i]
                table[k] = [one - factor * other for one, other in zip(table[k], table[i])]
    return [row[size] / row[i] for i, row in enumerate(table)]


def packets_and_rounds(sessions, packets, side):
    """What a packet and what a round cost that side's worker in our own code, and how far the worst session is
    from that, as a part of it: of all sessions, which have more of the one or of the other."""
    rows, own = [], []
    for session, threads in sessions.items():
        costs, calls = threads[side, "worker"]
        rows.append((1, packets[session], sum(count for function, count in calls.items() if STEP in function)))
        own.append(sum(cost for (where, _), cost in costs.items() if kind(where) == OWN_CODE))
    factors = least_squares(rows, own)
    off = max(abs(sum(map(lambda a, b: a * b, row, factors)) / one - 1) for row, one in zip(rows, own))
    return factors[1], factors[2], off


def cell(values):
    def shown(value):
        return f"{value:,.0f}" if abs(value) >= 10 or value == 0 else f"{value:.2g}"
    return f"{shown(statistics.median(values))} ({shown(min(values))} to {shown(max(values))})"


def as_json(sessions, packets, rounds):
    """Of each round our own code's instructions a packet by thread, and how often workers go round a packet;
    and what goes with packets and what with rounds."""
    found = {"rounds": [], "workers": {}}
    for costs, calls in rounds:
        own = {f"{NAMES[side]} {role}": 0.0 for side in NAMES for role in ("worker", "loader", "control", "others")}
        for (side, role, where, _), cost in costs.items():
            if kind(where) == OWN_CODE:
                own[f"{NAMES[side]} {role}"] += cost
        found["rounds"].append({"own": own, "goes_round": {
            NAMES[side]: sum(count for (at, role, function), count in calls.items()
                             if at == side and role == "worker" and STEP in function) for side in NAMES}})
    if len(sessions) > 5:  # with fewer it is chance what goes with which
        for side in NAMES:
            packet, once, off = packets_and_rounds(sessions, packets, side)
            found["workers"][NAMES[side]] = {"a_packet": packet, "a_round": once, "off": off}
    print(json.dumps(found))


def main():
    sessions, packets = read(sys.argv[1]), packet_counts(sys.argv[1])
    rounds = slopes(sessions, packets)
    if "--json" in sys.argv[2:]:
        as_json(sessions, packets, rounds)
        return

    def cost(wanted):
        return [sum(value for key, value in costs.items() if wanted(*key)) for costs, _ in rounds]

    def counts(values):
        return abs(statistics.median(values)) >= 0.5

    data, sides = ("worker", "loader"), ("send", "receive")
    print("| own code, instructions a packet | source | target | both |\n|---|---:|---:|---:|")
    for label, roles in (("worker", ("worker",)), ("loader", ("loader",)), ("**worker and loader**", data),
                         ("control", ("control",)), ("others", ("others",)), ("**all**", None)):
        of = [cost(lambda side, role, where, _, sides=sides: side in sides and (roles is None or role in roles)
                   and kind(where) == OWN_CODE) for sides in (("send",), ("receive",), sides)]
        if any(counts(values) for values in of):
            print(f"| {label} | {' | '.join(cell(values) if counts(values) else '–' for values in of)} |")

    print("\n| all code, both sides | worker and loader | control and others |\n|---|---:|---:|")
    for name in sorted({kind(where) for costs, _ in rounds for _, _, where, _ in costs}):
        of = [cost(lambda _, role, where, __, inside=inside: kind(where) == name and (role in data) == inside)
              for inside in (True, False)]
        if any(counts(values) for values in of):
            print(f"| {name} | {' | '.join(cell(values) if counts(values) else '–' for values in of)} |")

    print("\n| worker | times | a packet |\n|---|---|---:|")
    for side in sides:
        for what, part in (("goes round", STEP), ("has nothing to do", SLEEP)):
            values = [sum(count for (at, role, function), count in calls.items()
                          if at == side and role == "worker" and part in function) for _, calls in rounds]
            print(f"| {NAMES[side]} | {what} | {cell(values)} |")

    if len(sessions) > 5:  # with fewer it is chance what goes with which
        print("\n| worker, own code | a packet | a round | sessions are off by at most |\n|---|---:|---:|---:|")
        for side in sides:
            packet, once, off = packets_and_rounds(sessions, packets, side)
            print(f"| {NAMES[side]} | {packet:,.0f} | {once:,.0f} | {100 * off:.1f} % |")

    print("\n| side | thread | function of ours | a packet |\n|---|---|---|---:|")
    ours = {(side, role, function) for costs, _ in rounds for side, role, where, function in costs
            if kind(where) == OWN_CODE}
    each = {one: [sum(value for (side, role, where, function), value in costs.items()
                      if (side, role, function) == one and kind(where) == OWN_CODE) for costs, _ in rounds]
            for one in ours}
    for one in sorted(each, key=lambda one: -statistics.median(each[one]))[:TOP]:
        side, role, function = one
        print(f"| {NAMES[side]} | {role} | `{re.sub(r'[(].*', '', function.replace('(anonymous namespace)::', ''))}` "
              f"| {cell(each[one])} |")


main()
