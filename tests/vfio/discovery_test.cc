// Goal: the list has every device that VFIO has, and says why one of them can't migrate.
#include "vfio/discovery.h"

#include <filesystem>

#include "tests/vfio/fake_kernel.h"

namespace godwit {
namespace {

using testing::HasSubstr;

class DiscoveryTest : public testing::Test {
 protected:
  std::vector<VfioDeviceInfo> List() { return ListVfioDevices(kernel_, sysfs_.root()); }
  FakeSysfs sysfs_;
  FakeKernel kernel_;
};

TEST_F(DiscoveryTest, AHostWithoutSuchBusesHasNoDevices) {
  EXPECT_TRUE(List().empty());
  EXPECT_TRUE(ListVfioDevices(kernel_, sysfs_.root() + "/absent").empty());
}

TEST_F(DiscoveryTest, ListsWhatVfioHasAndNothingElse) {
  const std::string mdev = sysfs_.AddMdev("83b8f4f2-509f-382f-3c1e-e6bfe0fa1001", "mtty", "42");
  sysfs_.AddPci("0000:02:00.1", "mlx5_vfio_pci", "42");
  sysfs_.AddPci("0000:02:00.0", "mlx5_core", "41");
  sysfs_.AddPci("0000:01:00.0", "", "40");
  // A driver that is not called after VFIO but registers its devices there.
  const std::string odd = sysfs_.AddPci("0000:01:00.1", "oddly_named", "42");
  std::filesystem::create_directories(odd + "/vfio-dev/vfio0");

  const std::vector<VfioDeviceInfo> list = List();
  ASSERT_EQ(list.size(), 3u);
  EXPECT_EQ(list[0].device.name, "0000:01:00.1");
  EXPECT_EQ(list[0].device.driver, "oddly_named");
  EXPECT_EQ(list[1].device.name, "0000:02:00.1");
  EXPECT_EQ(list[1].device.iommu_group, "42");
  EXPECT_EQ(list[1].spec, "vfio:0000:02:00.1");
  EXPECT_EQ(list[2].device.driver, "mtty");
  EXPECT_EQ(list[2].spec, "vfio:" + mdev);
  for (const VfioDeviceInfo& info : list) {
    EXPECT_EQ(info.flags, (MigrationFlags{.p2p = true, .pre_copy = true}));
    EXPECT_EQ(info.state, DeviceState::kRunning);
    EXPECT_EQ(info.reason, "");
  }
}

TEST_F(DiscoveryTest, SaysWhatProbingFound) {
  FakeSysfs::AddCdev(sysfs_.AddPci("0000:02:00.1", "mlx5_vfio_pci", "42"), "vfio0");
  kernel_.has_dma_logging = kernel_.has_precopy_info_v2 = true;
  // The name is known from sysfs, the device is asked through its group: there is no such file.
  EXPECT_EQ(List()[0].device.cdev, "/dev/vfio/devices/vfio0");
  EXPECT_EQ(List()[0].features,
            (VfioFeatures{.data_size = true, .dma_logging = true, .precopy_info_v2 = true}));
  kernel_.device_name.clear();
  kernel_.has_iommufd = kernel_.has_cdev = true;
  EXPECT_TRUE(List()[0].features.dma_logging);
  EXPECT_EQ(kernel_.device_name, "");
  EXPECT_EQ(kernel_.open_fds(), 0);
}

TEST_F(DiscoveryTest, AskingChangesNoState) {
  sysfs_.AddMdev("83b8f4f2-509f-382f-3c1e-e6bfe0fa1001", "mtty", "42");
  kernel_.state = static_cast<uint32_t>(DeviceState::kStopCopy);
  EXPECT_EQ(List()[0].state, DeviceState::kStopCopy);
  EXPECT_EQ(kernel_.resets, 0);
  EXPECT_EQ(kernel_.open_fds(), 0);
}

TEST_F(DiscoveryTest, ADeviceInUseIsListedAsSuch) {
  sysfs_.AddPci("0000:02:00.1", "mlx5_vfio_pci", "42");
  kernel_.open_errors = {{"/dev/vfio/42", EBUSY}};
  EXPECT_EQ(List()[0].reason, "in use");
  EXPECT_FALSE(List()[0].flags.has_value());
  EXPECT_FALSE(List()[0].state.has_value());
}

TEST_F(DiscoveryTest, ADeviceThatCantBeAskedIsListedWithTheReason) {
  sysfs_.AddPci("0000:02:00.1", "vfio-pci", "42");
  kernel_.migration_error = ENOTTY;
  EXPECT_THAT(List()[0].reason, HasSubstr("can't migrate"));
  kernel_.open_errors = {{"/dev/vfio/vfio", EACCES}};
  EXPECT_THAT(List()[0].reason, HasSubstr("run as root"));
  sysfs_.AddPci("0000:02:00.0", "vfio-pci", "");
  EXPECT_THAT(List()[0].reason, HasSubstr("in no IOMMU group"));
}

}  // namespace
}  // namespace godwit
