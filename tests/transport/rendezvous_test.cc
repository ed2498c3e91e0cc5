// Goal: at the front door control channels, lanes and strangers are told apart, however slowly they
// speak; nobody who says nothing keeps another out.
#include "transport/rendezvous.h"

#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <chrono>
#include <string>
#include <thread>
#include <vector>

namespace godwit {
namespace {

using testing::AllOf;
using testing::HasSubstr;

const std::string kControlPreface = std::string("GODWIT\0\1", 8);
const std::string kLanePreface = "GODWITLN0123456789abcdef" + std::string("\1\2\3\4", 4);

class RendezvousTest : public testing::Test {
 protected:
  void SetUp() override {
    auto made = Rendezvous::Listen(
        {"127.0.0.1", 0}, [this](const std::string& line) { notes_ += line + "\n"; },
        TrustKind::kPlain, clock_);
    ASSERT_TRUE(made.ok()) << made.status();
    rendezvous_ = *std::move(made);
  }

  UniqueFd Connect() {
    auto socket = ConnectTcp({"127.0.0.1", rendezvous_->port()}, std::chrono::seconds(60));
    EXPECT_TRUE(socket.ok()) << socket.status();
    return socket.ok() ? *std::move(socket) : UniqueFd();
  }
  static void Say(const UniqueFd& socket, absl::string_view bytes) {
    ASSERT_EQ(::send(socket.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL),
              static_cast<ssize_t>(bytes.size()));
  }
  UniqueFd ConnectAndSay(absl::string_view bytes) {
    UniqueFd socket = Connect();
    Say(socket, bytes);
    return socket;
  }

