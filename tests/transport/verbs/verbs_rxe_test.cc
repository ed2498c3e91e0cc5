// Goal: on a real RDMA device, which soft-RoCE is to the kernel, lanes do what they do over the
// fake one: the rules that the fake keeps are the kernel's own.
//
// Not one of CTest's unit tests: it needs an RDMA device, and fails where there is none. The lab
// runs it in a VM.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>

#include <chrono>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <iostream>
#include <string>
#include <vector>

#include "base/units.h"
#include "transport/verbs/rdma_discovery.h"
#include "transport/verbs/verbs_device.h"
#include "transport/verbs/verbs_lane.h"

namespace godwit {
namespace {

using std::chrono::seconds;
using std::chrono::steady_clock;
using testing::HasSubstr;

constexpr size_t kHeaderBytes = 64;
constexpr size_t kPayloadBytesMax = size_t{1} << 20;
constexpr uint32_t kQueuePackets = 8;
constexpr size_t kLanesMax = 4;

// Calls `step` until `done` or 60 s are over: TCG is slow, a hang is a failure all the same.
[[nodiscard]] bool Until(
    const std::function<bool()>& done, const std::function<void()>& step = [] {}) {
  const auto end = steady_clock::now() + seconds(60);
  while (!done()) {
    if (steady_clock::now() > end) return false;
    step();
  }
  return true;
}

// The content of a message is a function of its number.
void Fill(Buffer& buffer, uint64_t number, size_t bytes) {
  buffer.set_payload_bytes(bytes);
  std::memset(buffer.header(kHeaderBytes), 0, kHeaderBytes);
  std::memcpy(buffer.header(kHeaderBytes), &number, sizeof(number));
  std::memset(buffer.payload(), static_cast<int>(number * 7 + 1), bytes);
  if (bytes >= sizeof(number)) std::memcpy(buffer.payload(), &number, sizeof(number));
}

bool Holds(const Buffer& buffer, uint64_t number, size_t bytes) {
  uint64_t found = 0;
  std::memcpy(&found, buffer.header(kHeaderBytes), sizeof(found));
  if (found != number || buffer.payload_bytes() != bytes) return false;
  std::string expected(bytes, static_cast<char>(number * 7 + 1));
  if (bytes >= sizeof(number)) std::memcpy(expected.data(), &number, sizeof(number));
  return std::memcmp(expected.data(), buffer.payload(), bytes) == 0;
}

class VerbsRxeTest : public testing::Test {
 protected:
  struct Pair {
    std::unique_ptr<VerbsLane> sender;
    std::unique_ptr<VerbsLane> receiver;
    uint64_t sent = 0;
    uint64_t received = 0;
  };

  void SetUp() override {
    auto arena = Arena::Create(4 * kLanesMax * kQueuePackets, kPayloadBytesMax);
    ASSERT_TRUE(arena.ok()) << arena.status();
    arena_ = *std::move(arena);
    auto device = VerbsDevice::Open({}, *arena_);
    ASSERT_TRUE(device.ok()) << device.status();
    device_ = *std::move(device);
  }

  void TearDown() override {
    if (arena_ != nullptr) {
      EXPECT_EQ(arena_->free_count(), arena_->buffer_count());
    }
  }

