// Goal: whatever a driver's habits are, however its stream is cut up and whatever fails, a session
// ends; the devices run on exactly one side; and what is called loaded is.
//
// The matrix is in the test listing: profile × segmentation × failure, "nothing fails" included,
// and for profiles with PRE_COPY once with it and once without.
#include <absl/strings/str_cat.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <future>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "godwit/session.h"
#include "vfio/device_spec.h"

namespace godwit {
namespace {

constexpr std::chrono::seconds kHangs{60};  // far above what the slowest sanitizer needs
constexpr size_t kSessionsAtOnce = 24;

struct Profile {
  const char* name;
  const char* options;
  bool framed;
  bool accepts_truncated;
  bool has_precopy;
};
constexpr std::array<Profile, 8> kProfiles = {{
    {"plain", "profile=plain,flags=p2p+precopy,size=9000", false, false, true},
    {"mlx5", "profile=mlx5,size=9000", true, true, true},
    {"hisi", "profile=hisi", false, false, true},
    {"pds", "profile=pds,size=9000", false, true, false},
    {"qat", "profile=qat", false, false, true},
    {"virtio", "profile=virtio,size=5000", true, true, true},
    {"xe", "profile=xe,size=9000", true, false, false},
    {"mtty", "profile=mtty,size=96", false, false, true},
}};

struct Segments {
  const char* name;
  const char* option;
};
constexpr std::array<Segments, 4> kSegments = {{{"by1", ",read_bytes=1"},
                                                {"by7", ",read_bytes=7"},
                                                {"by4096", ",read_bytes=4096"},
                                                {"full", ""}}};

enum class End {
  kMoved,       // the target runs, and knows that it has what it should have
  kUnverified,  // the target runs; its driver has taken what it can't tell from a whole state
  kBack,        // the source runs, the target is reset
  kSourceGone,  // the target is reset, the source is beyond help, and the report says so
  kTargetGone,  // the source runs, the target is beyond help, and the report says so
};

struct Failure {
  const char* name;
  const char* source;
  const char* target;
  End (*end)(const Profile&);
  bool (*applies)(const Profile&);
};

bool Always(const Profile&) { return true; }
bool IsFramed(const Profile& profile) { return profile.framed; }
bool HasOptionalTags(const Profile& profile) { return profile.framed && profile.accepts_truncated; }
End Moved(const Profile&) { return End::kMoved; }
End Back(const Profile&) { return End::kBack; }
End SourceGone(const Profile&) { return End::kSourceGone; }
End TargetGone(const Profile&) { return End::kTargetGone; }
// The source's own driver ends the stream early and says that this is the end: nobody else can
// know. What then keeps the state from being called right is the device.
End BackUnlessTruncatedIsAccepted(const Profile& profile) {
  return profile.accepts_truncated ? End::kUnverified : End::kBack;
}
// One byte too many is the start of a next record for who reads records and never asks for its end.
End BackUnlessItStartsARecord(const Profile& profile) {
  return HasOptionalTags(profile) ? End::kUnverified : End::kBack;
}

constexpr std::array<Failure, 21> kFailures = {{
    {"nothing_fails", "", "", Moved, Always},
    {"stream_truncated", ",truncate=30", "", BackUnlessTruncatedIsAccepted, Always},
    {"stream_empty", ",truncate=0", "", BackUnlessTruncatedIsAccepted, Always},
    {"read_error", ",fail_read=30", "", Back, Always},
    {"read_error_at_once", ",fail_read=0", "", Back, Always},
    {"write_error", "", ",fail_write=30", Back, Always},
    {"one_byte_too_many", ",excess=1", "", BackUnlessItStartsARecord, Always},
    {"unknown_mandatory_tag", ",unknown_tag=mandatory", "", Back, IsFramed},
    {"unknown_optional_tag", ",unknown_tag=optional", "", Moved, HasOptionalTags},
    {"load_refused", "", ",fail_load=1", Back, Always},
    {"source_resets_itself", ",reset_at=30", "", Back, Always},
    {"source_goes_to_error", ",error_at=30", "", Back, Always},
    {"source_is_detached", ",detach_at=30", "", SourceGone, Always},
    {"target_resets_itself", "", ",reset_at=30", Back, Always},
    {"target_goes_to_error", "", ",error_at=30", Back, Always},
    {"target_is_detached", "", ",detach_at=30", TargetGone, Always},
    {"source_stop_is_busy", ",stop_error=EBUSY", "", Back, Always},
    {"target_stop_fails", "", ",stop_error=EIO", Back, Always},
    {"source_cannot_stop_copy", ",fail_state=STOP_COPY", "", Back, Always},
    {"target_cannot_resume", "", ",fail_state=RESUMING", Back, Always},
    {"stop_waits_for_the_reader", ",block_stop=1", "", Moved, Always},
}};

struct Case {
  const Profile* profile;
  const Segments* segments;
  const Failure* failure;
  bool pre_copy;

