// A whole session, target or source, whose peer says anything: on the control channel, on lanes, in
// any order. It comes to an end, its device runs again (or, at a source that has handed over,
// stands still), and no device runs with a state that is not what it should be.
//
// Input: a byte that says which side is tried, then steps: what (a byte), its argument (a byte), a
// length (two bytes), as many bytes.
#include <absl/strings/str_cat.h>
#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/check.h"
#include "godwit/session.h"
#include "godwit/unique_fd.h"
#include "tests/engine/right_stream.h"
#include "tests/fuzz/fuzz_input.h"
#include "tests/fuzz/handshake_steps.h"
#include "tests/fuzz/sealed_frame.h"
#include "transport/control.pb.h"
#include "vfio/device_spec.h"

namespace godwit::fuzz {
namespace {

constexpr size_t kStepsMax = 48;
constexpr size_t kLanes = 2;
// How long the peer listens for what it hopes to hear, and waits for an end before it cancels. What
// these bring about is an end, too: none of them is a limit for the session.
constexpr int kHearMs = 20;
constexpr std::chrono::milliseconds kEndWait{20};

sockaddr_in Loopback(uint16_t port) {
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  return address;
}

UniqueFd ConnectTo(uint16_t port) {
  UniqueFd socket(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  const sockaddr_in address = Loopback(port);
  if (::connect(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0) {
    return UniqueFd();
  }
  return socket;
}

// The port that a source under test connects to; one for the whole process.
class Door {
 public:
  Door() : socket_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0)) {
    sockaddr_in address = Loopback(0);
    auto* const any = reinterpret_cast<sockaddr*>(&address);
    socklen_t bytes = sizeof(address);
    GODWIT_CHECK(::bind(socket_.get(), any, bytes) == 0 && ::listen(socket_.get(), 64) == 0);
    GODWIT_CHECK(::getsockname(socket_.get(), any, &bytes) == 0);
    port_ = ntohs(address.sin_port);
  }
  uint16_t port() const { return port_; }
  UniqueFd Accept(int wait_ms) const {
    pollfd readable = {socket_.get(), POLLIN, 0};
    ::poll(&readable, 1, wait_ms);
    return UniqueFd(::accept4(socket_.get(), nullptr, nullptr, SOCK_CLOEXEC));
  }

 private:
  UniqueFd socket_;
  uint16_t port_ = 0;
};

// What the session's thread tells the fuzzer's.
class Watcher final : public SessionObserver {
 public:
  void OnListening(absl::string_view /*address*/, uint16_t port) override {
    const std::lock_guard<std::mutex> lock(mutex_);
    port_ = port;
    changed_.notify_all();
  }
  void OnNote(absl::string_view /*line*/) override {
    const std::lock_guard<std::mutex> lock(mutex_);
    noted_ = true;
    changed_.notify_all();
  }
  void Done(const SessionReport& report) {
    const std::lock_guard<std::mutex> lock(mutex_);
    report_ = report;
    changed_.notify_all();
  }
  uint16_t Port() {
    std::unique_lock<std::mutex> lock(mutex_);
    changed_.wait(lock, [this] { return port_ != 0 || report_.has_value(); });
    return port_;
  }
  // For its end, or a note: a target that has turned its peer away waits for the next for ever.
  void AwaitEndOrNote() {
    std::unique_lock<std::mutex> lock(mutex_);
    changed_.wait_for(lock, kEndWait, [this] { return report_.has_value() || noted_; });
  }
  // What has come of it, if it ends within kEndWait.
  std::optional<SessionReport> Report() {
    std::unique_lock<std::mutex> lock(mutex_);
    changed_.wait_for(lock, kEndWait, [this] { return report_.has_value(); });
    return report_;
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  uint16_t port_ = 0;
  bool noted_ = false;
  std::optional<SessionReport> report_;
};

// The other side: bare sockets.
class Peer {
 public:
  Peer(UniqueFd control, uint16_t port) : control_(std::move(control)), port_(port) {}

  void Take(FuzzInput& input) {
    const uint8_t what = input.Byte();
    const uint8_t argument = input.Byte();
    FuzzInput body = BodyOf(input);
    switch (what % kSteps) {
      case kSayMessage: {
        const std::string message(body.Rest());
        return Say(control_, wire::BigEndian(message.size(), 4) + message);
      }
      case kSayBytes:
        return Say(control_, body.Rest());
      case kHear:
        return Hear(argument);
      case kOpenLane: {
        if (port_ == 0 || lanes_.size() == kLanes) return;
        lanes_.push_back({ConnectTo(port_), 0});
        return Say(lanes_.back().socket, body.Rest());
      }
      case kSayOnLane:
        if (!lanes_.empty()) Say(lanes_[argument % lanes_.size()].socket, body.Rest());
        return;
      case kSayFrame: {
        if (lanes_.empty()) return;
        LaneOut& lane = lanes_[(argument & 1) % lanes_.size()];
        const wire::Frame frame = Seal(TakeFrame(body), argument, lane.frames++);
        return Say(lane.socket, wire::WithLength(wire::Encode(frame)));
      }
      default:
        return;
    }
  }
  // Says nothing more, on any connection.
  void Leave() {
    if (control_.valid()) ::shutdown(control_.get(), SHUT_WR);
    for (const LaneOut& lane : lanes_) {
      if (lane.socket.valid()) ::shutdown(lane.socket.get(), SHUT_WR);
    }
  }

