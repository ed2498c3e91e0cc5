// Goal: a ping finds out what a session would be refused for, moves no device, and holds up neither
// the target nor the source that it waits for; whatever the other end of one says.
#include <absl/strings/match.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <fstream>
#include <functional>
#include <future>
#include <string>
#include <thread>

#include "godwit/ping.h"
#include "tests/engine/raw_peer.h"
#include "tests/engine/raw_target.h"
#include "tests/engine/session_world.h"

namespace godwit {
namespace {

using testing::HasSubstr;
using testing::SizeIs;

PingOptions PingOf(uint16_t port) {
  PingOptions options;
  options.to = absl::StrCat("127.0.0.1:", port);
  options.transport = TransportKind::kTcp;
  options.lanes = 2;
  options.packet_bytes = 4096;
  options.time = std::chrono::milliseconds(20);
  return options;
}

class PingTest : public testing::Test {
 protected:
  explicit PingTest(TargetOptions options = RunningTarget::DefaultOptions())
      : target_(target_devices_.pointers(), std::move(options)) {}

  // The real source comes, and all is as if nobody had pinged.
  void ExpectTheSessionGoesOn(const TrustOptions& trust = {}) {
    SourceOptions options = SourceOptionsFor(target_.Port());
    options.trust = trust;
    RecordingObserver observer;
    SourceSession source(options, source_devices_.pointers(), observer);
    const SessionReport report = source.Run();
    EXPECT_TRUE(report.status.ok()) << report.status;
    EXPECT_EQ(target_.Report().outcome, SessionOutcome::kDone) << target_.Report().status;
    EXPECT_TRUE(target_.Report().devices.at(0).content_verified);
  }

  // One that goes on until it is ended: when others are told so it has begun.
  std::future<absl::StatusOr<PingReport>> BeginLongPing() {
    PingOptions options = PingOf(target_.Port());
    options.time = kPingTimeMax;
    for (int tried = 1;; ++tried) {
      auto ping = std::async(std::launch::async, [options] { return Ping(options); });
      // It may be the one that is told so, if the other came first: so it gets a start, which
      // grows.
      ping.wait_for(std::chrono::milliseconds(20) * tried);
      while (ping.wait_for(std::chrono::seconds(0)) != std::future_status::ready) {
        const absl::Status other = Ping(PingOf(target_.Port())).status();
        if (absl::IsAborted(other) &&
            ping.wait_for(std::chrono::milliseconds(20)) != std::future_status::ready) {
          EXPECT_THAT(std::string(other.message()), HasSubstr("another ping is being answered"));
          return ping;
        }
      }
    }
  }

