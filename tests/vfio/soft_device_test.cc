// Goal: the software device walks as the table says, takes exactly its own content, and can be
// left at any moment.
#include "vfio/soft_device.h"

#include <absl/types/span.h>
#include <poll.h>
#include <signal.h>
#include <sys/ioctl.h>

#include <algorithm>
#include <thread>

#include "base/units.h"
#include "tests/vfio/stream_io.h"
#include "vfio/state_table.h"

namespace godwit {
namespace {

using testing::HasSubstr;

constexpr size_t kSize = 300'001;
constexpr uint64_t kMoreThanAPipe = 8 * kMiB;

std::string StreamOf(uint64_t seed, size_t size) {
  std::string bytes(size, '\0');
  SoftContent(seed).Fill(0, absl::MakeSpan(reinterpret_cast<std::byte*>(bytes.data()), size));
  return bytes;
}

class SoftDeviceTest : public testing::Test {
 protected:
  static std::unique_ptr<SoftDevice> Make(SoftDeviceOptions options) {
    return std::make_unique<SoftDevice>("soft:test", options);
  }
  static std::unique_ptr<SoftDevice> OfSize(uint64_t size) {
    return Make({.size_bytes = size, .seed = 7});
  }
  static UniqueFd Enter(Device& device, DeviceState state) {
    auto fd = device.SetState(state);
    EXPECT_TRUE(fd.ok()) << fd.status();
    return fd.ok() ? *std::move(fd) : UniqueFd();
  }
  // What RESUMING → STOP says to `stream`.
  static absl::Status Load(Device& device, absl::string_view stream) {
    const UniqueFd loading = Enter(device, DeviceState::kResuming);
    WriteAll(loading.get(), stream);
    return device.SetState(DeviceState::kStop).status();
  }
};

TEST_F(SoftDeviceTest, EveryArcIsTheTables) {
  for (const MigrationFlags flags :
       {MigrationFlags{false, false}, {true, false}, {false, true}, {true, true}}) {
    for (uint32_t from = 0; from < kDeviceStateCount; ++from) {
      for (uint32_t to = 0; to < kDeviceStateCount; ++to) {
        const auto now = static_cast<DeviceState>(from);
        const auto wanted = static_cast<DeviceState>(to);
        SCOPED_TRACE(absl::StrCat(DeviceStateName(now), " to ", DeviceStateName(wanted), " with ",
                                  MigrationFlagsName(flags)));
        const auto device = Make({.flags = flags});  // no content: RESUMING can be left as it is
        const auto there = device->SetState(now);
        ASSERT_EQ(there.ok(), Walk(flags, DeviceState::kRunning, now).ok());
        if (!there.ok()) continue;  // a state that can't be reached

        const auto data_fd = device->SetState(wanted);
        const bool legal = Walk(flags, now, wanted).ok();
        EXPECT_EQ(data_fd.ok(), legal);
        EXPECT_EQ(device->State().value(), legal ? wanted : now);
        if (!legal) continue;
        const bool opens = (wanted == DeviceState::kResuming && now != wanted) ||
                           (IsSaving(wanted) && !IsSaving(now));
        EXPECT_EQ(data_fd->valid(), opens);
      }
    }
  }
}

TEST_F(SoftDeviceTest, SavesItsContentAtEverySize) {
  for (const size_t size : {size_t{0}, size_t{1}, size_t{7}, size_t{4096}, kSize, 3 * kMiB + 1}) {
    const auto device = OfSize(size);
    const UniqueFd saving = Enter(*device, DeviceState::kStopCopy);
    EXPECT_EQ(ReadToEnd(saving.get()), StreamOf(7, size)) << size;
  }
}

TEST_F(SoftDeviceTest, LoadsItsContentHoweverItIsCutUp) {
  const std::string stream = StreamOf(7, kSize);
  for (const size_t piece : {size_t{1}, size_t{7}, size_t{4096}, kSize}) {
    const auto device = OfSize(kSize);
    const UniqueFd loading = Enter(*device, DeviceState::kResuming);
    for (size_t at = 0; at < kSize; at += piece) {
      WriteAll(loading.get(), absl::string_view(stream).substr(at, piece));
    }
    const absl::Status stopped = device->SetState(DeviceState::kStop).status();
    EXPECT_TRUE(stopped.ok()) << stopped;
    EXPECT_TRUE(device->content_verified()) << "pieces of " << piece;
  }
}

TEST_F(SoftDeviceTest, AnEmptyStateMigrates) {
  const auto device = OfSize(0);
  EXPECT_TRUE(Load(*device, "").ok());
  EXPECT_TRUE(device->content_verified());
}

TEST_F(SoftDeviceTest, RefusesWhateverIsNotItsContent) {
  const std::string right = StreamOf(7, kSize);
  std::string flipped = right;
  flipped[123'456] ^= 1;
  std::string swapped = right;
  std::swap_ranges(swapped.begin(), swapped.begin() + 65536, swapped.begin() + 131072);
  const std::pair<std::string, const char*> cases[] = {
      {flipped, "wrong from byte 123456 on"},
      {swapped, "wrong from byte 0 on"},
      {right.substr(1), "wrong from byte 0 on"},
      {right.substr(0, kSize - 1), "got 300000 of 300001 bytes"},
      {"", "got 0 of 300001 bytes"},
      {right + "x", "got 300002 of 300001 bytes"},
      {StreamOf(8, kSize), "wrong from byte 0 on"}};
  for (const auto& [stream, complaint] : cases) {
    const auto device = OfSize(kSize);
    const absl::Status refused = Load(*device, stream);
    EXPECT_EQ(refused.code(), absl::StatusCode::kFailedPrecondition);
    EXPECT_THAT(std::string(refused.message()), HasSubstr(complaint));
    EXPECT_FALSE(device->content_verified());
  }
}

TEST_F(SoftDeviceTest, ARefusedStreamLeavesItResumingUntilReset) {
  const auto device = OfSize(kSize);
  ASSERT_FALSE(Load(*device, "wrong").ok());
  EXPECT_EQ(device->State().value(), DeviceState::kResuming);
  EXPECT_FALSE(device->SetState(DeviceState::kRunning).ok());
  EXPECT_EQ(device->State().value(), DeviceState::kResuming);
  ASSERT_TRUE(device->Reset().ok());
  EXPECT_TRUE(Load(*device, StreamOf(7, kSize)).ok());
}

TEST_F(SoftDeviceTest, TheWriterMayCloseItsEndFirst) {
  const auto device = OfSize(kSize);
  {
    const UniqueFd loading = Enter(*device, DeviceState::kResuming);
    WriteAll(loading.get(), StreamOf(7, kSize));
  }
  EXPECT_TRUE(device->SetState(DeviceState::kStop).ok());
}

TEST_F(SoftDeviceTest, ReadsAreBigOnceThePipeIsFull) {
  const auto device = OfSize(kMoreThanAPipe);
  const UniqueFd saving = Enter(*device, DeviceState::kStopCopy);
  const int pipe_bytes = ::fcntl(saving.get(), F_GETPIPE_SZ);
  ASSERT_GT(pipe_bytes, 0);
  int waiting_bytes = 0;
  while (waiting_bytes < pipe_bytes) {
    ASSERT_EQ(::ioctl(saving.get(), FIONREAD, &waiting_bytes), 0);
    std::this_thread::yield();
  }
  EXPECT_EQ(ReadSome(saving.get(), kMoreThanAPipe).size(), static_cast<size_t>(pipe_bytes));
}

TEST_F(SoftDeviceTest, PreCopyAndStopCopyAreOneStream) {
  const auto device = Make({.size_bytes = kSize, .seed = 7, .flags = {true, true}});
  const UniqueFd saving = Enter(*device, DeviceState::kPreCopy);
  ASSERT_TRUE(saving.valid());
  EXPECT_EQ(device->GetPrecopyInfo(saving.get()).value().initial_bytes, 0u);
  EXPECT_FALSE(Enter(*device, DeviceState::kStopCopy).valid());
  EXPECT_EQ(ReadToEnd(saving.get()), StreamOf(7, kSize));
  EXPECT_EQ(device->GetPrecopyInfo(saving.get()).status().code(),
            absl::StatusCode::kFailedPrecondition);
}

TEST_F(SoftDeviceTest, AConfigOfOtherSizeOrSeedIsRefusedNamingBoth) {
  const auto device = OfSize(10);
  EXPECT_TRUE(device->LoadConfig(OfSize(10)->SaveConfig().value()).ok());
  const absl::Status refused = device->LoadConfig(OfSize(11)->SaveConfig().value());
  EXPECT_EQ(refused.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(refused.message()), HasSubstr("'godwit-soft 1 size=11 seed=7'"));
  EXPECT_THAT(std::string(refused.message()), HasSubstr("'godwit-soft 1 size=10 seed=7'"));
  EXPECT_FALSE(device->LoadConfig("").ok());
  EXPECT_FALSE(device->LoadConfig(std::string(70'000, '\x1b')).ok());
}

TEST_F(SoftDeviceTest, FailsWhereItIsToldTo) {
  const auto no_load = Make({.size_bytes = kSize, .seed = 7, .fail_load = true});
  EXPECT_EQ(Load(*no_load, StreamOf(7, kSize)).code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(no_load->State().value(), DeviceState::kResuming);
  EXPECT_FALSE(no_load->content_verified());

  const auto no_save = Make({.size_bytes = kSize, .fail_state = DeviceState::kStopCopy});
  EXPECT_FALSE(no_save->SetState(DeviceState::kStopCopy).ok());
  EXPECT_EQ(no_save->State().value(), DeviceState::kStop);  // the walk's last good state
  EXPECT_TRUE(no_save->SetState(DeviceState::kRunning).ok());
}

// What may be done to end a session; each from each moment below.
class SoftDeviceEndTest : public SoftDeviceTest, public testing::WithParamInterface<const char*> {
 protected:
  void End(std::unique_ptr<SoftDevice>& device) {
    const std::string how = GetParam();
    if (how == "Reset") {
      EXPECT_TRUE(device->Reset().ok());
    } else if (how == "Stop") {  // refused where a stream is half loaded
      static_cast<void>(device->SetState(DeviceState::kStop));
    }
    if (how == "Destroy") device.reset();
  }
};

TEST_P(SoftDeviceEndTest, WithTheSavingPipeFull) {
  auto device = OfSize(kMoreThanAPipe);
  const UniqueFd saving = Enter(*device, DeviceState::kStopCopy);
  pollfd readable = {saving.get(), POLLIN, 0};
  ASSERT_EQ(::poll(&readable, 1, -1), 1);
  End(device);
  EXPECT_LT(ReadToEnd(saving.get()).size(), kMoreThanAPipe);  // and the reader is not left waiting
}

TEST_P(SoftDeviceEndTest, WithHalfOfTheStreamRead) {
  auto device = OfSize(kMoreThanAPipe);
  const UniqueFd saving = Enter(*device, DeviceState::kStopCopy);
  for (size_t got = 0; got < kMoreThanAPipe / 2;) got += ReadSome(saving.get(), kMiB).size();
  End(device);
}

TEST_P(SoftDeviceEndTest, WithTheReaderGone) {
  auto device = OfSize(kMoreThanAPipe);
  Enter(*device, DeviceState::kStopCopy).Reset();
  End(device);
}

TEST_P(SoftDeviceEndTest, WithAReaderWaitingInPreCopy) {
  auto device = Make({.size_bytes = kSize, .flags = {true, true}});
  const UniqueFd saving = Enter(*device, DeviceState::kPreCopy);
  std::thread reader([&] { EXPECT_EQ(ReadToEnd(saving.get()), ""); });
  End(device);
  reader.join();
}

TEST_P(SoftDeviceEndTest, WithNothingLoaded) {
  auto device = OfSize(kMoreThanAPipe);
  const UniqueFd loading = Enter(*device, DeviceState::kResuming);
  End(device);
}

TEST_P(SoftDeviceEndTest, WithHalfOfTheStreamLoaded) {
  auto device = OfSize(kMoreThanAPipe);
  const UniqueFd loading = Enter(*device, DeviceState::kResuming);
  WriteAll(loading.get(), StreamOf(7, kMoreThanAPipe / 2));
  End(device);
}

TEST_P(SoftDeviceEndTest, WithTheWriterGone) {
  auto device = OfSize(kMoreThanAPipe);
  Enter(*device, DeviceState::kResuming).Reset();
  End(device);
}

INSTANTIATE_TEST_SUITE_P(By, SoftDeviceEndTest, testing::Values("Destroy", "Reset", "Stop"),
                         [](const testing::TestParamInfo<const char*>& how) { return how.param; });

TEST_F(SoftDeviceTest, ResetReleasesAWriterThatNeverStops) {
  const auto device = OfSize(kSize);
  const UniqueFd loading = Enter(*device, DeviceState::kResuming);
  std::thread writer([&] {
    sigset_t signals;
    sigemptyset(&signals);
    sigaddset(&signals, SIGPIPE);
    ::pthread_sigmask(SIG_BLOCK, &signals, nullptr);
    const std::string bytes(kMiB, 'x');
    while (::write(loading.get(), bytes.data(), bytes.size()) > 0) {
    }
    EXPECT_EQ(errno, EPIPE);
  });
  EXPECT_TRUE(device->Reset().ok());
  writer.join();
}

}  // namespace
}  // namespace godwit
