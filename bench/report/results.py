"""What a run of tools/bench has measured: its samples, and the figures that are made of them.

A figure is a list of values, one a round (None where that round has none). A ratio is made inside a
round, of two runs that stood side by side, so what drifts from round to round is in none.
"""

import json
import math
import statistics

GIB = 1 << 30
LANES = (1, 2, 4, 16)
DEVICES = (1, 8, 64)
PACKETS = (65536, 262144, 1048576, 4194304, 8388528)
DEFAULT = "godwit/lanes=4/crc=on"  # what `godwit send` does without options


def median(values):
    return statistics.median(values)


def percentile(values, part):
    """The smallest value that at least `part` of all do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(part * len(ordered)) - 1)]


def median_interval(values):
    """The sign test's interval of the median: with at least 95 % confidence the median lies in it,
    whatever the distribution, as long as the rounds are independent of each other. It goes from the
    kth smallest to the kth largest value, with the largest k for which a binomial(n, 1/2) is under k
    with a probability of 2.5 % at most. Smallest and largest where no k is so, under six values: their
    confidence is less (five: 93.75 %, three: 75 %, one: none)."""
    ordered = sorted(values)
    count = len(ordered)
    left_out, missed = 0, 2 * 0.5 ** count
    while left_out < (count - 1) // 2:
        missed += 2 * math.comb(count, left_out + 1) * 0.5 ** count
        if missed > 0.05:
            break
        left_out += 1
    return ordered[left_out], ordered[count - 1 - left_out]


def quartile_range(values):
    return percentile(values, 0.75) - percentile(values, 0.25)


def rate(sample):
    return sample["bytes"] / GIB / sample["seconds"]


def cpu(sample):
    """CPU seconds a GiB, both sides together."""
    return (sample["source_cpu_seconds"] + sample["target_cpu_seconds"]) / (sample["bytes"] / GIB)


def source_cpu(sample):
    return sample["source_cpu_seconds"] / (sample["bytes"] / GIB)


def target_cpu(sample):
    return sample["target_cpu_seconds"] / (sample["bytes"] / GIB)


class Results:
    def __init__(self, data):
        self.data = data
        self.rounds = data["rounds"]
        runs = {}
        for sample in data["samples"]:
            runs.setdefault((sample["key"], sample["round"]), []).append(sample["result"])
        self.by_key = {}
        for (key, round_), results in runs.items():
            # What is run several times in a round counts once.
            self.by_key.setdefault(key, {})[round_] = results[0] if len(results) == 1 else \
                sorted(results, key=rate)[len(results) // 2]

    @staticmethod
    def read(path):
        with open(path, encoding="utf-8") as file:
            return Results(json.load(file))

    def has(self, key):
        return key in self.by_key

    def why_not(self, key):
        for kind in ("missing", "failed"):
            for entry in self.data[kind]:
                if entry["key"] == key:
                    return f"{kind}: {entry['why']}"
        return "not run"

    def values(self, key, of):
        """One a round, of the rounds that have it."""
        return [of(sample) for _, sample in sorted(self.by_key.get(key, {}).items())]

    def ratios(self, key, other, of):
        ours, theirs = self.by_key.get(key, {}), self.by_key.get(other, {})
        return [of(ours[r]) / of(theirs[r]) for r in sorted(ours) if r in theirs and of(theirs[r]) > 0]

    def slowest_over_fastest(self, keys, of):
        """In each round the key over the other that are slowest and fastest by their medians. (A round's own
        smallest over its own largest would be under 1 by noise alone.) None where one has not run."""
        if not all(self.by_key.get(k) for k in keys):
            return []
        by_median = sorted(keys, key=lambda k: median(self.values(k, of)))
        return self.ratios(by_median[0], by_median[-1], of)

    def downtimes(self):
        """All rounds' sessions together, in ms."""
        rounds = self.by_key.get("switchover", {})
        return [ms for _, sample in sorted(rounds.items()) for ms in sample["downtimes_ms"]]

    def micro(self):
        """name → (nanoseconds, bytes a second or None, items a second or None), lists over rounds."""
        names = {}
        for _, sample in sorted(self.by_key.get("micro", {}).items()):
            for row in sample["benchmarks"]:
                entry = names.setdefault(row["name"], ([], [], []))
                entry[0].append(row["cpu_ns"])
                for list_, field in ((entry[1], "bytes_per_second"), (entry[2], "items_per_second")):
                    if row.get(field) is not None:
                        list_.append(row[field])
        return names


def figures(results):
    """name → (values, unit, whether more is better): what a comparison of two runs looks at."""
    all_ = {}
    for lanes in LANES:
        for crc in ("off", "on"):
            key, floor = f"godwit/lanes={lanes}/crc={crc}", f"floor/connections={lanes}"
            all_[f"{key}: rate over the C reference's"] = (results.ratios(key, floor, rate), "×", True)
            all_[f"{key}: CPU a GiB over the C reference's"] = (results.ratios(key, floor, cpu), "×", False)
    for bytes_ in PACKETS:
        key = packet_key(bytes_)
        all_[f"packets of {bytes_}: rate over the C reference's"] = (
            results.ratios(key, "floor/connections=4", rate), "×", True)
    for files in DEVICES:
        all_[f"{files} files: rate over the C reference's"] = (
            results.ratios(f"files={files}", "floor/connections=4", rate), "×", True)
    for devices in DEVICES:
        key = f"devices={devices}"
        all_[f"{devices} software devices: rate over the C reference's"] = (
            results.ratios(key, "floor/connections=4", rate), "×", True)
        all_[f"{devices} software devices: resident bytes of both sides"] = (
            results.values(key, lambda s: s["source_peak_bytes"] + s["target_peak_bytes"]), "B", False)
    for peer in ("socat", "dd-nc"):
        all_[f"rate over {peer}'s"] = (results.ratios(DEFAULT, peer, rate), "×", True)
    switchovers = results.by_key.get("switchover", {})
    for part, name in ((0.5, "p50"), (0.99, "p99")):
        all_[f"switchover of 1 MiB, {name}"] = (
            [percentile(s["downtimes_ms"], part) for _, s in sorted(switchovers.items())], "ms", False)
    for name, (nanoseconds, _, _) in results.micro().items():
        all_[f"micro-benchmark {name}"] = (nanoseconds, "ns", False)
    return all_


def packet_key(bytes_):
    """Packets of 1 MiB are the default's run."""
    return DEFAULT if bytes_ == 1048576 else f"packet_bytes={bytes_}"
