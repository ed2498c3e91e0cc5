#!/bin/bash
# Sessions between two sides that believe each other, by certificates or by a key that both have; each
# refusal in one line on both sides, after which the receiver goes on waiting for its real peer; and no
# plain session where others could listen, unless that is asked for by name.
# shellcheck source=tests/tools/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

readonly soft=soft:size=8MiB,seed=3

# ---- keygen.

run keygen "$GODWIT" keygen --out "$scratch/keys"
check_code keygen "$code" 0 keygen.err
check_says keygen keygen.out 'receive .*--tls-cert target\.pem --tls-key target\.key --tls-ca ca\.pem'
for name in ca source target; do
  for kind in pem key; do
    [[ $(stat -c %a "$scratch/keys/$name.$kind") == 600 ]] || fail "$name.$kind is not of mode 600"
  done
done
[[ $(stat -c %a "$scratch/keys") == 700 ]] || fail "the folder is not of mode 700"
sum=$(cat "$scratch"/keys/* | cksum)
refused 1 'ca\.pem is there already, and nothing is overwritten' keygen --out "$scratch/keys"
[[ $(cat "$scratch"/keys/* | cksum) == "$sum" ]] || fail "keygen has changed what was there"
# One file that is in the way: none is made.
mkdir "$scratch/half"
: > "$scratch/half/target.key"
refused 1 'target\.key is there already' keygen --out "$scratch/half"
[[ $(ls "$scratch/half") == target.key ]] || fail "keygen leaves half a set: $(ls "$scratch/half")"
refused 1 'it can.t be made' keygen --out "$scratch/none/keys"
refused 2 '--out is required' keygen
refused 2 "--name 'a,DNS:b': wanted is a DNS name or an address" keygen --out "$scratch/no" --name a,DNS:b
refused 2 '--psk excludes --name' keygen --out "$scratch/no" --psk --name a
[[ ! -e $scratch/no ]] || fail "a refused keygen has made its folder"

run keygen "$GODWIT" keygen --out "$scratch/psk" --psk
check_code "keygen --psk" "$code" 0 keygen.err
check_says "keygen --psk" psk/psk '^[0-9a-f]{64}$'
[[ $(stat -c %a "$scratch/psk/psk") == 600 ]] || fail "the key is not of mode 600"
check_never_says "keygen --psk" keygen.out "$(cat "$scratch/psk/psk")"
run keygen "$GODWIT" keygen --out "$scratch/other" --psk
run keygen "$GODWIT" keygen --out "$scratch/other"
run keygen "$GODWIT" keygen --out "$scratch/elsewhere" --name elsewhere.example
cmp -s "$scratch/psk/psk" "$scratch/other/psk" && fail "keygen makes the same key twice"

# ---- Sessions.

# certificates FOLDER SIDE [CA-FOLDER]: the options.
certificates() {
  printf '%s\n' --tls-cert "$scratch/$1/$2.pem" --tls-key "$scratch/$1/$2.key" \
    --tls-ca "$scratch/${3:-$1}/ca.pem"
}
mapfile -t source_certificates < <(certificates keys source)
mapfile -t target_certificates < <(certificates keys target)
psk=(--psk-file "$scratch/psk/psk")

# moves WHAT TRUST RECEIVE-OPTION… -- SEND-OPTION…
moves() {
  local what=$1 trust=$2 receive=() receiver
  shift 2
  while [[ $1 != -- ]]; do
    receive+=("$1")
    shift
  done
  shift
  start_receiver receive --device "$soft" "${receive[@]}" --json "$scratch/target.json"
  receiver=$pid
  run send "$GODWIT" send --to "127.0.0.1:$port" --device "$soft" --transport tcp "$@" \
    --json "$scratch/source.json"
  check_code "$what: send" "$code" 0 send.err
  await "$receiver"
  check_code "$what: receive" "$code" 0 receive.err
  for side in source target; do
    check_json "$what" "$side.json" /devices/0/content_verified true
    check_json "$what" "$side.json" /trust "$trust"
  done
  [[ ! -s $scratch/receive.err && ! -s $scratch/send.err ]] || fail "$what: something was said"
}
moves "plain on loopback" plain --
moves "certificates" certificates "${target_certificates[@]}" -- "${source_certificates[@]}"
moves "certificates with names" certificates "${target_certificates[@]}" --tls-peer-name localhost \
  -- "${source_certificates[@]}" --tls-peer-name ::1
for mode in on off; do
  moves "sealed: $mode" psk "${psk[@]}" --seal "$mode" -- "${psk[@]}"
  for side in source target; do check_json "sealed: $mode" "$side.json" /seal "$mode"; done
done
moves "certificates, sealed" certificates "${target_certificates[@]}" -- "${source_certificates[@]}" --seal on
check_json "certificates, sealed" target.json /seal on
start_receiver receive --device "$soft" "${psk[@]}" --seal off
receiver=$pid
run send "$GODWIT" send --to "127.0.0.1:$port" --device "$soft" --transport tcp "${psk[@]}" --seal on
check_code "on and off" "$code" 1 send.err
check_one_error "on and off" send.err 'the source wants packets to be sealed .*and the target does not'
await "$receiver"
check_code "on and off: the receiver" "$code" 1 receive.err
check_one_error "on and off: the receiver" receive.err 'the source wants packets to be sealed'
moves "a pre-shared key" psk "${psk[@]}" -- "${psk[@]}"

# ---- Refusals: the receiver waits on, and its real peer still comes.

# turned_away WHAT SOURCE-SAYS TARGET-SAYS SEND-OPTION…: of the receiver that runs.
turned_away() {
  local what=$1 source_says=$2 target_says=$3 lines
  shift 3
  lines=$(wc -l < "$scratch/receive.err")
  run send "$GODWIT" send --to "127.0.0.1:$port" --device "$soft" --transport tcp "$@"
  check_code "$what" "$code" 1 send.err
  check_one_error "$what" send.err "$source_says"
  within 10 says_more "$lines" || fail "$what: the receiver says nothing"
  tail -n +$((lines + 1)) "$scratch/receive.err" > "$scratch/said"
  [[ $(wc -l < "$scratch/said") == 1 ]] || fail "$what: more than one line: $(text said)"
  check_says "$what" said "godwit: warning: turned away 127\.0\.0\.1:\d+: .*$target_says"
}
says_more() { (($(wc -l < "$scratch/receive.err") > $1)); }

# The certificates' receiver. One of them has run out, which takes a clock to make.
mapfile -t other < <(certificates other source keys)
mapfile -t other_ca < <(certificates keys source other)
start_receiver receive --device "$soft" "${target_certificates[@]}" --json "$scratch/target.json"
receiver=$pid
turned_away "plain" 'it wants TLS with certificates, this side a plain session: give both' \
  'it wants a plain session, this side TLS with certificates: give both'
turned_away "a key" 'it wants TLS with certificates, this side TLS with a pre-shared key' \
  'it wants TLS with a pre-shared key, this side TLS with certificates' "${psk[@]}"
turned_away "the source is of another CA" 'it refuses our certificate, which is not from a CA' \
  'its certificate is refused: .*: it must be from the CA in --tls-ca' "${other[@]}"
turned_away "the source believes another CA" 'its certificate is refused: .*: it must be from the CA' \
  'it refuses our certificate, which is not from a CA' "${other_ca[@]}"
turned_away "another name" 'it is for localhost, 127\.0\.0\.1, ::1, not for elsewhere\.example' \
  'it refuses our certificate: is it for the name' "${source_certificates[@]}" --tls-peer-name elsewhere.example
run send "$GODWIT" send --to "127.0.0.1:$port" --device "$soft" --transport tcp "${source_certificates[@]}"
check_code "the real peer after strangers" "$code" 0 send.err
await "$receiver"
check_code "the receiver after strangers" "$code" 0 receive.err
check_json "the receiver after strangers" target.json /devices/0/content_verified true

start_receiver receive --device "$soft" "${target_certificates[@]}" --tls-peer-name elsewhere.example
receiver=$pid
turned_away "the source has another name" 'it refuses our certificate: is it for the name' \
  'it is for localhost, 127\.0\.0\.1, ::1, not for elsewhere\.example' "${source_certificates[@]}"
stop "$receiver"

# The key's receiver meets strangers of all kinds, also one that leaves in the middle.
start_receiver receive --device "$soft" "${psk[@]}"
receiver=$pid
turned_away "another key" 'it refuses our pre-shared key: give both hosts the same --psk-file' \
  'it has another pre-shared key: give both hosts the same --psk-file' --psk-file "$scratch/other/psk"
turned_away "certificates" 'it wants TLS with a pre-shared key, this side TLS with certificates' \
  'it wants TLS with certificates, this side TLS with a pre-shared key' "${source_certificates[@]}"
call() { ("$@" > "/dev/tcp/127.0.0.1/$port") 2> /dev/null || true; }
call printf 'GODWIT\2\1\026\3\1\2\0\1\0'
call printf 'GODWIT\2\1GET / HTTP/1.1\r\n\r\n'
call printf 'GODWIT\0\11'
call printf 'GODWITLN0123456789abcdef\0\0\0\0'
said() { grep -qP "$1" "$scratch/receive.err"; }
for line in '(in the middle of the TLS handshake|Connection reset)' 'its TLS handshake is wrong: ' 'version 9' 'a lane of no session'; do
  within 10 said "turned away .*$line" || fail "a stranger: no line has '$line': $(text receive.err)"
done
run send "$GODWIT" send --to "127.0.0.1:$port" --device "$soft" --transport tcp "${psk[@]}"
check_code "the real peer after strangers" "$code" 0 send.err
await "$receiver"
check_code "the receiver after strangers" "$code" 0 receive.err
check_never_says "the receiver after strangers" receive.err "$(cat "$scratch/psk/psk")"

# A plain receiver, and a peer that wants more.
start_receiver receive --device "$soft"
receiver=$pid
turned_away "a plain receiver" 'it wants a plain session, this side TLS with a pre-shared key' \
  'it wants TLS with a pre-shared key, this side a plain session' "${psk[@]}"
stop "$receiver"

# ---- Options that don't go together, and files that don't do.

for side in send_refused receive_refused; do
  "$side" 2 'certificates need all three .*missing: --tls-key --tls-ca$' --device "$soft" --tls-cert x
  "$side" 2 'certificates and a pre-shared key: a session is secured by one' --device "$soft" \
    "${psk[@]}" "${source_certificates[@]}"
  "$side" 2 '--insecure asks for a plain session' --device "$soft" "${psk[@]}" --insecure
  "$side" 2 '--seal on needs a key that only the two sides have' --device "$soft" --seal on
  "$side" 2 "'yes' is not on, off or auto" --device "$soft" --seal yes
  "$side" 2 'there are no certificates here' --device "$soft" "${psk[@]}" --tls-peer-name x
  "$side" 1 "the pre-shared key, file $scratch/none: it can.t be read" --device "$soft" \
    --psk-file "$scratch/none"
  "$side" 1 "the key, file $scratch/other/target.key: it does not belong to the certificate" \
    --device "$soft" "${target_certificates[@]:0:2}" --tls-key "$scratch/other/target.key" \
    --tls-ca "$scratch/keys/ca.pem"
done
cp "$scratch/psk/psk" "$scratch/open"
chmod 644 "$scratch/open"
send_refused 1 'others may read or write it, so it is no secret any more: .*chmod 600' --device "$soft" \
  --psk-file "$scratch/open"
if openssl pkey -in "$scratch/keys/source.key" -aes256 -passout pass:x -out "$scratch/locked" 2> /dev/null; then
  send_refused 1 'it has a passphrase' --device "$soft" --tls-cert "$scratch/keys/source.pem" \
    --tls-key "$scratch/locked" --tls-ca "$scratch/keys/ca.pem"
else
  say "no openssl command here: a key with a passphrase is not tried"
fi

# ---- Off loopback nothing is plain unless that is asked for.

refused 1 'others than this host can connect here, and without TLS anybody .*--insecure where' \
  receive --listen 0.0.0.0:0 --device "$soft"
refused 1 'others than this host can connect here' receive --listen '[::]:0' --device "$soft"
address=$(hostname -I | tr ' ' '\n' | grep -E '^[0-9.]+$' | head -n 1 || true)
if [[ -n $address ]]; then
  start_receiver receive --listen 0.0.0.0:0 --device "$soft" --insecure
  receiver=$pid
  refused 1 'the target is not on this host, and without TLS anybody' \
    send --to "$address:$port" --device "$soft" --transport tcp
  run send "$GODWIT" send --to "$address:$port" --device "$soft" --transport tcp --insecure
  check_code "--insecure" "$code" 0 send.err
  await "$receiver"
  check_code "--insecure: receive" "$code" 0 receive.err
  # Off loopback packets are sealed without being asked.
  start_receiver receive --listen 0.0.0.0:0 --device "$soft" "${psk[@]}" --json "$scratch/target.json"
  receiver=$pid
  run send "$GODWIT" send --to "$address:$port" --device "$soft" --transport tcp "${psk[@]}" \
    --json "$scratch/source.json"
  check_code "off loopback" "$code" 0 send.err
  await "$receiver"
  check_code "off loopback: receive" "$code" 0 receive.err
  for side in source target; do check_json "off loopback" "$side.json" /seal on; done
else
  say "this host has no address but loopback: a source that connects to another is not tried"
fi
finish
