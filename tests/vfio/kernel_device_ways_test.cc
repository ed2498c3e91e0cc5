// Goal: a device is reached by group, by cdev or by an fd that a VMM holds; the way is chosen by
// what the kernel has, and what is not a VFIO device's fd is refused in one line.
#include <fcntl.h>
#include <unistd.h>

#include "tests/vfio/fake_kernel.h"
#include "vfio/kernel_device.h"

namespace godwit {
namespace {

using testing::AllOf;
using testing::HasSubstr;

constexpr char kBdf[] = "0000:01:00.1";

class KernelDeviceWaysTest : public testing::Test {
 protected:
  KernelDeviceWaysTest() {
    FakeSysfs::AddCdev(sysfs_.AddPci(kBdf, "mlx5_vfio_pci", "42"), "vfio0");
    kernel_.has_iommufd = kernel_.has_cdev = true;
  }

  // The way by which the device was opened.
  std::string Way(const std::string& spec) {
    kernel_.device_name.clear();
    const auto device = KernelDevice::Open(spec, kernel_, sysfs_.root());
    if (!device.ok()) return std::string(device.status().message());
    EXPECT_EQ((*device)->State().value(), DeviceState::kRunning);
    EXPECT_EQ(kernel_.open_fds(), kernel_.device_name.empty() ? 2 : 3);
    return kernel_.device_name.empty() ? "cdev" : "group";
  }
  absl::Status Refusal(const std::string& spec) {
    const absl::Status status = KernelDevice::Open(spec, kernel_, sysfs_.root()).status();
    EXPECT_EQ(kernel_.open_fds(), 0);
    return status;
  }

