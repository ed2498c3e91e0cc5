// Goal: devices move whole, whatever their number, sizes, lanes and packets; and when something
// fails or is cancelled, at any time, both sides end, in time, with their devices put back.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>

#include "base/units.h"
#include "tests/engine/byte_sources.h"
#include "tests/engine/session_world.h"
#include "tests/vfio/stream_io.h"

namespace godwit {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

constexpr size_t kSizes[] = {0, 1, 4095, kMiB + 1};

struct Outcome {
  SessionReport source;
  SessionReport target;
  std::vector<SessionPhase> source_phases;
  std::vector<SessionPhase> target_phases;
};

struct Knobs {
  uint32_t lanes = 2;
  size_t packet_bytes = 4096;
  size_t arena_bytes = size_t{4} << 20;
  // Called at each phase with the session, to cancel it.
  std::function<void(SessionPhase, SourceSession&)> at_source = [](SessionPhase, SourceSession&) {};
  std::function<void(SessionPhase, TargetSession&)> at_target = [](SessionPhase, TargetSession&) {};
  // Called when both have ended and before they are destroyed.
  std::function<void()> at_the_end = [] {};
};

Outcome Move(const std::vector<Device*>& source, const std::vector<Device*>& target,
             const Knobs& knobs = {}) {
  const Watchdog watchdog("a session");
  TargetOptions target_options = RunningTarget::DefaultOptions();
  target_options.arena_bytes = knobs.arena_bytes;
  std::atomic<TargetSession*> target_session{nullptr};
  RunningTarget running(target, target_options, [&](SessionPhase phase) {
    while (target_session == nullptr) std::this_thread::yield();
    knobs.at_target(phase, *target_session);
  });
  target_session = &running.session();

  SourceOptions options = SourceOptionsFor(running.Port());
  options.lanes = knobs.lanes;
  options.packet_bytes = knobs.packet_bytes;
  RecordingObserver observer;
  SourceSession* session_at = nullptr;
  observer.on_phase = [&](SessionPhase phase) { knobs.at_source(phase, *session_at); };
  SourceSession session(options, source, observer);
  session_at = &session;
  Outcome outcome;
  outcome.source = session.Run();
  // A target that never had a source to serve waits for one.
  if (std::find(observer.phases.begin(), observer.phases.end(), SessionPhase::kStopping) ==
      observer.phases.end()) {
    running.session().Cancel();
  }
  outcome.target = running.Report();
  knobs.at_the_end();
  outcome.source_phases = observer.phases;
  outcome.target_phases = running.observer().phases;
  return outcome;
}

void ExpectMoved(const Outcome& outcome, const Devices& source, const Devices& target) {
  EXPECT_TRUE(outcome.source.status.ok()) << outcome.source.status;
  EXPECT_TRUE(outcome.target.status.ok()) << outcome.target.status;
  EXPECT_EQ(outcome.source.outcome, SessionOutcome::kDone);
  EXPECT_EQ(outcome.target.outcome, SessionOutcome::kDone);
  source.ExpectAllIn(DeviceState::kStop);
  target.ExpectAllIn(DeviceState::kRunning);
}

void ExpectRolledBack(const Outcome& outcome, const Devices& source, const Devices& target) {
  EXPECT_FALSE(outcome.source.status.ok());
  EXPECT_FALSE(outcome.target.status.ok());
  EXPECT_EQ(outcome.source.outcome, SessionOutcome::kRolledBack) << outcome.source.status;
  EXPECT_EQ(outcome.target.outcome, SessionOutcome::kRolledBack) << outcome.target.status;
  source.ExpectAllIn(DeviceState::kRunning);
  target.ExpectAllIn(DeviceState::kRunning);
  for (const DeviceReport& device : outcome.target.devices) EXPECT_FALSE(device.content_verified);
}

void MoveSoft(const std::vector<std::string>& specs, const Knobs& knobs) {
  const Devices source(specs, DeviceRole::kSource);
  const Devices target(specs, DeviceRole::kTarget);
  const Outcome outcome = Move(source.pointers(), target.pointers(), knobs);
  ExpectMoved(outcome, source, target);
  ASSERT_EQ(outcome.source.devices.size(), specs.size());
  ASSERT_EQ(outcome.target.devices.size(), specs.size());
  for (size_t i = 0; i < specs.size(); ++i) {
    const DeviceReport& sent = outcome.source.devices[i];
    const DeviceReport& loaded = outcome.target.devices[i];
    EXPECT_TRUE(sent.content_verified);
    EXPECT_TRUE(loaded.content_verified);
    EXPECT_EQ(sent.bytes, source.pointers()[i]->StopCopyBytes().value());
    EXPECT_EQ(loaded.bytes, sent.bytes);
    EXPECT_EQ(loaded.packets, sent.packets);
    EXPECT_EQ(sent.sent_crc32c, sent.loaded_crc32c);
    EXPECT_EQ(loaded.loaded_crc32c, sent.sent_crc32c);
  }
  uint64_t lane_packets = 0;
  for (const LaneReport& lane : outcome.source.lanes) lane_packets += lane.packets;
  EXPECT_EQ(outcome.source.lanes.size(), knobs.lanes);
  EXPECT_EQ(lane_packets, outcome.source.packets);
}

TEST(SessionTest, OneTwoAndThreeDevicesMove) {
  for (size_t devices = 1; devices <= 3; ++devices) {
    std::vector<std::string> specs;
    for (size_t i = 0; i < devices; ++i) {
      specs.push_back(absl::StrCat("soft:size=", 100'000 * i + 5'000, ",seed=", i));
    }
    for (const uint32_t lanes : {1U, 3U, 16U}) {
      SCOPED_TRACE(absl::StrCat(devices, " devices, ", lanes, " lanes"));
      MoveSoft(specs, {.lanes = lanes});
    }
  }
}

TEST(SessionTest, SizesAndPacketsOfEveryKindMove) {
  for (const size_t size : kSizes) {
    for (const size_t packet_bytes : {size_t{1}, size_t{7}, 4 * kKiB, 64 * kKiB, kMiB}) {
      if (size / packet_bytes > 20'000) continue;
      SCOPED_TRACE(absl::StrCat(size, " bytes in packets of ", packet_bytes));
      MoveSoft({absl::StrCat("soft:size=", size, ",seed=9")},
               {.lanes = 3, .packet_bytes = packet_bytes});
    }
  }
}

TEST(SessionTest, TheSmallestArenaMovesToo) {
  MoveSoft({"soft:size=300000,seed=1", "soft:size=0,seed=2", "soft:size=70000,seed=3"},
           {.lanes = 16, .packet_bytes = 1000, .arena_bytes = 0});
}

TEST(SessionTest, ASingleDeviceNeedsNoP2p) { MoveSoft({"soft:size=10000,flags=none"}, {}); }

TEST(SessionTest, FilesMoveByteForByte) {
  const TempDirectory directory;
  for (const size_t size : kSizes) {
    SCOPED_TRACE(size);
    std::string content(size, '\0');
    for (size_t i = 0; i < size; ++i) content[i] = static_cast<char>(i * 31 + i / 253);
    WriteFile(directory.Path("from"), content);
    WriteFile(directory.Path("to"), std::string(50'000, 'x'));  // is there, and longer or shorter
    const Devices source({"file:" + directory.Path("from")}, DeviceRole::kSource);
    const Devices target({"file:" + directory.Path("to")}, DeviceRole::kTarget);
    ExpectMoved(Move(source.pointers(), target.pointers(), {.lanes = 3}), source, target);
    EXPECT_TRUE(ReadFile(directory.Path("to")) == content);
    EXPECT_TRUE(ReadFile(directory.Path("from")) == content);
  }
}

TEST(SessionTest, PhasesFollowEachOther) {
  const Devices source({"soft:size=5000"}, DeviceRole::kSource);
  const Devices target({"soft:size=5000"}, DeviceRole::kTarget);
  const Outcome outcome = Move(source.pointers(), target.pointers());
  using enum SessionPhase;
  EXPECT_THAT(outcome.source_phases,
              ElementsAre(kConnecting, kStopping, kStreaming, kHandingOver, kFinished));
  EXPECT_THAT(outcome.target_phases,
              ElementsAre(kWaiting, kConnecting, kStreaming, kHandingOver, kFinished));
}

// What one side has and the other has not.
struct Mismatch {
  const char* name;
  std::vector<std::string> source;
  std::vector<std::string> target;
  std::string words;  // in both sides' errors
};

class SessionMismatchTest : public testing::TestWithParam<Mismatch> {};

TEST_P(SessionMismatchTest, RollsBackBothSides) {
  const Devices source(GetParam().source, DeviceRole::kSource);
  const Devices target(GetParam().target, DeviceRole::kTarget);
  const Outcome outcome = Move(source.pointers(), target.pointers());
  ExpectRolledBack(outcome, source, target);
  if (GetParam().words.empty()) return;
  EXPECT_THAT(std::string(outcome.source.status.message()), HasSubstr(GetParam().words));
  EXPECT_THAT(std::string(outcome.target.status.message()), HasSubstr(GetParam().words));
}

INSTANTIATE_TEST_SUITE_P(
    Every, SessionMismatchTest,
    testing::Values(
        Mismatch{"Count", {"soft:size=9"}, {"soft:size=9", "soft:size=9"}, "devices"},
        Mismatch{"Kind", {"soft:size=9"}, {"file:/tmp/godwit-never-made"}, "kind"},
        Mismatch{"Seed", {"soft:size=9000,seed=1"}, {"soft:size=9000,seed=2"}, "refused"},
        Mismatch{"LongerAtTheTarget", {"soft:size=9000"}, {"soft:size=9001"}, "refused"},
        Mismatch{"ShorterAtTheTarget", {"soft:size=9000"}, {"soft:size=8999"}, "refused"},
        Mismatch{"RefusedLoad",
                 {"soft:size=9000"},
                 {"soft:size=9000,fail_load=1"},
                 "asked to by fail_load"},
        Mismatch{"SecondDeviceRefuses",
                 {"soft:size=90000", "soft:size=9000"},
                 {"soft:size=90000", "soft:size=9000,fail_load=1"},
                 "asked to by fail_load"},
        Mismatch{"ResumingFails",
                 {"soft:size=9"},
                 {"soft:size=9,fail_state=RESUMING"},
                 "fail_state=RESUMING"},
        Mismatch{"StopCopyFails",
                 {"soft:size=9,fail_state=STOP_COPY"},
                 {"soft:size=9"},
                 "fail_state=STOP_COPY"},
        Mismatch{"SecondStopCopyFails",
                 {"soft:size=9", "soft:size=9,fail_state=STOP_COPY"},
                 {"soft:size=9", "soft:size=9"},
                 "fail_state=STOP_COPY"},
        Mismatch{"P2pFails",
                 {"soft:size=9", "soft:size=9,fail_state=RUNNING_P2P"},
                 {"soft:size=9", "soft:size=9"},
                 "fail_state=RUNNING_P2P"},
        Mismatch{"NoP2pTogether", {"soft:size=9,flags=none", "soft:size=9"}, {"soft:size=9"}, ""}),
    [](const auto& mismatch) { return std::string(mismatch.param.name); });

class SessionCancelTest : public testing::TestWithParam<SessionPhase> {};

TEST_P(SessionCancelTest, TheSourceMayCancelAtAnyPhase) {
  const std::vector<std::string> specs = {"soft:size=20000000,seed=1", "soft:size=100,seed=2"};
  const Devices source(specs, DeviceRole::kSource);
  const Devices target(specs, DeviceRole::kTarget);
  const Outcome outcome = Move(source.pointers(), target.pointers(),
                               {.at_source = [](SessionPhase phase, SourceSession& session) {
                                 if (phase == GetParam()) session.Cancel();
                               }});
  if (GetParam() == SessionPhase::kWaiting || GetParam() == SessionPhase::kFinished) {
    ExpectMoved(outcome, source, target);  // a source never waits; and the end
    return;
  }
  ExpectRolledBack(outcome, source, target);
  EXPECT_TRUE(absl::IsCancelled(outcome.source.status)) << outcome.source.status;
}

TEST_P(SessionCancelTest, TheTargetMayCancelAtAnyPhase) {
  const std::vector<std::string> specs = {"soft:size=20000000,seed=1", "soft:size=100,seed=2"};
  const Devices source(specs, DeviceRole::kSource);
  const Devices target(specs, DeviceRole::kTarget);
  const Outcome outcome = Move(source.pointers(), target.pointers(),
                               {.at_target = [](SessionPhase phase, TargetSession& session) {
                                 if (phase == GetParam()) session.Cancel();
                               }});
  if (GetParam() == SessionPhase::kStopping || GetParam() == SessionPhase::kFinished) {
    ExpectMoved(outcome, source, target);  // the source's phase; and the end
    return;
  }
  if (GetParam() == SessionPhase::kHandingOver) {
    if (outcome.target.outcome == SessionOutcome::kDone) {
      ExpectMoved(outcome, source, target);  // the source's Commit was there already: too late
      return;
    }
    // The source may have given up its devices just before, or not: never do both sides run them.
    EXPECT_FALSE(outcome.source.status.ok());
    target.ExpectAllIn(DeviceState::kRunning);
    source.ExpectAllIn(outcome.source.outcome == SessionOutcome::kInDoubt ? DeviceState::kStop
                                                                          : DeviceState::kRunning);
    return;
  }
  ExpectRolledBack(outcome, source, target);
  EXPECT_TRUE(absl::IsCancelled(outcome.target.status)) << outcome.target.status;
}

INSTANTIATE_TEST_SUITE_P(Phases, SessionCancelTest,
                         testing::Values(SessionPhase::kWaiting, SessionPhase::kConnecting,
                                         SessionPhase::kStopping, SessionPhase::kStreaming,
                                         SessionPhase::kHandingOver, SessionPhase::kFinished),
                         [](const auto& phase) {
                           std::string name(SessionPhaseName(phase.param));
                           std::erase(name, ' ');
                           return name;
                         });

// Cancelling a session that never got its peer, before and after it has begun.
TEST(SessionTest, CancelBeforeRunIsRemembered) {
  const Watchdog watchdog("a cancelled session");
  const Devices devices({"soft:size=9"}, DeviceRole::kTarget);
  RecordingObserver observer;
  TargetSession target(RunningTarget::DefaultOptions(), devices.pointers(), observer);
  target.Cancel();
  const SessionReport report = target.Run();
  EXPECT_TRUE(absl::IsCancelled(report.status)) << report.status;
  EXPECT_EQ(report.outcome, SessionOutcome::kRolledBack);
  devices.ExpectAllIn(DeviceState::kRunning);
}

TEST(SessionTest, NobodyListensAtTheTarget) {
  const Watchdog watchdog("a source alone");
  uint16_t port = 0;
  {
    const Devices devices({"soft:size=9"}, DeviceRole::kTarget);
    RunningTarget target(devices.pointers());
    port = target.Port();
    target.session().Cancel();
  }
  const Devices devices({"soft:size=9"}, DeviceRole::kSource);
  RecordingObserver observer;
  SourceSession source(SourceOptionsFor(port), devices.pointers(), observer);
  const SessionReport report = source.Run();
  EXPECT_FALSE(report.status.ok());
  EXPECT_THAT(std::string(report.status.message()), HasSubstr(absl::StrCat(port)));
  EXPECT_EQ(report.outcome, SessionOutcome::kRolledBack);
  devices.ExpectAllIn(DeviceState::kRunning);
}

// A device whose stream says nothing for as long as it is open.
class QuietDevice final : public Device {
 public:
  const std::string& name() const override { return name_; }
  absl::string_view kind() const override { return "soft"; }
  MigrationFlags flags() const override { return {.p2p = true, .pre_copy = false}; }
  absl::StatusOr<DeviceState> State() override { return state_; }
  absl::StatusOr<UniqueFd> SetState(DeviceState wanted) override {
    state_ = wanted;
    if (wanted != DeviceState::kStopCopy) return UniqueFd();
    FdPair pipe = MakePipe();
    write_end_ = std::move(pipe.write);
    return std::move(pipe.read);
  }
  absl::Status Reset() override { return SetState(DeviceState::kRunning).status(); }
  absl::StatusOr<uint64_t> StopCopyBytes() override { return absl::UnimplementedError("quiet"); }
  absl::StatusOr<PrecopyInfo> GetPrecopyInfo(int /*data_fd*/) override {
    return absl::UnimplementedError("quiet");
  }
  absl::StatusOr<std::string> SaveConfig() override { return std::string(); }
  absl::Status LoadConfig(absl::string_view /*config*/) override { return absl::OkStatus(); }

 private:
  const std::string name_ = "quiet";
  DeviceState state_ = DeviceState::kRunning;
  UniqueFd write_end_;
};

TEST(SessionTest, AQuietDeviceDoesNotHoldACancelledSourceOrOneWhoseTargetFails) {
  for (const bool target_cancels : {false, true}) {
    QuietDevice quiet;
    const Devices target({"soft:size=9"}, DeviceRole::kTarget);
    Knobs knobs;
    std::thread later;
    const auto cancel_later = [&later](auto& session) {
      later = std::thread([&session] {
        std::this_thread::sleep_for(std::chrono::milliseconds(200));  // until reads wait
        session.Cancel();
      });
    };
    if (target_cancels) {
      knobs.at_target = [&](SessionPhase phase, TargetSession& session) {
        if (phase == SessionPhase::kStreaming) cancel_later(session);
      };
    } else {
      knobs.at_source = [&](SessionPhase phase, SourceSession& session) {
        if (phase == SessionPhase::kStreaming) cancel_later(session);
      };
    }
    knobs.at_the_end = [&later] { later.join(); };
    const Outcome outcome = Move({&quiet}, target.pointers(), knobs);
    EXPECT_FALSE(outcome.source.status.ok());
    EXPECT_EQ(outcome.source.outcome, SessionOutcome::kRolledBack);
    EXPECT_EQ(quiet.State().value(), DeviceState::kRunning);
    target.ExpectAllIn(DeviceState::kRunning);
  }
}

}  // namespace
}  // namespace godwit
