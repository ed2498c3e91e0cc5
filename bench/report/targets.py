"""What the project has set itself: each line's figure, and whether it is met."""

import lab as lab_results
from results import DEFAULT, DEVICES, GIB, LANES, cpu, median, median_interval, percentile, rate


MET, NOT_MET, UNDECIDED = "met", "**not met**", "undecided: within the interval"


# What a test counts.
TESTED = (
    ("copies of payload in user space, over TCP and queue pairs", "0",
     "0: the tests tools.hot_path and lab.hot_path_over_verbs count", MET),
    ("allocations a packet in steady state, the same", "0",
     "0 in the threads that move packets; in the control threads less than one for ten packets, and inside TLS OpenSSL's own, "
     "one to three a receipt: these tests count", MET),
)


def over(values, target, more_is_better):
    """(figure, verdict) of a list of ratios; None where there is none. A target inside the interval in
    which the median lies is neither met nor missed."""
    if not values:
        return None
    low, high = median_interval(values)
    figure = f"{median(values):.2f} × ({low:.2f} to {high:.2f}; all {min(values):.2f} to {max(values):.2f})"
    each = {value >= target if more_is_better else value <= target for value in (low, high)}
    if len(each) > 1:
        return figure, UNDECIDED
    few = f", in each of {len(values)} rounds" if len(values) < 6 else ""
    return figure, (MET if each == {True} else NOT_MET) + few


# (program, what the target asks of its rate)
PEER_TARGETS = (("socat", 1.15), ("dd-nc", 3.5))


def least_cpu(results):
    """round → CPU seconds a GiB that the C reference's four copies of a byte take, in that one of two
    placements of its threads where they take least by the median."""
    keys = [k for k in ("floor/connections=1", "floor/connections=2/paired") if results.has(k)]
    if not keys:
        return {}
    least = min(keys, key=lambda k: median(results.values(k, cpu)))
    return {round_: cpu(sample) for round_, sample in sorted(results.by_key[least].items())}


def crc_cpu(results):
    """CPU seconds a GiB of a CRC-32C on each side, of bytes that are in the cache; None if it was not
    measured."""
    bytes_a_second = results.micro().get("Crc32c/1048576", ([], [], []))[1]
    return 2 * GIB / median(bytes_a_second) if bytes_a_second else None


def limits(results):
    """program → [what the target asks for over what all CPUs together could do at the C reference's least
    CPU seconds a GiB and those of the CRCs, one a round]: over 1 is out of reach."""
    least = least_cpu(results)
    crc = crc_cpu(results)
    cpus = results.data["machine"]["cpus"]
    if crc is None:
        return {}
    return {peer: [rate_min * rate(of[r]) * (least[r] + crc) / cpus for r in sorted(of) if r in least]
            for peer, rate_min in PEER_TARGETS for of in [results.by_key.get(peer, {})]}


def lab_targets(lab):
    """The same rows of what `tools/bench --lab` measures; `lab` is None where it has not."""
    rows = []

    def add(what, target, values, of, part):
        if not values:
            rows.append((what, target, "–", "not run: `tools/bench --lab`" if lab is None else lab.why_not(part)))
        elif of is None:
            rows.append((what, target, over(values, 0, True)[0], "shown"))
        else:
            rows.append((what, target, *over(values, *of)))

    def found(of):
        return [] if lab is None else of(lab)

    add("lab, queue pairs, against ib_send_bw at 1 MiB, 4 queue pairs, CRC off: rate", "≥ 0.95 ×",
        found(lambda measured: measured.queue_pair_ratios("godwit", "ib_send_bw")), (0.95, True), "queue_pairs")
    least = found(lambda measured: measured.queue_pair_ratios("queue_pair_floor", "ib_send_bw"))
    if least:
        what, target, figure, verdict = rows[-1]
        rows[-1] = (what, target, f"{figure}; pread, ibv_post_send, a receive and pwrite alone: {lab_results.cell(least)} ×", verdict)
    for mib in lab_results.QEMU_SIZES:
        for precopy, how in (("yes", "with PRE_COPY"), ("no", "without PRE_COPY")):
            case, part = f"lab, TCP, synth device of {mib} MiB, {how}, CRC off, against QEMU multifd", f"qemu-{mib}"
            add(f"{case}: rate", "≥ 1.5 ×", found(lambda measured, c=(mib, precopy): measured.qemu_rates(*c, "tcp")), (1.5, True), part)
            add(f"{case}: downtime", "≤ 0.6 ×",
                found(lambda measured, c=(mib, precopy): measured.qemu_ratios(*c, "tcp", "downtime_ms")), (0.6, False), part)
    for precopy, how in (("yes", "with PRE_COPY"), ("no", "without PRE_COPY")):
        add(f"lab, queue pairs, 1024 MiB, {how}, CRC off, against QEMU multifd over TCP: rate", "shown",
            found(lambda measured, p=precopy: measured.qemu_rates(1024, p, "verbs")), None, "qemu-1024")
    instructions = found(lambda measured: measured.instructions())
    if instructions:
        low, high = median_interval(instructions)
        rows.append(("lab, instructions a packet in our own code, queue pairs, CRC off, both sides", "< 5,000",
                     lab_results.cell(instructions, 0),
                     MET if high < 5000 else NOT_MET if low >= 5000 else UNDECIDED))
    else:
        add("lab, instructions a packet in our own code, queue pairs, CRC off, both sides", "< 5,000", [], None, "instructions")
    return rows


def targets(results, lab):
    """[(what, target, figure or "–", verdict or why there is none)]"""
    return [*loopback_targets(results), *lab_targets(lab), *TESTED]


def loopback_targets(results):
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
    add(f"1, 8 and 64 files in memory, {results.data.get('files_bytes', 0) >> 20} MiB in all: slowest over fastest", "≥ 0.90 ×",
        over(results.slowest_over_fastest([f"files={n}" for n in DEVICES], rate), 0.90, True), "files=64")
    add("1, 2, 4 and 16 lanes, CRC on: slowest over fastest", "≥ 0.85 ×",
        over(results.slowest_over_fastest([f"godwit/lanes={n}/crc=on" for n in LANES], rate), 0.85, True),
        "godwit/lanes=16/crc=on")
    downtimes = results.downtimes()
    for part, name, most in ((0.50, "p50", 3), (0.99, "p99", 10)):
        found = None
        if downtimes:
            value = percentile(downtimes, part)
            found = (f"{value:.2f} ms of {len(downtimes)} sessions", MET if value < most else NOT_MET)
        add(f"switchover of a software device with 1 MiB left, {name}", f"< {most} ms", found, "switchover")
    return rows
