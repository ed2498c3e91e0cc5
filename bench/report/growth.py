"""What faster networks, longer streams and more devices take: measured figures, carried on."""

import math

from results import DEVICES, GIB, PACKETS, cpu, median, packet_key, source_cpu, target_cpu

GIGABITS = (10, 25, 100, 200, 400)
ROUND_TRIPS_MS = (0.1, 1, 10, 50)
LANE_BYTES = 8 << 20  # under way on a lane at most: docs/buffer-budget.md
LANES_MAX = 64
ARENA_BYTES = 128 << 20  # of each side, unless an embedder chooses otherwise
# Beside what is under way, in packets of 1 MiB and their headers' pages: what the source has read ahead, and what
# the target's TCP lanes receive into.
BUFFER_BYTES = (1 << 20) + 4096
READ_AHEAD_PACKETS = 12
RECEIVES_A_LANE = 1


def gib_a_second(gigabits):
    return gigabits * 1e9 / 8 / GIB


def size(bytes_):
    for unit, name in ((GIB, "GiB"), (1 << 20, "MiB")):
        if bytes_ >= unit:
            return f"{bytes_ / unit:.3g} {name}"
    return f"{bytes_ / 1024:.3g} KiB"


def cores_over_tcp(results):
    """[(packet size, cores a side at each rate)]"""
    rows = []
    for bytes_ in PACKETS:
        sides = [results.values(packet_key(bytes_), of) for of in (source_cpu, target_cpu)]
        cells = ["–"] * len(GIGABITS)
        if all(sides):
            cells = [" + ".join(f"{median(side) * gib_a_second(g):.1f}" for side in sides) for g in GIGABITS]
        rows.append([bytes_, *cells])
    return rows


def own_nanoseconds(results, bytes_, crc):
    """A packet's, of (source, target), in the engine's own code; None where a piece was not measured."""
    micro = {name: median(nanoseconds) for name, (nanoseconds, _, _) in results.micro().items()}
    try:
        shared = micro["ArenaAcquireRelease"]
        source = shared + micro["PacketHeaderEncode"] + (micro[f"Crc32c/{bytes_}"] if crc else 0)
        # Without CRC no payload is read, so one size's check serves for both.
        check = micro[f"PacketCheck/bytes:{bytes_}/crc:1"] if crc else micro["PacketCheck/bytes:1048576/crc:0"]
        return source, shared + check + micro["ReorderWindowInOrder/64"] / 64
    except KeyError:
        return None


def cores_of_our_own(results):
    """[(packet size, "on" or "off", packets a second and cores a side at 400 Gb/s)]"""
    rows = []
    for bytes_ in (65536, 1048576):
        for crc in (True, False):
            found = own_nanoseconds(results, bytes_, crc)
            packets = GIGABITS[-1] * 1e9 / 8 / bytes_
            cells = ["–", "–"] if found is None else [f"{ns:.0f} ns, {packets * ns / 1e9:.3f}" for ns in found]
            rows.append([size(bytes_), "on" if crc else "off", f"{packets:,.0f}", *cells])
    return rows


def under_way():
    """[(rate, what bandwidth times delay takes at each round trip)]"""
    rows = []
    for gigabits in GIGABITS:
        cells = []
        for milliseconds in ROUND_TRIPS_MS:
            bytes_ = gigabits * 1e9 / 8 * milliseconds / 1e3
            lanes = max(1, math.ceil(bytes_ / LANE_BYTES))
            text = f"{size(bytes_)}, {lanes}"
            beside = BUFFER_BYTES * max(READ_AHEAD_PACKETS, RECEIVES_A_LANE * lanes)
            too_large = bytes_ + beside > ARENA_BYTES
            cells.append(f"**{text}**" if lanes > LANES_MAX else f"*{text}*" if too_large else text)
        rows.append([f"{gigabits} Gb/s", *cells])
    return rows


def streams(results, key):
    """[(stream, CPU seconds of both sides, packets of 1 MiB)]"""
    session = results.values("session", lambda s: s["source_cpu_seconds"] + s["target_cpu_seconds"])
    a_gib = results.values(key, cpu)
    if not session or not a_gib:
        return []
    # What a session costs by itself is in both figures.
    each = median(a_gib) - median(session) * GIB / results.data["bytes"]
    return [[f"{gib} GiB" if gib < 1024 else "1 TiB", f"{median(session) + gib * each:.1f}", f"{gib * 1024:,}"]
            for gib in (1, 16, 128, 1024)]


def seconds_a_device(results):
    """CPU seconds that one more software device takes, all else alike, one a round."""
    few, many = (results.by_key.get(f"devices={n}", {}) for n in (DEVICES[0], DEVICES[-1]))
    a_device = results.data["devices_bytes"] / GIB / (DEVICES[-1] - DEVICES[0])
    return [(cpu(many[r]) - cpu(few[r])) * a_device for r in sorted(few) if r in many]
