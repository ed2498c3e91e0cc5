// Goal: a VFIO device is opened by the kernel's rules, its real state is known after every
// failure, and each thing that an administrator may have left undone is named.
#include "vfio/kernel_device.h"

#include "tests/vfio/fake_kernel.h"

namespace godwit {
namespace {

using testing::AllOf;
using testing::HasSubstr;

constexpr char kUuid[] = "83b8f4f2-509f-382f-3c1e-e6bfe0fa1001";
constexpr char kBdf[] = "0000:01:00.1";

class KernelDeviceTest : public testing::Test {
 protected:
  KernelDeviceTest() { mdev_path_ = sysfs_.AddMdev(kUuid, "mtty", "42"); }

  absl::StatusOr<std::unique_ptr<KernelDevice>> TryOpen(absl::string_view device) {
    return KernelDevice::Open(device, kernel_, sysfs_.root());
  }
  std::unique_ptr<KernelDevice> Opened() {
    auto device = TryOpen(mdev_path_);
    EXPECT_TRUE(device.ok()) << device.status();
    return device.ok() ? *std::move(device) : nullptr;
  }
  void ExpectRefusal(absl::StatusCode code, const char* complaint) {
    const absl::Status refusal = TryOpen(mdev_path_).status();
    EXPECT_EQ(refusal.code(), code) << refusal;
    EXPECT_THAT(std::string(refusal.message()), AllOf(HasSubstr(kUuid), HasSubstr(complaint)));
    EXPECT_EQ(kernel_.open_fds(), 0);
  }

