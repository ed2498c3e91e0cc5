// Goal: a peer that has proven who it is and then lies about any number in any message, at any
// side, gets no more than a session that ends: with an error, or with the right content. The device
// is where docs/handover.md says it is.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <fstream>
#include <functional>
#include <memory>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "engine/handover_proof.h"
#include "tests/engine/raw_peer.h"
#include "tests/engine/raw_target.h"
#include "tests/engine/right_stream.h"
#include "tests/engine/session_world.h"
#include "tests/tools/attack_table.h"
#include "tests/tools/lies.h"

namespace godwit {
namespace {

using control::ControlMessage;

// How long a liar listens for what it hopes to hear: then it goes on, or leaves.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr std::chrono::milliseconds kPatience{1'000};
constexpr size_t kEvery = 5;  // of the lies, one in so many
#else
constexpr std::chrono::milliseconds kPatience{250};
constexpr size_t kEvery = 1;
#endif
constexpr size_t kSideBySide = 16;
constexpr size_t kRssMibMax = 2'048;  // 16 sessions', and of a sanitizer's shadow, too

ControlMessage MessageOf(const std::string& bytes) {
  ControlMessage message;
  EXPECT_TRUE(message.ParseFromString(bytes));
  return message;
}

// What the liar says in place of the message of that kind.
struct Told {
  ControlMessage::MessageCase kind;
  Lie lie;
};

// Says the right messages but one.
class Liar {
 public:
  Liar(RawChannel& channel, const Told& told) : channel_(channel), told_(told) {}

  void Say(const ControlMessage& right) {
    channel_.Send(right.message_case() == told_.kind ? MessageOf(told_.lie.bytes) : right);
  }
  // The next message of that kind; nothing if it does not come in time.
  std::optional<ControlMessage> Hear(ControlMessage::MessageCase kind) {
    const auto deadline = std::chrono::steady_clock::now() + kPatience;
    while (auto message = channel_.ReceiveUntil(deadline)) {
      if (message->message_case() == kind) return message;
    }
    return std::nullopt;
  }

 private:
  RawChannel& channel_;
  const Told& told_;
};

ControlMessage::MessageCase KindOf(const ControlMessage& message) { return message.message_case(); }

class LiesTest : public testing::TestWithParam<Secured> {
 protected:
  void SetUp() override {
    if (GetParam() == Secured::kPlain) return;
    trust_.psk_file = absl::StrCat(testing::TempDir(), "/godwit-lies-psk-", ::getpid());
    std::ofstream(trust_.psk_file) << std::string(64, 'a') << "\n";
    ASSERT_EQ(::chmod(trust_.psk_file.c_str(), 0600), 0);
    client_ = TlsContext::Make(trust_, TlsRole::kClient).value();
    server_ = TlsContext::Make(trust_, TlsRole::kServer).value();
  }
  void TearDown() override {
    if (!trust_.psk_file.empty()) ::unlink(trust_.psk_file.c_str());
  }

