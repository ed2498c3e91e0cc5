#!/bin/bash
# --metrics tells of a session while it runs, to whoever asks for it, and nothing that else may
# connect is any of the session's business.
# shellcheck source=tests/tools/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

# request PORT TEXT: what comes back for it, in bytes as they are.
request() (
  exec {http}<> "/dev/tcp/127.0.0.1/$1"  # ends the subshell where nobody listens
  printf '%b' "$2" >&"$http"
  timeout 10 cat <&"$http" || true
)
scrape() {
  request "$1" 'GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n' > "$scratch/$2" \
    || die "nobody answers: $(text send.err) $(text receive.err) $(text send.out)"
}
sample() { awk -v name="$2" 'index($0, name " ") == 1 { print $NF }' "$scratch/$1"; }
metrics_port() { grep -oP 'metrics are at http://127\.0\.0\.1:\K\d+(?=/metrics$)' "$scratch/$1"; }

# A session that goes on until its time is over: virtio always has a whole context to give.
[[ $scale == full ]] && size=16MiB || size=256KiB
readonly soft=soft:profile=virtio,size=$size,seed=1,precopy_calls=0
readonly ports=(--metrics 127.0.0.1:0)
start_receiver receive --device "$soft" --device "$soft" "${ports[@]}" --json "$scratch/target.json"
receiver=$pid
start send "$GODWIT" send --to "127.0.0.1:$port" --device "$soft" --device "$soft" --transport tcp \
  --lanes 2 --downtime-limit 1ms --precopy-max-time 6s "${ports[@]}" --json "$scratch/source.json"
sender=$pid
within 30 metrics_port send.err > /dev/null || die "send serves no metrics: $(text send.err)"
send_port=$(metrics_port send.err) receive_port=$(metrics_port receive.err)
pre_copies() { scrape "$send_port" first.send && grep -q '^godwit_session_phase{phase="pre-copying"} 1' "$scratch/first.send" \
  && (($(grep -c '^godwit_device_bytes_total{.* [1-9]' "$scratch/first.send") == 2)); }
within 30 pre_copies || die "no pre-copy shows: $(text first.send)"
loads() { scrape "$receive_port" first.receive && (($(sample first.receive godwit_session_bytes_total) > 0)); }
within 30 loads || die "the target loads nothing: $(text first.receive)"

