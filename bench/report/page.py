#!/usr/bin/env python3
"""page.py RESULTS.json FOLDER: writes FOLDER/performance.md and FOLDER/performance/*.svg, of RESULTS.json and of
lab.json and other.json beside it, if there are: the lab's results, and those of another machine."""

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import growth  # noqa: E402
import lab as lab_results  # noqa: E402
from plots import plot  # noqa: E402
from results import (DEFAULT, DEVICES, GIB, LANES, PACKETS, Results, cpu, median, packet_key,  # noqa: E402
                     percentile, rate, source_cpu, target_cpu)
from targets import crc_cpu, least_cpu, limits, loopback_targets, targets  # noqa: E402

MIB = 1 << 20
HERE = os.path.dirname(os.path.abspath(__file__))
PEERS = (
    ("floor/connections=1", "C reference, 1 connection", "the file, by pread and pwrite"),
    ("floor/connections=4", "C reference, 4 connections", "the file, by pread and pwrite"),
    ("socat", "socat -b 1 MiB", "the file"),
    ("dd-nc", "dd \\| nc to nc \\| dd", "the file"),
    ("mbuffer", "mbuffer, 64 MiB on each side", "the file"),
    ("qemu/channels=2", "QEMU multifd, 2 channels", "the file as a guest's RAM: mapped, not read or written"),
    ("qemu/channels=4", "QEMU multifd, 4 channels", "the same"),
    ("qemu/channels=8", "QEMU multifd, 8 channels", "the same"),
    ("iperf3/connections=1", "iperf3, 1 connection", "no file: one buffer, sent again and again"),
    ("iperf3/connections=4", "iperf3, 4 connections", "the same"),
    ("ucx/test=tag_bw", "ucx_perftest tag_bw over TCP", "no file"),
    ("ucx/test=stream_bw", "ucx_perftest stream_bw over TCP", "no file"),
)


def size(bytes_):
    for unit, name in ((GIB, "GiB"), (MIB, "MiB"), (1024, "KiB")):
        if bytes_ >= unit and bytes_ % unit == 0:
            return f"{bytes_ // unit} {name}"
    return f"{bytes_} B"


def cell(values, digits=2, factor=1.0):
    """Median and spread."""
    if not values:
        return "–"
    of = [v * factor for v in values]
    return f"{median(of):.{digits}f} ({min(of):.{digits}f} to {max(of):.{digits}f})"


def short_cell(values, factor=1.0):
    """The same with three digits, wherever the point is."""
    of = [v * factor for v in values]
    return f"{median(of):.3g} ({min(of):.3g} to {max(of):.3g})"


def whiskers(values, factor=1.0):
    return (median(values) * factor, min(values) * factor, max(values) * factor) if values else None


def table(head, rows):
    marks = "|".join("---" if i == 0 else "---:" for i in range(len(head)))
    lines = [f"| {' | '.join(head)} |", f"|{marks}|"]
    return "\n".join(lines + [f"| {' | '.join(row)} |" for row in rows]) + "\n"


def run_text(data):
    machine = data["machine"]
    dirty = "" if data["clean"] else ", with changes that are not in it"
    return (
        f"`{data['command']}` on {data['began']}, commit `{data['commit'][:12]}`{dirty}: {machine['cpus']} CPUs "
        f"({machine['cpu']}{', a virtual machine' if machine['hypervisor'] else ''}), "
        f"{machine['memory_bytes'] / GIB:.0f} GiB, Linux {data['kernel']}")


def machine_text(data):
    return (
        f"{run_text(data)}. {data['rounds']} "
        f"round{'s, every second one in reverse order' if data['rounds'] > 1 else ''}; "
        f"files of {size(data['bytes'])} in memory, all pages there before. TCP on loopback, "
        f"congestion control {data['congestion']}. Load of the machine before and after: {data['load_before']} and "
        f"{data['load_after']}; it is not counted in what follows, but it is in every figure.")


