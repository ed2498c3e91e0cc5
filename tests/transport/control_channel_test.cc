// Goal: messages pass whole, however the bytes are cut; what is no message, a peer of another
// version and a silent one are told apart, and the first error is final.
#include "transport/control_channel.h"

#include <gmock/gmock.h>
#include <google/protobuf/arena.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>

#include "transport/control.pb.h"

namespace godwit {
namespace {

using std::chrono::milliseconds;
using testing::AllOf;
using testing::HasSubstr;

const std::string kPreface = std::string("GODWIT\0\1", 8);

std::string Framed(const std::string& body) {
  std::string bytes;
  for (int shift = 24; shift >= 0; shift -= 8) {
    bytes.push_back(static_cast<char>(body.size() >> shift));
  }
  return bytes + body;
}

control::ControlMessage Ping(uint64_t question, uint64_t answer) {
  control::ControlMessage message;
  message.mutable_ping()->set_question(question);
  message.mutable_ping()->set_answer(answer);
  return message;
}

control::ControlMessage AbortWith(const std::string& reason) {
  control::ControlMessage message;
  message.mutable_abort()->set_reason(reason);
  return message;
}

class ControlChannelTest : public testing::Test {
 protected:
  void SetUp() override { Open(/*expect_preface=*/false); }

  void Open(bool expect_preface) {
    int fds[2] = {-1, -1};
    ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
    channel_ =
        std::make_unique<ControlChannel>(UniqueFd(fds[0]), "10.0.0.2:7471", expect_preface, clock_);
    peer_.Reset(fds[1]);
  }
  void Arrive(absl::string_view bytes) {
    ASSERT_EQ(::send(peer_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL),
              static_cast<ssize_t>(bytes.size()));
  }
  void Arrive(const control::ControlMessage& message) {
    Arrive(Framed(message.SerializeAsString()));
  }
  // All that the channel has sent so far.
  std::string Sent() {
    std::string all;
    char bytes[4096];
    for (ssize_t got = 1; got > 0;) {
      got = ::recv(peer_.get(), bytes, sizeof(bytes), MSG_DONTWAIT);
      if (got > 0) all.append(bytes, static_cast<size_t>(got));
    }
    return all;
  }
  // The reason of the Abort that is there, "" for nothing yet, or the error.
  std::string Receive() {
    const auto message = channel_->Receive();
    if (!message.ok()) return std::string(message.status().message());
    return message->has_value() ? (*message)->abort().reason() : "";
  }
  absl::Status Failure() { return channel_->Receive().status(); }

