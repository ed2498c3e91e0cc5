// Goal: messages arrive whole, in order and only as many as there is room for; whatever the peer
// does to the stream, the lane ends with the right status and every Buffer comes back.
#include "transport/tcp/tcp_lane.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include <chrono>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <iostream>
#include <random>
#include <utility>
#include <vector>

#include "transport/tcp/tcp_socket.h"

namespace godwit {
namespace {

using testing::HasSubstr;

constexpr size_t kHeaderBytes = 40;
constexpr uint32_t kQueuePackets = 4;
constexpr size_t kArenaBuffers = 3 * kQueuePackets;

enum class SocketKind { kUnix, kTcp };

std::pair<UniqueFd, UniqueFd> Connected(SocketKind kind) {
  if (kind == SocketKind::kUnix) {
    int fds[2] = {-1, -1};
    EXPECT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
    return {UniqueFd(fds[0]), UniqueFd(fds[1])};
  }
  auto listener = ListenTcp({"127.0.0.1", 0});
  EXPECT_TRUE(listener.ok()) << listener.status();
  const auto port = LocalPort(listener->get());
  auto near = ConnectTcp({"127.0.0.1", *port}, std::chrono::seconds(60));
  EXPECT_TRUE(near.ok()) << near.status();
  auto far =
      AcceptTcp(listener->get(), std::chrono::steady_clock::now() + std::chrono::seconds(60));
  EXPECT_TRUE(far.ok()) << far.status();
  return {*std::move(near), *std::move(far)};
}

// Every byte of message `number`, header included, follows from its number.
std::byte ContentAt(uint64_t number, size_t offset) {
  return static_cast<std::byte>((number * 131 + offset * 7 + offset / 251) & 0xff);
}

std::vector<std::byte> MessageBytes(uint64_t number, size_t payload_bytes) {
  std::vector<std::byte> bytes(kHeaderBytes + payload_bytes);
  for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = ContentAt(number, i);
  return bytes;
}

// As a sender puts it on the wire: length first.
std::vector<std::byte> FramedBytes(uint64_t number, size_t payload_bytes) {
  const std::vector<std::byte> message = MessageBytes(number, payload_bytes);
  std::vector<std::byte> framed(4 + message.size());
  for (size_t i = 0; i < 4; ++i) framed[i] = static_cast<std::byte>(message.size() >> (24 - 8 * i));
  std::memcpy(framed.data() + 4, message.data(), message.size());
  return framed;
}

class TcpLaneTest : public testing::TestWithParam<SocketKind> {
 protected:
  void SetUp() override { SetUpWithPayload(16384); }

  void SetUpWithPayload(size_t payload_bytes_max) {
    TearDown();
    auto ring = IoRing::Create(8);
    ASSERT_TRUE(ring.ok()) << ring.status();
    ring_ = *std::move(ring);
    auto arena = Arena::Create(kArenaBuffers, payload_bytes_max);
    ASSERT_TRUE(arena.ok()) << arena.status();
    arena_ = *std::move(arena);
    limits_ = {kHeaderBytes, payload_bytes_max, kQueuePackets};
    std::tie(sender_socket_, receiver_socket_) = Connected(GetParam());
  }

  void TearDown() override {
    DestroyLanes();
    if (arena_ != nullptr) {
      EXPECT_EQ(arena_->free_count(), kArenaBuffers);
    }
    arena_.reset();
    ring_.reset();
  }

  void MakeSender() {
    sender_ =
        TcpLane::Make(std::move(sender_socket_), *ring_, limits_, LaneRole::kSender, "tcp out");
  }
  void MakeReceiver() {
    receiver_ =
        TcpLane::Make(std::move(receiver_socket_), *ring_, limits_, LaneRole::kReceiver, "tcp in");
  }

  void DestroyLanes() {
    if (sender_ != nullptr) sender_->Close();
    if (receiver_ != nullptr) receiver_->Close();
    EXPECT_TRUE(RunUntil([&] {
      return (sender_ == nullptr || sender_->quiescent()) &&
             (receiver_ == nullptr || receiver_->quiescent());
    }));
    sender_.reset();
    receiver_.reset();
  }

  // Runs the ring until `done`. The cap is no time limit that a test means; it ends a hang.
  bool RunUntil(const std::function<bool()>& done) {
    for (int round = 0; round < 30'000; ++round) {
      if (done()) return true;
      ring_->Wait(std::chrono::milliseconds(1));
    }
    return false;
  }
  // Lets everything happen that can happen without us.
  void RunUntilStill() {
    for (int quiet_rounds = 0; quiet_rounds < 20;) {
      quiet_rounds = ring_->Wait(std::chrono::milliseconds(1)) == 0 ? quiet_rounds + 1 : 0;
    }
  }

