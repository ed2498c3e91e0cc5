// Goal: a SPEC is taken as written or refused with a line that says what is wrong and what would
// be right.
#include "vfio/device_spec.h"

#include "tests/vfio/stream_io.h"
#include "vfio/soft_options.h"

namespace godwit {
namespace {

using testing::HasSubstr;

absl::Status Refusal(absl::string_view spec) {
  return OpenDevice(spec, DeviceRole::kSource).status();
}

TEST(DeviceSpecTest, ASoftDevicesOptionsAreRead) {
  const auto options = ParseSoftOptions(
      "seed=18446744073709551615,size=1GiB,flags=p2p+precopy,fail_load=1,fail_state=STOP_COPY");
  ASSERT_TRUE(options.ok()) << options.status();
  EXPECT_EQ(options->size_bytes, uint64_t{1} << 30);
  EXPECT_EQ(options->seed, 18446744073709551615u);
  EXPECT_EQ(options->flags, (MigrationFlags{.p2p = true, .pre_copy = true}));
  EXPECT_TRUE(options->fail_load);
  EXPECT_EQ(options->fail_state, DeviceState::kStopCopy);
}

TEST(DeviceSpecTest, ASoftDeviceNeedsOnlyASize) {
  const auto options = ParseSoftOptions("size=0");
  ASSERT_TRUE(options.ok()) << options.status();
  EXPECT_EQ(options->size_bytes, 0u);
  EXPECT_EQ(options->seed, 0u);
  EXPECT_EQ(options->flags, (MigrationFlags{.p2p = true, .pre_copy = false}));
  EXPECT_FALSE(options->fail_load);
  EXPECT_FALSE(options->fail_state.has_value());
}

TEST(DeviceSpecTest, ADeviceIsNamedAsTheUserNamedIt) {
  const TempDirectory directory;
  WriteFile(directory.Path("a,b=c:d"), "x");
  for (const std::string& spec :
       {std::string("soft:size=1,seed=2"), "file:" + directory.Path("a,b=c:d")}) {
    const auto device = OpenDevice(spec, DeviceRole::kSource);
    ASSERT_TRUE(device.ok()) << device.status();
    EXPECT_EQ((*device)->name(), spec);
    EXPECT_EQ((*device)->kind(), spec.substr(0, 4));
  }
}

TEST(DeviceSpecTest, WhatIsNoKindOfDeviceIsRefusedWithTheFormsThatThereAre) {
  for (const absl::string_view spec : {"", ":", "soft", "soft:", "file:", "vfio:", "file", "disk:x",
                                       "SOFT:size=1", " soft:size=1", "/etc/passwd"}) {
    const absl::Status refusal = Refusal(spec);
    EXPECT_EQ(refusal.code(), absl::StatusCode::kInvalidArgument) << spec;
    EXPECT_THAT(std::string(refusal.message()), HasSubstr(absl::StrCat("'", spec, "'")));
    EXPECT_THAT(std::string(refusal.message()), HasSubstr("soft:size=1GiB,seed=7"));
    EXPECT_THAT(std::string(refusal.message()), HasSubstr("vfio:0000:01:00.1"));
    EXPECT_THAT(std::string(refusal.message()), testing::Not(HasSubstr("\n")));
  }
}

TEST(DeviceSpecTest, ABadSoftOptionIsRefusedByName) {
  const std::pair<const char*, const char*> cases[] = {
      {"soft:seed=7", "size is missing"},
      {"soft:size=", "'' is not a size"},
      {"soft:size=1XiB", "'1XiB' is not a size"},
      {"soft:size=-1", "'-1' is not a size"},
      {"soft:size=1,size=1", "key 'size' is given twice"},
      {"soft:size=1,colour=red", "'colour': unknown key; the keys are size="},
      {"soft:size=1,", "'' is not KEY=VALUE"},
      {"soft:size", "'size' is not KEY=VALUE"},
      {"soft:size=1,=2", "'': unknown key"},
      {"soft:size=1,seed=", "'' is not a number"},
      {"soft:size=1,seed=-1", "'-1' is not a number"},
      {"soft:size=1,seed=+1", "'+1' is not a number"},
      {"soft:size=1,seed=1x", "'1x' is not a number"},
      {"soft:size=1,seed=18446744073709551616", "'18446744073709551616' is not a number"},
      {"soft:size=1,flags=", "'' is not none, p2p"},
      {"soft:size=1,flags=stop", "'stop' is not none, p2p"},
      {"soft:size=1,fail_load=yes", "'yes' is not 0 or 1"},
      {"soft:size=1,fail_state=ERROR", "'ERROR' is none of STOP, RUNNING"},
      {"soft:size=1,fail_state=stop", "'stop' is none of STOP, RUNNING"},
  };
  for (const auto& [spec, complaint] : cases) {
    const absl::Status refusal = Refusal(spec);
    EXPECT_EQ(refusal.code(), absl::StatusCode::kInvalidArgument) << spec;
    EXPECT_THAT(std::string(refusal.message()), HasSubstr(complaint));
    EXPECT_THAT(std::string(refusal.message()), HasSubstr(absl::StrCat("device '", spec, "'")));
  }
}

TEST(DeviceSpecTest, WhatCantBeAVfioDeviceIsRefused) {
  for (const absl::string_view spec :
       {"vfio:01:00.1", "vfio:0000:01:00", "vfio:0000:01:00.1 ", "vfio:000g:01:00.1",
        "vfio:83b8f4f2-509f-382f-3c1e-e6bfe0fa1001", "vfio:../dev"}) {
    EXPECT_EQ(Refusal(spec).code(), absl::StatusCode::kInvalidArgument) << spec;
  }
  EXPECT_EQ(Refusal("vfio:/sys/bus/mdev/devices/no-such-device").code(),
            absl::StatusCode::kNotFound);
  EXPECT_EQ(Refusal("vfio:ffff:ff:1f.7").code(), absl::StatusCode::kNotFound);
}

TEST(DeviceSpecTest, BytesThatNoTerminalShouldSeeAreEscaped) {
  const absl::Status refusal = Refusal("x\x1b[2J\n");
  EXPECT_THAT(std::string(refusal.message()), HasSubstr("'x\\x1b[2J\\n'"));
}

}  // namespace
}  // namespace godwit