  const Watchdog watchdog_{"a ping"};
  const Devices source_devices_{{"soft:size=64KiB,seed=7"}, DeviceRole::kSource};
  const Devices target_devices_{{"soft:size=64KiB,seed=7"}, DeviceRole::kTarget};
  RunningTarget target_;
};

TEST_F(PingTest, SaysWhatASessionWouldFindAndLeavesTheTargetWaiting) {
  for (int i = 0; i < 3; ++i) {
    const auto report = Ping(PingOf(target_.Port()));
    ASSERT_TRUE(report.ok()) << report.status();
    EXPECT_THAT(report->peer_software, HasSubstr("godwit "));
    EXPECT_EQ(report->transport, TransportKind::kTcp);
    EXPECT_EQ(report->why_not_rdma, "RDMA was not asked for");
    EXPECT_EQ(report->trust, TrustKind::kPlain);
    EXPECT_EQ(report->sealing, Sealing::kOff);
    ASSERT_THAT(report->devices, SizeIs(1));
    EXPECT_EQ(report->devices[0].kind, "soft");
    EXPECT_THAT(report->lanes, SizeIs(2));
    EXPECT_GT(report->round_trip.count(), 0);
    EXPECT_GT(report->bytes, 0U);
    EXPECT_EQ(report->bytes % 4096, 0U);
    EXPECT_GE(report->time, std::chrono::milliseconds(20));
    target_devices_.ExpectAllIn(DeviceState::kRunning);
  }
  ExpectTheSessionGoesOn();
}

TEST_F(PingTest, ASourceThatComesMeanwhileGoesFirst) {
  auto ping = BeginLongPing();
  ExpectTheSessionGoesOn();
  EXPECT_FALSE(ping.get().ok());
}

TEST_F(PingTest, WhoComesToATargetInASessionIsToldWhatThatMayMean) {
  RawSource source(target_.Port());
  source.kinds = {"soft"};
  ASSERT_TRUE(source.OpenLanes());
  EXPECT_THAT(std::string(Ping(PingOf(target_.Port())).status().message()),
              HasSubstr("a target in a session takes no other"));
  RecordingObserver observer;
  SourceSession second(SourceOptionsFor(target_.Port()), source_devices_.pointers(), observer);
  const SessionReport report = second.Run();
  EXPECT_EQ(report.outcome, SessionOutcome::kRolledBack);
  EXPECT_THAT(std::string(report.status.message()),
              HasSubstr("a target in a session takes no other"));
  source_devices_.ExpectAllIn(DeviceState::kRunning);
}

TEST_F(PingTest, ACancelledTargetDoesNotWaitForIt) {
  auto ping = BeginLongPing();
  target_.session().Cancel();
  EXPECT_EQ(target_.Report().outcome, SessionOutcome::kRolledBack);
  EXPECT_FALSE(ping.get().ok());
}

// What it asks for, what comes of it.
TEST_F(PingTest, WhatIsWrongIsSaidBeforeAnythingIsConnected) {
  const auto wrong = [&](const std::function<void(PingOptions&)>& change) {
    PingOptions options = PingOf(target_.Port());
    change(options);
    return std::string(Ping(options).status().message());
  };
  EXPECT_THAT(wrong([](PingOptions& o) { o.lanes = 0; }), HasSubstr("0 lanes"));
  EXPECT_THAT(wrong([](PingOptions& o) { o.lanes = 65; }), HasSubstr("65 lanes"));
  EXPECT_THAT(wrong([](PingOptions& o) { o.packet_bytes = 0; }), HasSubstr("packets of 0 bytes"));
  EXPECT_THAT(wrong([](PingOptions& o) { o.time = std::chrono::seconds(11); }),
              HasSubstr("11000 ms"));
  EXPECT_THAT(wrong([](PingOptions& o) { o.to = "nowhere"; }), HasSubstr("nowhere"));
  EXPECT_THAT(wrong([](PingOptions& o) { o.trust.psk_file = "/none"; }), HasSubstr("/none"));
  ExpectTheSessionGoesOn();
}

TEST_F(PingTest, TakesNoMoreOfTheTargetsMemoryThanItsSessionWould) {
  PingOptions options = PingOf(target_.Port());
  options.lanes = 64;
  options.packet_bytes = uint64_t{4} << 20;
  const absl::Status status = Ping(options).status();
  EXPECT_TRUE(absl::IsAborted(status)) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("MiB at the target: ask with fewer lanes"));
  ExpectTheSessionGoesOn();
}

TargetOptions OneLaneOnly() {
  TargetOptions options = RunningTarget::DefaultOptions();
  options.lanes_max = 1;
  options.packet_bytes_max = 4096;
  return options;
}
class ModestTargetTest : public PingTest {
 protected:
  ModestTargetTest() : PingTest(OneLaneOnly()) {}
};

TEST_F(ModestTargetTest, IsSaidToBeOne) {
  const auto too_many = Ping(PingOf(target_.Port()));
  EXPECT_TRUE(absl::IsAborted(too_many.status())) << too_many.status();
  EXPECT_THAT(std::string(too_many.status().message()), HasSubstr("the target takes at most 1"));
  PingOptions options = PingOf(target_.Port());
  options.lanes = 1;
  // The one before may still be about to end.
  absl::Status status = Ping(options).status();
  while (absl::StrContains(status.message(), "another ping is being answered")) {
    status = Ping(options).status();
  }
  EXPECT_TRUE(status.ok()) << status;
  target_.session().Cancel();
}

// Raw ones, that stop at any step or say anything: the target waits on, and its source gets
// through.
TEST_F(PingTest, WhoPingsAndLiesHoldsNobodyUp) {
  // Up to Welcome; the one before may still be about to end.
  const auto ping_to = [&] {
    while (true) {
      auto source = std::make_unique<RawSource>(target_.Port());
      control::ControlMessage hello = source->Hello();
      hello.mutable_hello()->set_ping(true);
      source->channel.SayPreface();
      source->channel.Send(hello);
      source->channel.HearPreface();
      const auto answer = source->channel.Receive();
      if (answer.has_value() && answer->has_welcome()) return source;
    }
  };
  {
    auto source = ping_to();  // that leaves at once
  }
  {
    auto source = ping_to();
    source->channel.Send(source->Table());  // out of turn
    while (const auto message = source->channel.Receive()) {
      if (message->has_abort()) break;
    }
  }
  {
    auto source = ping_to();
    source->channel.Send(RawSource::Setup());
    source->lanes.push_back(ConnectTo(source->port));
    Say(source->lanes[0].get(), source->LanePreface(0));
    EXPECT_TRUE(source->channel.Receive()->has_device_table());
    EXPECT_TRUE(source->channel.Receive()->has_lane_setup());
    Say(source->lanes[0].get(), std::string(4, '\xff'));  // a length that no packet has
    EXPECT_THAT(source->channel.HearAbort(), HasSubstr("lane 0"));
  }
  const auto stays = ping_to();  // and opens no lane
  ExpectTheSessionGoesOn();
}

// A target that says anything.
class LyingTargetTest : public testing::Test {
 protected:
  absl::Status PingIt(const std::function<void(RawTarget&)>& act) {
    RawTarget target;
    std::thread thread([&] { act(target); });
    PingOptions options = PingOf(target.port);
    options.lanes = 1;
    const absl::Status status = Ping(options).status();
    thread.join();
    return status;
  }
  static void ToLanes(RawTarget& t) {
    t.Greet();
    t.channel.Send(t.table);
    t.AcceptLane();
  }