  ManualClock clock_;
  std::unique_ptr<ControlChannel> channel_;
  UniqueFd peer_;
};

// As protobuf would, on its own.
TEST_F(ControlChannelTest, TextThatIsNotUtf8IsRefusedAndNothingIsLogged) {
  Arrive(Framed("\x52\x03\x0a\x01\xff"));  // Abort, with a reason of the byte 0xff
  testing::internal::CaptureStderr();
  const std::string complaint = Receive();
  EXPECT_EQ(testing::internal::GetCapturedStderr(), "");
  EXPECT_THAT(complaint, HasSubstr("a control message of 5 bytes that does not parse"));
}

TEST_F(ControlChannelTest, ThePrefaceGoesFirst) {
  ASSERT_TRUE(channel_->Send(AbortWith("x")).ok());
  EXPECT_EQ(Sent(), kPreface + Framed(AbortWith("x").SerializeAsString()));
}

TEST_F(ControlChannelTest, ThePrefaceDoesNotWaitForAMessage) {
  ASSERT_TRUE(channel_->Tick().ok());
  EXPECT_EQ(Sent(), kPreface);
}

TEST_F(ControlChannelTest, MessagesPassHoweverTheBytesAreCut) {
  const std::string bytes = kPreface + Framed(AbortWith("one").SerializeAsString()) +
                            Framed(AbortWith("two").SerializeAsString());
  for (size_t cut = 0; cut <= bytes.size(); ++cut) {
    Open(/*expect_preface=*/true);
    std::string got;
    Arrive(bytes.substr(0, cut));
    for (int i = 0; i < 3; ++i) got += Receive();
    if (cut < bytes.size()) Arrive(bytes.substr(cut));
    for (int i = 0; i < 3; ++i) got += Receive();
    EXPECT_EQ(got, "onetwo") << "cut at " << cut;
  }
}

TEST_F(ControlChannelTest, TheLargestMessagePasses) {
  const std::string reason(65'536 - 8, 'r');  // 2 x (tag and 3 bytes of length) around it
  control::ControlMessage message = AbortWith(reason);
  ASSERT_EQ(message.ByteSizeLong(), 65'536U);
  const std::string bytes = Framed(message.SerializeAsString());
  std::string got;
  for (size_t at = 0; at < bytes.size(); at += 10'000) {
    EXPECT_EQ(Receive(), "");
    Arrive(bytes.substr(at, 10'000));
  }
  EXPECT_EQ(Receive(), reason);
}

// As protobuf's arrays grow by doubling they take more than their numbers.
TEST(ControlParseTest, TheLargestReceiptsHaveRoomWithoutAnAllocation) {
  control::ControlMessage sent;
  for (int i = 0; i < 64; ++i) {
    sent.mutable_receipts()->add_lane_packets(UINT64_MAX);
    sent.mutable_receipts()->add_device_packets(UINT32_MAX);
    sent.mutable_receipts()->add_device_bytes(UINT64_MAX);
  }
  alignas(std::max_align_t) std::array<char, kControlParseBytes> memory;
  google::protobuf::ArenaOptions options;
  options.initial_block = memory.data();
  options.initial_block_size = memory.size();
  google::protobuf::Arena arena(options);
  auto* const parsed = google::protobuf::Arena::CreateMessage<control::ControlMessage>(&arena);
  ASSERT_TRUE(parsed->ParseFromString(sent.SerializeAsString()));
  EXPECT_EQ(parsed->receipts().device_bytes_size(), 64);
  EXPECT_EQ(arena.SpaceAllocated(), kControlParseBytes);
}

// Parsed into memory that the message after it takes as well: so nothing of one may be left in the
// other, however large they are.
TEST_F(ControlChannelTest, AMessageStaysUntilTheNextIsAskedFor) {
  control::ControlMessage receipts;
  for (uint64_t lane = 0; lane < 3; ++lane) {
    receipts.mutable_receipts()->add_lane_packets(lane << 40);
  }
  const std::string reason(20'000, 'r');
  Arrive(receipts);
  Arrive(AbortWith(reason));
  Arrive(receipts);
  for (const bool large : {false, true, false}) {
    const absl::StatusOr<const control::ControlMessage*> next = channel_->Next();
    ASSERT_TRUE(next.ok()) << next.status();
    ASSERT_NE(*next, nullptr);
    EXPECT_TRUE(channel_->Tick().ok());  // asks for no message
    if (large) {
      EXPECT_EQ((*next)->abort().reason(), reason);
    } else {
      EXPECT_EQ((*next)->SerializeAsString(), receipts.SerializeAsString());
    }
  }
  const absl::StatusOr<const control::ControlMessage*> none = channel_->Next();
  ASSERT_TRUE(none.ok()) << none.status();
  EXPECT_EQ(*none, nullptr);
}

TEST_F(ControlChannelTest, PingIsHeardButNotHandedOn) {
  control::ControlMessage ping;
  ping.mutable_ping();
  Arrive(ping);
  Arrive(ping);
  Arrive(AbortWith("after"));
  EXPECT_EQ(Receive(), "after");
}

TEST_F(ControlChannelTest, AQuestionIsAnsweredAsSoonAsItIsRead) {
  ASSERT_TRUE(channel_->Flush().ok());
  (void)Sent();
  Arrive(Ping(7, 0));
  Arrive(Ping(~uint64_t{0}, 0));
  Arrive(AbortWith("after"));
  EXPECT_EQ(Receive(), "after");
  EXPECT_EQ(Sent(), Framed(Ping(0, 7).SerializeAsString()) +
                        Framed(Ping(0, ~uint64_t{0}).SerializeAsString()));
}

TEST_F(ControlChannelTest, TheRoundTripIsTheMedianOfTheLastProbes) {
  ASSERT_TRUE(channel_->Flush().ok());
  (void)Sent();
  uint64_t question = 0;
  const std::vector<int> medians = {7, 7, 7, 9, 8, 8, 8};  // of an even number the upper one
  for (const int took_ms : {7, 3, 9, 40, 8, 4, 1}) {
    ASSERT_TRUE(channel_->Probe().ok());
    EXPECT_EQ(Sent(), Framed(Ping(++question, 0).SerializeAsString()));
    clock_.Advance(milliseconds(took_ms));
    Arrive(Ping(0, question));
    EXPECT_EQ(Receive(), "");
    EXPECT_EQ(channel_->round_trip(), milliseconds(medians[question - 1])) << question;
    clock_.Advance(kProbeInterval);
  }
}

TEST_F(ControlChannelTest, OneProbeIsOutAtATimeAndOnlyItsOwnAnswerCounts) {
  ASSERT_TRUE(channel_->Probe().ok());
  (void)Sent();
  clock_.Advance(milliseconds(1000));
  ASSERT_TRUE(channel_->Probe().ok());
  EXPECT_EQ(Sent(), "");
  Arrive(Ping(0, 2));
  Arrive(Ping(0, 0));
  EXPECT_EQ(Receive(), "");
  EXPECT_EQ(channel_->round_trip(), milliseconds(0));
  Arrive(Ping(0, 1));
  EXPECT_EQ(Receive(), "");
  EXPECT_EQ(channel_->round_trip(), milliseconds(1000));
  // Twice the same answer is one.
  clock_.Advance(-milliseconds(1000));
  Arrive(Ping(0, 1));
  EXPECT_EQ(Receive(), "");
  EXPECT_EQ(channel_->round_trip(), milliseconds(1000));
}

TEST_F(ControlChannelTest, AProbeGoesOnceAnIntervalAndAFewAreEnough) {
  EXPECT_FALSE(channel_->probe_due());
  for (uint64_t probe = 1; probe <= kProbesNeeded; ++probe) {
    EXPECT_FALSE(channel_->probed());
    ASSERT_TRUE(channel_->Probe().ok());
    EXPECT_THAT(Sent(), testing::EndsWith(Framed(Ping(probe, 0).SerializeAsString())));
    EXPECT_FALSE(channel_->probed());
    EXPECT_FALSE(channel_->probe_due());  // its answer will be heard
    Arrive(Ping(0, probe));
    EXPECT_EQ(Receive(), "");
    EXPECT_EQ(channel_->probe_due(), probe < kProbesNeeded);
    clock_.Advance(kProbeInterval - std::chrono::nanoseconds(1));
    ASSERT_TRUE(channel_->Probe().ok());
    EXPECT_EQ(Sent(), "");
    clock_.Advance(std::chrono::nanoseconds(1));
  }
  EXPECT_TRUE(channel_->probed());
}

TEST_F(ControlChannelTest, LengthsOutOfBoundsAreRefused) {
  for (const uint32_t bytes : {0U, 65'537U, 0x80000000U, 0xffffffffU}) {
    Open(/*expect_preface=*/false);
    std::string length;
    for (int shift = 24; shift >= 0; shift -= 8)
      length.push_back(static_cast<char>(bytes >> shift));
    Arrive(length);
    EXPECT_TRUE(absl::IsInvalidArgument(Failure())) << Failure();
    EXPECT_THAT(Receive(), AllOf(HasSubstr("10.0.0.2:7471"), HasSubstr(absl::StrCat(bytes))));
  }
}

TEST_F(ControlChannelTest, WhatDoesNotParseIsRefused) {
  // No protobuf, a string longer than the message, and a message of a kind that nobody knows.
  for (const std::string& body :
       {std::string("\xff\xff\xff\xff"), std::string("\x0a\x7f"), std::string("\xf8\x07\x01", 3)}) {
    Open(/*expect_preface=*/false);
    Arrive(Framed(body));
    EXPECT_TRUE(absl::IsInvalidArgument(Failure())) << Failure();
  }
}

TEST_F(ControlChannelTest, AnotherVersionIsNamedWithOurs) {
  Open(/*expect_preface=*/true);
  Arrive(std::string("GODWIT\1\2", 8));
  EXPECT_TRUE(absl::IsFailedPrecondition(Failure())) << Failure();
  EXPECT_THAT(Receive(), AllOf(HasSubstr("version 2"), HasSubstr("speaks 1")));
}

TEST_F(ControlChannelTest, AStrangerAndALanesPrefaceAreNoAnswer) {
  for (const char* const bytes : {"SSH-2.0-", "HTTP/1.1", "GODWITLN"}) {
    Open(/*expect_preface=*/true);
    Arrive(bytes);
    EXPECT_TRUE(absl::IsInvalidArgument(Failure())) << Failure();
  }
}

TEST_F(ControlChannelTest, WhatCameBeforeThePeerLeftStillCounts) {
  Arrive(AbortWith("why"));
  peer_.Reset();
  EXPECT_EQ(Receive(), "why");
  EXPECT_TRUE(absl::IsUnavailable(Failure())) << Failure();
}

TEST_F(ControlChannelTest, ALostPeersReasonIsFoundThoughSendingFailed) {
  Arrive(AbortWith("why"));
  peer_.Reset();
  EXPECT_TRUE(channel_->Send(AbortWith("x")).ok());
  EXPECT_EQ(Receive(), "why");
}

TEST_F(ControlChannelTest, LeavingInMidMessageIsSaidSo) {
  Arrive(Framed(AbortWith("cut").SerializeAsString()).substr(0, 5));
  peer_.Reset();
  EXPECT_TRUE(absl::IsUnavailable(Failure())) << Failure();
  EXPECT_THAT(Receive(), HasSubstr("middle"));
}

TEST_F(ControlChannelTest, TheFirstErrorIsFinal) {
  Arrive(std::string(4, '\0'));
  const absl::Status first = Failure();
  EXPECT_FALSE(first.ok());
  Arrive(AbortWith("too late"));
  EXPECT_EQ(Failure(), first);
  EXPECT_EQ(channel_->Send(AbortWith("x")), first);
  EXPECT_EQ(channel_->Flush(), first);
  EXPECT_EQ(channel_->Tick(), first);
}

TEST_F(ControlChannelTest, PingsOnceASecondWhenItHasNothingToSay) {
  ASSERT_TRUE(channel_->Tick().ok());
  (void)Sent();
  clock_.Advance(milliseconds(1000));
  ASSERT_TRUE(channel_->Tick().ok());
  EXPECT_EQ(Sent(), "");
  clock_.Advance(milliseconds(1));
  ASSERT_TRUE(channel_->Tick().ok());
  control::ControlMessage ping;
  ping.mutable_ping();
  EXPECT_EQ(Sent(), Framed(ping.SerializeAsString()));
  ASSERT_TRUE(channel_->Tick().ok());
  EXPECT_EQ(Sent(), "");
}

TEST_F(ControlChannelTest, GivesUpOnAPeerThatIsSilentForEightSeconds) {
  clock_.Advance(milliseconds(8000));
  EXPECT_TRUE(channel_->Tick().ok());
  clock_.Advance(milliseconds(1));
  const absl::Status status = channel_->Tick();
  EXPECT_TRUE(absl::IsUnavailable(status)) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("8 s"));
}

TEST_F(ControlChannelTest, WhatCameWhileWeWereBusyCountsAsHeard) {
  Arrive(AbortWith("here"));
  clock_.Advance(std::chrono::seconds(60));
  EXPECT_TRUE(channel_->Tick().ok());
  EXPECT_EQ(Receive(), "here");
}

TEST_F(ControlChannelTest, APeerThatReadsNothingIsGivenUpBeforeMemoryGrows) {
  const control::ControlMessage large = AbortWith(std::string(60'000, 'r'));
  absl::Status status;
  for (int sent = 0; status.ok() && sent < 1'000; ++sent) status = channel_->Send(large);
  EXPECT_TRUE(absl::IsUnavailable(status)) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("stopped reading"));
}

TEST_F(ControlChannelTest, APeerThatFloodsIsReadAMessageAtATime) {
  const std::string bytes = Framed(AbortWith(std::string(60'000, 'r')).SerializeAsString());
  size_t got = 0;
  for (int round = 0; round < 100; ++round) {
    Arrive(bytes);
    got += Receive().size();
  }
  EXPECT_EQ(got, 100U * 60'000U);
}

}  // namespace
}  // namespace godwit