  // Each lie about each of `right`, in a session of its own; how many.
  void TellAll(const std::vector<ControlMessage>& right, const std::string& attack,
               const std::function<bool(const Told&)>& moves_with) {
    std::vector<Told> all;
    std::set<std::string> fields;
    for (const ControlMessage& message : right) {
      for (Lie& lie : LiesAbout(message, fields)) {
        ASSERT_LE(lie.bytes.size(), kControlMessageBytesMax) << lie.what;
        all.push_back({KindOf(message), std::move(lie)});
      }
    }
    std::atomic<size_t> next{0};
    std::atomic<size_t> moved{0};
    std::vector<std::thread> threads;
    for (size_t i = 0; i < kSideBySide; ++i) {
      threads.emplace_back([&] {
        for (size_t at = next++; at * kEvery < all.size(); at = next++) {
          const Told& told = all[at * kEvery];
          SCOPED_TRACE(told.lie.what);
          const Watchdog watchdog(told.lie.what, 2 * kSessionCap);
          moved += moves_with(told) ? 1U : 0U;
        }
      });
    }
    for (std::thread& thread : threads) thread.join();
    std::ifstream status("/proc/self/status");
    size_t rss_mib = 0;
    for (std::string line; std::getline(status, line);) {
      if (line.rfind("VmHWM:", 0) == 0) rss_mib = std::strtoull(&line[6], nullptr, 10) / 1024;
    }
    EXPECT_LE(rss_mib, kRssMibMax);
    const size_t told = (all.size() + kEvery - 1) / kEvery;
    AttackTable::Of().Add(
        absl::StrCat(attack, ": ", told, " lies about ", fields.size(), " numbers"), GetParam(),
        absl::StrCat(HasFailure() ? "FAILED, " : "", moved.load(), " moved, ", told - moved.load(),
                     " ended with an error"));
  }

  bool TargetMovesWith(const Told& told) const;
  bool SourceMovesWith(const Told& told) const;