  Buffer Filled(uint64_t number, size_t payload_bytes) {
    Buffer buffer = arena_->TryAcquire();
    EXPECT_TRUE(buffer);
    buffer.set_payload_bytes(payload_bytes);
    const std::vector<std::byte> message = MessageBytes(number, payload_bytes);
    std::memcpy(buffer.header(kHeaderBytes), message.data(), message.size());
    return buffer;
  }

  size_t SendOne(uint64_t number, size_t payload_bytes) {
    Buffer buffer = Filled(number, payload_bytes);
    return sender_->Send({&buffer, 1});
  }

  // Posts up to `count` empty Buffers; returns how many were taken.
  size_t Post(size_t count) {
    size_t taken = 0;
    for (; taken < count; ++taken) {
      Buffer buffer = arena_->TryAcquire();
      if (!buffer || receiver_->PostReceives({&buffer, 1}) == 0) break;
    }
    return taken;
  }

  // The next received message's bytes; empty if there is none.
  std::vector<std::byte> TakeReceived() {
    Buffer buffer;
    if (receiver_->PollReceived({&buffer, 1}) == 0) return {};
    const std::byte* const begin = buffer.header(kHeaderBytes);
    return {begin, begin + kHeaderBytes + buffer.payload_bytes()};
  }
  size_t FreeSent() {
    std::vector<Buffer> sent(kArenaBuffers);
    return sender_->PollSent(absl::MakeSpan(sent));
  }

  // Sends messages of these sizes through both lanes and checks each.
  void SendAndCheckAll(const std::vector<size_t>& payload_sizes) {
    size_t sent = 0;
    size_t received = 0;
    size_t freed = 0;
    const bool finished = RunUntil([&] {
      freed += FreeSent();
      Post(receiver_->receives_wanted());
      while (sent < payload_sizes.size() && sent - freed < kQueuePackets) {
        if (SendOne(sent, payload_sizes[sent]) == 0) break;
        ++sent;
      }
      for (auto message = TakeReceived(); !message.empty(); message = TakeReceived()) {
        EXPECT_EQ(message, MessageBytes(received, payload_sizes[received])) << received;
        ++received;
      }
      return received == payload_sizes.size() && freed == payload_sizes.size();
    });
    EXPECT_TRUE(finished) << sent << " sent, " << freed << " freed, " << received << " received";
    EXPECT_EQ(sender_->status(), absl::OkStatus());
    EXPECT_EQ(receiver_->status(), absl::OkStatus());
  }

  void WriteRaw(absl::Span<const std::byte> bytes) {
    const absl::Status written = WriteAll(
        sender_socket_.get(), bytes, std::chrono::steady_clock::now() + std::chrono::seconds(60));
    ASSERT_TRUE(written.ok()) << written;
  }

