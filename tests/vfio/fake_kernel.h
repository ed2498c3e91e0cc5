// A kernel with one VFIO device behind one group, and a sysfs that shows devices.
#ifndef GODWIT_TESTS_VFIO_FAKE_KERNEL_H_
#define GODWIT_TESTS_VFIO_FAKE_KERNEL_H_

#include <deque>
#include <map>
#include <string>

#include "godwit/device.h"
#include "tests/vfio/stream_io.h"
#include "vfio/vfio_kernel.h"

namespace godwit {

// Keeps the order that the real one asks for: an ioctl that comes too early fails with EINVAL.
class FakeKernel final : public VfioKernel {
 public:
  struct SetResult {
    int error;               // 0: nothing special
    DeviceState state_then;  // where the device is afterwards
  };

  int Open(const std::string& path) override;
  int Ioctl(int fd, unsigned long request, void* argument) override;

  // Errors are errno values, 0 for none.
  std::map<std::string, int> open_errors;  // by path
  std::string group = "42";
  int api_version = 0;
  bool has_type1v2 = true;
  bool group_viable = true;
  bool group_busy = false;
  int set_container_error = 0;
  int set_iommu_error = 0;
  int device_error = 0;

  int migration_error = 0;
  uint64_t migration_flags = 7;
  int data_size_error = 0;
  uint64_t data_size = 12345;
  int precopy_error = 0;
  int reset_error = 0;
  std::deque<SetResult> set_results;  // of the next SETs; none left: they succeed
  uint32_t state = static_cast<uint32_t>(DeviceState::kRunning);

  int resets = 0;
  int open_fds() const;  // not closed yet
  std::string device_name;

 private:
  enum class Role { kContainer, kGroup, kDevice, kData };

  int NewFd(Role role);
  int ContainerIoctl(unsigned long request, void* argument);
  int GroupIoctl(unsigned long request, void* argument);
  int DeviceIoctl(unsigned long request, void* argument);
  int Feature(void* argument);
  int SetState(void* payload);

  std::map<int, Role> roles_;
  bool container_set_ = false;
  bool iommu_set_ = false;
};

// Directories and links as sysfs has them.
class FakeSysfs {
 public:
  FakeSysfs();
  // Empty `driver` or `group`: none. Returns the device's path.
  std::string AddPci(const std::string& name, const std::string& driver, const std::string& group);
  std::string AddMdev(const std::string& uuid, const std::string& driver, const std::string& group);
  const std::string& root() const { return directory_.path(); }

 private:
  std::string Add(const std::string& bus, const std::string& name, const std::string& driver,
                  const std::string& group);
  TempDirectory directory_;
};

}  // namespace godwit

#endif  // GODWIT_TESTS_VFIO_FAKE_KERNEL_H_