def engine_rows(results):
    rows = []
    for lanes in LANES:
        floor = f"floor/connections={lanes}"
        rows.append([f"C reference, {lanes} connection{'s' if lanes > 1 else ''}", cell(results.values(floor, rate)),
                     "1", cell(results.values(floor, source_cpu), 3), cell(results.values(floor, target_cpu), 3), "1"])
        for crc in ("off", "on"):
            key = f"godwit/lanes={lanes}/crc={crc}"
            rows.append([f"Godwit, {lanes} lane{'s' if lanes > 1 else ''}, CRC {crc}", cell(results.values(key, rate)),
                         cell(results.ratios(key, floor, rate)), cell(results.values(key, source_cpu), 3),
                         cell(results.values(key, target_cpu), 3), cell(results.ratios(key, floor, cpu))])
    return rows


def peer_rows(results):
    rows = []
    for key, name, moves in PEERS:
        if not results.has(key):
            rows.append([name, moves, f"**{results.why_not(key)}**", "–", "–", "–"])
            continue
        rows.append([name, moves, cell(results.values(key, rate)), cell(results.values(key, cpu), 3),
                     cell(results.ratios(DEFAULT, key, rate)), cell(results.ratios(DEFAULT, key, cpu))])
    return rows


def busy_text(data):
    """Where there was more to do than half of the CPUs can, before we began."""
    if float(data["load_before"].split()[0]) < data["machine"]["cpus"] / 2:
        return ""
    return ("\n**The machine was busy with other things.** Rates, ratios of rates and downtimes then say how much of it "
            "each program got; only CPU seconds hold, and those roughly.\n")


def micro_rows(results):
    rows = []
    for name, (nanoseconds, bytes_s, items_s) in results.micro().items():
        rows.append([name, cell(nanoseconds, 1), short_cell(bytes_s, 1 / GIB) if bytes_s else "",
                     short_cell(items_s, 1e-6) if items_s else ""])
    return rows or [["**none**: " + results.why_not("micro"), "", "", ""]]


def memory(results, key):
    return results.values(key, lambda s: s["source_peak_bytes"]), results.values(key, lambda s: s["target_peak_bytes"])


def device_rows(results):
    rows = []
    for devices in DEVICES:
        key = f"devices={devices}"
        source, target = memory(results, key)
        rows.append([str(devices), cell(results.values(key, rate)), cell(results.values(key, cpu), 3),
                     cell(source, 0, 1 / MIB), cell(target, 0, 1 / MIB)])
    return rows


def file_rows(results):
    rows = []
    for files in DEVICES:
        key = f"files={files}"
        source, target = memory(results, key)
        rows.append([str(files), cell(results.values(key, rate)), cell(results.ratios(key, "files=1", rate)),
                     cell(results.values(key, cpu), 3), cell(source, 0, 1 / MIB), cell(target, 0, 1 / MIB)])
    return rows


def packet_rows(results):
    def in_fact(sample):
        return sample["bytes"] / sample["packets"] / 1024 if "packets" in sample else 0.0

    return [[size(b) if b != PACKETS[-1] else "8 MiB less 80 B",
             f"{max(results.values(packet_key(b), in_fact), default=0.0):.0f}", cell(results.values(packet_key(b), rate)),
             cell(results.ratios(packet_key(b), "floor/connections=4", rate)),
             cell(results.values(packet_key(b), cpu), 3)] for b in PACKETS]