  std::string Name() const {
    return absl::StrCat(profile->name, pre_copy ? "_precopy_" : "_stopcopy_", segments->name, "_",
                        failure->name);
  }
  friend std::ostream& operator<<(std::ostream& out, const Case& c) { return out << c.Name(); }
};

std::vector<Case> AllCases() {
  std::vector<Case> cases;
  for (const Profile& profile : kProfiles) {
    for (const Segments& segments : kSegments) {
      for (const Failure& failure : kFailures) {
        if (!failure.applies(profile)) continue;
        cases.push_back({&profile, &segments, &failure, false});
        if (profile.has_precopy) cases.push_back({&profile, &segments, &failure, true});
      }
    }
  }
  return cases;
}

// Hands the target's port over.
class PortObserver : public SessionObserver {
 public:
  void OnListening(absl::string_view, uint16_t port) override { port_.set_value(port); }
  std::future<uint16_t> port() { return port_.get_future(); }

 private:
  std::promise<uint16_t> port_;
};

struct Ending {
  bool hung = false;
  SessionReport source;
  SessionReport target;
  absl::StatusOr<DeviceState> source_state = absl::UnknownError("not run");
  absl::StatusOr<DeviceState> target_state = absl::UnknownError("not run");
};

Ending Migrate(const Case& c) {
  Ending ending;
  const auto open = [&](const char* options, DeviceRole role) {
    auto device = OpenDevice(
        absl::StrCat("soft:", c.profile->options, c.segments->option, ",seed=7", options), role);
    EXPECT_TRUE(device.ok()) << device.status();
    return device.ok() ? *std::move(device) : nullptr;
  };
  const std::unique_ptr<Device> from = open(c.failure->source, DeviceRole::kSource);
  const std::unique_ptr<Device> to = open(c.failure->target, DeviceRole::kTarget);
  if (from == nullptr || to == nullptr) return ending;

  PortObserver target_observer;
  SessionObserver source_observer;
  auto port = target_observer.port();
  TargetOptions target_options;
  target_options.listen = "127.0.0.1:0";
  target_options.transport = TransportKind::kTcp;
  target_options.arena_bytes = size_t{1} << 20;
  TargetSession target(target_options, {to.get()}, target_observer);
  auto target_ends = std::async(std::launch::async, [&] { return target.Run(); });
  SourceOptions source_options;
  source_options.to = absl::StrCat("127.0.0.1:", port.get());
  source_options.transport = TransportKind::kTcp;
  source_options.lanes = 2;
  source_options.packet_bytes = 4096;
  source_options.pre_copy = c.pre_copy;
  // A stream that is cut off in PRE_COPY never brings the initial bytes that were announced.
  source_options.precopy_limits.time_max = std::chrono::milliseconds(500);
  SourceSession source(source_options, {from.get()}, source_observer);
  auto source_ends = std::async(std::launch::async, [&] { return source.Run(); });
  const auto deadline = std::chrono::steady_clock::now() + kHangs;
  ending.hung = source_ends.wait_until(deadline) != std::future_status::ready ||
                target_ends.wait_until(deadline) != std::future_status::ready;
  if (ending.hung) {
    source.Cancel();
    target.Cancel();
  }
  ending.source = source_ends.get();
  ending.target = target_ends.get();
  ending.source_state = from->State();
  ending.target_state = to->State();
  return ending;
}

// A failed session mostly waits for its peer's reason, so those of one profile run side by side,
// when the first of them is asked for; under a filter that names one case, only that.
const Ending& EndingOf(const Case& wanted) {
  static std::map<std::string, Ending>* const endings = new std::map<std::string, Ending>();
  const auto found = endings->find(wanted.Name());
  if (found != endings->end()) return found->second;
  const bool alone = testing::GTEST_FLAG(filter).find(wanted.Name()) != std::string::npos;
  std::vector<Case> batch;
  for (const Case& c : AllCases()) {
    if (alone ? c.Name() == wanted.Name() : c.profile == wanted.profile) batch.push_back(c);
  }
  std::vector<Ending> ended(batch.size());
  std::atomic<size_t> next{0};
  std::vector<std::thread> threads;
  for (size_t i = 0; i < std::min(batch.size(), kSessionsAtOnce); ++i) {
    threads.emplace_back([&] {
      for (size_t at = next++; at < batch.size(); at = next++) ended[at] = Migrate(batch[at]);
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (size_t i = 0; i < batch.size(); ++i) endings->emplace(batch[i].Name(), std::move(ended[i]));
  return endings->at(wanted.Name());
}

class SoftProfileMatrix : public testing::TestWithParam<Case> {};

TEST_P(SoftProfileMatrix, Ends) {
  const Ending& ending = EndingOf(GetParam());
  SCOPED_TRACE(absl::StrCat("source: ", ending.source.status.ToString(),
                            "\ntarget: ", ending.target.status.ToString()));
  ASSERT_FALSE(ending.hung);
  const End end = GetParam().failure->end(*GetParam().profile);
  if (end == End::kMoved || end == End::kUnverified) {
    EXPECT_EQ(ending.source.outcome, SessionOutcome::kDone);
    EXPECT_EQ(ending.target.outcome, SessionOutcome::kDone);
    EXPECT_EQ(ending.source_state.value(), DeviceState::kStop);
    EXPECT_EQ(ending.target_state.value(), DeviceState::kRunning);
    EXPECT_EQ(ending.source.devices.at(0).content_verified, end == End::kMoved);
    EXPECT_EQ(ending.target.devices.at(0).content_verified, end == End::kMoved);
    return;
  }
  EXPECT_EQ(ending.source.outcome, SessionOutcome::kRolledBack);
  EXPECT_EQ(ending.target.outcome, SessionOutcome::kRolledBack);
  EXPECT_FALSE(ending.source.status.ok());
  EXPECT_FALSE(ending.target.status.ok());
  EXPECT_FALSE(ending.target.devices.at(0).content_verified);
  const auto gone = testing::AllOf(testing::HasSubstr("could not be"), testing::HasSubstr("gone"));
  if (end == End::kSourceGone) {
    EXPECT_FALSE(ending.source_state.ok());
    EXPECT_THAT(std::string(ending.source.status.message()), gone);
  } else {
    EXPECT_EQ(ending.source_state.value(), DeviceState::kRunning);
  }
  if (end == End::kTargetGone) {
    EXPECT_FALSE(ending.target_state.ok());
    EXPECT_THAT(std::string(ending.target.status.message()), gone);
  } else {
    EXPECT_EQ(ending.target_state.value(), DeviceState::kRunning);
  }
}

INSTANTIATE_TEST_SUITE_P(All, SoftProfileMatrix, testing::ValuesIn(AllCases()),
                         [](const testing::TestParamInfo<Case>& c) { return c.param.Name(); });

}  // namespace
}  // namespace godwit
