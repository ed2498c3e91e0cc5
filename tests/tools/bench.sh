#!/bin/bash
# tools/bench measures every row of its page or says why not; the page comes from the file alone; a
# comparison finds what is worse, and nothing else. No figure is looked at.
#
# Environment beside common.sh's: BENCH, tools/bench; BUILD, the build folder.
scratch_bytes_min=$((256 << 20))
# shellcheck source=tests/tools/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

: "${BENCH:?tools/bench}" "${BUILD:?the build folder}"
for command in python3 jq cmp; do
  command -v "$command" > /dev/null || skip "no $command here: tools/install-deps --build installs it"
done
hang_s=250

# ---- A short run: each key has a sample, or is missing because a program is not installed.
readonly page=$scratch/page results=$scratch/page/performance/results.json
run quick "$BENCH" --quick --build "$BUILD" --page "$page"
check_code "--quick" "$code" 0 quick.err
keys=(floor/connections={1,2,4,16} floor/connections={1,2}/apart floor/connections=2/paired godwit/lanes={1,2,4,16}/crc={on,off} packet_bytes={65536,262144,4194304,8388528}
  devices={1,8,64} files={1,8,64} session switchover micro)
peers=(socat dd-nc mbuffer iperf3/connections={1,4} ucx/test={tag,stream}_bw qemu/channels={2,4,8})
has_sample() { jq --exit-status --arg key "$1" '[.samples[] | select(.key == $key)] | length == 1' "$results" > /dev/null; }
is_missing() { jq --exit-status --arg key "$1" '[.missing[] | select(.key == $key)] | length == 1' "$results" > /dev/null; }
for key in "${keys[@]}"; do has_sample "$key" || fail "no sample of $key"; done
for key in "${peers[@]}"; do
  has_sample "$key" || is_missing "$key" || fail "$key has neither a sample nor a reason"
  ! is_missing "$key" || check_says "a program that is not there" quick.err "^bench: $key: missing: .*package"
