#include "vfio/vfio_kernel.h"

#include <fcntl.h>
#include <sys/ioctl.h>

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
};

}  // namespace

VfioKernel& VfioKernel::Real() {
  static RealKernel kernel;
  return kernel;
}

}  // namespace godwit
