// The control channel's receiving side: what it makes of a peer's bytes does not depend on how the
// network cuts them, its first error is final, and a lane's preface is read as it was written.
//
// Input: a byte of flags, cuts (fuzz_input.h), the peer's bytes. With kFramed they are messages
// with a length of two bytes each, which go out with the right one of four.
#include <absl/strings/match.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <string>
#include <utility>
#include <vector>

#include "base/check.h"
#include "base/clock.h"
#include "tests/engine/wire_image.h"
#include "tests/fuzz/fuzz_input.h"
#include "transport/control.pb.h"
#include "transport/control_channel.h"

namespace godwit::fuzz {
namespace {

constexpr uint8_t kWithPreface = 1U << 0;  // the channel expects one
constexpr uint8_t kAddPreface = 1U << 1;   // and the right one is put in front
constexpr uint8_t kFramed = 1U << 2;

struct Heard {
  std::vector<std::string> messages;
  absl::Status end;

  friend bool operator==(const Heard&, const Heard&) = default;
};

void SendAll(int socket, absl::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t sent = ::send(socket, bytes.data(), bytes.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent < 0 && errno == EINTR) continue;
    GODWIT_CHECK(sent > 0);  // an input is far smaller than the socket's buffer
    bytes.remove_prefix(static_cast<size_t>(sent));
  }
}

// Takes what is there now; false once the channel has failed.
bool Hear(ControlChannel& channel, Heard& heard) {
  while (true) {
    const auto message = channel.Receive();
    if (!message.ok()) {
      heard.end = message.status();
      return false;
    }
    if (!message->has_value()) return true;
    GODWIT_CHECK((*message)->message_case() != control::ControlMessage::MESSAGE_NOT_SET);
    GODWIT_CHECK(!(*message)->has_ping());
    heard.messages.push_back((*message)->SerializeAsString());
  }
}

Heard Listen(absl::string_view bytes, const std::vector<size_t>& cuts, bool expect_preface) {
  std::array<int, 2> fds{};
  GODWIT_CHECK(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds.data()) == 0);
  UniqueFd peer(fds[1]);
  const ManualClock clock;
  ControlChannel channel(UniqueFd(fds[0]), "the fuzzer", expect_preface, clock);
  Heard heard;
  bool open = true;
  InPieces(bytes, cuts, [&](absl::string_view piece) {
    if (!open) return;
    SendAll(peer.get(), piece);
    open = Hear(channel, heard);
  });
  ::shutdown(peer.get(), SHUT_WR);
  GODWIT_CHECK(!open || !Hear(channel, heard));  // the end of the stream is an error at the latest
  GODWIT_CHECK(channel.Receive().status() == heard.end && channel.Flush() == heard.end);
  GODWIT_CHECK(channel.Tick() == heard.end);
  return heard;
}

std::string WithLengths(FuzzInput& input) {
  std::string bytes;
  while (!input.empty()) {
    const absl::string_view body = input.Take(input.Number16());
    bytes += wire::BigEndian(body.size(), 4) + std::string(body);
  }
  return bytes;
}

void CheckPreface(absl::string_view bytes) {
  std::array<char, kLanePrefaceBytes> preface{};
  std::copy_n(bytes.data(), std::min(bytes.size(), preface.size()), preface.data());
  const auto kind = ClassifyPreface(preface.data());
  if (!kind.ok()) return;
  if (*kind == PrefaceKind::kControl) {
    const auto ours = ControlPreface();
    GODWIT_CHECK(std::equal(ours.begin(), ours.end(), preface.begin()));
    return;
  }
  const LaneHello lane = DecodeLanePreface(preface);
  GODWIT_CHECK(LanePreface(lane.session_id, lane.lane, lane.generation) == preface);
}

void Run(FuzzInput input) {
  const uint8_t flags = input.Byte();
  const std::vector<size_t> cuts = input.Cuts();
  std::string bytes;
  if ((flags & kAddPreface) != 0) {
    const auto preface = ControlPreface();
    bytes.assign(preface.data(), preface.size());
  }
  bytes += (flags & kFramed) != 0 ? WithLengths(input) : std::string(input.Rest());
  CheckPreface(bytes);
  const bool expect_preface = (flags & kWithPreface) != 0;
  const Heard whole = Listen(bytes, {}, expect_preface);
  GODWIT_CHECK(Listen(bytes, cuts, expect_preface) == whole);
  constexpr size_t kByteByByteMax = 256;  // it is a system call each
  if (bytes.size() > kByteByByteMax) return;
  GODWIT_CHECK(Listen(bytes, std::vector<size_t>(bytes.size(), 1), expect_preface) == whole);
}

}  // namespace
}  // namespace godwit::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  godwit::fuzz::Run({data, size});
  return 0;
}