  TrustOptions trust_;
  std::unique_ptr<TlsContext> client_;
  std::unique_ptr<TlsContext> server_;
};

INSTANTIATE_TEST_SUITE_P(, LiesTest, testing::Values(Secured::kPlain, Secured::kTls),
                         [](const auto& secured) {
                           return secured.param == Secured::kPlain ? "Plain" : "InTls";
                         });

// The right ones of both sides, with a value in each field.
control::LaneSetup::Verbs SomeVerbs() {
  control::LaneSetup::Verbs verbs;
  verbs.set_queue_pair(17);
  verbs.set_gid("0123456789abcdef");
  return verbs;
}
ControlMessage Ping() {
  ControlMessage message;
  message.mutable_ping();
  return message;
}
ControlMessage Stopping() {
  ControlMessage message;
  message.mutable_stopping();
  return message;
}
ControlMessage RemakeLane() {
  ControlMessage message;
  message.mutable_remake_lane()->set_generation(1);
  *message.mutable_remake_lane()->mutable_verbs() = SomeVerbs();
  return message;
}
ControlMessage CommitOf(const std::string& session_id, const std::string& proof) {
  ControlMessage message;
  message.mutable_commit()->set_session_id(session_id);
  message.mutable_commit()->set_proof(proof);
  return message;
}
ControlMessage Forget() {
  ControlMessage message;
  message.mutable_forget();
  return message;
}

absl::Status ProveFirstLane(const RawSource& source) {
  const LaneGreeting greeting(source.session_id,
                              source.channel.Key(kLaneKeyLabel, source.session_id));
  return greeting.Prove(source.lanes[0].get(), /*lane=*/0, /*generation=*/0,
                        std::chrono::steady_clock::now() + kPatience);
}

bool LiesTest::TargetMovesWith(const Told& told) const {
  const Devices devices({kSpec}, DeviceRole::kTarget);
  TargetOptions options = RunningTarget::DefaultOptions();
  options.arena_bytes = 0;
  options.trust = trust_;
  options.commit_timeout = options.outcome_hold = std::chrono::milliseconds(500);
  RunningTarget target(devices.pointers(), options);
  {
    RawSource source(target.Port(), client_.get());
    Liar liar(source.channel, told);
    const auto goes_on = [&] {
      source.channel.SayPreface();
      liar.Say(source.Hello());
      source.channel.HearPreface();
      if (!liar.Hear(ControlMessage::kWelcome).has_value()) return false;
      liar.Say(source.Table());
      if (!liar.Hear(ControlMessage::kDeviceTable).has_value()) return false;
      liar.Say(RawSource::Setup());
      source.lanes.push_back(ConnectTo(source.port));
      Say(source.lanes[0].get(), source.LanePreface(0));
      // May fail: a lane that names another session than Hello did is asked for nothing.
      if (source.tls != nullptr) (void)ProveFirstLane(source);
      if (!liar.Hear(ControlMessage::kLaneSetup).has_value()) return false;
      // Out of turn in a session over TCP: said only to lie about it.
      if (told.kind == ControlMessage::kRemakeLane) liar.Say(RemakeLane());
      liar.Say(Ping());
      liar.Say(Stopping());
      Say(source.lanes[0].get(), OnTheWire(TheFrames()));
      if (!liar.Hear(ControlMessage::kLoaded).has_value()) return false;
      liar.Say(CommitOf(source.session_id, ""));
      if (!liar.Hear(ControlMessage::kDone).has_value()) return false;
      liar.Say(Forget());
      return true;
    };
    (void)goes_on();
    target.session().Cancel();  // one that waits for its real source still
    source.channel.Hang();
  }
  const SessionReport& report = target.Report();
  const bool moved = report.outcome == SessionOutcome::kDone;
  EXPECT_EQ(moved, devices.pointers()[0]->content_verified());
  EXPECT_TRUE(moved || !report.status.ok());
  devices.ExpectAllIn(DeviceState::kRunning);
  return moved;
}

TEST_P(LiesTest, OfASource) {
  std::vector<ControlMessage> right = {Ping(), Stopping(), RemakeLane(), Forget(),
                                       CommitOf("0123456789abcdef", "")};
  ControlMessage hello;
  hello.mutable_hello()->set_software("a test");
  hello.mutable_hello()->set_session_id("0123456789abcdef");
  hello.mutable_hello()->set_frame_version(1);
  hello.mutable_hello()->add_transports(control::TRANSPORT_TCP);
  hello.mutable_hello()->set_lanes(1);
  hello.mutable_hello()->set_packet_bytes(8);
  right.push_back(hello);
  ControlMessage table;
  control::DeviceTable::Device& row = *table.mutable_device_table()->add_devices();
  row.set_name("soft");
  row.set_kind("soft");
  row.set_p2p(true);
  row.set_stop_copy_bytes(kStreamBytes);
  right.push_back(table);
  right.push_back(RawSource::Setup());
  TellAll(right, "a source that lies", [this](const Told& told) { return TargetMovesWith(told); });
}

// What a target says of itself, in a session of two packets and the config packet.
ControlMessage Receipts() {
  ControlMessage message;
  message.mutable_receipts()->add_lane_packets(3);
  message.mutable_receipts()->add_device_packets(3);
  message.mutable_receipts()->add_device_bytes(kStreamBytes);
  return message;
}
ControlMessage Loaded() {
  ControlMessage message;
  control::Loaded::Device& row = *message.mutable_loaded()->add_devices();
  row.set_bytes(kStreamBytes);
  row.set_crc32c(wire::Crc32c(TheStream()));
  row.set_content_verified(true);
  return message;
}
ControlMessage LaneDown() {
  ControlMessage message;
  message.mutable_lane_down()->set_generation(0);
  message.mutable_lane_down()->set_reason("it is a liar's");
  return message;
}
ControlMessage LaneRemade() {
  ControlMessage message;
  message.mutable_lane_remade()->set_generation(1);
  *message.mutable_lane_remade()->mutable_verbs() = SomeVerbs();
  return message;
}
ControlMessage Done(const std::string& proof) {
  ControlMessage message;
  message.mutable_done()->set_proof(proof);
  return message;
}
ControlMessage RolledBack(const std::string& proof) {
  ControlMessage message;
  message.mutable_rolled_back()->set_reason("it would not start");
  message.mutable_rolled_back()->set_proof(proof);
  return message;
}

UniqueFd AcceptIn(const RawTarget& target) {
  pollfd readable = {target.listener.get(), POLLIN, 0};
  if (::poll(&readable, 1, static_cast<int>(kPatience.count())) <= 0) return UniqueFd();
  return UniqueFd(::accept4(target.listener.get(), nullptr, nullptr, SOCK_CLOEXEC));
}

bool LiesTest::SourceMovesWith(const Told& told) const {
  const Devices devices({kSpec}, DeviceRole::kSource);
  RawTarget target;
  target.tls = server_.get();
  const auto goes_on = [&](RawTarget& t) {
    t.channel = t.AcceptChannel();
    Liar liar(t.channel, told);
    t.channel.SayPreface();
    t.channel.HearPreface();
    const auto hello = liar.Hear(ControlMessage::kHello);
    if (!hello.has_value()) return;
    t.session_id = hello->hello().session_id();
    liar.Say(t.welcome);
    if (!liar.Hear(ControlMessage::kDeviceTable).has_value()) return;
    liar.Say(t.table);
    if (!liar.Hear(ControlMessage::kLaneSetup).has_value()) return;
    t.lane = AcceptIn(t);
    if (!t.lane.valid()) return;
    const timeval patience = {1, 0};
    ::setsockopt(t.lane.get(), SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
    (void)Hear(t.lane.get(), kLanePrefaceBytes);
    if (t.tls != nullptr) {
      const LaneChallenge challenge = NewLaneChallenge();
      Say(t.lane.get(), {challenge.data(), challenge.size()});
      (void)Hear(t.lane.get(), kLaneProofBytes);
    }
    liar.Say(t.setup);
    liar.Say(Ping());
    if (told.kind == ControlMessage::kLaneRemade) liar.Say(LaneRemade());
    if (t.HearFrames().size() != 3) return;
    if (told.kind == ControlMessage::kLaneDown) liar.Say(LaneDown());
    liar.Say(Receipts());
    liar.Say(Loaded());
    if (!liar.Hear(ControlMessage::kCommit).has_value()) return;
    const auto proof = [&](HandoverWord word) {
      if (t.tls == nullptr) return std::string();
      return ProveHandover(t.channel.Key(kHandoverKeyLabel, t.session_id), word);
    };
    // Its proof is right, and the rest a lie; or the proof is the lie.
    if (told.kind == ControlMessage::kRolledBack) {
      ControlMessage message = MessageOf(told.lie.bytes);
      if (message.rolled_back().proof() == "right") {
        message.mutable_rolled_back()->set_proof(proof(HandoverWord::kRolledBack));
      }
      t.channel.Send(message);
    } else {
      liar.Say(Done(proof(HandoverWord::kDone)));
    }
    (void)liar.Hear(ControlMessage::kForget);
  };
  const SessionReport report = RunSource(
      devices, target,
      [&](RawTarget& t) {
        goes_on(t);
        t.channel.Hang();
        t.lane.Reset();
        t.listener.Reset();
      },
      /*resolve_timeout=*/std::chrono::milliseconds(300), trust_);
  const bool ran_away = report.outcome != SessionOutcome::kRolledBack;
  devices.ExpectAllIn(ran_away ? DeviceState::kStop : DeviceState::kRunning);
  EXPECT_EQ(report.outcome == SessionOutcome::kDone, report.status.ok()) << report.status;
  return report.outcome == SessionOutcome::kDone;
}

TEST_P(LiesTest, OfATarget) {
  const RawTarget any;
  TellAll({any.welcome, any.table, any.setup, Ping(), Receipts(), Loaded(), LaneDown(),
           LaneRemade(), Done("right"), RolledBack("right")},
          "a target that lies", [this](const Told& told) { return SourceMovesWith(told); });
}

// That the list is whole, and that without a lie devices move.
TEST_P(LiesTest, NoneMovesTheDevice) {
  EXPECT_TRUE(TargetMovesWith({ControlMessage::MESSAGE_NOT_SET, {}}));
  EXPECT_TRUE(SourceMovesWith({ControlMessage::MESSAGE_NOT_SET, {}}));
}

}  // namespace
}  // namespace godwit