# ---- The format: each sample has HELP and TYPE before it, each family once.
readonly family_regex='godwit_[a-z_]+' number_regex='\d+(\.\d{9})?'
for side in send receive; do
  check_says "$side" first.$side '^HTTP/1\.1 200 OK\r$'
  check_says "$side" first.$side '^Content-Type: text/plain; version=0\.0\.4'
  check_never_says "$side" first.$side "^(?!HTTP/1|[A-Z][A-Za-z-]+: |\\r?\$|# HELP $family_regex |# TYPE $family_regex (counter|gauge)\$|$family_regex(\{[a-z]+=\"[^\"]+\"(,[a-z]+=\"[^\"]+\")*\})? $number_regex\$)"
  wrong=$(awk '
    $2 == "HELP" { helped[$3]++ }
    $2 == "TYPE" { type[$3] = $4; family = $3; if (helped[$3] != 1) print $3 " has no HELP, or two" }
    /^godwit_/ { split($1, part, "{"); if (part[1] != family) print part[1] " stands outside its family" }
    /^godwit_/ && (type[family] == "counter") != (family ~ /_total$/) { print family " is a " type[family] }
    ' "$scratch/first.$side" | sort -u)
  [[ -z $wrong ]] || fail "$side: $wrong"
  body=$(sed '1,/^\r$/d' "$scratch/first.$side" | wc -c)
  check_says "$side" first.$side "^Content-Length: $body\\r\$"
done
readonly labels="\{device=\"$soft\",position=\"[01]\"\}"
for family in bytes_total packets_total read_bytes_total; do
  check_says "send" first.send "^godwit_device_$family$labels [1-9]"
done
for family in bytes_total packets_total write_seconds_total; do
  check_says "receive" first.receive "^godwit_device_$family$labels [0-9]"
done
check_says "receive" first.receive "^godwit_device_reorder_depth_high_water$labels \\d+\$"
check_says "send" first.send '^godwit_lane_bytes_total\{lane="1",transport="tcp"\} [1-9]'
check_says "send" first.send '^godwit_lane_queue_depth\{lane="0",transport="tcp"\} \d+$'
check_says "send" first.send "^godwit_session_starved_seconds_total $number_regex\$"
check_says "send" first.send '^godwit_session_info\{side="source"\} 1$'

# ---- Whatever else comes.
not_found() {
  request "$send_port" "$1" > "$scratch/other"
  check_says "$2" other '^HTTP/1\.1 404 Not Found\r$'
  check_never_says "$2" other '^godwit_'
}
not_found 'GET / HTTP/1.1\r\n\r\n' "another page"
not_found 'GET /metricsandmore HTTP/1.1\r\n\r\n' "a longer name"
not_found 'POST /metrics HTTP/1.1\r\n\r\n' "POST"
not_found 'GET /metrics\r\n\r\n' "no version"
not_found '\x00\xff\x16\x03\x01\n\n' "no HTTP"
# More than a request may have, with no end: answered, and left.
{ head -c 1000000 /dev/zero > "/dev/tcp/127.0.0.1/$send_port"; } 2> /dev/null || true
# More than it serves at once, saying nothing.
silent=()
for ((i = 0; i < 12; i++)); do
  exec {fd}<> "/dev/tcp/127.0.0.1/$send_port"
  ((i % 2 == 0)) || printf 'GET /me' >&"$fd"
  silent+=("$fd")
done
scrape "$send_port" second.send  # when they have been dropped, if need be
check_says "beside silent clients" second.send '^HTTP/1\.1 200 OK'
for fd in "${silent[@]}"; do exec {fd}>&-; done
scrape "$receive_port" second.receive

# ---- No counter falls, and those that tell of a running session rise.
for side in send receive; do
  fallen=$(awk 'FNR == NR { if (/_total[ {]/) was[$1 $2] = 1; if (/^godwit.*_total/) before[$1] = $NF; next }
    /^godwit.*_total/ { seen++; if ($NF + 0 < before[$1] + 0) print $1 " fell from " before[$1] " to " $NF }
    END { if (seen < 5) print "only " seen + 0 " counters" }' "$scratch/first.$side" "$scratch/second.$side")
  [[ -z $fallen ]] || fail "$side: $fallen"
  before=$(sample first.$side godwit_session_bytes_total)
  after=$(sample second.$side godwit_session_bytes_total)
  ((after > before)) || fail "$side: $after bytes after $before"
done

# ---- The session is none the worse.
await "$sender"
check_code "send" "$code" 0 send.err
check_json "send" source.json /switchover/reason 'time limit'
await "$receiver"
check_code "receive" "$code" 0 receive.err
check_json "receive" target.json /devices/0/content_verified true

# Its JSON ends with the same numbers, and with the last of many iterations.
iterations=$(json source.json /devices/0/precopy_iterations)
((iterations > 64)) || fail "only $iterations iterations: the test shows nothing"
check_json "send" source.json /devices/0/iterations 64
first=$(json source.json /devices/0/iterations/0/number)
last=$(json source.json /devices/0/iterations/63/number)
# A number is the device's answer's; one answer may come before anything was read.
((last >= iterations && last - first >= 63)) || fail "of $iterations iterations $first to $last are told"
check_json "send" source.json /starved_ms '[1-9].*'
check_json "send" source.json /stalled_ms '\d.*'
check_json "receive" target.json /devices/1/write_ms '\d+\.\d+'
check_json "receive" target.json /devices/1/reorder_depth_high_water '\d+'

# ---- What can't be served is said before anything is touched.
run refused "$GODWIT" send --to 127.0.0.1:1 --device "$soft" --metrics 192.0.2.1:7471 --json "$scratch/refused.json"
check_code "--metrics of another host" "$code" 1 refused.err
check_one_error "--metrics of another host" refused.err "--metrics: can't listen on 192\.0\.2\.1:7471"
check_json "--metrics of another host" refused.json /result refused
run refused "$GODWIT" send --to 127.0.0.1:1 --device "$soft" --metrics 127.0.0.1
check_code "--metrics without a port" "$code" 2 refused.err
finish