def write_plots(results, folder):
    os.makedirs(folder, exist_ok=True)

    def write(name, *what):
        with open(os.path.join(folder, name), "w", encoding="utf-8") as file:
            file.write(plot(*what))

    by_lanes = {"Godwit, CRC off": "godwit/lanes={}/crc=off", "Godwit, CRC on": "godwit/lanes={}/crc=on",
                "C reference": "floor/connections={}"}
    for name, title, y_title, of in (
            ("throughput-lanes.svg", "Throughput against lanes", "GiB/s", rate),
            ("cpu-lanes.svg", "CPU seconds a GiB, both sides", "CPU s/GiB", cpu)):
        write(name, title, "lanes or connections", y_title, [str(n) for n in LANES],
              {label: [whiskers(results.values(key.format(n), of)) for n in LANES] for label, key in by_lanes.items()})
    write("throughput-packets.svg", "Throughput against packet size, 4 lanes, CRC on", "payload of a packet", "GiB/s",
          [size(b) if b != PACKETS[-1] else "8 MiB" for b in PACKETS],
          {"Godwit": [whiskers(results.values(packet_key(b), rate)) for b in PACKETS]})
    devices = [f"devices={n}" for n in DEVICES]
    write("throughput-devices.svg", "Throughput against devices of the same total", "devices", "GiB/s",
          [str(n) for n in DEVICES],
          {name: [whiskers(results.values(f"{key}={n}", rate)) for n in DEVICES]
           for key, name in (("files", "files in memory"), ("devices", "software devices"))})
    write("memory-devices.svg", "Most resident memory", "devices", "MiB", [str(n) for n in DEVICES],
          {name: [whiskers(memory(results, k)[side], 1 / MIB) for k in devices]
           for side, name in enumerate(("source", "target"))})


def switchover_text(results):
    downtimes = results.downtimes()
    if not downtimes:
        return f"**No figure**: {results.why_not('switchover')}.\n"
    return (f"A software device of 1 MiB, without pre-copy, over four TCP lanes: {len(downtimes)} sessions, from before "
            f"its STOP_COPY to \"it runs on the target\": p50 {percentile(downtimes, 0.5):.2f} ms, "
            f"p99 {percentile(downtimes, 0.99):.2f} ms, {min(downtimes):.2f} to {max(downtimes):.2f} ms.\n")


def session_text(results):
    source, target = (results.values("session", lambda s, side=side: s[f"{side}_cpu_seconds"])
                      for side in ("source", "target"))
    if not source:
        return f"What a session costs by itself has no figure: {results.why_not('session')}.\n"
    return (f"In CPU seconds a GiB a process's start and end and its arena are included. A session of 1 MiB takes "
            f"{cell(source, 3)} s at the source and {cell(target, 3)} s at the target, whatever it moves.\n")


def growth_text(results):
    rates = [f"{g} Gb/s" for g in growth.GIGABITS]
    tcp = [[size(b) if b != PACKETS[-1] else "8 MiB less 80 B", *cells] for b, *cells in growth.cores_over_tcp(results)]
    text = f"""Measured figures, carried on: nothing in this section has been run at these rates and sizes. In the next one they are simulated.

Cores that TCP takes at each rate, source + target: the CPU seconds a GiB of the packet sizes above, times the
rate. On loopback both sides' kernels copy each byte twice, and nothing is taken over by a NIC.

{table(["payload", *rates], tcp)}
Over queue pairs a NIC moves the bytes, and what is left is code in user space. A lower bound of it: the sum of the
engine's pieces below for each packet, without the workers' rounds, the control threads and libibverbs, which are
counted in instructions in the section about the lab. At 400 Gb/s:

{table(["payload", "CRC", "packets/s", "source: a packet, cores", "target: a packet, cores"],
       growth.cores_of_our_own(results))}
What must be under way for a rate at a round trip, and how many lanes hold that, at 8 MiB each. The source's arena
keeps what is not receipted, and {growth.READ_AHEAD_PACKETS} packets that are read ahead; the target's window is counted from what is loaded,
and its TCP lanes have {growth.RECEIVES_A_LANE} packets each beside it. So both arenas have to be as large and larger by that, and the
target's twice as large over queue pairs, since lanes get half of it at most. In italics: over TCP more than
the {growth.ARENA_BYTES >> 20} MiB that an arena has unless an embedder chooses otherwise. In bold: out of reach, since there are no
more than {growth.LANES_MAX} lanes.

{table(["rate", *[f"{ms:g} ms" for ms in growth.ROUND_TRIPS_MS]], growth.under_way())}
"""
    streams = growth.streams(results, DEFAULT)
    if streams:
        text += f"""Longer streams take no more memory, and CPU seconds by their length; an index has room for 2^32 packets, which is
4 PiB in packets of 1 MiB. Four lanes over TCP, CRC on:

{table(["stream", "CPU s, both sides", "packets of 1 MiB"], streams)}
"""
    device = growth.seconds_a_device(results)
    if device:
        text += (f"One software device more, of the same total, takes {cell(device, 1, 1000)} ms of CPU time, both sides, its\n"
                 "threads, pipes and generator included; memory against devices is above.\n")
    return text