  FakeSysfs sysfs_;
  FakeKernel kernel_;
  std::string mdev_path_;
};

TEST_F(KernelDeviceTest, OpensAMediatedDeviceByItsPath) {
  const auto device = Opened();
  EXPECT_EQ(kernel_.device_name, kUuid);
  EXPECT_EQ(device->name(), kUuid);
  EXPECT_EQ(device->kind(), "vfio");
  EXPECT_EQ(device->flags(), (MigrationFlags{.p2p = true, .pre_copy = true}));
  EXPECT_EQ(device->State().value(), DeviceState::kRunning);
  EXPECT_EQ(kernel_.resets, 0);
}

TEST_F(KernelDeviceTest, OpensAPciFunctionByItsAddress) {
  sysfs_.AddPci(kBdf, "mlx5_vfio_pci", "42");
  const auto device = TryOpen(kBdf);
  ASSERT_TRUE(device.ok()) << device.status();
  EXPECT_EQ(kernel_.device_name, kBdf);
  EXPECT_EQ((*device)->name(), kBdf);
}

TEST_F(KernelDeviceTest, ATrailingSlashOfThePathIsNoMatter) {
  mdev_path_ += "//";
  Opened();
  EXPECT_EQ(kernel_.device_name, kUuid);
}

TEST_F(KernelDeviceTest, ClosesAllWhenItGoes) {
  {
    const auto device = Opened();
    EXPECT_EQ(kernel_.open_fds(), 3);  // container, group, device
  }
  EXPECT_EQ(kernel_.open_fds(), 0);
}

TEST_F(KernelDeviceTest, KnowsTheFlagsOfEveryKindOfDevice) {
  const std::pair<uint64_t, MigrationFlags> cases[] = {
      {1, {false, false}}, {3, {true, false}}, {5, {false, true}}, {0xf7, {true, true}}};
  for (const auto& [bits, flags] : cases) {
    kernel_.migration_flags = bits;
    EXPECT_EQ(Opened()->flags(), flags) << bits;
  }
}

TEST_F(KernelDeviceTest, ADeviceFoundInAnyOtherStateIsReset) {
  int resets = 0;
  for (const DeviceState found :
       {DeviceState::kStop, DeviceState::kResuming, DeviceState::kError, DeviceState::kStopCopy}) {
    kernel_.state = static_cast<uint32_t>(found);
    EXPECT_EQ(Opened()->State().value(), DeviceState::kRunning);
    EXPECT_EQ(kernel_.resets, ++resets);
  }
}

TEST_F(KernelDeviceTest, OnlyOpeningASessionGivesAnFd) {
  const auto device = Opened();
  EXPECT_FALSE(device->SetState(DeviceState::kRunning).value().valid());
  EXPECT_TRUE(device->SetState(DeviceState::kPreCopy).value().valid());
  EXPECT_FALSE(device->SetState(DeviceState::kStopCopy).value().valid());
  EXPECT_TRUE(device->SetState(DeviceState::kResuming).value().valid());
  EXPECT_FALSE(device->SetState(DeviceState::kStop).value().valid());
}

TEST_F(KernelDeviceTest, AFailedChangeSaysWhereTheDeviceReallyIs) {
  const auto device = Opened();
  kernel_.set_results = {{EIO, DeviceState::kStop}};
  const absl::Status failed = device->SetState(DeviceState::kStopCopy).status();
  EXPECT_THAT(std::string(failed.message()),
              AllOf(HasSubstr(kUuid), HasSubstr("change to STOP_COPY failed"),
                    HasSubstr("Input/output error"), HasSubstr("is now in STOP")));
  EXPECT_EQ(device->State().value(), DeviceState::kStop);
}

TEST_F(KernelDeviceTest, RunningOutOfFdsMayComeAfterTheChange) {
  const auto device = Opened();
  kernel_.set_results = {{EMFILE, DeviceState::kStopCopy}};
  const absl::Status failed = device->SetState(DeviceState::kStopCopy).status();
  EXPECT_EQ(failed.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(failed.message()),
              AllOf(HasSubstr("raise its limit"), HasSubstr("is now in STOP_COPY")));
  EXPECT_TRUE(device->SetState(DeviceState::kRunning).ok());
}

TEST_F(KernelDeviceTest, ARefusedStreamIsAFailedPreconditionAndResetHelps) {
  const auto device = Opened();
  const UniqueFd loading = device->SetState(DeviceState::kResuming).value();
  kernel_.set_results = {{EINVAL, DeviceState::kResuming}};
  const absl::Status refused = device->SetState(DeviceState::kStop).status();
  EXPECT_EQ(refused.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(refused.message()), HasSubstr("is now in RESUMING"));
  EXPECT_TRUE(device->Reset().ok());
  EXPECT_EQ(device->State().value(), DeviceState::kRunning);
}

TEST_F(KernelDeviceTest, AnArcThatIsNotInTheTableIsAFailedPrecondition) {
  const auto device = Opened();
  ASSERT_TRUE(device->SetState(DeviceState::kStopCopy).ok());
  for (const DeviceState wanted : {DeviceState::kPreCopy, DeviceState::kError}) {
    EXPECT_EQ(device->SetState(wanted).status().code(), absl::StatusCode::kFailedPrecondition);
  }
  EXPECT_EQ(device->State().value(), DeviceState::kStopCopy);
}

TEST_F(KernelDeviceTest, AStateThatTheKernelMadeUpIsNoState) {
  const auto device = Opened();
  kernel_.state = 8;
  EXPECT_EQ(device->State().status().code(), absl::StatusCode::kUnimplemented);
}

TEST_F(KernelDeviceTest, EstimatesAreTheKernels) {
  const auto device = Opened();
  EXPECT_EQ(device->StopCopyBytes().value(), 12345u);
  kernel_.data_size_error = ENOTTY;
  EXPECT_EQ(device->StopCopyBytes().status().code(), absl::StatusCode::kUnimplemented);

  const UniqueFd saving = device->SetState(DeviceState::kPreCopy).value();
  const PrecopyInfo info = device->GetPrecopyInfo(saving.get()).value();
  EXPECT_EQ(info.initial_bytes, 100u);
  EXPECT_EQ(info.dirty_bytes, 200u);
  EXPECT_FALSE(info.reinit);  // whatever the flags say, as the feature was not asked for
  kernel_.precopy_error = EINVAL;
  EXPECT_EQ(device->GetPrecopyInfo(saving.get()).status().code(),
            absl::StatusCode::kFailedPrecondition);
  kernel_.precopy_error = ENOTTY;
  EXPECT_EQ(device->GetPrecopyInfo(saving.get()).status().code(), absl::StatusCode::kUnimplemented);
}

TEST_F(KernelDeviceTest, PrecopyFlagsCountOnceTheyWereAskedFor) {
  kernel_.has_precopy_info_v2 = true;
  const auto device = Opened();
  EXPECT_TRUE(device->features().precopy_info_v2);
  const UniqueFd saving = device->SetState(DeviceState::kPreCopy).value();
  EXPECT_TRUE(device->GetPrecopyInfo(saving.get()).value().reinit);
  kernel_.precopy.reinit = false;
  EXPECT_FALSE(device->GetPrecopyInfo(saving.get()).value().reinit);
}

TEST_F(KernelDeviceTest, AStateOfNoBytesIsAState) {
  kernel_.data_size = 0;
  kernel_.precopy = {};
  const auto device = Opened();
  EXPECT_EQ(device->StopCopyBytes().value(), 0u);
  const UniqueFd saving = device->SetState(DeviceState::kPreCopy).value();
  const PrecopyInfo info = device->GetPrecopyInfo(saving.get()).value();
  EXPECT_EQ(info.initial_bytes + info.dirty_bytes, 0u);
}

TEST_F(KernelDeviceTest, OnlyWhatProbingFindsIsThere) {
  EXPECT_EQ(Opened()->features(), (VfioFeatures{.data_size = true}));
  kernel_.data_size_error = ENOTTY;
  EXPECT_EQ(Opened()->features(), VfioFeatures());
  kernel_.has_dma_logging = kernel_.has_precopy_info_v2 = true;
  EXPECT_EQ(Opened()->features(),
            (VfioFeatures{.data_size = false, .dma_logging = true, .precopy_info_v2 = true}));
}

TEST_F(KernelDeviceTest, RunningOutOfFdsOnTheWayToLoadingNeedsAReset) {
  const auto device = Opened();
  for (const int error : {EMFILE, ENFILE}) {
    kernel_.set_results = {{error, DeviceState::kResuming}};
    const absl::Status failed = device->SetState(DeviceState::kResuming).status();
    EXPECT_THAT(std::string(failed.message()),
                AllOf(HasSubstr("raise its limit"), HasSubstr("is now in RESUMING")));
    EXPECT_EQ(failed.code(), absl::StatusCode::kResourceExhausted);
    EXPECT_TRUE(device->Reset().ok());
    EXPECT_TRUE(device->SetState(DeviceState::kResuming).value().valid());
    EXPECT_TRUE(device->Reset().ok());
  }
}

TEST_F(KernelDeviceTest, RunningOutOfFdsWhileOpeningLeavesNoneOpen) {
  for (const char* const file : {"/dev/vfio/vfio", "/dev/vfio/42"}) {
    kernel_.open_errors = {{file, EMFILE}};
    ExpectRefusal(absl::StatusCode::kResourceExhausted, "raise the limit (ulimit -n)");
  }
  kernel_.open_errors = {};
  kernel_.device_error = EMFILE;
  ExpectRefusal(absl::StatusCode::kResourceExhausted, "group 42 does not give the device");
}

TEST_F(KernelDeviceTest, ADeviceThatCantMigrateIsRefused) {
  kernel_.migration_error = ENOTTY;
  ExpectRefusal(absl::StatusCode::kUnimplemented, "can't migrate");
  kernel_.migration_error = 0;
  kernel_.migration_flags = 0;
  ExpectRefusal(absl::StatusCode::kUnimplemented, "can't migrate");
}

TEST_F(KernelDeviceTest, AMissingModuleIsNamed) {
  for (const int error : {ENOENT, ENODEV}) {
    kernel_.open_errors = {{"/dev/vfio/vfio", error}};
    ExpectRefusal(absl::StatusCode::kNotFound, "modprobe vfio");
  }
  kernel_.open_errors = {};
  kernel_.has_type1v2 = false;
  ExpectRefusal(absl::StatusCode::kFailedPrecondition, "modprobe vfio_iommu_type1");
}

TEST_F(KernelDeviceTest, MissingRightsAreNamedWithTheFile) {
  kernel_.open_errors = {{"/dev/vfio/vfio", EACCES}};
  ExpectRefusal(absl::StatusCode::kPermissionDenied, "/dev/vfio/vfio: run as root");
  kernel_.open_errors = {{"/dev/vfio/42", EPERM}};
  ExpectRefusal(absl::StatusCode::kPermissionDenied, "/dev/vfio/42: run as root");
}

TEST_F(KernelDeviceTest, AnotherApiVersionIsRefused) {
  kernel_.api_version = 1;
  ExpectRefusal(absl::StatusCode::kFailedPrecondition, "API version 1, godwit knows 0");
}

TEST_F(KernelDeviceTest, AGroupThatIsNotViableIsRefused) {
  kernel_.group_viable = false;
  ExpectRefusal(absl::StatusCode::kFailedPrecondition, "group 42 is not viable: bind every device");
}

TEST_F(KernelDeviceTest, ADeviceInUseIsUnavailable) {
  kernel_.open_errors = {{"/dev/vfio/42", EBUSY}};
  ExpectRefusal(absl::StatusCode::kUnavailable, "in use by another process");
  kernel_.open_errors = {};
  kernel_.group_busy = true;
  ExpectRefusal(absl::StatusCode::kUnavailable, "in use by another process");
  kernel_.group_busy = false;
  kernel_.device_error = EBUSY;
  ExpectRefusal(absl::StatusCode::kUnavailable, "in use by another process");
}

TEST_F(KernelDeviceTest, AFailureOfEachStepOfOpeningIsReported) {
  kernel_.open_errors = {{"/dev/vfio/42", ENOENT}};
  ExpectRefusal(absl::StatusCode::kNotFound, "no VFIO driver has a device of this IOMMU group");
  kernel_.open_errors = {};
  kernel_.set_container_error = EINVAL;
  ExpectRefusal(absl::StatusCode::kInvalidArgument, "VFIO_GROUP_SET_CONTAINER");
  kernel_.set_container_error = 0;
  kernel_.set_iommu_error = EPERM;
  ExpectRefusal(absl::StatusCode::kPermissionDenied, "allow_unsafe_interrupts");
  kernel_.set_iommu_error = 0;
  kernel_.device_error = ENODEV;
  ExpectRefusal(absl::StatusCode::kNotFound, "is its VFIO driver bound?");
  kernel_.device_error = 0;
  kernel_.state = static_cast<uint32_t>(DeviceState::kError);
  kernel_.reset_error = EINVAL;
  ExpectRefusal(absl::StatusCode::kInvalidArgument, "VFIO_DEVICE_RESET");
}

TEST_F(KernelDeviceTest, ADeviceThatVfioDoesNotHaveIsRefused) {
  EXPECT_EQ(TryOpen("0000:09:00.0").status().code(), absl::StatusCode::kNotFound);

  sysfs_.AddPci("0000:02:00.0", "mlx5_core", "42");
  const absl::Status wrong = TryOpen("0000:02:00.0").status();
  EXPECT_EQ(wrong.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(wrong.message()), HasSubstr("0000:02:00.0 is bound to driver mlx5_core"));

  sysfs_.AddPci("0000:02:00.1", "", "42");
  EXPECT_THAT(std::string(TryOpen("0000:02:00.1").status().message()),
              HasSubstr("is bound to no driver"));

  sysfs_.AddPci("0000:02:00.2", "vfio-pci", "");
  EXPECT_THAT(std::string(TryOpen("0000:02:00.2").status().message()),
              HasSubstr("0000:02:00.2 is in no IOMMU group"));
}

}  // namespace
}  // namespace godwit
