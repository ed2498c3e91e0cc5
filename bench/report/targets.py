"""What the project has set itself: each line's figure, and whether it is met."""

from results import DEFAULT, DEVICES, LANES, cpu, median, percentile, rate


MET, NOT_MET, UNDECIDED = "met", "**not met**", "undecided: within the spread"


# What no run of tools/bench measures: bench/report/lab.md, and tests.
BY_HAND = (
    ("lab, queue pairs, against ib_send_bw at 1 MiB, 4 queue pairs, CRC off: rate", "≥ 0.95 ×",
     "0.89 × (0.83 to 0.95), by hand; the limit, for whoever reads from a file: 0.92 × (0.91 to 0.92)", NOT_MET),
    ("lab, TCP, synth device of 1 GiB, against QEMU multifd: rate", "≥ 1.5 ×",
     "with PRE_COPY: 2.62 × (2.61 to 2.62), without: 1.71 × (1.56 to 1.72), by hand", MET),
    ("the same: downtime", "≤ 0.6 ×",
     "with PRE_COPY: 0.03 × (0.03 to 0.04), without: 0.56 × (0.56 to 0.56); bare TCP 0.54 × (0.53 to 0.55), by hand", MET),
    ("the same, 256 MiB: rate", "≥ 1.5 ×",
     "with PRE_COPY: 1.99 × (1.94 to 2.01), without: 1.68 × (1.55 to 1.78), by hand", MET),
    ("the same: downtime", "≤ 0.6 ×", "with PRE_COPY: 0.03 × (0.03 to 0.03), without: 0.49 × (0.40 to 0.49), by hand", MET),
    ("lab, queue pairs, 1 GiB, against QEMU multifd over TCP: rate", "shown",
     "with PRE_COPY: 0.93 × (0.91 to 0.99), without: 0.70 × (0.62 to 0.72), by hand", "shown"),
    ("lab, instructions a packet in our own code, queue pairs, CRC off, both sides", "< 5,000",
     "4,750 (4,478 to 4,816), 690 of them for control, by hand", MET),
    ("copies of payload in user space, over TCP and queue pairs", "0",
     "0: the tests tools.hot_path and lab.hot_path_over_verbs count", MET),
    ("allocations a packet in steady state, the same", "0", "0: these tests count", MET),
)


def over(values, target, more_is_better):
    """(figure, verdict) of a list of ratios; None where there is none. A target between the smallest and
    the largest of several rounds is neither met nor missed."""
    if not values:
        return None
    figure = f"{median(values):.2f} × ({min(values):.2f} to {max(values):.2f})"
    each = {value >= target if more_is_better else value <= target for value in values}
    if len(each) > 1:
        return figure, UNDECIDED
    return figure, MET if each == {True} else NOT_MET


# (program, what the target asks of its rate)
PEER_TARGETS = (("socat", 1.15), ("dd-nc", 3.5))


def limits(results):
    """program → [what the target asks for over what all CPUs together could do at the C reference's CPU
    seconds a GiB, one a round]: over 1 is out of reach for four copies of each byte."""
    floor = results.by_key.get("floor/connections=1", {})
    cpus = results.data["machine"]["cpus"]
    return {peer: [rate_min * rate(of[r]) * cpu(floor[r]) / cpus for r in sorted(of) if r in floor]
            for peer, rate_min in PEER_TARGETS for of in [results.by_key.get(peer, {})]}


def targets(results):
    """[(what, target, figure or "–", verdict or why there is none)]"""
    rows = []

    def add(what, target, found, key):
        if found is None:
            rows.append((what, target, "–", results.why_not(key)))
        else:
            rows.append((what, target, *found))

    for crc, rate_min, cpu_max in (("off", 0.97, 1.08), ("on", 0.90, 1.20)):
        for lanes in LANES:
            key, floor = f"godwit/lanes={lanes}/crc={crc}", f"floor/connections={lanes}"
            what = f"C reference, {lanes} connection{'s' if lanes > 1 else ''}, CRC {crc}"
            add(f"{what}: rate", f"≥ {rate_min:.2f} ×", over(results.ratios(key, floor, rate), rate_min, True), key)
            add(f"{what}: CPU a GiB", f"≤ {cpu_max:.2f} ×", over(results.ratios(key, floor, cpu), cpu_max, False), key)
    for peer, rate_min in PEER_TARGETS:
        add(f"{peer}, one connection against 4 lanes, CRC on: rate", f"≥ {rate_min:.2f} ×",
            over(results.ratios(DEFAULT, peer, rate), rate_min, True), peer)
    add("1, 8 and 64 files in memory, same total: slowest over fastest", "≥ 0.90 ×",
        over(results.spread_of_best([f"files={n}" for n in DEVICES], rate), 0.90, True), "files=64")
    add("1, 2, 4 and 16 lanes, CRC on: slowest over fastest", "≥ 0.85 ×",
        over(results.spread_of_best([f"godwit/lanes={n}/crc=on" for n in LANES], rate), 0.85, True),
        "godwit/lanes=16/crc=on")
    downtimes = results.downtimes()
    for part, name, most in ((0.50, "p50", 3), (0.99, "p99", 10)):
        found = None
        if downtimes:
            value = percentile(downtimes, part)
            found = (f"{value:.2f} ms of {len(downtimes)} sessions", MET if value < most else NOT_MET)
        add(f"switchover of a software device with 1 MiB left, {name}", f"< {most} ms", found, "switchover")
    rows.extend(BY_HAND)
    return rows