def by_hand(name):
    """What no run of tools/bench measures: figures with their own date and machine."""
    with open(os.path.join(HERE, name), encoding="utf-8") as file:
        return file.read()


def stays_text(lab):
    stayed, all_ = lab.stays()
    if not stayed:
        return ""
    return (f"After {stayed} of QEMU's {all_} migrations its target's device stayed in RESUMING for a minute, the source saying that all was "
            "done; why is not known. These are in no figure: each was made again.\n\n")


def lab_text(lab):
    if lab is None:
        return "**Not run**: `tools/bench --lab`.\n"
    data = lab.data
    failed = "".join(f"- **{entry['part']}: failed**: {entry['why']}\n" for entry in data["failed"])
    ways = table(["way", "MiB/s", "× ib_send_bw", "× `queue_pair_floor`", "sender's CPU idle, part of the time"],
                 lab_results.queue_pair_rows(lab))
    qemu = table(["MiB", "PRE_COPY", "way", "all, ms", "downtime, ms", "CPU seconds", "memory, MiB", "rate, × QEMU",
                  "downtime, × QEMU"], lab_results.qemu_rows(lab))
    counted = table(["own code, instructions a packet", "source", "target", "both"], lab_results.instruction_rows(lab))
    rounds = table(["worker", "goes round, times a packet", "a packet by itself", "a round by itself",
                    "sessions are off by at most"], lab_results.worker_rows(lab))
    return f"""{run_text(data)}; in it {data["emulator"]} emulates machines of one CPU, with Linux {data["guest_kernel"]}. {data["rounds"]}
rounds, three times as many beside ib_send_bw, every second one in reverse order. Load before and after: {data["load_before"]} and {data["load_after"]}. CPUs are emulated, so that only
ratios mean anything, and not even those of code that leans on a real CPU's instructions: CRCs are off.
{chr(10) + failed if failed else ""}
`bench/beside-ib-send-bw`: messages of 1 MiB over 4 queue pairs of soft-RoCE between two VMs, by perftest from a buffer to a
buffer; and from a file in memory to a file in memory by `bench/queue_pair_floor.c`, which does pread, ibv_post_send, a receive
and pwrite and nothing else, and by godwit:

{ways}
`bench/beside-qemu`: a `godwit_synth` VFIO device's state moves to another one in the same VM, by QEMU's multifd transfer and by
godwit, 4 channels or lanes each. With PRE_COPY all but 2 MiB can be read at once, 1 MiB a second is dirty again, and
1.5 s of downtime are allowed. "Drivers alone" is one thread that reads from the one and writes to the other, with one buffer of
1 MiB; "bare TCP" is two processes with such a buffer each, that read and send, receive and write with blocking calls over
one connection, and do nothing else:

{qemu}
{stays_text(lab)}Godwit's time includes its connecting and making its arenas; QEMU's memory is what it grew by. The CPU seconds of queue
pairs lack what soft-RoCE does in threads of the kernel's.

`bench/instructions`: what callgrind counts of sessions of 64 and of 448 MiB over 4 queue pairs of one VM, divided by the 384
packets of 1 MiB that are between them:

{counted}
{rounds}
"""


