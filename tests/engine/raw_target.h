// A target made of bare sockets, as raw_peer.h's source: it can answer anything, at any time.
#ifndef GODWIT_TESTS_ENGINE_RAW_TARGET_H_
#define GODWIT_TESTS_ENGINE_RAW_TARGET_H_

#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <chrono>
#include <cstdint>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "tests/engine/raw_peer.h"
#include "tests/engine/session_world.h"
#include "tests/engine/wire_image.h"

namespace godwit {

// A target whose every answer a test may change, in the order of docs/wire-format.md, section 4.
struct RawTarget {
  RawTarget() {
    listener.Reset(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_in address = {};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    auto* const any = reinterpret_cast<sockaddr*>(&address);
    socklen_t bytes = sizeof(address);
    EXPECT_EQ(::bind(listener.get(), any, bytes), 0);
    EXPECT_EQ(::listen(listener.get(), 16), 0);
    EXPECT_EQ(::getsockname(listener.get(), any, &bytes), 0);
    port = ntohs(address.sin_port);
    welcome.mutable_welcome()->set_window_packets(4);
    welcome.mutable_welcome()->set_queue_packets(4);
    welcome.mutable_welcome()->set_transport(control::TRANSPORT_TCP);
    control::DeviceTable::Device& row = *table.mutable_device_table()->add_devices();
    row.set_name("soft");
    row.set_kind("soft");
    setup.mutable_lane_setup();
  }

  UniqueFd Accept() { return UniqueFd(::accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC)); }

  RawChannel AcceptChannel() {
    return {Accept(), tls == nullptr ? nullptr : tls->NewStream(/*peer_name=*/"").value()};
  }
  void Greet() {
    channel = AcceptChannel();
    channel.SayPreface();
    channel.HearPreface();
    const auto hello = channel.Receive();
    EXPECT_TRUE(hello.has_value() && hello->has_hello());
    if (hello.has_value()) session_id = hello->hello().session_id();
    channel.Send(welcome);
  }
  void AnswerTable() {
    (void)channel.Receive();
    channel.Send(table);
  }
  void AcceptLane() {
    const auto theirs = channel.Receive();
    EXPECT_TRUE(theirs.has_value() && theirs->has_lane_setup());
    lane = Accept();
    const std::string preface = Hear(lane.get(), 28);
    EXPECT_EQ(preface.substr(0, 8), "GODWITLN");
    EXPECT_EQ(preface.substr(24), wire::BigEndian(0, 4));
    if (tls != nullptr) {
      const LaneChallenge challenge = NewLaneChallenge();
      Say(lane.get(), {challenge.data(), challenge.size()});
      EXPECT_TRUE(IsLaneProof(Hear(lane.get(), kLaneProofBytes).data(),
                              channel.Key(kLaneKeyLabel, session_id), challenge,
                              {session_id, 0, 0}));
    }
    channel.Send(setup);
  }
  // Up to step 6: the source's frames are on their way.
  void Ready() {
    Greet();
    AnswerTable();
    AcceptLane();
  }
  // The source's Commit, which comes when its devices stand and after it has said so.
  void HearCommit() {
    const auto stopping = channel.Receive();
    EXPECT_TRUE(stopping.has_value() && stopping->has_stopping());
    const auto commit = channel.Receive();
    EXPECT_TRUE(commit.has_value() && commit->has_commit());
    if (commit.has_value()) {
      EXPECT_EQ(commit->commit().session_id(), session_id);
    }
  }
  std::string HearFrame() {
    const std::string length = Hear(lane.get(), 4);
    return Hear(lane.get(), wire::Number(length));
  }
  // The whole stream: two packets of eight bytes and the config packet.
  std::vector<wire::Frame> HearFrames() {
    std::vector<wire::Frame> frames;
    for (int i = 0; i < 3; ++i) {
      const std::string message = HearFrame();
      if (message.size() < wire::kHeaderBytes) break;
      EXPECT_EQ(wire::Encode(wire::Decode(message)), message);
      frames.push_back(wire::Decode(message));
    }
    return frames;
  }
  void SendReceipts(const std::vector<uint64_t>& lanes, const std::vector<uint32_t>& devices) {
    control::ControlMessage message;
    message.mutable_receipts();
    for (const uint64_t packets : lanes) message.mutable_receipts()->add_lane_packets(packets);
    for (const uint32_t packets : devices) message.mutable_receipts()->add_device_packets(packets);
    for (const uint32_t packets : devices) message.mutable_receipts()->add_device_bytes(packets);
    channel.Send(message);
  }
  void SendLoaded(uint64_t bytes, uint32_t crc, int devices = 1) {
    control::ControlMessage message;
    message.mutable_loaded();
    for (int i = 0; i < devices; ++i) {
      control::Loaded::Device& row = *message.mutable_loaded()->add_devices();
      row.set_bytes(bytes);
      row.set_crc32c(crc);
      row.set_content_verified(true);
    }
    channel.Send(message);
  }

  UniqueFd listener;
  uint16_t port = 0;
  RawChannel channel;
  UniqueFd lane;
  control::ControlMessage welcome;
  control::ControlMessage table;
  control::ControlMessage setup;
  const TlsContext* tls = nullptr;  // null: plain
  std::string session_id;           // from Hello
};

// Runs a real source, with one lane and packets of eight bytes, against what `target` does on a
// thread of its own.
inline SessionReport RunSource(const Devices& devices, RawTarget& target,
                               const std::function<void(RawTarget&)>& act, SourceOptions options) {
  const Watchdog watchdog("a source and its bad target");
  std::thread thread([&] { act(target); });
  options.to = absl::StrCat("127.0.0.1:", target.port);
  options.transport = TransportKind::kTcp;
  options.lanes = 1;
  options.packet_bytes = 8;
  RecordingObserver observer;
  SourceSession session(std::move(options), devices.pointers(), observer);
  SessionReport report = session.Run();
  thread.join();
  return report;
}
inline SessionReport RunSource(const Devices& devices, RawTarget& target,
                               const std::function<void(RawTarget&)>& act,
                               std::chrono::milliseconds resolve_timeout = std::chrono::seconds(60),
                               const TrustOptions& trust = {}) {
  SourceOptions options;
  options.resolve_timeout = resolve_timeout;
  options.trust = trust;
  return RunSource(devices, target, act, std::move(options));
}

// The digest of the stream that the source sends, which is heard to its end for it.
inline uint32_t Digest(RawTarget& t) { return t.HearFrames().back().crc_before; }

}  // namespace godwit

#endif  // GODWIT_TESTS_ENGINE_RAW_TARGET_H_
