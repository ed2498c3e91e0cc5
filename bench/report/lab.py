"""What `tools/bench --lab` has measured in emulated machines: the figures that are made of its samples."""

import json
import os

from results import median

QEMU_SIZES = (1024, 256)  # MiB
QEMU_WAYS = (("qemu", "QEMU, TCP"), ("tcp", "godwit, TCP"), ("verbs", "godwit, queue pairs"),
             ("driver", "drivers alone"), ("driver_tcp", "bare TCP"))
QUEUE_PAIR_WAYS = (("ib_send_bw", "ib_send_bw, from a buffer to a buffer"),
                   ("queue_pair_floor", "`queue_pair_floor`, from file to file"), ("godwit", "godwit, from file to file"))


class Lab:
    def __init__(self, data):
        self.data = data
        self.queue_pairs, self.qemu = {}, {}
        for sample in data["queue_pairs"]:
            self.queue_pairs.setdefault(sample["way"], {})[sample["round"]] = sample
        for sample in data["qemu"]:
            case = (sample["mib"], sample["precopy"], sample["way"])
            self.qemu.setdefault(case, {})[sample["round"]] = sample

    @staticmethod
    def read(path):
        """None where there is no such file."""
        if not os.path.exists(path):
            return None
        with open(path, encoding="utf-8") as file:
            return Lab(json.load(file))

    def why_not(self, part):
        return next((f"failed: {entry['why']}" for entry in self.data["failed"] if entry["part"] == part), "not run")

    def queue_pair_ratios(self, way, other):
        """Rates, in each round that has both."""
        ours, theirs = self.queue_pairs.get(way, {}), self.queue_pairs.get(other, {})
        return [ours[r]["mib_a_second"] / theirs[r]["mib_a_second"] for r in sorted(ours) if r in theirs]

    def stays(self):
        """(migrations of QEMU's after which its target's device stayed in RESUMING, all of its migrations)"""
        ways = [sample["way"] for sample in self.data["qemu"]]
        return ways.count("qemu_stays"), ways.count("qemu_stays") + ways.count("qemu")

    def qemu_values(self, mib, precopy, way, field):
        return [sample[field] for _, sample in sorted(self.qemu.get((mib, precopy, way), {}).items())]

    def qemu_ratios(self, mib, precopy, way, field, over="qemu"):
        """`way` over another in that field, in each round that has both."""
        ours, theirs = (self.qemu.get((mib, precopy, one), {}) for one in (way, over))
        return [ours[r][field] / theirs[r][field] for r in sorted(ours) if r in theirs]

    def qemu_rates(self, mib, precopy, way, over="qemu"):
        return [1 / value for value in self.qemu_ratios(mib, precopy, way, "total_ms", over)]

    def instructions(self, side="", role=""):
        """Of our own code, a packet, one a round: of that side's and role's threads, "" being all."""
        rounds = (self.data.get("instructions") or {}).get("rounds", [])
        return [sum(cost for thread, cost in one["own"].items() if thread.startswith(side) and thread.endswith(role))
                for one in rounds]


def cell(values, digits=2):
    """Median and spread, as short as it may be."""
    if not values:
        return "–"
    shown = [f"{value:,.{digits}f}" for value in (median(values), min(values), max(values))]
    return shown[0] if shown[1] == shown[2] else f"{shown[0]} ({shown[1]} to {shown[2]})"


def queue_pair_rows(lab):
    """The last column without the first round, in which who sends waits for the other host to look at its file."""
    return [[label, cell([s["mib_a_second"] for _, s in sorted(lab.queue_pairs.get(way, {}).items())], 1),
             cell(lab.queue_pair_ratios(way, "ib_send_bw")), cell(lab.queue_pair_ratios(way, "queue_pair_floor")),
             cell([s["idle_s"] / s["of_s"] for r, s in sorted(lab.queue_pairs.get(way, {}).items()) if r > 1])]
            for way, label in QUEUE_PAIR_WAYS if way in lab.queue_pairs]


def qemu_rows(lab):
    rows = []
    for mib in QEMU_SIZES:
        for precopy in ("no", "yes"):
            for way, label in QEMU_WAYS:
                if (mib, precopy, way) not in lab.qemu:
                    continue

                def of(field, digits, case=(mib, precopy, way)):
                    return cell(lab.qemu_values(*case, field), digits)

                rows.append([str(mib), precopy, label, of("total_ms", 0), of("downtime_ms", 0), of("cpu_s", 2),
                             of("memory_mib", 0), cell(lab.qemu_rates(mib, precopy, way)),
                             cell(lab.qemu_ratios(mib, precopy, way, "downtime_ms"))])
    return rows


def instruction_rows(lab):
    rows = []
    for role, label in (("worker", "workers"), ("loader", "loader"), ("control", "control threads"), ("", "**all**")):
        of = [lab.instructions(side, role) for side in ("source", "target", "")]
        if any(of):
            rows.append([label, *(cell(values, 0) if any(values) else "–" for values in of)])
    return rows


def worker_rows(lab):
    """How often workers go round, and what of their cost goes with packets and what with rounds."""
    data = lab.data.get("instructions") or {}
    rows = []
    for side in ("source", "target"):
        rounds = [one["goes_round"][side] for one in data.get("rounds", [])]
        parts = (data.get("workers") or {}).get(side)
        if rounds:
            rows.append([side, cell(rounds)] + ([f"{parts['a_packet']:,.0f}", f"{parts['a_round']:,.0f}", f"{100 * parts['off']:.1f} %"]
                                                if parts else ["–", "–", "–"]))
    return rows