 private:
  struct LaneOut {
    UniqueFd socket;
    uint64_t frames = 0;
  };

  static FuzzInput BodyOf(FuzzInput& input) {
    const absl::string_view bytes = input.Take(input.Number16());
    return {reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size()};
  }
  static void Say(const UniqueFd& socket, absl::string_view bytes) {
    // Less than a socket's buffer in all; what does not fit is not said.
    if (socket.valid()) {
      (void)::send(socket.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
    }
  }
  // Until a message of that kind has come, or nothing comes any more.
  void Hear(int kind) {
    while (control_.valid()) {
      if (!prefaced_ && heard_.size() >= 8) {
        heard_.erase(0, 8);
        prefaced_ = true;
      }
      while (prefaced_ && heard_.size() >= 4) {
        const size_t bytes = wire::Number(heard_.substr(0, 4));
        if (heard_.size() < 4 + bytes) break;
        control::ControlMessage message;
        GODWIT_CHECK(message.ParseFromString(heard_.substr(4, bytes)));
        heard_.erase(0, 4 + bytes);
        if (message.message_case() == kind) return;
      }
      pollfd readable = {control_.get(), POLLIN, 0};
      if (::poll(&readable, 1, kHearMs) <= 0) return;
      std::array<char, 4096> bytes{};
      const ssize_t got = ::recv(control_.get(), bytes.data(), bytes.size(), 0);
      if (got <= 0) return;
      heard_.append(bytes.data(), static_cast<size_t>(got));
    }
  }

  UniqueFd control_;
  const uint16_t port_;  // 0: it is not for us to open lanes
  std::vector<LaneOut> lanes_;
  std::string heard_;
  bool prefaced_ = false;
};

// The session goes on its own thread while `peer` goes through the input.
template <typename Session>
SessionReport Drive(Session& session, Watcher& watcher, Peer& peer, FuzzInput& input) {
  for (size_t step = 0; step < kStepsMax && !input.empty(); ++step) peer.Take(input);
  peer.Leave();
  watcher.AwaitEndOrNote();
  // More than once: a target that has lost its source after Loaded holds the outcome for it, and a
  // source that has committed asks for it, until they are cancelled again.
  for (;;) {
    session.Cancel();
    if (const auto report = watcher.Report(); report.has_value()) return *report;
  }
}

void TryTarget(FuzzInput& input) {
  const auto device = OpenDevice(kSpec, DeviceRole::kTarget).value();
  TargetOptions options;
  options.listen = "127.0.0.1:0";
  options.transport = TransportKind::kTcp;
  options.lanes_max = kLanes;
  options.packet_bytes_max = 4096;
  options.arena_bytes = 0;  // the minimum: a window of 4
  Watcher watcher;
  std::optional<SessionReport> report;
  {
    TargetSession session(options, {device.get()}, watcher);
    session.Start([&](const SessionReport& at_end) { watcher.Done(at_end); });
    const uint16_t port = watcher.Port();
    GODWIT_CHECK(port != 0);
    Peer peer(ConnectTo(port), port);
    report = Drive(session, watcher, peer, input);
  }
  GODWIT_CHECK(device->State().value() == DeviceState::kRunning);
  GODWIT_CHECK(report->outcome == SessionOutcome::kDone ||
               report->outcome == SessionOutcome::kRolledBack);
  GODWIT_CHECK((report->outcome == SessionOutcome::kDone) == device->content_verified());
}

void TrySource(FuzzInput& input) {
  static const Door door;
  const auto device = OpenDevice(kSpec, DeviceRole::kSource).value();
  SourceOptions options;
  options.to = absl::StrCat("127.0.0.1:", door.port());
  options.transport = TransportKind::kTcp;
  options.lanes = 1;
  options.packet_bytes = 8;
  options.arena_bytes = 0;
  options.connect_timeout = options.answer_timeout = std::chrono::milliseconds(100);
  options.progress_timeout = options.resolve_timeout = std::chrono::milliseconds(100);
  Watcher watcher;
  std::optional<SessionReport> report;
  {
    SourceSession session(options, {device.get()}, watcher);
    session.Start([&](const SessionReport& at_end) { watcher.Done(at_end); });
    constexpr int kConnectMs = 1000;
    Peer peer(door.Accept(kConnectMs), /*port=*/0);
    report = Drive(session, watcher, peer, input);
  }
  while (door.Accept(/*wait_ms=*/0).valid()) {  // lanes, and attempts to ask how it ended
  }
  const bool rolled_back = report->outcome == SessionOutcome::kRolledBack;
  GODWIT_CHECK(device->State().value() ==
               (rolled_back ? DeviceState::kRunning : DeviceState::kStop));
}

void Run(FuzzInput input) { input.Byte() % 2 == 0 ? TryTarget(input) : TrySource(input); }

}  // namespace
}  // namespace godwit::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  godwit::fuzz::Run({data, size});
  return 0;
}