done
known=$((${#keys[@]} + ${#peers[@]}))
[[ $(jq '(.samples + .missing) | length' "$results") == "$known" ]] || fail "there are keys that this test does not know"
jq --exit-status '.failed == [] and .machine.cpus > 0 and (.kernel | length > 0) and .rounds == 1 and .load_before != ""
  and (.commit | length > 0) and ([.samples[].result.command | length > 0] | all)' "$results" > /dev/null \
  || fail "the results lack what they were measured on: $(jq --compact-output 'del(.samples)' "$results")"

# ---- Each row is on the page.
for row in 'C reference, (1|2|4|16) connections?' 'Godwit, (1|2|4|16) lanes?, CRC (on|off)'; do
  [[ $row == C* ]] && rows=6 || rows=8  # the reference's stand beside the other programs, too: two of them
  (($(grep --count --extended-regexp "^\| $row \|" "$page/performance.md") == rows)) || fail "the page lacks rows like '$row'"
done
for row in 'socat' 'dd ' 'mbuffer' 'QEMU multifd, 2' 'QEMU multifd, 8' 'iperf3, 4' 'ucx_perftest tag' '64 KiB' \
  '8 MiB less' '64 ' 'Crc32c/1048576' 'PacketSealed/1048576' 'TcpLanePostAndPoll/1048576' 'PacketHeaderDecode' \
  'ReorderWindowShuffled' 'ArenaAcquire' 'BoundedRing' 'switchover of a software device with 1 MiB left, p99' \
  'allocations a packet'; do
  grep --quiet "^| $row" "$page/performance.md" || fail "the page lacks '$row'"
done
# Every target has its figure and what it comes to, or the reason why it has none.
targets() { sed -n '/^## Targets/,/^## Beside/p' "$page/performance.md" | grep '^| ' | tail -n +2; }
readonly others='^\| lab,|tests? .*counts?\b'  # what this run does not measure
measured=$(($(targets | wc -l) - $(targets | grep --count --extended-regexp "$others")))
((measured == 22)) || fail "the page has $measured targets that a run measures, not 22"
! targets | grep --extended-regexp --invert-match "$others" \
  | grep --invert-match --extended-regexp '[0-9].*\| (met|\*\*not met\*\*|undecided)[^|]*\|$|missing: ' > "$scratch/silent" \
  || fail "a target has no figure, or no verdict: $(text silent)"
(($(targets | grep --count '^| lab, .* not run: .tools/bench --lab. |$') == 12)) || fail "of what the lab measures the page does not say that it was not run"
(($(targets | grep --count --extended-regexp 'tests? .*counts?\b') == 2)) || fail "the page lacks what tests count"
! targets | grep --quiet '| *|$' || fail "the page says nothing of a target: $(targets | grep '| *|$')"
for plot in throughput-lanes throughput-packets throughput-devices cpu-lanes memory-devices; do
  python3 -c 'import sys, xml.dom.minidom; xml.dom.minidom.parse(sys.argv[1])' "$page/performance/$plot.svg" \
    || fail "$plot.svg is no XML"
  grep --quiet "performance/$plot.svg" "$page/performance.md" || fail "the page does not show $plot.svg"
done

# ---- The page comes from the file alone.
run render "$BENCH" --render "$results" --page "$scratch/again"
check_code "--render" "$code" 0 render.err
! grep --quiet '^## Another machine' "$page/performance.md" || fail "the page tells of another machine, of which nothing is known"
cp --recursive "$page" "$scratch/two"
cp -- "$results" "$scratch/two/performance/other.json"
run render "$BENCH" --render "$scratch/two/performance/results.json" --page "$scratch/two"
check_code "--render with another machine's results" "$code" 0 render.err
(($(grep --count '^| socat, one connection' "$scratch/two/performance.md") == 2)) || fail "the page does not tell of another machine"
rm -- "$results"
diff --recursive "$page" "$scratch/again" > /dev/null || fail "--render makes another page of the same file"
# And the one in the tree from the one beside it.
readonly docs=${BENCH%/*}/../docs
run render "$BENCH" --render "$docs/performance/results.json" --page "$scratch/tree"
check_code "--render of docs/performance/results.json" "$code" 0 render.err
diff "$docs/performance.md" "$scratch/tree/performance.md" > /dev/null || fail "docs/performance.md is not what tools/bench --render makes"
for plot in "$docs"/performance/*.svg; do
  cmp --silent "$plot" "$scratch/tree/performance/${plot##*/}" || fail "$plot is not what tools/bench --render makes"
done
! grep --quiet 'not run' "$docs/performance.md" || fail "docs/performance.md has targets that were not measured"
echo '{"rounds": 1}' > "$scratch/none.json"
run render "$BENCH" --render "$scratch/none.json" --page "$scratch/never"
check_code "--render of something else" "$code" 2 render.err
[[ ! -e $scratch/never ]] || fail "--render of something else leaves a page"

# ---- A program that is not installed is said to be missing, and is no failure.
mkdir "$scratch/bin"
IFS=: read -ra folders <<< "$PATH"
for folder in "${folders[@]}"; do
  find -L "$folder" -maxdepth 1 -type f -executable ! -name socat -exec ln --symbolic --force --target-directory="$scratch/bin" {} + \
    2> /dev/null || true
done
PATH=$scratch/bin run without "$BENCH" --quick --build "$BUILD" --page "$scratch/without" --only '^(socat|floor/connections=4)$'
check_code "--quick without socat" "$code" 0 without.err
check_says "without socat" without.err '^bench: socat: missing: socat: no socat here'
grep --quiet --extended-regexp '^\| socat .*\*\*missing: .*no socat here' "$scratch/without/performance.md" \
  || fail "the page does not say that socat is missing"

# ---- A session that moves the wrong bytes, or none, is a failure and no sample.
mkdir --parents "$scratch/broken/bench"
printf '#!/bin/sh\necho "{\\"bytes\\": 1, \\"seconds\\": 1, \\"source_cpu_seconds\\": 1, \\"target_cpu_seconds\\": 1}"\n' \
  > "$scratch/broken/bench/floor"
chmod +x "$scratch/broken/bench/floor"
run broken "$BENCH" --quick --build "$scratch/broken" --page "$scratch/broken/page" --only '^(floor/connections=1|godwit/lanes=1/crc=on)$'
check_code "--quick with a program that moves nothing" "$code" 1 broken.err
check_says "a program that moves nothing" broken.err 'floor/connections=1: failed: .*does not have the bytes'
check_says "a program that is not built" broken.err 'godwit/lanes=1/crc=on: failed: .*is not there: build it'
[[ $(jq '.samples | length' "$scratch/broken/page/performance/results.json") == 0 ]] || fail "there are samples of nothing"

# ---- The CPU seconds of a target that works are not those of a source that sleeps until it has ended.
cat > "$scratch/peer" << 'PEER'
source "$COMMON"
target() {
  python3 -c 'import socket, sys
sockets = socket.create_server(("127.0.0.1", int(sys.argv[1])))
sockets.accept()
sum(range(5_000_000))' "$port"
}
source_() {
  exec 7<> "/dev/tcp/127.0.0.1/$port"
  while kill -0 "$target_job" 2> /dev/null; do sleep 0.05; done
}
pick_port
move target source_
result peer
PEER
: > "$scratch/empty"
run peer env COMMON="$(dirname "$BENCH")/../bench/peers/common.sh" BENCH_SOURCE="$scratch/empty" \
  BENCH_TARGET="$scratch/empty" BENCH_SCRATCH="$scratch" BENCH_BUILD="$BUILD" bash "$scratch/peer"
check_code "a peer" "$code" 0 peer.err
jq --exit-status '.source_cpu_seconds < .target_cpu_seconds / 2' "$scratch/peer.out" > /dev/null \
  || fail "a source that sleeps has its target's CPU seconds: $(text peer.out)"

# ---- Comparisons, of runs that are made up: godwit's seconds in each of the rounds, the floor's being 1.
made_up() {
  jq --null-input --argjson seconds "$2" '{rounds: ($seconds | length), samples: [range($seconds | length) as $i
    | {source_cpu_seconds: 1, target_cpu_seconds: 1, bytes: 1073741824} as $result
    | ({key: "floor/connections=1", round: ($i + 1), result: ($result + {seconds: 1})},
       {key: "godwit/lanes=1/crc=on", round: ($i + 1), result: ($result + {seconds: $seconds[$i]})})]}' > "$scratch/$1.json"
}
compares() {
  local expected=$1 what=$2 said=$3
  run compare "$BENCH" --compare "$scratch/old.json" "$scratch/new.json"
  check_code "--compare, $what" "$code" "$expected" compare.err
  cat "$scratch/compare.err" >> "$scratch/compare.out"
  check_says "--compare, $what" compare.out "$said"
}
made_up old '[1.00, 1.01, 1.02, 1.01, 1.00]'
made_up new '[1.20, 1.21, 1.22, 1.21, 1.20]'
compares 1 "a fifth slower" '^worse +godwit/lanes=1/crc=on: rate'
made_up new '[0.80, 0.81, 0.82, 0.81, 0.80]'
compares 0 "a fifth faster" '^better +godwit/lanes=1/crc=on: rate'
made_up new '[1.03, 1.03, 1.04, 1.03, 1.03]'
compares 0 "significant, but small" '^2 figures: 0 worse, 0 better, 2 without a difference'
made_up new '[0.90, 1.40, 1.20, 0.95, 1.30]'
compares 0 "large, but within the spread" '^2 figures: 0 worse, 0 better, 2 without a difference'
made_up new '[1.05, 1.07, 1.10, 1.60, 1.70]'
compares 0 "all slower, but within the spread" '^2 figures: 0 worse, 0 better, 2 without a difference'
made_up new '[1.20, 1.20, 1.20, 1.20, 0.99]'
compares 0 "a fifth slower but once, which may be chance" '^2 figures: 0 worse, 0 better, 2 without a difference'
made_up new '[1.5, 1.5, 1.5, 1.5]'
compares 2 "too few rounds" 'fewer than 5'
echo '[' > "$scratch/new.json"
compares 2 "no JSON" 'not two results'

# ---- Targets are decided by the interval of the median: by smallest and largest where there are few rounds.
PYTHONPATH="${BENCH%/*}/../bench/report" python3 - << 'PYTHON' 2> "$scratch/intervals.err" || fail "intervals: $(text intervals.err)"
from results import Results, median_interval, rate
from targets import MET, NOT_MET, UNDECIDED, over
# From tables of the sign test, at 95 %.
for count, left_out in ((1, 0), (2, 0), (5, 0), (6, 0), (8, 0), (9, 1), (11, 1), (12, 2), (15, 3), (20, 5), (25, 7)):
    found = median_interval([count - i for i in range(count)])
    assert found == (1 + left_out, count - left_out), (count, found)
for values, verdict in (([0.9] * 2 + [1.1] * 10, MET), ([0.9] * 3 + [1.1] * 9, UNDECIDED),
                        ([0.9] * 9 + [1.1] * 3, UNDECIDED), ([0.9] * 10 + [1.1] * 2, NOT_MET),
                        ([0.9] + [1.1] * 4, UNDECIDED), ([1.0], f"{MET}, in each of 1 rounds"), ([0.9] * 5, f"{NOT_MET}, in each of 5 rounds")):
    assert over(values, 1.0, True)[1] == verdict, (values, over(values, 1.0, True))
    assert over([2 - v for v in values], 1.0, False)[1] == verdict, values
def sample(seconds):
    return {"bytes": 1 << 30, "seconds": seconds}
made_up = Results({"rounds": 3, "samples": [
    *({"key": "a", "round": r, "result": sample(s)} for r, of in enumerate([[3, 1, 2], [8, 4, 4], [9, 9, 1]], 1) for s in of),
    *({"key": "b", "round": r, "result": sample(s)} for r, s in ((1, 4), (2, 2), (3, 3)))]})
# Of three in a round the middle one counts: 2, 4, 9; by their medians b is the faster, in the first round it was not.
assert made_up.values("a", rate) == [1 / 2, 1 / 4, 1 / 9]
assert made_up.slowest_over_fastest(["a", "b"], rate) == [2.0, 0.5, 3 / 9], made_up.slowest_over_fastest(["a", "b"], rate)
assert made_up.slowest_over_fastest(["a", "c"], rate) == []
assert over([], 1.0, True) is None
PYTHON

# ---- What the lab has measured, made up: ratios inside a round, a part that failed, a target between the rounds.
PYTHONPATH="${BENCH%/*}/../bench/report" python3 - << 'PYTHON' 2> "$scratch/lab.err" || fail "the lab's figures: $(text lab.err)"
from lab import Lab, instruction_rows, qemu_rows, queue_pair_rows, worker_rows
from targets import MET, NOT_MET, UNDECIDED, lab_targets
def queue_pair(way, round_, rate):
    return {"way": way, "round": round_, "mib_a_second": rate, "idle_s": 1, "of_s": 4}
def qemu(way, round_, total, downtime, mib=1024, precopy="no"):
    return {"way": way, "round": round_, "mib": mib, "precopy": precopy, "total_ms": total, "downtime_ms": downtime,
            "cpu_s": 1, "memory_mib": 10}
def counted(worker):
    own = {f"{side} {role}": 0 for side in ("source", "target") for role in ("worker", "loader", "control", "others")}
    return {"own": {**own, "source worker": worker, "target loader": 300, "target others": 7}, "goes_round": {"source": 0.5, "target": 0.6}}
lab = Lab({"failed": [{"part": "qemu-256", "why": "the lab failed"}],
           "queue_pairs": [queue_pair(*of) for of in (("ib_send_bw", 1, 100), ("godwit", 1, 90), ("queue_pair_floor", 1, 95),
                                                      ("godwit", 2, 60), ("ib_send_bw", 2, 50), ("godwit", 3, 70))],
           "qemu": [qemu(*of) for of in (("qemu", 1, 4000, 3000), ("tcp", 1, 2000, 1500), ("verbs", 1, 8000, 7000),
                                         ("qemu", 2, 6000, 3000), ("tcp", 2, 2000, 1200))],
           "instructions": {"rounds": [counted(4000), counted(4500)], "workers": {}}})
assert lab.queue_pair_ratios("godwit", "ib_send_bw") == [0.9, 1.2]  # round 3 has no other
assert lab.qemu_rates(1024, "no", "tcp") == [2, 3] and lab.qemu_ratios(1024, "no", "tcp", "downtime_ms") == [0.5, 0.4]
assert lab.instructions() == [4307, 4807] and lab.instructions("source") == [4000, 4500] and lab.instructions("", "loader") == [300, 300]
rows = {row[0]: row[1:] for row in lab_targets(lab)}
assert len(rows) == 12, rows
def verdict(what):
    return next(row[2] for name, row in rows.items() if what in name)
assert verdict("ib_send_bw") == UNDECIDED and "alone: 0.95 ×" in next(r[1] for n, r in rows.items() if "ib_send_bw" in n)
assert verdict("1024 MiB, without PRE_COPY, CRC off, against QEMU multifd: rate") == MET + ", in each of 2 rounds"
assert verdict("1024 MiB, without PRE_COPY, CRC off, against QEMU multifd: downtime") == MET + ", in each of 2 rounds"
assert verdict("1024 MiB, with PRE_COPY, CRC off, against QEMU multifd: rate") == "not run"
assert verdict("256 MiB, with PRE_COPY, CRC off, against QEMU multifd: rate") == "failed: the lab failed"
assert verdict("over TCP: rate") == "not run" and verdict("instructions") == MET
assert [row[3] for row in lab_targets(None)] == ["not run: `tools/bench --lab`"] * 12
assert [row[2] for row in qemu_rows(lab)] == ["QEMU, TCP", "godwit, TCP", "godwit, queue pairs"]
assert queue_pair_rows(lab)[2][1:] == ["70.0 (60.0 to 90.0)", "1.05 (0.90 to 1.20)", "0.95", "0.25"], queue_pair_rows(lab)
assert instruction_rows(lab)[-1] == ["**all**", "4,250 (4,000 to 4,500)", "307", "4,557 (4,307 to 4,807)"], instruction_rows(lab)
assert worker_rows(lab) == [["source", "0.50", "–", "–", "–"], ["target", "0.60", "–", "–", "–"]]
lab.data["instructions"]["rounds"] = [counted(5000)]
assert {row[0]: row for row in lab_targets(lab)}["lab, instructions a packet in our own code, queue pairs, CRC off, both sides"][3] == NOT_MET
PYTHON

# ---- Wrong usage.
for wrong in '--lab --quick' '--lab --size 1GiB' '--lab --rounds 0' '--rounds 0' '--size 3' '--size 65MiB' '--more' '--out' '--compare one'; do
  read -ra words <<< "$wrong"
  run wrong "$BENCH" "${words[@]}"
  check_code "tools/bench $wrong" "$code" 2 wrong.err
done
finish