def commands_text(results):
    seen = {}
    for sample in results.data["samples"]:
        command = sample["result"].get("command")
        if command:
            version = sample["result"].get("version")
            seen[sample["key"]] = command + (f"  # {version}" if version else "")
    return "```\n" + "\n".join(f"{key}: {command}" for key, command in sorted(seen.items())) + "\n```\n"


def reference_lanes_text(results):
    spread = results.slowest_over_fastest([f"floor/connections={n}" for n in LANES], rate)
    if not spread:
        return ""
    return (f"\nThe C reference's own slowest of 1, 2, 4 and 16 connections comes to {cell(spread)} × its "
            "fastest: it has a thread for each end of each, which take these CPUs from each other.\n")


def apart_text(results):
    lines = []
    for lanes in (1, 2):
        apart, free = f"floor/connections={lanes}/apart", f"floor/connections={lanes}"
        if results.has(apart) and results.has(free):
            ours = results.ratios(f"godwit/lanes={lanes}/crc=off", apart, rate)
            lines.append(f"with {lanes} connection{'s' if lanes > 1 else ''} {cell(results.values(apart, rate))} GiB/s, "
                         f"{cell(results.ratios(apart, free, rate))} × as fast and {cell(results.ratios(apart, free, cpu))} × the "
                         f"CPU seconds; Godwit, CRC off, {cell(ours)} × as fast as that")
    if not lines:
        return ""
    return ("\nGodwit has one worker a side; the C reference's threads are where the kernel puts them, with several connections "
            "at times both ends of one on the same processor. Kept to one processor a side it makes " + "; ".join(lines) + ".\n")


def limits_text(results):
    lines = [f"{peer}: {cell(values)} × that" for peer, values in limits(results).items() if values]
    if not lines:
        return ""
    least = list(least_cpu(results).values())
    cpus, crc = results.data["machine"]["cpus"], crc_cpu(results)
    same, both = "floor/connections=2/paired", ""
    if results.has(same):
        both = (f", with two, each with both its ends kept to one processor, {cell(results.values(same, cpu), 3)} "
                f"({cell(results.values(same, rate))} GiB/s)")
    return ("\nWhat these CPUs could do at most: for the four copies of each byte the C reference takes with one connection "
            f"{cell(results.values('floor/connections=1', cpu), 3)} CPU seconds a GiB{both}. A CRC on each side takes at least "
            f"{crc:.3f} more. By the smaller of these, {cpus} CPUs that are never idle make "
            f"{cell([cpus / (v + crc) for v in least])} GiB/s. What the targets beside other programs ask for: "
            + "; ".join(lines) + ". Over 1 it can't be had by copies that cost what the reference's do. What keeps order and "
            "sends receipts, and the start of both programs, is not in it.\n")


def other_text(other):
    """What another machine makes of the targets; nothing where there is no such file."""
    if other is None:
        return ""
    return f"""
## Another machine

{machine_text(other.data)} Every sample is in [performance/other.json](performance/other.json).
{busy_text(other.data)}
{table(["figure", "target", "measured", ""], loopback_targets(other))}{limits_text(other)}
{by_hand("other.md")}"""


