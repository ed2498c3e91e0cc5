// Goal: a software device with a profile has that driver's habits, and fails as it is told to.
#include "vfio/soft_profile_device.h"

#include <poll.h>
#include <signal.h>

#include <atomic>
#include <thread>

#include "tests/vfio/stream_io.h"
#include "vfio/little_endian.h"
#include "vfio/soft_options.h"
#include "vfio/state_table.h"
#include "vfio/virtio_parts.h"

namespace godwit {
namespace {

using testing::HasSubstr;

// What one read(2) said: bytes, or a negative errno.
ssize_t ReadResult(int fd, size_t bytes_max, std::string* out = nullptr) {
  std::string bytes(bytes_max, '\0');
  const ssize_t got = ::read(fd, bytes.data(), bytes.size());
  if (got > 0 && out != nullptr) out->append(bytes, 0, static_cast<size_t>(got));
  return got < 0 ? -errno : got;
}

class SoftProfileDeviceTest : public testing::Test {
 protected:
  void SetUp() override { ::signal(SIGPIPE, SIG_IGN); }

  static std::unique_ptr<Device> Make(const std::string& options) {
    auto parsed = ParseSoftOptions(options);
    EXPECT_TRUE(parsed.ok()) << parsed.status();
    return MakeSoftDevice("soft:" + options, *parsed);
  }
  static UniqueFd Enter(Device& device, DeviceState state) {
    auto fd = device.SetState(state);
    EXPECT_TRUE(fd.ok()) << fd.status();
    return fd.ok() ? *std::move(fd) : UniqueFd();
  }
  static std::string Save(const std::string& options) {
    const auto device = Make(options);
    const UniqueFd saving = Enter(*device, DeviceState::kStopCopy);
    return ReadToEnd(saving.get());
  }
  // Writes until the device takes no more, then asks for STOP.
  static absl::Status Load(Device& device, absl::string_view stream) {
    const UniqueFd loading = Enter(device, DeviceState::kResuming);
    while (!stream.empty()) {
      const ssize_t written = ::write(loading.get(), stream.data(), stream.size());
      if (written <= 0) break;
      stream.remove_prefix(static_cast<size_t>(written));
    }
    return device.SetState(DeviceState::kStop).status();
  }
  // What can be read in PRE_COPY until the device says for the tenth time that there is nothing.
  static std::string ReadWhatThereIs(int fd) {
    std::string all;
    for (int nothing = 0; nothing < 10;) {
      const ssize_t got = ReadResult(fd, 1 << 16, &all);
      if (got > 0) continue;
      EXPECT_TRUE(got == 0 || got == -EAGAIN) << got;
      ++nothing;
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    return all;
  }
};

TEST_F(SoftProfileDeviceTest, EveryProfileHasItsDriversFlags) {
  const std::pair<const char*, MigrationFlags> cases[] = {
      {"profile=mlx5,size=1", {true, true}},   {"profile=hisi", {false, true}},
      {"profile=pds,size=1", {true, false}},   {"profile=qat", {true, true}},
      {"profile=virtio,size=1", {true, true}}, {"profile=xe,size=1", {true, false}},
      {"profile=mtty", {true, true}},          {"profile=plain,size=1", {true, false}}};
  for (const auto& [options, flags] : cases) EXPECT_EQ(Make(options)->flags(), flags) << options;
}

TEST_F(SoftProfileDeviceTest, EveryStreamIsFramedAsItsDriversIs) {
  EXPECT_EQ(Save("profile=hisi").size(), 176u);
  EXPECT_EQ(Save("profile=qat").size(), 4096u);
  EXPECT_EQ(Save("profile=mtty").size(), 24u + 36);
  EXPECT_EQ(Save("profile=mtty,size=96").size(), 24u + 2 * 36);
  EXPECT_EQ(Save("profile=pds,size=64KiB").size(), 65536u);
  EXPECT_EQ(Save("profile=mlx5,size=100").size(), 24u + 16 + 8 + 100);
  EXPECT_EQ(Save("profile=xe,size=100").size(), 24u + 8 + 24 + 100 + 24);
  const std::string virtio = Save("profile=virtio,size=100");
  EXPECT_EQ(LoadLittle<uint64_t>(virtio), virtio.size() - 16);
  EXPECT_TRUE(CheckVirtioContext(absl::string_view(virtio).substr(16)).ok());
}

TEST_F(SoftProfileDeviceTest, Mlx5sFirstReadIsShort) {
  const auto device = Make("profile=mlx5,size=3MiB");
  const UniqueFd saving = Enter(*device, DeviceState::kStopCopy);
  EXPECT_EQ(ReadResult(saving.get(), 1 << 20), 24);
}

TEST_F(SoftProfileDeviceTest, ReadsEndWhereTheyAreToldTo) {
  for (const size_t read_bytes : {size_t{1}, size_t{7}, size_t{4096}, size_t{10'000}}) {
    const auto device = Make(absl::StrCat("profile=pds,size=20001,read_bytes=", read_bytes));
    const UniqueFd saving = Enter(*device, DeviceState::kStopCopy);
    std::string all;
    while (all.size() < 20'001) {
      const ssize_t got = ReadResult(saving.get(), 1 << 14, &all);
      ASSERT_GT(got, 0);
      // The last byte of a long segment can come by itself; no read ever goes past a segment.
      EXPECT_LE(static_cast<size_t>(got), read_bytes);
      if (read_bytes <= 4096 && all.size() < 20'001) {
        EXPECT_EQ(static_cast<size_t>(got), read_bytes);
      }
    }
    EXPECT_EQ(ReadResult(saving.get(), 1 << 14), 0);
    EXPECT_EQ(all, Save("profile=pds,size=20001"));
  }
}

TEST_F(SoftProfileDeviceTest, AShortReadLosesNothing) {
  const auto device = Make("profile=pds,size=5000,read_bytes=4096");
  const UniqueFd saving = Enter(*device, DeviceState::kStopCopy);
  std::string all;
  while (ReadResult(saving.get(), 3, &all) > 0) {
  }
  EXPECT_EQ(all, Save("profile=pds,size=5000"));
}

TEST_F(SoftProfileDeviceTest, AReadErrorComesOnceAndARetryFindsTheEnd) {
  for (const uint64_t at : {0u, 1u, 100u, 24u + 8 + 24 + 100 + 24}) {
    const auto device = Make(absl::StrCat("profile=xe,size=100,fail_read=", at));
    const UniqueFd saving = Enter(*device, DeviceState::kStopCopy);
    std::string all;
    ssize_t got = 0;
    while ((got = ReadResult(saving.get(), 64, &all)) > 0) {
    }
    EXPECT_EQ(got, -ECONNRESET);
    EXPECT_EQ(all.size(), at);
    EXPECT_EQ(ReadResult(saving.get(), 64), 0);
  }
}

TEST_F(SoftProfileDeviceTest, AfterStopTheStreamIsDead) {
  const auto device = Make("profile=qat");
  const UniqueFd saving = Enter(*device, DeviceState::kStopCopy);
  ASSERT_EQ(ReadResult(saving.get(), 8192), 4096);
  ASSERT_TRUE(device->SetState(DeviceState::kStop).ok());
  EXPECT_EQ(ReadResult(saving.get(), 8192), -ECONNRESET);
}

TEST_F(SoftProfileDeviceTest, ACutOffStreamIsAcceptedWhereTheDriverDoes) {
  const std::pair<const char*, bool> cases[] = {
      {"profile=mlx5,size=1000", true}, {"profile=virtio,size=1000", true},
      {"profile=pds,size=1000", true},  {"profile=hisi", false},
      {"profile=qat", false},           {"profile=xe,size=1000", false},
      {"profile=mtty", false},          {"profile=plain,size=1000,read_bytes=5", false}};
  for (const auto& [options, accepted] : cases) {
    const std::string stream = Save(options);
    for (const size_t bytes : {size_t{0}, stream.size() / 2, stream.size() - 1}) {
      const auto device = Make(options);
      const absl::Status stopped = Load(*device, absl::string_view(stream).substr(0, bytes));
      EXPECT_EQ(stopped.ok(), accepted) << options << " " << bytes << " " << stopped;
      EXPECT_FALSE(device->content_verified());
      EXPECT_EQ(device->State().value(), accepted ? DeviceState::kStop : DeviceState::kResuming);
      EXPECT_TRUE(device->Reset().ok());
      EXPECT_TRUE(Load(*device, stream).ok()) << options;
      EXPECT_TRUE(device->content_verified()) << options;
    }
  }
}

TEST_F(SoftProfileDeviceTest, AWrongByteIsNeverVerified) {
  for (const char* const options :
       {"profile=mlx5,size=1000", "profile=virtio,size=1000", "profile=pds,size=1000",
        "profile=hisi", "profile=qat", "profile=xe,size=1000", "profile=mtty"}) {
    std::string stream = Save(options);
    stream[stream.size() - 30] ^= 1;  // in the image, whatever the framing
    const auto device = Make(options);
    EXPECT_EQ(Load(*device, stream).code(), absl::StatusCode::kFailedPrecondition) << options;
    EXPECT_EQ(device->State().value(), DeviceState::kResuming);
    EXPECT_FALSE(device->content_verified());
  }
}

TEST_F(SoftProfileDeviceTest, OneByteTooManyIsRefusedByTheWriteThatBringsIt) {
  const auto device = Make("profile=hisi");
  const UniqueFd loading = Enter(*device, DeviceState::kResuming);
  const std::string stream = Save("profile=hisi") + "x";
  EXPECT_EQ(::write(loading.get(), stream.data(), stream.size()), -1);
  EXPECT_EQ(errno, EPERM);
  EXPECT_EQ(::write(loading.get(), stream.data(), 176), 176);
  EXPECT_EQ(::write(loading.get(), stream.data() + 176, 1), -1);
}

TEST_F(SoftProfileDeviceTest, AWriteCanBeShortAndThenFail) {
  const auto device = Make("profile=pds,size=20000,fail_write=8192");
  const UniqueFd loading = Enter(*device, DeviceState::kResuming);
  const std::string stream = Save("profile=pds,size=20000");
  EXPECT_EQ(::write(loading.get(), stream.data(), stream.size()), 8192);
  EXPECT_EQ(::write(loading.get(), stream.data() + 8192, 1), -1);
  EXPECT_EQ(errno, EPERM);
}

TEST_F(SoftProfileDeviceTest, AfterOneBadWriteEveryWriteFails) {
  const auto device = Make("profile=mlx5,size=1000,fail_write=100");
  const UniqueFd loading = Enter(*device, DeviceState::kResuming);
  const std::string stream = Save("profile=mlx5,size=1000");
  ASSERT_GT(::write(loading.get(), stream.data(), 101), 0);
  pollfd closed = {loading.get(), 0, 0};
  ASSERT_EQ(::poll(&closed, 1, 10'000), 1);
  for (int i = 0; i < 3; ++i) EXPECT_LT(::write(loading.get(), stream.data(), 1), 0);
  EXPECT_EQ(device->SetState(DeviceState::kStop).status().code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(device->State().value(), DeviceState::kResuming);
}

TEST_F(SoftProfileDeviceTest, UnknownTagsAreSkippedOrRefused) {
  for (const std::string profile : {"mlx5", "virtio"}) {
    const std::string options = absl::StrCat("profile=", profile, ",size=100");
    const auto lenient = Make(options);
    EXPECT_TRUE(Load(*lenient, Save(options + ",unknown_tag=optional")).ok());
    EXPECT_TRUE(lenient->content_verified());
    const auto strict = Make(options);
    const absl::Status refused = Load(*strict, Save(options + ",unknown_tag=mandatory"));
    EXPECT_THAT(std::string(refused.message()), HasSubstr("mandatory tag 99 is unknown"));
  }
}

TEST_F(SoftProfileDeviceTest, NothingNowIsWhatTheDriverSays) {
  for (const std::string profile : {"hisi", "qat", "mtty"}) {
    const auto device = Make("profile=" + profile);
    const UniqueFd saving = Enter(*device, DeviceState::kPreCopy);
    const std::string early = ReadWhatThereIs(saving.get());
    EXPECT_EQ(ReadResult(saving.get(), 4096), 0);  // and that is not the end
    EXPECT_FALSE(Enter(*device, DeviceState::kStopCopy).valid());
    EXPECT_EQ(early + ReadToEnd(saving.get()), Save("profile=" + profile)) << profile;
    EXPECT_GT(early.size(), 0u);
  }
  const auto device = Make("profile=mlx5,size=1000");
  const UniqueFd saving = Enter(*device, DeviceState::kPreCopy);
  ReadWhatThereIs(saving.get());
  EXPECT_EQ(ReadResult(saving.get(), 4096), -EAGAIN);
}

// A read looks for a message first and for the end then: were there both, it could miss the first.
TEST_F(SoftProfileDeviceTest, NoEndIsThereBeforeAllIsRead) {
  for (const char* profile : {"hisi", "qat", "mtty"}) {
    const auto device = Make(absl::StrCat("profile=", profile));
    const UniqueFd saving = Enter(*device, DeviceState::kPreCopy);
    std::string all = ReadWhatThereIs(saving.get());
    Enter(*device, DeviceState::kStopCopy);
    pollfd rest = {saving.get(), POLLIN, 0};
    ASSERT_EQ(::poll(&rest, 1, 10'000), 1) << profile;
    pollfd end = {saving.get(), POLLRDHUP, 0};
    EXPECT_EQ(::poll(&end, 1, 20), 0) << profile << ": the end, and something to read";
    all += ReadToEnd(saving.get());
    EXPECT_EQ(all, Save(absl::StrCat("profile=", profile))) << profile;
    EXPECT_EQ(::poll(&end, 1, 0), 1) << profile;
  }
}

TEST_F(SoftProfileDeviceTest, AskingIsWhatMakesTheNextDirtyChunk) {
  const auto device = Make("profile=mlx5,size=1000,dirty=1GiB");
  const UniqueFd saving = Enter(*device, DeviceState::kPreCopy);
  EXPECT_EQ(ReadWhatThereIs(saving.get()).size(), 24u + 16 + 8 + 1000);
  EXPECT_EQ(ReadWhatThereIs(saving.get()), "");  // reading alone brings nothing, for ever
  for (int call = 0; call < 5; ++call) {
    EXPECT_EQ(device->GetPrecopyInfo(saving.get())->dirty_bytes, 1000u);  // never 0
    EXPECT_EQ(ReadWhatThereIs(saving.get()).size(), 16u + 8 + 1000);
  }
}

TEST_F(SoftProfileDeviceTest, VirtioIsDirtyUntilItsCallsAreUsedUp) {
  const auto device = Make("profile=virtio,size=100");
  const UniqueFd saving = Enter(*device, DeviceState::kPreCopy);
  std::string stream = ReadWhatThereIs(saving.get());
  const size_t context = stream.size();
  for (int call = 0; call < 128; ++call) {
    ASSERT_GT(device->GetPrecopyInfo(saving.get())->dirty_bytes, 0u) << call;
    const size_t wanted = stream.size() + context;  // a full one each time
    pollfd readable = {saving.get(), POLLIN, 0};
    while (stream.size() < wanted && ::poll(&readable, 1, 10'000) == 1) {
      ReadResult(saving.get(), 1 << 16, &stream);
    }
  }
  // The device learns in its own time that the last one was read.
  uint64_t dirty_bytes = 1;
  for (int look = 0; look < 1000 && dirty_bytes > 0; ++look) {
    dirty_bytes = device->GetPrecopyInfo(saving.get())->dirty_bytes;
    if (dirty_bytes > 0) std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  EXPECT_EQ(dirty_bytes, 0u);
  EXPECT_FALSE(Enter(*device, DeviceState::kStopCopy).valid());
  stream += ReadToEnd(saving.get());
  EXPECT_EQ(stream.size(), 130 * context);
  const auto target = Make("profile=virtio,size=100");
  EXPECT_TRUE(Load(*target, stream).ok());
  EXPECT_TRUE(target->content_verified());
}

TEST_F(SoftProfileDeviceTest, WithoutACapVirtiosDirtyBytesNeverReachZero) {
  const auto device = Make("profile=virtio,size=10,precopy_calls=0");
  const UniqueFd saving = Enter(*device, DeviceState::kPreCopy);
  ReadWhatThereIs(saving.get());
  for (int call = 0; call < 300; ++call) {
    ASSERT_GT(device->GetPrecopyInfo(saving.get())->dirty_bytes, 0u) << call;
    pollfd readable = {saving.get(), POLLIN, 0};
    ASSERT_EQ(::poll(&readable, 1, 10'000), 1);
    std::string chunk;
    while (ReadResult(saving.get(), 1 << 16, &chunk) > 0) {
    }
  }
}

TEST_F(SoftProfileDeviceTest, PreCopyAndStopCopyAreOneLoadableStreamWhateverFails) {
  for (const char* const options :
       {"profile=mlx5,size=100000,dirty=1MiB", "profile=mlx5,size=100000,fail_precopy=1",
        "profile=virtio,size=5000", "profile=virtio,size=5000,fail_precopy=1", "profile=hisi",
        "profile=hisi,fail_precopy=1", "profile=qat", "profile=qat,fail_precopy=1", "profile=mtty",
        "profile=mtty,fail_precopy=1", "profile=qat,read_bytes=7",
        "profile=mlx5,size=999,read_bytes=1",
        "profile=plain,size=3000,flags=p2p+precopy,read_bytes=7"}) {
    const auto source = Make(options);
    const UniqueFd saving = Enter(*source, DeviceState::kPreCopy);
    const bool fails = absl::string_view(options).find("fail_precopy") != absl::string_view::npos;
    std::string stream;
    for (int round = 0; round < 3; ++round) {
      stream += ReadWhatThereIs(saving.get());
      const auto info = source->GetPrecopyInfo(saving.get());
      ASSERT_TRUE(info.ok()) << info.status();
    }
    EXPECT_EQ(stream.empty(), fails) << options;
    EXPECT_FALSE(Enter(*source, DeviceState::kStopCopy).valid());
    stream += ReadToEnd(saving.get());
    const auto target = Make(options);
    const absl::Status stopped = Load(*target, stream);
    EXPECT_TRUE(stopped.ok()) << options << ": " << stopped;
    EXPECT_TRUE(target->content_verified()) << options;
  }
}

TEST_F(SoftProfileDeviceTest, AResetInMidPreCopyLeavesItRunningAndTheStreamDead) {
  for (const char* const options :
       {"profile=mlx5,size=1000,reset_at=100", "profile=qat,reset_at=100",
        "profile=virtio,size=1000,reset_at=100"}) {
    const auto device = Make(options);
    const UniqueFd saving = Enter(*device, DeviceState::kPreCopy);
    ssize_t got = 0;
    std::string all;
    while ((got = ReadResult(saving.get(), 4096, &all)) > 0 || got == -EAGAIN || got == 0) {
      ASSERT_LE(all.size(), 100u);
    }
    EXPECT_EQ(got, -ECONNRESET) << options;
    EXPECT_EQ(all.size(), 100u);
    EXPECT_EQ(device->State().value(), DeviceState::kRunning);
    EXPECT_FALSE(device->GetPrecopyInfo(saving.get()).ok());
    EXPECT_TRUE(device->SetState(DeviceState::kStopCopy).ok());  // once is enough
  }
}

TEST_F(SoftProfileDeviceTest, InErrorEveryChangeFailsUntilItIsReset) {
  const auto device = Make("profile=xe,size=1000,error_at=100");
  const UniqueFd saving = Enter(*device, DeviceState::kStopCopy);
  std::string all;
  while (ReadResult(saving.get(), 4096, &all) > 0) {
  }
  EXPECT_EQ(device->State().value(), DeviceState::kError);
  for (const DeviceState state : {DeviceState::kRunning, DeviceState::kStop}) {
    EXPECT_THAT(std::string(device->SetState(state).status().message()), HasSubstr("ERROR"));
  }
  EXPECT_TRUE(device->Reset().ok());
  EXPECT_EQ(device->State().value(), DeviceState::kRunning);
}

TEST_F(SoftProfileDeviceTest, ADetachedDeviceSaysSoToEverything) {
  const auto device = Make("profile=pds,size=1000,detach_at=100");
  const UniqueFd saving = Enter(*device, DeviceState::kStopCopy);
  std::string all;
  while (ReadResult(saving.get(), 4096, &all) > 0) {
  }
  for (const absl::Status& status :
       {device->State().status(), device->SetState(DeviceState::kRunning).status(), device->Reset(),
        device->SaveConfig().status()}) {
    EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
    EXPECT_THAT(std::string(status.message()), HasSubstr("ENOTCONN"));
  }
}

TEST_F(SoftProfileDeviceTest, TheStopArcFailsAsToldAndTheDeviceStaysWhereItWas) {
  for (const char* const error : {"EBUSY", "EIO"}) {
    const auto device = Make(absl::StrCat("profile=mlx5,size=10,stop_error=", error));
    EXPECT_FALSE(device->SetState(DeviceState::kStopCopy).ok());
    EXPECT_EQ(device->State().value(), DeviceState::kRunningP2p);
    EXPECT_TRUE(device->SetState(DeviceState::kRunning).ok());
  }
}

TEST_F(SoftProfileDeviceTest, StopWaitsForTheReader) {
  const auto device = Make("profile=mlx5,size=10,block_stop=1");
  UniqueFd saving = Enter(*device, DeviceState::kStopCopy);
  std::atomic<bool> closed{false};
  std::thread reader([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    closed = true;
    saving.Reset();
  });
  EXPECT_TRUE(device->SetState(DeviceState::kStop).ok());
  EXPECT_TRUE(closed);
  reader.join();
}

TEST_F(SoftProfileDeviceTest, Only255DevicePartsObjectsAreThereAtOnce) {
  std::vector<std::unique_ptr<Device>> devices;
  std::vector<UniqueFd> streams;
  for (int i = 0; i < VirtioPartsObject::kObjectsMax; ++i) {
    devices.push_back(Make("profile=virtio,size=1"));
    streams.push_back(Enter(*devices.back(), DeviceState::kResuming));
  }
  const auto one_more = Make("profile=virtio,size=1");
  const absl::Status refused = one_more->SetState(DeviceState::kStopCopy).status();
  EXPECT_EQ(refused.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(refused.message()), HasSubstr("all 255 device-parts objects"));
  EXPECT_TRUE(devices.front()->Reset().ok());
  EXPECT_TRUE(one_more->SetState(DeviceState::kStopCopy).ok());
  devices.clear();
  ASSERT_TRUE(one_more->SetState(DeviceState::kRunning).ok());
  EXPECT_EQ(VirtioPartsObject::in_use(), 0);
}

TEST_F(SoftProfileDeviceTest, EveryArcIsTheTables) {
  for (const char* const options :
       {"profile=mlx5,size=0", "profile=xe,size=0,read_bytes=1", "profile=virtio,size=0",
        "profile=pds,size=0", "profile=hisi"}) {
    const MigrationFlags flags = Make(options)->flags();
    for (uint32_t from = 0; from < kDeviceStateCount; ++from) {
      for (uint32_t to = 0; to < kDeviceStateCount; ++to) {
        const auto now = static_cast<DeviceState>(from);
        const auto wanted = static_cast<DeviceState>(to);
        const auto device = Make(options);
        if (!device->SetState(now).ok()) continue;
        // Nothing was loaded, which only some accept.
        const bool accepts = absl::string_view(options).find("xe") == absl::string_view::npos &&
                             absl::string_view(options).find("hisi") == absl::string_view::npos;
        const bool refuses = now == DeviceState::kResuming && wanted != now && !accepts;
        const bool legal = Walk(flags, now, wanted).ok() && !refuses;
        const auto data_fd = device->SetState(wanted);
        EXPECT_EQ(data_fd.ok(), legal)
            << options << DeviceStateName(now) << DeviceStateName(wanted);
        EXPECT_EQ(device->State().value(), legal ? wanted : now);
        if (!legal) continue;
        const bool opens = (wanted == DeviceState::kResuming && now != wanted) ||
                           (IsSaving(wanted) && !IsSaving(now));
        EXPECT_EQ(data_fd->valid(), opens);
      }
    }
  }
}

TEST_F(SoftProfileDeviceTest, OptionsThatMakeNoSenseTogetherAreRefusedByName) {
  const std::pair<const char*, const char*> cases[] = {
      {"profile=ixgbe,size=1", "'ixgbe' is none of plain, mlx5, hisi"},
      {"profile=mlx5", "size is missing"},
      {"profile=hisi,size=177", "a device like hisi has 176 bytes of state, not 177"},
      {"profile=mtty,size=61", "60 (one port) or 96 (two)"},
      {"profile=pds,size=65537", "at most 65536"},
      {"profile=mlx5,size=1,flags=none", "'flags': a device like mlx5"},
      {"profile=xe,size=1,dirty=1MiB", "'dirty': a device like xe has no dirty data"},
      {"profile=qat,precopy_calls=1", "'precopy_calls'"},
      {"profile=qat,unknown_tag=optional", "'unknown_tag'"},
      {"profile=xe,size=1,unknown_tag=optional", "has no optional tags"},
      {"size=1,unknown_tag=maybe", "'maybe' is not optional or mandatory"},
      {"size=1,stop_error=ENOENT", "'ENOENT' is not EBUSY or EIO"},
      {"size=1,reset_at=1,error_at=1", "only one of reset_at"}};
  for (const auto& [options, complaint] : cases) {
    const absl::Status refused = ParseSoftOptions(options).status();
    EXPECT_EQ(refused.code(), absl::StatusCode::kInvalidArgument) << options;
    EXPECT_THAT(std::string(refused.message()), HasSubstr(complaint));
  }
}

}  // namespace
}  // namespace godwit