  FakeSysfs sysfs_;
  FakeKernel kernel_;
};

TEST_F(KernelDeviceWaysTest, TheCdevIsTakenWhereTheKernelHasIt) {
  EXPECT_EQ(Way(kBdf), "cdev");
  kernel_.has_iommufd = false;
  EXPECT_EQ(Way(kBdf), "group");
  kernel_.has_iommufd = true;
  kernel_.has_cdev = false;  // the directory alone is there from 6.1 on
  EXPECT_EQ(Way(kBdf), "group");
  EXPECT_EQ(kernel_.open_fds(), 0);
}

TEST_F(KernelDeviceWaysTest, EitherWayCanBeForced) {
  EXPECT_EQ(Way(absl::StrCat(kBdf, ",via=group")), "group");
  EXPECT_EQ(Way(absl::StrCat(kBdf, ",via=cdev")), "cdev");
  kernel_.has_iommufd = false;
  EXPECT_THAT(Way(absl::StrCat(kBdf, ",via=cdev")), HasSubstr("/dev/iommu: is iommufd in this"));
  kernel_.has_iommufd = true;
  kernel_.has_cdev = false;
  EXPECT_THAT(Way(absl::StrCat(kBdf, ",via=cdev")), HasSubstr("CONFIG_VFIO_DEVICE_CDEV"));
  sysfs_.AddPci("0000:02:00.0", "vfio-pci", "42");
  EXPECT_THAT(Way("0000:02:00.0,via=cdev"), HasSubstr("no file of its own"));
}

TEST_F(KernelDeviceWaysTest, AnotherWordThanGroupOrCdevIsRefused) {
  for (const char* const option : {"", "via=", "via=iommufd", "via=group,via=cdev", "VIA=group"}) {
    const absl::Status refusal = Refusal(absl::StrCat(kBdf, ",", option));
    EXPECT_EQ(refusal.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(refusal.message()),
                HasSubstr(absl::StrCat("'", option, "' is neither via=group nor via=cdev")));
  }
}

TEST_F(KernelDeviceWaysTest, ADeviceWithoutAGroupIsReachedByItsCdev) {
  FakeSysfs::AddCdev(sysfs_.AddPci("0000:02:00.0", "vfio-pci", ""), "vfio0");
  EXPECT_EQ(Way("0000:02:00.0"), "cdev");
  EXPECT_EQ(Refusal("0000:02:00.0,via=group").code(), absl::StatusCode::kFailedPrecondition);
}

TEST_F(KernelDeviceWaysTest, WhatIsWrongWithACdevIsNotHiddenByTheOlderWay) {
  for (const int error : {EBUSY, EINVAL}) {  // EINVAL is the kernel's word for a second bind
    kernel_.bind_error = error;
    const absl::Status busy = Refusal(kBdf);
    EXPECT_EQ(busy.code(), absl::StatusCode::kUnavailable);
    EXPECT_THAT(std::string(busy.message()),
                AllOf(HasSubstr(kBdf), HasSubstr("/dev/vfio/devices/vfio0: in use")));
  }
  kernel_.bind_error = EPERM;
  EXPECT_THAT(std::string(Refusal(kBdf).message()), HasSubstr("allow_unsafe_interrupts"));
  kernel_.bind_error = 0;
  kernel_.open_errors = {{"/dev/vfio/devices/vfio0", EACCES}};
  const absl::Status denied = Refusal(kBdf);
  EXPECT_EQ(denied.code(), absl::StatusCode::kPermissionDenied);
  EXPECT_THAT(std::string(denied.message()),
              AllOf(HasSubstr("/dev/vfio/devices/vfio0: run as root"), HasSubstr("via=group")));
  kernel_.open_errors = {{"/dev/iommu", EMFILE}};
  EXPECT_EQ(Refusal(kBdf).code(), absl::StatusCode::kResourceExhausted);
}

TEST_F(KernelDeviceWaysTest, AnAdoptedDeviceIsTakenAsItIs) {
  kernel_.state = static_cast<uint32_t>(DeviceState::kStop);
  {
    const auto device =
        KernelDevice::Adopt(UniqueFd(kernel_.GiveDevice()), "the VM's NIC", kernel_);
    ASSERT_TRUE(device.ok()) << device.status();
    EXPECT_EQ((*device)->name(), "the VM's NIC");
    EXPECT_EQ((*device)->kind(), "vfio");
    EXPECT_EQ((*device)->State().value(), DeviceState::kStop);
    EXPECT_TRUE((*device)->SetState(DeviceState::kStopCopy).value().valid());
  }
  EXPECT_EQ(kernel_.resets, 0);
  EXPECT_EQ(kernel_.open_fds(), 0);
}

TEST_F(KernelDeviceWaysTest, ABorrowedFdStaysOpen) {
  const UniqueFd vmms(kernel_.GiveDevice());
  EXPECT_TRUE(KernelDevice::AdoptBorrowed(vmms.get(), "nic", kernel_).ok());
  kernel_.migration_error = ENOTTY;
  EXPECT_EQ(KernelDevice::AdoptBorrowed(vmms.get(), "nic", kernel_).status().code(),
            absl::StatusCode::kUnimplemented);
  EXPECT_EQ(kernel_.open_fds(), 1);
  EXPECT_EQ(kernel_.resets, 0);
}

TEST_F(KernelDeviceWaysTest, AnUnboundCdevIsNotReadyToBeAdopted) {
  const absl::Status refusal =
      KernelDevice::Adopt(UniqueFd(kernel_.GiveUnboundCdev()), "nic", kernel_).status();
  EXPECT_EQ(refusal.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(refusal.message()), HasSubstr("not bound to an iommufd"));
}

// Over the real kernel.
TEST(AdoptTest, AnFdOfSomethingElseIsRefused) {
  int pipe_fds[2];
  ASSERT_EQ(::pipe2(pipe_fds, O_CLOEXEC), 0);
  const UniqueFd reader(pipe_fds[0]);
  const UniqueFd writer(pipe_fds[1]);
  const TempDirectory directory;
  WriteFile(directory.Path("file"), "x");
  const UniqueFd file(::open(directory.Path("file").c_str(), O_RDWR | O_CLOEXEC));
  const UniqueFd null(::open("/dev/null", O_RDWR | O_CLOEXEC));
  for (const int fd : {reader.get(), writer.get(), file.get(), null.get()}) {
    const absl::Status refusal = VfioDevice::AdoptBorrowed(fd, "nic").status();
    EXPECT_EQ(refusal.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(refusal.message()),
                HasSubstr(absl::StrCat("nic: fd ", fd, " is not a VFIO device's")));
    EXPECT_GE(::fcntl(fd, F_GETFD), 0);  // still its owner's
  }
  for (const int fd : {-1, 1 << 20}) {
    EXPECT_THAT(std::string(VfioDevice::AdoptBorrowed(fd, "nic").status().message()),
                HasSubstr("is not open"));
  }
  EXPECT_EQ(VfioDevice::Adopt(UniqueFd(), "nic").status().code(),
            absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace godwit