def page(results, lab, other):
    data = results.data
    wanting = "".join(f"- **{e['key']}: {kind}**: {e['why']}\n" for kind in ("missing", "failed") for e in data[kind])
    return f"""# How fast Godwit is

Written by `tools/bench` and `tools/bench --lab` from their samples, every one of which is in
[performance/results.json](performance/results.json) and [performance/lab.json](performance/lab.json); `tools/bench
--render FILE` writes it anew from them. Do not edit it: what was measured by hand, at dates of its own, is in
`bench/report/other.md`, `big_streams.md`, `ways.md` and `lab.md`. What is measured and how is in [measuring.md](measuring.md).

{machine_text(data)}
{busy_text(data)}
Figures are the median of the rounds and, in brackets, the smallest and largest; ratios are made inside a
round. Two figures whose brackets overlap are not told apart here. A target's brackets begin with the interval in
which the median of rounds like these lies with at least 95 % confidence, by the sign test; a target inside it is
undecided. (Under six rounds there is no such interval: smallest and largest stand for it, with less confidence.) It
says nothing of another machine, nor of this one at another hour. What is "by hand" has smallest and largest only.
{chr(10) + wanting if wanting else ""}
## Targets

{table(["figure", "target", "measured", ""], targets(results, lab))}{limits_text(results)}{apart_text(results)}{reference_lanes_text(results)}{other_text(other)}
## Beside the C reference

`bench/floor.c` does pread, send, recv and pwrite with blocking calls and nothing else: no order, no checks.

{table(["what", "GiB/s", "its rate, ×", "source, CPU s/GiB", "target, CPU s/GiB", "its CPU, ×"], engine_rows(results))}
{session_text(results)}
![Throughput against lanes](performance/throughput-lanes.svg)
![CPU seconds a GiB](performance/cpu-lanes.svg)

## Beside other programs

The ratios are those of `godwit send` with four lanes and CRCs on, which is the default, over the program in that
line. Where no file is read or written at least two of the four copies of each byte are missing. A file can be mapped;
what a VFIO device is read from and written to can't be, so those four are what this work takes. Of the programs that run
once and end the time is from the sender's start to the end of both, some 10 ms more than what is moved takes.

{table(["program", "what it moves", "GiB/s", "CPU s/GiB", "Godwit's rate, ×", "Godwit's CPU, ×"], peer_rows(results))}
## Packet sizes

Four lanes, CRC on; the ratio is to the C reference with four connections and packets of 1 MiB. The size is what
`--packet-bytes` says. With fewer than four processors a file in memory is read in packets of a quarter of the
second-level cache, or 512 KiB, at most: larger sizes then differ in buffers and queues only.

{table(["payload", "a packet, in fact, KiB", "GiB/s", "C reference, ×", "CPU s/GiB"], packet_rows(results))}
![Throughput against packet size](performance/throughput-packets.svg)

## Devices

Files in memory, {size(data.get("files_bytes", 0))} in all, four lanes, CRC on: what the engine takes for more devices. Each
is run three times a round, of which the middle one counts, and moves the same files once before it counts.

{table(["files", "GiB/s", "× one file's", "CPU s/GiB", "source, MiB at most", "target, MiB at most"], file_rows(results))}
Software devices, {size(data["devices_bytes"])} in all, four lanes, CRC on. They make their content at the source and hold it at the
target in memory of the process's own, which the last columns count.

{table(["devices", "GiB/s", "CPU s/GiB", "source, MiB at most", "target, MiB at most"], device_rows(results))}
![Throughput against devices](performance/throughput-devices.svg)
![Memory against devices](performance/memory-devices.svg)

## A switchover

{switchover_text(results)}
## Growth

{growth_text(results)}
## Long streams on fast links, simulated

{by_hand("big_streams.md")}
## Ways that were tried

{by_hand("ways.md")}
## In the lab: beside QEMU and ib_send_bw

{lab_text(lab)}
{by_hand("lab.md")}
## Pieces

One thread, by `build/bench/godwit_bench`: CPU time of one turn.

{table(["piece", "ns", "GiB/s", "million items/s"], micro_rows(results))}
## Commands

A and B are the files.

{commands_text(results)}"""


def main(arguments):
    if len(arguments) != 2:
        print(__doc__, file=sys.stderr)
        return 2
    try:
        results = Results.read(arguments[0])
        beside = os.path.dirname(arguments[0])
        other = os.path.join(beside, "other.json")
        text = page(results, lab_results.Lab.read(os.path.join(beside, "lab.json")),
                    Results.read(other) if os.path.exists(other) else None)
    except (OSError, ValueError, KeyError) as error:
        print(f"bench: {arguments[0]}: these are not the results of tools/bench: {error!r}", file=sys.stderr)
        return 2
    write_plots(results, os.path.join(arguments[1], "performance"))
    with open(os.path.join(arguments[1], "performance.md"), "w", encoding="utf-8") as file:
        file.write(text)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