  std::unique_ptr<VerbsLane> MakeLane(LaneRole role) {
    auto lane = VerbsLane::Create(*device_, role, {kHeaderBytes, kPayloadBytesMax, kQueuePackets});
    EXPECT_TRUE(lane.ok()) << lane.status();
    return *std::move(lane);
  }
  // Receives are posted before the sender knows of its peer.
  Pair MakePair() {
    Pair pair;
    pair.sender = MakeLane(LaneRole::kSender);
    pair.receiver = MakeLane(LaneRole::kReceiver);
    PostReceives(*pair.receiver);
    EXPECT_EQ(pair.receiver->Connect(pair.sender->local()), absl::OkStatus());
    EXPECT_EQ(pair.sender->Connect(pair.receiver->local()), absl::OkStatus());
    return pair;
  }
  void PostReceives(VerbsLane& lane) {
    while (lane.receives_wanted() > 0) {
      Buffer buffer = arena_->TryAcquire();
      ASSERT_TRUE(buffer);
      ASSERT_EQ(lane.PostReceives({&buffer, 1}), 1U) << lane.status();
    }
  }
  void SendOne(Pair& pair, size_t bytes) {
    Buffer buffer = arena_->TryAcquire();
    ASSERT_TRUE(buffer);
    Fill(buffer, pair.sent, bytes);
    ASSERT_EQ(pair.sender->Send({&buffer, 1}), 1U) << pair.sender->status();
    ++pair.sent;
  }
  static std::vector<Buffer> PollSent(VerbsLane& lane) {
    std::vector<Buffer> sent(kQueuePackets);
    sent.resize(lane.PollSent(absl::MakeSpan(sent)));
    return sent;
  }
  static std::vector<Buffer> PollReceived(VerbsLane& lane) {
    std::vector<Buffer> received(kQueuePackets);
    received.resize(lane.PollReceived(absl::MakeSpan(received)));
    return received;
  }
  static void CloseAndDrain(VerbsLane& lane, LaneRole role) {
    lane.Close();
    EXPECT_TRUE(Until([&] { return lane.quiescent(); },
                      [&] { role == LaneRole::kSender ? PollSent(lane) : PollReceived(lane); }))
        << lane.name();
  }
  static void CloseAndDrain(Pair& pair) {
    CloseAndDrain(*pair.sender, LaneRole::kSender);
    CloseAndDrain(*pair.receiver, LaneRole::kReceiver);
  }
  // Sends `messages` over every pair at once, of the sizes that `bytes_of` gives, as an engine
  // would: never more on the way than the peer has posted.
  void Transfer(std::vector<Pair>& pairs, uint64_t messages,
                const std::function<size_t(uint64_t)>& bytes_of);