  const Watchdog watchdog_{"a ping of a bad target"};
};

TEST_F(LyingTargetTest, IsNotBelieved) {
  EXPECT_THAT(std::string(PingIt([](RawTarget& t) {
                            t.welcome.mutable_welcome()->set_queue_packets(1'000'000);
                            t.Greet();
                          }).message()),
              HasSubstr("queue of 1000000"));
  EXPECT_THAT(std::string(PingIt([](RawTarget& t) {
                            t.welcome.mutable_welcome()->set_transport(control::TRANSPORT_VERBS);
                            t.Greet();
                          }).message()),
              HasSubstr("was not offered"));
  EXPECT_THAT(std::string(PingIt([](RawTarget& t) {
                            t.Greet();
                            t.channel.Send(t.welcome);
                          }).message()),
              HasSubstr("out of turn"));
  EXPECT_THAT(std::string(PingIt([](RawTarget& t) {
                            ToLanes(t);
                            t.SendReceipts({uint64_t{1} << 60}, {});
                            (void)t.channel.Receive();
                          }).message()),
              HasSubstr("receipts"));
  EXPECT_THAT(std::string(PingIt([](RawTarget& t) {
                            ToLanes(t);
                            t.SendReceipts({0, 0}, {});
                            (void)t.channel.Receive();
                          }).message()),
              HasSubstr("out of turn"));
  EXPECT_THAT(std::string(PingIt([](RawTarget& t) {
                            ToLanes(t);
                            t.channel.Hang();
                          }).message()),
              HasSubstr("closed the control channel"));
}

TEST(PingTrustTest, InsideTlsBothProveWhoTheyAre) {
  const Watchdog watchdog("a ping inside TLS");
  const std::string path = absl::StrCat(testing::TempDir(), "/godwit-ping-psk-", ::getpid());
  std::ofstream(path) << "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f\n";
  ASSERT_EQ(::chmod(path.c_str(), 0600), 0);
  const Devices devices({"soft:size=1MiB,seed=7"}, DeviceRole::kTarget);
  TargetOptions target_options = RunningTarget::DefaultOptions();
  target_options.trust.psk_file = path;
  target_options.trust.seal = SealMode::kOn;
  RunningTarget target(devices.pointers(), target_options);
  PingOptions options = PingOf(target.Port());
  EXPECT_THAT(std::string(Ping(options).status().message()), HasSubstr("--psk-file"));
  options.trust.psk_file = path;
  const auto report = Ping(options);
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_EQ(report->trust, TrustKind::kPsk);
  EXPECT_EQ(report->sealing, Sealing::kAllLanes);
  EXPECT_GT(report->bytes, 0U);
  const std::string other = path + "-other";
  std::ofstream(other) << "ff0102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f\n";
  ASSERT_EQ(::chmod(other.c_str(), 0600), 0);
  options.trust.psk_file = other;
  EXPECT_FALSE(Ping(options).ok());
  target.session().Cancel();
  EXPECT_EQ(target.Report().outcome, SessionOutcome::kRolledBack);
  ::unlink(path.c_str());
  ::unlink(other.c_str());
}

}  // namespace
}  // namespace godwit
