// Goal: only who has the session's key gets a lane, and what it said once gets nobody another.
#include "transport/lane_proof.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/socket.h>

#include <future>
#include <memory>
#include <optional>
#include <string>

#include "base/notifier.h"
#include "transport/rendezvous.h"
#include "transport/tcp/tcp_socket.h"

namespace godwit {
namespace {

using testing::HasSubstr;
using testing::IsEmpty;

constexpr std::chrono::seconds kLong{20};
const std::string kSession = "0123456789abcdef";

TrafficKey Key(unsigned char byte) {
  TrafficKey key;
  key.fill(byte);
  return key;
}
Deadline Soon() { return std::chrono::steady_clock::now() + kLong; }

TEST(LaneProofTest, DependsOnEachOfItsParts) {
  LaneChallenge challenge{};
  const LaneHello lane{kSession, 1, 2};
  const LaneProof proof = ProveLane(Key(7), challenge, lane);
  EXPECT_TRUE(IsLaneProof(proof.data(), Key(7), challenge, lane));
  EXPECT_FALSE(IsLaneProof(proof.data(), Key(8), challenge, lane));
  EXPECT_FALSE(IsLaneProof(proof.data(), Key(7), challenge, {kSession, 2, 2}));
  EXPECT_FALSE(IsLaneProof(proof.data(), Key(7), challenge, {kSession, 1, 3}));
  EXPECT_FALSE(IsLaneProof(proof.data(), Key(7), challenge, {"0123456789abcdeg", 1, 2}));
  for (size_t bit = 0; bit < 8 * challenge.size(); ++bit) {
    LaneChallenge other = challenge;
    other[bit / 8] = static_cast<char>(other[bit / 8] ^ (1 << (bit % 8)));
    EXPECT_FALSE(IsLaneProof(proof.data(), Key(7), other, lane)) << "bit " << bit;
  }
  for (size_t bit = 0; bit < 8 * proof.size(); ++bit) {
    LaneProof other = proof;
    other[bit / 8] = static_cast<char>(other[bit / 8] ^ (1 << (bit % 8)));
    EXPECT_FALSE(IsLaneProof(other.data(), Key(7), challenge, lane)) << "bit " << bit;
  }
}

TEST(LaneProofTest, NoChallengeComesTwice) { EXPECT_NE(NewLaneChallenge(), NewLaneChallenge()); }

// A target's door that asks for proofs.
class LaneDoorTest : public testing::Test {
 protected:
  void SetUp() override {
    auto made = Rendezvous::Listen({"127.0.0.1", 0},
                                   [this](const std::string& line) { notes_ += line + "\n"; });
    ASSERT_TRUE(made.ok()) << made.status();
    door_ = *std::move(made);
    door_->RequireLaneProof(Key(7));
  }
  UniqueFd Connect() {
    auto socket = ConnectTcp({"127.0.0.1", door_->port()}, kLong);
    EXPECT_TRUE(socket.ok()) << socket.status();
    return *std::move(socket);
  }
  static std::string Hear(const UniqueFd& socket, size_t bytes) {
    std::string text(bytes, '\0');
    const ssize_t got = ::recv(socket.get(), text.data(), text.size(), MSG_WAITALL);
    text.resize(got > 0 ? static_cast<size_t>(got) : 0);
    return text;
  }
  static void Say(const UniqueFd& socket, absl::string_view bytes) {
    EXPECT_EQ(::send(socket.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL),
              static_cast<ssize_t>(bytes.size()));
  }
  // What the door does until somebody has come in, or has been turned away.
  std::optional<Rendezvous::Arrival> Answer() {
    const auto end = std::chrono::steady_clock::now() + kLong;
    while (notes_.empty() && std::chrono::steady_clock::now() < end) {
      auto arrival = door_->Next();
      EXPECT_TRUE(arrival.ok()) << arrival.status();
      if (arrival.ok() && arrival->has_value()) return *std::move(arrival);
      std::vector<pollfd> fds;
      door_->AddPollFds(fds);
      ::poll(fds.data(), fds.size(), 10);
    }
    return std::nullopt;
  }
  // The door until it has asked who has said `preface` on `socket`.
  void Ask(const UniqueFd& socket) {
    pollfd asked = {socket.get(), POLLIN, 0};
    for (int round = 0; round < 2000 && ::poll(&asked, 1, 10) == 0; ++round) {
      const auto arrival = door_->Next();
      ASSERT_TRUE(arrival.ok() && !arrival->has_value());
    }
  }