  std::unique_ptr<IoRing> ring_;
  std::unique_ptr<Arena> arena_;
  LaneLimits limits_;
  UniqueFd sender_socket_, receiver_socket_;
  std::unique_ptr<TcpLane> sender_, receiver_;
};

std::string KindName(const testing::TestParamInfo<SocketKind>& kind) {
  return kind.param == SocketKind::kUnix ? "Unix" : "Tcp";
}
INSTANTIATE_TEST_SUITE_P(Sockets, TcpLaneTest, testing::Values(SocketKind::kUnix, SocketKind::kTcp),
                         KindName);

TEST_P(TcpLaneTest, MessagesOfEverySizeClassArriveInOrderAndIntact) {
  MakeSender();
  MakeReceiver();
  SendAndCheckAll({0, 1, 4095, 4096, 4097, 16383, 16384, 0, 0, 16384, 1});
}

TEST_P(TcpLaneTest, LargeMessagesArriveIntact) {
  SetUpWithPayload(size_t{1} << 20);
  MakeSender();
  MakeReceiver();
  SendAndCheckAll({1 << 20, (1 << 20) - 1, 0, 1 << 20, 1, 1 << 20, 1 << 19, 1 << 20});
}

TEST_P(TcpLaneTest, RandomMixesArriveInOrderAndIntact) {
  const char* const given = std::getenv("GODWIT_TEST_SEED");
  const auto seed = given != nullptr ? static_cast<unsigned>(std::strtoul(given, nullptr, 10))
                                     : std::random_device{}();
  std::cout << "GODWIT_TEST_SEED=" << seed << "\n";
  std::mt19937 random(seed);
  MakeSender();
  MakeReceiver();
  std::vector<size_t> sizes(2000);
  for (size_t& size : sizes) size = random() % (random() % 2 == 0 ? 100 : 16385);
  SendAndCheckAll(sizes);
}

TEST_P(TcpLaneTest, TakesAPrefixOfWhatIsSentAndNeverMoreThanTheQueueHolds) {
  MakeSender();
  std::vector<Buffer> packets;
  for (uint64_t i = 0; i < kQueuePackets + 2; ++i) packets.push_back(Filled(i, 10));
  EXPECT_EQ(sender_->Send(absl::MakeSpan(packets)), kQueuePackets);
  for (size_t i = 0; i < packets.size(); ++i) {
    EXPECT_EQ(static_cast<bool>(packets[i]), i >= kQueuePackets) << i;
  }
  const auto rest = absl::MakeSpan(packets).subspan(kQueuePackets);
  EXPECT_EQ(sender_->Send(rest), 0U);
  RunUntilStill();
  EXPECT_EQ(sender_->Send(rest), 0U);  // room comes from PollSent, not by itself
  Buffer sent;
  EXPECT_EQ(sender_->PollSent({&sent, 1}), 1U);
  EXPECT_EQ(sender_->Send(rest), 1U);
}

TEST_P(TcpLaneTest, TakesAPrefixOfTheReceivesAndCountsWhatItWants) {
  MakeReceiver();
  EXPECT_EQ(receiver_->receives_wanted(), kQueuePackets);
  EXPECT_EQ(Post(1), 1U);
  EXPECT_EQ(receiver_->receives_wanted(), kQueuePackets - 1);
  EXPECT_EQ(Post(kQueuePackets), kQueuePackets - 1);
  EXPECT_EQ(receiver_->receives_wanted(), 0U);
  WriteRaw(FramedBytes(0, 5));
  RunUntilStill();
  EXPECT_EQ(receiver_->receives_wanted(), 0U);  // received, but not yet polled
  EXPECT_EQ(TakeReceived(), MessageBytes(0, 5));
  EXPECT_EQ(receiver_->receives_wanted(), 1U);
}

TEST_P(TcpLaneTest, AReceiverWithoutBuffersStallsTheSenderAndBothResume) {
  constexpr size_t kMessages = 64;  // far more bytes than two socket buffers hold
  SetUpWithPayload(size_t{1} << 20);
  MakeSender();
  MakeReceiver();
  size_t sent = 0;
  size_t freed = 0;
  const auto send_what_fits = [&] {
    freed += FreeSent();
    while (sent < kMessages && sent - freed < kQueuePackets) {
      if (SendOne(sent, size_t{1} << 20) == 0) break;
      ++sent;
    }
  };
  for (size_t before = sent + 1; before != sent;) {
    before = sent;
    send_what_fits();
    RunUntilStill();
  }
  EXPECT_LT(sent, kMessages);
  EXPECT_EQ(sent - freed, kQueuePackets);
  EXPECT_EQ(TakeReceived(), std::vector<std::byte>());

  size_t received = 0;
  EXPECT_TRUE(RunUntil([&] {
    send_what_fits();
    Post(1);
    const auto message = TakeReceived();
    if (!message.empty()) {
      EXPECT_EQ(message, MessageBytes(received, size_t{1} << 20));
      ++received;
    }
    return received == kMessages;
  }));
}

TEST_P(TcpLaneTest, CallsOfTheOtherRoleTakeAndReturnNothing) {
  MakeSender();
  MakeReceiver();
  Buffer buffer = Filled(0, 1);
  EXPECT_EQ(receiver_->Send({&buffer, 1}), 0U);
  EXPECT_EQ(sender_->PostReceives({&buffer, 1}), 0U);
  EXPECT_EQ(sender_->receives_wanted(), 0U);
  EXPECT_TRUE(buffer);
  EXPECT_EQ(receiver_->PollSent({&buffer, 1}), 0U);
  EXPECT_EQ(sender_->PollReceived({&buffer, 1}), 0U);
}

TEST_P(TcpLaneTest, AStreamCutAtAnyByteEndsWithTheRightStatus) {
  std::vector<std::byte> stream;
  std::vector<size_t> message_ends = {0};
  const std::vector<size_t> payload_sizes = {7, 0, 1};
  for (size_t i = 0; i < payload_sizes.size(); ++i) {
    const auto framed = FramedBytes(i, payload_sizes[i]);
    stream.insert(stream.end(), framed.begin(), framed.end());
    message_ends.push_back(stream.size());
  }
  for (size_t cut = 0; cut <= stream.size(); ++cut) {
    SCOPED_TRACE(absl::StrCat("cut after ", cut, " bytes"));
    std::tie(sender_socket_, receiver_socket_) = Connected(GetParam());
    MakeReceiver();
    ASSERT_EQ(Post(kQueuePackets), kQueuePackets);
    WriteRaw(absl::MakeSpan(stream).first(cut));
    sender_socket_.Reset();
    ASSERT_TRUE(RunUntil([&] { return receiver_->peer_closed() || !receiver_->status().ok(); }));

    size_t whole = 0;
    while (whole + 1 < message_ends.size() && message_ends[whole + 1] <= cut) ++whole;
    const size_t inside_bytes = cut - message_ends[whole];
    EXPECT_EQ(receiver_->peer_closed(), inside_bytes == 0);
    if (inside_bytes == 0) {
      EXPECT_EQ(receiver_->status(), absl::OkStatus());
    } else {
      EXPECT_EQ(receiver_->status().code(), absl::StatusCode::kDataLoss);
      const std::string progress =
          inside_bytes < 4
              ? absl::StrCat(inside_bytes, " of 4 bytes of a message's length prefix")
              : absl::StrCat(inside_bytes - 4, " of ", kHeaderBytes + payload_sizes[whole],
                             " bytes of a message");
      EXPECT_THAT(std::string(receiver_->status().message()), HasSubstr(progress));
      EXPECT_THAT(std::string(receiver_->status().message()), HasSubstr("tcp in: "));
    }
    for (size_t i = 0; i < whole; ++i) EXPECT_EQ(TakeReceived(), MessageBytes(i, payload_sizes[i]));
    EXPECT_EQ(TakeReceived(), std::vector<std::byte>());
    DestroyLanes();
    ASSERT_EQ(arena_->free_count(), kArenaBuffers);
  }
}

TEST_P(TcpLaneTest, AnEndInsideAMessageIsNoticedAlsoWhileNoBufferWaits) {
  MakeReceiver();
  const auto framed = FramedBytes(0, 100);
  WriteRaw(absl::MakeSpan(framed).first(4));
  sender_socket_.Reset();
  RunUntilStill();
  EXPECT_EQ(receiver_->status(), absl::OkStatus());  // the message may still lie in the socket
  ASSERT_EQ(Post(1), 1U);
  EXPECT_TRUE(RunUntil([&] { return !receiver_->status().ok(); }));
  EXPECT_EQ(receiver_->status().code(), absl::StatusCode::kDataLoss);
}

TEST_P(TcpLaneTest, RefusesALengthOutsideTheLimitsBeforeUsingIt) {
  const auto max = static_cast<uint32_t>(kHeaderBytes + limits_.payload_bytes_max);
  for (const uint32_t length : {uint32_t{0}, uint32_t{1}, uint32_t{kHeaderBytes - 1}, max + 1,
                                uint32_t{0x7fffffff}, uint32_t{0x80000000}, uint32_t{0xffffffff}}) {
    SCOPED_TRACE(length);
    std::tie(sender_socket_, receiver_socket_) = Connected(GetParam());
    MakeReceiver();
    ASSERT_EQ(Post(kQueuePackets), kQueuePackets);
    WriteRaw(FramedBytes(0, 3));
    const uint32_t prefix = htonl(length);
    WriteRaw({reinterpret_cast<const std::byte*>(&prefix), sizeof(prefix)});
    ASSERT_TRUE(RunUntil([&] { return !receiver_->status().ok(); }));
    EXPECT_EQ(receiver_->status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_EQ(receiver_->status().message(),
              absl::StrCat("tcp in: the peer announced a message of ", length,
                           " bytes, allowed are ", kHeaderBytes, " to ", max));
    EXPECT_FALSE(receiver_->peer_closed());
    EXPECT_EQ(receiver_->receives_wanted(), 0U);
    Buffer buffer = arena_->TryAcquire();
    EXPECT_EQ(receiver_->PostReceives({&buffer, 1}), 0U);
    buffer = Buffer();
    EXPECT_EQ(TakeReceived(), MessageBytes(0, 3));  // what had arrived whole stays good
    DestroyLanes();
    ASSERT_EQ(arena_->free_count(), kArenaBuffers);
  }
}

TEST_P(TcpLaneTest, AcceptsTheSmallestAndTheLargestLength) {
  MakeReceiver();
  ASSERT_EQ(Post(2), 2U);
  WriteRaw(FramedBytes(0, 0));
  WriteRaw(FramedBytes(1, limits_.payload_bytes_max));
  std::vector<std::byte> message;
  ASSERT_TRUE(RunUntil([&] { return !(message = TakeReceived()).empty(); }));
  EXPECT_EQ(message, MessageBytes(0, 0));
  ASSERT_TRUE(RunUntil([&] { return !(message = TakeReceived()).empty(); }));
  EXPECT_EQ(message, MessageBytes(1, limits_.payload_bytes_max));
}

// Only TCP connections can be reset.
class TcpLaneResetTest : public TcpLaneTest {};
INSTANTIATE_TEST_SUITE_P(Sockets, TcpLaneResetTest, testing::Values(SocketKind::kTcp), KindName);
void ResetConnection(UniqueFd& socket) {
  const linger at_once = {1, 0};
  ASSERT_EQ(::setsockopt(socket.get(), SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once)), 0);
  socket.Reset();
}

TEST_P(TcpLaneResetTest, AResetBetweenMessagesIsAnErrorAndNotAnEnd) {
  MakeReceiver();
  RunUntilStill();
  ResetConnection(sender_socket_);
  ASSERT_TRUE(RunUntil([&] { return !receiver_->status().ok(); }));
  EXPECT_EQ(receiver_->status().code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(receiver_->status().message()), HasSubstr("tcp in: "));
  EXPECT_THAT(std::string(receiver_->status().message()), HasSubstr("Connection reset by peer"));
  EXPECT_FALSE(receiver_->peer_closed());
}

TEST_P(TcpLaneResetTest, AResetReachesASenderThatHasNothingToSend) {
  MakeSender();
  RunUntilStill();
  ResetConnection(receiver_socket_);
  ASSERT_TRUE(RunUntil([&] { return !sender_->status().ok(); }));
  EXPECT_EQ(sender_->status().code(), absl::StatusCode::kUnavailable);
}

TEST_P(TcpLaneTest, ASenderWhosePeerGoesAwayFailsAndGivesEveryBufferBackInOrder) {
  SetUpWithPayload(size_t{4} << 20);
  MakeSender();
  std::vector<std::byte*> payloads;
  for (uint64_t i = 0; i < kQueuePackets; ++i) {
    Buffer buffer = Filled(i, size_t{4} << 20);
    payloads.push_back(buffer.payload());
    ASSERT_EQ(sender_->Send({&buffer, 1}), 1U);
  }
  RunUntilStill();
  receiver_socket_.Reset();
  ASSERT_TRUE(RunUntil([&] { return !sender_->status().ok() && sender_->quiescent(); }));
  EXPECT_EQ(sender_->status().code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(SendOne(9, 1), 0U);
  std::vector<Buffer> sent(kArenaBuffers);
  ASSERT_EQ(sender_->PollSent(absl::MakeSpan(sent)), kQueuePackets);
  for (size_t i = 0; i < kQueuePackets; ++i) EXPECT_EQ(sent[i].payload(), payloads[i]);
}

TEST_P(TcpLaneTest, AnIdleSenderSeesThePeerCloseAndCantSendAnyMore) {
  MakeSender();
  receiver_socket_.Reset();
  ASSERT_TRUE(RunUntil([&] { return sender_->peer_closed(); }));
  EXPECT_EQ(sender_->status(), absl::OkStatus());
  EXPECT_EQ(SendOne(0, 1), 0U);
  EXPECT_EQ(sender_->status().code(), absl::StatusCode::kUnavailable);
}

TEST_P(TcpLaneTest, APeerThatWritesToASenderBreaksTheLane) {
  MakeSender();
  ASSERT_EQ(::send(receiver_socket_.get(), "x", 1, MSG_NOSIGNAL), 1);
  ASSERT_TRUE(RunUntil([&] { return !sender_->status().ok(); }));
  EXPECT_EQ(sender_->status().code(), absl::StatusCode::kInvalidArgument);
}

TEST_P(TcpLaneTest, WhatWasSentBeforeCloseArrivesAndThenTheEnd) {
  MakeSender();
  MakeReceiver();
  ASSERT_EQ(SendOne(0, 100), 1U);
  size_t freed = 0;
  ASSERT_TRUE(RunUntil([&] { return (freed += FreeSent()) == 1; }));
  sender_->Close();
  EXPECT_EQ(sender_->status().code(), absl::StatusCode::kCancelled);
  EXPECT_EQ(SendOne(1, 1), 0U);
  ASSERT_EQ(Post(2), 2U);
  ASSERT_TRUE(RunUntil([&] { return receiver_->peer_closed(); }));
  EXPECT_EQ(TakeReceived(), MessageBytes(0, 100));
  EXPECT_EQ(receiver_->status(), absl::OkStatus());
  receiver_->Close();
  receiver_->Close();  // idempotent
  EXPECT_EQ(receiver_->status().code(), absl::StatusCode::kCancelled);
}

TEST_P(TcpLaneTest, CloseWithOperationsInFlightGivesEveryBufferBack) {
  SetUpWithPayload(size_t{4} << 20);
  for (int rounds_before_close = 0; rounds_before_close < 12; ++rounds_before_close) {
    SCOPED_TRACE(rounds_before_close);
    std::tie(sender_socket_, receiver_socket_) = Connected(GetParam());
    MakeSender();
    MakeReceiver();
    for (uint64_t i = 0; i < kQueuePackets; ++i) {
      ASSERT_EQ(SendOne(i, size_t{4} << 20), 1U);
    }
    ASSERT_EQ(Post(2), 2U);
    for (int i = 0; i < rounds_before_close; ++i) ring_->Wait(std::chrono::nanoseconds(0));
    if (rounds_before_close % 2 == 0) {
      sender_->Close();
      receiver_->Close();
    } else {
      receiver_->Close();
      sender_->Close();
    }
    ASSERT_TRUE(RunUntil([&] { return sender_->quiescent() && receiver_->quiescent(); }));
    EXPECT_EQ(FreeSent(), kQueuePackets);
    DestroyLanes();
    ASSERT_EQ(arena_->free_count(), kArenaBuffers);
  }
}

TEST_P(TcpLaneTest, CloseBeforeTheRingEverRan) {
  MakeSender();
  MakeReceiver();
  ASSERT_EQ(SendOne(0, 1), 1U);
  ASSERT_EQ(Post(1), 1U);
  DestroyLanes();
}

TEST_P(TcpLaneTest, ManyLanesShareOneRing) {
  constexpr size_t kLanes = 16;  // more operations than the ring has entries
  std::vector<std::unique_ptr<TcpLane>> senders, receivers;
  std::vector<size_t> sent(kLanes), received(kLanes);
  for (size_t i = 0; i < kLanes; ++i) {
    auto [near, far] = Connected(GetParam());
    senders.push_back(
        TcpLane::Make(std::move(near), *ring_, limits_, LaneRole::kSender, "tcp out"));
    receivers.push_back(
        TcpLane::Make(std::move(far), *ring_, limits_, LaneRole::kReceiver, "tcp in"));
  }
  constexpr size_t kMessagesEach = 20;
  EXPECT_TRUE(RunUntil([&] {
    size_t finished = 0;
    for (size_t i = 0; i < kLanes; ++i) {
      Buffer buffer;
      while (senders[i]->PollSent({&buffer, 1}) == 1) buffer = Buffer();
      while (receivers[i]->PollReceived({&buffer, 1}) == 1) {
        const auto expected = MessageBytes(received[i]++, i * 1000);
        EXPECT_EQ(buffer.payload_bytes(), i * 1000);
        EXPECT_EQ(std::memcmp(buffer.header(kHeaderBytes), expected.data(), expected.size()), 0);
        buffer = Buffer();
      }
      // One message a lane at a time: the arena serves all lanes.
      if (sent[i] == received[i] && sent[i] < kMessagesEach && arena_->free_count() >= 2) {
        buffer = arena_->TryAcquire();
        if (receivers[i]->receives_wanted() == kQueuePackets) {
          EXPECT_EQ(receivers[i]->PostReceives({&buffer, 1}), 1U);
        }
        buffer = Filled(sent[i]++, i * 1000);
        EXPECT_EQ(senders[i]->Send({&buffer, 1}), 1U);
      }
      finished += received[i] == kMessagesEach;
    }
    return finished == kLanes;
  }));
  for (size_t i = 0; i < kLanes; ++i) {
    senders[i]->Close();
    receivers[i]->Close();
  }
  EXPECT_TRUE(RunUntil([&] { return ring_->in_flight() == 0; }));
}

}  // namespace
}  // namespace godwit
