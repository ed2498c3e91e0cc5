#include "vfio/vfio_kernel.h"

#include <fcntl.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <cerrno>

namespace godwit {
namespace {

class RealKernel final : public VfioKernel {
 public:
  int Open(const std::string& path) override {
    const int fd = ::open(path.c_str(), O_RDWR | O_CLOEXEC);
    return fd >= 0 ? fd : -errno;
  }
  int Ioctl(int fd, unsigned long request, void* argument) override {
    const int result = ::ioctl(fd, request, argument);
    return result >= 0 ? result : -errno;
  }
  ssize_t Pread(int fd, void* to, size_t bytes, uint64_t offset) override {
    const ssize_t result = ::pread(fd, to, bytes, static_cast<off_t>(offset));
    return result >= 0 ? result : -errno;
  }
  ssize_t Pwrite(int fd, const void* from, size_t bytes, uint64_t offset) override {
    const ssize_t result = ::pwrite(fd, from, bytes, static_cast<off_t>(offset));
    return result >= 0 ? result : -errno;
  }
};

}  // namespace

VfioKernel& VfioKernel::Real() {
  static RealKernel kernel;
  return kernel;
}

}  // namespace godwit