  std::string notes_;
  std::unique_ptr<Rendezvous> door_;
};

TEST_F(LaneDoorTest, WhoHasTheKeyComesIn) {
  const LaneGreeting greeting(kSession, Key(7));
  auto socket = std::async(std::launch::async, [&] {
    UniqueFd made = Connect();
    EXPECT_TRUE(greeting.Announce(made.get(), 3, 1, Soon()).ok());
    EXPECT_TRUE(greeting.Prove(made.get(), 3, 1, Soon()).ok());
    Say(made, "frame");
    return made;
  });
  const auto arrival = Answer();
  ASSERT_TRUE(arrival.has_value()) << notes_;
  EXPECT_EQ(arrival->lane.session_id, kSession);
  EXPECT_EQ(arrival->lane.lane, 3);
  EXPECT_EQ(arrival->lane.generation, 1);
  const UniqueFd made = socket.get();
  EXPECT_EQ(Hear(arrival->socket, 5), "frame");  // not a byte more than the proof was taken
  EXPECT_THAT(notes_, IsEmpty());
}

TEST_F(LaneDoorTest, WhoHasAnotherKeyIsTurnedAway) {
  const LaneGreeting greeting(kSession, Key(8));
  auto socket = std::async(std::launch::async, [&] {
    UniqueFd made = Connect();
    EXPECT_TRUE(greeting.Announce(made.get(), 3, 1, Soon()).ok());
    EXPECT_TRUE(greeting.Prove(made.get(), 3, 1, Soon()).ok());
    return made;
  });
  EXPECT_FALSE(Answer().has_value());
  EXPECT_THAT(notes_, HasSubstr("can't prove that it is of this session"));
  EXPECT_THAT(Hear(socket.get(), 1), IsEmpty());  // hung up
}

TEST_F(LaneDoorTest, WhatWasHeardOnceIsRefusedTheNextTime) {
  const auto preface = LanePreface(kSession, 0, 0);
  std::string recorded(preface.data(), preface.size());
  {
    const UniqueFd honest = Connect();
    Say(honest, recorded);
    Ask(honest);
    LaneChallenge challenge;
    const std::string asked = Hear(honest, challenge.size());
    ASSERT_EQ(asked.size(), challenge.size());
    std::copy(asked.begin(), asked.end(), challenge.begin());
    const LaneProof proof = ProveLane(Key(7), challenge, {kSession, 0, 0});
    Say(honest, {proof.data(), proof.size()});
    recorded.append(proof.data(), proof.size());
    ASSERT_TRUE(Answer().has_value()) << notes_;
  }
  const UniqueFd thief = Connect();
  Say(thief, recorded);
  EXPECT_FALSE(Answer().has_value());
  EXPECT_THAT(notes_, HasSubstr("can't prove that it is of this session"));
}

TEST_F(LaneDoorTest, ATargetThatNeverAsksIsNotWaitedForOnceTheSourceGivesUp) {
  auto stop = Notifier::Create();
  ASSERT_TRUE(stop.ok());
  const LaneGreeting greeting(kSession, Key(7));
  const UniqueFd socket = Connect();
  ASSERT_TRUE(greeting.Announce(socket.get(), 0, 1, Soon()).ok());
  auto proven = std::async(std::launch::async,
                           [&] { return greeting.Prove(socket.get(), 0, 1, Soon(), stop->fd()); });
  const auto began = std::chrono::steady_clock::now();
  stop->Notify();
  EXPECT_TRUE(absl::IsCancelled(proven.get()));
  EXPECT_LT(std::chrono::steady_clock::now() - began, kLong);
}

}  // namespace
}  // namespace godwit
