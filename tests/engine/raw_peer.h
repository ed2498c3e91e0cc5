// Peers made of bare sockets, the generated messages and the frames of wire_image.h: they can say
// anything, at any time.
#ifndef GODWIT_TESTS_ENGINE_RAW_PEER_H_
#define GODWIT_TESTS_ENGINE_RAW_PEER_H_

#include <absl/strings/str_cat.h>
#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "godwit/unique_fd.h"
#include "tests/engine/wire_image.h"
#include "transport/control.pb.h"
#include "transport/control_channel.h"
#include "transport/lane_proof.h"
#include "transport/tls/tls_context.h"

namespace godwit {

inline UniqueFd ConnectTo(uint16_t port) {
  UniqueFd socket(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  EXPECT_EQ(::connect(socket.get(), reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0)
      << "errno " << errno;
  return socket;
}

// As much as the peer takes before it hangs up.
inline void Say(int socket, absl::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t sent = ::send(socket, bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (sent < 0 && errno == EINTR) continue;
    if (sent <= 0) return;
    bytes.remove_prefix(static_cast<size_t>(sent));
  }
}

// `bytes` bytes, or fewer if the peer hangs up before.
inline std::string Hear(int socket, size_t bytes) {
  std::string text(bytes, '\0');
  size_t have = 0;
  while (have < bytes) {
    const ssize_t got = ::recv(socket, text.data() + have, bytes - have, 0);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) break;
    have += static_cast<size_t>(got);
  }
  text.resize(have);
  return text;
}

inline const std::string kRawPreface = std::string("GODWIT\0\1", 8);

// One end of a control channel. Every call blocks; Receive() sends a Ping a second meanwhile.
class RawChannel {
 public:
  RawChannel() = default;
  explicit RawChannel(UniqueFd socket) : socket_(std::move(socket)) {}
  // Inside TLS, which is Godwit's own, prefaces included. Null: not.
  RawChannel(UniqueFd socket, std::unique_ptr<TlsStream> tls) {
    if (tls == nullptr) {
      socket_ = std::move(socket);
    } else {
      tls_ = std::make_unique<ControlChannel>(std::move(socket), "the other side",
                                              /*expect_preface=*/true, std::move(tls));
    }
  }

  int fd() const { return tls_ != nullptr ? tls_->fd() : socket_.get(); }
  // REQUIRES: inside TLS, and a message has come.
  TrafficKey Key(absl::string_view label, absl::string_view context) const {
    return tls_->ExportKey(label, context).value();
  }
  void Hang() {
    socket_.Reset();
    tls_.reset();
  }
  void SayPreface() {
    if (tls_ == nullptr) Say(fd(), kRawPreface);
  }
  void HearPreface() {
    if (tls_ == nullptr) {
      EXPECT_EQ(Hear(fd(), 8), kRawPreface);
    }
  }
  void Send(const control::ControlMessage& message) {
    if (tls_ != nullptr) {
      (void)tls_->Send(message);
    } else {
      SendRaw(message.SerializeAsString());
    }
  }
  void SendRaw(const std::string& body) { Say(fd(), wire::BigEndian(body.size(), 4) + body); }

  // The next message but Ping, or nothing when the peer hangs up.
  std::optional<control::ControlMessage> Receive() {
    if (tls_ != nullptr) return ReceiveInTls();
    while (true) {
      KeepAliveUntilReadable();
      const std::string length = Hear(fd(), 4);
      if (length.size() < 4 || wire::Number(length) > 65'536) return std::nullopt;
      const std::string body = Hear(fd(), wire::Number(length));
      control::ControlMessage message;
      if (body.size() != wire::Number(length) || !message.ParseFromString(body)) {
        return std::nullopt;
      }
      if (!message.has_ping()) return message;
    }
  }
  // The next message but Ping that comes before `deadline`, if any does.
  std::optional<control::ControlMessage> ReceiveUntil(
      std::chrono::steady_clock::time_point deadline) {
    while (true) {
      if (tls_ != nullptr) {
        auto message = tls_->Receive();
        if (!message.ok()) return std::nullopt;
        if (message->has_value()) return *std::move(message);
      }
      const auto left =
          std::chrono::ceil<std::chrono::milliseconds>(deadline - std::chrono::steady_clock::now());
      pollfd readable = {fd(), POLLIN, 0};
      if (left.count() <= 0 || ::poll(&readable, 1, static_cast<int>(left.count())) <= 0) {
        return std::nullopt;
      }
      if (tls_ == nullptr) return Receive();
    }
  }
  // Reads on until the peer gives its reason to give up, or hangs up.
  std::string HearAbort() {
    while (const auto message = Receive()) {
      if (message->has_abort()) return message->abort().reason();
    }
    return "";
  }
  // Reads on until the peer gives a lane up, or hangs up; its reason. Abort comes back as "".
  std::string HearLaneDown() {
    while (const auto message = Receive()) {
      if (message->has_lane_down()) return message->lane_down().reason();
      if (message->has_abort()) break;
    }
    return "";
  }

 private:
  // As the document asks of both sides.
  void KeepAliveUntilReadable() {
    control::ControlMessage ping;
    ping.mutable_ping();
    pollfd readable = {fd(), POLLIN, 0};
    while (::poll(&readable, 1, 1000) == 0) Send(ping);
  }

  std::optional<control::ControlMessage> ReceiveInTls() {
    while (true) {
      auto message = tls_->Receive();
      if (!message.ok()) return std::nullopt;
      if (message->has_value()) return *std::move(message);
      const int writable = tls_->wants_write() ? POLLOUT : 0;
      pollfd ready = {fd(), static_cast<short>(POLLIN | writable), 0};
      ::poll(&ready, 1, 1000);
      if (!tls_->Tick().ok()) return std::nullopt;
    }
  }

  UniqueFd socket_;
  std::unique_ptr<ControlChannel> tls_;
};

// A source up to any step of docs/wire-format.md, section 4.
struct RawSource {
  explicit RawSource(uint16_t its_port, const TlsContext* its_tls = nullptr)
      : port(its_port),
        tls(its_tls),
        channel(ConnectTo(its_port),
                tls == nullptr ? nullptr : tls->NewStream(/*peer_name=*/"").value()) {}

  uint16_t port;
  const TlsContext* tls;  // null: plain
  RawChannel channel;
  std::string session_id = "0123456789abcdef";
  uint32_t lane_count = 1;
  uint64_t packet_bytes = 8;
  bool crc_off = false;
  std::vector<std::string> kinds = {"soft"};
  uint32_t window_packets = 0;  // what the target welcomes us with
  std::vector<UniqueFd> lanes;

  control::ControlMessage Hello() const {
    control::ControlMessage message;
    control::Hello& hello = *message.mutable_hello();
    hello.set_software("a test");
    hello.set_session_id(session_id);
    hello.set_frame_version(1);
    hello.add_transports(control::TRANSPORT_TCP);
    hello.set_lanes(lane_count);
    hello.set_packet_bytes(packet_bytes);
    hello.set_crc_off(crc_off);
    return message;
  }
  control::ControlMessage Table() const {
    control::ControlMessage message;
    message.mutable_device_table();
    for (const std::string& kind : kinds) {
      control::DeviceTable::Device& row = *message.mutable_device_table()->add_devices();
      row.set_name(kind);
      row.set_kind(kind);
      row.set_p2p(true);
    }
    return message;
  }
  static control::ControlMessage Setup() {
    control::ControlMessage message;
    message.mutable_lane_setup();
    return message;
  }
  std::string LanePreface(uint16_t lane, uint16_t generation = 0) const {
    return "GODWITLN" + session_id + wire::BigEndian(generation, 2) + wire::BigEndian(lane, 2);
  }

  bool Greet() {
    channel.SayPreface();
    channel.Send(Hello());
    channel.HearPreface();
    const auto welcome = channel.Receive();
    if (!welcome.has_value() || !welcome->has_welcome()) return false;
    window_packets = welcome->welcome().window_packets();
    channel.Send(Table());
    const auto table = channel.Receive();
    return table.has_value() && table->has_device_table();
  }
  // Greet(), and every lane open and known to the target.
  bool OpenLanes() {
    if (!Greet()) return false;
    channel.Send(Setup());
    for (uint32_t lane = 0; lane < lane_count; ++lane) {
      lanes.push_back(ConnectTo(port));
      Say(lanes.back().get(), LanePreface(static_cast<uint16_t>(lane)));
      if (tls != nullptr) ProveLane(lane);
    }
    const auto answer = channel.Receive();
    return answer.has_value() && answer->has_lane_setup();
  }
  void ProveLane(uint32_t lane) {
    const LaneGreeting greeting(session_id, channel.Key(kLaneKeyLabel, session_id));
    const absl::Status proven =
        greeting.Prove(lanes[lane].get(), static_cast<uint16_t>(lane), /*generation=*/0,
                       std::chrono::steady_clock::now() + std::chrono::seconds(10));
    EXPECT_TRUE(proven.ok()) << proven;
  }
  void SendFrame(size_t lane, const wire::Frame& frame) {
    Say(lanes[lane].get(), wire::WithLength(wire::Encode(frame)));
  }
};

}  // namespace godwit

#endif  // GODWIT_TESTS_ENGINE_RAW_PEER_H_
