// Goal: over a NIC that keeps its promises messages arrive whole and in order with one doorbell a
// burst; and whatever the NIC or the peer does, every Buffer comes back exactly once, never before
// the NIC has let go of it, with the first cause kept.
#include "transport/verbs/verbs_lane.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <string>
#include <vector>

#include "tests/transport/verbs/fake_hca.h"
#include "transport/verbs/completion_status.h"

namespace godwit {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;

constexpr size_t kHeaderBytes = 48;
constexpr size_t kPayloadBytesMax = 8192;

RdmaGidBytes GidOf(uint8_t last) {
  RdmaGidBytes gid{};
  gid[10] = gid[11] = 0xff;
  gid[12] = 10;
  gid[15] = last;
  return gid;
}

class VerbsLaneTest : public testing::Test {
 protected:
  static constexpr uint32_t kQueuePackets = 64;

  // Buffers for both lanes' queues and for the test's own hands.
  VerbsLaneTest() : arena_(*Arena::Create(3 * kQueuePackets, kPayloadBytesMax)) {}

  std::unique_ptr<VerbsLane> MakeLane(LaneRole role, uint32_t queue_packets = kQueuePackets,
                                      uint32_t mtu = 5) {
    VerbsLane::Local local;
    local.port_name = "fake0/1";
    local.path.device_name = "fake0";
    local.path.port.number = 1;
    local.path.port.active_mtu = mtu;
    local.path.port.message_bytes_max = kMessageBytesMax;
    local.path.gid = {.index = 3, .type = RdmaGidType::kRoceV2, .bytes = GidOf(1)};
    local.local_key = 0x4b;
    local.arena = arena_.get();
    auto lane = VerbsLane::CreateOver(hca_.MakeQueuePair(queue_packets, queue_packets), local, role,
                                      {kHeaderBytes, kPayloadBytesMax, queue_packets});
    EXPECT_TRUE(lane.ok()) << lane.status();
    return *std::move(lane);
  }
  // A sender over queue pair 0 and a receiver over 1, connected.
  void Connect(uint32_t queue_packets = kQueuePackets) {
    sender_ = MakeLane(LaneRole::kSender, queue_packets);
    receiver_ = MakeLane(LaneRole::kReceiver, queue_packets);
    ASSERT_EQ(sender_->Connect(receiver_->local()), absl::OkStatus());
    ASSERT_EQ(receiver_->Connect(sender_->local()), absl::OkStatus());
  }
  FakeQp& sender_qp() { return hca_.Qp(0); }
  FakeQp& receiver_qp() { return hca_.Qp(1); }

  Buffer Message(size_t bytes, char fill = 'm') {
    Buffer buffer = arena_->TryAcquire();
    EXPECT_TRUE(buffer);
    buffer.set_payload_bytes(bytes);
    std::memset(buffer.header(kHeaderBytes), fill ^ 0x55, kHeaderBytes);
    std::memset(buffer.payload(), fill, bytes);
    return buffer;
  }
  std::vector<Buffer> Messages(size_t count, size_t bytes = 100) {
    std::vector<Buffer> messages;
    for (size_t i = 0; i < count; ++i) messages.push_back(Message(bytes, static_cast<char>(i)));
    return messages;
  }
  size_t Send(size_t count) {
    std::vector<Buffer> messages = Messages(count);
    return sender_->Send(absl::MakeSpan(messages));
  }
  size_t PostReceives(VerbsLane& lane, size_t count) {
    std::vector<Buffer> buffers(count);
    for (Buffer& buffer : buffers) buffer = arena_->TryAcquire();
    return lane.PostReceives(absl::MakeSpan(buffers));
  }
  std::vector<Buffer> PollSent(size_t max = 3 * kQueuePackets) {
    std::vector<Buffer> sent(max);
    sent.resize(sender_->PollSent(absl::MakeSpan(sent)));
    return sent;
  }
  std::vector<Buffer> PollReceived(size_t max = 3 * kQueuePackets) {
    std::vector<Buffer> received(max);
    received.resize(receiver_->PollReceived(absl::MakeSpan(received)));
    return received;
  }
  static void ExpectMessage(const Buffer& buffer, size_t bytes, char fill) {
    EXPECT_EQ(buffer.payload_bytes(), bytes);
    const std::string payload(reinterpret_cast<const char*>(buffer.payload()), bytes);
    EXPECT_EQ(payload, std::string(bytes, fill));
    const std::string header(reinterpret_cast<const char*>(buffer.header(kHeaderBytes)),
                             kHeaderBytes);
    EXPECT_EQ(header, std::string(kHeaderBytes, static_cast<char>(fill ^ 0x55)));
  }

