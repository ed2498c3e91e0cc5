// The words in which the device tests speak of streams and files.
#ifndef GODWIT_TESTS_VFIO_STREAM_IO_H_
#define GODWIT_TESTS_VFIO_STREAM_IO_H_

#include <absl/strings/string_view.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <stdlib.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>

namespace godwit {

// One read(2) of at most `bytes_max`; the test fails on an error.
inline std::string ReadSome(int fd, size_t bytes_max) {
  std::string bytes(bytes_max, '\0');
  const ssize_t got = ::read(fd, bytes.data(), bytes.size());
  EXPECT_GE(got, 0) << "read: errno " << errno;
  bytes.resize(got > 0 ? static_cast<size_t>(got) : 0);
  return bytes;
}

inline std::string ReadToEnd(int fd) {
  std::string all;
  for (std::string some = ReadSome(fd, 1 << 20); !some.empty(); some = ReadSome(fd, 1 << 20)) {
    all += some;
  }
  return all;
}

inline void WriteAll(int fd, absl::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t written = ::write(fd, bytes.data(), bytes.size());
    ASSERT_GT(written, 0) << "write: errno " << errno;
    bytes.remove_prefix(static_cast<size_t>(written));
  }
}

inline bool ClosesOnExec(int fd) { return (::fcntl(fd, F_GETFD) & FD_CLOEXEC) != 0; }

inline std::string ReadFile(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return std::string(std::istreambuf_iterator<char>(file), {});
}

inline void WriteFile(const std::string& path, absl::string_view content) {
  std::ofstream file(path, std::ios::binary | std::ios::trunc);
  file.write(content.data(), static_cast<std::streamsize>(content.size()));
  ASSERT_TRUE(file.good()) << path;
}

// Removed with all that is in it.
class TempDirectory {
 public:
  TempDirectory() {
    std::string name = testing::TempDir() + "/godwit-vfio-XXXXXX";
    const char* const made = ::mkdtemp(name.data());
    EXPECT_NE(made, nullptr) << name;
    path_ = name;
  }
  ~TempDirectory() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  TempDirectory(const TempDirectory&) = delete;
  TempDirectory& operator=(const TempDirectory&) = delete;

  const std::string& path() const { return path_; }
  std::string Path(absl::string_view name) const { return path_ + "/" + std::string(name); }

 private:
  std::string path_;
};

}  // namespace godwit

#endif  // GODWIT_TESTS_VFIO_STREAM_IO_H_