  // The next arrival. The cap is no time limit that a test means; it ends a hang.
  std::optional<Rendezvous::Arrival> Next() {
    for (int round = 0; round < 10'000; ++round) {
      auto arrival = rendezvous_->Next();
      if (!arrival.ok()) {
        error_ = arrival.status();
        return std::nullopt;
      }
      if (arrival->has_value()) return *std::move(arrival);
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    ADD_FAILURE() << "nobody arrived";
    return std::nullopt;
  }
  // Lets come what has been sent; nobody of it arrives.
  void ExpectNobody() {
    for (int round = 0; round < 20; ++round) {
      const auto arrival = rendezvous_->Next();
      ASSERT_TRUE(arrival.ok()) << arrival.status();
      ASSERT_FALSE(arrival->has_value());
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
  }
  static bool HungUp(const UniqueFd& socket) {
    char byte = 0;
    const ssize_t got = ::recv(socket.get(), &byte, 1, MSG_DONTWAIT);
    return got == 0 || (got < 0 && errno == ECONNRESET);
  }

  ManualClock clock_;
  std::string notes_;
  absl::Status error_;
  std::unique_ptr<Rendezvous> rendezvous_;
};

TEST_F(RendezvousTest, AControlChannelArrives) {
  const UniqueFd peer = ConnectAndSay(kControlPreface + "and more");
  const auto arrival = Next();
  ASSERT_TRUE(arrival.has_value());
  EXPECT_EQ(arrival->kind, PrefaceKind::kControl);
  char rest[9] = {};
  EXPECT_EQ(::recv(arrival->socket.get(), rest, 8, MSG_WAITALL), 8);
  EXPECT_STREQ(rest, "and more");  // not a byte more than the preface was taken
}

TEST_F(RendezvousTest, ALaneArrivesWithItsSessionGenerationAndNumber) {
  const UniqueFd peer = ConnectAndSay(kLanePreface + "frame");
  const auto arrival = Next();
  ASSERT_TRUE(arrival.has_value());
  EXPECT_EQ(arrival->kind, PrefaceKind::kLane);
  EXPECT_EQ(arrival->lane.session_id, "0123456789abcdef");
  EXPECT_EQ(arrival->lane.generation, 0x0102U);
  EXPECT_EQ(arrival->lane.lane, 0x0304U);
  char rest[6] = {};
  EXPECT_EQ(::recv(arrival->socket.get(), rest, 5, MSG_WAITALL), 5);
  EXPECT_STREQ(rest, "frame");
}

TEST_F(RendezvousTest, PrefacesArriveByteByByte) {
  for (const std::string& preface : {kControlPreface, kLanePreface}) {
    const UniqueFd peer = Connect();
    for (size_t i = 0; i + 1 < preface.size(); ++i) {
      Say(peer, preface.substr(i, 1));
      const auto arrival = rendezvous_->Next();
      ASSERT_TRUE(arrival.ok()) << arrival.status();
      ASSERT_FALSE(arrival->has_value()) << "after byte " << i;
    }
    Say(peer, preface.substr(preface.size() - 1));
    EXPECT_TRUE(Next().has_value());
  }
  EXPECT_EQ(notes_, "");
}

TEST_F(RendezvousTest, StrangersAreTurnedAwayWithANote) {
  for (const std::string& bytes :
       {std::string("GET / HTTP/1.1\r\n\r\n"), std::string("\x16\x03\x01\2\0\1\0\1\xfc", 9),
        std::string("GODWIX\0\1", 8), std::string("godwit\0\1", 8), std::string(100, '\0')}) {
    notes_.clear();
    const UniqueFd peer = ConnectAndSay(bytes);
    ExpectNobody();
    EXPECT_THAT(notes_, AllOf(HasSubstr("turned away 127.0.0.1:"), HasSubstr("not Godwit")));
    EXPECT_TRUE(HungUp(peer));
  }
}

TEST_F(RendezvousTest, OneThatLeavesInMidPrefaceIsNoted) {
  for (const std::string& preface : {kControlPreface, kLanePreface}) {
    for (size_t bytes = 0; bytes < preface.size(); ++bytes) {
      notes_.clear();
      (void)ConnectAndSay(preface.substr(0, bytes));
      ExpectNobody();
      EXPECT_THAT(notes_, HasSubstr("left")) << "after " << bytes << " bytes";
    }
  }
}

TEST_F(RendezvousTest, ASlowOneHasFiveSeconds) {
  const UniqueFd silent = Connect();
  const UniqueFd half = ConnectAndSay(kLanePreface.substr(0, 27));
  ExpectNobody();
  clock_.Advance(std::chrono::milliseconds(4999));
  ExpectNobody();
  EXPECT_EQ(notes_, "");
  clock_.Advance(std::chrono::milliseconds(1));
  ExpectNobody();
  EXPECT_THAT(notes_, HasSubstr("too little for too long"));
  EXPECT_TRUE(HungUp(silent));
  EXPECT_TRUE(HungUp(half));
}

TEST_F(RendezvousTest, TheSilentDoNotKeepOthersOut) {
  std::vector<UniqueFd> silent;
  for (int i = 0; i < 200; ++i) {
    silent.push_back(Connect());
    if (i % 50 == 0) ExpectNobody();
  }
  const UniqueFd peer = ConnectAndSay(kControlPreface);
  const auto arrival = Next();
  ASSERT_TRUE(arrival.has_value());
  EXPECT_EQ(arrival->kind, PrefaceKind::kControl);
  EXPECT_THAT(notes_, HasSubstr("dropped one from"));
  std::vector<pollfd> fds;
  rendezvous_->AddPollFds(fds);
  EXPECT_LE(fds.size(), 129U);  // the listener and 128: the bound holds
  EXPECT_TRUE(HungUp(silent.front()));
  EXPECT_FALSE(HungUp(silent.back()));
}

TEST_F(RendezvousTest, ALaneThatNamesTheSessionKeepsItsPlaceAmongTheSilent) {
  const TrafficKey key = {1, 2, 3};
  rendezvous_->PreferSession("0123456789abcdef");
  rendezvous_->RequireLaneProof(key);
  const UniqueFd lane = ConnectAndSay(kLanePreface);
  LaneChallenge challenge;
  ExpectNobody();
  ASSERT_EQ(::recv(lane.get(), challenge.data(), challenge.size(), MSG_WAITALL),
            static_cast<ssize_t>(challenge.size()));
  std::vector<UniqueFd> strangers;
  for (int i = 0; i < 300; ++i) {
    strangers.push_back(i % 2 == 0 ? Connect() : ConnectAndSay("GODWITLN01234567"));
    if (i < 150 && i % 50 == 0) ExpectNobody();
  }
  ExpectNobody();
  EXPECT_TRUE(HungUp(strangers.front()));
  const LaneHello hello = {"0123456789abcdef", 0x0304, 0x0102};
  const auto proof = ProveLane(key, challenge, hello);
  Say(lane, {proof.data(), proof.size()});
  const auto arrival = Next();
  ASSERT_TRUE(arrival.has_value());
  EXPECT_EQ(arrival->lane.lane, 0x0304);
}

TEST_F(RendezvousTest, ALaneOfAnotherSessionGetsNoPlace) {
  rendezvous_->PreferSession("fedcba9876543210");
  rendezvous_->RequireLaneProof(TrafficKey{1, 2, 3});
  const UniqueFd lane = ConnectAndSay(kLanePreface);
  ExpectNobody();
  EXPECT_TRUE(HungUp(lane));
  EXPECT_THAT(notes_, HasSubstr("a lane of another session"));
}

TEST_F(RendezvousTest, WhoHasSaidSomethingStaysBeforeWhoHasNot) {
  const UniqueFd slow = ConnectAndSay(kControlPreface.substr(0, 3));
  ExpectNobody();
  std::vector<UniqueFd> silent;
  for (int i = 0; i < 300; ++i) {
    silent.push_back(Connect());
    if (i % 50 == 0) ExpectNobody();
  }
  ExpectNobody();
  Say(slow, kControlPreface.substr(3));
  EXPECT_TRUE(Next().has_value());
}

TEST_F(RendezvousTest, AHostThatWantsAllPlacesPushesOutItself) {
  UniqueFd other(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK + 1);
  ASSERT_EQ(::bind(other.get(), reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  address.sin_port = htons(rendezvous_->port());
  ASSERT_EQ(::connect(other.get(), reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
  ExpectNobody();
  std::vector<UniqueFd> silent;
  for (int i = 0; i < 300; ++i) {
    silent.push_back(Connect());
    if (i % 50 == 0) ExpectNobody();
  }
  ExpectNobody();
  Say(other, kControlPreface);
  const auto arrival = Next();
  ASSERT_TRUE(arrival.has_value());
  EXPECT_THAT(arrival->peer, HasSubstr("127.0.0.2:"));
}

TEST_F(RendezvousTest, AnotherVersionIsAnErrorThatNamesBoth) {
  const UniqueFd peer = ConnectAndSay(std::string("GODWIT\1\2", 8));
  EXPECT_FALSE(Next().has_value());
  EXPECT_TRUE(absl::IsFailedPrecondition(error_)) << error_;
  EXPECT_THAT(std::string(error_.message()),
              AllOf(HasSubstr("version 2"), HasSubstr("speaks 1"), HasSubstr("peer 127.0.0.1:")));
  char answer[8] = {};
  EXPECT_EQ(::recv(peer.get(), answer, 8, MSG_WAITALL), 8);
  EXPECT_EQ(std::string(answer, 8), kControlPreface);  // so that the peer can say it too
  // It is for the caller to go on or not: the door stays open.
  error_ = absl::OkStatus();
  const UniqueFd next = ConnectAndSay(kControlPreface);
  EXPECT_TRUE(Next().has_value());
}

TEST_F(RendezvousTest, ManyArriveTogetherAndNoneIsLost) {
  std::vector<UniqueFd> peers;
  peers.reserve(65);
  for (int i = 0; i < 65; ++i) peers.push_back(ConnectAndSay(kLanePreface));
  for (int i = 0; i < 65; ++i) ASSERT_TRUE(Next().has_value());
  ExpectNobody();
  EXPECT_EQ(notes_, "");
}

}  // namespace
}  // namespace godwit