  // Destroyed last to first: lanes, then what they stand on. The arena checks that every Buffer is
  // back.
  const std::unique_ptr<Arena> arena_;
  FakeHca hca_;
  std::unique_ptr<VerbsLane> sender_;
  std::unique_ptr<VerbsLane> receiver_;

  void TearDown() override {
    for (VerbsLane* lane : {sender_.get(), receiver_.get()}) {
      if (lane != nullptr) lane->Close();
    }
    if (sender_ != nullptr) PollSent();
    if (receiver_ != nullptr) PollReceived();
    sender_.reset();
    receiver_.reset();
    EXPECT_EQ(arena_->free_count(), arena_->buffer_count());
  }
};

TEST_F(VerbsLaneTest, MovesMessagesOfEverySizeInOrderAndIntact) {
  Connect();
  const std::vector<size_t> sizes = {0, 1, 4095, 4096, 4097, kPayloadBytesMax, 0, 17};
  ASSERT_EQ(PostReceives(*receiver_, sizes.size()), sizes.size());
  std::vector<Buffer> messages;
  messages.reserve(sizes.size());
  for (const size_t bytes : sizes) {
    messages.push_back(Message(bytes, static_cast<char>('a' + messages.size())));
  }
  ASSERT_EQ(sender_->Send(absl::MakeSpan(messages)), sizes.size());
  for (const Buffer& message : messages) EXPECT_FALSE(message);

  EXPECT_EQ(hca_.Deliver(sender_qp()), sizes.size());
  const std::vector<Buffer> received = PollReceived();
  ASSERT_THAT(received, SizeIs(sizes.size()));
  for (size_t i = 0; i < sizes.size(); ++i) {
    ExpectMessage(received[i], sizes[i], static_cast<char>('a' + i));
  }
  const std::vector<Buffer> sent = PollSent();
  ASSERT_THAT(sent, SizeIs(sizes.size()));
  for (size_t i = 0; i < sizes.size(); ++i) {
    ExpectMessage(sent[i], sizes[i], static_cast<char>('a' + i));
  }
  EXPECT_TRUE(sender_->quiescent());
  EXPECT_EQ(sender_->status(), absl::OkStatus());
}

TEST_F(VerbsLaneTest, RingsOneDoorbellABurst) {
  Connect();
  EXPECT_EQ(PostReceives(*receiver_, 40), 40U);
  EXPECT_THAT(receiver_qp().receive_chains, ElementsAre(32, 8));
  EXPECT_EQ(Send(5), 5U);
  EXPECT_EQ(Send(35), 35U);
  EXPECT_THAT(sender_qp().send_chains, ElementsAre(5, 32, 3));
}

TEST_F(VerbsLaneTest, SignalsTheLastOfABurstAndOftenEnoughForHalfAQueue) {
  Connect(/*queue_packets=*/16);
  EXPECT_EQ(Send(3), 3U);
  EXPECT_EQ(Send(13), 13U);
  EXPECT_THAT(sender_qp().signalled, ElementsAre(3, 8, 16));
}

TEST_F(VerbsLaneTest, SignalsEverySendOfAQueueOfOne) {
  Connect(/*queue_packets=*/1);
  EXPECT_EQ(PostReceives(*receiver_, 1), 1U);
  EXPECT_EQ(Send(1), 1U);
  EXPECT_EQ(Send(1), 0U);
  EXPECT_EQ(hca_.Deliver(sender_qp()), 1U);
  EXPECT_THAT(PollSent(), SizeIs(1));
  EXPECT_EQ(Send(1), 1U);
}

TEST_F(VerbsLaneTest, TakesNoMoreThanItsQueueAndLeavesTheRest) {
  Connect();
  std::vector<Buffer> messages = Messages(kQueuePackets + 1);
  EXPECT_EQ(sender_->Send(absl::MakeSpan(messages)), kQueuePackets);
  EXPECT_TRUE(messages.back());
  EXPECT_EQ(sender_->Send(absl::MakeSpan(messages).last(1)), 0U);
  EXPECT_EQ(sender_->status(), absl::OkStatus());

  EXPECT_EQ(PostReceives(*receiver_, kQueuePackets + 1), kQueuePackets);
  EXPECT_EQ(receiver_->receives_wanted(), 0U);
}

TEST_F(VerbsLaneTest, GivesBackOnlyWhatTheNicHasFinished) {
  Connect(/*queue_packets=*/16);
  EXPECT_EQ(PostReceives(*receiver_, 16), 16U);
  EXPECT_EQ(Send(16), 16U);
  EXPECT_EQ(hca_.Deliver(sender_qp(), 7), 7U);
  EXPECT_THAT(PollSent(), IsEmpty());  // the eighth is the first signalled one
  EXPECT_EQ(hca_.Deliver(sender_qp(), 1), 1U);
  EXPECT_THAT(PollSent(5), SizeIs(5));
  EXPECT_THAT(PollSent(5), SizeIs(3));
  EXPECT_FALSE(sender_->quiescent());
  EXPECT_EQ(Send(9), 8U);
}

TEST_F(VerbsLaneTest, HandsOutMessagesAsManyAsAreAskedFor) {
  Connect();
  EXPECT_EQ(PostReceives(*receiver_, 40), 40U);
  EXPECT_EQ(Send(40), 40U);
  hca_.Deliver(sender_qp());
  EXPECT_THAT(PollReceived(0), IsEmpty());
  EXPECT_THAT(PollReceived(3), SizeIs(3));
  const std::vector<Buffer> rest = PollReceived(100);
  ASSERT_THAT(rest, SizeIs(37));
  ExpectMessage(rest.front(), 100, 3);
  EXPECT_EQ(receiver_->receives_wanted(), kQueuePackets);
}

TEST_F(VerbsLaneTest, ReceivesArePostedBeforeAndSendsOnlyAfterConnecting) {
  sender_ = MakeLane(LaneRole::kSender);
  receiver_ = MakeLane(LaneRole::kReceiver);
  EXPECT_EQ(PostReceives(*receiver_, 2), 2U);
  EXPECT_EQ(Send(1), 0U);
  ASSERT_EQ(sender_->Connect(receiver_->local()), absl::OkStatus());
  ASSERT_EQ(receiver_->Connect(sender_->local()), absl::OkStatus());
  EXPECT_EQ(Send(1), 1U);
  EXPECT_EQ(hca_.Deliver(sender_qp()), 1U);
  EXPECT_THAT(PollReceived(), SizeIs(1));
}

TEST_F(VerbsLaneTest, ConnectsWithTheSmallerMtuThePeersPsnAndFiniteRetries) {
  sender_ = MakeLane(LaneRole::kSender, kQueuePackets, /*mtu=*/5);
  receiver_ = MakeLane(LaneRole::kReceiver, kQueuePackets, /*mtu=*/3);
  ASSERT_EQ(sender_->Connect(receiver_->local()), absl::OkStatus());
  ASSERT_EQ(receiver_->Connect(sender_->local()), absl::OkStatus());
  const ibv_qp_attr& attributes = sender_qp().attributes;
  EXPECT_EQ(attributes.path_mtu, IBV_MTU_1024);
  EXPECT_EQ(receiver_qp().attributes.path_mtu, IBV_MTU_1024);
  EXPECT_EQ(attributes.dest_qp_num, receiver_->local().queue_pair_number);
  EXPECT_EQ(attributes.sq_psn, sender_->local().start_psn);
  EXPECT_EQ(attributes.rq_psn, receiver_->local().start_psn);
  EXPECT_LE(attributes.sq_psn, 0xffffffU);
  EXPECT_GE(attributes.min_rnr_timer, 12);
  EXPECT_LT(attributes.rnr_retry, 7);  // 7 is for ever
  EXPECT_LT(attributes.retry_cnt, 7);  // so it is to soft-RoCE
  EXPECT_GT(attributes.timeout, 0);    // 0 is for ever
  EXPECT_EQ(attributes.ah_attr.grh.sgid_index, 3);
  EXPECT_EQ(attributes.ah_attr.port_num, 1);
}

TEST_F(VerbsLaneTest, RefusesEndpointsThatNoPeerHas) {
  const VerbsEndpoint good = {.queue_pair_number = 0x11, .start_psn = 0, .gid = GidOf(2), .mtu = 3};
  ASSERT_EQ(ValidateVerbsEndpoint(good), absl::OkStatus());
  std::vector<VerbsEndpoint> bad(9, good);
  bad[0].queue_pair_number = 0;
  bad[1].queue_pair_number = 1;
  bad[2].queue_pair_number = 0xffffff;
  bad[3].queue_pair_number = 0x1000000;
  bad[4].start_psn = 0x1000000;
  bad[5].mtu = 0;
  bad[6].mtu = 6;
  bad[7].gid = {};
  bad[8].lid = 0x10000;
  for (const VerbsEndpoint& endpoint : bad) {
    const auto lane = MakeLane(LaneRole::kSender);
    EXPECT_EQ(lane->Connect(endpoint).code(), absl::StatusCode::kInvalidArgument);
    EXPECT_EQ(lane->status().code(), absl::StatusCode::kInvalidArgument);
  }
}

TEST_F(VerbsLaneTest, SaysWhomItCouldNotReach) {
  sender_ = MakeLane(LaneRole::kSender);
  receiver_ = MakeLane(LaneRole::kReceiver);
  sender_qp().modify_error = ETIMEDOUT;
  sender_qp().modify_error_state = IBV_QPS_RTR;
  EXPECT_THAT(std::string(sender_->Connect(receiver_->local()).message()),
              AllOf(HasSubstr("verbs fake0/1 qp 0x11"), HasSubstr("10.0.0.1 qp 0x12")));
}

TEST_F(VerbsLaneTest, CloseGivesEveryBufferBackOnceTheNicHasFlushedIt) {
  Connect();
  EXPECT_EQ(PostReceives(*receiver_, 10), 10U);
  EXPECT_EQ(Send(20), 20U);
  hca_.Deliver(sender_qp(), 4);
  sender_->Close();
  receiver_->Close();
  EXPECT_EQ(sender_->status().code(), absl::StatusCode::kCancelled);
  EXPECT_FALSE(sender_->quiescent());
  EXPECT_FALSE(receiver_->quiescent());
  EXPECT_EQ(Send(1), 0U);
  EXPECT_EQ(PostReceives(*receiver_, 1), 0U);
  EXPECT_EQ(receiver_->receives_wanted(), 0U);

  EXPECT_THAT(PollSent(), SizeIs(20));
  EXPECT_THAT(PollReceived(), IsEmpty());  // nothing more is received after Close()
  EXPECT_TRUE(sender_->quiescent());
  EXPECT_TRUE(receiver_->quiescent());
  EXPECT_EQ(arena_->free_count(), arena_->buffer_count());
  sender_->Close();
  EXPECT_EQ(sender_->status().code(), absl::StatusCode::kCancelled);
}

TEST_F(VerbsLaneTest, ClosesBeforeItWasConnected) {
  receiver_ = MakeLane(LaneRole::kReceiver);
  EXPECT_EQ(PostReceives(*receiver_, 3), 3U);
  receiver_->Close();
  EXPECT_THAT(PollReceived(), IsEmpty());
  EXPECT_TRUE(receiver_->quiescent());
}

TEST_F(VerbsLaneTest, KeepsTheFirstCauseAndNotTheFlushesThatFollow) {
  Connect();
  EXPECT_EQ(Send(10), 10U);
  hca_.FailOldest(sender_qp(), IBV_WC_RETRY_EXC_ERR, 0x81);
  EXPECT_THAT(PollSent(), SizeIs(10));
  EXPECT_EQ(sender_->status(),
            absl::UnavailableError("verbs fake0/1 qp 0x11: send failed: transport retry counter "
                                   "exceeded (vendor error 0x81): is the peer still there?"));
  sender_->Close();
  EXPECT_EQ(sender_->status().code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(Send(1), 0U);
}

TEST_F(VerbsLaneTest, PassesOnWhatArrivedBeforeAFailureAndNothingAfter) {
  Connect();
  EXPECT_EQ(PostReceives(*receiver_, 8), 8U);
  EXPECT_EQ(Send(6), 6U);
  hca_.Deliver(sender_qp(), 3);
  receiver_qp().next_receive_bytes = kHeaderBytes - 1;
  hca_.Deliver(sender_qp());
  EXPECT_THAT(PollReceived(), SizeIs(3));
  EXPECT_THAT(PollReceived(), IsEmpty());
  EXPECT_TRUE(receiver_->quiescent());
  EXPECT_EQ(receiver_->status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(receiver_->status().message()), HasSubstr("47 bytes"));
}

TEST_F(VerbsLaneTest, RefusesAMessageLongerThanTheLimits) {
  Connect();
  EXPECT_EQ(PostReceives(*receiver_, 2), 2U);
  EXPECT_EQ(Send(1), 1U);
  receiver_qp().next_receive_bytes = kHeaderBytes + kPayloadBytesMax + 1;
  hca_.Deliver(sender_qp());
  EXPECT_THAT(PollReceived(), IsEmpty());
  EXPECT_EQ(receiver_->status().code(), absl::StatusCode::kInvalidArgument);
}

TEST_F(VerbsLaneTest, BlamesThePeerForALengthThatOurNicRefused) {
  size_t made = 0;
  for (const ibv_wc_status status :
       {IBV_WC_LOC_LEN_ERR, IBV_WC_REM_INV_REQ_ERR, IBV_WC_LOC_QP_OP_ERR}) {
    receiver_ = MakeLane(LaneRole::kReceiver);
    EXPECT_EQ(PostReceives(*receiver_, 2), 2U);
    hca_.FailOldest(hca_.Qp(made++), status, 0);
    EXPECT_THAT(PollReceived(), IsEmpty());
    EXPECT_EQ(receiver_->status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_TRUE(receiver_->quiescent());
  }
}

TEST_F(VerbsLaneTest, TellsASenderWhatToDoNextByTheCode) {
  const std::pair<ibv_wc_status, absl::StatusCode> expected[] = {
      {IBV_WC_RETRY_EXC_ERR, absl::StatusCode::kUnavailable},
      {IBV_WC_RNR_RETRY_EXC_ERR, absl::StatusCode::kUnavailable},
      {IBV_WC_WR_FLUSH_ERR, absl::StatusCode::kUnavailable},
      {IBV_WC_REM_INV_REQ_ERR, absl::StatusCode::kAborted},
      {IBV_WC_REM_OP_ERR, absl::StatusCode::kAborted},
      {IBV_WC_LOC_PROT_ERR, absl::StatusCode::kInternal},
      {IBV_WC_LOC_LEN_ERR, absl::StatusCode::kInternal},
  };
  for (const auto& [status, code] : expected) {
    ibv_wc completion{};
    completion.status = status;
    EXPECT_EQ(CompletionStatus(completion, LaneRole::kSender).code(), code) << status;
  }
}

TEST_F(VerbsLaneTest, AChainTakenInPartFailsTheLaneAndKeepsBothHalvesApart) {
  Connect();
  sender_qp().reject_at = 4;
  std::vector<Buffer> messages = Messages(10);
  EXPECT_EQ(sender_->Send(absl::MakeSpan(messages)), 4U);
  for (size_t i = 0; i < 10; ++i) EXPECT_EQ(static_cast<bool>(messages[i]), i >= 4) << i;
  EXPECT_EQ(sender_->status().code(), absl::StatusCode::kResourceExhausted);
  // Nothing tells when the NIC has sent those four: only without the queue pair are they ours.
  EXPECT_TRUE(sender_qp().qp_destroyed);
  EXPECT_TRUE(sender_->quiescent());
  EXPECT_THAT(PollSent(), SizeIs(4));
}

TEST_F(VerbsLaneTest, ReceivesTakenInPartComeBackAndSoDoMessagesThatHadArrived) {
  Connect();
  EXPECT_EQ(PostReceives(*receiver_, 3), 3U);
  EXPECT_EQ(Send(2), 2U);
  EXPECT_EQ(hca_.Deliver(sender_qp()), 2U);
  receiver_qp().reject_at = 4;
  EXPECT_EQ(PostReceives(*receiver_, 7), 4U);
  EXPECT_EQ(receiver_->status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(PostReceives(*receiver_, 1), 0U);
  EXPECT_THAT(PollReceived(), SizeIs(2));
  EXPECT_TRUE(receiver_->quiescent());
}

TEST_F(VerbsLaneTest, TakesAndReturnsNothingInTheOtherRole) {
  Connect();
  EXPECT_EQ(PostReceives(*sender_, 1), 0U);
  EXPECT_EQ(sender_->receives_wanted(), 0U);
  EXPECT_EQ(PostReceives(*receiver_, 1), 1U);
  std::vector<Buffer> messages = Messages(1);
  EXPECT_EQ(receiver_->Send(absl::MakeSpan(messages)), 0U);
  EXPECT_TRUE(messages[0]);
  Buffer none;
  EXPECT_EQ(receiver_->PollSent({&none, 1}), 0U);
  EXPECT_EQ(sender_->PollReceived({&none, 1}), 0U);
}

TEST_F(VerbsLaneTest, DestroysAQueuePairThatCannotBeStopped) {
  Connect();
  EXPECT_EQ(PostReceives(*receiver_, 5), 5U);
  receiver_qp().modify_error = EIO;
  receiver_->Close();
  EXPECT_TRUE(receiver_qp().qp_destroyed);
  EXPECT_TRUE(receiver_->quiescent());
  EXPECT_EQ(receiver_->status().code(), absl::StatusCode::kCancelled);
  EXPECT_EQ(arena_->free_count(), arena_->buffer_count());
}

TEST_F(VerbsLaneTest, StaysBusyWhileTheNicHasNotFlushed) {
  Connect();
  EXPECT_EQ(Send(3), 3U);
  sender_qp().flush = false;
  sender_->Close();
  EXPECT_THAT(PollSent(), IsEmpty());
  EXPECT_FALSE(sender_->quiescent());
  sender_qp().flush = true;
  hca_.ToError(sender_qp());
  EXPECT_THAT(PollSent(), SizeIs(3));
  EXPECT_TRUE(sender_->quiescent());
}

TEST_F(VerbsLaneTest, ABrokenCompletionQueueEndsBothDirections) {
  Connect();
  EXPECT_EQ(PostReceives(*receiver_, 5), 5U);
  EXPECT_EQ(Send(3), 3U);
  sender_qp().poll_error = EIO;
  receiver_qp().poll_error = EIO;
  EXPECT_THAT(PollSent(), SizeIs(3));
  EXPECT_THAT(PollReceived(), IsEmpty());
  EXPECT_THAT(std::string(sender_->status().message()), HasSubstr("can't poll"));
  EXPECT_THAT(std::string(receiver_->status().message()), HasSubstr("can't poll"));
  EXPECT_TRUE(sender_->quiescent());
  EXPECT_TRUE(receiver_->quiescent());
}

TEST_F(VerbsLaneTest, ACompletionOutOfTheBlueIsNotBelieved) {
  Connect();
  EXPECT_EQ(PostReceives(*receiver_, 5), 5U);
  EXPECT_EQ(Send(3), 3U);
  ibv_wc stray{};
  stray.wr_id = 4;
  stray.byte_len = kHeaderBytes;
  sender_qp().completions.push_back(stray);
  receiver_qp().completions.push_back(stray);
  EXPECT_THAT(PollSent(), SizeIs(3));
  EXPECT_THAT(PollReceived(), IsEmpty());
  EXPECT_EQ(sender_->status().code(), absl::StatusCode::kInternal);
  EXPECT_EQ(receiver_->status().code(), absl::StatusCode::kInternal);
}

TEST_F(VerbsLaneTest, AcknowledgesEventsBeforeItArmsAgain) {
  Connect();
  EXPECT_GE(sender_->wakeup_fd(), 0);
  EXPECT_FALSE(sender_qp().armed);
  sender_->ArmWakeup();
  EXPECT_TRUE(sender_qp().armed);
  EXPECT_EQ(sender_qp().events_taken, 1);
}

// The end of each burst, and often enough for half a queue: what it is signalled for at the sender.
TEST_F(VerbsLaneTest, WakesTheReceiverUpForBurstsAndTheSenderForEachCompletion) {
  Connect(/*queue_packets=*/16);
  sender_->ArmWakeup();
  receiver_->ArmWakeup();
  EXPECT_FALSE(sender_qp().armed_for_solicited);
  EXPECT_TRUE(receiver_qp().armed && receiver_qp().armed_for_solicited);
  EXPECT_EQ(Send(1), 1U);
  EXPECT_EQ(Send(4), 4U);
  EXPECT_EQ(Send(11), 11U);
  EXPECT_THAT(sender_qp().solicited, ElementsAre(1, 5, 8, 16));
  EXPECT_EQ(sender_qp().signalled, sender_qp().solicited);
}

TEST_F(VerbsLaneTest, CarriesMoreThanItsQueueWithoutMixingAnythingUp) {
  Connect(/*queue_packets=*/7);  // not a power of two
  size_t sent = 0;
  size_t received = 0;
  while (received < 1000) {
    PostReceives(*receiver_, receiver_->receives_wanted());
    while (sent < 1000 && sent < received + 7) {
      Buffer message = Message(sent % 300, static_cast<char>(sent));
      if (sender_->Send({&message, 1}) == 0) break;
      ++sent;
    }
    hca_.Deliver(sender_qp(), 1 + sent % 5);
    for (const Buffer& message : PollReceived(1 + sent % 3)) {
      ExpectMessage(message, received % 300, static_cast<char>(received));
      ++received;
    }
    PollSent(2);
  }
  EXPECT_EQ(sender_->status(), absl::OkStatus());
  EXPECT_EQ(receiver_->status(), absl::OkStatus());
}

using VerbsLaneDeathTest = VerbsLaneTest;

TEST_F(VerbsLaneDeathTest, RefusesToDieWhileTheNicHoldsABuffer) {
  EXPECT_DEATH(
      {
        receiver_ = MakeLane(LaneRole::kReceiver);
        EXPECT_EQ(PostReceives(*receiver_, 1), 1U);
        receiver_.reset();
      },
      "CHECK failed");
}

}  // namespace
}  // namespace godwit