  std::unique_ptr<Arena> arena_;
  std::unique_ptr<VerbsDevice> device_;
};

void VerbsRxeTest::Transfer(std::vector<Pair>& pairs, uint64_t messages,
                            const std::function<size_t(uint64_t)>& bytes_of) {
  const auto step = [&] {
    for (Pair& pair : pairs) {
      while (pair.sent < messages && pair.sent < pair.received + kQueuePackets) {
        Buffer buffer = arena_->TryAcquire();
        ASSERT_TRUE(buffer);
        Fill(buffer, pair.sent, bytes_of(pair.sent));
        if (pair.sender->Send({&buffer, 1}) == 0) break;
        ++pair.sent;
      }
      PollSent(*pair.sender);
      std::vector<Buffer> received = PollReceived(*pair.receiver);
      const size_t count = received.size();
      for (size_t i = 0; i < count; ++i) {
        ASSERT_TRUE(Holds(received[i], pair.received + i, bytes_of(pair.received + i)))
            << pair.receiver->name() << ", message " << pair.received + i;
      }
      received.clear();
      PostReceives(*pair.receiver);
      pair.received += count;  // the sender's credit: only after the receives are posted
      ASSERT_EQ(pair.sender->status(), absl::OkStatus());
      ASSERT_EQ(pair.receiver->status(), absl::OkStatus());
    }
  };
  const auto done = [&] {
    if (HasFatalFailure()) return true;
    for (const Pair& pair : pairs) {
      if (pair.received < messages || !pair.sender->quiescent()) return false;
    }
    return true;
  };
  ASSERT_TRUE(Until(done, step));
}

TEST_F(VerbsRxeTest, DiscoveryShowsTheDeviceAndItsGids) {
  const std::vector<RdmaDeviceInfo> devices = ListRdmaDevices();
  ASSERT_FALSE(devices.empty());
  for (const RdmaDeviceInfo& device : devices) {
    std::cout << device.name << " driver " << device.driver << " vendor 0x" << std::hex
              << device.vendor_id << std::dec << " " << device.error << "\n";
    EXPECT_EQ(device.error, "");
    for (const RdmaPort& port : device.ports) {
      std::cout << "  port " << static_cast<int>(port.number) << " " << port.state << " "
                << port.link_layer << " MTU " << RdmaMtuBytes(port.active_mtu) << "\n";
      for (const RdmaGid& gid : port.gids) {
        std::cout << "    " << gid.index << " " << RdmaGidTypeName(gid.type) << " "
                  << RdmaGidText(gid.bytes) << "\n";
      }
    }
  }
  EXPECT_EQ(devices[0].ports.at(0).state, "ACTIVE");
  EXPECT_FALSE(devices[0].ports[0].gids.empty());
  std::cout << "chosen: " << device_->name() << " GID " << RdmaGidText(device_->path().gid.bytes)
            << "\n";
  EXPECT_EQ(RdmaGidRank(device_->path().gid), 0);
}

TEST_F(VerbsRxeTest, EveryGidThatDiscoveryShowsCanBeOpenedByItsIndex) {
  for (const RdmaGid& gid : device_->path().port.gids) {
    const auto device = VerbsDevice::Open(
        {.device_name = device_->path().device_name, .gid_index = gid.index}, *arena_);
    EXPECT_TRUE(device.ok()) << device.status();
  }
}

TEST_F(VerbsRxeTest, NamesTheDevicesThereAreWhenTheNamedOneIsNot) {
  const auto device = VerbsDevice::Open({.device_name = "nosuch0"}, *arena_);
  EXPECT_EQ(device.status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(device.status().message()), HasSubstr(device_->path().device_name));
}

TEST_F(VerbsRxeTest, MovesMessagesOfEverySizeInOrderAndIntact) {
  std::vector<Pair> pairs;
  pairs.push_back(MakePair());
  const std::vector<size_t> sizes = {
      0, 1, 4095, 4096, 4097, kPayloadBytesMax - 1, kPayloadBytesMax};
  Transfer(pairs, 3 * sizes.size(), [&](uint64_t i) { return sizes[i % sizes.size()]; });
  CloseAndDrain(pairs[0]);
}

TEST_F(VerbsRxeTest, SeveralLanesCarryTheirStreamsSideBySide) {
  for (const size_t lanes : {size_t{1}, size_t{2}, kLanesMax}) {
    std::vector<Pair> pairs;
    while (pairs.size() < lanes) pairs.push_back(MakePair());
    const uint64_t messages = 64 / lanes;
    const auto start = steady_clock::now();
    Transfer(pairs, messages, [](uint64_t) { return kPayloadBytesMax; });
    const double elapsed_s = std::chrono::duration<double>(steady_clock::now() - start).count();
    std::cout << lanes << " lanes: " << static_cast<double>(lanes * messages) / elapsed_s
              << " MiB/s\n";
    for (Pair& pair : pairs) CloseAndDrain(pair);
  }
}

TEST_F(VerbsRxeTest, HoldsBackWhenItsQueueIsFullAndGoesOnAfterwards) {
  Pair pair = MakePair();
  for (uint32_t i = 0; i < kQueuePackets; ++i) SendOne(pair, 4096);
  Buffer buffer = arena_->TryAcquire();
  Fill(buffer, pair.sent, 4096);
  EXPECT_EQ(pair.sender->Send({&buffer, 1}), 0U);
  EXPECT_TRUE(buffer);
  buffer = Buffer();

  size_t done = 0;
  EXPECT_TRUE(
      Until([&] { return done == kQueuePackets; }, [&] { done += PollSent(*pair.sender).size(); }));
  std::vector<Pair> pairs;
  pairs.push_back(std::move(pair));
  Transfer(pairs, 3 * kQueuePackets, [](uint64_t) { return size_t{4096}; });
  CloseAndDrain(pairs[0]);
}

TEST_F(VerbsRxeTest, ClosesInMidFlightAndGetsEveryBufferBack) {
  for (const bool sender_first : {true, false}) {
    Pair pair = MakePair();
    for (uint32_t i = 0; i < kQueuePackets; ++i) SendOne(pair, kPayloadBytesMax);
    if (sender_first) {
      CloseAndDrain(pair);
    } else {
      CloseAndDrain(*pair.receiver, LaneRole::kReceiver);
      CloseAndDrain(*pair.sender, LaneRole::kSender);
    }
    EXPECT_EQ(pair.sender->status().code(), absl::StatusCode::kCancelled);
    EXPECT_EQ(pair.receiver->status().code(), absl::StatusCode::kCancelled);
  }
}

TEST_F(VerbsRxeTest, ClosesBeforeItWasConnected) {
  const auto receiver = MakeLane(LaneRole::kReceiver);
  PostReceives(*receiver);
  CloseAndDrain(*receiver, LaneRole::kReceiver);
}

TEST_F(VerbsRxeTest, NoticesThatThePeerIsNotThere) {
  const auto sender = MakeLane(LaneRole::kSender);
  VerbsEndpoint nobody = sender->local();
  nobody.queue_pair_number ^= 0x8000;
  ASSERT_EQ(sender->Connect(nobody), absl::OkStatus());
  for (uint64_t i = 0; i < 3; ++i) {
    Buffer buffer = arena_->TryAcquire();
    Fill(buffer, i, 100);
    ASSERT_EQ(sender->Send({&buffer, 1}), 1U);
  }
  const auto start = steady_clock::now();
  size_t back = 0;
  EXPECT_TRUE(
      Until([&] { return sender->quiescent(); }, [&] { back += PollSent(*sender).size(); }));
  EXPECT_EQ(back, 3U);
  std::cout << std::chrono::duration<double>(steady_clock::now() - start).count()
            << " s: " << sender->status() << "\n";
  EXPECT_EQ(sender->status().code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(sender->status().message()), HasSubstr("is the peer still there?"));
}

TEST_F(VerbsRxeTest, NoticesAPeerThatPostsNoReceives) {
  Pair pair;
  pair.sender = MakeLane(LaneRole::kSender);
  pair.receiver = MakeLane(LaneRole::kReceiver);
  ASSERT_EQ(pair.receiver->Connect(pair.sender->local()), absl::OkStatus());
  ASSERT_EQ(pair.sender->Connect(pair.receiver->local()), absl::OkStatus());
  SendOne(pair, 100);
  EXPECT_TRUE(Until([&] { return pair.sender->quiescent(); }, [&] { PollSent(*pair.sender); }));
  std::cout << pair.sender->status() << "\n";
  EXPECT_EQ(pair.sender->status().code(), absl::StatusCode::kUnavailable);
  CloseAndDrain(pair);
}

TEST_F(VerbsRxeTest, RefusesAMessageOverItsLimit) {
  Pair pair;
  pair.sender = MakeLane(LaneRole::kSender);
  pair.receiver =
      *VerbsLane::Create(*device_, LaneRole::kReceiver, {kHeaderBytes, 4096, kQueuePackets});
  PostReceives(*pair.receiver);
  ASSERT_EQ(pair.receiver->Connect(pair.sender->local()), absl::OkStatus());
  ASSERT_EQ(pair.sender->Connect(pair.receiver->local()), absl::OkStatus());
  SendOne(pair, 4097);
  EXPECT_TRUE(Until([&] { return !pair.receiver->status().ok(); },
                    [&] { EXPECT_TRUE(PollReceived(*pair.receiver).empty()); }));
  EXPECT_TRUE(Until([&] { return pair.sender->quiescent(); }, [&] { PollSent(*pair.sender); }));
  std::cout << pair.receiver->status() << "\n" << pair.sender->status() << "\n";
  EXPECT_EQ(pair.receiver->status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_FALSE(pair.sender->status().ok());
  CloseAndDrain(pair);
}

TEST_F(VerbsRxeTest, RefusesAMessageTooShortForAHeader) {
  Pair pair;
  auto sender = VerbsLane::Create(*device_, LaneRole::kSender, {8, 4096, kQueuePackets});
  ASSERT_TRUE(sender.ok());
  pair.sender = *std::move(sender);
  pair.receiver = MakeLane(LaneRole::kReceiver);
  PostReceives(*pair.receiver);
  ASSERT_EQ(pair.receiver->Connect(pair.sender->local()), absl::OkStatus());
  ASSERT_EQ(pair.sender->Connect(pair.receiver->local()), absl::OkStatus());
  SendOne(pair, 0);
  EXPECT_TRUE(Until([&] { return !pair.receiver->status().ok(); },
                    [&] { EXPECT_TRUE(PollReceived(*pair.receiver).empty()); }));
  EXPECT_EQ(pair.receiver->status().code(), absl::StatusCode::kInvalidArgument);
  CloseAndDrain(pair);
}

TEST_F(VerbsRxeTest, WakesASleeperAtTheEndOfABurst) {
  Pair pair = MakePair();
  constexpr size_t kBurst = 3;
  for (uint64_t i = 0; i < 10; ++i) {
    pair.receiver->ArmWakeup();
    EXPECT_TRUE(PollReceived(*pair.receiver).empty());
    pollfd wakeup = {.fd = pair.receiver->wakeup_fd(), .events = POLLIN, .revents = 0};
    std::vector<Buffer> burst(kBurst);
    for (Buffer& buffer : burst) {
      buffer = arena_->TryAcquire();
      ASSERT_TRUE(buffer);
      Fill(buffer, pair.sent++, 4096);
    }
    ASSERT_EQ(pair.sender->Send(absl::MakeSpan(burst)), kBurst) << pair.sender->status();
    ASSERT_EQ(::poll(&wakeup, 1, 10000), 1) << i;
    // All of it is there: nothing woke us up before.
    const std::vector<Buffer> received = PollReceived(*pair.receiver);
    ASSERT_EQ(received.size(), kBurst);
    for (size_t k = 0; k < kBurst; ++k) EXPECT_TRUE(Holds(received[k], i * kBurst + k, 4096));
    PostReceives(*pair.receiver);
    EXPECT_TRUE(Until([&] { return pair.sender->quiescent(); }, [&] { PollSent(*pair.sender); }));
  }
  CloseAndDrain(pair);
}

TEST_F(VerbsRxeTest, WakesASleeperForEachMessageByItself) {
  Pair pair = MakePair();
  for (uint64_t i = 0; i < 20; ++i) {
    pair.receiver->ArmWakeup();
    EXPECT_TRUE(PollReceived(*pair.receiver).empty());
    pollfd wakeup = {.fd = pair.receiver->wakeup_fd(), .events = POLLIN, .revents = 0};
    EXPECT_EQ(::poll(&wakeup, 1, 0), 0) << i;
    SendOne(pair, 100);
    ASSERT_EQ(::poll(&wakeup, 1, 10000), 1) << i;
    const std::vector<Buffer> received = PollReceived(*pair.receiver);
    ASSERT_EQ(received.size(), 1U);
    EXPECT_TRUE(Holds(received[0], i, 100));
    PostReceives(*pair.receiver);
    EXPECT_TRUE(Until([&] { return pair.sender->quiescent(); }, [&] { PollSent(*pair.sender); }));
  }
  pair.receiver->ArmWakeup();
  CloseAndDrain(pair);  // with an event that nobody took
}

// Of the lab's network interface; waits for what the device says of it.
void ExpectEvent(VerbsDevice& device, const std::string& command, VerbsEvent::Kind wanted) {
  ASSERT_EQ(std::system(command.c_str()), 0) << command;
  EXPECT_TRUE(Until([&] {
    for (const VerbsEvent& event : device.TakeEvents()) {
      std::cout << command << ": " << event.text << ", port " << event.port << "\n";
      if (event.kind == wanted) return true;
    }
    return false;
  })) << command;
}

TEST_F(VerbsRxeTest, TellsOfAPortThatGoesDownAndUpAndOfNewAddresses) {
  EXPECT_TRUE(device_->TakeEvents().empty());
  ExpectEvent(*device_, "ip link set eth0 down", VerbsEvent::Kind::kPortDown);
  ExpectEvent(*device_, "ip link set eth0 up", VerbsEvent::Kind::kPortUp);
  const RdmaGidBytes before = device_->path().gid.bytes;
  ExpectEvent(*device_, "ip address add 10.99.77.1/24 dev eth0", VerbsEvent::Kind::kAddressChanged);
  EXPECT_EQ(device_->LookUpAddressAgain(), absl::OkStatus());
  EXPECT_EQ(device_->path().gid.bytes, before);
  // A lane made now is as good as any.
  std::vector<Pair> pairs;
  pairs.push_back(MakePair());
  Transfer(pairs, 8, [](uint64_t) { return size_t{4096}; });
  CloseAndDrain(pairs[0]);
  ExpectEvent(*device_, "ip address delete 10.99.77.1/24 dev eth0",
              VerbsEvent::Kind::kAddressChanged);
}

TEST_F(VerbsRxeTest, TakesTheNextBestAddressWhenItsOwnIsGone) {
  const RdmaGidBytes before = device_->path().gid.bytes;
  ASSERT_EQ(std::system("ip address add 10.99.77.1/24 dev eth0 && ip -json address show dev eth0 |"
                        " jq --raw-output '.[0].addr_info[] | select(.family == \"inet\") |"
                        " .local' | head -n 1 > /tmp/own_address &&"
                        " ip address delete $(cat /tmp/own_address)/24 dev eth0"),
            0);
  EXPECT_TRUE(Until([&] {
    (void)device_->LookUpAddressAgain();
    return device_->path().gid.bytes != before;
  }));
  EXPECT_EQ(RdmaGidText(device_->path().gid.bytes), "10.99.77.1");
  ASSERT_EQ(std::system("ip address add $(cat /tmp/own_address)/24 dev eth0 &&"
                        " ip address delete 10.99.77.1/24 dev eth0"),
            0);
}

TEST_F(VerbsRxeTest, RefusesAQueueThatTheDeviceDoesNotHave) {
  const auto lane =
      VerbsLane::Create(*device_, LaneRole::kSender, {kHeaderBytes, 4096, 100'000'000});
  EXPECT_EQ(lane.status().code(), absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace godwit

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  if (godwit::ListRdmaDevices().empty()) {
    std::cerr << "verbs_rxe_test: no RDMA device on this host. This test needs one and is meant "
                 "for a lab VM: tests/lab/scripts/verbs_lane_on_rxe\n";
    return 1;
  }
  return RUN_ALL_TESTS();
}
